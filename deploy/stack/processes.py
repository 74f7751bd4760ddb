"""One child process: in a group of its own, logged to a file, stopped for certain."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from deploy.stack.errors import StackError
from deploy.stack.layout import ROOT

LOG_BYTES_MAX = 16 * 1024 * 1024
OPEN_FILES_MAX = 65_536
GRACE_SECONDS = 12.0
GROUP_GRACE_SECONDS = 2.0


@dataclass
class Child:
    """A program to run; ``start`` and ``stop`` may alternate as often as wanted."""

    name: str
    argv: Sequence[str]
    env: Mapping[str, str]
    log: Path
    cwd: Path = ROOT
    stop_signal: signal.Signals = signal.SIGTERM
    grace_seconds: float = GRACE_SECONDS
    started_at: float = field(default=0.0, init=False)
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """How it ended; None while it runs or before it was started."""
        return self._process.poll() if self._process else None

    def start(self) -> int:
        """Start the program; returns its process id."""
        with _log_file(self.log) as log:
            try:
                self._process = subprocess.Popen(
                    list(self.argv),
                    env=dict(self.env),
                    cwd=self.cwd,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # Ctrl-C on the terminal goes to the supervisor alone, which stops in order.
                    process_group=0,
                )
            except OSError as error:
                raise StackError(f"{self.name}: cannot run {self.argv[0]}: {error}") from error
        self.started_at = time.time()
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process itself, if it runs."""
        if self.pid:
            os.kill(self.pid, number)

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the end; returns the exit code, or None when it still runs."""
        if self._process is None:
            return None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(timeout_seconds)
        return None

    def ask_to_stop(self) -> None:
        """Send the signal that means a graceful end."""
        self.send(self.stop_signal)
        # A paused (SIGSTOP) process could not hear it otherwise.
        self.send(signal.SIGCONT)

    def finish(self, grace_seconds: float | None = None) -> None:
        """Wait for the end that was asked for, then kill it with all that it left in its group."""
        if self._process is None:
            return
        if self.wait(self.grace_seconds if grace_seconds is None else grace_seconds) is None:
            self._process.kill()
            self._process.wait()
        self.clear_group()

    def stop(self, grace_seconds: float | None = None) -> None:
        """Ask it to end and see to it that it does."""
        self.ask_to_stop()
        self.finish(grace_seconds)

    def clear_group(self) -> None:
        """End what a dead process left behind, such as the workers of a killed gunicorn."""
        if self._process is not None and self._process.poll() is not None:
            end_groups([self._process.pid])


def allow_open_files() -> int:
    """Let this process and its children open more files than the usual 1024; returns how many.

    Every connection of a crowd is one, in nginx even two.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ceiling = OPEN_FILES_MAX if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_MAX)
    if soft < ceiling:
        resource.setrlimit(resource.RLIMIT_NOFILE, (ceiling, hard))
        return ceiling
    return soft


def end_groups(groups: Sequence[int], grace_seconds: float = GROUP_GRACE_SECONDS) -> None:
    """End process groups whose leaders are dead or not our children: SIGTERM, a moment, SIGKILL."""
    left = [group for group in groups if _signal_group(group, signal.SIGTERM)]
    deadline = time.monotonic() + grace_seconds
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [group for group in left if _signal_group(group, 0)]
    for group in left:
        _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: int) -> bool:
    """Signal a group (0: only look); False when it has no members any more."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    return True


def process_start_ticks(pid: int) -> int | None:
    """Return when the process started, in clock ticks since boot: with the pid it is unique."""
    try:
        # The name in brackets may contain spaces; fields are counted from behind it.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else int(fields[19])
    except (OSError, ValueError, IndexError):
        return None


def put_aside_if_large(log: Path) -> None:
    """Keep a log from growing for ever: beyond a size it becomes ``.log.1``."""
    with contextlib.suppress(OSError):
        if log.stat().st_size > LOG_BYTES_MAX:
            log.replace(log.with_suffix(".log.1"))


def _log_file(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    put_aside_if_large(path)
    return path.open("ab")
