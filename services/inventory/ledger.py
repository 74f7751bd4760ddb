"""The ledger: every change of a counter and every fate of a reservation, append-only."""

from __future__ import annotations

from collections.abc import Iterable

from django.db.models import QuerySet
from django.utils import timezone

from services.inventory.models import Reservation, StockMovement
from services.inventory.states import TRANSITIONS


def record_stock(*, ticket_id: int, kind: str, quantity: int, actor: str) -> None:
    """Write an initialisation (the new total) or an adjustment (the signed difference)."""
    StockMovement.objects.create(
        ticket_id=ticket_id, kind=kind, quantity=quantity, actor=actor, at=timezone.now()
    )


def record_reservations(*, kind: str, reservations: Iterable[Reservation], actor: str) -> None:
    """Write one movement per reservation, with the reason the reservation carries."""
    now = timezone.now()
    StockMovement.objects.bulk_create(
        StockMovement(
            ticket_id=reservation.ticket_id,
            kind=kind,
            quantity=reservation.quantity,
            reservation_id=reservation.reservation_id,
            actor=actor,
            reason=reservation.reason,
            at=now,
        )
        for reservation in reservations
    )


def transitions_of(reservation_id: str) -> list[dict[str, object]]:
    """Return a reservation's life so far: ``[{from, to, at, reason}, …]``, oldest first."""
    return [
        {
            "from": str(TRANSITIONS[movement.kind].source),
            "to": str(TRANSITIONS[movement.kind].target),
            "at": movement.at,
            "reason": movement.reason,
        }
        for movement in movements_of(reservation_id)
    ]


def movements_of(reservation_id: str) -> QuerySet[StockMovement]:
    """Return the ledger entries of one reservation, oldest first."""
    return StockMovement.objects.filter(reservation_id=reservation_id).order_by("seq")
