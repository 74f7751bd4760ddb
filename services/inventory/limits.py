"""Per-buyer limits, counted in the same transaction as the stock they limit.

Conditional UPDATEs again: two orders of one buyer that arrive together cannot both pass.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from django.db.models import F

from services.inventory.models import BuyerHold, Reservation

BuyerTicket = tuple[int, str]


def sums_by_buyer(reservations: Iterable[Reservation]) -> dict[BuyerTicket, int]:
    """Return units per (ticket, buyer), sorted, so that every transaction locks in one order.

    Reservations without a buyer count against nobody.
    """
    sums: dict[BuyerTicket, int] = defaultdict(int)
    for reservation in reservations:
        if reservation.buyer_id:
            sums[reservation.ticket_id, reservation.buyer_id] += reservation.quantity
    return dict(sorted(sums.items()))


def take(ticket_id: int, buyer_id: str, quantity: int, limit: int | None) -> bool:
    """Count ``quantity`` more units for the buyer; False (and no effect) beyond ``limit``."""
    if limit is not None and quantity > limit:
        return False
    row = BuyerHold.objects.filter(ticket_id=ticket_id, buyer_id=buyer_id)
    fitting = row if limit is None else row.filter(quantity__lte=limit - quantity)
    if fitting.update(quantity=F("quantity") + quantity):
        return True
    first = BuyerHold(ticket_id=ticket_id, buyer_id=buyer_id, quantity=0)
    BuyerHold.objects.bulk_create([first], ignore_conflicts=True)
    return bool(fitting.update(quantity=F("quantity") + quantity))


def give_back(ticket_id: int, buyer_id: str, quantity: int) -> None:
    """Count ``quantity`` units less: the hold was released or has expired."""
    BuyerHold.objects.filter(ticket_id=ticket_id, buyer_id=buyer_id, quantity__gte=quantity).update(
        quantity=F("quantity") - quantity
    )
