"""The cookies of a browser that is signed in; scripts can read none of them."""

from __future__ import annotations

import uuid
from datetime import timedelta

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from services.auth.sessions import TokenPair

# A browser sends each no further than to where it is needed.
_PATHS = {
    settings.ACCESS_COOKIE: "/",
    settings.REFRESH_COOKIE: "/login",
    settings.SESSION_COOKIE: "/logout",
}


def sign_in(response: HttpResponse, pair: TokenPair) -> HttpResponse:
    """Give the browser the pair, and what it needs to log out; return the response."""
    _set(response, settings.ACCESS_COOKIE, pair.access, settings.ACCESS_TOKEN_LIFETIME)
    _set(response, settings.REFRESH_COOKIE, pair.refresh, settings.REFRESH_TOKEN_LIFETIME)
    _set(response, settings.SESSION_COOKIE, pair.session_id.hex, settings.REFRESH_TOKEN_LIFETIME)
    return response


def sign_out(response: HttpResponse) -> HttpResponse:
    """Take all of it back; return the response."""
    for name, path in _PATHS.items():
        response.delete_cookie(name, path=path, samesite="Lax")
    return response


def session_id(request: HttpRequest) -> uuid.UUID | None:
    """Return the login that the browser may end."""
    try:
        return uuid.UUID(hex=request.COOKIES.get(settings.SESSION_COOKIE, ""))
    except ValueError:
        return None


def _set(response: HttpResponse, name: str, value: str, lifetime: timedelta) -> None:
    response.set_cookie(
        name,
        value,
        max_age=lifetime,
        path=_PATHS[name],
        secure=settings.COOKIE_SECURE,
        httponly=True,
        samesite="Lax",
    )
