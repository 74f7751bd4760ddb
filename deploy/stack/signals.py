"""What asks a command to stop: Ctrl-C, a terminal that closes, `down`, a CI that gives up."""

from __future__ import annotations

import signal
from types import FrameType

from deploy.stack.errors import Interrupted

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def raise_on_stop_signals() -> None:
    """Let a stop signal raise Interrupted in the main thread, so that `finally` blocks clean up."""

    def on_signal(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    for number in STOP_SIGNALS:
        signal.signal(number, on_signal)


def ignore_stop_signals() -> None:
    """While cleaning up: a second Ctrl-C must not leave half of it running."""
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
