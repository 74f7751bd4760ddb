"""``audit``: the invariants that hold inside each service, and those that only show across them."""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from deploy.stack.control import process_environment
from deploy.stack.errors import StackError
from deploy.stack.layout import ROOT, Layout
from deploy.stack.supervisor import manage_argv
from deploy.stack.terminal import end_progress, say, show_progress, table

AUDITED = ("catalog", "inventory", "order")
SETTLE_SECONDS_MAX = 30.0
PAUSE_SECONDS = 1.0
# How long a hold may wait for its order, and outlive its own expiry (invariant I4).
LATE_SECONDS_MAX = 30.0
SHOWN_MAX = 20

# Order status → the states that its reservations may have at rest; None: there may be none.
RESERVATIONS_OF_ORDER: Mapping[str, frozenset[str | None]] = {
    "CONFIRMED": frozenset({"COMMITTED"}),
    "AWAITING_PAYMENT": frozenset({"RESERVED"}),
    "CANCELLED": frozenset({"RELEASED", "FAILED", None}),
    "EXPIRED": frozenset({"RELEASED", "FAILED", None}),
    "REJECTED": frozenset({"RELEASED", "FAILED", None}),
}


@dataclass(frozen=True)
class Check:
    """One invariant as one service, or the system, keeps it."""

    id: str
    where: str
    name: str
    count: int = 0
    violations: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return self.count == 0


@dataclass(frozen=True)
class Result:
    """All checks of one look at the whole system."""

    checks: list[Check]
    seconds: float

    @property
    def ok(self) -> bool:
        return all(check.ok for check in self.checks)

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "seconds": round(self.seconds, 1),
            "checks": [{**asdict(check), "ok": check.ok} for check in self.checks],
        }


def run(options: argparse.Namespace) -> int:
    """Check everything, print it and say by the exit code whether all holds."""
    result = audit(Layout.default())
    if options.json:
        say(json.dumps(result.as_json(), indent=2))
    else:
        show(result)
    return 0 if result.ok else 1


def audit(layout: Layout, settle_seconds: float = SETTLE_SECONDS_MAX) -> Result:
    """Check until all holds or the time for work in flight to settle is over."""
    with process_environment(layout) as env:
        return audit_until_settled(env, settle_seconds)


def audit_until_settled(env: Mapping[str, str], settle_seconds: float) -> Result:
    """Check again and again in the given environment until all holds or time is up."""
    started = time.monotonic()
    while True:
        checks = look(env)
        seconds = time.monotonic() - started
        if all(check.ok for check in checks) or seconds > settle_seconds:
            end_progress()
            return Result(checks, seconds)
        pending = sum(check.count for check in checks)
        show_progress(
            f"Waiting for work in flight: {pending} not settled after {seconds:.0f} s ..."
        )
        time.sleep(PAUSE_SECONDS)


def look(env: Mapping[str, str]) -> list[Check]:
    """Ask every service once and join what they say."""
    with ThreadPoolExecutor(len(AUDITED)) as pool:
        reports = dict(zip(AUDITED, pool.map(lambda name: _ask(name, env), AUDITED), strict=True))
    own = [
        Check(check["id"], name, check["name"], check["count"], check["violations"])
        for name, report in reports.items()
        for check in report["checks"]
    ]
    catalog, inventory, order = (reports[name]["facts"] for name in AUDITED)
    joined = [
        _check(
            "I4", "orders and reservations agree", orders_against_reservations(order, inventory)
        ),
        _check("I4", "no hold is forgotten", forgotten_holds(order, inventory)),
        _check("I7", "every event was sent", unsent_events(reports)),
        _check("I7", "the catalog shows inventory's stock", projection_lag(catalog, inventory)),
        _check("I9", "money captured = confirmed orders + refunds", money(order)),
    ]
    return sorted([*own, *joined], key=lambda check: (check.id, check.where))


def show(result: Result) -> None:
    """Print the table, then the violations."""
    rows = [
        [check.id, check.where, check.name, "ok" if check.ok else f"BROKEN ({check.count})"]
        for check in result.checks
    ]
    say(table(["", "where", "invariant", "holds"], rows))
    for check in result.checks:
        for violation in check.violations[:SHOWN_MAX]:
            say(f"{check.id} {check.where}: {violation}")
    verdict = "All invariants hold" if result.ok else "Some invariants are BROKEN"
    say(f"\n{verdict} ({result.seconds:.1f} s).")


def orders_against_reservations(order: Any, inventory: Any) -> Iterable[str]:
    """I4: the state of an order and that of each of its reservations belong together."""
    states = {row[0]: row[1] for row in inventory["reservations"]}
    orders: dict[str, str] = {}
    owned: set[str] = set()
    for order_id, status, reservation_ids, *_ in order["orders"]:
        orders[order_id] = status
        owned.update(reservation_ids)
        allowed = RESERVATIONS_OF_ORDER.get(status)
        if allowed is None:
            yield f"order {order_id} is still {status}"
            continue
        for reservation_id in reservation_ids:
            state = states.get(reservation_id)
            if state not in allowed:
                yield f"order {order_id} is {status}, its reservation {reservation_id} is {state}"
    for reservation_id, state, order_id, *_ in inventory["reservations"]:
        if (
            order_id in orders
            and reservation_id not in owned
            and state in ("RESERVED", "COMMITTED")
        ):
            yield f"reservation {reservation_id} is {state} for order {order_id}, which has it not"


def forgotten_holds(order: Any, inventory: Any) -> Iterable[str]:
    """I4: a hold or a sale that names an order has it, and no hold outlives its expiry."""
    orders = {row[0] for row in order["orders"]}
    for reservation_id, state, order_id, _, _, expired_for, age in inventory["reservations"]:
        if state not in ("RESERVED", "COMMITTED"):
            continue
        if order_id is not None and order_id not in orders and age > LATE_SECONDS_MAX:
            yield f"reservation {reservation_id} is {state} for order {order_id}, which is missing"
        if state == "RESERVED" and expired_for is not None and expired_for > LATE_SECONDS_MAX:
            yield f"reservation {reservation_id} expired {expired_for:.0f} s ago and is RESERVED"


def unsent_events(reports: Mapping[str, Any]) -> Iterable[str]:
    """I7: at rest no outbox holds an event that was not sent."""
    for name, report in reports.items():
        pending = report["facts"]["outbox_pending"]
        if pending:
            yield f"{name}: {pending} events not sent"


def projection_lag(catalog: Any, inventory: Any) -> Iterable[str]:
    """I7: at rest the catalog has applied the last version of every stock."""
    shown = catalog["availability"]
    for ticket_id, stock in inventory["stocks"].items():
        known = shown.get(ticket_id)
        if known is None:
            yield f"ticket {ticket_id}: the catalog has not heard of its stock"
        elif (known["version"], known["available"]) != (stock["version"], stock["available"]):
            yield (
                f"ticket {ticket_id}: the catalog shows {known['available']} (version "
                f"{known['version']}), inventory has {stock['available']} ({stock['version']})"
            )


def money(order: Any) -> Iterable[str]:
    """I9: a confirmed order was paid exactly, and nobody else's money was kept."""
    kept: dict[str, int] = defaultdict(int)
    for payment_id, order_id, status, amount in order["payments"]:
        if status == "CAPTURED":
            kept[order_id] += amount
        elif status == "REFUND_DUE":
            yield f"payment {payment_id} of order {order_id}: {amount} is not refunded yet"
    for order_id, status, _, _, _, total in order["orders"]:
        due = total if status == "CONFIRMED" else 0
        captured = kept.pop(order_id, 0)
        if captured != due:
            yield f"order {order_id} is {status}: captured {captured}, due {due}"
    for order_id, captured in kept.items():
        yield f"{captured} was captured for order {order_id}, which is missing"


def _check(identifier: str, name: str, violations: Iterable[str]) -> Check:
    found = list(violations)
    return Check(identifier, "all", name, len(found), found[:SHOWN_MAX])


def _ask(service: str, env: Mapping[str, str]) -> dict[str, Any]:
    result = subprocess.run(
        manage_argv(service, "audit", "--json"),
        env=dict(env),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    # The command's own exit code tells of broken invariants; its report says which.
    try:
        report: dict[str, Any] = json.loads(result.stdout)
    except ValueError:
        reason = (result.stderr.strip().splitlines() or ["no output"])[-1]
        raise StackError(f"the audit of {service} failed: {reason}") from None
    return report
