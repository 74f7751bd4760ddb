"""The image's health check; HEALTHCHECK says of what: ``web`` (the default) or ``loops``.

A web process is healthy when it answers /readyz with 200, so that whatever waits for it can use it
at once. Loops answer nobody: they are healthy when their process runs (is neither paused nor stuck
in its start) with the loops as threads beside the main one.
"""

from __future__ import annotations

import http.client
import os
import sys
from collections.abc import Callable
from pathlib import Path

PORT = 8000
TIMEOUT_SECONDS = 3.0
LOOPS_COMMAND = b"run_loops"
# States of /proc/<pid>/stat: T and t paused, Z and X dead.
NOT_RUNNING = frozenset("TtZX")


def web_is_ready(port: int = PORT) -> bool:
    """Tell whether the web process on this machine answers that it is ready."""
    # Straight to the socket: a proxy from the environment has no business here.
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def loops_run(proc: Path = Path("/proc")) -> bool:
    """Tell whether a process runs the loops."""
    return any(runs_loops(folder) for folder in proc.glob("[0-9]*"))


def runs_loops(folder: Path) -> bool:
    """Tell whether the process of a folder of /proc runs the loops."""
    try:
        arguments = (folder / "cmdline").read_bytes().split(b"\0")
        # The name of the program, in brackets, may hold anything; the state comes after it.
        state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
        threads = sum(1 for _ in (folder / "task").iterdir())
    except (OSError, IndexError):
        return False
    # tini's own command line names the loops too, but tini has one thread.
    return LOOPS_COMMAND in arguments and state not in NOT_RUNNING and threads > 1


CHECKS: dict[str, Callable[[], bool]] = {"web": web_is_ready, "loops": loops_run}


def main() -> int:
    """Return the exit code that the container engine wants: 0 healthy, 1 not."""
    return 0 if CHECKS[os.environ.get("HEALTHCHECK", "web")]() else 1


if __name__ == "__main__":
    sys.exit(main())
