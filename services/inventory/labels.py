"""Names of tickets, projected from the catalog's events for the people in the admin."""

from __future__ import annotations

from typing import Any

from common import bulk
from services.inventory.models import TicketLabel

_ensure = bulk.ensurer(TicketLabel, "ticket_id", "label", "version")


def apply_ticket_changed(data: dict[str, Any], event: dict[str, Any]) -> None:
    """Keep the newest name of a ticket; older events than the one known change nothing."""
    ticket_id, version = int(data["ticket_id"]), int(data["version"])
    label = f"{data['event_title']} · {data['name']}"[:512]
    _ensure([(ticket_id, label, version)])
    TicketLabel.objects.filter(ticket_id=ticket_id, version__lt=version).update(
        label=label, version=version
    )
