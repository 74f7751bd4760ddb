"""Reading orders and payments: who may see which."""

from __future__ import annotations

from uuid import UUID

from django.db.models import QuerySet

from common.errors import NotFound
from common.tokens import Principal
from services.order.models import Order, Payment


def visible_to(principal: Principal) -> QuerySet[Order]:
    """Return the orders that somebody may look at: their own, or all of them for an admin."""
    orders = Order.objects.prefetch_related("items", "payments")
    return orders if principal.role == "admin" else orders.filter(user_id=principal.id)


def visible_order(principal: Principal, order_id: UUID) -> Order:
    """Return an order that may be looked at; NotFound ``order_not_found`` otherwise."""
    return _found(visible_to(principal).filter(pk=order_id))


def own_order(principal: Principal, order_id: UUID) -> Order:
    """Return somebody's own order; NotFound ``order_not_found`` also for other people's."""
    return _found(Order.objects.filter(pk=order_id, user_id=principal.id))


def own_payment(principal: Principal, payment_id: UUID, **conditions: str) -> Payment:
    """Return somebody's own payment; NotFound ``payment_not_found`` also for other people's."""
    own = Payment.objects.filter(pk=payment_id, order__user_id=principal.id, **conditions)
    payment = own.first()
    if payment is None:
        raise NotFound("payment_not_found", "There is no such payment.")
    return payment


def _found(orders: QuerySet[Order]) -> Order:
    order = orders.first()
    if order is None:
        raise NotFound("order_not_found", "There is no such order.")
    return order
