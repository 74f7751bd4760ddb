"""``bench``: how many per second, each figure beside what the same client gets for a static file.

Client and servers share the machine, so the absolute figures say what this machine does with both;
the ratios are what carries over to another one.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from deploy.stack import bench_inventory, bench_orders, crowd
from deploy.stack.layout import Layout, read_json
from deploy.stack.load import Client, Reply
from deploy.stack.measuring import CONNECTIONS, Figure, Request, Workload, measure, table_of
from deploy.stack.supervisor import Stack
from deploy.stack.terminal import end_progress, say, show_progress

SECONDS, QUICK_SECONDS = 10.0, 3.0
HUGE_STOCK = 1_000_000_000
HUGE_LIMIT = 1_000_000
STATIC_FILE = "/static/storefront/style.css"


def run(options: argparse.Namespace) -> int:
    """Measure and print; exit code 1 when there were wrong answers."""
    if options.inventory:
        return bench_inventory.run(options)
    if options.orders:
        return bench_orders.run(options)
    seconds = QUICK_SECONDS if options.quick else SECONDS
    with _a_running_system() as (layout, where):
        figures = _measure_all(layout, seconds)
    end_progress()
    if options.json:
        facts = {"system": where, "connections": CONNECTIONS, "seconds_each": seconds}
        facts["cores"] = os.cpu_count() or 1
        say(json.dumps({**facts, "figures": [asdict(figure) for figure in figures]}, indent=2))
    else:
        say(f"{CONNECTIONS} connections, {seconds:.0f} s each, {os.cpu_count()} cores, {where}.\n")
        say(table_of(figures, "of static"))
    return 1 if any(figure.has_wrong_answers for figure in figures) else 0


@contextlib.contextmanager
def _a_running_system() -> Iterator[tuple[Layout, str]]:
    """Yield the running system, or a private one that is thrown away afterwards."""
    layout = Layout.default()
    stack = read_json(layout.stack_json)
    if stack:
        yield layout, f"the running system on {stack['database']}"
        return
    show_progress("Nothing is running: starting a private system ...")
    with (
        tempfile.TemporaryDirectory(prefix="flash-sale-bench-") as folder,
        Stack(Path(folder), env=os.environ) as private,
    ):
        yield private.layout, f"a private system on {private.database}"


def _measure_all(layout: Layout, seconds: float) -> list[Figure]:
    stack = crowd.running_stack(layout)
    admin = crowd.admin_api(stack)
    sale = crowd.open_sale(admin, f"Bench {secrets.token_hex(2)}", HUGE_STOCK, HUGE_LIMIT)
    buyers = crowd.make_buyers(layout, CONNECTIONS)
    tokens = [buyer.token for buyer in buyers]
    ticket = f"/api/catalog/tickets/{sale.ticket_id}"
    order = {"items": [{"ticket_id": sale.ticket_id, "quantity": 1}]}

    async def place(client: Client) -> list[Reply]:
        return [await client.post("/api/orders", order, secrets.token_hex(16))]

    async def place_and_pay(client: Client) -> list[Reply]:
        placed = (await place(client))[0]
        if placed.status != 201:
            return [placed]
        path = f"/api/orders/{placed.json()['id']}/pay"
        paid = await client.post(path, {"method": "sandbox_ok"}, secrets.token_hex(16))
        return [placed, paid]

    workloads = [
        Workload("static file (nginx alone)", _get(STATIC_FILE)),
        Workload("availability of a ticket", _get(f"{ticket}/availability")),
        Workload("a ticket", _get(ticket)),
        Workload("list of events", _get("/api/catalog/events")),
        Workload("orders, one hot ticket", place, tokens),
        Workload("orders and payments, one hot ticket", place_and_pay, tokens),
    ]
    figures = []
    for workload in workloads:
        show_progress(f"Measuring: {workload.name} ...")
        figures.append(measure(stack["url"], workload, seconds))
        figures[-1].ratio = round(figures[-1].per_second / (figures[0].per_second or 1), 4)
    admin.post(f"/api/catalog/events/{sale.event_id}/end")
    return figures


def _get(path: str) -> Request:
    async def request(client: Client) -> list[Reply]:
        return [await client.get(path)]

    return request
