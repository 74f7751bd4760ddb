"""The order service's repairs, on a real inventory: broken, repaired, and a second time nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from common.repairing import NOTHING, repair_all
from services.order.models import Order, Payment
from services.order.repairing import REPAIRS
from tests.order.driver import hold, make_overdue, reservation_ids, violations
from tests.order.faults import FaultyRoad

pytestmark = pytest.mark.django_db(transaction=True)


def repair(name, row_id, **more):
    """Do one repair; return what came of it."""
    [done] = repair_all([{"repair": name, "id": row_id, "why": "a test", **more}], REPAIRS)
    assert done["ok"], done
    return done["result"]


def status(order_id):
    return Order.objects.get(pk=order_id).status


@pytest.fixture
def ticket(on_sale):
    return on_sale(10)


@pytest.fixture
def waiting(ann, ticket):
    """Place an order for two units; it waits for its payment."""
    return ann.place({ticket: 2}).body["id"]


def test_a_torn_purchase_gets_its_stand_in_and_gives_its_units_back(ann, ticket, inventory):
    order_id = hold(inventory, ann, ticket, 3)
    [held] = [one["reservation_id"] for one in inventory.holds()]

    assert repair("fit_hold", held, order_id=order_id).endswith("REJECTED")

    assert inventory.stock(ticket) == (10, 0, 0)
    assert violations() == []
    # The same again finds an order that is over; releasing what is released changes nothing.
    repair("fit_hold", held, order_id=order_id)
    assert (inventory.stock(ticket), violations()) == ((10, 0, 0), [])


@pytest.mark.parametrize("over", ["CANCELLED", "EXPIRED", "REJECTED"])
def test_a_hold_of_an_order_that_is_over_is_given_back(waiting, ticket, inventory, over):
    Order.objects.filter(pk=waiting).update(status=over, settled_at=timezone.now())
    [held] = reservation_ids(waiting)

    repair("fit_hold", held, order_id=waiting)

    assert inventory.stock(ticket) == (10, 0, 0)
    assert status(waiting) == over


def test_a_hold_of_a_confirmed_order_is_sold(ann, waiting, ticket, inventory, road: FaultyRoad):
    road.plan("down")
    ann.pay(waiting)
    Order.objects.filter(pk=waiting).update(status="CONFIRMED")
    [held] = reservation_ids(waiting)
    assert inventory.stock(ticket) == (8, 2, 0)

    assert repair("fit_hold", held, order_id=waiting).endswith("CONFIRMED")

    assert inventory.stock(ticket) == (8, 0, 2)
    repair("fit_hold", held, order_id=waiting)
    assert inventory.stock(ticket) == (8, 0, 2)


def test_a_hold_that_no_line_lists_is_given_back_and_the_order_stands(
    ann, waiting, ticket, on_sale, inventory
):
    stray = on_sale(5)
    hold(inventory, ann, stray)
    [held] = [one["reservation_id"] for one in inventory.holds()][-1:]

    repair("fit_hold", held, order_id=waiting)

    assert (inventory.stock(stray), inventory.stock(ticket)) == ((5, 0, 0), (8, 2, 0))
    assert status(waiting) == "AWAITING_PAYMENT"


def test_a_hold_that_fits_its_order_is_left_alone(waiting, ticket, inventory):
    [held] = reservation_ids(waiting)
    assert repair("fit_hold", held, order_id=waiting) == NOTHING
    assert inventory.stock(ticket) == (8, 2, 0)


def test_an_unpaid_order_whose_hold_is_lost_expires_with_the_rest_of_its_holds(
    ann, on_sale, inventory
):
    lost, kept = on_sale(5), on_sale(5)
    order_id = ann.place({lost: 1, kept: 1}).body["id"]
    inventory.release(reservation_ids(order_id)[0])

    assert repair("expire_order", order_id) == "expired"

    assert status(order_id) == "EXPIRED"
    assert (inventory.stock(lost), inventory.stock(kept)) == ((5, 0, 0), (5, 0, 0))
    assert repair("expire_order", order_id) == NOTHING
    assert violations() == []


def test_an_order_that_is_paid_is_not_expired_by_a_repair(ann, waiting):
    ann.pay(waiting)
    assert repair("expire_order", waiting) == NOTHING
    assert status(waiting) == "CONFIRMED"


def test_an_order_whose_hold_is_there_after_all_is_not_let_go(ann, on_sale, inventory):
    """The audit looks at orders and at holds one after the other, while people buy."""
    order_id = ann.place({on_sale(5): 2}).body["id"]

    assert repair("expire_order", order_id) == NOTHING

    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"
    assert inventory.statuses(order_id) == ["RESERVED"]


def test_a_paid_order_that_nobody_finished_is_confirmed(ann, waiting, ticket, inventory, road):
    road.plan("down")
    ann.pay(waiting)
    assert status(waiting) == "PAID"

    assert repair("advance_order", waiting) == "PAID → CONFIRMED, settled"

    assert inventory.stock(ticket) == (8, 0, 2)
    assert repair("advance_order", waiting) == NOTHING
    assert violations() == []


def test_an_overdue_order_that_nobody_looked_after_expires(waiting, ticket, inventory):
    make_overdue(waiting, by_seconds=60)
    repair("advance_order", waiting)
    assert (status(waiting), inventory.stock(ticket)) == ("EXPIRED", (10, 0, 0))


@pytest.mark.parametrize("over", ["CANCELLED", "EXPIRED", "REJECTED"])
def test_money_of_an_order_that_is_over_is_given_back(ann, waiting, over):
    ann.pay(waiting)
    Order.objects.filter(pk=waiting).update(status=over)

    assert repair("give_money_back", waiting) == "1 payments given back"

    assert Payment.objects.get().status == "REFUNDED"
    assert repair("give_money_back", waiting) == NOTHING


@pytest.mark.parametrize("stands", ["CONFIRMED", "PAID", "AWAITING_PAYMENT"])
def test_money_of_an_order_that_stands_is_its_own(ann, waiting, stands):
    ann.pay(waiting)
    Order.objects.filter(pk=waiting).update(status=stands)

    assert repair("give_money_back", waiting) == NOTHING

    assert Payment.objects.get().status == "CAPTURED"


def test_a_refund_that_is_due_is_made_once(ann, waiting):
    ann.pay(waiting)
    Payment.objects.update(status="REFUND_DUE", updated_at=timezone.now() - timedelta(minutes=1))
    payment = str(Payment.objects.get().pk)

    assert repair("refund_payment", payment) == "given back"

    assert Payment.objects.get().status == "REFUNDED"
    assert repair("refund_payment", payment) == NOTHING


def test_a_repair_that_inventory_does_not_answer_fails_alone_and_can_be_repeated(
    ann, waiting, ticket, inventory, road
):
    road.plan("down", "down")
    ann.pay(waiting)
    item = {"repair": "advance_order", "id": waiting, "why": ""}

    [failed] = repair_all([item], REPAIRS)
    [done] = repair_all([item], REPAIRS)

    assert (failed["ok"], done["ok"]) == (False, True)
    assert "did not answer" in failed["result"]
    assert inventory.stock(ticket) == (8, 0, 2)


@pytest.mark.parametrize("name", ["advance_order", "expire_order", "give_money_back"])
def test_an_order_that_does_not_exist_needs_no_repair(name):
    assert repair(name, "0190c7f0-0000-7000-8000-000000000001") == NOTHING
