"""Booking: writing down what a provider says of a payment, once, whoever brings the news.

The capture and the order's PAID are one transaction, and money that finds its order gone is owed
back in the same one. Rows are locked in one order on every path: the notice, the payment, the
order, its lines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from uuid import UUID

import structlog
from django.utils import timezone

from common.failpoints import failpoint
from common.transactions import in_transaction
from services.order import late, payments, saga
from services.order.models import Order, Payment
from services.order.providers.base import Charge, Outcome
from services.order.states import OrderStatus, PaymentStatus

log = structlog.get_logger(__name__)

Record = Callable[[], object]


def _nothing() -> None:
    """Nobody told it: the provider answered a charge."""


def book(payment: Payment, told: Charge, record: Record = _nothing) -> bool:
    """Write down what the provider says, once; True if that made the order PAID.

    ``record`` is done in the same transaction, and takes it all back when it raises. Money that
    finds its order gone is on its way back when this returns, unless the order could get its units
    once more; where inventory has to be asked for them and does not answer, nothing is booked and
    Unavailable is raised.
    """
    if told.outcome is Outcome.CAPTURED:
        return _book_capture(payment, told.reference, record)
    write = _wait if told.outcome is Outcome.PENDING else _decline

    def work() -> bool:
        record()
        return write(payment, told)

    if in_transaction(work) and told.outcome is Outcome.PENDING:
        failpoint("order.pay.waiting")
        saga.extend_holds_if_possible(payment.order_id)
    return False


def _wait(payment: Payment, told: Charge) -> bool:
    changes = {"provider_reference": told.reference} | ({"page": told.page} if told.page else {})
    waiting = Payment.objects.filter(pk=payment.pk, status=PaymentStatus.CREATED)
    # The sweeper sees to it that the holds were extended, and that the order has not ended at this
    # moment; it closes the provider's page when the order is over.
    due_at = timezone.now() + payments.RESUME_AFTER
    return bool(waiting.update(due_at=due_at, **changes))


def _decline(payment: Payment, told: Charge) -> bool:
    return payments.apply(payment.pk, "decline", **_reference(told.reference))


def _book_capture(payment: Payment, reference: str, record: Record) -> bool:
    def work(again: Mapping[str, str] | None) -> bool:
        record()
        return _capture(payment, reference, again)

    again: dict[str, str] = {}
    try:
        paid = in_transaction(lambda: work(None))
    except _ComesLate:
        again = _hold_again(payment.order_id)
        paid = in_transaction(lambda: work(again))
    if paid:
        failpoint("order.pay.captured")
        return True
    payments.refund_due_payments(payment.order_id)
    if again:
        late.let_go(payment.order_id)
    return False


class _ComesLate(Exception):
    """Inventory has to be asked before this can be booked; takes the transaction back."""


def _capture(payment: Payment, reference: str, again: Mapping[str, str] | None) -> bool:
    """Book captured money; True if it made the order PAID, else it is owed back.

    ``again`` are the units held once more, and None while inventory has not been asked.
    """
    # Before the payment's own row, so that two payments of one order lock both in one order.
    payments.look_after_pages(payment.order_id)
    if not payments.apply(payment.pk, "capture", **_reference(reference)):
        if payments.apply(payment.pk, "owe_refund_of_declined", **_reference(reference)):
            log.error("captured after a decline; giving it back", payment_id=str(payment.pk))
        return False
    if saga.apply(payment.order_id, "pay"):
        failpoint("order.pay.before_commit")
        return True
    if again is None and _may_revive(payment.order_id):
        raise _ComesLate
    if again and saga.apply(payment.order_id, "revive", settled_at__isnull=False):
        late.take_over(again)
        failpoint("order.late.before_commit")
        return True
    payments.apply(payment.pk, "owe_refund")
    saga.note_refund(payment.order_id)
    log.warning(
        "money for an order that is not to be had; giving it back",
        payment_id=str(payment.pk),
        order_id=str(payment.order_id),
    )
    return False


def _may_revive(order_id: UUID) -> bool:
    order = Order.objects.get(pk=order_id)
    return order.status == OrderStatus.EXPIRED and late.may_hold_again(order)


def _hold_again(order_id: UUID) -> dict[str, str]:
    # What the order still holds goes back first, or its buyer would need the units twice.
    order = saga.advance(Order.objects.get(pk=order_id))
    if order.status != OrderStatus.EXPIRED or order.settled_at is None:
        return {}
    return late.hold_again(order, order.items.all())


def _reference(reference: str) -> dict[str, str]:
    """Return the change that keeps a provider's name for the payment, if it told one."""
    return {"provider_reference": reference} if reference else {}
