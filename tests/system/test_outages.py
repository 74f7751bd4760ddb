"""Redis or inventory is away while people buy: what can go on goes on, and all catches up."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from functools import partial

import pytest
import redis

from deploy.stack.supervisor import Stack
from tests.system.client import insist, new_key, within
from tests.system.faults import SETTLED_SECONDS_MAX, kill, paused, require_down, without
from tests.system.shop import Shop
from tests.system.storm import require_sold_exactly, under_load

UNITS = 5000
INVENTORY_AWAY_SECONDS = 20.0
REDIS_PAUSED_SECONDS = 5.0
REDIS_AWAY_SECONDS = 2.0


def stand_still(stack: Stack) -> None:
    with paused(stack, "redis"):
        time.sleep(REDIS_PAUSED_SECONDS)


def die(stack: Stack) -> None:
    kill(stack, "redis")


def be_emptied(stack: Stack) -> None:
    client = redis.Redis.from_url(stack.env["STREAM_URL"])
    client.flushall()
    client.close()


def die_with_all_data(stack: Stack) -> None:
    kill(stack, "redis")
    with without(stack, "redis"):
        shutil.rmtree(stack.layout.redis)
        stack.layout.redis.mkdir(mode=0o700)
        time.sleep(REDIS_AWAY_SECONDS)


@pytest.mark.parametrize("fate", [stand_still, die, be_emptied, die_with_all_data])
def test_buying_goes_on_whatever_happens_to_redis(
    stack: Stack, shop: Shop, fate: Callable[[Stack], None]
) -> None:
    ticket = shop.ticket(UNITS)
    with under_load(shop, ticket) as storm:
        before = storm.answers
        fate(stack)
        # While Redis was away people were served, and they are once it is back.
        meanwhile = storm.answers - before
        within(20, lambda: storm.answers, lambda count: count > before + meanwhile + 10)
    assert meanwhile > 0 or fate in (die, be_emptied), "those are over in a moment"
    finals = storm.require_what_was_acknowledged()
    assert set(finals) == {"CONFIRMED", "CANCELLED"}
    require_sold_exactly(shop, ticket, UNITS, finals["CONFIRMED"])
    within(SETTLED_SECONDS_MAX, lambda: shop.shown(ticket), UNITS - finals["CONFIRMED"])
    shop.audit()


def test_without_inventory_for_long_payments_are_taken_and_the_same_keys_work_later(
    stack: Stack, shop: Shop
) -> None:
    ticket = shop.ticket(UNITS)
    buyers = [shop.buyer() for _ in range(3)]
    held = [(buyer, buyer.order(ticket).require(201)["id"]) for buyer in buyers]
    late = [(shop.buyer(), new_key()) for _ in range(3)]
    with under_load(shop, ticket) as storm:
        with without(stack, "inventory"):
            away_until = time.monotonic() + INVENTORY_AWAY_SECONDS
            for buyer, order in held:
                assert buyer.pay(order).require(200)["order"]["status"] == "PAID"
            while time.monotonic() < away_until:
                for buyer, key in late:
                    require_down(buyer.order(ticket, key=key))
        back = time.monotonic()
        for buyer, key in late:
            order = insist(lambda buyer=buyer, key=key: buyer.order(ticket, key=key)).require(201)
            pay = partial(buyer.pay, order["id"], key=new_key())
            insist(pay).require(200)
        for buyer, order in held:
            within(SETTLED_SECONDS_MAX, lambda b=buyer, o=order: b.status_of(o), "CONFIRMED")
        print(f"\nsettled {time.monotonic() - back:.1f} s after inventory came back")
        before = storm.answers
        within(20, lambda: storm.answers, lambda count: count > before + 10)
    finals = storm.require_what_was_acknowledged()
    assert set(finals) == {"CONFIRMED", "CANCELLED"}
    require_sold_exactly(shop, ticket, UNITS, finals["CONFIRMED"] + len(held) + len(late))
    shop.audit()
