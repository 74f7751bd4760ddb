"""Who is calling, for DRF: a Bearer token, or the same token in a cookie with CSRF enforced."""

from __future__ import annotations

from typing import cast

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from rest_framework.authentication import BaseAuthentication
from rest_framework.exceptions import AuthenticationFailed, PermissionDenied
from rest_framework.request import Request
from rest_framework_simplejwt.exceptions import TokenError

from common.tokens import Principal, principal_from

ANONYMOUS = Principal("", "anonymous", "anyone", is_authenticated=False, is_anonymous=True)


def anonymous() -> Principal:
    """Return the principal of a request without a token."""
    return ANONYMOUS


class BearerAuthentication(BaseAuthentication):
    """``Authorization: Bearer <token>``; any other use of the header is refused."""

    def authenticate(self, request: Request) -> tuple[Principal, str] | None:
        header = request.headers.get("Authorization")
        if header is None:
            return None
        scheme, _, raw = header.partition(" ")
        if scheme.lower() != "bearer" or not raw or not raw.isascii():
            raise AuthenticationFailed("The Authorization header must be: Bearer <token>.")
        return _principal(raw.strip()), raw

    def authenticate_header(self, request: Request) -> str:
        return 'Bearer realm="flashsale"'


class CookieAuthentication(BaseAuthentication):
    """The access cookie that auth's login page sets; unsafe methods need the CSRF token too."""

    def authenticate(self, request: Request) -> tuple[Principal, str] | None:
        raw = request.COOKIES.get(settings.ACCESS_COOKIE)
        if not raw:
            return None
        try:
            principal = principal_from(raw)
        except TokenError:
            # A stale cookie must not lock a browser out of public pages.
            return None
        _enforce_csrf(request._request)
        return principal, raw


def principal_of(request: Request) -> Principal:
    """Return who sent a request that passed a permission; typed, unlike ``request.user``."""
    return cast(Principal, request.user)


def _principal(raw: str) -> Principal:
    try:
        return principal_from(raw)
    except TokenError as error:
        raise AuthenticationFailed("The token is invalid or expired.") from error


class _CsrfCheck(CsrfViewMiddleware):
    def _reject(self, request: HttpRequest, reason: str) -> str:
        return reason


def _enforce_csrf(request: HttpRequest) -> None:
    def unused(request: HttpRequest) -> HttpResponse:
        raise AssertionError("the CSRF check never calls on")

    check = _CsrfCheck(unused)
    check.process_request(request)
    reason = check.process_view(request, unused, (), {})
    if reason:
        raise PermissionDenied(f"CSRF check failed: {reason}", code="csrf_failed")
