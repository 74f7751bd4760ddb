"""One key, many requests at once, two order processes: one effect, and one answer for all."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest

from deploy.stack.supervisor import Stack
from tests.system.client import Reply, insist, new_key, within
from tests.system.conftest import private_system, shop_of
from tests.system.faults import workers
from tests.system.shop import Shop, at_once

TIMES = 50


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """Requests with one key meet in two processes, where no lock of Python's is between them."""
    with private_system(WEB_WORKERS="2", WEB_THREADS="32") as running:
        yield running


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Shop:
    return shop_of(stack)


def require_one_answer(replies: list[Reply], status: int) -> Reply:
    """All say the same, and one of them says it for the first time."""
    assert {reply.status for reply in replies} == {status}
    first = [reply for reply in replies if "idempotent-replayed" not in reply.headers]
    assert len(first) == 1
    replayed = [reply for reply in replies if reply not in first]
    assert {reply.headers["idempotent-replayed"] for reply in replayed} == {"true"}
    assert all(reply.json == first[0].json for reply in replayed)
    return first[0]


def test_50_orders_with_one_key_are_one_order(stack: Stack, shop: Shop) -> None:
    assert len(workers(stack, "order")) == 2
    ticket, buyer, key = shop.ticket(100), shop.buyer(), new_key()
    order = partial(insist, lambda: buyer.order(ticket, quantity=2, key=key))
    first = require_one_answer(at_once([order] * TIMES), 201)
    assert shop.stock(ticket) == (98, 2, 0)
    listed = buyer.get("/api/orders").require(200)
    assert [one["id"] for one in listed["results"]] == [first.json["id"]]

    other = buyer.order(ticket, quantity=3, key=key)
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert shop.stock(ticket) == (98, 2, 0)
    # Another person's key of the same name is another key.
    assert shop.buyer().order(ticket, key=key).require(201)["id"] != first.json["id"]


def test_50_payments_with_one_key_take_the_money_once(stack: Stack, shop: Shop) -> None:
    ticket, buyer, key = shop.ticket(100), shop.buyer(), new_key()
    order = buyer.order(ticket).require(201)["id"]
    pay = partial(insist, lambda: buyer.pay(order, key=key))
    first = require_one_answer(at_once([pay] * TIMES), 200)
    assert first.json["order"]["status"] == "CONFIRMED"
    [payment] = buyer.get(f"/api/orders/{order}").require(200)["payments"]
    assert (payment["id"], payment["status"]) == (first.json["payment"]["id"], "CAPTURED")
    within(5, lambda: shop.stock(ticket), (99, 0, 1))

    other = buyer.pay(order, "sandbox_later", key)
    assert (other.status, other.code) == (422, "idempotency_key_reused")
    again = buyer.pay(order)
    assert (again.status, again.code) == (409, "order_already_paid")


def test_two_bodies_that_race_for_one_key_have_one_winner(shop: Shop) -> None:
    ticket, buyer, key = shop.ticket(100), shop.buyer(), new_key()
    orders = [
        partial(insist, lambda quantity=quantity: buyer.order(ticket, quantity=quantity, key=key))
        for quantity in (1, 2) * (TIMES // 2)
    ]
    replies = at_once(orders)
    won = {reply.json["id"] for reply in replies if reply.status == 201}
    lost = {(reply.status, reply.code) for reply in replies if reply.status != 201}
    assert len(won) == 1
    assert lost == {(422, "idempotency_key_reused")}
    [item] = buyer.get(f"/api/orders/{won.pop()}").require(200)["items"]
    # What the loser may have held for a moment is given back.
    held = item["quantity"]
    within(60, lambda: shop.stock(ticket), (100 - held, held, 0))
