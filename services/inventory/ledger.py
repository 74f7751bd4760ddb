"""The ledger: every change of a counter and every fate of a reservation, append-only.

One table is the audit of a reservation and the ledger of a ticket. A ticket's lines are written
while its stock row is locked, so that their ``seq`` is the order in which things happened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from django.db.models import Max, QuerySet, Sum
from django.utils import timezone

from common import bulk
from services.inventory.entries import State
from services.inventory.models import StockMovement
from services.inventory.states import TRANSITIONS

Kind = StockMovement.Kind
_insert = bulk.inserter(
    StockMovement,
    *("ticket_id", "kind", "quantity", "reservation_id", "actor", "reason", "at"),
)


class Counters(TypedDict):
    """A ticket's stock as the ledger tells it."""

    total: int
    available: int
    reserved: int
    sold: int


def record_stock(*, ticket_id: int, kind: str, quantity: int, actor: str) -> None:
    """Write an initialisation (the new total) or an adjustment (the signed difference)."""
    StockMovement.objects.create(
        ticket_id=ticket_id, kind=kind, quantity=quantity, actor=actor, at=timezone.now()
    )


def record_reservations(entries: Iterable[tuple[str, State, str]]) -> None:
    """Write one movement per (kind, reservation as it is now, actor)."""
    now = timezone.now()
    _insert(
        (one.ticket_id, kind, one.quantity, one.reservation_id, actor, one.reason, now)
        for kind, one, actor in entries
    )


def counters(ticket_id: int, up_to: int | None = None) -> Counters:
    """Recompute a ticket's counters from its movements, all of them or up to a ``seq``.

    An initialisation starts the sum anew, which it may only while nothing is reserved or sold.
    """
    lines = movements_of_ticket(ticket_id, up_to)
    start = lines.filter(kind=Kind.INITIALISE).aggregate(seq=Max("seq"))["seq"] or 0
    sums = dict(
        lines.filter(seq__gte=start).values_list("kind").annotate(units=Sum("quantity")).order_by()
    )
    result = Counters(total=0, available=0, reserved=0, sold=0)
    for kind, units in sums.items():
        add(result, kind, units)
    return result


def add(counters: Counters, kind: str, units: int) -> None:
    """Add what movements of this kind and so many units do to the counters."""
    stock_line = {"total": +1, "available": +1}
    effect = TRANSITIONS[kind].effect if kind in TRANSITIONS else stock_line
    for counter, sign in effect.items():
        counters[counter] += sign * units  # type: ignore[literal-required]


def transitions_of(reservation_id: str) -> list[dict[str, object]]:
    """Return a reservation's life so far: ``[{from, to, at, reason}, …]``, oldest first."""
    return [
        {
            "from": str(TRANSITIONS[movement.kind].source),
            "to": str(TRANSITIONS[movement.kind].target),
            "at": movement.at,
            "reason": movement.reason,
        }
        for movement in StockMovement.objects.filter(reservation_id=reservation_id).order_by("seq")
    ]


def movements_of_ticket(ticket_id: int, up_to: int | None = None) -> QuerySet[StockMovement]:
    """Return a ticket's movements, oldest first, all of them or up to a ``seq``."""
    lines = StockMovement.objects.filter(ticket_id=ticket_id).order_by("seq")
    return lines if up_to is None else lines.filter(seq__lte=up_to)
