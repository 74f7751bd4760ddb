"""What `demo` and `bench` need: buyers with tokens, and a ticket to fight for."""

from __future__ import annotations

import json
import secrets
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deploy.stack import demo_sale
from deploy.stack.api import Api
from deploy.stack.control import process_environment
from deploy.stack.errors import StackError
from deploy.stack.layout import ROOT, Layout, read_json
from deploy.stack.supervisor import manage_argv


@dataclass(frozen=True)
class Buyer:
    username: str
    token: str


@dataclass(frozen=True)
class Sale:
    """A fresh event with one ticket on sale."""

    event_id: int
    ticket_id: int


def running_stack(layout: Layout) -> dict[str, Any]:
    """Return what ``stack.json`` says of the running system; StackError when there is none."""
    stack = read_json(layout.stack_json)
    if not stack:
        raise StackError("it is not running; start it with `manage_all.py up`")
    return stack


def admin_api(stack: Mapping[str, Any]) -> Api:
    """Return a client that is logged in as the admin."""
    admin = stack["logins"]["admin"]
    api = Api(stack["url"])
    api.login(admin["username"], admin["password"]).require(200)
    return api


def open_sale(admin: Api, title: str, stock: int, per_user_limit: int) -> Sale:
    """Publish an event with one ticket on sale."""
    event = demo_sale.create_event(admin, title, "Made by manage_all.py.", days_ahead=7)
    ticket = demo_sale.DemoTicket(
        "The ticket",
        5_000,
        stock,
        per_order_limit=min(10, per_user_limit),
        per_user_limit=per_user_limit,
    )
    ticket_id = demo_sale.create_ticket(admin, event["id"], ticket)["id"]
    demo_sale.put_on_sale(admin, ticket_id, stock)
    demo_sale.publish(admin, event["id"])
    return Sale(event["id"], ticket_id)


def stock_of(admin: Api, ticket_id: int) -> dict[str, int]:
    """Return inventory's counters of a ticket."""
    counters: dict[str, int] = admin.get(f"/api/inventory/stocks/{ticket_id}").require(200)
    return counters


def make_buyers(layout: Layout, count: int) -> list[Buyer]:
    """Make users in bulk and return them with access tokens (which live for 15 minutes)."""
    # A prefix of its own for each run: the limit per person must not remember an earlier one.
    prefix = f"crowd-{secrets.token_hex(3)}"
    with process_environment(layout) as env:
        result = subprocess.run(
            manage_argv("auth", "issue_tokens", "--prefix", prefix, "--count", str(count)),
            env=env,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise StackError(f"the buyers could not be made: {reason}")
    rows = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
    return [Buyer(row["username"], row["access"]) for row in rows]


def percentile(values: list[float], share: float) -> float:
    """Return the value below which the share of the values lies; 0 for none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else 0.0
