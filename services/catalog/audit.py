"""What must be true of the catalog's tables, and the facts that the whole system's audit joins."""

from __future__ import annotations

from typing import Any

from django.db.models import F, Q

from common.events.outbox import pending_count
from common.events.parked import check_parked
from services.catalog.models import Availability, Event, Ticket

VIOLATIONS_MAX = 20


def audit() -> dict[str, Any]:
    """Return {service, checks, facts}."""
    negative = Availability.objects.filter(available__lt=0)
    backwards = Event.objects.filter(starts_at__gt=F("ends_at"))
    unsellable = Ticket.objects.filter(
        Q(price__lt=0) | Q(per_order_limit__lt=1) | Q(sale_starts_at__gte=F("sale_ends_at"))
    )
    return {
        "service": "catalog",
        "checks": [
            _check("C1", "availability is never negative", [str(row) for row in negative]),
            _check("C2", "events end after they start", [str(row.pk) for row in backwards]),
            _check(
                "C3",
                "tickets have sane prices, limits and windows",
                [str(row.pk) for row in unsellable],
            ),
            check_parked(),
        ],
        "facts": {
            "availability": {
                str(row.ticket_id): {"available": row.available, "version": row.version}
                for row in Availability.objects.all()
            },
            "outbox_pending": pending_count(),
        },
    }


def _check(check_id: str, name: str, violations: list[str]) -> dict[str, Any]:
    return {
        "id": check_id,
        "name": name,
        "ok": not violations,
        "violations": violations[:VIOLATIONS_MAX],
        "count": len(violations),
    }
