"""Reservations as callers know them: reserve, commit, release; every call is idempotent.

Calls that wait at the same moment share a transaction (common.group_commit), in lanes by ticket.
reserving.py and deciding.py say what such a transaction does; states.py what is allowed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeVar

import structlog

from common.database_errors import as_problem
from common.errors import Problem, Unavailable
from common.group_commit import GroupCommit
from services.inventory import deciding
from services.inventory.deciding import Decision
from services.inventory.entries import (
    Answers,
    Group,
    Outcome,
    State,
    reservation_not_found,
    states_of,
    tickets_of,
)
from services.inventory.reserving import reserve_groups

log = structlog.get_logger(__name__)
Entry = TypeVar("Entry")
Tickets = tuple[int, ...]


class _Asked(NamedTuple):
    """A decision, and what was known of its reservations when it was asked for."""

    decision: Decision
    known: Mapping[str, State]


def _decide(call: str, asked: Sequence[_Asked]) -> list[Answers]:
    known = {one: state for item in asked for one, state in item.known.items()}
    return deciding.decide(call, [item.decision for item in asked], known)


_reserving = GroupCommit(reserve_groups)
_deciding = {call: GroupCommit(partial(_decide, call)) for call in ("commit", "release")}


def reserve(groups: Sequence[Group]) -> list[list[Outcome]]:
    """Reserve each group as a whole or not at all; return one outcome per hold, in their order.

    A group that does not fit is recorded as FAILED, so that its replay gets the same answer: the
    entry that did not fit carries ``insufficient_stock`` or ``limit_exceeded``, the others
    ``group_refused``. Nothing is recorded for ``ticket_not_found`` (404) and
    ``reservation_mismatch`` (422). In an outage (503) it is not known what happened: the same
    groups may be sent again.
    """
    answers = _submit(_reserving, groups, [tickets_of(group.holds) for group in groups])
    return [
        [told[hold.reservation_id] for hold in group.holds]
        for group, told in zip(groups, answers, strict=True)
    ]


def decide(call: str, decisions: Sequence[Decision]) -> list[list[Outcome]]:
    """Turn holds into sales (``commit``) or give them back (``release``).

    Each decision happens as a whole or not at all, and repeating it changes nothing. Returns one
    outcome per id, in their order.
    """
    found = states_of(one for decision in decisions for one in decision.reservation_ids)
    told: list[Answers] = [deciding.foregone(call, decision, found) for decision in decisions]
    # Only what may still move has to wait for a transaction.
    open_ones = [number for number, answers in enumerate(told) if not answers]
    asked = [
        _Asked(decisions[n], {one: found[one] for one in decisions[n].reservation_ids})
        for n in open_ones
    ]
    tickets = [tickets_of(item.known.values()) for item in asked]
    for number, answers in zip(open_ones, _submit(_deciding[call], asked, tickets), strict=True):
        told[number] = answers
    return [
        [answers[one] for one in decision.reservation_ids]
        for decision, answers in zip(decisions, told, strict=True)
    ]


def get(reservation_id: str) -> State:
    """Return a reservation; NotFound ``reservation_not_found`` if there is none."""
    found = states_of([reservation_id])
    if not found:
        raise reservation_not_found(reservation_id)
    return found[reservation_id]


def _submit(
    queue: GroupCommit[Entry, Answers], entries: Sequence[Entry], tickets: Sequence[Tickets]
) -> list[Answers]:
    """Submit entries lane by lane and return what each is told, also where that is an outage."""
    by_lane: dict[Tickets, list[int]] = {}
    for number, lane in enumerate(lanes_of(tickets)):
        by_lane.setdefault(lane, []).append(number)
    answers: dict[int, Answers] = {}
    for lane, numbers in by_lane.items():
        try:
            outcomes = queue.submit(lane, [entries[number] for number in numbers])
        except Unavailable as refusal:
            outcomes = [refusal for _ in numbers]
        for number, outcome in zip(numbers, outcomes, strict=True):
            answers[number] = _failed(outcome) if isinstance(outcome, Exception) else outcome
    return [answers[number] for number in range(len(entries))]


def lanes_of(tickets: Sequence[Tickets]) -> list[Tickets]:
    """Return the lane of each entry of a call: its tickets and those of all entries that it shares
    tickets with, directly or through others, so that their order is kept."""
    joined: dict[int, set[int]] = {}
    for mine in tickets:
        together = set(mine).union(*(joined.get(ticket, ()) for ticket in mine))
        joined |= dict.fromkeys(together, together)
    return [tuple(sorted(joined[mine[0]])) if mine else () for mine in tickets]


def _failed(error: Exception) -> Answers:
    """Return what every id of an entry is told of an exception."""
    known = error if isinstance(error, Problem) else as_problem(error)
    if known is None:
        log.error("entry failed", exc_info=error)
        problem = Problem(500, "internal_error", "This entry could not be done.")
    else:
        # One for each caller: an exception that several threads raise collects their tracebacks.
        wait = known.wait
        problem = Problem(known.status_code, known.code, known.text, retry_after_seconds=wait)
    return defaultdict(lambda: Outcome(problem=problem))
