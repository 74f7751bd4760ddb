"""Everything that the order service answers."""

from django.urls import include, path

from common.admin_login import admin_urls
from common.health import service_urls

urlpatterns = [
    path("api/", include("services.order.api.urls")),
    *service_urls("order"),
    *admin_urls("order"),
]
