"""Things break while people buy: what was acknowledged stays, what was held comes back."""

from __future__ import annotations

import shutil

from deploy.stack.supervisor import Stack
from tests.system.client import insist, new_key, within
from tests.system.faults import kill, kill_a_worker, require_down, without
from tests.system.shop import Shop, at_once
from tests.system.storm import Storm, require_sold_exactly

RESTART_SECONDS_MAX = 30.0


def test_buying_goes_on_without_auth_and_catalog(stack: Stack, shop: Shop) -> None:
    ticket, buyer = shop.ticket(5), shop.buyer()
    buyer.order(ticket).require(201)
    with without(stack, "auth", "catalog"):
        require_down(shop.visitor.get("/api/catalog/events"))
        require_down(shop.visitor.post("/api/auth/login", {"username": "a", "password": "b"}))
        order = buyer.order(ticket).require(201)
        buyer.pay(order["id"]).require(200)
        within(5, lambda: buyer.status_of(order["id"]), "CONFIRMED")
    assert shop.visitor.get("/api/catalog/events").status == 200
    within(15, lambda: shop.shown(ticket), 3)


def test_without_inventory_nothing_is_sold_and_the_same_key_works_later(
    stack: Stack, shop: Shop
) -> None:
    ticket, buyer, key = shop.ticket(5), shop.buyer(), new_key()
    waiting = buyer.order(ticket).require(201)["id"]
    with without(stack, "inventory"):
        require_down(buyer.order(ticket, key=key))
        require_down(shop.admin.get(f"/api/inventory/stocks/{ticket}"))
        assert shop.visitor.get("/api/catalog/events").status == 200
        # Money is taken all the same: what is held stays held, and the sale is finished later.
        assert buyer.pay(waiting).require(200)["order"]["status"] == "PAID"
    within(15, lambda: buyer.status_of(waiting), "CONFIRMED")
    buyer.order(ticket, key=key).require(201)
    assert shop.stock(ticket) == (3, 1, 1)


def test_without_the_gateway_nobody_passes_and_reading_goes_on(stack: Stack, shop: Shop) -> None:
    ticket, buyer = shop.ticket(5), shop.buyer()
    with without(stack, "gateway"):
        for client in (buyer, shop.admin, shop.visitor):
            require_down(client.order(ticket))
        require_down(shop.admin.post("/api/catalog/events", {}))
        assert shop.visitor.get("/api/catalog/events").status == 200
    assert shop.stock(ticket) == (5, 0, 0)
    buyer.order(ticket).require(201)


def test_a_killed_service_is_started_again_by_itself(stack: Stack, shop: Shop) -> None:
    buyer = shop.buyer()
    before = {name: stack.child(name).pid for name in ("order", "nginx")}
    for name in before:
        kill(stack, name)
    reply = insist(lambda: buyer.get("/api/orders"), RESTART_SECONDS_MAX)
    assert reply.status == 200
    within(
        RESTART_SECONDS_MAX,
        lambda: stack.child("order").pid,
        lambda pid: pid not in (None, before["order"]),
    )
    assert insist(lambda: buyer.get("/api/orders"), RESTART_SECONDS_MAX).status == 200


def test_kills_in_a_storm_of_orders_lose_nothing_that_was_acknowledged(
    stack: Stack, shop: Shop
) -> None:
    units, buyers = 60, 30
    ticket = shop.ticket(units, per_user_limit=3)
    storm = Storm(ticket)

    def break_things() -> None:
        storm.then(8, lambda: kill_a_worker(stack, "order"))
        storm.then(20, lambda: kill(stack, "inventory"))
        storm.then(35, lambda: kill(stack, "order-loops"))
        storm.then(45, lambda: kill(stack, "inventory-loops"))

    crowd = [shop.buyer() for _ in range(buyers)]
    at_once([break_things, *(lambda buyer=buyer: storm.buy(buyer) for buyer in crowd)])

    finals = storm.require_what_was_acknowledged()
    assert set(finals) == {"CONFIRMED", "CANCELLED"}
    require_sold_exactly(shop, ticket, units, finals["CONFIRMED"])
    shop.audit()


def test_redis_dies_with_all_its_data_and_buying_goes_on(stack: Stack, shop: Shop) -> None:
    ticket, buyer = shop.ticket(10), shop.buyer()
    within(2, lambda: shop.shown(ticket), 10)
    kill(stack, "redis")
    insist(lambda: buyer.order(ticket)).require(201)
    with without(stack, "redis"):
        order = buyer.order(ticket, quantity=3).require(201)["id"]
        buyer.pay(order).require(200)
        within(5, lambda: buyer.status_of(order), "CONFIRMED")
        assert shop.visitor.get(f"/api/catalog/tickets/{ticket}").status in (200, 503)
        # Guesses could not be counted now.
        require_down(shop.visitor.post("/api/auth/login", {"username": "a", "password": "b"}))
        shutil.rmtree(stack.layout.redis)
        stack.layout.redis.mkdir(mode=0o700)
    within(15, lambda: shop.shown(ticket), 6)
    buyer.order(ticket).require(201)
    within(15, lambda: shop.shown(ticket), 5)
    assert shop.log_in("admin", shop.admin_password)
