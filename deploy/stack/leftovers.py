"""One system per folder: the lock that says so, and what a killed supervisor left running."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.layout import Layout, read_json
from deploy.stack.processes import end_groups, process_start_ticks

LOCK_PATIENCE_SECONDS = 1.0
# A database among them should have the time to close its files.
LEFTOVER_GRACE_SECONDS = 10.0


class FolderLock:
    """Held as long as a system runs in the folder; the kernel lets go of it when we die."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock; StackError when another system holds it."""
        descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        deadline = time.monotonic() + LOCK_PATIENCE_SECONDS
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            # `status` looks by taking it for a moment, so one refusal means nothing yet.
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 32, 0).decode().strip()
                os.close(descriptor)
                raise StackError(
                    f"already running from {self._path.parent} (process {holder or 'unknown'}); "
                    "see `manage_all.py status`, stop it with `manage_all.py down`"
                )
            time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor

    @property
    def is_held(self) -> bool:
        """Whether this object holds it."""
        return self._descriptor is not None

    def release(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def holder(self) -> int | None:
        """Return the process id of the running supervisor, or None when there is none."""
        try:
            descriptor = os.open(self._path, os.O_RDONLY)
        except OSError:
            return None
        try:
            if _try_lock(descriptor, fcntl.LOCK_SH):
                return None
            return int(os.pread(descriptor, 32, 0).decode().strip() or 0) or None
        finally:
            os.close(descriptor)


def leftovers(layout: Layout) -> dict[str, int]:
    """Return name → pid of what a killed supervisor left running.

    A process is ours only if the recorded id still has the recorded start time.
    """
    return {
        process["name"]: process["pid"]
        for process in read_json(layout.state_json).get("processes", [])
        if process["pid"] and process_start_ticks(process["pid"]) == process["start_ticks"]
    }


def end_leftovers(layout: Layout) -> list[str]:
    """End what a killed supervisor left running; returns the names."""
    left = leftovers(layout)
    end_groups(list(left.values()), LEFTOVER_GRACE_SECONDS)
    return list(left)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
