"""Random kill -9 of random processes while people buy: no acknowledged order is ever lost.

The seed is printed; FLASHSALE_SEED=… draws the same victims again.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from common.ids import derived_uuid
from deploy.stack.plan import EMBEDDED_VARIABLE
from deploy.stack.supervisor import Stack
from tests.system.client import Client, insist, new_key, within
from tests.system.conftest import RESTART_AT_ONCE_SECONDS, private_system, shop_of
from tests.system.faults import (
    FULL,
    SETTLED_SECONDS_MAX,
    TORN_SECONDS_MAX,
    kill,
    seeded,
    workers,
)
from tests.system.shop import Shop
from tests.system.storm import require_sold_exactly, under_load

UNITS = 20_000
KILLS = 120 if FULL else 18
# Orders between two kills, so that each meets a system at work.
ANSWERS_BETWEEN = 6
VANISH_EVERY_SECONDS = 0.2
# Who dies, and how often compared with the others: (process, only one of its workers) → weight.
VICTIMS = {
    ("order", True): 5,
    ("inventory", True): 5,
    ("gateway", True): 2,
    ("catalog", True): 1,
    ("auth", True): 1,
    ("nginx", True): 1,
    ("order", False): 1,
    ("inventory", False): 1,
    ("order-loops", False): 3,
    ("inventory-loops", False): 2,
    ("catalog-loops", False): 1,
}


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    database = "sqlite" if os.environ.get(EMBEDDED_VARIABLE) else "mysql"
    with private_system(database, backoff_seconds_max=RESTART_AT_ONCE_SECONDS) as running:
        yield running


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Shop:
    return shop_of(stack)


@dataclass
class Vanishing:
    """People who order once and never come back, whatever the answer: what they leave torn is not
    mended by their own retry."""

    shop: Shop
    ticket: int
    orders: list[tuple[Client, str]] = field(default_factory=list)
    _over: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def coming(self) -> Iterator[None]:
        thread = threading.Thread(target=self._keep_coming)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()

    def _keep_coming(self) -> None:
        while not self._over.wait(VANISH_EVERY_SECONDS):
            buyer, key = self.shop.buyer(), new_key()
            me = insist(lambda buyer=buyer: buyer.get("/api/auth/me")).require(200)["id"]
            self.orders.append((buyer, str(derived_uuid(str(me), key))))
            with contextlib.suppress(OSError, http.client.HTTPException):
                buyer.order(self.ticket, key=key)

    def missing(self) -> list[str]:
        """Return the orders that do not exist; nobody places them any more once all have gone."""
        return [order for buyer, order in self.orders if self._status(buyer, order) == 404]

    def torn(self, missing: list[str]) -> int:
        """Return how many of them are named by a hold all the same."""
        return sum(bool(self._holds(order)) for order in missing)

    def give_back(self) -> None:
        """Cancel what came to be an order."""
        for buyer, order in self.orders:
            if self._status(buyer, order) == 200:
                buyer.cancel(order)

    @staticmethod
    def _status(buyer: Client, order: str) -> int:
        return insist(lambda: buyer.get(f"/api/orders/{order}")).status

    def _holds(self, order: str) -> list[object]:
        path = f"/api/inventory/reservations?status=RESERVED&order_id={order}"
        answer = insist(lambda: self.shop.admin.get(path)).require(200)
        holds: list[object] = answer["results"]
        return holds


def kill_somebody(stack: Stack, draw: random.Random) -> str:
    """Kill a process that runs at this moment; returns who it was."""
    while True:
        [(name, worker)] = draw.choices(list(VICTIMS), VICTIMS.values())
        running = workers(stack, name) if worker else [stack.child(name).pid]
        if not running or running[0] is None:
            continue
        with contextlib.suppress(ProcessLookupError):
            if worker:
                os.kill(draw.choice(running), signal.SIGKILL)
            else:
                kill(stack, name)
            return f"{name} (a worker)" if worker else name


def test_no_kill_loses_an_acknowledged_order(stack: Stack, shop: Shop) -> None:
    draw = seeded("random kills")
    ticket = shop.ticket(UNITS)
    killed: Counter[str] = Counter()
    vanishing = Vanishing(shop, ticket)
    with under_load(shop, ticket) as storm, vanishing.coming():
        for _ in range(KILLS):
            before = storm.answers
            killed[kill_somebody(stack, draw)] += 1
            last_kill = time.monotonic()
            wanted = before + draw.randint(1, 2 * ANSWERS_BETWEEN)
            within(60, lambda: storm.answers, lambda count, wanted=wanted: count >= wanted)
    finals = storm.require_what_was_acknowledged()
    settled = time.monotonic() - last_kill
    missing = vanishing.missing()
    left_torn = vanishing.torn(missing)
    within(TORN_SECONDS_MAX, lambda: vanishing.torn(missing), 0)
    resolved = time.monotonic() - last_kill
    vanishing.give_back()
    require_sold_exactly(shop, ticket, UNITS, finals["CONFIRMED"])
    shop.audit()
    print(
        f"{killed.total()} kills: {dict(killed)}\n"
        f"orders acknowledged {len(storm.acknowledged)}: {dict(finals)}, lost 0\n"
        f"settled after {settled:.1f} s; {left_torn} torn purchases of {len(vanishing.orders)} "
        f"who never came back, resolved after {resolved:.1f} s"
    )
    assert killed.total() == KILLS
    assert set(finals) <= {"CONFIRMED", "CANCELLED"}
    assert settled <= SETTLED_SECONDS_MAX
    assert resolved <= TORN_SECONDS_MAX
