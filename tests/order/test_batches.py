"""Purchases that wait together: one call to inventory, one transaction, each one its own answer."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from common.errors import Problem
from common.events.models import OutboxEvent
from services.order import inventory_client, placing, refusals
from services.order.inventory_client import _entry
from services.order.models import Order
from services.order.purchases import Placed, Purchase
from tests.common.concurrency import together
from tests.order.driver import Buyer, new_ticket_id, violations

pytestmark = pytest.mark.django_db

STATEMENTS_MAX = 10


def purchase(quantities: dict[int, int], **changes: Any) -> Purchase:
    """Return what somebody who has never bought wants."""
    user_id = str(Buyer().user_id)
    given = {"user_id": user_id, "key": "k", "fingerprint": "f", "request_id": f"r-{user_id}"}
    return Purchase(**(given | changes), quantities=quantities)


def codes(outcomes: list[Any]) -> list[str]:
    """Return "placed", "replayed" or the code of each refusal."""
    return [
        ("replayed" if one.replayed else "placed") if isinstance(one, Placed) else one.code
        for one in outcomes
    ]


def test_a_batch_asks_inventory_once(on_sale, inventory, road):
    ticket = on_sale(100)

    outcomes = placing._place([purchase({ticket: 2}) for _ in range(40)])

    assert codes(outcomes) == ["placed"] * 40
    assert len(road.calls) == 1
    assert inventory.stock(ticket) == (20, 80, 0)
    assert violations() == []


@pytest.mark.parametrize("size", [1, 60])
def test_a_batch_takes_few_statements_however_large_it_is(on_sale, size):
    ticket, other = on_sale(500), on_sale(500)

    with CaptureQueriesContext(
        connection,
    ) as queries:
        placing._place([purchase({ticket: 1, other: 1}) for _ in range(size)])

    own = [one["sql"] for one in queries if "SAVEPOINT" not in one["sql"]]
    assert len(own) <= STATEMENTS_MAX, own
    assert Order.objects.count() == size


def test_more_lines_than_inventory_takes_at_once_go_in_several_calls(on_sale, inventory, road):
    tickets = sorted(on_sale(50) for _ in range(20))

    outcomes = placing._place([purchase(dict.fromkeys(tickets, 1)) for _ in range(30)])

    assert codes(outcomes) == ["placed"] * 30
    sizes = [sum(len(g["entries"]) for g in json.loads(call)["groups"]) for call in road.calls]
    assert sizes == [240, 240, 120]
    assert {inventory.stock(ticket) for ticket in tickets} == {(20, 30, 0)}


def test_who_cannot_be_served_keeps_nobody_from_being_served(on_sale, inventory):
    ticket, unstocked, scarce = on_sale(20, per_order_limit=5), on_sale(None), on_sale(1)
    reused = purchase({ticket: 1})
    placing.place_order(reused)

    outcomes = placing._place(
        [
            purchase({ticket: 1}),
            purchase({ticket: 6}),
            purchase({ticket: 1, unstocked: 1}),
            purchase({ticket: 1, scarce: 2}),
            purchase({ticket: 1}, user_id=reused.user_id, fingerprint="another body"),
            purchase({ticket: 1}, user_id=reused.user_id),
            purchase({ticket: 2}),
        ]
    )

    answers = codes(outcomes)
    assert answers[:3] == ["placed", "limit_exceeded", "sale_not_open"]
    assert answers[3] == "placed", "a refusal for good is an order, too"
    assert outcomes[3].order.rejection["code"] == "sold_out"
    assert answers[4:] == ["idempotency_key_reused", "replayed", "placed"]
    assert inventory.stock(ticket) == (16, 4, 0)
    assert violations() == []


def test_an_offer_that_is_unknown_here_is_for_the_catalog_to_say_and_nobody_else_waits(on_sale):
    ticket, unknown = on_sale(5), new_ticket_id()

    first, second = placing._place([purchase({unknown: 1}), purchase({ticket: 1})])

    assert isinstance(first, placing._Closed)
    assert codes([second]) == ["placed"]


def test_one_key_several_times_in_a_batch_makes_one_order(on_sale, inventory):
    ticket = on_sale(10)
    wanted = purchase({ticket: 2})
    again = purchase({ticket: 2}, user_id=wanted.user_id)
    other_body = purchase({ticket: 3}, user_id=wanted.user_id, fingerprint="another body")

    outcomes = placing._place([wanted, again, other_body, again])

    assert codes(outcomes) == ["placed", "replayed", "idempotency_key_reused", "replayed"]
    assert {outcome.order.pk for outcome in outcomes if isinstance(outcome, Placed)} == {
        wanted.order_id
    }
    assert inventory.stock(ticket) == (8, 2, 0)


def test_a_key_whose_first_request_was_refused_for_now_is_not_used_up_by_it(on_sale):
    ticket = on_sale(10, per_order_limit=1)
    greedy = purchase({ticket: 2})
    modest = purchase({ticket: 1}, user_id=greedy.user_id, fingerprint="another body")

    refused, waits = placing._place([greedy, modest])

    assert codes([refused, waits]) == ["limit_exceeded", "request_in_progress"]
    assert waits.wait == 1
    assert codes([placing.place_order(modest)]) == ["placed"]


def test_every_order_says_which_request_it_came_from(on_sale):
    ticket = on_sale(1)
    batch = [purchase({ticket: 1}), purchase({ticket: 1})]

    placing._place(batch)

    events = OutboxEvent.objects.order_by("seq")
    assert [event.payload["requestid"] for event in events] == [one.request_id for one in batch]
    rejected = Order.objects.get(status="REJECTED")
    assert rejected.rejection["request_id"] == batch[1].request_id


def test_each_request_of_a_batch_that_inventory_does_not_answer_gets_an_error_of_its_own(
    transactional_db, on_sale, road
):
    ticket = on_sale(10)
    road.always = "down"
    batch = [purchase({ticket: 1}) for _ in range(6)]

    def place(one: Purchase) -> Problem:
        with pytest.raises(Problem) as raised:
            placing.place_order(one)
        return raised.value

    errors = together(*(partial(place, one) for one in batch))

    assert {error.code for error in errors} == {"inventory_unavailable"}
    assert len({id(error) for error in errors}) == 6
    assert not Order.objects.exists()


@pytest.mark.parametrize(("status", "lines"), [(503, 0), (500, 1)])
def test_an_overload_of_inventory_is_no_error_of_ours(on_sale, monkeypatch, status, lines):
    ticket = on_sale(10)
    logged = []
    monkeypatch.setattr(refusals.log, "error", lambda *words, **more: logged.append(words))
    error = {"code": "overloaded", "detail": "Too many."}
    received = {"status": status, "reservation": None, "error": error}
    monkeypatch.setattr(
        inventory_client, "reserve", lambda groups: [[_entry("r", received)] for _ in groups]
    )

    assert codes(placing._place([purchase({ticket: 1})])) == ["inventory_unavailable"]
    assert len(logged) == lines
