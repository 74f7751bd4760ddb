"""Courses to the step boundaries of repairs: several orders are broken, then the order service's
``repair`` command is run, again and again, until it has lived to say that all is done."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence

from deploy.stack.layout import ROOT
from deploy.stack.supervisor import manage_argv
from tests.system.tables import hex_of, sql
from tests.system.visits import CRASHING_SECONDS_MAX, Visit

# In one command, so that it may die at the first, second or third.
ORDERS = 3


def let_go_by_repair(visit: Visit) -> None:
    """Orders whose holds are lost, so that nobody shall pay for them."""
    orders = [order for order in (visit.order() for _ in range(ORDERS)) if order]
    for order in orders:
        visit.lose_hold(order)
    _repair(visit, "expire_order", orders)
    for order in orders:
        visit.told.add(visit.buyer, order, "EXPIRED")


def give_back_by_repair(visit: Visit) -> None:
    """Cancelled orders whose money was kept."""
    orders, payments = [], []
    for order in (visit.order() for _ in range(ORDERS)):
        if order:
            declined = visit.pay(order, "sandbox_decline").require(200)
            visit.cancel(order)
            orders.append(order)
            payments.append(declined["payment"]["id"])
    kept = "UPDATE payment SET status = 'CAPTURED' WHERE id = ? AND status = 'DECLINED'"
    for payment in payments:
        sql(visit.stack.layout, "order", kept, hex_of(payment))
    _repair(visit, "give_money_back", orders)
    for payment in payments:
        visit.await_refund(payment)


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
