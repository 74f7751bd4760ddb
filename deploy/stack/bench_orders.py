"""``bench --orders``: orders per second on one hot ticket, durable, straight at the order service.

The same code with group commit and without it, and the same endpoint when it refuses an invalid
body: it authenticates, parses and answers. Afterwards the audit looks across all services.
"""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Iterator

from deploy.stack import crowd
from deploy.stack.audit import audit_until_settled
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

ORDERS = "/api/orders"
HUGE_STOCK, HUGE_LIMIT = 1_000_000_000, 1_000_000
BUYERS = 512
SETTLE_SECONDS_MAX = 60.0

REFUSED, ORDERED, EACH_ALONE = "an invalid body, refused", "orders", "orders, each alone"
BOUGHT, BOUGHT_ALONE = "orders, paid and confirmed", "orders, paid and confirmed, each alone"
IDLE, IDLE_ALONE = "orders, one connection", "orders, one connection, each alone"

PROMISES: Promises = {
    "group commit against each alone": (ORDERED, EACH_ALONE, 3.0),
    "an order against a refused body": (ORDERED, REFUSED, 0.5),
}


def run(options: argparse.Namespace) -> int:
    """Measure and print; exit code 1 when there were wrong answers or a broken invariant."""
    seconds = QUICK_SECONDS if options.quick else SECONDS
    figures = [*_measure_system({}, seconds), *_measure_system(ALONE, seconds)]
    promises = kept({figure.name: figure for figure in figures}, PROMISES)
    return report(options, figures, REFUSED, promises, seconds)


def _measure_system(env: dict[str, str], seconds: float) -> list[Figure]:
    with private_system("mysql", env) as stack:
        figures = []
        for workload in _workloads(stack, alone=bool(env)):
            show_progress(f"Measuring: {workload.name} ...")
            figures.append(measure(stack.services["order"]["url"], workload, seconds))
        show_progress("Auditing ...")
        result = audit_until_settled(stack.env, SETTLE_SECONDS_MAX)
        if not result.ok:
            raise StackError(f"invariants are broken: {[c for c in result.checks if not c.ok]}")
        return figures


def _workloads(stack: Stack, *, alone: bool) -> Iterator[Workload]:
    admin = stack.api(stack.logins["admin"]["username"])
    sale = crowd.open_sale(admin, "Bench", HUGE_STOCK, HUGE_LIMIT)
    tokens = [buyer.token for buyer in crowd.make_buyers(stack.layout, BUYERS)]
    if alone:
        yield Workload(EACH_ALONE, _order(sale.ticket_id), tokens)
        yield Workload(IDLE_ALONE, _order(sale.ticket_id), tokens, connections=1)
        yield Workload(BOUGHT_ALONE, _buy(sale.ticket_id), tokens)
    else:
        yield Workload(REFUSED, _refused(sale.ticket_id), tokens, expected=frozenset({400}))
        yield Workload(ORDERED, _order(sale.ticket_id), tokens)
        yield Workload(IDLE, _order(sale.ticket_id), tokens, connections=1)
        yield Workload(BOUGHT, _buy(sale.ticket_id), tokens)


def _body(ticket_id: int, quantity: int = 1) -> dict[str, object]:
    return {"items": [{"ticket_id": ticket_id, "quantity": quantity}]}


def _refused(ticket_id: int) -> Request:
    async def request(client: Client) -> list[Reply]:
        return [await client.post(ORDERS, _body(ticket_id, 0), secrets.token_hex(16))]

    return request


def _order(ticket_id: int) -> Request:
    async def request(client: Client) -> list[Reply]:
        return [await client.post(ORDERS, _body(ticket_id), secrets.token_hex(16))]

    return request


def _buy(ticket_id: int) -> Request:
    async def request(client: Client) -> list[Reply]:
        placed = await client.post(ORDERS, _body(ticket_id), secrets.token_hex(16))
        if placed.status != 201:
            return [placed]
        path = f"{ORDERS}/{placed.json()['id']}/pay"
        paid = await client.post(path, {"method": "sandbox_ok"}, secrets.token_hex(16))
        if paid.status == 200 and paid.json()["order"]["status"] != "CONFIRMED":
            return [placed, Reply(500, {}, b'{"code": "not_confirmed"}')]
        return [placed, paid]

    return request
