"""Courses to the step boundaries of money that comes at an awkward moment: before its payment is
known, when the order's hold is lost, or when its time is over. For a shop that gives the units
again while there are any (LATE_PAYMENT=rereserve)."""

from __future__ import annotations

import time

from common.ids import derived_uuid
from tests.system.client import new_key
from tests.system.tables import hex_of, sql
from tests.system.visits import Visit

# As many as one person may have of a ticket (tests/system/shop.py).
PER_USER_LIMIT = 10
LONG_AGO = "2020-01-01 00:00:00"


def pay_later(visit: Visit) -> None:
    """Order; the money comes by webhook."""
    order = visit.order()
    payment = visit.pending_payment(order)
    if order and payment:
        visit.settle(payment)
        visit.told.add(visit.buyer, order, "CONFIRMED", "EXPIRED")


def pay_before_it_is_known(visit: Visit) -> None:
    """The provider tells of the money before the shop knows the payment, and never again."""
    order = visit.order()
    if not order:
        return
    key, shown = new_key(), visit.shown(order)
    payment = str(derived_uuid(visit.me(), order, key))
    visit.tell_of_money(payment, shown["total"], shown["currency"])
    begun = visit.pay(order, "sandbox_later", key).require(200)
    assert begun["payment"]["id"] == payment
    visit.told.add(visit.buyer, order, "CONFIRMED")


def pay_another_amount(visit: Visit) -> None:
    """The provider tells of another amount; a person deals with it, and the order is paid."""
    order = visit.order()
    payment = visit.pending_payment(order)
    if not order or not payment:
        return
    nonce, shown = new_key(), visit.shown(order)
    visit.tell_of_money(payment, shown["total"] + 1, shown["currency"], nonce, status=400)
    closing = ("close", f"sandbox/{nonce}", "--reason", "refunded there")
    closed = visit.stack.manage("order", "notices", *closing)
    assert closed.returncode == 0, closed.stderr
    visit.settle(payment)
    visit.told.add(visit.buyer, order, "CONFIRMED", "EXPIRED")


def pay_after_cancelling(visit: Visit) -> None:
    """Order, begin to pay, cancel; then the money comes all the same, and goes back."""
    order = visit.order()
    payment = visit.pending_payment(order)
    if order and payment:
        visit.cancel(order)
        visit.settle(payment)
        visit.await_refund(payment)


def pay_for_a_lost_hold(visit: Visit) -> None:
    """Order; the hold is given back behind the order's back; then pay, and get the units again."""
    order = visit.order()
    if order:
        visit.lose_hold(order)
        since = time.monotonic()
        visit.pay(order).require(200)
        visit.await_units(order, since)


def pay_when_no_units_are_to_be_had(visit: Visit) -> None:
    """As above, but meanwhile the buyer has all that one may have: the money goes back."""
    order = visit.order()
    if not order:
        return
    visit.lose_hold(order)
    others = visit.order(quantity=PER_USER_LIMIT)
    paid = visit.pay(order).require(200)
    if others is None:
        # Torn; so it depends on when those units are given back.
        visit.told.add(visit.buyer, order, "CONFIRMED", "EXPIRED")
        return
    visit.told.add(visit.buyer, order, "EXPIRED")
    visit.await_refund(paid["payment"]["id"])
    visit.cancel(others)


def pay_too_late(visit: Visit) -> None:
    """Order and begin to pay; the time runs out; then the money comes and gets the units again."""
    order = visit.order()
    payment = visit.pending_payment(order)
    if not order or not payment:
        return
    sql(
        visit.stack.layout,
        "order",
        "UPDATE `order` SET expires_at = ?, extended_until = NULL, due_at = ? WHERE id = ?",
        *(LONG_AGO, LONG_AGO, hex_of(order)),
    )
    visit.await_status(order, "EXPIRED")
    since = time.monotonic()
    visit.settle(payment)
    visit.await_units(order, since)
