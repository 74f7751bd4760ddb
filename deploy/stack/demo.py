"""``demo``: a crowd rushes at a scarce ticket; then the audit says what came of it.

All buyers order at once. Winners pay, but every tenth thinks better of it and cancels. Who is told
"sold out" goes home, except for some patient ones: they watch the availability, as the storefront's
page does, and order again when something came back.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import secrets
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from deploy.stack import crowd
from deploy.stack.api import Api
from deploy.stack.audit import audit, show
from deploy.stack.errors import StackError
from deploy.stack.layout import Layout
from deploy.stack.load import Client, Reply
from deploy.stack.processes import allow_open_files
from deploy.stack.terminal import end_progress, say, show_progress

RUSH_SECONDS_MAX = 300.0
SPARE_FILES = 100
CONFIRM_SECONDS_MAX = 30.0
PER_USER_LIMIT = 2
# Every so many-th winner thinks better of it, so that stock comes back in the middle of the rush.
CANCELS_EVERY = 10
# Answers that mean "not now": the same key is sent again. 0 is no answer at all.
NOT_NOW = (0, 429, 502, 503, 504)
RETRY_AFTER_SECONDS, RETRY_AFTER_SECONDS_MAX = 0.5, 8.0
# Beside one for every ticket: whatever comes back, however late, finds somebody waiting.
PATIENT_BUYERS_MORE = 50
WATCH_SECONDS = (0.5, 1.5)


@dataclass
class Rush:
    """What the crowd has seen so far."""

    url: str
    ticket_id: int
    stock: int
    buyers: int
    started: float = field(default_factory=time.monotonic)
    paid: int = 0
    cancelled: int = 0
    won: int = 0
    in_flight: int = 0
    patient: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    order_seconds: list[float] = field(default_factory=list)

    @property
    def over(self) -> bool:
        """Whether nothing is left to fight for, or the patience of all is used up."""
        return self.paid >= self.stock or time.monotonic() - self.started > RUSH_SECONDS_MAX

    @property
    def patient_max(self) -> int:
        return self.stock + PATIENT_BUYERS_MORE

    @property
    def per_second(self) -> float:
        return sum(self.answers.values()) / max(0.001, time.monotonic() - self.started)

    def line(self) -> str:
        return (
            f"sold {self.paid}/{self.stock} · sold-out answers {self.answers['sold_out']} · "
            f"given back {self.cancelled} · in flight {self.in_flight} · "
            f"{self.per_second:.0f} answers/s · {time.monotonic() - self.started:.0f} s"
        )


def run(options: argparse.Namespace) -> int:
    """Play the sale, print the result and the audit."""
    layout = Layout.default()
    stack = crowd.running_stack(layout)
    admin = crowd.admin_api(stack)
    show_progress("Opening a sale and letting the buyers in ...")
    sale = crowd.open_sale(admin, f"Stampede {secrets.token_hex(2)}", options.stock, PER_USER_LIMIT)
    buyers = crowd.make_buyers(layout, options.buyers)
    end_progress()
    if allow_open_files() < len(buyers) + SPARE_FILES:
        raise StackError(
            f"{len(buyers)} connections are more than the system's limit of open files"
        )
    say(f"{len(buyers)} buyers rush for {options.stock} tickets at {stack['url']}, all at once.")
    rush = Rush(stack["url"], sale.ticket_id, options.stock, len(buyers))
    asyncio.run(_stampede(rush, buyers))
    end_progress()
    seconds = time.monotonic() - rush.started
    counters = _settled_stock(admin, sale.ticket_id)
    _show_result(rush, counters, seconds)
    result = audit(layout)
    say()
    show(result)
    complaint = verdict(rush, counters)
    say(complaint or f"Sold exactly {counters['sold']} of {counters['total']} tickets.")
    return 0 if result.ok and not complaint else 1


def verdict(rush: Rush, counters: dict[str, int]) -> str:
    """Return what is wrong with the outcome of a sale; empty when it is right."""
    if counters["sold"] > rush.stock:
        return f"OVERSOLD: {counters['sold']} of {rush.stock}"
    if counters["sold"] != rush.paid:
        return f"WRONG: {rush.paid} buyers have paid, {counters['sold']} tickets are sold"
    expected = min(rush.stock, rush.buyers - rush.cancelled)
    if counters["sold"] < expected:
        return f"UNSOLD: {counters['sold']} of {expected}, although buyers were waiting"
    return ""


async def _stampede(rush: Rush, buyers: list[crowd.Buyer]) -> None:
    start = asyncio.Event()
    tasks = [asyncio.create_task(_buy(rush, buyer, start)) for buyer in buyers]
    progress = asyncio.create_task(_report(rush))
    start.set()
    try:
        await asyncio.gather(*tasks)
    finally:
        progress.cancel()


async def _buy(rush: Rush, buyer: crowd.Buyer, start: asyncio.Event) -> None:
    """One buyer: order, pay (or think better of it); if sold out, go home or wait for a return."""
    client = Client(rush.url, buyer.token)
    await start.wait()
    try:
        while not rush.over:
            # Another attempt is another order: a refusal is kept under its key.
            order = await _send(rush, client, "order", "/api/orders", _one(rush.ticket_id))
            if order.status == 201:
                await _finish(rush, client, order.json()["id"])
                return
            if order.code != "sold_out":
                rush.problems[f"order: {order.status} {order.code}"] += 1
                return
            if rush.patient >= rush.patient_max:
                return
            rush.patient += 1
            await _watch(rush, client)
            rush.patient -= 1
    finally:
        client.close()


async def _watch(rush: Rush, client: Client) -> None:
    """Poll the availability until something is there again."""
    path = f"/api/catalog/tickets/{rush.ticket_id}/availability"
    while not rush.over:
        await asyncio.sleep(random.uniform(*WATCH_SECONDS))  # noqa: S311 - spreads load
        shown = (await client.get(path)).json()
        if shown.get("available", 0) > 0:
            return


async def _finish(rush: Rush, client: Client, order_id: str) -> None:
    rush.won += 1
    if rush.won % CANCELS_EVERY == 0:
        answer = await _send(rush, client, "cancel", f"/api/orders/{order_id}/cancel", {})
        done = answer.status == 200
        rush.cancelled += done
    else:
        answer = await _send(
            rush, client, "pay", f"/api/orders/{order_id}/pay", {"method": "sandbox_ok"}
        )
        done = answer.status == 200
        rush.paid += done
    if not done:
        rush.problems[f"after the order: {answer.status} {answer.code}"] += 1


async def _send(rush: Rush, client: Client, kind: str, path: str, data: dict[str, Any]) -> Reply:
    """Send one logical request under one key until it is answered for good."""
    key = secrets.token_hex(16)
    for attempt in itertools.count():
        rush.in_flight += 1
        started = time.monotonic()
        reply = await client.post(path, data, key)
        rush.in_flight -= 1
        if kind == "order":
            rush.order_seconds.append(time.monotonic() - started)
        rush.answers[_name(kind, reply)] += 1
        if reply.status not in NOT_NOW and reply.code != "request_in_progress":
            return reply
        if time.monotonic() - rush.started > RUSH_SECONDS_MAX:
            return reply
        await asyncio.sleep(_pause(reply, attempt))
    raise AssertionError("unreachable")


def _name(kind: str, reply: Reply) -> str:
    if reply.status in (200, 201):
        return kind
    return reply.code or (f"status {reply.status}" if reply.status else "no answer")


async def _report(rush: Rush) -> None:
    while True:
        show_progress(rush.line())
        await asyncio.sleep(0.25)


def _one(ticket_id: int) -> dict[str, Any]:
    return {"items": [{"ticket_id": ticket_id, "quantity": 1}]}


def _pause(reply: Reply, attempt: int) -> float:
    """Return how long to wait: what the answer asks for, twice as long each time, with jitter."""
    asked = reply.headers.get("retry-after", "")
    least = float(asked) if asked.isdigit() else RETRY_AFTER_SECONDS
    pause = min(RETRY_AFTER_SECONDS_MAX, least * 2.0**attempt)
    return pause * random.uniform(0.5, 1.5)  # noqa: S311


def _settled_stock(admin: Api, ticket_id: int) -> dict[str, int]:
    """Return the counters once every paid order is confirmed, or when that takes too long."""
    deadline = time.monotonic() + CONFIRM_SECONDS_MAX
    while True:
        counters = crowd.stock_of(admin, ticket_id)
        if counters["reserved"] == 0 or time.monotonic() > deadline:
            return counters
        time.sleep(0.3)


def _show_result(rush: Rush, counters: dict[str, int], seconds: float) -> None:
    answers = ", ".join(f"{count} {name}" for name, count in rush.answers.most_common())
    p50, p95 = (crowd.percentile(rush.order_seconds, share) * 1000 for share in (0.5, 0.95))
    say(f"Over after {seconds:.1f} s: {rush.paid} bought and paid, {rush.cancelled} gave back.")
    say(f"Answers: {answers} ({sum(rush.answers.values()) / seconds:.0f}/s).")
    say(f"An order was answered within {p50:.0f} ms (half of them), {p95:.0f} ms (95 %).")
    say(
        f"Inventory: available {counters['available']}, reserved {counters['reserved']}, "
        f"sold {counters['sold']} of {counters['total']}."
    )
    for problem, count in rush.problems.most_common():
        say(f"Unexpected, {count} times: {problem}")
