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
_DIGITS_MAX = 12


def failpoint(name: str) -> None:
    """Mark a step boundary that a crash must not tear; costs one comparison in production."""
    if _folder is not None:
        _reached(Path(_folder) / name)


def _reached(armed: Path) -> None:
    try:
        with armed.open("r+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if not os.path.samestat(os.fstat(file.fileno()), armed.stat()):
                # Somebody has died here meanwhile, and the file bears his name or is another one.
                return
            left = int(file.read(_DIGITS_MAX)) - 1
            if left > 0:
                # At one stroke, as is the renaming: the process may be dying at another point.
                os.pwrite(file.fileno(), str(left).ljust(_DIGITS_MAX).encode(), 0)
                return
            armed.rename(armed.with_name(f"{armed.name}.hit"))
    except FileNotFoundError:
        return
    _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
