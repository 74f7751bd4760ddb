"""The sold-out flag spares inventory the crowd that comes too late and refuses by no old news."""

from __future__ import annotations

import threading
import time
from functools import partial

import pytest

from services.order import sold_out
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


def test_a_refusal_by_the_flag_is_not_kept_under_the_key(
    transactional_db, ann, bob, on_sale, road, monkeypatch
):
    ticket = on_sale(1)
    held = ann.place({ticket: 1}).body["id"]
    bob.place({ticket: 1}, key="first")
    monkeypatch.setattr(sold_out, "turn", _raise_sold_out)
    refused = bob.place({ticket: 1}, key="second")
    monkeypatch.undo()
    ann.cancel(held)

    assert (refused.status, refused.code) == (409, "sold_out")
    assert Order.objects.filter(user_id=str(bob.user_id)).count() == 1
    assert bob.place({ticket: 1}, key="second").status == 201


def _raise_sold_out(quantities):
    raise sold_out.SoldOut(next(iter(quantities)), 0)


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


def test_only_an_answer_to_a_later_question_refuses():
    wanted = {1: 1}
    sold_out.remember(1, available=0, asked_at=time.monotonic())

    with sold_out.turn(wanted) as asked_at:
        outcome = []
        waiting = threading.Thread(target=lambda: outcome.append(_asks(wanted)))
        waiting.start()
        time.sleep(0.05)
        sold_out.remember(1, available=0, asked_at=asked_at)
    waiting.join(5)

    assert outcome == ["asked"], "the question was older than the one who waited"


def _asks(wanted):
    try:
        with sold_out.turn(wanted):
            return "asked"
    except sold_out.SoldOut:
        return "refused"


def test_an_order_of_many_lines_waits_for_its_turn_once(monkeypatch):
    monkeypatch.setattr(sold_out, "WAIT_SECONDS", 0.2)
    wanted = dict.fromkeys(range(1, 21), 1)
    for ticket in wanted:
        sold_out.remember(ticket, available=0, asked_at=time.monotonic())

    with sold_out.turn(wanted):
        began = time.monotonic()
        assert _asks_in_a_thread(wanted) == "asked"
        assert time.monotonic() - began < 2, "20 lines, one wait of 0.2 s"


def _asks_in_a_thread(wanted):
    outcome = []
    asking = threading.Thread(target=lambda: outcome.append(_asks(wanted)))
    asking.start()
    asking.join(10)
    return outcome[0]
