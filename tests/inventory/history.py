"""What callers did, when, and what they were told; and whether that can have happened at all.

Nobody sees the moment at which a call takes effect, only that it lies between its begin and its
end. So every hold is counted in two ways. *Certainly* it was held from the answer of its reserve to
the begin of what gave it back; *possibly* from the begin of its reserve to the answer of what gave
it back. Where more was certainly held than there is, units were sold twice; where even what was
possibly held left enough during the whole of a call, its refusal was false.
"""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import accumulate
from math import inf
from typing import NamedTuple

from tests.inventory.driver import Answer

DONE, UNKNOWN = "done", "unknown"
GIVING_BACK = ("release", "expire")
# What each kind of shelf is short of when it refuses.
OUT_OF_STOCK, OVER_LIMIT = "insufficient_stock", "limit_exceeded"


class Call(NamedTuple):
    """One call: of what, from when to when, and what was told: ``done``, ``unknown`` or a code."""

    name: str
    reservation_id: str
    ticket_id: int
    quantity: int
    begin: float
    end: float
    told: str = DONE
    buyer_id: str = ""


class Impossible(NamedTuple):
    """Something that no order of events explains."""

    kind: str
    reservation_id: str
    detail: str


class Life(NamedTuple):
    """What is known of one reservation: between which moments it was taken and given back."""

    reservation_id: str
    quantity: int
    begin: float
    taken: float
    refused: float
    giving_back: float
    given_back: float
    codes: frozenset[str]


class History:
    """The calls of a test, recorded by many threads at once."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    def record(
        self,
        send: Callable[[], Answer],
        name: str,
        reservation_id: str,
        ticket_id: int,
        quantity: int,
        buyer_id: str = "",
    ) -> Answer:
        """Send a call and note when it began and ended and what it was told."""
        told, begin = UNKNOWN, time.monotonic()
        try:
            answer = send()
            told = told_by(answer)
            return answer
        finally:
            end = time.monotonic()
            what = (name, reservation_id, ticket_id, quantity, begin, end, told, buyer_id)
            self.calls.append(Call(*what))

    def impossible(
        self, stocks: Mapping[int, int], limits: Mapping[str, int] | None = None
    ) -> list[Impossible]:
        """Return what cannot have happened, with so much stock and such limits of buyers."""
        shelves: dict[Hashable, list[Call]] = defaultdict(list)
        for call in self.calls:
            shelves[call.ticket_id].append(call)
            if call.buyer_id in (limits or {}):
                shelves[call.ticket_id, call.buyer_id].append(call)
        found = contradictions(self.calls)
        for shelf, calls in shelves.items():
            if isinstance(shelf, tuple):
                found += misjudged(calls, (limits or {})[shelf[1]], OVER_LIMIT)
            else:
                found += misjudged(calls, stocks[shelf], OUT_OF_STOCK)
        return found


def told_by(answer: Answer) -> str:
    """Return what an answer says of the call's effect: after a 5xx that is not known."""
    if answer.status >= 500:
        return UNKNOWN
    return DONE if answer.status < 300 else str(answer.code)


def misjudged(calls: Iterable[Call], capacity: int, refusal: str) -> list[Impossible]:
    """Return the holds and the refusals that one shelf of a fixed capacity cannot explain."""
    lives = [_life(name, group) for name, group in _by_reservation(calls).items()]
    return _oversold(lives, capacity) + _refused_falsely(lives, capacity, refusal)


def contradictions(calls: Iterable[Call]) -> list[Impossible]:
    """Return the reservations that were told two things of which one is not true."""
    found = []
    for reservation_id, group in _by_reservation(calls).items():
        done = {call.name for call in group if call.told == DONE}
        refused = {call.told for call in group if call.name == "reserve"} - {DONE, UNKNOWN}
        if "reserve" in done and refused:
            detail = f"reserved and refused with {sorted(refused)}"
            found.append(Impossible("contradiction", reservation_id, detail))
        if "commit" in done and done.intersection(GIVING_BACK):
            detail = "sold and given back"
            found.append(Impossible("contradiction", reservation_id, detail))
    return found


def _by_reservation(calls: Iterable[Call]) -> dict[str, list[Call]]:
    groups: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        groups[call.reservation_id].append(call)
    return groups


def _life(reservation_id: str, calls: list[Call]) -> Life:
    """Put the calls of one reservation together: each may have been sent again, also at once.

    The first answer that says that something is so proves that it was so by then.
    """
    reserves = [call for call in calls if call.name == "reserve"]
    back = [call for call in calls if call.name in GIVING_BACK]
    return Life(
        reservation_id,
        max(call.quantity for call in calls),
        begin=min((call.begin for call in reserves), default=inf),
        taken=min((call.end for call in reserves if call.told == DONE), default=inf),
        refused=min(
            (call.end for call in reserves if call.told not in (DONE, UNKNOWN)), default=inf
        ),
        giving_back=min((call.begin for call in back if call.told in (DONE, UNKNOWN)), default=inf),
        given_back=min((call.end for call in back if call.told == DONE), default=inf),
        codes=frozenset(call.told for call in reserves),
    )


def _oversold(lives: list[Life], capacity: int) -> list[Impossible]:
    # Where a hold is given back in the moment in which another is acknowledged, that came first.
    changes = sorted(
        change
        for life in lives
        if life.taken < life.giving_back
        for change in (
            (life.taken, life.quantity, life.reservation_id),
            (life.giving_back, -life.quantity, life.reservation_id),
        )
    )
    found, held = [], 0
    for at, units, reservation_id in changes:
        held += units
        if units > 0 and held > capacity:
            detail = f"{held} units certainly held at {at:.6f}, there are {capacity}"
            found.append(Impossible("oversold", reservation_id, detail))
    return found


def _refused_falsely(lives: list[Life], capacity: int, refusal: str) -> list[Impossible]:
    possible = [life for life in lives if life.refused == inf]
    changes = sorted(
        [(life.begin, -life.quantity) for life in possible]
        + [(life.given_back, life.quantity) for life in possible]
    )
    times = [at for at, _ in changes]
    # How much was possibly held after each change; at one moment, what is taken comes first.
    held = [0, *accumulate(-units for _, units in changes)]
    found = []
    for life in lives:
        if refusal not in life.codes or life.refused == inf:
            continue
        first, last = bisect_left(times, life.begin), bisect_right(times, life.refused)
        most = max(held[first : last + 1])
        if capacity - most >= life.quantity:
            detail = f"{life.quantity} wanted and at most {most} of {capacity} held all the while"
            found.append(Impossible("refused falsely", life.reservation_id, detail))
    return found
