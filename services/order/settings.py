"""Settings of the order service: what differs from common.settings."""

from __future__ import annotations

from importlib.util import find_spec

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
    "services.order.notices.forget_notices",
]

_PROVIDERS = {
    "sandbox": "services.order.providers.sandbox.SandboxProvider",
    "stripe": "services.order.providers.stripe.StripeProvider",
}
PAYMENT_PROVIDER = env.str("PAYMENT_PROVIDER", default="") or "sandbox"
if PAYMENT_PROVIDER not in _PROVIDERS:
    raise ImproperlyConfigured(f"PAYMENT_PROVIDER is one of {', '.join(_PROVIDERS)}")
# Whoever knows this secret can call an order paid that chose to pay in the sandbox.
SANDBOX_WEBHOOK_SECRET = env.str("SANDBOX_WEBHOOK_SECRET", default="debug-only" if DEBUG else "")
if PAYMENT_PROVIDER == "sandbox" and not SANDBOX_WEBHOOK_SECRET:
    raise ImproperlyConfigured(
        "SANDBOX_WEBHOOK_SECRET is not set (50 random characters; needed unless DEBUG=true)"
    )
STRIPE_SECRET_KEY = env.str("STRIPE_SECRET_KEY", default="")
STRIPE_WEBHOOK_SECRET = env.str("STRIPE_WEBHOOK_SECRET", default="")
_STRIPE_INSTALLED = find_spec("stripe") is not None
if PAYMENT_PROVIDER == "stripe":
    if not STRIPE_SECRET_KEY or not STRIPE_WEBHOOK_SECRET:
        raise ImproperlyConfigured(
            "PAYMENT_PROVIDER=stripe needs STRIPE_SECRET_KEY (sk_…, of the Stripe dashboard) and "
            "STRIPE_WEBHOOK_SECRET (whsec_…, of its endpoint /api/payments/webhooks/stripe)"
        )
    if not _STRIPE_INSTALLED:
        raise ImproperlyConfigured(
            "PAYMENT_PROVIDER=stripe needs Stripe's SDK: "
            "pip install --require-hashes -r deploy/requirements/stripe.txt"
        )
_USABLE = {
    "sandbox": bool(SANDBOX_WEBHOOK_SECRET),
    "stripe": bool(STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET) and _STRIPE_INSTALLED,
}
# By the name that a webhook's URL carries. PAYMENT_PROVIDER alone takes new payments, so that where
# money is real no sandbox takes orders; the other one still refunds and reports what it has taken.
PAYMENT_PROVIDERS = {name: path for name, path in _PROVIDERS.items() if _USABLE[name]}

# What becomes of money that arrives when its order has expired, or its hold is lost.
LATE_PAYMENT = env.str("LATE_PAYMENT", default="") or "refund"
if LATE_PAYMENT not in ("refund", "rereserve"):
    raise ImproperlyConfigured("LATE_PAYMENT is refund or rereserve")

SPECTACULAR_SETTINGS = {
    **SPECTACULAR_SETTINGS,
    "TITLE": "Orders",
    "DESCRIPTION": "Orders and payments: from a click to a ticket, whatever breaks in between.",
    "SCHEMA_PATH_PREFIX": "/api",
    "ENUM_NAME_OVERRIDES": {
        "OrderStatus": "services.order.states.OrderStatus",
        "PaymentStatus": "services.order.states.PaymentStatus",
        "LatePayment": "services.order.states.LatePayment",
    },
}
UNFOLD = admin_theme("Orders")
