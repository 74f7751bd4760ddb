"""What the benchmarks of one service share: a system to press, promises, and a table to print."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from deploy.stack.measuring import Figure, table_of
from deploy.stack.supervisor import Stack
from deploy.stack.terminal import end_progress, say, show_progress

SECONDS, QUICK_SECONDS = 8.0, 3.0
# Each request commits by itself: what group commit is compared with.
ALONE = {"GROUP_COMMIT_MAX_BATCH": "1"}
# A caller may try other numbers of these.
PASSED_ON = ("WEB_WORKERS", "WEB_THREADS")

# promise → (figure, in proportion to figure, at least); None: in itself
Promises = Mapping[str, tuple[str, str | None, float]]


@contextmanager
def private_system(database: str, env: Mapping[str, str]) -> Iterator[Stack]:
    """Run a system that is thrown away afterwards."""
    show_progress(f"Starting a private system on {database} ...")
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    with (
        tempfile.TemporaryDirectory(prefix="flash-sale-bench-") as folder,
        Stack(Path(folder), database=database, env={**passed, **env}) as stack,
    ):
        yield stack


def kept(known: Mapping[str, Figure], promises: Promises) -> dict[str, tuple[float, float]]:
    """Return promise → (what was measured, at least)."""
    return {
        promise: (round(known[name].per_second / (known[base].per_second if base else 1), 2), least)
        for promise, (name, base, least) in promises.items()
    }


def report(
    options: argparse.Namespace,
    figures: Sequence[Figure],
    refused: str,
    promises: Mapping[str, tuple[float, float]],
    seconds: float,
) -> int:
    """Print figures, in proportion to the one named ``refused``, and promises; returns the exit
    code, 1 when there were wrong answers."""
    end_progress()
    base = next(figure.per_second for figure in figures if figure.name == refused)
    for figure in figures:
        figure.ratio = round(figure.per_second / base, 4)
    if options.json:
        facts = {"cores": os.cpu_count() or 1, "seconds_each": seconds, "promises": promises}
        say(json.dumps({**facts, "figures": [asdict(figure) for figure in figures]}, indent=2))
    else:
        say(f"One hot ticket, {seconds:.0f} s each, {os.cpu_count()} cores; load from here.\n")
        say(table_of(figures, "of refused") + "\n")
        for name, (value, least) in promises.items():
            say(f"{'ok  ' if value >= least else 'LESS'} {name}: {value:,.2f} (at least {least:g})")
    return 1 if any(figure.has_wrong_answers for figure in figures) else 0
