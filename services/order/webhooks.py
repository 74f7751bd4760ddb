"""What providers tell us by webhook: verified, compared with what was asked, booked once."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from common.errors import Problem, Unavailable
from common.failpoints import failpoint
from services.order import paying, saga
from services.order.models import Order, Payment
from services.order.providers.base import Notice
from services.order.providers.registry import provider

log = structlog.get_logger(__name__)


def receive(*, provider_name: str, headers: Mapping[str, str], body: bytes) -> None:
    """Book what a webhook says. A duplicate changes nothing: the payment's state remembers.

    400 ``webhook_refused`` (forged, old, unreadable) or ``amount_mismatch``; 404
    ``provider_not_found``; 503 ``payment_unknown``.
    """
    try:
        notice = provider(provider_name).read_webhook(headers, body)
        payment = _payment_of(notice, provider_name)
    except Problem as refusal:
        log.warning("webhook refused", provider=provider_name, reason=str(refusal))
        raise
    failpoint("order.webhook.read")
    if paying.book(payment, notice.outcome, notice.reference):
        saga.advance_if_possible(Order.objects.get(pk=payment.order_id))


def _payment_of(notice: Notice, provider_name: str) -> Payment:
    payment = Payment.objects.filter(pk=notice.payment_id, provider=provider_name).first()
    if payment is None:
        # Our row is committed before the provider hears of a payment, so this is money we have
        # lost sight of (a restored backup, a wrong database). A 2xx or a final 4xx would let the
        # provider forget it; a 503 makes it come again until somebody has looked.
        log.error("webhook for an unknown payment", payment_id=str(notice.payment_id))
        raise Unavailable("payment_unknown", "This payment is not known here; deliver it again.")
    if (notice.amount, notice.currency) != (payment.amount, payment.currency):
        log.error(
            "webhook with another amount",
            payment_id=str(payment.pk),
            told=[notice.amount, notice.currency],
            asked=[payment.amount, payment.currency],
        )
        raise Problem(
            400,
            "amount_mismatch",
            f"{payment.amount} {payment.currency} were asked for, "
            f"{notice.amount} {notice.currency} are reported.",
        )
    return payment
