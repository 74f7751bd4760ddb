"""Catalog's database router."""

from common.routers import ServiceRouter


class CatalogRouter(ServiceRouter):
    """Events, tickets, availability and the service's own outbox, inbox and keys; nothing else."""

    app_labels = frozenset({"catalog", "events", "idempotency"})
