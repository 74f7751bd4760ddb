"""Per-buyer limits: what each buyer holds or has bought of a ticket, counted in the transaction
that moves the stock.

Counting locks a buyer's row to the end of the transaction, so what it says afterwards is exact and
two orders of one buyer that arrive together cannot both pass. All rows of a batch go in sorted
order and in one statement, on every path: batches of several processes cannot deadlock on them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

from django.db.models import Sum

from common import bulk
from common.transactions import in_transaction
from services.inventory.entries import BooksDisagree, BuyerTicket
from services.inventory.models import BuyerHold, Reservation
from services.inventory.states import Status

_add = bulk.adder(BuyerHold, "ticket_id", "buyer_id", "quantity")
_ensure = bulk.ensurer(BuyerHold, "ticket_id", "buyer_id", "quantity")
_take = bulk.taker(BuyerHold, "ticket_id", "buyer_id", "quantity")


def count(units: Mapping[BuyerTicket, int]) -> dict[BuyerTicket, int]:
    """Count units for their buyers and return what each held before. ``units`` is sorted."""
    all_new = _add((*key, quantity) for key, quantity in units.items())
    if all_new:
        # Most of a crowd has bought nothing yet: that saves asking.
        return dict.fromkeys(units, 0)
    return {key: now - units[key] for key, now in _counted(units).items()}


def give_back(units: Mapping[BuyerTicket, int]) -> None:
    """Count units less: refused, released or expired. ``units`` is sorted.

    Raises BooksDisagree for units that were never counted.
    """
    if not _take((*key, quantity) for key, quantity in units.items()):
        raise BooksDisagree(f"not all of these were counted: {sorted(units)}")


def recount(ticket_id: int, buyer_id: str) -> tuple[int, int]:
    """Count a buyer's units anew from the reservations; return what was counted and what is.

    The row is locked first. Who moves a reservation comes to this row before it commits: either it
    has been here and is seen, or it comes after and counts on from what is written now.
    """

    def work() -> tuple[int, int]:
        _ensure([(ticket_id, buyer_id, 0)])
        row = BuyerHold.objects.filter(ticket_id=ticket_id, buyer_id=buyer_id)
        before = row.values_list("quantity", flat=True).get()
        live = Reservation.objects.filter(
            ticket_id=ticket_id, buyer_id=buyer_id, status__in=[Status.RESERVED, Status.COMMITTED]
        )
        after = live.aggregate(units=Sum("quantity"))["units"] or 0
        row.update(quantity=after)
        return before, after

    return in_transaction(work)


def _counted(keys: Mapping[BuyerTicket, int]) -> dict[BuyerTicket, int]:
    buyers = defaultdict(list)
    for ticket_id, buyer_id in keys:
        buyers[ticket_id].append(buyer_id)
    return {
        (ticket_id, buyer_id): quantity
        for ticket_id, buyer_ids in buyers.items()
        for buyer_id, quantity in BuyerHold.objects.filter(
            ticket_id=ticket_id, buyer_id__in=buyer_ids
        ).values_list("buyer_id", "quantity")
    }
