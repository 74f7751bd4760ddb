"""What the order service does about findings of the audit: what the saga, the sweeper and the
search for orphans do, asked for by name. Whatever was sold stays sold."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from django.db.models import F

from common.failpoints import failpoint
from common.repairing import EVENT_REPAIRS, Item, Repair
from common.transactions import in_transaction
from services.order import inventory_client, orphans, payments, saga
from services.order.models import Order, OrderItem, Payment
from services.order.states import OVER, PaymentStatus


class _OrderStands(Exception):
    """The order is not over, so its money is its own; takes the transaction back."""


def advance_order(item: Item) -> str:
    """Do what the state of an unfinished order asks for."""
    order = Order.objects.filter(pk=item["id"], settled_at=None).first()
    if order is None:
        return ""
    after = saga.advance(order)
    return f"{order.status} → {after.status}{', settled' if after.settled_at else ''}"


def expire_order(item: Item) -> str:
    """Let an unpaid order go whose hold is lost, and what else it holds with it."""
    order_id = UUID(item["id"])
    held = OrderItem.objects.filter(order_id=order_id).values_list("pk", flat=True)
    # The audit has looked at order and inventory one after the other.
    if all(inventory_client.status_of(one) == "RESERVED" for one in held):
        return ""
    if not saga.apply(order_id, "expire"):
        return ""
    failpoint("order.repair.expired")
    saga.advance(Order.objects.get(pk=order_id))
    return "expired"


def fit_hold(item: Item) -> str:
    """Bring a hold in line with its order: given back, or sold where the order is paid.

    Where the order is missing, a REJECTED one is put in its place first.
    """
    order_id = UUID(item["order_id"])
    order = Order.objects.prefetch_related("items").filter(pk=order_id).first()
    if not orphans.fit(order_id, {item["id"]}, order):
        return ""
    order = Order.objects.get(pk=order_id)
    return f"brought in line with an order that is {order.status}"


def give_money_back(item: Item) -> str:
    """Owe what was captured for an order that is over, and give it back."""
    order_id = UUID(item["id"])

    def owe() -> int:
        # Payment rows before the order's row, as everywhere, so that nobody deadlocks.
        owed = payments.owe_refunds(order_id)
        over = Order.objects.filter(pk=order_id, status__in=OVER)
        if not over.update(updated_at=F("updated_at")):
            raise _OrderStands
        if owed:
            saga.note_refund(order_id)
        return owed

    try:
        owed = in_transaction(owe)
    except _OrderStands:
        return ""
    failpoint("order.repair.owed")
    payments.refund_due_payments(order_id)
    return f"{owed} payments given back" if owed else ""


def refund_payment(item: Item) -> str:
    """Give back what is due."""
    due = Payment.objects.filter(pk=item["id"], status=PaymentStatus.REFUND_DUE).first()
    if due is None:
        return ""
    payments.refund(due)
    return "given back"


REPAIRS: Mapping[str, Repair] = {
    "advance_order": advance_order,
    "expire_order": expire_order,
    "fit_hold": fit_hold,
    "give_money_back": give_money_back,
    "refund_payment": refund_payment,
    **EVENT_REPAIRS,
}
