"""What goes into a reservation call and what comes out of it, as small values; and their sums."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import chain
from typing import NamedTuple
from uuid import UUID

from common.errors import NotFound, Problem
from services.inventory.models import Reservation

BuyerTicket = tuple[int, str]


class Hold(NamedTuple):
    """What a caller wants reserved. ``buyer_limit`` and ``ttl_seconds`` are not compared later."""

    reservation_id: str
    ticket_id: int
    quantity: int
    ttl_seconds: int
    order_id: UUID | None = None
    buyer_id: str = ""
    buyer_limit: int | None = None


class State(NamedTuple):
    """A reservation as it is stored, for whoever asks; immutable, unlike the model's rows."""

    reservation_id: str
    ticket_id: int
    quantity: int
    status: str
    expires_at: datetime
    order_id: UUID | None
    buyer_id: str
    reason: str

    def is_of(self, hold: Hold) -> bool:
        """Tell whether this is the reservation that a call speaks of."""
        theirs = (hold.ticket_id, hold.quantity, hold.order_id, hold.buyer_id)
        return theirs == (self.ticket_id, self.quantity, self.order_id, self.buyer_id)


class Group(NamedTuple):
    """Holds that are reserved all together or not at all, and who wants them (for the ledger)."""

    holds: Sequence[Hold]
    actor: str


class Outcome(NamedTuple):
    """The answer to one entry: the reservation as it stands and, if refused, the problem.

    ``created`` tells a first reserve (201) from its replay (200).
    """

    reservation: State | None = None
    problem: Problem | None = None
    created: bool = False


class BooksDisagree(RuntimeError):
    """Tables contradict each other: nothing may be changed on top of that."""


# What each reservation id of a group is told.
Answers = dict[str, Outcome]


def states_of(reservation_ids: Iterable[str]) -> dict[str, State]:
    """Return the reservations that exist, by id."""
    rows = Reservation.objects.filter(pk__in=list(reservation_ids))
    return {row[0]: State(*row) for row in rows.values_list(*State._fields)}


def tickets_of(entries: Iterable[Hold | State]) -> tuple[int, ...]:
    """Return the tickets that entries speak of, in ascending order."""
    return tuple(sorted({entry.ticket_id for entry in entries}))


def units_by_ticket(entries: Iterable[Hold | State]) -> dict[int, int]:
    """Return units per ticket, in the order in which every transaction locks stock."""
    sums: dict[int, int] = {}
    for entry in entries:
        sums[entry.ticket_id] = sums.get(entry.ticket_id, 0) + entry.quantity
    return dict(sorted(sums.items()))


def units_by_buyer(entries: Iterable[Hold | State]) -> dict[BuyerTicket, int]:
    """Return units per (ticket, buyer), in the order in which every transaction locks limits.

    What has no buyer counts against nobody.
    """
    sums: dict[BuyerTicket, int] = {}
    for entry in entries:
        if entry.buyer_id:
            key = entry.ticket_id, entry.buyer_id
            sums[key] = sums.get(key, 0) + entry.quantity
    return dict(sorted(sums.items()))


def holds_of(groups: Iterable[Group]) -> list[Hold]:
    """Return the holds of all groups."""
    return list(chain.from_iterable(group.holds for group in groups))


def group_refused() -> Problem:
    """Return what those are told whose group was refused for another's sake."""
    return Problem(409, "group_refused", "Another entry of this group was refused.")


def reservation_not_found(reservation_id: str) -> NotFound:
    """Return the refusal for an id that nothing was reserved under."""
    return NotFound("reservation_not_found", f"There is no reservation {reservation_id}.")
