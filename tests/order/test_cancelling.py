"""Cancelling and expiring: the units go back on sale, whichever way an order ends."""

from __future__ import annotations

import time
from functools import partial

import pytest
from django.db import connection

from common.events.inbox import Consumer
from common.events.models import InboxEvent, OutboxEvent
from services.order import saga
from services.order.models import Order, Payment
from services.order.providers.sandbox import SandboxProvider
from services.order.sweeping import sweep_orders, sweep_payments
from tests.common.concurrency import meet_before, together
from tests.order.driver import (
    expired,
    hear,
    make_due,
    make_overdue,
    reservation_ids,
    violations,
)

pytestmark = pytest.mark.django_db


def test_a_cancelled_order_gives_its_units_back(ann, on_sale, inventory):
    first, second = on_sale(5), on_sale(5)
    order_id = ann.place({first: 2, second: 1}).body["id"]

    answer = ann.cancel(order_id)

    assert (answer.status, answer.body["status"]) == (200, "CANCELLED")
    assert inventory.stock(first) == inventory.stock(second) == (5, 0, 0)
    assert Order.objects.get().settled_at is not None
    assert violations() == []


def test_cancelling_again_changes_nothing(ann, on_sale, inventory):
    ticket = on_sale(5)
    order_id = ann.place({ticket: 2}).body["id"]
    first = ann.cancel(order_id)

    again = ann.cancel(order_id)
    with_a_key = ann.cancel(order_id, key="c")
    and_again = ann.cancel(order_id, key="c")

    assert (again.status, again.body["status"]) == (200, "CANCELLED")
    assert again.body["updated_at"] == first.body["updated_at"]
    assert with_a_key.body == and_again.body
    assert and_again.headers["Idempotent-Replayed"] == "true"
    assert inventory.stock(ticket) == (5, 0, 0)
    assert list(OutboxEvent.objects.values_list("type", flat=True)).count("order.cancelled") == 1


def test_an_order_that_is_paid_or_over_cannot_be_cancelled(ann, on_sale):
    ticket = on_sale(5)
    paid = ann.place({ticket: 1}, key="paid").body["id"]
    ann.pay(paid)
    ann.place({ticket: 9}, key="refused")
    refused = str(Order.objects.get(status="REJECTED").pk)

    answers = [ann.cancel(paid), ann.cancel(paid, key="c"), ann.cancel(refused)]
    replayed = ann.cancel(paid, key="c")

    assert {(a.status, a.code) for a in answers} == {(409, "order_not_cancellable")}
    assert (replayed.status, replayed.body) == (409, answers[1].body)
    assert replayed.headers["Idempotent-Replayed"] == "true"
    assert ann.order(paid).body["status"] == "CONFIRMED"


def test_an_order_follows_the_expiry_of_its_hold(ann, on_sale):
    order_id = ann.place({on_sale(5): 1}).body["id"]

    assert hear("inventory", "reservation.expired", expired(order_id))

    assert ann.order(order_id).body["status"] == "EXPIRED"
    assert Order.objects.get().settled_at is not None


def test_one_hold_that_expires_takes_the_others_of_its_order_along(ann, on_sale, inventory):
    first, second = on_sale(5), on_sale(5)
    order_id = ann.place({first: 1, second: 2}).body["id"]
    inventory.release(reservation_ids(order_id)[0])
    hear("inventory", "reservation.expired", expired(order_id))
    make_due()

    sweep_orders()

    assert inventory.stock(second) == (5, 0, 0)
    assert ann.order(order_id).body["status"] == "EXPIRED"
    assert Order.objects.get().settled_at is not None


def test_doubled_and_late_expiries_do_no_harm(ann, on_sale):
    order_id = ann.place({on_sale(5): 1}).body["id"]
    ann.pay(order_id)

    for _ in range(3):
        hear("inventory", "reservation.expired", expired(order_id))

    assert ann.order(order_id).body["status"] == "CONFIRMED"
    assert violations() == []


def test_an_expiry_that_belongs_to_no_order_is_ignored(ann, on_sale):
    order_id = ann.place({on_sale(5): 1}).body["id"]
    data = expired(order_id)

    hear("inventory", "reservation.expired", data | {"reservation_id": "r", "order_id": None})
    hear("inventory", "reservation.expired", data | {"reservation_id": "somebody-elses"})
    elsewhere = "00000000-0000-4000-8000-000000000000"
    hear("inventory", "reservation.expired", data | {"order_id": elsewhere})

    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"


def test_an_order_whose_expiry_nobody_announced_is_expired_by_the_sweeper(ann, on_sale, inventory):
    ticket = on_sale(5)
    order_id = ann.place({ticket: 2}).body["id"]
    make_overdue(order_id)

    sweep_orders()

    assert ann.order(order_id).body["status"] == "EXPIRED"
    assert inventory.stock(ticket) == (5, 0, 0)
    assert violations() == []


def test_the_sweeper_leaves_alone_what_can_still_be_paid(ann, on_sale, inventory):
    ticket = on_sale(5)
    order_id = ann.place({ticket: 2}).body["id"]
    make_overdue(order_id, by_seconds=1)  # within the time inventory has to say so itself

    sweep_orders()

    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"


def test_an_unpaid_order_expires_by_itself(
    transactional_db, ann, on_sale, inventory, inventory_process, settings
):
    settings.HOLD_TTL_SECONDS = 1
    ticket = on_sale(5)
    order_id = ann.place({ticket: 2}).body["id"]
    inventory_process.start_loops()
    consumer = Consumer(name="test")

    deadline = time.monotonic() + 15
    while Order.objects.get().status == "AWAITING_PAYMENT" and time.monotonic() < deadline:
        consumer.step()

    assert ann.order(order_id).body["status"] == "EXPIRED"
    assert inventory.stock(ticket) == (5, 0, 0)
    assert InboxEvent.objects.filter(type="reservation.expired").exists()
    assert violations() == []


def test_cancelling_during_a_charge_gives_the_money_back(ann, on_sale, inventory, monkeypatch):
    order_id = ann.place({on_sale(5): 1}).body["id"]
    charge = SandboxProvider.charge

    def cancel_first(self, payment):
        assert ann.cancel(order_id).status == 200
        return charge(self, payment)

    monkeypatch.setattr(SandboxProvider, "charge", cancel_first)
    paid = ann.pay(order_id)

    assert paid.status == 200
    assert paid.body["order"]["status"] == "CANCELLED"
    assert paid.body["payment"]["status"] == "REFUNDED"
    assert inventory.statuses(order_id) == ["RELEASED"]
    assert violations() == []


def test_expiring_during_a_charge_gives_the_money_back(ann, on_sale, inventory, monkeypatch):
    order_id = ann.place({on_sale(5): 1}).body["id"]
    charge = SandboxProvider.charge

    def expire_first(self, payment):
        inventory.release(reservation_ids(order_id)[0])
        hear("inventory", "reservation.expired", expired(order_id))
        return charge(self, payment)

    monkeypatch.setattr(SandboxProvider, "charge", expire_first)
    paid = ann.pay(order_id)

    assert paid.body["order"]["status"] == "EXPIRED"
    assert paid.body["payment"]["status"] == "REFUNDED"
    assert violations() == []


@pytest.mark.parametrize("end", ["cancel", "expire"])
def test_paying_while_it_ends_is_decided_one_way_or_the_other(
    transactional_db, ann, on_sale, inventory, monkeypatch, end
):
    outcomes = set()
    ticket = on_sale(10)
    for n in range(8):
        order_id = ann.place({ticket: 1}, key=f"{end}{n}").body["id"]
        if end == "expire":
            inventory.release(reservation_ids(order_id)[0])
            other = partial(hear, "inventory", "reservation.expired", expired(order_id))
        else:
            other = partial(ann.cancel, order_id)

        with monkeypatch.context() as patch:
            if connection.vendor == "mysql":
                # Both stand in front of the UPDATE that decides; SQLite has one writer at a time.
                meet_before(patch, saga, "apply")
            paid, _ = together(partial(ann.pay, order_id), other)

        make_due()
        sweep_orders()
        sweep_payments()
        order = Order.objects.get(pk=order_id)
        captured = Payment.objects.filter(order=order, status="CAPTURED").count()
        assert paid.status in (200, 409)
        assert captured == (1 if order.status == "CONFIRMED" else 0)
        expected = "COMMITTED" if order.status == "CONFIRMED" else "RELEASED"
        assert inventory.statuses(order_id) == [expected]
        outcomes.add(str(order.status))
    assert outcomes <= {"CONFIRMED", "CANCELLED", "EXPIRED"}
    assert inventory.holds() == []
    assert violations() == []
