"""The audit finds what is wrong with orders and payments, and tells the facts the others need."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from services.order.models import Order, OrderItem, Payment
from tests.order.driver import reservation_ids, violations

pytestmark = pytest.mark.django_db


@pytest.fixture
def confirmed(ann, on_sale):
    order_id = ann.place({on_sale(5): 2}).body["id"]
    ann.pay(order_id)
    return order_id


def report():
    out = StringIO()
    call_command("audit", "--json", stdout=out)
    return json.loads(out.getvalue())


def test_the_report_joins_orders_with_their_holds_and_payments(ann, on_sale, confirmed):
    waiting = ann.place({on_sale(5): 1}, key="waiting").body["id"]

    found = report()

    assert found["service"] == "order"
    assert all(check["ok"] for check in found["checks"])
    orders = {row[0]: row for row in found["facts"]["orders"]}
    for order_id, status, settled in (
        (confirmed, "CONFIRMED", True),
        (waiting, "AWAITING_PAYMENT", False),
    ):
        row = orders[order_id]
        assert (row[1], row[2], row[4]) == (status, reservation_ids(order_id), settled)
        assert 0 <= row[3] < 60
    [payment] = found["facts"]["payments"]
    assert payment[1:] == [confirmed, "CAPTURED", 5000]
    assert found["facts"]["outbox_pending"] == 4


def break_total(order_id):
    Order.objects.filter(pk=order_id).update(total=1)
    Payment.objects.update(amount=1)


def break_id(order_id):
    OrderItem.objects.filter(order_id=order_id).update(ticket_id=1)


def break_owner(order_id):
    Order.objects.filter(pk=order_id).update(user_id="somebody else")


def keep_money(order_id):
    Order.objects.filter(pk=order_id).update(status="CANCELLED")


def lose_money(order_id):
    Payment.objects.update(status="REFUNDED")


def never_settle(order_id):
    long_ago = timezone.now() - timedelta(minutes=1)
    Order.objects.filter(pk=order_id).update(settled_at=None, updated_at=long_ago)


def never_refund(order_id):
    never_settle(order_id)
    Order.objects.filter(pk=order_id).update(status="EXPIRED", settled_at=timezone.now())
    long_ago = timezone.now() - timedelta(minutes=1)
    Payment.objects.update(status="REFUND_DUE", updated_at=long_ago)


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (break_total, "total 1"),
        (break_id, "bears another purchase's id"),
        (break_owner, "is not the order of user"),
        (keep_money, "is not given back"),
        (lose_money, "captured []"),
        (never_settle, "not settled"),
        (never_refund, "is to be refunded"),
    ],
)
def test_what_is_broken_is_named(confirmed, damage, told):
    assert violations() == []

    damage(confirmed)

    assert any(told in violation for violation in violations())
    with pytest.raises(CommandError):
        call_command("audit", stdout=StringIO())
    assert not all(check["ok"] for check in report()["checks"])
