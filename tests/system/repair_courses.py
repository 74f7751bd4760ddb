"""Courses to the step boundaries of repairs: several orders are broken, then the order service's
``repair`` command is run, again and again, until it has lived to say that all is done."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from deploy.stack.layout import ROOT
from deploy.stack.supervisor import manage_argv
from tests.system.tables import hex_of, sql
from tests.system.visits import CRASHING_SECONDS_MAX, Visit

T = TypeVar("T")
# In one command, so that it may die at the first, second or third.
ORDERS = 3


def let_go_by_repair(visit: Visit) -> None:
    """Orders whose holds are lost, so that nobody shall pay for them."""

    def broken() -> str | None:
        order = visit.order()
        if order:
            visit.lose_hold(order)
        return order

    orders = _made(broken)
    _repair(visit, "expire_order", orders)
    for order in orders:
        visit.told.add(visit.buyer, order, "EXPIRED")


def give_back_by_repair(visit: Visit) -> None:
    """Cancelled orders whose money was kept."""

    def broken() -> tuple[str, str] | None:
        order = visit.order()
        if order is None:
            return None
        declined = visit.pay(order, "sandbox_decline").require(200)
        visit.cancel(order)
        payment = str(declined["payment"]["id"])
        kept = "UPDATE payment SET status = 'CAPTURED' WHERE id = ? AND status = 'DECLINED'"
        sql(visit.stack.layout, "order", kept, hex_of(payment))
        return order, payment

    made = _made(broken)
    _repair(visit, "give_money_back", [order for order, _ in made])
    for _, payment in made:
        visit.await_refund(payment)


def _made(broken: Callable[[], T | None]) -> list[T]:
    """Break several orders beside each other, as each may have to wait for dead processes."""
    with ThreadPoolExecutor(ORDERS) as pool:
        return [one for one in pool.map(lambda _: broken(), range(ORDERS)) if one is not None]


def _repair(visit: Visit, name: str, orders: Sequence[str]) -> None:
    items = json.dumps([{"repair": name, "id": order, "why": "a test"} for order in orders])
    deadline = time.monotonic() + CRASHING_SECONDS_MAX
    while True:
        done = subprocess.run(
            manage_argv("order", "repair"),
            env=visit.stack.env,
            cwd=ROOT,
            input=items,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
        assert time.monotonic() < deadline, (done.returncode, done.stdout, done.stderr)
