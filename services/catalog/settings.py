"""Settings of the catalog service: what differs from common.settings."""

from __future__ import annotations

from common.databases import databases
from common.settings import *  # noqa: F403
from common.settings import COMMON_APPS, SPECTACULAR_SETTINGS, admin_theme, secret_key

SERVICE = "catalog"
SECRET_KEY = secret_key(SERVICE)
ROOT_URLCONF = "services.catalog.urls"
WSGI_APPLICATION = "services.catalog.wsgi.application"
INSTALLED_APPS = [*COMMON_APPS, "common.events", "common.idempotency", "services.catalog"]
DATABASES = databases(SERVICE)
DATABASE_ROUTERS = ["services.catalog.router.CatalogRouter"]
SESSION_COOKIE_NAME = f"{SERVICE}_session"

EVENT_SUBSCRIPTIONS = {
    "inventory": {"stock.changed": "services.catalog.availability.apply_stock_changed"}
}
LOOPS = [
    "common.events.relay.relay_outbox",
    "common.events.inbox.consume_events",
    "common.idempotency.records.forget_keys",
]
SPECTACULAR_SETTINGS = {
    **SPECTACULAR_SETTINGS,
    "TITLE": "Catalog",
    "DESCRIPTION": "Events and tickets: what is sold, when, at which price, and what is left.",
    "SCHEMA_PATH_PREFIX": "/api/catalog",
    "ENUM_NAME_OVERRIDES": {
        "EventStatus": "services.catalog.models.Event.Status",
        "TicketStatus": "services.catalog.models.Ticket.Status",
    },
}
UNFOLD = admin_theme("Catalog")
