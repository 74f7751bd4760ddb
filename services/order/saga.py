"""The saga of an order: one function moves it, one does what its state asks of inventory.

Whoever comes along may call either, any number of times: the request, the webhook, an event, the
sweeper. The UPDATE is conditional, and the calls to inventory are idempotent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db.models import F
from django.utils import timezone

from common.errors import Unavailable
from common.events.outbox import NewEvent, publish_all
from common.failpoints import failpoint
from common.transactions import in_transaction
from services.order import inventory_client, late, payments
from services.order.documents import order_event
from services.order.inventory_client import Entry
from services.order.models import Order, OrderItem
from services.order.states import ORDER_STEPS, OrderStatus

log = structlog.get_logger(__name__)

# What the request itself has not finished after this long, the sweeper does.
SWEEP_AFTER = timedelta(seconds=3)
# Inventory's own sweeper gives holds back and says so; this is for when the word gets lost.
EXPIRY_GRACE = timedelta(seconds=5)

# Answers to a commit that mean: there is nothing left to sell.
LOST_CODES = frozenset(
    {
        "reservation_already_released",
        "reservation_expired",
        "reservation_failed",
        "reservation_not_found",
    }
)
# Answers to a release that mean: nothing is held (any more).
NOTHING_HELD_CODES = frozenset({"reservation_failed", "reservation_not_found"})


def apply(order_id: UUID, step: str, *, settled: bool = False, **condition: Any) -> bool:
    """Move the order by a row of ORDER_STEPS and publish it; False if it is not where it starts.

    ``settled`` says that inventory is in line with the new state already; ``condition`` is what
    else must hold of the row.
    """
    row = ORDER_STEPS[step]
    if row.once:
        condition = {"late_payment": ""} | condition

    def work() -> bool:
        if row.ends_paying:
            payments.look_after_pages(order_id)
        now = timezone.now()
        changes: dict[str, Any] = {"status": row.target, "updated_at": now}
        if row.target != row.source:
            changes["settled_at"] = now if settled or row.settles else None
            changes["due_at"] = now + SWEEP_AFTER
        if row.late is not None:
            changes["late_payment"] = row.late
        orders = Order.objects.filter(pk=order_id, status=row.source, **condition)
        won = orders.update(version=F("version") + 1, **changes)
        if won:
            order = Order.objects.get(pk=order_id)
            announce(order, order.items.all(), row.event)
        return bool(won)

    return in_transaction(work)


def note_refund(order_id: UUID) -> None:
    """Let an order that is over say that late money goes back; belongs to the same transaction."""
    if not apply(order_id, "refund_expired"):
        apply(order_id, "refund_cancelled")


def announce(order: Order, items: Iterable[OrderItem], event_type: str) -> None:
    """Publish the order's whole state; belongs inside the transaction that made it so."""
    publish_all([event_of(order, items, event_type)])


def event_of(
    order: Order, items: Iterable[OrderItem], event_type: str, request_id: str = ""
) -> NewEvent:
    """Return the order's whole state as an event; ``request_id`` if not that of the one at work."""
    return NewEvent("order", str(order.id), event_type, order_event(order, items), request_id)


def advance(order: Order) -> Order:
    """Do what the order's state asks of inventory and return the order as it then is.

    Raises Unavailable when inventory does not answer; nothing is lost, call it again later.
    """
    duty = _DUTIES.get(OrderStatus(order.status))
    if duty is not None and order.settled_at is None:
        duty(order)
    return Order.objects.get(pk=order.pk)


def advance_if_possible(order: Order) -> Order:
    """Advance the order; if inventory does not answer now, leave the rest to the sweeper."""
    try:
        return advance(order)
    except Unavailable as error:
        log.warning("left to the sweeper", order_id=str(order.pk), reason=str(error))
        return Order.objects.get(pk=order.pk)


def extend_holds(order_id: UUID) -> None:
    """Ask inventory for more time while a payment is pending, and give the order the same.

    Where inventory extends nothing, all stays as it is: a hold that lapses before the money comes
    is refunded. Raises Unavailable when inventory does not answer; call it again later.
    """
    order = Order.objects.get(pk=order_id)
    entries = inventory_client.extend(_reservation_ids(order))
    failpoint("order.extend.answered")
    ends = [entry.expires_at for entry in entries if entry.expires_at and not entry.code]
    if len(ends) == len(entries):
        until = min(ends)
        Order.objects.filter(pk=order_id, status=OrderStatus.AWAITING_PAYMENT).update(
            extended_until=until, due_at=overdue_at(until)
        )


def extend_holds_if_possible(order_id: UUID) -> None:
    """Extend the holds; if inventory does not answer now, leave it to the sweeper."""
    try:
        extend_holds(order_id)
    except Unavailable as error:
        log.warning("left to the sweeper", order_id=str(order_id), reason=str(error))


def overdue_at(expires_at: datetime) -> datetime:
    """Return when the sweeper looks after an order that awaits its payment."""
    return expires_at + EXPIRY_GRACE


def _expire_if_overdue(order: Order) -> None:
    # The state decides, not the clock: a payment that is booked first wins, and then the commit at
    # inventory tells whether the hold was still there.
    overdue = order.ends_at is not None and timezone.now() >= overdue_at(order.ends_at)
    # It may have been given more time since it was read.
    if overdue and apply(order.pk, "expire", extended_until=order.extended_until):
        advance(Order.objects.get(pk=order.pk))


def _commit(order: Order) -> None:
    """Turn the holds of a paid order into sales; if any is lost, hold it again or refund."""
    items = {item.pk: item for item in order.items.order_by("ticket_id")}
    entries = inventory_client.commit(list(items))
    failpoint("order.commit.answered")
    refused = [entry for entry in entries if entry.code]
    if not refused:
        apply(order.pk, "confirm")
        failpoint("order.commit.confirmed")
        return
    lost = [entry.reservation_id for entry in refused if entry.code in LOST_CODES]
    if not lost:
        log.error("commit refused", order_id=str(order.pk), answers=[e.error for e in refused])
        raise Unavailable("commit_refused", "The inventory service refused the commit.")
    log.warning("paid too late", order_id=str(order.pk), lost=lost)
    if _renew(order, [items[one] for one in lost]):
        failpoint("order.commit.renewed")
        advance(Order.objects.get(pk=order.pk))
    elif _lose(order):
        failpoint("order.commit.lost")
        payments.refund_due_payments(order.pk)
        advance(Order.objects.get(pk=order.pk))


def _renew(order: Order, lost: list[OrderItem]) -> bool:
    """Hold what was lost once more, where late money may; False if the order has to do without."""
    if not late.may_hold_again(order):
        return False
    again = late.hold_again(order, lost)
    if not again:
        return False

    def work() -> bool:
        if not apply(order.pk, "renew"):
            return False
        late.take_over(again)
        return True

    if in_transaction(work):
        return True
    late.let_go(order.pk)
    return False


class _MovedOn(Exception):
    """Somebody else has moved the order; takes back what this transaction did."""


def _lose(order: Order) -> bool:
    def work() -> None:
        # Payment rows before the order's row, as everywhere, so that nobody deadlocks.
        payments.owe_refunds(order.pk)
        # What was lost are the holds of the order as it was read: not those of one renewed since.
        if not apply(order.pk, "lose", late_payment=order.late_payment):
            raise _MovedOn

    try:
        in_transaction(work)
    except _MovedOn:
        return False
    return True


def _release(order: Order) -> None:
    """Give back whatever a refused, cancelled or expired order may still hold."""
    failpoint("order.release.before")
    if release_holds(_reservation_ids(order)):
        failpoint("order.release.answered")
        settle(order)


def settle(order: Order) -> None:
    """Note that inventory is in line with the order's final state."""
    unsettled = Order.objects.filter(pk=order.pk, status=order.status, settled_at=None)
    unsettled.update(settled_at=timezone.now())


def release_holds(reservation_ids: list[str]) -> bool:
    """Give holds back at inventory; False when one of them cannot be given back."""
    entries = inventory_client.release(reservation_ids) if reservation_ids else []
    kept = [entry for entry in entries if not _gives_nothing(entry)]
    if kept:
        log.error("holds cannot be released", answers=[entry.error for entry in kept])
    return not kept


def _gives_nothing(entry: Entry) -> bool:
    return not entry.code or entry.code in NOTHING_HELD_CODES


def _reservation_ids(order: Order) -> list[str]:
    return list(order.items.order_by("ticket_id").values_list("pk", flat=True))


# state → what it asks for; CONFIRMED asks for nothing more
_DUTIES: dict[OrderStatus, Callable[[Order], None]] = {
    OrderStatus.AWAITING_PAYMENT: _expire_if_overdue,
    OrderStatus.PAID: _commit,
    OrderStatus.REJECTED: _release,
    OrderStatus.CANCELLED: _release,
    OrderStatus.EXPIRED: _release,
}
