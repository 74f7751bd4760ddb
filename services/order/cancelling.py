"""Cancelling an order that is not paid yet: the units go back on sale."""

from __future__ import annotations

from typing import Any

from common.errors import Problem
from common.failpoints import failpoint
from common.idempotency.records import Answer, Execution, run_once
from common.transactions import in_transaction
from services.order import saga
from services.order.documents import order_document
from services.order.models import Order
from services.order.states import OrderStatus


def cancel_order(order: Order) -> dict[str, Any]:
    """Cancel the order and return it; cancelling it again changes nothing.

    409 ``order_not_cancellable`` for one that is paid, expired or refused.
    """
    document = in_transaction(lambda: _cancel(order))
    failpoint("order.cancel.committed")
    saga.advance_if_possible(Order.objects.get(pk=order.pk))
    return document


def cancel_order_once(*, order: Order, user_id: str, key: str, fingerprint: str) -> Answer:
    """Cancel the order, once per key."""

    def work(execution: Execution) -> Answer:
        try:
            answer = in_transaction(lambda: execution.finish(200, _cancel(order)))
        except Problem as refusal:
            status, body = refusal.status_code, refusal.body()
            return in_transaction(lambda: execution.finish(status, body))
        saga.advance_if_possible(Order.objects.get(pk=order.pk))
        return answer

    return run_once(
        work,
        user_id=user_id,
        operation=f"order.cancel:{order.pk}",
        key=key,
        fingerprint=fingerprint,
    )


def _cancel(order: Order) -> dict[str, Any]:
    cancelled = saga.apply(order.pk, "cancel")
    found = Order.objects.prefetch_related("items", "payments").get(pk=order.pk)
    if not cancelled and found.status != OrderStatus.CANCELLED:
        raise Problem(
            409, "order_not_cancellable", f"This order is {found.status}; it cannot be cancelled."
        )
    return order_document(found)
