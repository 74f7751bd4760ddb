"""Deciding the fate of reservations: one conditional UPDATE says who wins, only winners move stock.

commit, release and expire are rows of states.TRANSITIONS; this applies them, a batch at a time.
Ticket, units and buyer of a reservation never change, so they may be read before the transaction;
its state is only ever judged by the UPDATE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

from django.db import connection
from django.db.models import QuerySet, Value
from django.db.models.functions import Concat
from django.db.models.lookups import Exact
from django.utils import timezone

from common.errors import Problem, Unavailable
from common.events.outbox import NewEvent, publish_all
from common.transactions import in_transaction
from services.inventory import ledger, limits, stock
from services.inventory.entries import (
    Answers,
    BooksDisagree,
    Outcome,
    State,
    group_refused,
    reservation_not_found,
    states_of,
    units_by_buyer,
    units_by_ticket,
)
from services.inventory.models import Reservation
from services.inventory.states import EXPIRED, TRANSITIONS, refusal_code

# Each round somebody else has decided one of the reservations, so a few are plenty.
ROUNDS_MAX = 10


class Decision(NamedTuple):
    """Reservations whose fate is one, and who decides (for the ledger)."""

    reservation_ids: Sequence[str]
    actor: str


class _MovedMeanwhile(Exception):
    """A reservation was no longer what had been read; takes the transaction back."""


def decide(
    call: str, decisions: Sequence[Decision], known: dict[str, State] | None = None
) -> list[Answers]:
    """Move the reservations of each decision by one row of the table, all of them or none.

    ``known``: what was read of them a moment ago, which saves reading it again.
    """
    ids = {one for decision in decisions for one in decision.reservation_ids}
    for _ in range(ROUNDS_MAX):
        told, moves = _plan(call, decisions, states_of(ids) if known is None else known)
        try:
            if moves:
                in_transaction(partial(_move, call, moves))
            return told
        except _MovedMeanwhile:
            known = None
    raise Unavailable("contended", "Others decide the same reservations; try again.")


def foregone(call: str, decision: Decision, found: dict[str, State]) -> Answers:
    """Return the answers where nothing can move any more; an empty dict where something may."""
    [told], moves = _plan(call, [decision], found)
    return {} if moves else told


def overdue(passing_over: Iterable[str] = ()) -> QuerySet[Reservation]:
    """Return the holds whose time is over, the oldest first."""
    held = Reservation.objects.filter(status=TRANSITIONS["expire"].source)
    late = held.filter(expires_at__lt=timezone.now())
    return late.exclude(pk__in=list(passing_over)).order_by("expires_at")


def expire(*, limit: int, only: str | None = None, passing_over: Iterable[str] = ()) -> int:
    """Give back up to ``limit`` of the overdue holds, the oldest first; return how many.

    What another worker has claimed, or a caller decides at this moment, is passed over.
    """
    step = TRANSITIONS["expire"]

    def work() -> int:
        due_now = overdue(passing_over)
        mine = due_now if only is None else due_now.filter(pk=only)
        skip = connection.features.has_select_for_update_skip_locked
        rows = mine.select_for_update(skip_locked=skip)[:limit]
        due = [
            (State(*row)._replace(status=step.target, reason=EXPIRED), "expiry")
            for row in rows.values_list(*State._fields)
        ]
        if due:
            _move("expire", due)
        return len(due)

    return in_transaction(work)


def refused(call: str, state: State) -> Outcome:
    """Return the answer to a call that a reservation's state does not allow."""
    problem = Problem(
        409,
        refusal_code(state.status, state.reason),
        f"Reservation {state.reservation_id} is {state.status}: no {call} is possible any more.",
    )
    return Outcome(state, problem)


def _plan(
    call: str, decisions: Sequence[Decision], found: dict[str, State]
) -> tuple[list[Answers], list[tuple[State, str]]]:
    """Return what each decision is told, and the (state after it, actor) of what has to move."""
    step = TRANSITIONS[call]
    found = dict(found)
    moves: list[tuple[State, str]] = []
    told: list[Answers] = []
    for reservation_ids, actor in decisions:
        losers = {one: _answer_loser(call, one, found.get(one)) for one in reservation_ids}
        if any(outcome.problem for outcome in losers.values()):
            told.append({one: _in_refused_group(call, losers[one]) for one in reservation_ids})
            continue
        for reservation_id in reservation_ids:
            if found[reservation_id].status == step.source:
                found[reservation_id] = found[reservation_id]._replace(status=step.target)
                moves.append((found[reservation_id], actor))
        told.append({one: Outcome(found[one]) for one in reservation_ids})
    return told, moves


def _move(call: str, moves: Sequence[tuple[State, str]]) -> None:
    """Apply the transition to reservations, limits, stock and ledger, in this order."""
    step = TRANSITIONS[call]
    states = [state for state, _ in moves]
    ids = sorted(state.reservation_id for state in states)
    won = Reservation.objects.filter(_is_in(step.source), pk__in=ids).update(
        status=step.target, reason=states[0].reason, updated_at=timezone.now()
    )
    if won != len(states):
        raise _MovedMeanwhile
    if "available" in step.effect:
        limits.give_back(units_by_buyer(states))
    by_ticket = units_by_ticket(states)
    for ticket_id, units in by_ticket.items():
        if not stock.move(ticket_id, step.effect, units):
            raise BooksDisagree(f"ticket {ticket_id} has not the {units} units to {call}")
    ledger.record_reservations((call, state, actor) for state, actor in moves)
    stock.announce(by_ticket)
    if call == "expire":
        publish_all(_expired(state) for state in states)


def _answer_loser(call: str, reservation_id: str, state: State | None) -> Outcome:
    """Return the answer for what the call cannot move; a problem unless it has moved before."""
    if state is None:
        return Outcome(problem=reservation_not_found(reservation_id))
    if state.status in (TRANSITIONS[call].source, TRANSITIONS[call].target):
        return Outcome(state)
    return refused(call, state)


def _in_refused_group(call: str, outcome: Outcome) -> Outcome:
    could_move = outcome.reservation and outcome.reservation.status == TRANSITIONS[call].source
    return Outcome(problem=group_refused()) if could_move else outcome


def _is_in(status: str) -> Exact:
    """Return the condition on the state, in a form that no index serves: MySQL might choose that
    one over the ids', and would then lock every reservation in that state."""
    return Exact(Concat("status", Value("")), Value(status))


def _expired(state: State) -> NewEvent:
    return NewEvent(
        "reservation",
        state.reservation_id,
        "reservation.expired",
        {
            "reservation_id": state.reservation_id,
            "order_id": str(state.order_id) if state.order_id else None,
            "ticket_id": state.ticket_id,
            "quantity": state.quantity,
        },
    )
