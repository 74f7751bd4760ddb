"""``test``: runs the steps of the plan, two at a time, and sums up."""

from __future__ import annotations

import argparse
import contextlib
import queue
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from xml.etree import ElementTree

from deploy.stack import packages, plan
from deploy.stack.layout import Layout
from deploy.stack.mysql_server import PrivateMySQL
from deploy.stack.plan import COUNTS, Project, Step
from deploy.stack.processes import Child
from deploy.stack.signals import ignore_stop_signals, raise_on_stop_signals
from deploy.stack.terminal import say, table

AT_ONCE = 2
STEP_SECONDS_MAX, FULL_STEP_SECONDS_MAX = 900.0, 7200.0
NO_TESTS_COLLECTED = 5


def run(options: argparse.Namespace) -> int:
    """Run what was asked for; the last line sums up, the exit code says whether all is well."""
    raise_on_stop_signals()
    chosen = plan.choose(options.paths)
    if not options.embedded:
        packages.require("mysql", "browser")
    folder = Layout.default().var / "test"
    folder.mkdir(parents=True, exist_ok=True)
    env = plan.base_environment(full=options.full, embedded=options.embedded)
    with _databases(chosen, options.embedded) as database_urls:
        steps = [] if options.paths else plan.checks(folder, env)
        steps += plan.tests(chosen, folder, env, database_urls)
        seconds_max = FULL_STEP_SECONDS_MAX if options.full else STEP_SECONDS_MAX
        Runner(seconds_max, show_output=len(steps) == 1).run(steps)
    return _summarise(steps)


def count_results(report: Path) -> dict[str, int]:
    """Return passed, failed and skipped of a JUnit report; one failure when there is none."""
    try:
        suites = list(ElementTree.parse(report).getroot().iter("testsuite"))  # noqa: S314 - our own
    except (OSError, ElementTree.ParseError):
        return {"passed": 0, "failed": 1, "skipped": 0}

    def total(*names: str) -> int:
        return sum(int(suite.get(name, 0)) for suite in suites for name in names)

    failed, skipped = total("failures", "errors"), total("skipped")
    return {"passed": total("tests") - failed - skipped, "failed": failed, "skipped": skipped}


class Runner:
    """Runs steps two at a time, then those that want the machine alone."""

    def __init__(self, seconds_max: float, *, show_output: bool) -> None:
        self._seconds_max = seconds_max
        self._show_output = show_output
        self._started: queue.SimpleQueue[Child] = queue.SimpleQueue()
        self._stopping = threading.Event()

    def run(self, steps: Sequence[Step]) -> None:
        """Run all; when interrupted, stop what runs before giving up."""
        groups = [[s for s in steps if not s.alone], *([s] for s in steps if s.alone)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            try:
                for group in groups:
                    left = {pool.submit(self._run_step, step) for step in group}
                    while left:
                        done, left = wait(left, return_when=FIRST_COMPLETED)
                        for future in done:
                            _show_step(future.result(), self._show_output)
            except BaseException:
                self._stopping.set()
                ignore_stop_signals()
                while not self._started.empty():
                    self._started.get().stop()
                raise

    def _run_step(self, step: Step) -> Step:
        if self._stopping.is_set():
            return step
        step.log.unlink(missing_ok=True)
        if step.report:
            step.report.unlink(missing_ok=True)
        # SIGINT lets pytest tear its fixtures down, and with them the servers that they started.
        child = Child(
            step.name, step.argv, step.env, step.log, stop_signal=signal.SIGINT, grace_seconds=30
        )
        started = time.monotonic()
        child.start()
        self._started.put(child)
        code = self._wait(child)
        if code is None:
            child.stop()
            with step.log.open("a") as log:
                log.write(f"\nstopped: it took more than {self._seconds_max:.0f} s\n")
        child.clear_group()
        step.seconds = time.monotonic() - started
        _judge(step, code)
        return step

    def _wait(self, child: Child) -> int | None:
        """Wait for the end, passing on what the step prints if it runs by itself."""
        if not self._show_output:
            return child.wait(self._seconds_max)
        deadline = time.monotonic() + self._seconds_max
        with child.log.open("rb") as log:
            while True:
                code = child.wait(0.2)
                sys.stdout.write(log.read().decode(errors="replace"))
                sys.stdout.flush()
                if code is not None or time.monotonic() > deadline:
                    return code


@contextlib.contextmanager
def _databases(chosen: Mapping[Project, list[str]], embedded: bool) -> Iterator[dict[str, str]]:
    """Yield project → URL of its own database on a private MariaDB, for those that run there."""
    names = [project.name for project in chosen if project.service]
    if embedded or not names:
        yield {}
        return
    with (
        tempfile.TemporaryDirectory(prefix="flash-sale-test-") as folder,
        PrivateMySQL(Path(folder)) as server,
    ):
        yield {name: server.create_database(name) for name in names}


def _judge(step: Step, code: int | None) -> None:
    step.failed = code not in (0, NO_TESTS_COLLECTED) if step.report else code != 0
    if step.report and code != NO_TESTS_COLLECTED:
        step.counts = count_results(step.report)
        step.failed = step.failed or step.counts["failed"] > 0


def _show_step(step: Step, shown_already: bool) -> None:
    if step.failed and not shown_already:
        say(f"\n===== {step.name} =====")
        say(step.log.read_text(errors="replace").rstrip())
        say("=" * (12 + len(step.name)))
    counts = ", ".join(f"{count} {name}" for name, count in step.counts.items() if count)
    state = "FAILED" if step.failed else "ok"
    say(f"{step.name:32} {state:7} {step.seconds:6.1f} s  {counts}".rstrip())


def _summarise(steps: Sequence[Step]) -> int:
    total = {name: sum(step.counts[name] for step in steps) for name in COUNTS}
    rows = [
        [
            step.name,
            "FAILED" if step.failed else "ok",
            f"{step.seconds:.1f}",
            *(str(step.counts[name]) if step.report else "-" for name in COUNTS),
        ]
        for step in steps
    ]
    say("\n" + table(["step", "result", "seconds", *COUNTS], rows))
    say()
    say(", ".join(f"{total[name]} {name}" for name in COUNTS))
    nothing_ran = not any(total.values())
    return 1 if nothing_ran or any(step.failed for step in steps) else 0
