"""What the gateway itself serves; gateway/routes.py says what of it is reachable from outside."""

from django.urls import path

from common.health import healthz, readyz
from common.metrics import metrics
from gateway import docs, pages
from gateway.authorize import authorize

urlpatterns = [
    path("", pages.events, name="events"),
    path("events/<int:event_id>", pages.event, name="event"),
    path("orders", pages.orders, name="orders"),
    path("orders/<str:order_id>", pages.order, name="order"),
    path("pay/<str:payment_id>", pages.pay, name="pay"),
    path("api/docs", docs.swagger, name="docs"),
    path("api/openapi.json", docs.openapi, name="openapi"),
    path("internal/gateway/authorize", authorize),
    path("healthz", healthz),
    path("readyz", readyz),
    path("metrics", metrics),
]
