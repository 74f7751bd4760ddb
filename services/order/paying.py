"""Paying an order: charge once, book what the provider says, and let the saga go on.

The payment's row is committed before the provider is asked, so that no money is ever unknown here;
what the provider answers is written down by booking.py.
"""

from __future__ import annotations

from datetime import datetime, timedelta
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
from services.order import late, payments, saga, webhooks
from services.order.booking import book
from services.order.documents import order_document, payment_document
from services.order.models import Order, Payment
from services.order.providers.base import Outcome
from services.order.providers.registry import methods, provider
from services.order.states import OrderStatus, PaymentStatus

log = structlog.get_logger(__name__)

# Money that was on its way when its order was over (a bank transfer) takes days.
ASK_AGAIN_AFTER = timedelta(hours=1)

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
        except _OutOfTime:
            raise
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
    """Ask the provider for the money, unless it has answered before, and book the answer.

    Returns True if that made the order PAID.
    """
    if payment.status != PaymentStatus.CREATED or payment.provider_reference:
        return False
    charge = provider(payment.provider).charge(payment)
    failpoint("order.pay.charged")
    return book(payment, charge)


def resume(payment: Payment) -> None:
    """Finish what is due: a refund, a charge whose answer is not known, a page without an order."""
    if payment.status == PaymentStatus.REFUND_DUE:
        payments.refund(payment)
    elif payment.status == PaymentStatus.CREATED and payment.provider_reference:
        _look_after_page(payment)
    elif payment.status == PaymentStatus.CREATED:
        order = payment.order
        if order.status != OrderStatus.AWAITING_PAYMENT:
            # Nobody can use this payment any more; see to it that nothing stays taken.
            provider(payment.provider).refund(payment)
            payments.apply(payment.pk, "decline")
        elif not _is_overdue(order) and attempt(payment):
            saga.advance_if_possible(Order.objects.get(pk=order.pk))


def _look_after_page(payment: Payment) -> None:
    """Close a pending payment's page when its order is over, unless late money is welcome; book
    what has become of it, as its webhook may be lost."""
    order, now = payment.order, timezone.now()
    if order.status == OrderStatus.AWAITING_PAYMENT:
        if order.extended_until is None and not _is_overdue(order):
            # Whoever was to ask for more time has not come to it. Where inventory gives none, it is
            # not asked again: the next look is when the time is over.
            saga.extend_holds(order.pk)
            order.refresh_from_db()
        assert order.ends_at is not None, "only what is held can be paid"
        # It has been given more time, or is about to expire.
        _look_again(payment, max(saga.overdue_at(order.ends_at), now + saga.SWEEP_AFTER))
        return
    its_provider = provider(payment.provider)
    if order.status == OrderStatus.EXPIRED and late.may_hold_again(order):
        lifetime = its_provider.page_lifetime
        page_ends_at = payment.created_at + lifetime if lifetime else None
        if page_ends_at is None or now < page_ends_at:
            _look_again(payment, page_ends_at)
            return
    told = its_provider.close(payment)
    if told is None or told.outcome is Outcome.PENDING:
        _look_again(payment, None if told is None else now + ASK_AGAIN_AFTER)
        return
    if book(payment, told):
        saga.advance_if_possible(Order.objects.get(pk=order.pk))


def _look_again(payment: Payment, due_at: datetime | None) -> None:
    """Say when the sweeper is to come again, unless somebody has sent for it meanwhile."""
    waiting = Payment.objects.filter(
        pk=payment.pk, status=PaymentStatus.CREATED, due_at=payment.due_at
    )
    in_transaction(lambda: waiting.update(due_at=due_at))


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
    failpoint("order.pay.inserted")
    webhooks.book_kept_if_possible(payment.pk)
    payment.refresh_from_db()
    return payment


def _known(payment_id: UUID, method: str) -> Payment | None:
    payment = Payment.objects.filter(pk=payment_id).first()
    if payment is not None and payment.method != method:
        raise key_reused()
    return payment


class _OutOfTime(Problem):
    """409 by the clock of this process alone: not kept, as the order may get more time."""


def _require_payable(order: Order) -> None:
    now = Order.objects.get(pk=order.pk)
    status = OrderStatus(now.status)
    if status in _NOT_PAYABLE:
        raise Problem(409, *_NOT_PAYABLE[status])
    if _is_overdue(now):
        raise _OutOfTime(409, *_NOT_PAYABLE[OrderStatus.EXPIRED])


def _is_overdue(order: Order) -> bool:
    return order.ends_at is not None and timezone.now() >= order.ends_at


def _keep(execution: Execution, status: int, body: dict[str, Any]) -> Answer:
    return in_transaction(lambda: execution.finish(status, body))
