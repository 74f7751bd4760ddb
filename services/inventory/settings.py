"""Settings of the inventory service: what differs from common.settings."""

from __future__ import annotations

from common.databases import databases
from common.settings import *  # noqa: F403
from common.settings import COMMON_APPS, SPECTACULAR_SETTINGS, admin_theme, secret_key

SERVICE = "inventory"
SECRET_KEY = secret_key(SERVICE)
ROOT_URLCONF = "services.inventory.urls"
WSGI_APPLICATION = "services.inventory.wsgi.application"
INSTALLED_APPS = [*COMMON_APPS, "common.events", "common.idempotency", "services.inventory"]
DATABASES = databases(SERVICE)
DATABASE_ROUTERS = ["services.inventory.router.InventoryRouter"]
SESSION_COOKIE_NAME = f"{SERVICE}_session"

EVENT_SUBSCRIPTIONS = {
    "catalog": {"ticket.changed": "services.inventory.labels.apply_ticket_changed"}
}
LOOPS = [
    "services.inventory.expiry.expire_holds",
    "common.events.relay.relay_outbox",
    "common.events.inbox.consume_events",
    "common.idempotency.records.forget_keys",
]
SPECTACULAR_SETTINGS = {
    **SPECTACULAR_SETTINGS,
    "TITLE": "Inventory",
    "DESCRIPTION": "Stock and reservations: the single source of truth of what is left.",
    "SCHEMA_PATH_PREFIX": "/api/inventory",
}
UNFOLD = admin_theme("Inventory")
