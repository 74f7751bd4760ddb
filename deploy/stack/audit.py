"""``audit``: the invariants that hold inside each service, and those that only show across them."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from common import auditing
from common.auditing import SHOWN_MAX, Violation
from deploy.stack import invariants
from deploy.stack.cli import SETTLE_SECONDS_MAX
from deploy.stack.control import process_environment
from deploy.stack.errors import StackError
from deploy.stack.invariants import Gap
from deploy.stack.layout import ROOT, Layout
from deploy.stack.supervisor import manage_argv
from deploy.stack.terminal import end_progress, say, show_progress, table

Key = tuple[str, ...]
AUDITED = ("catalog", "inventory", "order")
PAUSE_SECONDS = 1.0
HINT = "`python3 manage_all.py reconcile` says what can be repaired, and with --repair does it."


@dataclass(frozen=True)
class Check:
    """One invariant as one service, or the system, keeps it."""

    id: str
    where: str
    name: str
    count: int = 0
    violations: list[Violation] = field(default_factory=list)

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
    layout = Layout.default()
    require_data(layout)
    result = audit(layout)
    if options.json:
        say(json.dumps(result.as_json(), indent=2))
    else:
        show(result)
        if not result.ok:
            say(HINT)
    return 0 if result.ok else 1


def require_data(layout: Layout) -> None:
    """Refuse to look at a system that was never started."""
    own_databases = any(f"{name.upper()}_DATABASE_URL" in os.environ for name in AUDITED)
    if not layout.environment_json.exists() and not own_databases:
        raise StackError(
            f"there is no data under {layout.var} yet; start the system with `manage_all.py up`"
        )


def audit(layout: Layout, settle_seconds: float = SETTLE_SECONDS_MAX) -> Result:
    """Check until all holds or the time for work in flight to settle is over."""
    with process_environment(layout) as env:
        return audit_until_settled(env, settle_seconds)


def audit_until_settled(env: Mapping[str, str], settle_seconds: float) -> Result:
    """Check again and again in the given environment until all holds or time is up.

    What one look finds and the next one does not is work in flight, and no violation: under a
    running sale there is always some, as the services are looked at one beside the other.
    """
    started = time.monotonic()
    lasting: set[Key] | None = None
    while True:
        checks = look(env)
        found = {_key(check, one) for check in checks for one in check.violations}
        lasting = found if lasting is None else lasting & found
        seconds = time.monotonic() - started
        if all(check.ok for check in checks) or seconds > settle_seconds:
            end_progress()
            return Result([_without_others(check, lasting) for check in checks], seconds)
        pending = sum(check.count for check in checks)
        show_progress(
            f"Waiting for work in flight: {pending} not settled after {seconds:.0f} s ..."
        )
        time.sleep(PAUSE_SECONDS)


def _key(check: Check, violation: Violation) -> Key:
    """Return what is the same as long as a violation lasts: a sum is another one with each sale."""
    text = violation.text if violation.subject == "currency" else ""
    details = json.dumps(violation.details, sort_keys=True)
    return check.id, check.where, violation.finding, violation.id, details, text


def _without_others(check: Check, lasting: set[Key]) -> Check:
    kept = [one for one in check.violations if _key(check, one) in lasting]
    unnamed = check.count - len(check.violations)
    return replace(check, violations=kept, count=len(kept) + unnamed)


def look(env: Mapping[str, str]) -> list[Check]:
    """Ask every service once and join what they say."""
    at = str(time.time())
    with ThreadPoolExecutor(len(AUDITED)) as pool:
        answers = pool.map(lambda name: _ask(name, env, "--json", "--at", at), AUDITED)
        reports = dict(zip(AUDITED, answers, strict=True))
    own = [_as_check(name, check) for name, report in reports.items() for check in report["checks"]]
    facts = {name: report["facts"] for name, report in reports.items()}
    return sorted([*own, *_joined(facts, env, at)], key=lambda check: (check.id, check.where))


def _joined(facts: Mapping[str, Any], env: Mapping[str, str], at: str) -> Iterator[Check]:
    catalog, inventory, order = (facts[name] for name in AUDITED)
    both = (order, inventory)
    gaps = _events_in(invariants.event_gaps(facts), env, at)
    joined: list[tuple[str, str, Iterable[Violation]]] = [
        ("I4", "orders and reservations agree", invariants.orders_against_reservations(*both)),
        ("I4", "items are what was reserved", invariants.items_against_reservations(*both)),
        ("I4", "no hold is forgotten", invariants.forgotten_holds(*both)),
        ("I7", "every event was sent", invariants.unsent_events(facts)),
        ("I7", "every event was applied once by each consumer", gaps),
        (
            *("I7", "the catalog shows inventory's stock"),
            invariants.stock_projection(catalog, inventory),
        ),
        ("I7", "orders follow the catalog's offers", invariants.offer_projection(catalog, order)),
        (
            *("I7", "inventory names tickets as the catalog"),
            invariants.label_projection(catalog, inventory),
        ),
        ("I8", "a refused order has taken nothing", invariants.refusals_that_took(*both)),
        ("I9", "money captured = confirmed orders + refunds", invariants.money(order)),
        ("I9", "payments belong to orders", invariants.payments_against_orders(order)),
    ]
    for number, name, violations in joined:
        yield _as_check("all", auditing.check(number, name, violations))


def _events_in(gaps: Iterable[Gap], env: Mapping[str, str], at: str) -> Iterator[Violation]:
    """Ask both sides of each gap which events are in it."""
    for gap in gaps:
        buckets = json.dumps({gap.event_type: gap.buckets})
        sides = [
            _ask(name, env, "--event-ids", buckets, "--at", at)
            for name in (gap.emitter, gap.consumer)
        ]
        yield from invariants.events_in(
            gap, sides[0]["emitted"][gap.event_type], sides[1]["dealt_with"][gap.event_type]
        )


def _as_check(where: str, check: auditing.Check) -> Check:
    named = [Violation(**violation) for violation in check["violations"]]
    return Check(check["id"], where, check["name"], check["count"], named)


def show(result: Result) -> None:
    """Print the table, then the violations."""
    rows = [
        [check.id, check.where, check.name, "ok" if check.ok else f"BROKEN ({check.count})"]
        for check in result.checks
    ]
    say(table(["", "where", "invariant", "holds"], rows))
    for check in result.checks:
        for violation in check.violations[:SHOWN_MAX]:
            say(f"{check.id} {check.where}: {violation.text}")
        if check.count > SHOWN_MAX:
            say(f"{check.id} {check.where}: ... and {check.count - SHOWN_MAX} more")
    verdict = "All invariants hold" if result.ok else "Some invariants are BROKEN"
    say(f"\n{verdict} ({result.seconds:.1f} s).")


def _ask(service: str, env: Mapping[str, str], *options: str) -> dict[str, Any]:
    result = subprocess.run(
        manage_argv(service, "audit", *options),
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
