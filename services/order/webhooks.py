"""What providers tell us by webhook: verified, compared with what was asked, booked once, in
whatever order it comes, also before its payment is known here."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from uuid import UUID

import structlog

from common.errors import Problem, Unavailable
from common.failpoints import failpoint
from services.order import booking, notices, saga
from services.order.booking import Record
from services.order.models import Order, Payment, WebhookNotice
from services.order.providers.base import Charge, Notice, Outcome
from services.order.providers.registry import provider

log = structlog.get_logger(__name__)

KEPT_BATCH_SIZE = 50
# Those that fail stay where they are: so many of them may stand before the next one.
KEPT_LOOKED_AT_MAX = 500


def receive(*, provider_name: str, headers: Mapping[str, str], body: bytes) -> None:
    """Book what a webhook says. One that was received before changes nothing.

    400 ``webhook_refused`` (forged, old, unreadable) or ``amount_mismatch``; 404
    ``provider_not_found``; 503 when inventory has to be asked first and does not answer.
    """
    try:
        notice = provider(provider_name).read_webhook(headers, body)
        if notice is not None:
            _take(provider_name, notice)
    except Problem as refusal:
        log.warning("webhook refused", provider=provider_name, reason=str(refusal))
        raise


def book_kept(payment_id: UUID | None = None) -> int:
    """Book the kept notices whose payment is known by now; return how many were dealt with.

    Raises Unavailable when inventory does not answer; what is left is booked another time, and so
    is one that fails.
    """
    done = 0
    for row in notices.kept(payment_id)[:KEPT_LOOKED_AT_MAX]:
        try:
            _book_kept(row)
        except Unavailable:
            raise
        except Exception:
            # One bad notice must not keep the others from being booked.
            log.exception("kept webhook not booked", notice=str(row))
            continue
        done += 1
        if done == KEPT_BATCH_SIZE:
            break
    return done


def book_kept_if_possible(payment_id: UUID) -> None:
    """Book what was told of a payment before it was known; what fails now, the sweeper does."""
    try:
        book_kept(payment_id)
    except Unavailable as error:
        log.warning("left to the sweeper", payment_id=str(payment_id), reason=str(error))


def _book_kept(row: WebhookNotice) -> None:
    notice = Notice(
        notice_id=row.notice_id,
        payment_id=row.payment_id,
        outcome=Outcome(row.outcome),
        amount=row.amount,
        currency=row.currency,
        reference=row.reference,
    )
    payment = Payment.objects.get(pk=row.payment_id)
    try:
        _require_amount(notice, payment)
    except Problem as refusal:
        log.error("kept webhook refused", provider=row.provider, reason=str(refusal))
        notices.refuse(row, refusal.code)
    else:
        _book(notice, payment, partial(notices.mark_booked, row))


def _take(provider_name: str, notice: Notice) -> None:
    known = notices.find(provider_name, notice.notice_id)
    # What was refused is refused again, with the same answer.
    if known is not None and not known.refusal:
        log.info("webhook received before", provider=provider_name, notice_id=notice.notice_id)
        return
    payment = Payment.objects.filter(pk=notice.payment_id, provider=provider_name).first()
    failpoint("order.webhook.read")
    if payment is None:
        # Nobody but us makes payments, so it is on its way, or we have lost sight of it (a restored
        # backup): then the audit says so.
        log.warning("webhook before its payment", payment_id=str(notice.payment_id))
        notices.keep(provider_name, notice)
        failpoint("order.webhook.kept")
        # It may have come in at that moment, and not have seen the notice.
        book_kept_if_possible(notice.payment_id)
        return
    try:
        _require_amount(notice, payment)
    except Problem as refusal:
        notices.keep_refused(provider_name, notice, refusal.code)
        failpoint("order.webhook.refused")
        raise
    _book(notice, payment, partial(notices.record, provider_name, notice))


def _book(notice: Notice, payment: Payment, record: Record) -> None:
    try:
        paid = booking.book(payment, Charge(notice.outcome, notice.reference), record)
    except notices.BookedAlready:
        log.info("webhook booked before", notice_id=notice.notice_id)
        return
    failpoint("order.webhook.booked")
    if paid:
        saga.advance_if_possible(Order.objects.get(pk=payment.order_id))


def _require_amount(notice: Notice, payment: Payment) -> None:
    if (notice.amount, notice.currency) == (payment.amount, payment.currency):
        return
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
