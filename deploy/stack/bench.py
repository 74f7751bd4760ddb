"""``bench``: how many per second, each figure beside what the same client gets for a static file.

Client and servers share the machine, so the absolute figures say what this machine does with both;
the ratios are what carries over to another one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from deploy.stack import crowd
from deploy.stack.errors import StackError
from deploy.stack.layout import Layout, read_json
from deploy.stack.load import Client, Reply
from deploy.stack.supervisor import Stack
from deploy.stack.terminal import end_progress, say, show_progress, table

CONNECTIONS = 64
SECONDS, QUICK_SECONDS = 10.0, 3.0
WARM_UP_SECONDS = 1.0
HUGE_STOCK = 1_000_000_000
HUGE_LIMIT = 1_000_000
STATIC_FILE = "/static/storefront/style.css"

Request = Callable[[Client], Awaitable[list[Reply]]]


@dataclass
class Figure:
    """One line of the table. An error is any answer but the expected one."""

    name: str
    per_second: float = 0.0
    ratio: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)


def run(options: argparse.Namespace) -> int:
    """Measure and print; exit code 1 when there were wrong answers."""
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
        _show(figures)
    return 1 if any(figure.errors for figure in figures) else 0


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

    runs: list[tuple[str, list[str], Request]] = [
        ("static file (nginx alone)", [], _get(STATIC_FILE)),
        ("availability of a ticket", [], _get(f"{ticket}/availability")),
        ("a ticket", [], _get(ticket)),
        ("list of events", [], _get("/api/catalog/events")),
        ("orders, one hot ticket", tokens, place),
        ("orders and payments, one hot ticket", tokens, place_and_pay),
    ]
    figures = []
    for name, bearers, request in runs:
        show_progress(f"Measuring: {name} ...")
        figures.append(asyncio.run(_measure(stack["url"], name, bearers, request, seconds)))
        figures[-1].ratio = round(figures[-1].per_second / (figures[0].per_second or 1), 4)
    admin.post(f"/api/catalog/events/{sale.event_id}/end")
    return figures


def _get(path: str) -> Request:
    async def request(client: Client) -> list[Reply]:
        return [await client.get(path)]

    return request


async def _measure(
    url: str, name: str, tokens: list[str], request: Request, seconds: float
) -> Figure:
    """Keep all connections busy for the time and count what was answered rightly within it."""
    begin = time.monotonic() + WARM_UP_SECONDS
    end = begin + seconds
    durations: list[float] = []
    errors: Counter[str] = Counter()

    async def keep_busy(number: int) -> None:
        client = Client(url, tokens[number] if tokens else "")
        while (started := time.monotonic()) < end:
            replies = await request(client)
            finished = time.monotonic()
            wrong = [reply for reply in replies if reply.status not in (200, 201)]
            if wrong:
                errors[wrong[0].code or str(wrong[0].status)] += 1
                await asyncio.sleep(0.05)
            elif begin <= finished <= end:
                durations.append(finished - started)
        client.close()

    await asyncio.gather(*(keep_busy(number) for number in range(CONNECTIONS)))
    if not durations and not errors:
        raise StackError(f"{name}: no answer at all")
    return Figure(
        name,
        per_second=round(len(durations) / seconds, 1),
        p50_ms=round(crowd.percentile(durations, 0.5) * 1000, 1),
        p95_ms=round(crowd.percentile(durations, 0.95) * 1000, 1),
        errors=dict(errors),
    )


def _show(figures: list[Figure]) -> None:
    rows: list[list[Any]] = [
        [
            figure.name,
            f"{figure.per_second:,.0f}",
            f"{figure.ratio:.4f}",
            f"{figure.p50_ms:.0f}",
            f"{figure.p95_ms:.0f}",
            ", ".join(f"{count} {code}" for code, count in figure.errors.items()) or "-",
        ]
        for figure in figures
    ]
    say(table(["what", "per second", "of static", "p50 ms", "p95 ms", "errors"], rows))
