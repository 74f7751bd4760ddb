"""Everything that the inventory service answers."""

from django.urls import include, path

from common.admin_login import admin_urls
from common.health import service_urls

urlpatterns = [
    path("api/inventory/", include("services.inventory.api.urls")),
    path("internal/inventory/", include("services.inventory.api.internal_urls")),
    *service_urls("inventory"),
    *admin_urls("inventory"),
]
