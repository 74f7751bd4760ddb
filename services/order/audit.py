"""The invariants that the order service can check by itself, and the facts that the audit across
services joins with those of the others (I4, I7, I9)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import timedelta
from typing import Any
from uuid import UUID

from django.db.models import Count, F, Sum
from django.db.models.functions import Coalesce
from django.db.models.lookups import LessThan
from django.utils import timezone

from common.databases import consistent_snapshot
from common.events.outbox import pending_count
from common.events.parked import check_parked
from common.ids import derived_uuid
from services.order import late, notices
from services.order.models import Order, OrderItem, Payment
from services.order.states import OrderStatus, PaymentStatus

VIOLATIONS_SHOWN_MAX = 20
# I10: whatever was interrupted is finished by then.
SETTLED_WITHIN = timedelta(seconds=30)
Check = dict[str, Any]

_PAID_FOR = (OrderStatus.PAID, OrderStatus.CONFIRMED)


def audit() -> dict[str, Any]:
    """Return checks and facts of one consistent snapshot."""
    with consistent_snapshot():
        checks = [
            _check("I5", "an order's total is the sum of its items", _totals()),
            _check("I6", "orders and holds bear the ids that follow from user and key", _ids()),
            _check("I9", "a paid order has exactly its total captured, others nothing", _money()),
            _check("I9", "no provider's notice waits for its payment over 30 s", _unbooked()),
            _check("I10", "no order waits for its settling longer than 30 s", _unsettled()),
            _check("I10", "no refund is due for longer than 30 s", _refunds()),
            check_parked(),
        ]
        return {"service": "order", "checks": checks, "facts": _facts()}


def _check(number: str, name: str, violations: Iterable[str]) -> Check:
    found = list(violations)
    return {
        "id": number,
        "name": name,
        "ok": not found,
        "violations": found[:VIOLATIONS_SHOWN_MAX],
        "count": len(found),
    }


def _totals() -> Iterable[str]:
    # Stand-ins for interrupted purchases have no items and cost nothing.
    orders = Order.objects.annotate(summed=Sum(F("items__unit_price") * F("items__quantity")))
    for pk, total, summed in orders.values_list("pk", "total", "summed").iterator():
        if total != (summed or 0):
            yield f"order {pk}: total {total}, items {summed}"


def _ids() -> Iterable[str]:
    owners: dict[UUID, tuple[str, str]] = {}
    orders = Order.objects.exclude(user_id="").values_list("pk", "user_id", "idempotency_key")
    for pk, user_id, key in orders.iterator():
        owners[pk] = (user_id, key)
        if pk != derived_uuid(user_id, key):
            yield f"order {pk} is not the order of user {user_id} and key {key}"
    items = OrderItem.objects.values_list("pk", "order_id", "ticket_id")
    for reservation_id, order_id, ticket_id in items.iterator():
        owner = owners.get(order_id)
        if owner is not None and reservation_id not in late.ids_of_line(*owner, ticket_id):
            yield f"item {reservation_id} of order {order_id} bears another purchase's id"


def _money() -> Iterable[str]:
    captured: dict[UUID, list[tuple[int, str]]] = defaultdict(list)
    rows = Payment.objects.filter(status=PaymentStatus.CAPTURED)
    for order_id, amount, currency in rows.values_list("order_id", "amount", "currency").iterator():
        captured[order_id].append((amount, currency))
    paid = Order.objects.filter(status__in=_PAID_FOR)
    for pk, total, currency in paid.values_list("pk", "total", "currency").iterator():
        got = captured.pop(pk, [])
        if got != [(total, currency)]:
            yield f"order {pk}: {total} {currency} to pay, captured {got}"
    for pk, got in captured.items():
        yield f"order {pk} is not paid for, yet {got} was captured and is not given back"


def _unbooked() -> Iterable[str]:
    for notice in notices.unbooked_since(SETTLED_WITHIN).iterator():
        yield (
            f"notice {notice.provider} {notice.notice_id}: {notice.amount} {notice.currency} "
            f"{notice.outcome} for payment {notice.payment_id}, which is not booked"
        )


def _unsettled() -> Iterable[str]:
    horizon = timezone.now() - SETTLED_WITHIN
    late = Order.objects.filter(settled_at=None, updated_at__lt=horizon)
    ended = LessThan(Coalesce("extended_until", "expires_at"), horizon)
    awaiting = late.filter(ended, status=OrderStatus.AWAITING_PAYMENT)
    over = late.exclude(status=OrderStatus.AWAITING_PAYMENT)
    for pk, status in (awaiting | over).values_list("pk", "status").iterator():
        yield f"order {pk} is {status} and not settled"


def _refunds() -> Iterable[str]:
    horizon = timezone.now() - SETTLED_WITHIN
    due = Payment.objects.filter(status=PaymentStatus.REFUND_DUE, updated_at__lt=horizon)
    for pk in due.values_list("pk", flat=True).iterator():
        yield f"payment {pk} is to be refunded"


def _facts() -> dict[str, Any]:
    now = timezone.now()
    holds: dict[UUID, list[str]] = defaultdict(list)
    for pk, order_id in OrderItem.objects.values_list("pk", "order_id").iterator():
        holds[order_id].append(pk)
    orders = Order.objects.values_list("pk", "status", "created_at", "settled_at", "total")
    payments = Payment.objects.values_list("pk", "order_id", "status", "amount")
    return {
        "orders": [
            [
                str(pk),
                status,
                holds[pk],
                (now - created_at).total_seconds(),
                settled_at is not None,
                total,
            ]
            for pk, status, created_at, settled_at, total in orders.iterator()
        ],
        "payments": [
            [str(pk), str(order_id), status, amount]
            for pk, order_id, status, amount in payments.iterator()
        ],
        "outbox_pending": pending_count(),
        "orders_by_status": dict(
            Order.objects.order_by().values_list("status").annotate(n=Count("pk"))
        ),
    }
