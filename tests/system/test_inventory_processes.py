"""Several inventory processes on one MariaDB: batches meet in the database, and workers die.

The seed is printed; FLASHSALE_SEED=… plays the same calls again (their interleaving is the
machine's).
"""

from __future__ import annotations

import importlib
import os
import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from deploy.stack.plan import EMBEDDED_VARIABLE, FULL_VARIABLE
from deploy.stack.supervisor import Stack
from tests.system.client import Client, Reply, insist, within
from tests.system.conftest import private_system, shop_of
from tests.system.faults import kill_a_worker
from tests.system.shop import Shop, at_once

pytestmark = pytest.mark.skipif(
    bool(os.environ.get(EMBEDDED_VARIABLE)), reason="--embedded: this machine needs no MariaDB"
)
BATCH = "/internal/inventory/reservations:batch"
THREADS = 24
CALLS = 100 if os.environ.get(FULL_VARIABLE) else 15
STOCKS = {1: 150, 2: 700, 3: 40}
BUYERS, BUYER_LIMIT = 60, 30


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with private_system("mysql", WEB_WORKERS="3", WEB_THREADS="16") as running:
        yield running


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Shop:
    return shop_of(stack)


@dataclass
class Storm:
    """What many clients of the batch endpoint were told, by reservation id."""

    client: Client
    seed: str
    told: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)
    calls: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self, number: int) -> None:
        """Send batches of groups; give a fifth of what was held back, and commit some."""
        draw = random.Random(f"{self.seed}-{number}")
        for call in range(CALLS):
            groups = [self._group(draw, f"{number}-{call}-{n}") for n in range(draw.randint(1, 12))]
            held = self._send(groups)
            for name, share in (("release", 0.2), ("commit", 0.3)):
                chosen = [one for one in held if draw.random() < share]
                held = [one for one in held if one not in chosen]
                entries = [{"reservation_id": one} for one in chosen]
                if entries:
                    self._send([{"call": name, "entries": [one]} for one in entries])

    def _group(self, draw: random.Random, name: str) -> dict[str, Any]:
        tickets = draw.sample(sorted(STOCKS), draw.choice([1, 1, 1, 2, 3]))
        buyer = {"buyer_id": f"b{draw.randrange(BUYERS)}", "buyer_limit": BUYER_LIMIT}
        return {
            "call": "reserve",
            "entries": [
                {
                    "reservation_id": f"{name}-{ticket}",
                    "ticket_id": ticket,
                    "quantity": draw.randint(1, 4),
                    **buyer,
                }
                for ticket in tickets
            ],
        }

    def _send(self, groups: list[dict[str, Any]]) -> list[str]:
        """Send until there is an answer; returns the ids that are held."""
        body = insist(lambda: self.client.post(BATCH, {"groups": groups})).require(200)
        held = []
        with self.lock:
            self.calls += 1
            for group, answer in zip(groups, body["groups"], strict=True):
                refused = {one["error"]["code"] for one in answer["entries"] if one["error"]}
                assert answer["ok"] == (not refused)
                for entry, one in zip(group["entries"], answer["entries"], strict=True):
                    state = one["reservation"]["status"] if one["reservation"] else "FAILED"
                    wanted = self.told.get(entry["reservation_id"], (entry, ""))[0]
                    self.told[entry["reservation_id"]] = (wanted, state)
                    if state == "RESERVED":
                        held.append(entry["reservation_id"])
        return held


@contextmanager
def stalled(stack: Stack, ticket: int) -> Iterator[None]:
    """Hold the ticket's stock row as a worker would that was stopped at the worst moment."""
    url = urlsplit(stack.env["INVENTORY_DATABASE_URL"])
    connection = importlib.import_module("MySQLdb").connect(
        user=url.username,
        password=url.password,
        database=url.path.strip("/"),
        unix_socket=parse_qs(url.query)["unix_socket"][0],
    )
    try:
        cursor = connection.cursor()
        cursor.execute("SET SESSION idle_write_transaction_timeout = 0")
        cursor.execute("UPDATE stock SET version = version WHERE ticket_id = %s", (ticket,))
        cursor.execute("SELECT version FROM stock WHERE ticket_id = %s FOR UPDATE", (ticket,))
        yield
    finally:
        connection.close()


def test_a_hot_ticket_that_stalls_keeps_nobody_from_a_cold_one(stack: Stack, shop: Shop) -> None:
    """There are more callers of the hot ticket than all inventory processes have threads."""
    hot, cold = 91, 92
    for ticket in (hot, cold):
        shop.admin.put(f"/api/inventory/stocks/{ticket}", {"total": 500}).require(201)
    url = stack.services["inventory"]["url"]
    admin = Client(url, shop.admin.token)
    over = threading.Event()
    told: Counter[int] = Counter()

    def reserve(ticket: int, name: str) -> Reply:
        body = {"reservation_id": name, "ticket_id": ticket, "quantity": 1}
        return admin.post("/api/inventory/reservations", body)

    def press(number: int) -> None:
        while not over.is_set():
            told[reserve(hot, f"hot-{number}").status] += 1

    pressing = [threading.Thread(target=press, args=(n,), daemon=True) for n in range(64)]
    with stalled(stack, hot):
        for thread in pressing:
            thread.start()
        within(10, lambda: told[503], lambda refused: refused > 0)
        answers = [reserve(cold, f"cold-{number}") for number in range(20)]
        assert [answer.status for answer in answers] == [201] * 20
    over.set()
    for thread in pressing:
        thread.join(20)
    assert set(told) <= {200, 201, 503}
    assert insist(lambda: reserve(hot, "afterwards")).status == 201
    assert shop.stock(cold) == (480, 20, 0)


def test_a_storm_on_several_processes_whose_workers_are_killed(stack: Stack, shop: Shop) -> None:
    seed = os.environ.get("FLASHSALE_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"\nstorm of processes: FLASHSALE_SEED={seed}")
    for ticket, total in STOCKS.items():
        shop.admin.put(f"/api/inventory/stocks/{ticket}", {"total": total}).require(201)
    token = stack.manage("order", "service_token", "inventory").stdout.strip()
    storm = Storm(Client(stack.services["inventory"]["url"], token), seed)
    over = threading.Event()

    def kill_workers() -> None:
        while not over.wait(1.0):
            kill_a_worker(stack, "inventory")

    killer = threading.Thread(target=kill_workers)
    killer.start()
    try:
        at_once([partial(storm.run, number) for number in range(THREADS)])
    finally:
        over.set()
        killer.join()

    counted = dict.fromkeys(STOCKS, 0)
    stored: dict[str, dict[str, Any]] = {}
    for page in range(1, 10_000):
        body = shop.admin.get(f"/api/inventory/reservations?page_size=100&page={page}").require(200)
        stored |= {row["reservation_id"]: row for row in body["results"]}
        if not body["next"]:
            break
    for reservation_id, (entry, state) in storm.told.items():
        row = stored[reservation_id]
        assert row["status"] == state, "what was acknowledged is what there is"
        assert (row["ticket_id"], row["quantity"]) == (entry["ticket_id"], entry["quantity"])
    for row in stored.values():
        if row["status"] in ("RESERVED", "COMMITTED") and row["ticket_id"] in counted:
            counted[row["ticket_id"]] += row["quantity"]
    for ticket, total in STOCKS.items():
        available, reserved, sold = shop.stock(ticket)
        assert (reserved + sold, available) == (counted[ticket], total - counted[ticket])
    assert any(state == "FAILED" for _, state in storm.told.values()), "not all could fit"
    result = stack.manage("inventory", "audit")
    assert result.returncode == 0, result.stdout + result.stderr
