"""Reserving a batch of groups: what is new in one transaction, the rest from what is stored.

Rows are touched in one order on every path (reservations by id, buyer holds, stock by ticket, then
what must follow stock's order), so that two batches cannot deadlock on rows that exist.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import partial

from django.db import IntegrityError
from django.utils import timezone

from common import bulk
from common.database_errors import Meaning, meaning_of
from common.errors import NotFound, Problem
from common.transactions import in_transaction
from services.inventory import ledger, limits, stock
from services.inventory.allocation import Refusals, allocate, limits_of
from services.inventory.entries import (
    Answers,
    BooksDisagree,
    Group,
    Hold,
    Outcome,
    State,
    group_refused,
    holds_of,
    states_of,
    tickets_of,
    units_by_buyer,
    units_by_ticket,
)
from services.inventory.models import Reservation
from services.inventory.states import TRANSITIONS, Status

_RESERVE, _REFUSE = TRANSITIONS["reserve"], TRANSITIONS["refuse"]
_insert = bulk.inserter(Reservation, *State._fields, "created_at", "updated_at")


def reserve_groups(groups: Sequence[Group]) -> list[Answers]:
    """Reserve each group as a whole or not at all; where not all fit, the earlier ones do.

    An id that exists, or that an earlier group of the batch has, is answered from what is stored.
    """
    answers: list[Answers] = [{} for _ in groups]
    known: dict[str, State] = {}
    everyone = range(len(groups))
    while waiting := [n for n in everyone if len(answers[n]) < len(groups[n].holds)]:
        taken: list[tuple[int, Group]] = []
        claimed: set[str] = set()
        for number in waiting:
            answers[number], fresh = _from_known(groups[number], known)
            ids = {hold.reservation_id for hold in fresh.holds}
            if claimed.isdisjoint(ids):
                taken += [(number, fresh)] if ids else []
                claimed |= ids
            elif not ids <= claimed:
                # A part of it depends on what comes of an earlier group: nobody behind it may be
                # served before it. (Who depends on that as a whole needs nothing more.)
                break
        if not taken:
            continue
        try:
            told = in_transaction(partial(_reserve_new, [group for _, group in taken]))
        except IntegrityError as error:
            # Some id exists: sent before, or by another process at this moment.
            learned = states_of(claimed)
            if learned.keys().isdisjoint(claimed) or meaning_of(error) is not Meaning.DUPLICATE:
                raise
            known |= learned
            continue
        for (number, _), new in zip(taken, told, strict=True):
            answers[number] |= new
            known |= {one: o.reservation for one, o in new.items() if o.reservation is not None}
    return answers


def _from_known(group: Group, known: dict[str, State]) -> tuple[Answers, Group]:
    """Return what the known ids are told, and what is left to reserve.

    A group in which one was refused before reserves nothing new.
    """
    if not known:
        return {}, group
    told = {
        hold.reservation_id: _replay(hold, known[hold.reservation_id])
        for hold in group.holds
        if hold.reservation_id in known
    }
    fresh = [hold for hold in group.holds if hold.reservation_id not in told]
    if any(outcome.problem for outcome in told.values()):
        told |= {hold.reservation_id: Outcome(problem=group_refused()) for hold in fresh}
        fresh = []
    return told, Group(fresh, group.actor)


def _replay(hold: Hold, state: State) -> Outcome:
    if not state.is_of(hold):
        problem = Problem(
            422,
            "reservation_mismatch",
            f"Reservation {state.reservation_id} exists with other fields than these.",
        )
        return Outcome(problem=problem)
    if state.status == Status.FAILED:
        return Outcome(state, Problem(409, state.reason, "This reservation was refused before."))
    return Outcome(state)


def _reserve_new(groups: Sequence[Group]) -> list[Answers]:
    """Insert the rows, take limits and stock; what does not fit turns its rows to FAILED."""
    now = timezone.now()
    holds = holds_of(groups)
    ends = {ttl: now + timedelta(seconds=ttl) for ttl in {hold.ttl_seconds for hold in holds}}
    states = {hold.reservation_id: _reserved(hold, ends[hold.ttl_seconds]) for hold in holds}
    _insert((*states[one], now, now) for one in sorted(states))
    by_buyer = units_by_buyer(holds)
    held = limits.count(by_buyer)
    within = all(held[key] + by_buyer[key] <= limit for key, limit in limits_of(holds).items())
    if within and _takes_all(units_by_ticket(holds)):
        refusals: list[Refusals] = [{} for _ in groups]
    else:
        refusals = _take_what_fits(groups, held)
    told = [
        {one: _outcome(states[one], refused) for one in _ids(group)}
        for group, refused in zip(groups, refusals, strict=True)
    ]
    if any(refusals):
        _record_refusals(told)
    ledger.record_reservations(
        ("refuse" if outcome.problem else "reserve", outcome.reservation, group.actor)
        for group, answers in zip(groups, told, strict=True)
        for outcome in answers.values()
        if outcome.reservation is not None
    )
    accepted = [group for group, refused in zip(groups, refusals, strict=True) if not refused]
    stock.announce(tickets_of(holds_of(accepted)))
    return told


def _takes_all(wanted: dict[int, int]) -> bool:
    """Take the stock for the whole batch with one conditional UPDATE, if it fits.

    Several tickets are taken all or none, and that wants their locks first.
    """
    if len(wanted) > 1:
        return False
    [(ticket_id, units)] = wanted.items()
    return stock.move(ticket_id, _RESERVE.effect, units)


def _take_what_fits(groups: Sequence[Group], held: dict[tuple[int, str], int]) -> list[Refusals]:
    """Serve the groups in their order, with all rows locked; give refused limits back."""
    holds = holds_of(groups)
    left = stock.lock(tickets_of(holds))
    refusals = allocate([group.holds for group in groups], left, held)
    pairs = list(zip(groups, refusals, strict=True))
    accepted = holds_of(group for group, refused in pairs if not refused)
    for ticket_id, units in units_by_ticket(accepted).items():
        if not stock.move(ticket_id, _RESERVE.effect, units):
            raise BooksDisagree(f"ticket {ticket_id} was locked with {left[ticket_id]} left")
    limits.give_back(units_by_buyer(holds_of(group for group, refused in pairs if refused)))
    return refusals


def _record_refusals(told: Sequence[Answers]) -> None:
    """Turn the refused rows to FAILED, each with its reason; delete those of a 404's group."""
    by_reason: dict[str, list[str]] = {}
    unrecorded: list[str] = []
    for answers in told:
        for reservation_id, outcome in answers.items():
            if outcome.problem is not None and outcome.reservation is not None:
                by_reason.setdefault(outcome.problem.code, []).append(reservation_id)
            elif outcome.problem is not None:
                unrecorded.append(reservation_id)
    for reason, ids in sorted(by_reason.items()):
        Reservation.objects.filter(pk__in=sorted(ids)).update(status=_REFUSE.target, reason=reason)
    if unrecorded:
        Reservation.objects.filter(pk__in=sorted(unrecorded)).delete()


def _outcome(state: State, refusals: Refusals) -> Outcome:
    if not refusals:
        return Outcome(state, created=True)
    problem = refusals[state.reservation_id]
    if any(isinstance(refusal, NotFound) for refusal in refusals.values()):
        return Outcome(problem=problem)
    return Outcome(state._replace(status=_REFUSE.target, reason=problem.code), problem)


def _reserved(hold: Hold, expires_at: datetime) -> State:
    return State(*hold[:3], _RESERVE.target, expires_at, hold.order_id, hold.buyer_id, "")


def _ids(group: Group) -> list[str]:
    return [hold.reservation_id for hold in group.holds]
