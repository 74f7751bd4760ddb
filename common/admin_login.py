"""One login for every service's Django admin: auth's cookie, mapped to a local shadow user."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

from django.conf import settings
from django.contrib import admin
from django.contrib.auth.models import AnonymousUser, User
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, URLResolver, path, reverse
from django.utils.module_loading import import_string
from rest_framework_simplejwt.exceptions import TokenError

from common.tokens import Principal, principal_from

ADMIN_PREFIX = "/admin/"


class AdminCookieMiddleware:
    """Under /admin/, the request's user is the admin whom auth's cookie names, or nobody."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.load_user = import_string(settings.ADMIN_USER_LOADER)

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path.startswith(ADMIN_PREFIX):
            principal = _admin_from_cookie(request)
            request.user = self.load_user(principal) if principal else AnonymousUser()
        return self.get_response(request)


def shadow_user(principal: Principal) -> User:
    """Return the local superuser that stands for auth's admin (Django's log entries need a row).

    It has no usable password: the only way in is auth's cookie. The auth service itself, which has
    the real users, names another ADMIN_USER_LOADER.
    """
    user, created = User.objects.get_or_create(
        username=principal.username, defaults={"is_staff": True, "is_superuser": True}
    )
    if created:
        user.set_unusable_password()
        user.save(update_fields=["password"])
    return user


def admin_urls(service: str) -> list[URLPattern | URLResolver]:
    """Return the URL patterns of ``/admin/<service>/`` with login and logout sent to auth.

    Django's own form for one's password would save it past the domain, and in other services give
    a shadow user one.
    """
    prefix = f"admin/{service}/"
    own_password = admin.site.admin_view(_to_own_password) if service == "auth" else _not_here
    return [
        path(f"{prefix}login/", _to_login),
        path(f"{prefix}logout/", _to_logout),
        path(f"{prefix}password_change/", own_password),
        path(prefix, admin.site.urls),
    ]


def _to_login(request: HttpRequest) -> HttpResponse:
    target = request.GET.get("next", request.path.removesuffix("login/"))
    return HttpResponseRedirect(f"{settings.LOGIN_PATH}?next={quote(target)}")


def _to_logout(request: HttpRequest) -> HttpResponse:
    # 307 keeps the POST and its CSRF token.
    response = HttpResponseRedirect("/logout")
    response.status_code = 307
    return response


def _to_own_password(request: HttpRequest) -> HttpResponse:
    page = reverse("admin:auth_user_password_change", args=[request.user.pk])
    return HttpResponseRedirect(page)


def _not_here(request: HttpRequest) -> HttpResponse:
    raise Http404("Passwords are changed in the auth service.")


def _admin_from_cookie(request: HttpRequest) -> Principal | None:
    try:
        principal = principal_from(request.COOKIES.get(settings.ACCESS_COOKIE, ""))
    except TokenError:
        return None
    return principal if principal.role == "admin" else None
