"""``reconcile``: says what can be repaired of that which the audit finds, and repairs it when told.

Nothing is repaired here: each service does it with its own steps, which are conditional, so that
work in flight and a second run do no harm. What is left then is for a person to decide.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from common.auditing import SHOWN_MAX, Violation
from deploy.stack.audit import Check, Result, audit_until_settled, require_data
from deploy.stack.cli import SETTLE_SECONDS_MAX
from deploy.stack.control import process_environment
from deploy.stack.errors import StackError
from deploy.stack.layout import ROOT, Layout
from deploy.stack.leftovers import FolderLock
from deploy.stack.repairs import ADVICE, Planned, plan
from deploy.stack.supervisor import manage_argv
from deploy.stack.terminal import say, table

# One repair may lay open the next: an order that is let go gives its money back.
ROUNDS_MAX = 3
# In the order in which one service's repairs help the next one's.
SERVICES = ("catalog", "inventory", "order")
BATCH_SIZE = 500
Done = dict[str, Any]


def run(options: argparse.Namespace) -> int:
    """Look, say what there is to do, do it with --repair; 0 when nothing is wrong (any more)."""
    layout = Layout.default()
    require_data(layout)
    running = FolderLock(layout.lock).holder() is not None
    if options.repair and not running:
        raise StackError(
            "it is not running: repairs go through its services and events; start it with "
            "`manage_all.py up`"
        )
    with process_environment(layout) as env:
        # Where nothing runs, nothing settles either.
        result = audit_until_settled(env, options.wait if running else 0.0)
        done: list[Done] = []
        if options.repair:
            result = repair_until_clean(result, env, layout, done)
    if options.json:
        say(json.dumps(_as_json(result, done, repaired=options.repair), indent=2))
    else:
        _show(result, done, repaired=options.repair)
    return 0 if result.ok else 1


def repair_until_clean(
    result: Result, env: Mapping[str, str], layout: Layout, done: list[Done]
) -> Result:
    """Repair what can be, look again, and so on; adds to ``done`` and returns the last look."""
    for _ in range(ROUNDS_MAX):
        planned, _left = plan(result.checks)
        if not planned:
            break
        round_done = repair(planned, env, layout)
        done += round_done
        result = audit_until_settled(env, SETTLE_SECONDS_MAX)
        if not any(one["ok"] for one in round_done):
            break
    return result


def repair(planned: Sequence[Planned], env: Mapping[str, str], layout: Layout) -> list[Done]:
    """Let each service do its repairs; return each with ``service``, ``ok`` and ``result``."""
    done: list[Done] = []
    for service in SERVICES:
        items = [one.item() for one in planned if one.service == service]
        for start in range(0, len(items), BATCH_SIZE):
            results = _command(service, items[start : start + BATCH_SIZE], env, layout)
            done += [{"service": service, **result} for result in results]
    return done


def _command(
    service: str, items: Sequence[Mapping[str, Any]], env: Mapping[str, str], layout: Layout
) -> list[dict[str, Any]]:
    # The service's own log of its repairs, for `logs`.
    with layout.log(f"{service}-repair").open("a") as log:
        result = subprocess.run(
            manage_argv(service, "repair"),
            env=dict(env),
            cwd=ROOT,
            input=json.dumps(items),
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            check=False,
        )
    # The exit code tells that something failed; the list says what.
    try:
        done: list[dict[str, Any]] = json.loads(result.stdout)
    except ValueError:
        reason = f"{service} could not repair anything (exit code {result.returncode})"
        raise StackError(reason, log=layout.log(f"{service}-repair")) from None
    return done


def _as_json(result: Result, done: Sequence[Done], *, repaired: bool) -> dict[str, Any]:
    planned, left = plan(result.checks)
    return {
        "ok": result.ok,
        "seconds": round(result.seconds, 1),
        "repaired": list(done) if repaired else None,
        "to_repair": [{"service": one.service, **one.item()} for one in planned],
        "for_a_person": [
            {
                "check": check.id,
                "where": check.where,
                **asdict(violation),
                "advice": ADVICE.get(violation.finding, ""),
            }
            for check, violation in left
        ],
    }


def _show(result: Result, done: Sequence[Done], *, repaired: bool) -> None:
    planned, left = plan(result.checks)
    if done:
        rows = [
            [one["service"], one["repair"], one["id"], "" if one["ok"] else "FAILED", one["result"]]
            for one in done
        ]
        say(table(["service", "repair", "of", "", "result"], rows))
        for one in done:
            say(f"{one['id']}: {one['why']}")
        say()
    if planned:
        say("Still to be repaired:" if repaired else "What --repair would do:")
        rows = [[p.service, p.repair.name, p.violation.id, p.repair.does] for p in planned]
        say(table(["service", "repair", "of", "what it does"], rows))
        for p in planned:
            say(f"{p.violation.id}: {p.violation.text}")
        say()
    if left:
        _show_left(left)
    _verdict(result, planned, left, done)


def _show_left(left: Sequence[tuple[Check, Violation]]) -> None:
    say("For a person to decide:")
    by_finding: dict[str, list[str]] = {}
    for check, violation in left:
        text = f"{check.id} {check.where}: {violation.text}"
        by_finding.setdefault(violation.finding, []).append(text)
    for finding, texts in by_finding.items():
        for text in texts[:SHOWN_MAX]:
            say(text)
        if len(texts) > SHOWN_MAX:
            say(f"... and {len(texts) - SHOWN_MAX} more")
        say(f"    {ADVICE.get(finding, '')}")
    say()


def _verdict(
    result: Result,
    planned: Sequence[Planned],
    left: Sequence[tuple[Check, Violation]],
    done: Sequence[Done],
) -> None:
    ended = f"{len(done)} repairs done. " if done else ""
    if result.ok:
        say(f"{ended}All invariants hold ({result.seconds:.1f} s).")
    else:
        say(f"{ended}{len(planned)} to be repaired, {len(left)} for a person to decide.")
