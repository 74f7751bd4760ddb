"""Reads who is calling from a Bearer token or from the access cookie."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest
from rest_framework_simplejwt.exceptions import TokenError

from common.tokens import Principal, ServiceToken, principal_from
from gateway.routes import SERVICES


class InvalidToken(Exception):
    """The Authorization header holds something that is not a valid token here."""


def caller_of(request: HttpRequest, upstream: str) -> Principal | None:
    """Return who calls, None when nobody says so; as strict as the services themselves are.

    A service's token is read for the service that it is sent to: it is worth nothing elsewhere.
    """
    header = request.headers.get("Authorization", "")
    if not header:
        return cookie_holder(request)
    scheme, _, raw = header.partition(" ")
    if scheme.lower() != "bearer":
        raise InvalidToken
    try:
        return principal_from(raw.strip())
    except TokenError:
        return _service(raw.strip(), upstream)


def cookie_holder(request: HttpRequest) -> Principal | None:
    """Return the person whose access cookie came along; a stale cookie is no cookie."""
    try:
        return principal_from(request.COOKIES.get(settings.ACCESS_COOKIE, ""))
    except TokenError:
        return None


def _service(raw: str, audience: str) -> Principal:
    for issuer in SERVICES:
        try:
            token = ServiceToken(raw, issuer=issuer, audience=audience)
        except TokenError:
            continue
        if token.payload["sub"] == issuer:
            return Principal(issuer, issuer, "service")
    raise InvalidToken
