"""Settings of the order service: what differs from common.settings."""

from __future__ import annotations

from django.core.exceptions import ImproperlyConfigured

from common.databases import databases
from common.settings import *  # noqa: F403
from common.settings import COMMON_APPS, DEBUG, SPECTACULAR_SETTINGS, admin_theme, env, secret_key

SERVICE = "order"
SECRET_KEY = secret_key(SERVICE)
ROOT_URLCONF = "services.order.urls"
WSGI_APPLICATION = "services.order.wsgi.application"
INSTALLED_APPS = [*COMMON_APPS, "common.events", "common.idempotency", "services.order"]
DATABASES = databases(SERVICE)
DATABASE_ROUTERS = ["services.order.router.OrderRouter"]
SESSION_COOKIE_NAME = f"{SERVICE}_session"

EVENT_SUBSCRIPTIONS = {
    "catalog": {"ticket.changed": "services.order.offers.apply_ticket_changed"},
    "inventory": {"reservation.expired": "services.order.expiry.apply_reservation_expired"},
}
LOOPS = [
    "services.order.sweeping.finish_orders",
    "common.events.relay.relay_outbox",
    "common.events.inbox.consume_events",
    "common.idempotency.records.forget_keys",
]

# Payment providers by the name that a webhook's URL carries; the first one is used for payments.
PAYMENT_PROVIDERS = {"sandbox": "services.order.providers.sandbox.SandboxProvider"}
# Whoever knows this secret can call an order paid.
SANDBOX_WEBHOOK_SECRET = env.str("SANDBOX_WEBHOOK_SECRET", default="debug-only" if DEBUG else "")
if not SANDBOX_WEBHOOK_SECRET:
    raise ImproperlyConfigured(
        "SANDBOX_WEBHOOK_SECRET is not set (50 random characters; needed unless DEBUG=true)"
    )

SPECTACULAR_SETTINGS = {
    **SPECTACULAR_SETTINGS,
    "TITLE": "Orders",
    "DESCRIPTION": "Orders and payments: from a click to a ticket, whatever breaks in between.",
    "SCHEMA_PATH_PREFIX": "/api",
    "ENUM_NAME_OVERRIDES": {
        "OrderStatus": "services.order.states.OrderStatus",
        "PaymentStatus": "services.order.states.PaymentStatus",
    },
}
UNFOLD = admin_theme("Orders")
