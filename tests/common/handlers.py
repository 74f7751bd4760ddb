"""An effect that shows how often, and in which order, events were applied.

It borrows inventory's table of labels: a row per number, its version counts the applications.
"""

from __future__ import annotations

from typing import Any

from django.db.models import F

from services.inventory.models import TicketLabel

order_of_application: list[int] = []


def tally(data: dict[str, Any], event: dict[str, Any]) -> None:
    """Count the event; one that is ``poison`` fails after its effect, each time."""
    number = data["number"]
    row = TicketLabel(ticket_id=number, label=event["id"], version=0)
    TicketLabel.objects.bulk_create([row], ignore_conflicts=True)
    TicketLabel.objects.filter(ticket_id=number).update(version=F("version") + 1)
    order_of_application.append(number)
    if data.get("poison"):
        raise RuntimeError(f"number {number} is poison")


def tallies() -> dict[int, int]:
    """Return how often each number was applied."""
    return dict(TicketLabel.objects.values_list("ticket_id", "version"))
