"""Everything that the catalog service answers."""

from django.urls import include, path

from common.admin_login import admin_urls
from common.health import service_urls

urlpatterns = [
    path("api/catalog/", include("services.catalog.api.urls")),
    path("internal/catalog/", include("services.catalog.api.internal_urls")),
    *service_urls("catalog"),
    *admin_urls("catalog"),
]
