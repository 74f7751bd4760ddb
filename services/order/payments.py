"""Payments by themselves: moving one by a row of its table, and giving money back."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from django.db.models import QuerySet
from django.utils import timezone

from common.errors import Problem
from common.failpoints import failpoint
from common.transactions import in_transaction
from services.order.models import Payment
from services.order.providers.registry import provider
from services.order.states import PAYMENT_STEPS, PaymentStatus

log = structlog.get_logger(__name__)

# A refund that the request itself has not finished after this long, the sweeper does.
REFUND_AFTER = timedelta(seconds=3)
# Longer than a request may take to ask the provider.
RESUME_AFTER = timedelta(seconds=15)


def apply(payment_id: UUID, step: str, **changes: Any) -> bool:
    """Move a payment by a row of PAYMENT_STEPS; False if it is not where the row starts."""
    return bool(_move(Payment.objects.filter(pk=payment_id), step, **changes))


def owe_refunds(order_id: UUID) -> int:
    """Note that what was captured for an order is to be given back; return how many payments."""
    return _move(Payment.objects.filter(order_id=order_id), "owe_refund")


def look_after_pages(order_id: UUID) -> None:
    """Send the sweeper to an order's open pages, as nobody is to pay there any more.

    Belongs inside the transaction that moves the order, before the order's row is touched. A charge
    that has not been answered yet is left to those who ask for it.
    """
    created = Payment.objects.filter(order_id=order_id, status=PaymentStatus.CREATED)
    created.exclude(provider_reference="").update(due_at=timezone.now())


def refund_due_payments(order_id: UUID) -> None:
    """Give back what is due for an order; what fails now is left to the sweeper."""
    for payment in Payment.objects.filter(order_id=order_id, status=PaymentStatus.REFUND_DUE):
        try:
            refund(payment)
        except Problem as error:
            log.warning("refund left to the sweeper", payment_id=str(payment.pk), reason=str(error))


def refund(payment: Payment) -> None:
    """Give a payment's money back. Repeating it is harmless: the provider knows the payment."""
    failpoint("order.refund.before")
    provider(payment.provider).refund(payment)
    failpoint("order.refund.given")
    if apply(payment.pk, "refund"):
        log.info("refunded", payment_id=str(payment.pk), order_id=str(payment.order_id))


def _move(payments: QuerySet[Payment], step: str, **changes: Any) -> int:
    row = PAYMENT_STEPS[step]
    now = timezone.now()
    due_at = now + REFUND_AFTER if row.target == PaymentStatus.REFUND_DUE else None
    from_source = payments.filter(status=row.source)
    return in_transaction(
        lambda: from_source.update(status=row.target, due_at=due_at, updated_at=now, **changes)
    )
