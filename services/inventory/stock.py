"""The counters of a ticket. Nobody but this module changes them, and it never reads before it
writes: the conditional UPDATE is the only judge of whether there is enough.

Every change bumps the row's version, and the transaction publishes ``stock.changed`` with the whole
new state, so that projections can tell newer from older.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypedDict, cast

from django.db import IntegrityError, transaction
from django.db.models import F, Value
from django.db.models.functions import Greatest
from django.utils import timezone

from common.errors import NotFound, Problem
from common.events.outbox import NewEvent, publish_all
from common.idempotency.records import Answer, Execution
from common.transactions import in_transaction
from services.inventory import ledger
from services.inventory.allocation import insufficient_stock
from services.inventory.models import STOCK_MAX, Stock, StockMovement


class StockState(TypedDict):
    """What the API and the events say of a ticket's stock."""

    ticket_id: int
    total: int
    available: int
    reserved: int
    sold: int
    version: int


COUNTERS = tuple(StockState.__annotations__)


def states_of(ticket_ids: Iterable[int]) -> dict[int, StockState]:
    """Return the counters of those of the tickets that have a stock."""
    rows = Stock.objects.filter(ticket_id__in=list(ticket_ids)).values_list(*COUNTERS)
    return {row[0]: cast(StockState, dict(zip(COUNTERS, row, strict=True))) for row in rows}


def state_of(ticket_id: int) -> StockState:
    """Return the counters of a ticket; NotFound ``stock_not_found`` when none were set."""
    states = states_of([ticket_id])
    if not states:
        raise NotFound("stock_not_found", f"No stock has been set for ticket {ticket_id}.")
    return states[ticket_id]


def initialise(*, ticket_id: int, total: int, actor: str) -> tuple[StockState, bool]:
    """Set how many units there are; return (state, created).

    May be repeated with another number until the first unit is reserved or sold, then 409
    ``stock_in_use``: from there on only adjust() may change it.
    """
    try:
        return in_transaction(lambda: (_create(ticket_id, total, actor), True))
    except IntegrityError:
        return in_transaction(lambda: (_reset(ticket_id, total, actor), False))


def adjust(*, ticket_id: int, delta: int, actor: str) -> StockState:
    """Add units, or with a negative ``delta`` take free ones away.

    409 ``insufficient_stock`` when fewer are free; 409 ``stock_too_large`` beyond STOCK_MAX.
    Never tried again after a lost connection: doing it twice would count twice.
    """
    with transaction.atomic():
        return _adjust(ticket_id, delta, actor)


def adjust_once(*, ticket_id: int, delta: int, actor: str, execution: Execution) -> Answer:
    """adjust() under an idempotency key: the answer is kept in the transaction of the change."""
    try:
        return in_transaction(lambda: execution.finish(200, dict(_adjust(ticket_id, delta, actor))))
    except Problem as refusal:
        return execution.finish(refusal.status_code, refusal.body())


def move(ticket_id: int, effect: Mapping[str, int], quantity: int) -> bool:
    """Apply a transition's effect for ``quantity`` units; False (and no effect) if they lack.

    Must run inside the transaction of the transition, which must then announce() the ticket.
    """
    deltas = {counter: sign * quantity for counter, sign in effect.items()}
    enough = {f"{counter}__gte": -delta for counter, delta in deltas.items() if delta < 0}
    return bool(Stock.objects.filter(ticket_id=ticket_id, **enough).update(**_plus(deltas)))


def lock(ticket_ids: Iterable[int]) -> dict[int, int]:
    """Lock the rows to the end of the transaction; return what is available of each that exists.

    The UPDATE changes nothing: it makes what is read after it the truth until COMMIT.
    """
    ids = list(ticket_ids)
    Stock.objects.filter(ticket_id__in=ids).update(updated_at=F("updated_at"))
    return {ticket_id: state["available"] for ticket_id, state in states_of(ids).items()}


def announce(ticket_ids: Iterable[int]) -> dict[int, StockState]:
    """Publish the new state of tickets that this transaction has moved; returns the states."""
    # The rows are locked by this transaction, so these are the states that it will commit.
    states = states_of(ticket_ids)
    publish_all(
        NewEvent("ticket", str(ticket_id), "stock.changed", dict(state))
        for ticket_id, state in sorted(states.items())
    )
    return states


def republish(ticket_id: int, *, above: int = 0) -> int:
    """Publish a ticket's counters again and return their version; 0 when it has no stock.

    The version is a new one, also above ``above``: a projection that is wrong under the present
    version, or one from before a backup was restored, would take no other for news.
    """

    def work() -> int:
        version = Greatest(F("version"), Value(above)) + 1
        if not Stock.objects.filter(ticket_id=ticket_id).update(version=version):
            return 0
        return announce([ticket_id])[ticket_id]["version"]

    return in_transaction(work)


def _adjust(ticket_id: int, delta: int, actor: str) -> StockState:
    rows = Stock.objects.filter(
        ticket_id=ticket_id, available__gte=-delta, total__lte=STOCK_MAX - delta
    )
    if not rows.update(**_plus({"total": delta, "available": delta})):
        state = state_of(ticket_id)
        # By what was asked for, not by what is there now: that may have changed since.
        if delta < 0:
            raise insufficient_stock(ticket_id, -delta, state["available"])
        raise Problem(409, "stock_too_large", f"A ticket has at most {STOCK_MAX} units.")
    ledger.record_stock(
        ticket_id=ticket_id, kind=StockMovement.Kind.ADJUST, quantity=delta, actor=actor
    )
    return announce([ticket_id])[ticket_id]


def _create(ticket_id: int, total: int, actor: str) -> StockState:
    Stock(ticket_id=ticket_id, total=total, available=total).save(force_insert=True)
    return _initialised(ticket_id, total, actor)


def _reset(ticket_id: int, total: int, actor: str) -> StockState:
    unused = Stock.objects.filter(ticket_id=ticket_id, reserved=0, sold=0)
    now = timezone.now()
    if not unused.update(total=total, available=total, version=F("version") + 1, updated_at=now):
        raise Problem(
            409,
            "stock_in_use",
            "Units are reserved or sold already; adjust the stock instead of setting it.",
        )
    return _initialised(ticket_id, total, actor)


def _initialised(ticket_id: int, total: int, actor: str) -> StockState:
    ledger.record_stock(
        ticket_id=ticket_id, kind=StockMovement.Kind.INITIALISE, quantity=total, actor=actor
    )
    return announce([ticket_id])[ticket_id]


def _plus(deltas: Mapping[str, int]) -> dict[str, object]:
    changes: dict[str, object] = {name: F(name) + delta for name, delta in deltas.items()}
    return {**changes, "version": F("version") + 1, "updated_at": timezone.now()}
