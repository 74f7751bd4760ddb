"""The invariants that the order service can check by itself, and the facts that the audit across
services joins with those of the others (I4, I7, I9)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import F, Sum
from django.db.models.functions import Coalesce
from django.db.models.lookups import LessThan
from django.utils import timezone

from common.auditing import Violation, check
from common.databases import consistent_snapshot
from common.events.audit import Window, event_facts, nothing_parked, window_at
from services.order import history_audit, key_audit, notices
from services.order.models import Order, OrderItem, Payment, TicketOffer
from services.order.offers import offer_document
from services.order.providers.registry import is_configured, page_lifetime
from services.order.states import OVER, OrderStatus, PaymentStatus

# I10: whatever was interrupted is finished by then.
SETTLED_WITHIN = timedelta(seconds=30)

_PAID_FOR = frozenset({OrderStatus.PAID, OrderStatus.CONFIRMED})
_OWED = frozenset({PaymentStatus.CAPTURED, PaymentStatus.REFUND_DUE})


def audit(window: Window | None = None) -> dict[str, Any]:
    """Return checks and facts of one consistent snapshot."""
    with consistent_snapshot():
        checks = [
            check("I5", "an order's total is the sum of its items", _totals()),
            check(
                "I5",
                "orders are what their events told, and moved by the table",
                history_audit.violations(),
            ),
            check("I6", "orders, holds and payments bear the ids of their keys", key_audit.ids()),
            check("I6", "kept answers fit what they tell of", key_audit.answers()),
            check("I8", "a definite refusal has taken no money", _refusals()),
            check("I9", "a paid order has exactly its total captured, others nothing", _money()),
            check("I9", "no news of captured money is refused, or waits over 30 s", _unbooked()),
            check("I9", "no payment of an order that is over is left unasked for", _unasked()),
            check("I10", "no order waits for its settling longer than 30 s", _unsettled()),
            check("I10", "no refund is due for longer than 30 s", _refunds()),
            nothing_parked(),
        ]
        facts = {**_facts(), **event_facts(window or window_at())}
        return {"service": "order", "checks": checks, "facts": facts}


def _order(finding: str, pk: UUID, text: str) -> Violation:
    return Violation(finding, "order", str(pk), f"order {pk}{text}")


def _payment(finding: str, pk: UUID, text: str) -> Violation:
    return Violation(finding, "payment", str(pk), f"payment {pk} {text}")


def _totals() -> Iterable[Violation]:
    # Stand-ins for interrupted purchases have no items and cost nothing.
    orders = Order.objects.annotate(summed=Sum(F("items__unit_price") * F("items__quantity")))
    rows = orders.order_by().values_list("pk", "status", "total", "summed")
    for pk, status, total, summed in rows.iterator():
        if total != (summed or 0):
            yield _order("total_wrong", pk, f": total {total}, items {summed}")
        elif summed is None and status != OrderStatus.REJECTED:
            yield _order("items_missing", pk, f" is {status} and has no items")


def _refusals() -> Iterable[Violation]:
    payments = Payment.objects.filter(status__in=_OWED, order__status=OrderStatus.REJECTED)
    for pk, order_id in payments.values_list("pk", "order_id").iterator():
        text = f" was refused, yet payment {pk} has taken money for it"
        yield _order("money_kept", order_id, text)
    yield from key_audit.effects_of_refusals()


def _money() -> Iterable[Violation]:
    captured: dict[UUID, list[tuple[int, str]]] = defaultdict(list)
    rows = Payment.objects.filter(status=PaymentStatus.CAPTURED)
    for order_id, amount, currency in rows.values_list("order_id", "amount", "currency").iterator():
        captured[order_id].append((amount, currency))
    orders = Order.objects.order_by().values_list("pk", "status", "total", "currency")
    for pk, status, total, currency in orders.iterator():
        got = captured.get(pk, [])
        if status in _PAID_FOR:
            if got != [(total, currency)]:
                yield _order("paid_wrong", pk, f": {total} {currency} to pay, captured {got}")
        elif got:
            finding = "money_kept" if status in OVER else "paid_unbooked"
            text = f" is {status}, yet {got} was captured and is not given back"
            yield _order(finding, pk, text)


def _unbooked() -> Iterable[Violation]:
    for notice in notices.money_unbooked(SETTLED_WITHIN).iterator():
        text = (
            f"notice {notice.provider} {notice.notice_id}: {notice.amount} {notice.currency} "
            f"{notice.outcome} for payment {notice.payment_id}"
        )
        if notice.refusal:
            told = f"{text}, refused: {notice.refusal}"
            yield Violation("notice_refused", "notice", notice.notice_id, told)
        else:
            told = f"{text}, which is not booked"
            yield Violation("notice_unbooked", "notice", notice.notice_id, told)


def _unasked() -> Iterable[Violation]:
    """Find pages that may have taken money of which no webhook told, and no sweeper asks."""
    now = timezone.now()
    unasked = Payment.objects.filter(status=PaymentStatus.CREATED, due_at=None)
    over = unasked.exclude(order__status=OrderStatus.AWAITING_PAYMENT)
    for pk, name, created_at in over.values_list("pk", "provider", "created_at").iterator():
        lifetime = page_lifetime(name)
        if lifetime is not None and created_at < now - lifetime:
            text = "is open though its order and its page are over: was it paid?"
            yield _payment("payment_unasked", pk, text)


def _unsettled() -> Iterable[Violation]:
    horizon = timezone.now() - SETTLED_WITHIN
    late = Order.objects.filter(settled_at=None, updated_at__lt=horizon)
    ended = LessThan(Coalesce("extended_until", "expires_at"), horizon)
    awaiting = late.filter(ended, status=OrderStatus.AWAITING_PAYMENT)
    over = late.exclude(status=OrderStatus.AWAITING_PAYMENT)
    for pk, status in (awaiting | over).values_list("pk", "status").iterator():
        yield _order("order_unsettled", pk, f" is {status} and not settled")


def _refunds() -> Iterable[Violation]:
    horizon = timezone.now() - SETTLED_WITHIN
    due = Payment.objects.filter(status=PaymentStatus.REFUND_DUE, updated_at__lt=horizon)
    for pk, name in due.values_list("pk", "provider").iterator():
        if is_configured(name):
            yield _payment("refund_due", pk, "is to be refunded")
        else:
            text = f"is to be refunded by {name}, which is not configured"
            yield _payment("refund_impossible", pk, text)


def _facts() -> dict[str, Any]:
    now = timezone.now()
    items: dict[UUID, list[tuple[str, int, int]]] = defaultdict(list)
    held = OrderItem.objects.order_by().values_list("order_id", "pk", "ticket_id", "quantity")
    for order_id, reservation_id, ticket_id, quantity in held.iterator():
        items[order_id].append((reservation_id, ticket_id, quantity))
    orders = Order.objects.order_by().values_list(
        "pk", "status", "user_id", "created_at", "total", "currency"
    )
    payments = Payment.objects.order_by().values_list(
        "pk", "order_id", "status", "amount", "currency"
    )
    return {
        "orders": [
            [str(pk), status, user, (now - created_at).total_seconds(), *price, items.get(pk, [])]
            for pk, status, user, created_at, *price in orders.iterator()
        ],
        "payments": [
            [str(pk), str(order_id), *what] for pk, order_id, *what in payments.iterator()
        ],
        "offers": {
            offer.ticket_id: offer_document(offer) for offer in TicketOffer.objects.iterator()
        },
    }
