"""Everything that the auth service answers."""

from django.urls import include, path

from common.admin_login import admin_urls
from common.health import service_urls
from services.auth import pages

urlpatterns = [
    path("api/auth/", include("services.auth.api.urls")),
    path("login", pages.login),
    path("login/refresh", pages.refresh),
    path("logout", pages.logout),
    path("register", pages.register),
    *service_urls("auth"),
    *admin_urls("auth"),
]
