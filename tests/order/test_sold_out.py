"""The sold-out flag spares inventory the crowd that comes too late and refuses by no old news."""

from __future__ import annotations

import time
from functools import partial

import pytest

from services.order import sold_out
from services.order.inventory_client import Entry
from services.order.models import Order
from tests.common.concurrency import together
from tests.order.driver import Buyer

pytestmark = pytest.mark.django_db


def test_units_that_come_back_are_on_sale_at_once(ann, bob, on_sale, inventory):
    ticket = on_sale(1)
    for n in range(5):
        order_id = ann.place({ticket: 1}, key=f"a{n}").body["id"]
        assert bob.place({ticket: 1}, key=f"b{n}").code == "sold_out"
        ann.cancel(order_id)
    assert bob.place({ticket: 1}).status == 201


def test_stock_that_is_added_is_on_sale_at_once(ann, bob, on_sale, inventory):
    ticket = on_sale(0)
    assert ann.place({ticket: 1}).code == "sold_out"
    inventory.set_stock(ticket, 1)

    assert bob.place({ticket: 1}).status == 201


def test_who_wants_less_than_was_left_is_not_refused(ann, bob, on_sale):
    ticket = on_sale(2)
    assert ann.place({ticket: 3}).code == "sold_out"

    assert bob.place({ticket: 2}).status == 201


def test_a_crowd_that_comes_too_late_is_refused_by_few_questions(
    transactional_db, ann, on_sale, road
):
    ticket = on_sale(1)
    ann.place({ticket: 1})
    assert Buyer().place({ticket: 1}).code == "sold_out"
    road.calls.clear()
    road.before = lambda body: time.sleep(0.2)
    crowd = [Buyer() for _ in range(30)]

    answers = together(*(partial(buyer.place, {ticket: 1}) for buyer in crowd))

    assert {(answer.status, answer.code) for answer in answers} == {(409, "sold_out")}
    assert {answer.body["available"] for answer in answers} == {0}
    assert len(road.calls) <= 5


def test_a_refusal_by_what_another_was_told_is_not_kept_under_the_key(
    transactional_db, ann, on_sale, road
):
    ticket = on_sale(1)
    held = ann.place({ticket: 1}).body["id"]
    assert Buyer().place({ticket: 1}).code == "sold_out"
    road.before = lambda body: time.sleep(0.2)
    crowd = [Buyer() for _ in range(10)]
    answers = together(*(partial(buyer.place, {ticket: 1}) for buyer in crowd))
    assert {answer.code for answer in answers} == {"sold_out"}
    kept = set(Order.objects.filter(status="REJECTED").values_list("user_id", flat=True))
    told = [buyer for buyer in crowd if str(buyer.user_id) not in kept]
    assert told, "one asked for the others"
    road.before = lambda body: None
    ann.cancel(held)

    assert told[0].place({ticket: 1}).status == 201


def test_an_inventory_that_hangs_is_waited_for_once_not_one_after_the_other(
    transactional_db, ann, on_sale, road
):
    ticket = on_sale(0)
    assert ann.place({ticket: 1}).code == "sold_out"
    road.always = "hang"
    crowd = [Buyer() for _ in range(8)]
    began = time.monotonic()

    answers = together(*(partial(buyer.place, {ticket: 1}) for buyer in crowd))

    assert {answer.status for answer in answers} == {503}
    assert time.monotonic() - began < 6


def test_those_behind_the_one_who_asks_are_served_when_units_are_back(
    transactional_db, ann, on_sale, inventory, road
):
    ticket = on_sale(0)
    assert ann.place({ticket: 1}).code == "sold_out"
    inventory.set_stock(ticket, 20)
    road.before = lambda body: time.sleep(0.2)
    crowd = [Buyer() for _ in range(20)]

    answers = together(*(partial(buyer.place, {ticket: 1}) for buyer in crowd))

    assert {answer.status for answer in answers} == {201}
    assert inventory.stock(ticket) == (0, 20, 0)


def test_who_wants_no_more_than_is_left_is_not_refused_by_one_who_wants_more(
    transactional_db, ann, on_sale, inventory, road
):
    ticket = on_sale(2)
    assert ann.place({ticket: 5}).code == "sold_out"
    road.before = lambda body: time.sleep(0.2)
    greedy, modest = [Buyer() for _ in range(6)], Buyer()

    answers = together(
        *(partial(buyer.place, {ticket: 4}) for buyer in greedy), partial(modest.place, {ticket: 2})
    )

    assert [answer.status for answer in answers] == [409] * 6 + [201]


def told(code: str = "", **error: object) -> list[Entry]:
    return [Entry("r", code=code, error={"code": code, **error} if code else {})]


def test_the_replay_of_an_old_refusal_is_no_news():
    assert sold_out.learn([({1: 1}, told("insufficient_stock"))]) == {}
    assert not sold_out.is_doubtful({1: 1})


def test_a_flag_is_for_those_who_want_more_than_was_left_and_falls_when_units_are_held():
    assert sold_out.learn([({1: 5}, told("insufficient_stock", available=2))]) == {1: 2}
    assert sold_out.is_doubtful({1: 3, 2: 1})
    assert not sold_out.is_doubtful({1: 2, 2: 1})
    sold_out.learn([({1: 2}, told())])
    assert not sold_out.is_doubtful({1: 3})
