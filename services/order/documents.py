"""Orders and payments as the API and the events show them: plain values, in a fixed order."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from common.times import iso, iso_or_none
from services.order.models import Order, OrderItem, Payment
from services.order.providers.registry import methods
from services.order.states import OrderStatus, PaymentStatus


def placed_order(order: Order, items: Iterable[OrderItem]) -> dict[str, Any]:
    """Return the order as it was placed: the same answer for the first request and its replays."""
    return {
        "id": str(order.id),
        "status": str(OrderStatus.AWAITING_PAYMENT),
        "items": item_list(items),
        "total": order.total,
        "currency": order.currency,
        "expires_at": iso_or_none(order.expires_at),
        "created_at": iso(order.created_at),
    }


def order_document(order: Order) -> dict[str, Any]:
    """Return the order as it is now, with its payments and, if refused, the reason."""
    return {
        **placed_order(order, order.items.all()),
        "status": str(order.status),
        "expires_at": iso_or_none(order.ends_at),
        "updated_at": iso(order.updated_at),
        "rejection": _reason(order),
        "late_payment": str(order.late_payment),
        "payment_methods": list(methods()) if order.status == OrderStatus.AWAITING_PAYMENT else [],
        "payments": [payment_document(payment) for payment in order.payments.all()],
    }


def payment_document(payment: Payment) -> dict[str, Any]:
    """Return a payment as its owner sees it."""
    return {
        "id": str(payment.id),
        "order_id": str(payment.order_id),
        "provider": payment.provider,
        "method": payment.method,
        "amount": payment.amount,
        "currency": payment.currency,
        "status": str(payment.status),
        # Where its owner goes on, as long as there is something to decide.
        "page": (payment.page or None) if payment.status == PaymentStatus.CREATED else None,
        "created_at": iso(payment.created_at),
        "updated_at": iso(payment.updated_at),
    }


def order_event(order: Order, items: Iterable[OrderItem]) -> dict[str, Any]:
    """Return the data of an order.* event: the whole new state, with its version."""
    return {
        "order_id": str(order.id),
        "user_id": order.user_id,
        "status": str(order.status),
        "version": order.version,
        "late_payment": str(order.late_payment),
        "total": order.total,
        "currency": order.currency,
        "items": item_list(items),
    }


def item_list(items: Iterable[OrderItem]) -> list[dict[str, Any]]:
    """Return the items of an order, tickets ascending."""
    return [
        {
            "ticket_id": item.ticket_id,
            "name": item.name,
            "quantity": item.quantity,
            "unit_price": item.unit_price,
        }
        for item in items
    ]


def _reason(order: Order) -> dict[str, Any] | None:
    if order.rejection is None:
        return None
    return {"code": order.rejection["code"], "detail": order.rejection["detail"]}
