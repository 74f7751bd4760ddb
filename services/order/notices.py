"""The providers' notices: each is known by the provider's own id and dealt with once.

One that comes before its payment is known here is kept, and booked when the payment appears. News
of captured money that is refused, as it is not what was asked for, is kept for a person.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from django.db import IntegrityError
from django.db.models import Case, Exists, F, OuterRef, Q, QuerySet, Value, When
from django.utils import timezone

from common.errors import Problem
from common.loops import Loop
from common.transactions import in_transaction
from services.order.models import Payment, WebhookNotice
from services.order.providers.base import Notice, Outcome

# Far longer than a signature is good for, and than a provider tries again (Stripe: 3 days, and then
# the payment's own state knows what is booked).
RETENTION = timedelta(hours=48)
AMOUNT_MAX = 2**63 - 1
# Instead of a refusal: a person has dealt with it.
CLOSED = "closed"


class BookedAlready(Exception):
    """Somebody else has dealt with the notice; takes back what this transaction did."""


def find(provider: str, notice_id: str) -> WebhookNotice | None:
    """Return a notice that was received before."""
    return WebhookNotice.objects.filter(provider=provider, notice_id=notice_id).first()


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
    if not _is_of_money(notice):
        raise Problem(400, "webhook_refused", "The notice names no amount of money.")
    _insert(_row(provider, notice, received_at=timezone.now(), booked_at=None))


def keep_refused(provider: str, notice: Notice, refusal: str) -> None:
    """Keep refused news of captured money for a person; other news has taken nothing."""
    if notice.outcome is Outcome.CAPTURED and _is_of_money(notice):
        now = timezone.now()
        _insert(_row(provider, notice, received_at=now, booked_at=None, refusal=refusal))


def kept(payment_id: UUID | None = None) -> QuerySet[WebhookNotice]:
    """Return the kept notices whose payment is known by now (or those of one payment), in their
    order of arrival."""
    payments = Payment.objects.filter(pk=OuterRef("payment_id"), provider=OuterRef("provider"))
    waiting = WebhookNotice.objects.filter(Exists(payments), booked_at=None, refusal="")
    return waiting if payment_id is None else waiting.filter(payment_id=payment_id)


def mark_booked(row: WebhookNotice) -> None:
    """Note that a kept notice is dealt with; belongs inside the transaction of the booking."""
    if not _unbooked(row.provider, row.notice_id).update(booked_at=timezone.now()):
        raise BookedAlready


def refuse(row: WebhookNotice, refusal: str) -> None:
    """Refuse a kept notice: news of captured money waits for a person, other news is dealt with."""
    booked_at = None if row.outcome == Outcome.CAPTURED else timezone.now()
    unbooked = _unbooked(row.provider, row.notice_id)
    in_transaction(lambda: unbooked.update(booked_at=booked_at, refusal=refusal))


def close(provider: str, notice_id: str) -> bool:
    """Note that a person has dealt with a notice; False if none waits under this id."""
    unbooked = _unbooked(provider, notice_id)
    refusal = Case(When(refusal="", then=Value(CLOSED)), default=F("refusal"))
    return bool(in_transaction(lambda: unbooked.update(refusal=refusal, booked_at=timezone.now())))


def money_unbooked(since: timedelta = timedelta(0)) -> QuerySet[WebhookNotice]:
    """Return news of captured money that was refused, or has been kept for longer than that: we
    do not know what it is for."""
    late = Q(received_at__lt=timezone.now() - since)
    unbooked = WebhookNotice.objects.filter(booked_at=None, outcome=Outcome.CAPTURED)
    return unbooked.filter(late | ~Q(refusal=""))


def purge_notices(limit: int = 1000) -> int:
    """Delete what was booked before RETENTION, or told of no money; return how many went.

    News of captured money stays until it is booked, or a person has dealt with it.
    """
    horizon = timezone.now() - RETENTION
    of_no_money = Q(booked_at=None, received_at__lt=horizon) & ~Q(outcome=Outcome.CAPTURED)
    old = WebhookNotice.objects.filter(Q(booked_at__lt=horizon) | of_no_money)
    gone, _ = WebhookNotice.objects.filter(
        pk__in=list(old.values_list("pk", flat=True)[:limit])
    ).delete()
    return gone


forget_notices = Loop("forget_notices", purge_notices, interval_seconds=60.0)


def _unbooked(provider: str, notice_id: str) -> QuerySet[WebhookNotice]:
    return WebhookNotice.objects.filter(provider=provider, notice_id=notice_id, booked_at=None)


def _is_of_money(notice: Notice) -> bool:
    plain = type(notice.amount) is int and 0 <= notice.amount <= AMOUNT_MAX
    return plain and isinstance(notice.currency, str) and len(notice.currency) == 3


def _insert(row: WebhookNotice) -> None:
    try:
        in_transaction(lambda: row.save(force_insert=True))
    except IntegrityError:
        # It was delivered twice at once, or only the answer to the COMMIT was lost.
        if find(row.provider, row.notice_id) is None:
            raise


def _row(provider: str, notice: Notice, **more: object) -> WebhookNotice:
    return WebhookNotice(
        provider=provider,
        notice_id=notice.notice_id,
        payment_id=notice.payment_id,
        outcome=str(notice.outcome),
        amount=notice.amount,
        currency=notice.currency,
        reference=notice.reference,
        **more,
    )
