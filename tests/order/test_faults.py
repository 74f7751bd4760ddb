"""What is interrupted is finished: by the same request again, or by the sweeper."""

from __future__ import annotations

from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.utils import timezone

from common.errors import Unavailable
from common.ids import derived_token
from services.order import paying, placing, saga
from services.order.models import Order, Payment
from services.order.providers.base import Charge, Outcome
from services.order.providers.sandbox import SandboxProvider
from services.order.sweeping import sweep_orders, sweep_payments
from tests.common.concurrency import together
from tests.order.conftest import Crash
from tests.order.driver import hold, make_due, reservation_ids, violations

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("fault", ["lose", "hang"])
def test_a_lost_answer_of_inventory_is_a_503_and_the_same_key_then_works(
    transactional_db, ann, on_sale, inventory, road, fault
):
    ticket = on_sale(10)
    road.plan(fault)

    lost = ann.place({ticket: 2})
    again = ann.place({ticket: 2})

    assert (lost.status, lost.code) == (503, "inventory_unavailable")
    assert lost.headers["Retry-After"] == "1"
    assert again.status == 201
    assert "Idempotent-Replayed" not in again.headers
    assert inventory.stock(ticket) == (8, 2, 0)
    assert Order.objects.count() == 1
    assert violations() == []


@pytest.mark.parametrize("fault", ["down", "refuse"])
def test_an_inventory_that_is_away_leaves_nothing_behind(ann, on_sale, inventory, road, fault):
    ticket = on_sale(10)
    road.plan(fault)

    assert ann.place({ticket: 2}).status == 503
    assert inventory.stock(ticket) == (10, 0, 0)
    assert not Order.objects.exists()
    assert ann.place({ticket: 2}).status == 201


def test_a_lost_refusal_is_the_same_refusal_later(ann, on_sale, road):
    plenty, scarce = on_sale(10), on_sale(1)
    road.plan("lose")
    assert ann.place({plenty: 1, scarce: 2}).status == 503

    again = ann.place({plenty: 1, scarce: 2})

    assert (again.status, again.code, again.body["ticket_id"]) == (409, "sold_out", scarce)
    assert Order.objects.get().settled_at is not None


def test_a_worker_that_dies_before_its_order_leaves_a_hold_that_the_retry_finds(
    ann, on_sale, inventory, crash_at
):
    ticket = on_sale(10)
    crash_at(placing, "_write")
    with pytest.raises(Crash):
        ann.place({ticket: 2})

    again = ann.place({ticket: 2})

    assert again.status == 201
    assert inventory.stock(ticket) == (8, 2, 0)
    assert violations() == []


def test_a_hold_that_is_gone_when_the_retry_comes_makes_no_order_to_pay(ann, on_sale, inventory):
    kept, gone = on_sale(10), on_sale(10)
    hold(inventory, ann, kept)
    hold(inventory, ann, gone)
    inventory.release(derived_token(str(ann.user_id), "k", str(gone)))

    answer = ann.place({kept: 1, gone: 1})
    make_due()
    sweep_orders()

    assert (answer.status, answer.code) == (409, "order_interrupted")
    assert inventory.stock(kept) == inventory.stock(gone) == (10, 0, 0)
    assert Order.objects.get().settled_at is not None


@pytest.mark.parametrize("fault", ["lose", "down", "hang"])
def test_a_payment_stands_when_inventory_does_not_answer_and_the_sweeper_goes_on(
    transactional_db, ann, on_sale, inventory, road, fault
):
    order_id = ann.place({on_sale(10): 2}).body["id"]
    road.plan(fault)

    paid = ann.pay(order_id)

    assert (paid.status, paid.body["order"]["status"]) == (200, "PAID")
    assert paid.body["payment"]["status"] == "CAPTURED"
    make_due()
    sweep_orders()
    assert ann.order(order_id).body["status"] == "CONFIRMED"
    assert inventory.statuses(order_id) == ["COMMITTED"]
    assert violations() == []


def test_a_cancellation_stands_when_inventory_is_away_and_the_sweeper_goes_on(
    ann, on_sale, inventory, road
):
    ticket = on_sale(10)
    order_id = ann.place({ticket: 2}).body["id"]
    road.always = "down"
    assert ann.cancel(order_id).body["status"] == "CANCELLED"
    make_due()
    sweep_orders()
    assert Order.objects.get().settled_at is None

    road.always = "pass"
    make_due()
    sweep_orders()

    assert inventory.stock(ticket) == (10, 0, 0)
    assert Order.objects.get().settled_at is not None


def test_a_worker_that_dies_after_the_money_is_booked_is_finished_by_the_sweeper(
    ann, on_sale, inventory, crash_at
):
    order_id = ann.place({on_sale(10): 2}).body["id"]
    crash_at(saga, "advance_if_possible")
    with pytest.raises(Crash):
        ann.pay(order_id)
    assert Order.objects.get().status == "PAID"

    make_due()
    sweep_orders()

    assert ann.order(order_id).body["status"] == "CONFIRMED"
    assert ann.pay(order_id).body["payment"]["status"] == "CAPTURED"
    assert Payment.objects.count() == 1
    assert violations() == []


def test_a_worker_that_dies_before_the_charge_is_answered_is_finished_by_the_sweeper(
    ann, on_sale, inventory, crash_at
):
    order_id = ann.place({on_sale(10): 2}).body["id"]
    crash_at(SandboxProvider, "charge")
    with pytest.raises(Crash):
        ann.pay(order_id)
    assert Payment.objects.get().status == "CREATED"

    make_due()
    sweep_payments()

    assert ann.order(order_id).body["status"] == "CONFIRMED"
    assert Payment.objects.get().status == "CAPTURED"


def test_a_worker_that_dies_between_charge_and_booking_charges_once_more_under_the_same_id(
    ann, on_sale, crash_at, monkeypatch
):
    order_id = ann.place({on_sale(10): 2}).body["id"]
    charged = []
    charge = SandboxProvider.charge
    monkeypatch.setattr(
        SandboxProvider,
        "charge",
        lambda self, payment: charged.append(payment.pk) or charge(self, payment),
    )
    crash_at(paying, "book")
    with pytest.raises(Crash):
        ann.pay(order_id)

    again = ann.pay(order_id)

    assert again.body["order"]["status"] == "CONFIRMED"
    assert len(charged) == 2
    assert len(set(charged)) == 1, "to the provider it is the same payment"
    assert Payment.objects.count() == 1


def test_an_interrupted_charge_of_an_order_that_is_over_keeps_no_money(
    ann, on_sale, crash_at, monkeypatch
):
    order_id = ann.place({on_sale(10): 2}).body["id"]
    crash_at(paying, "book")
    with pytest.raises(Crash):
        ann.pay(order_id)
    ann.cancel(order_id)
    refunded = []
    monkeypatch.setattr(SandboxProvider, "refund", lambda self, payment: refunded.append(payment))

    make_due()
    sweep_payments()

    assert refunded == [Payment.objects.get()]
    assert Payment.objects.get().status == "DECLINED"
    assert violations() == []


def test_a_crash_before_the_holds_are_extended_is_made_good_by_the_sweeper(
    ann, on_sale, crash_at, settings
):
    order_id = ann.place({on_sale(10): 2}).body["id"]
    crash_at(saga, "extend_holds")
    with pytest.raises(Crash):
        ann.pay(order_id, "sandbox_later")
    assert Payment.objects.get().due_at < timezone.now() + timedelta(seconds=20)

    make_due()
    sweep_payments()

    order = Order.objects.get()
    more = timedelta(seconds=settings.HOLD_EXTENSION_SECONDS)
    assert order.extended_until == order.expires_at + more
    assert Payment.objects.get().due_at == saga.overdue_at(order.extended_until)


def test_more_time_is_asked_for_again_while_inventory_is_away_and_once_where_it_gives_none(
    ann, on_sale, inventory, road
):
    order_id = ann.place({on_sale(10): 2}).body["id"]
    road.plan("down", "down")
    ann.pay(order_id, "sandbox_later")
    make_due()
    sweep_payments()
    assert Payment.objects.get().due_at < timezone.now() + timedelta(seconds=10)
    inventory.release(reservation_ids(order_id)[0])
    road.calls.clear()

    make_due()
    sweep_payments()

    order = Order.objects.get()
    assert order.extended_until is None
    assert Payment.objects.get().due_at == saga.overdue_at(order.expires_at)
    assert len(road.calls) == 1


def test_a_refund_that_fails_is_tried_again(ann, on_sale, inventory, crash_at):
    order_id = ann.place({on_sale(10): 2}).body["id"]
    inventory.release(reservation_ids(order_id)[0])
    crash_at(SandboxProvider, "refund")
    with pytest.raises(Crash):
        ann.pay(order_id)
    assert Payment.objects.get().status == "REFUND_DUE"

    make_due()
    sweep_payments()
    sweep_orders()

    assert Payment.objects.get().status == "REFUNDED"
    assert ann.order(order_id).body["status"] == "EXPIRED"
    assert Order.objects.get().settled_at is not None
    assert violations() == []


def test_a_provider_that_is_away_is_a_503_and_the_same_key_then_works(ann, on_sale, monkeypatch):
    order_id = ann.place({on_sale(10): 2}).body["id"]
    answers = [Unavailable("provider_unavailable", "Away."), Charge(Outcome.CAPTURED, "ref")]

    def charge(self, payment):
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(SandboxProvider, "charge", charge)

    away, again = ann.pay(order_id), ann.pay(order_id)

    assert (away.status, away.code) == (503, "provider_unavailable")
    assert again.body["order"]["status"] == "CONFIRMED"
    assert Payment.objects.count() == 1


def test_several_sweepers_at_once_finish_everything_once(
    transactional_db, ann, on_sale, inventory, road
):
    ticket = on_sale(20)
    ids = [ann.place({ticket: 1}, key=f"k{n}").body["id"] for n in range(8)]
    road.always = "down"
    for order_id in ids:
        ann.pay(order_id)
    road.always = "pass"
    road.calls.clear()
    make_due()

    together(*[sweep_orders] * 4)

    assert set(Order.objects.values_list("status", flat=True)) == {"CONFIRMED"}
    assert len(road.calls) == 8, "each order was claimed by one sweeper"
    assert inventory.stock(ticket) == (12, 0, 8)
    assert violations() == []


def test_an_unreadable_answer_of_inventory_is_a_503(ann, on_sale, inventory, road):
    ticket = on_sale(10)
    road.plan("garble")

    assert ann.place({ticket: 1}).status == 503
    assert ann.place({ticket: 1}).status == 201


def test_a_refusal_of_the_call_itself_is_a_503_and_not_the_buyers_fault(
    ann, on_sale, inventory, settings
):
    ticket = on_sale(10)
    # Inventory takes it for a call of a path that it does not have.
    settings.INVENTORY_URL = f"{inventory.url}/nowhere"

    assert ann.place({ticket: 1}).code == "inventory_unavailable"


def test_the_sweeper_runs_as_a_command(ann, on_sale, inventory, road):
    order_id = ann.place({on_sale(10): 2}).body["id"]
    road.plan("down")
    ann.pay(order_id)
    make_due()
    out = StringIO()

    call_command("finish_orders", "--once", stdout=out)

    assert ann.order(order_id).body["status"] == "CONFIRMED"
    assert out.getvalue().startswith("finish_orders:")
