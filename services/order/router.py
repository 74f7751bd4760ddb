"""Order's database router."""

from common.routers import ServiceRouter


class OrderRouter(ServiceRouter):
    """Orders, payments, offers and the service's own outbox, inbox and keys; nothing else."""

    app_labels = frozenset({"order", "events", "idempotency"})
