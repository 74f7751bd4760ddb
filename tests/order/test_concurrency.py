"""Requests that meet: real threads, one key or many, and never a unit or an order too many."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest

from services.order import inventory_client, placing
from services.order.models import Order
from services.order.purchases import purchase_of
from tests.common.concurrency import meet_before, times, together
from tests.order.driver import Buyer, violations

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def apart(settings):
    """Let each request commit by itself, as requests do that meet in different processes."""
    settings.GROUP_COMMIT_MAX_BATCH = 1


def _one_order_of_fifty(ann, on_sale, inventory):
    ticket = on_sale(50)

    answers = together(*times(50, partial(ann.place, {ticket: 2})))

    assert {answer.status for answer in answers} == {201}
    assert len({str(answer.body) for answer in answers}) == 1
    replays = [answer for answer in answers if "Idempotent-Replayed" in answer.headers]
    assert len(replays) == 49
    assert Order.objects.count() == 1
    assert inventory.stock(ticket) == (48, 2, 0)
    assert violations() == []


def test_fifty_posts_with_one_key_make_one_order(ann, on_sale, inventory):
    _one_order_of_fifty(ann, on_sale, inventory)


def test_fifty_posts_with_one_key_that_all_hold_before_one_inserts_make_one_order(
    ann, on_sale, inventory, apart, monkeypatch
):
    meet_before(monkeypatch, placing, "in_transaction", parties=50)
    _one_order_of_fifty(ann, on_sale, inventory)


def test_a_batch_of_which_another_process_inserts_one_inserts_the_others(
    on_sale, inventory, monkeypatch
):
    ticket = on_sale(50)
    batch = [
        purchase_of(
            user_id=str(Buyer().user_id),
            key="k",
            fingerprint="f",
            lines=[{"ticket_id": ticket, "quantity": 1}],
        )
        for _ in range(5)
    ]
    reserve = inventory_client.reserve

    def then_another_is_faster(groups):
        monkeypatch.undo()
        answers = reserve(groups)
        # Past the lanes of this process, as in another one.
        together(partial(placing._place, [batch[2]]))
        return answers

    monkeypatch.setattr(inventory_client, "reserve", then_another_is_faster)

    outcomes = placing._place(batch)

    assert [type(outcome).__name__ for outcome in outcomes] == [
        *("Placed", "Placed", "_Overtaken", "Placed", "Placed")
    ]
    assert placing.place_order(batch[2]).replayed
    assert Order.objects.count() == 5
    assert inventory.stock(ticket) == (45, 5, 0)
    assert violations() == []


def test_twenty_posts_with_one_key_for_what_is_sold_out_get_one_refusal(ann, on_sale):
    ticket = on_sale(1)

    answers = together(*times(20, partial(ann.place, {ticket: 2})))

    assert {(answer.status, answer.code) for answer in answers} == {(409, "sold_out")}
    replays = [a for a in answers if "Idempotent-Replayed" in a.headers]
    assert all(replay.body == ann.place({ticket: 2}).body for replay in replays)
    assert Order.objects.count() == 1


def test_one_key_with_two_bodies_at_once_holds_one_of_them(
    ann, on_sale, inventory, apart, monkeypatch
):
    shared, one, two = on_sale(50), on_sale(50), on_sale(50)
    meet_before(monkeypatch, placing, "in_transaction", parties=2)

    answers = together(
        partial(ann.place, {shared: 1, one: 2}), partial(ann.place, {shared: 1, two: 3})
    )

    assert sorted(answer.status for answer in answers) == [201, 422]
    [placed] = [answer for answer in answers if answer.status == 201]
    bought = {item["ticket_id"]: item["quantity"] for item in placed.body["items"]}
    held = {hold["ticket_id"]: hold["quantity"] for hold in inventory.holds()}
    assert held == bought
    assert violations() == []


def test_one_key_with_two_quantities_at_once_is_one_order(ann, on_sale, inventory):
    ticket = on_sale(50)

    answers = together(partial(ann.place, {ticket: 2}), partial(ann.place, {ticket: 3}))

    assert sorted(answer.status for answer in answers) in ([201, 422], [422, 422])
    held = sum(hold["quantity"] for hold in inventory.holds())
    assert held in (2, 3)


def test_a_crowd_gets_exactly_what_there_is(on_sale, inventory):
    ticket = on_sale(7, per_user_limit=1)
    crowd = [Buyer() for _ in range(30)]

    answers = together(*(partial(buyer.place, {ticket: 1}) for buyer in crowd))

    told = Counter((answer.status, answer.code) for answer in answers)
    assert told == {(201, None): 7, (409, "sold_out"): 23}
    assert inventory.stock(ticket) == (0, 7, 0)
    assert violations() == []


def test_one_person_cannot_beat_the_limit_with_two_orders_at_once(ann, on_sale, inventory):
    ticket = on_sale(50, per_user_limit=3)

    answers = together(*(partial(ann.place, {ticket: 2}, key=f"k{n}") for n in range(6)))

    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409, 409, 409]
    assert inventory.stock(ticket) == (48, 2, 0)


def test_orders_of_the_same_tickets_in_either_order_do_not_deadlock(on_sale, inventory):
    one, two = on_sale(100), on_sale(100)
    crowd = [Buyer() for _ in range(16)]
    wishes = [{one: 1, two: 1} if n % 2 else {two: 1, one: 1} for n in range(16)]

    answers = together(
        *(partial(buyer.place, wish) for buyer, wish in zip(crowd, wishes, strict=True))
    )

    assert {answer.status for answer in answers} == {201}
    assert inventory.stock(one) == inventory.stock(two) == (84, 16, 0)
