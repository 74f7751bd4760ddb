"""Keeps a set of child processes running: restarts the dead with back-off, stops all in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from deploy.stack.errors import Interrupted, StackError
from deploy.stack.processes import Child, process_start_ticks

CHECK_INTERVAL_SECONDS = 0.2
BACKOFF_SECONDS_MIN = 0.5
BACKOFF_SECONDS_MAX = 15.0
# A child that ran this long has recovered: its next death starts with the shortest pause again.
STABLE_SECONDS = 60.0


@dataclass
class Supervised:
    """A child with what the supervisor knows about it."""

    child: Child
    stage: int
    wanted: bool = True
    restarts: int = 0
    backoff_seconds: float = BACKOFF_SECONDS_MIN
    restart_at: float | None = None

    @property
    def state(self) -> str:
        if self.child.pid:
            return "running"
        return "restarting" if self.wanted else "stopped"


class Children:
    """The processes of one system. Stages start in ascending and stop in descending order."""

    def __init__(
        self, on_change: Callable[[], None], *, backoff_seconds_max: float = BACKOFF_SECONDS_MAX
    ) -> None:
        self._on_change = on_change
        self._backoff_seconds_max = backoff_seconds_max
        self._supervised: dict[str, Supervised] = {}
        self._running_tasks: dict[int, Child] = {}
        self._lock = threading.RLock()
        self._closing = threading.Event()
        self._watcher: threading.Thread | None = None

    def start(self, child: Child, stage: int) -> None:
        """Start a child and be responsible for it from now on."""
        with self._lock:
            self._refuse_when_closing()
            self._supervised[child.name] = Supervised(child, stage)
            child.start()
        self._on_change()

    def run_task(self, child: Child) -> None:
        """Run a program to its end; StackError when it fails."""
        with self._lock:
            self._refuse_when_closing()
            child.start()
            self._running_tasks[id(child)] = child
        try:
            code = child.wait()
        finally:
            with self._lock:
                del self._running_tasks[id(child)]
        self._refuse_when_closing()
        if code != 0:
            raise StackError(f"{child.name} failed with exit code {code}", log=child.log)

    def watch(self) -> None:
        """From now on restart what dies; before, a death is a failed start."""
        self._watcher = threading.Thread(target=self._watch, name="watch children", daemon=True)
        self._watcher.start()

    def require_alive(self, name: str) -> None:
        """Raise StackError when the child has died."""
        self._refuse_when_closing()
        child = self._supervised[name].child
        if child.exit_code is not None:
            raise StackError(f"{name} ended with exit code {child.exit_code}", log=child.log)

    def get(self, name: str) -> Child:
        """Return a child by name; KeyError when there is none."""
        return self._supervised[name].child

    def names(self) -> list[str]:
        return list(self._supervised)

    def stop_one(self, name: str, grace_seconds: float | None = None) -> None:
        """Stop a child, which stays down until ``start_one``."""
        with self._lock:
            supervised = self._supervised[name]
            supervised.wanted = False
            supervised.restart_at = None
        supervised.child.stop(grace_seconds)
        self._on_change()

    def start_one(self, name: str) -> None:
        """Start a child that was stopped."""
        with self._lock:
            self._refuse_when_closing()
            supervised = self._supervised[name]
            supervised.wanted = True
            supervised.restart_at = None
            if supervised.child.pid is None:
                supervised.child.start()
        self._on_change()

    def stop_all(self) -> None:
        """Stop everything: tasks at once, then stage by stage, each stage together."""
        with self._lock:
            self._closing.set()
            tasks = list(self._running_tasks.values())
            supervised = list(self._supervised.values())
        if self._watcher is not None:
            self._watcher.join()
        for task in tasks:
            task.stop(grace_seconds=2.0)
        for stage in sorted({s.stage for s in supervised}, reverse=True):
            self._stop_stage([s for s in supervised if s.stage == stage])
        self._on_change()

    def states(self) -> list[dict[str, Any]]:
        """Return name, state, pid, start and restarts of each child, in order of start."""
        with self._lock:
            return [
                {
                    "name": supervised.child.name,
                    "state": supervised.state,
                    "pid": (pid := supervised.child.pid),
                    "start_ticks": process_start_ticks(pid) if pid else None,
                    "started_at": supervised.child.started_at if pid else None,
                    "restarts": supervised.restarts,
                }
                for supervised in self._supervised.values()
            ]

    def _stop_stage(self, stage: list[Supervised]) -> None:
        for supervised in stage:
            supervised.wanted = False
            supervised.child.ask_to_stop()
        for supervised in stage:
            supervised.child.finish()

    def _refuse_when_closing(self) -> None:
        if self._closing.is_set():
            raise Interrupted

    def _watch(self) -> None:
        while not self._closing.wait(CHECK_INTERVAL_SECONDS):
            with self._lock:
                changed = [self._check(supervised) for supervised in self._supervised.values()]
            if any(changed):
                self._on_change()

    def _check(self, supervised: Supervised) -> bool:
        """Notice a death, or restart what died when its pause is over; True on a change."""
        child = supervised.child
        if not supervised.wanted or child.pid:
            return False
        now = time.monotonic()
        if supervised.restart_at is None:
            if time.time() - child.started_at > STABLE_SECONDS:
                supervised.backoff_seconds = BACKOFF_SECONDS_MIN
            supervised.restart_at = now + supervised.backoff_seconds
            supervised.backoff_seconds = min(
                self._backoff_seconds_max, supervised.backoff_seconds * 2
            )
            return True
        if now < supervised.restart_at:
            return False
        child.clear_group()
        supervised.restart_at = None
        supervised.restarts += 1
        try:
            child.start()
        except StackError:
            # The program itself is gone for the moment; the next check starts a longer pause.
            child.started_at = time.time()
        return True
