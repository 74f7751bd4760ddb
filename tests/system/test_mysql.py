"""The same system on a private MariaDB: the main job, a rush and a crash once more."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from functools import partial

import pytest

from deploy.stack.plan import EMBEDDED_VARIABLE
from deploy.stack.supervisor import Stack
from tests.system.client import Client, insist, new_key, within
from tests.system.conftest import private_system, shop_of
from tests.system.faults import kill
from tests.system.shop import PASSWORD, Shop, at_once
from tests.system.storm import Storm
from tests.system.test_stampede import buy

pytestmark = pytest.mark.skipif(
    bool(os.environ.get(EMBEDDED_VARIABLE)), reason="--embedded: this machine needs no MariaDB"
)


@pytest.fixture(scope="module")
def mysql_stack() -> Iterator[Stack]:
    with private_system("mysql", HOLD_TTL_SECONDS="6") as running:
        yield running


@pytest.fixture(scope="module")
def mysql_shop(mysql_stack: Stack) -> Shop:
    return shop_of(mysql_stack)


def test_the_main_job(mysql_stack: Stack, mysql_shop: Shop) -> None:
    shop = mysql_shop
    assert all("mysql://" in mysql_stack.env[f"{name}_DATABASE_URL"] for name in ("AUTH", "ORDER"))
    ticket = shop.ticket(10)
    somebody, key = Client(shop.url, shop.log_in(shop.register(), PASSWORD)), new_key()
    order = somebody.order(ticket, quantity=2, key=key).require(201)
    assert somebody.order(ticket, quantity=2, key=key).headers["idempotent-replayed"] == "true"
    assert somebody.order(ticket, key=key).code == "idempotency_key_reused"
    assert shop.buyer().order(ticket, key=key).require(201)["id"] != order["id"]
    somebody.pay(order["id"]).require(200)
    within(2, lambda: somebody.status_of(order["id"]), "CONFIRMED")
    within(2, lambda: shop.shown(ticket), 7)


def test_cancelled_and_unpaid_orders_give_their_stock_back(mysql_shop: Shop) -> None:
    shop, buyer = mysql_shop, mysql_shop.buyer()
    ticket = shop.ticket(2)
    cancelled, unpaid = (buyer.order(ticket).require(201)["id"] for _ in range(2))
    assert buyer.order(ticket).code == "sold_out"
    buyer.cancel(cancelled).require(200)
    within(16, lambda: buyer.status_of(unpaid), "EXPIRED")
    within(2, lambda: shop.shown(ticket), 2)
    assert shop.stock(ticket) == (2, 0, 0)


def test_a_rush_and_a_crash_of_the_database(mysql_stack: Stack, mysql_shop: Shop) -> None:
    shop = mysql_shop
    ticket = shop.ticket(10, per_user_limit=1)
    crowd = [shop.buyer() for _ in range(60)]
    tally = Counter(at_once([lambda buyer=buyer: buy(buyer, ticket) for buyer in crowd]))
    assert tally == {"200": 10, "409 sold_out": 50}

    storm = Storm(shop.ticket(20, per_user_limit=3))
    stormers = [shop.buyer() for _ in range(10)]
    kill_it = partial(storm.then, 8, lambda: kill(mysql_stack, "mysql"))
    at_once([kill_it, *(partial(storm.buy, buyer) for buyer in stormers)])
    sold = storm.require_what_was_acknowledged()["CONFIRMED"]
    within(60, lambda: shop.stock(storm.ticket)[2], sold)
    assert insist(lambda: shop.buyer().order(ticket)).code == "sold_out"
    shop.audit()
