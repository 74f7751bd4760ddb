"""``bench --inventory``: reservations per second on one hot ticket, durable, through HTTP.

What is compared runs in one go on this machine: the same code with group commit and without, the
same endpoint when it refuses, the batch endpoint, MariaDB and SQLite. Everything is written each
time (reservation, ledger, limit of the buyer, event), and the books are checked afterwards.
"""

from __future__ import annotations

import argparse
import itertools
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

from deploy.stack.api import Api
from deploy.stack.bench_systems import (
    ALONE,
    QUICK_SECONDS,
    SECONDS,
    Promises,
    kept,
    private_system,
    report,
)
from deploy.stack.errors import StackError
from deploy.stack.load import Client, Reply
from deploy.stack.measuring import Figure, Request, Workload, measure
from deploy.stack.supervisor import Stack
from deploy.stack.terminal import show_progress

BATCH_ENTRIES, BATCH_CONNECTIONS = 256, 4
TICKET_ID, HUGE_STOCK = 1, 1_000_000_000
OVERDUE_HOLDS, EXPIRY_SECONDS_MAX = 10_000, 60.0
BUYERS, BUYER_LIMIT = 1_000_000, 8
RESERVATIONS = "/api/inventory/reservations"
BATCH = "/internal/inventory/reservations:batch"

REFUSED, RESERVED = "an invalid body, refused", "reservations"
IDLE, IDLE_ALONE = "reservations, one connection", "reservations, one connection, each alone"
EACH_ALONE = "reservations, each alone"
BATCHED, BATCHED_SQLITE = "reservations in batches of 256", "reservations in batches of 256, SQLite"
EXPIRED = "overdue holds given back"
PLAIN_SQLITE = "reservations, SQLite"

PROMISES: Promises = {
    "group commit against each alone": (RESERVED, EACH_ALONE, 3.0),
    "a reservation against a refused body": (RESERVED, REFUSED, 0.6),
    "batch endpoint, MariaDB": (BATCHED, None, 8_000),
    "10,000 overdue holds in 10 s": (EXPIRED, None, 1_000),
    "batch endpoint, SQLite": (BATCHED_SQLITE, None, 1_500),
}


def run(options: argparse.Namespace) -> int:
    """Measure and print; exit code 1 when there were wrong answers or broken books."""
    seconds = QUICK_SECONDS if options.quick else SECONDS
    figures = [
        *_measure_system("mysql", {}, seconds, _shared),
        *_measure_system("mysql", ALONE, seconds, _alone),
        *_measure_system("sqlite", {}, seconds, _sqlite),
    ]
    known = {figure.name: figure for figure in figures}
    promises = kept(known, PROMISES)
    no_worse = known[EACH_ALONE].p99_ms / known[RESERVED].p99_ms
    promises["p99 no worse than each alone"] = (round(no_worse, 2), 1.0)
    return report(options, figures, REFUSED, promises, seconds)


def _measure_system(
    database: str,
    env: dict[str, str],
    seconds: float,
    workloads: Callable[[Stack], Iterator[Workload]],
) -> list[Figure]:
    with private_system(database, env) as stack:
        _admin(stack).put(f"/api/inventory/stocks/{TICKET_ID}", {"total": HUGE_STOCK}).require(201)
        figures = []
        for workload in workloads(stack):
            show_progress(f"Measuring: {workload.name} ...")
            figures.append(measure(stack.services["inventory"]["url"], workload, seconds))
        if not env:
            name = EXPIRED if database == "mysql" else f"{EXPIRED}, SQLite"
            figures.append(_measure_expiry(stack, name))
        _require_right_books(stack)
    return figures


def _shared(stack: Stack) -> Iterator[Workload]:
    admin = [_admin(stack).token]
    yield Workload(REFUSED, _refused, admin, expected=frozenset({400}))
    yield Workload(RESERVED, _reserve(), admin)
    yield Workload(IDLE, _reserve(), admin, connections=1)
    yield _batched(stack, BATCHED)


def _alone(stack: Stack) -> Iterator[Workload]:
    admin = [_admin(stack).token]
    yield Workload(EACH_ALONE, _reserve(), admin)
    yield Workload(IDLE_ALONE, _reserve(), admin, connections=1)


def _sqlite(stack: Stack) -> Iterator[Workload]:
    admin = [_admin(stack).token]
    yield Workload(PLAIN_SQLITE, _reserve(), admin)
    yield _batched(stack, BATCHED_SQLITE)


def _measure_expiry(stack: Stack, name: str) -> Figure:
    """Let many holds run out while the loop rests, and see how fast it gives them back."""
    show_progress(f"Measuring: {name} ...")
    loops = "inventory-loops"
    stack.stop_child(loops)
    admin = _admin(stack)
    stock = f"/api/inventory/stocks/{TICKET_ID}"
    before = admin.get(stock).require(200)["reserved"]
    ids = _fresh_ids()
    service = Api(stack.services["inventory"]["url"], _service_token(stack))
    while (held := admin.get(stock).require(200)["reserved"] - before) < OVERDUE_HOLDS:
        service.post(BATCH, _batch(ids, ttl_seconds=1)).require(200)
    time.sleep(1.5)
    stack.start_child(loops)
    started = time.monotonic()
    while admin.get(stock).require(200)["reserved"] > before:
        if time.monotonic() - started > EXPIRY_SECONDS_MAX:
            return Figure(name, errors={"not given back": 1})
        time.sleep(0.05)
    seconds = time.monotonic() - started
    return Figure(name, per_second=round(held / seconds, 1))


def _batched(stack: Stack, name: str) -> Workload:
    token = [_service_token(stack)]
    return Workload(
        name, _reserve_many(), token, connections=BATCH_CONNECTIONS, units=BATCH_ENTRIES
    )


def _admin(stack: Stack) -> Api:
    return stack.api(stack.logins["admin"]["username"])


def _service_token(stack: Stack) -> str:
    return stack.manage("order", "service_token", "inventory").stdout.strip()


async def _refused(client: Client) -> list[Reply]:
    return [await client.post(RESERVATIONS, {**_entry("r", 0), "quantity": 0})]


def _reserve() -> Request:
    ids = _fresh_ids()

    async def request(client: Client) -> list[Reply]:
        return [await client.post(RESERVATIONS, _entry(*next(ids)))]

    return request


def _reserve_many() -> Request:
    ids = _fresh_ids()

    async def request(client: Client) -> list[Reply]:
        reply = await client.post(BATCH, _batch(ids))
        if reply.status == 200 and reply.body.count(b'"status":201') != BATCH_ENTRIES:
            return [Reply(500, {}, b'{"code": "not_all_reserved"}')]
        return [reply]

    return request


def _fresh_ids() -> Iterator[tuple[str, int]]:
    run = secrets.token_hex(8)
    return ((f"{run}-{number}", number) for number in itertools.count())


def _batch(ids: Iterator[tuple[str, int]], **more: Any) -> dict[str, Any]:
    entries = [{**_entry(*next(ids)), **more} for _ in range(BATCH_ENTRIES)]
    return {"groups": [{"call": "reserve", "entries": [entry]} for entry in entries]}


def _entry(reservation_id: str, number: int) -> dict[str, Any]:
    # A prime step spreads the buyers as a crowd's ids are spread.
    return {
        "reservation_id": reservation_id,
        "ticket_id": TICKET_ID,
        "quantity": 1,
        "buyer_id": str(number * 7919 % BUYERS),
        "buyer_limit": BUYER_LIMIT,
    }


def _require_right_books(stack: Stack) -> None:
    show_progress("Checking the books ...")
    result = stack.manage("inventory", "audit")
    if result.returncode != 0:
        raise StackError(f"the books are wrong: {result.stdout}{result.stderr}")
