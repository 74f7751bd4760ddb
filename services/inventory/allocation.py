"""First come, first served: who gets what, when not all of a batch can have what they want.

A pure function of numbers. Whoever calls it has locked the rows that the numbers come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.errors import NotFound, Problem
from services.inventory.entries import (
    BuyerTicket,
    Hold,
    group_refused,
    units_by_buyer,
    units_by_ticket,
)

Refusals = dict[str, Problem]


def allocate(
    groups: Sequence[Sequence[Hold]], left: Mapping[int, int], held: Mapping[BuyerTicket, int]
) -> list[Refusals]:
    """Serve groups in their order; return for each the refusals of its holds, or none at all.

    ``left``: units available per ticket that has a stock; ``held``: units per (ticket, buyer)
    before this. A refused group takes nothing, so whoever comes later may still be served.
    """
    left, held = dict(left), dict(held)
    told = []
    for holds in groups:
        refusals = _refusals(holds, left, held)
        told.append(refusals)
        if not refusals:
            for ticket_id, units in units_by_ticket(holds).items():
                left[ticket_id] -= units
            for key, units in units_by_buyer(holds).items():
                held[key] = held.get(key, 0) + units
    return told


def limits_of(holds: Sequence[Hold]) -> dict[BuyerTicket, int]:
    """Return the lowest limit that is stated for each (ticket, buyer)."""
    limits: dict[BuyerTicket, int] = {}
    for hold in holds:
        if hold.buyer_id and hold.buyer_limit is not None:
            key = hold.ticket_id, hold.buyer_id
            limits[key] = min(hold.buyer_limit, limits.get(key, hold.buyer_limit))
    return limits


def _refusals(
    holds: Sequence[Hold], left: Mapping[int, int], held: Mapping[BuyerTicket, int]
) -> Refusals:
    wanted, by_buyer = units_by_ticket(holds), units_by_buyer(holds)
    unknown = {one for one in wanted if one not in left}
    limits = limits_of(holds)
    over = {key for key in limits if held.get(key, 0) + by_buyer[key] > limits[key]}
    lacking = {one for one in wanted if one in left and wanted[one] > left[one]}
    if not unknown and not over and not lacking:
        return {}
    # One reason for a group: the gravest, and everybody else is refused for the group's sake.
    told: Refusals = {hold.reservation_id: group_refused() for hold in holds}
    for hold in holds:
        ticket_id = hold.ticket_id
        if unknown:
            if ticket_id in unknown:
                problem: Problem = NotFound("ticket_not_found", f"Ticket {ticket_id} has no stock.")
                told[hold.reservation_id] = problem
        elif over:
            if (ticket_id, hold.buyer_id) in over:
                told[hold.reservation_id] = limit_exceeded(
                    ticket_id, limits[ticket_id, hold.buyer_id]
                )
        elif ticket_id in lacking:
            told[hold.reservation_id] = insufficient_stock(
                ticket_id, wanted[ticket_id], left[ticket_id]
            )
    return told


def limit_exceeded(ticket_id: int, limit: int) -> Problem:
    """Return the refusal for units beyond what a buyer may have."""
    return Problem(
        409,
        "limit_exceeded",
        f"A buyer may hold at most {limit} of ticket {ticket_id}.",
        ticket_id=ticket_id,
        limit=limit,
    )


def insufficient_stock(ticket_id: int, wanted: int, available: int) -> Problem:
    """Return the refusal for units that are not there."""
    return Problem(
        409,
        "insufficient_stock",
        f"{wanted} of ticket {ticket_id} wanted, {available} available.",
        ticket_id=ticket_id,
        available=available,
    )
