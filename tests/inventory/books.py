"""Reading the service's books the way an accountant would: straight from the tables."""

from __future__ import annotations

from datetime import timedelta

from django.utils import timezone

from services.inventory.audit import audit
from services.inventory.models import Reservation, Stock, StockMovement


def counters(ticket_id: int = 1) -> tuple[int, int, int]:
    """Return (available, reserved, sold)."""
    row = Stock.objects.get(ticket_id=ticket_id)
    return row.available, row.reserved, row.sold


def status_of(reservation_id: str) -> str | None:
    """Return a reservation's status, None when there is no such row."""
    row = Reservation.objects.filter(pk=reservation_id).first()
    return str(row.status) if row else None


def ledger_of(reservation_id: str) -> list[str]:
    """Return the kinds of a reservation's movements, oldest first."""
    rows = StockMovement.objects.filter(reservation_id=reservation_id).order_by("seq")
    return [str(row.kind) for row in rows]


def violations() -> list[str]:
    """Return everything that the audit finds wrong; an empty list is what a test hopes for."""
    return [found["text"] for check in audit()["checks"] for found in check["violations"]]


def make_overdue(*reservation_ids: str, by_seconds: float = 1) -> None:
    """Let the holds' time have run out ``by_seconds`` ago."""
    past = timezone.now() - timedelta(seconds=by_seconds)
    Reservation.objects.filter(pk__in=reservation_ids).update(expires_at=past)
