"""The providers' notices: each is known by the provider's own id and dealt with once.

One that comes before its payment is known here is kept, and booked when the payment appears.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import IntegrityError
from django.db.models import Exists, OuterRef, QuerySet
from django.utils import timezone

from common.errors import Problem
from common.loops import Loop
from common.transactions import in_transaction
from services.order.models import Payment, WebhookNotice
from services.order.providers.base import Notice

# Far longer than a signature is good for, and than a provider tries again (Stripe: 3 days, and then
# the payment's own state knows what is booked).
RETENTION = timedelta(hours=48)
AMOUNT_MAX = 2**63 - 1


class BookedAlready(Exception):
    """Somebody else has dealt with the notice; takes back what this transaction did."""


def is_known(provider: str, notice_id: str) -> bool:
    """Tell whether a notice was dealt with, or is kept."""
    return WebhookNotice.objects.filter(provider=provider, notice_id=notice_id).exists()


def record(provider: str, notice: Notice) -> None:
    """Write a notice down as booked; belongs inside the transaction of the booking.

    Raises BookedAlready for one that is known.
    """
    now = timezone.now()
    try:
        _row(provider, notice, received_at=now, booked_at=now).save(force_insert=True)
    except IntegrityError as error:
        raise BookedAlready from error


def keep(provider: str, notice: Notice) -> None:
    """Keep a notice that fits no payment yet; 400 ``webhook_refused`` if it never could."""
    plain = type(notice.amount) is int and 0 <= notice.amount <= AMOUNT_MAX
    if not plain or not isinstance(notice.currency, str) or len(notice.currency) != 3:
        raise Problem(400, "webhook_refused", "The notice names no amount of money.")
    row = _row(provider, notice, received_at=timezone.now(), booked_at=None)
    try:
        in_transaction(lambda: row.save(force_insert=True))
    except IntegrityError:
        # It was delivered twice at once, or only the answer to the COMMIT was lost.
        if not is_known(provider, notice.notice_id):
            raise


def kept(payment_id: UUID | None = None) -> QuerySet[WebhookNotice]:
    """Return the kept notices whose payment is known by now (or those of one payment), in their
    order of arrival."""
    payments = Payment.objects.filter(pk=OuterRef("payment_id"), provider=OuterRef("provider"))
    waiting = WebhookNotice.objects.filter(Exists(payments), booked_at=None)
    return waiting if payment_id is None else waiting.filter(payment_id=payment_id)


def mark_booked(row: WebhookNotice, refusal: str = "") -> None:
    """Note that a kept notice is dealt with; belongs inside the transaction of the booking."""
    unbooked = WebhookNotice.objects.filter(pk=row.pk, booked_at=None)
    if not unbooked.update(booked_at=timezone.now(), refusal=refusal):
        raise BookedAlready


def unbooked_since(moment: timedelta) -> QuerySet[WebhookNotice]:
    """Return what has been kept for longer than that: money we do not know what it is for."""
    horizon = timezone.now() - moment
    return WebhookNotice.objects.filter(booked_at=None, received_at__lt=horizon)


def purge_notices(limit: int = 1000) -> int:
    """Delete what was booked before RETENTION; return how many went. Kept notices stay."""
    old = WebhookNotice.objects.filter(booked_at__lt=timezone.now() - RETENTION)
    gone, _ = WebhookNotice.objects.filter(
        pk__in=list(old.values_list("pk", flat=True)[:limit])
    ).delete()
    return gone


forget_notices = Loop("forget_notices", purge_notices, interval_seconds=60.0)


def _row(provider: str, notice: Notice, **times: object) -> WebhookNotice:
    return WebhookNotice(
        provider=provider,
        notice_id=notice.notice_id,
        payment_id=notice.payment_id,
        outcome=str(notice.outcome),
        amount=notice.amount,
        currency=notice.currency,
        reference=notice.reference,
        **times,
    )
