"""Named points at which the tests let a process die as a power cut would, without a last word.

A failpoint does nothing unless FAILPOINTS names a folder; there, a file of the point's name that
holds a number n lets the process die that comes to the point for the n-th time, and is then renamed
to ``<name>.hit``. Processes that share the folder count together. After libfiu and etcd's gofail.
"""

from __future__ import annotations

import fcntl
import os
import signal
from pathlib import Path

_folder = os.environ.get("FAILPOINTS")


def failpoint(name: str) -> None:
    """Mark a step boundary that a crash must not tear; costs one comparison in production."""
    if _folder is not None:
        _reached(Path(_folder) / name)


def _reached(armed: Path) -> None:
    try:
        with armed.open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            left = int(file.read() or 0) - 1
            if left < 0:
                return
            file.seek(0)
            file.truncate()
            file.write(str(left))
            file.flush()
            if left > 0:
                return
            armed.rename(armed.with_name(f"{armed.name}.hit"))
    except FileNotFoundError:
        return
    _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
