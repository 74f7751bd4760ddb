"""Inventory's database router."""

from common.routers import ServiceRouter


class InventoryRouter(ServiceRouter):
    """Stock, reservations and the service's own outbox, inbox and keys; nothing else."""

    app_labels = frozenset({"inventory", "events", "idempotency"})
