"""What must be true of the catalog's tables, and the facts that the whole system's audit joins."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db.models import F, Model, Q

from common.auditing import Violation, check
from common.databases import consistent_snapshot
from common.events.audit import Window, event_facts, nothing_parked, window_at
from services.catalog.models import Availability, Event, Ticket
from services.catalog.offers import offer


def audit(window: Window | None = None) -> dict[str, Any]:
    """Return checks and facts of one consistent snapshot."""
    negative = Availability.objects.filter(available__lt=0)
    backwards = Event.objects.filter(starts_at__gt=F("ends_at"))
    unsellable = Ticket.objects.filter(
        Q(price__lt=0) | Q(per_order_limit__lt=1) | Q(sale_starts_at__gte=F("sale_ends_at"))
    )
    with consistent_snapshot():
        checks = [
            check("C1", "availability is never negative", _named("ticket", negative)),
            check("C2", "events end after they start", _named("show", backwards)),
            check(
                "C3", "tickets have sane prices, limits and windows", _named("ticket", unsellable)
            ),
            nothing_parked(),
        ]
        facts = {**_facts(), **event_facts(window or window_at())}
        return {"service": "catalog", "checks": checks, "facts": facts}


def _named(subject: str, rows: Iterable[Model]) -> Iterable[Violation]:
    """``subject`` is ``show`` for what tickets are sold for: an event is a message elsewhere."""
    for row in rows:
        yield Violation("row_impossible", subject, str(row.pk), f"{subject} {row.pk}: {row}")


def _facts() -> dict[str, Any]:
    shown = Availability.objects.values_list("ticket_id", "available", "version")
    tickets = Ticket.objects.select_related("event").order_by("pk")
    return {
        "availability": {
            ticket_id: {"available": available, "version": version}
            for ticket_id, available, version in shown.iterator()
        },
        "offers": {ticket.pk: dict(offer(ticket)) for ticket in tickets.iterator()},
    }
