"""Paying an order: charge once, book what the provider says, and let the saga go on.

The order of things is what no crash can tear: the payment's row is committed before the provider is
asked, so no money is ever unknown here; the capture and the order's PAID are one transaction; and
money that finds its order gone is owed back in the same transaction.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import structlog
from django.db import IntegrityError
from django.utils import timezone

from common.errors import Problem
from common.failpoints import failpoint
from common.idempotency.keys import key_reused
from common.idempotency.records import Answer, Execution, run_once
from common.ids import derived_uuid
from common.transactions import in_transaction
from services.order import payments, saga
from services.order.documents import order_document, payment_document
from services.order.models import Order, Payment
from services.order.providers.base import Outcome
from services.order.providers.registry import methods, provider
from services.order.states import OrderStatus, PaymentStatus

log = structlog.get_logger(__name__)

_NOT_PAYABLE = {
    OrderStatus.PAID: ("order_already_paid", "This order is paid."),
    OrderStatus.CONFIRMED: ("order_already_paid", "This order is paid."),
    OrderStatus.EXPIRED: ("order_expired", "The time to pay this order is over."),
    OrderStatus.CANCELLED: ("order_not_payable", "This order was cancelled."),
    OrderStatus.REJECTED: ("order_not_payable", "This order was refused."),
}


def pay_order(*, order: Order, user_id: str, method: str, key: str, fingerprint: str) -> Answer:
    """Pay an order once per key and answer {order, payment}; a decline is an answer too.

    409 ``order_not_payable``, ``order_already_paid``, ``order_expired``.
    """

    def work(execution: Execution) -> Answer:
        try:
            payment = _begin(order, derived_uuid(user_id, str(order.pk), key), method)
        except Problem as refusal:
            if refusal.status_code != 409:
                raise
            return _keep(execution, refusal.status_code, refusal.body())
        failpoint("order.pay.begun")
        attempt(payment)
        moved = saga.advance_if_possible(Order.objects.get(pk=order.pk))
        failpoint("order.pay.before_answer")
        payment.refresh_from_db()
        body = {"order": order_document(moved), "payment": payment_document(payment)}
        return _keep(execution, 200, body)

    return run_once(
        work, user_id=user_id, operation=f"order.pay:{order.pk}", key=key, fingerprint=fingerprint
    )


def attempt(payment: Payment) -> bool:
    """Ask the provider for the money, unless it has answered before, and book the answer."""
    if payment.status != PaymentStatus.CREATED or payment.provider_reference:
        return False
    charge = provider(payment.provider).charge(payment)
    failpoint("order.pay.charged")
    return book(payment, charge.outcome, charge.reference)


def book(payment: Payment, outcome: Outcome, reference: str) -> bool:
    """Write down what the provider says, once; True if that made the order PAID.

    Money that finds its order gone is on its way back when this returns.
    """
    if outcome is Outcome.PENDING:
        waiting = Payment.objects.filter(pk=payment.pk, status=PaymentStatus.CREATED)
        if waiting.update(provider_reference=reference, due_at=None):
            saga.extend_holds(payment.order_id)
    elif outcome is Outcome.DECLINED:
        payments.apply(payment.pk, "decline", provider_reference=reference)
    elif in_transaction(lambda: _capture(payment, reference)):
        failpoint("order.pay.captured")
        return True
    else:
        payments.refund_due_payments(payment.order_id)
    return False


def resume(payment: Payment) -> None:
    """Finish what was interrupted: a refund that is due, or a charge whose answer is not known."""
    if payment.status == PaymentStatus.REFUND_DUE:
        payments.refund(payment)
    elif payment.status == PaymentStatus.CREATED and not payment.provider_reference:
        order = payment.order
        if order.status != OrderStatus.AWAITING_PAYMENT:
            # Nobody can use this payment any more; see to it that nothing stays taken.
            provider(payment.provider).refund(payment)
            payments.apply(payment.pk, "decline")
        elif not _is_overdue(order) and attempt(payment):
            saga.advance_if_possible(Order.objects.get(pk=order.pk))


def _begin(order: Order, payment_id: UUID, method: str) -> Payment:
    """Return the key's payment, made before the provider is asked; 409 if there is none to make."""
    known = _known(payment_id, method)
    if known is not None:
        return known
    _require_payable(order)
    now = timezone.now()
    payment = Payment(
        id=payment_id,
        order=order,
        provider=methods()[method].name,
        method=method,
        amount=order.total,
        currency=order.currency,
        due_at=now + payments.RESUME_AFTER,
        created_at=now,
        updated_at=now,
    )
    try:
        in_transaction(lambda: payment.save(force_insert=True))
    except IntegrityError:
        # This very insert, if its COMMIT was done and only the answer was lost.
        known = _known(payment_id, method)
        if known is None:
            raise
        return known
    return payment


def _known(payment_id: UUID, method: str) -> Payment | None:
    payment = Payment.objects.filter(pk=payment_id).first()
    if payment is not None and payment.method != method:
        raise key_reused()
    return payment


def _require_payable(order: Order) -> None:
    status = OrderStatus(Order.objects.values_list("status", flat=True).get(pk=order.pk))
    if status == OrderStatus.AWAITING_PAYMENT and _is_overdue(order):
        status = OrderStatus.EXPIRED
    if status in _NOT_PAYABLE:
        raise Problem(409, *_NOT_PAYABLE[status])


def _is_overdue(order: Order) -> bool:
    return order.ends_at is not None and timezone.now() >= order.ends_at


def _capture(payment: Payment, reference: str) -> bool:
    """Book captured money; True if it made the order PAID, else it is owed back."""
    if not payments.apply(payment.pk, "capture", provider_reference=reference):
        if payments.apply(payment.pk, "owe_refund_of_declined"):
            log.error("captured after a decline; giving it back", payment_id=str(payment.pk))
        return False
    if saga.apply(payment.order_id, "pay"):
        failpoint("order.pay.before_commit")
        return True
    payments.apply(payment.pk, "owe_refund")
    log.warning(
        "money for an order that is not to be had; giving it back",
        payment_id=str(payment.pk),
        order_id=str(payment.order_id),
    )
    return False


def _keep(execution: Execution, status: int, body: dict[str, Any]) -> Answer:
    return in_transaction(lambda: execution.finish(status, body))
