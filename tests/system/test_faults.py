"""Things break while people buy: what was acknowledged stays, what was held comes back."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from deploy.stack.supervisor import Stack
from tests.system.client import Client, Reply, insist, new_key, within
from tests.system.shop import Shop, at_once, outcome

RESTART_SECONDS_MAX = 30.0


@contextmanager
def without(stack: Stack, *names: str) -> Iterator[None]:
    """Stop these processes for a while."""
    for name in names:
        stack.stop_child(name)
    try:
        yield
    finally:
        for name in names:
            stack.start_child(name)


def kill(stack: Stack, name: str) -> None:
    """Kill a process with all its workers, as a machine that runs out of memory may."""
    os.killpg(stack.child(name).pid or 0, signal.SIGKILL)


def kill_a_worker(stack: Stack, name: str) -> None:
    """Kill one worker; its gunicorn and the other workers stay."""
    arbiter = stack.child(name).pid
    os.kill(int(Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text().split()[0]), 9)


def require_down(reply: Reply) -> None:
    assert reply.status == 503, reply
    assert reply.code.endswith(("_unavailable", "_not_delivered")), reply
    assert int(reply.headers["retry-after"]) >= 1


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


class Storm:
    """Buyers who order again and again, and repeat with the same key until they know."""

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
        self.answers = 0
        self.tally: Counter[str] = Counter()
        self.acknowledged: list[tuple[Client, str, str]] = []
        self._lock = threading.Lock()

    def buy(self, buyer: Client) -> None:
        """Three orders: two are paid, one is cancelled."""
        for turn in range(3):
            key, second_key = new_key(), new_key()
            ordered = insist(lambda key=key: buyer.order(self.ticket, key=key))
            self._count(ordered)
            if ordered.status != 201:
                continue
            order = ordered.json["id"]
            if turn == 1:
                ended = insist(lambda order=order: buyer.cancel(order))
            else:
                ended = insist(lambda order=order, key=second_key: buyer.pay(order, key=key))
            with self._lock:
                self.acknowledged.append((buyer, order, self._final(ended)))

    @staticmethod
    def _final(ended: Reply) -> str:
        """Return the state that this answer tells of."""
        if ended.status == 200:
            return str(ended.json.get("order", ended.json)["status"])
        # It could not be paid in time: where holds are short and the crash was long.
        assert ended.code in ("order_expired", "order_not_cancellable"), ended
        return "EXPIRED"

    def _count(self, reply: Reply) -> None:
        with self._lock:
            self.answers += 1
            self.tally[outcome(reply)] += 1

    def then(self, answers: int, do: Callable[[], None]) -> None:
        """Do something once that many answers have come."""
        within(60, lambda: self.answers, lambda count: count >= answers)
        do()

    def require_what_was_acknowledged(self) -> Counter[str]:
        """Wait until every order is in the state that its buyer was told; returns how many are.

        PAID is on its way: to CONFIRMED, or back with the money if the hold ran out in the crash.
        """
        finals: Counter[str] = Counter()
        for buyer, order, told in self.acknowledged:
            allowed = ("CONFIRMED", "EXPIRED") if told == "PAID" else (told,)
            read = partial(buyer.status_of, order)
            finals[within(30, read, lambda status, allowed=allowed: status in allowed)] += 1
        return finals


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

    assert set(storm.tally) <= {"201", "409 sold_out", "409 order_interrupted"}, storm.tally
    finals = storm.require_what_was_acknowledged()
    assert set(finals) == {"CONFIRMED", "CANCELLED"}
    confirmed = finals["CONFIRMED"]
    # An order whose hold was torn in the crash is resolved by the sweeper, half a minute later.
    within(60, lambda: shop.stock(ticket), (units - confirmed, 0, confirmed))
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
