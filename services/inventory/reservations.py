"""Reserving units and deciding their fate: every call is idempotent, every decision one UPDATE.

A call takes a group: all of its entries happen, or none, in one transaction. Rows are touched in
one order on every path (reservations by id, buyer holds, stock by ticket), so that two groups
cannot deadlock on rows that exist.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from uuid import UUID

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.utils import timezone

from common.errors import NotFound, Problem
from common.events.outbox import publish
from common.transactions import in_transaction
from services.inventory import ledger, limits, stock
from services.inventory.models import Reservation
from services.inventory.states import EXPIRED, TRANSITIONS, Status, refusal_code


@dataclass(frozen=True)
class Hold:
    """What a caller wants reserved. ``buyer_limit`` and ``ttl_seconds`` are not compared later."""

    reservation_id: str
    ticket_id: int
    quantity: int
    ttl_seconds: int
    order_id: UUID | None = None
    buyer_id: str = ""
    buyer_limit: int | None = None

    def matches(self, row: Reservation) -> bool:
        """Tell whether the stored reservation is the one that this call speaks of."""
        mine = (self.ticket_id, self.quantity, self.order_id, self.buyer_id)
        return mine == (row.ticket_id, row.quantity, row.order_id, row.buyer_id)


@dataclass(frozen=True)
class Outcome:
    """The answer to one entry: the reservation as it stands and, if refused, the problem.

    ``created`` tells a first reserve (201) from its replay (200).
    """

    reservation: Reservation | None = None
    problem: Problem | None = None
    created: bool = False


class _Refused(Exception):
    """Takes the group's work back; carries what each reservation id is told."""

    def __init__(self, outcomes: dict[str, Outcome]) -> None:
        super().__init__(outcomes)
        self.outcomes = outcomes


def reserve(*, holds: Sequence[Hold], actor: str) -> list[Outcome]:
    """Reserve all the holds or none, and return one outcome per hold, in their order.

    A group that does not fit is recorded as FAILED, so that its replay gets the same answer: the
    entry that did not fit carries ``insufficient_stock`` or ``limit_exceeded``, the others
    ``group_refused``. Nothing is recorded for ``ticket_not_found`` (404) and
    ``reservation_mismatch`` (422).
    """
    try:
        outcomes = in_transaction(lambda: _reserve_new(holds, actor))
    except _Refused as refusal:
        outcomes = refusal.outcomes
    except IntegrityError:
        # Some id exists: sent before, or twice at this moment (the insert waited for the other).
        again = _reserve_again(holds, actor)
        if again is None:
            raise
        outcomes = again
    return [outcomes[hold.reservation_id] for hold in holds]


def commit(*, reservation_ids: Sequence[str], actor: str) -> list[Outcome]:
    """Turn holds into sales, all or none: RESERVED → COMMITTED; repeating it changes nothing."""
    return _decide("commit", reservation_ids, actor)


def release(*, reservation_ids: Sequence[str], actor: str) -> list[Outcome]:
    """Give holds back, all or none: RESERVED → RELEASED; repeating it changes nothing."""
    return _decide("release", reservation_ids, actor)


def expire(*, reservation_ids: Iterable[str]) -> int:
    """Give back those of the holds that are overdue and still RESERVED; return how many."""

    def work() -> int:
        overdue = Q(expires_at__lt=timezone.now())
        won = [
            reservation_id
            for reservation_id in sorted(reservation_ids)
            if _win(reservation_id, "expire", reason=EXPIRED, condition=overdue)
        ]
        rows = _settle("expire", won, actor="expiry")
        for row in rows:
            _announce_expiry(row)
        return len(rows)

    return in_transaction(work)


def get(reservation_id: str) -> Reservation:
    """Return a reservation; NotFound ``reservation_not_found`` if there is none."""
    row = Reservation.objects.filter(pk=reservation_id).first()
    if row is None:
        raise _not_found(reservation_id)
    return row


def _reserve_new(holds: Sequence[Hold], actor: str) -> dict[str, Outcome]:
    """Insert the rows, then take limits and stock; what does not fit turns the rows to FAILED."""
    rows = _insert(holds)
    by_id = {hold.reservation_id: hold for hold in holds}
    try:
        # A savepoint: the refusal takes back counters already taken, but not the rows.
        with transaction.atomic():
            _take_limits(rows, by_id)
            _take_stock(rows)
    except _Refused as refusal:
        return _record_refusal(rows, refusal.outcomes, actor)
    ledger.record_reservations(kind="reserve", reservations=rows, actor=actor)
    return {row.reservation_id: Outcome(row, created=True) for row in rows}


def _reserve_again(holds: Sequence[Hold], actor: str) -> dict[str, Outcome] | None:
    """Answer the ids that exist from their rows; reserve the others unless one was refused.

    None when no id exists, so that this was not what the insert failed for.
    """
    ids = [hold.reservation_id for hold in holds]
    known = {row.reservation_id: row for row in Reservation.objects.filter(pk__in=ids)}
    if not known:
        return None
    outcomes = {
        hold.reservation_id: _replay(hold, known[hold.reservation_id])
        for hold in holds
        if hold.reservation_id in known
    }
    fresh = [hold for hold in holds if hold.reservation_id not in known]
    if any(outcome.problem for outcome in outcomes.values()):
        outcomes |= {hold.reservation_id: Outcome(problem=_group_refused()) for hold in fresh}
    elif fresh:
        made = reserve(holds=fresh, actor=actor)
        outcomes |= {hold.reservation_id: made[n] for n, hold in enumerate(fresh)}
    return outcomes


def _replay(hold: Hold, row: Reservation) -> Outcome:
    if not hold.matches(row):
        problem = Problem(
            422,
            "reservation_mismatch",
            f"Reservation {row.reservation_id} exists with other fields than these.",
        )
        return Outcome(problem=problem)
    if row.status == Status.FAILED:
        return Outcome(row, Problem(409, row.reason, "This reservation was refused before."))
    return Outcome(row)


def _insert(holds: Sequence[Hold]) -> list[Reservation]:
    now = timezone.now()
    rows = [
        Reservation(
            reservation_id=hold.reservation_id,
            ticket_id=hold.ticket_id,
            quantity=hold.quantity,
            order_id=hold.order_id,
            buyer_id=hold.buyer_id,
            status=TRANSITIONS["reserve"].target,
            expires_at=now + timedelta(seconds=hold.ttl_seconds),
        )
        for hold in sorted(holds, key=lambda hold: hold.reservation_id)
    ]
    return Reservation.objects.bulk_create(rows)


def _take_limits(rows: Sequence[Reservation], by_id: dict[str, Hold]) -> None:
    for (ticket_id, buyer_id), quantity in limits.sums_by_buyer(rows).items():
        mine = [row for row in rows if (row.ticket_id, row.buyer_id) == (ticket_id, buyer_id)]
        stated = [by_id[row.reservation_id].buyer_limit for row in mine]
        limit = min((one for one in stated if one is not None), default=None)
        if not limits.take(ticket_id, buyer_id, quantity, limit):
            problem = Problem(
                409,
                "limit_exceeded",
                f"A buyer may hold at most {limit} of ticket {ticket_id}.",
                ticket_id=ticket_id,
                limit=limit,
            )
            raise _Refused({row.reservation_id: Outcome(problem=problem) for row in mine})


def _take_stock(rows: Sequence[Reservation]) -> None:
    for ticket_id, mine in _by_ticket(rows):
        quantity = sum(row.quantity for row in mine)
        if not stock.move(ticket_id, TRANSITIONS["reserve"].effect, quantity):
            problem = stock.lacking(ticket_id, quantity)
            raise _Refused({row.reservation_id: Outcome(problem=problem) for row in mine})


def _record_refusal(
    rows: Sequence[Reservation], culprits: dict[str, Outcome], actor: str
) -> dict[str, Outcome]:
    """Turn the group's fresh rows to FAILED, each with its reason; a 404 records nothing."""
    outcomes = {row.reservation_id: Outcome(problem=_group_refused()) for row in rows} | culprits
    if any(isinstance(outcome.problem, NotFound) for outcome in culprits.values()):
        raise _Refused(outcomes)
    for row in rows:
        problem = outcomes[row.reservation_id].problem
        assert problem is not None
        row.status, row.reason = TRANSITIONS["refuse"].target, problem.code
        Reservation.objects.filter(pk=row.reservation_id).update(
            status=row.status, reason=row.reason
        )
        outcomes[row.reservation_id] = Outcome(row, problem)
    ledger.record_reservations(kind="refuse", reservations=rows, actor=actor)
    return outcomes


def _decide(call: str, reservation_ids: Sequence[str], actor: str) -> list[Outcome]:
    def work() -> dict[str, Outcome]:
        ids = sorted(set(reservation_ids))
        won = [reservation_id for reservation_id in ids if _win(reservation_id, call)]
        outcomes = {row.reservation_id: Outcome(row) for row in _settle(call, won, actor=actor)} | {
            one: _answer_loser(one, call) for one in ids if one not in won
        }
        if any(outcome.problem for outcome in outcomes.values()):
            raise _Refused(outcomes | {one: Outcome(problem=_group_refused()) for one in won})
        return outcomes

    try:
        outcomes = in_transaction(work)
    except _Refused as refusal:
        outcomes = refusal.outcomes
    return [outcomes[reservation_id] for reservation_id in reservation_ids]


def _win(reservation_id: str, call: str, reason: str = "", condition: Q | None = None) -> bool:
    """Move one reservation if it still is where the call starts from: this UPDATE decides."""
    step = TRANSITIONS[call]
    rows = Reservation.objects.filter(condition or Q(), pk=reservation_id, status=step.source)
    return bool(rows.update(status=step.target, reason=reason, updated_at=timezone.now()))


def _settle(call: str, won: Sequence[str], *, actor: str) -> list[Reservation]:
    """Move limits, stock and ledger for reservations that this transaction has won."""
    rows = list(Reservation.objects.filter(pk__in=won).order_by("pk"))
    effect = TRANSITIONS[call].effect
    if "available" in effect:
        for (ticket_id, buyer_id), quantity in limits.sums_by_buyer(rows).items():
            limits.give_back(ticket_id, buyer_id, quantity)
    for ticket_id, mine in _by_ticket(rows):
        quantity = sum(row.quantity for row in mine)
        if not stock.move(ticket_id, effect, quantity):
            # A RESERVED row without its units: the books are wrong, and must not get worse.
            raise AssertionError(f"ticket {ticket_id} has not the {quantity} units to {call}")
    ledger.record_reservations(kind=call, reservations=rows, actor=actor)
    return rows


def _answer_loser(reservation_id: str, call: str) -> Outcome:
    row = Reservation.objects.filter(pk=reservation_id).first()
    # A row that could still move came into being after the UPDATE looked for it: for this call
    # it was not there yet.
    if row is None or row.status == TRANSITIONS[call].source:
        return Outcome(problem=_not_found(reservation_id))
    if row.status == TRANSITIONS[call].target:
        return Outcome(row)
    problem = Problem(
        409,
        refusal_code(row.status, row.reason),
        f"Reservation {reservation_id} is {row.status}; it cannot {call}.",
    )
    return Outcome(row, problem)


def _by_ticket(rows: Iterable[Reservation]) -> list[tuple[int, list[Reservation]]]:
    ordered = sorted(rows, key=lambda row: row.ticket_id)
    return [(key, list(mine)) for key, mine in groupby(ordered, key=lambda row: row.ticket_id)]


def _announce_expiry(row: Reservation) -> None:
    publish(
        aggregate_type="reservation",
        aggregate_id=row.reservation_id,
        event_type="reservation.expired",
        data={
            "reservation_id": row.reservation_id,
            "order_id": str(row.order_id) if row.order_id else None,
            "ticket_id": row.ticket_id,
            "quantity": row.quantity,
        },
    )


def _group_refused() -> Problem:
    return Problem(409, "group_refused", "Another entry of this group was refused.")


def _not_found(reservation_id: str) -> NotFound:
    return NotFound("reservation_not_found", f"There is no reservation {reservation_id}.")
