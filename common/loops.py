"""Background loops: a step that is repeated while it finds work, and rests when it does not."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import structlog
from django.core.management.base import BaseCommand, CommandParser
from django.db import close_old_connections, connections
from django.utils.module_loading import import_string

from common.durability import require_durable

log = structlog.get_logger(__name__)

BACKOFF_SECONDS_MAX = 5.0
STOP_GRACE_SECONDS = 8.0


@dataclass(frozen=True)
class Loop:
    """``step`` does one bounded piece of work and returns how much it found (0 = rest now).

    ``close`` hands over what others would otherwise have to wait for; a crash goes without it.
    """

    name: str
    step: Callable[[], int]
    interval_seconds: float
    close: Callable[[], None] | None = None


def run_loop(loop: Loop, stop: threading.Event) -> None:
    """Repeat the loop's step until ``stop``; a failing step is logged and tried again later."""
    failures = 0
    while not stop.is_set():
        try:
            close_old_connections()
            found = loop.step()
            failures = 0
            pause = 0.0 if found else loop.interval_seconds
        except Exception:
            failures += 1
            pause = min(BACKOFF_SECONDS_MAX, 0.1 * 2**failures)
            log.exception("loop step failed", loop=loop.name, failures=failures)
        stop.wait(pause)
    _close(loop)
    connections.close_all()


def _close(loop: Loop) -> None:
    try:
        if loop.close is not None:
            loop.close()
    except Exception:
        log.exception("loop did not end well", loop=loop.name)


def run_until_signal(loops: Sequence[Loop]) -> None:
    """Run each loop in a thread of its own until SIGTERM or SIGINT, then let the steps finish.

    Raises ImproperlyConfigured on a database that would forget.
    """
    require_durable()
    stop = threading.Event()

    def on_signal(signum: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    threads = [
        threading.Thread(target=run_loop, args=(loop, stop), name=loop.name, daemon=True)
        for loop in loops
    ]
    for thread in threads:
        thread.start()
    log.info("loops running", loops=[loop.name for loop in loops])
    while not stop.wait(1.0):
        pass
    deadline = time.monotonic() + STOP_GRACE_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))


class LoopCommand(BaseCommand):
    """Base of the management commands that run one loop; a subclass names ``loop_path``."""

    loop_path = ""
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--once", action="store_true", help="one step, then exit")

    def handle(self, *args: Any, **options: Any) -> None:
        loop: Loop = import_string(self.loop_path)
        if options["once"]:
            self.stdout.write(f"{loop.name}: {loop.step()}")
            _close(loop)
        else:
            run_until_signal([loop])
