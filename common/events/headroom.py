"""Headroom: how far a relay may run ahead of the slowest consumer.

A stream is cut at STREAM_LENGTH_MAX, whoever has read it or not. So relays wait, and the events in
the outbox, while a group has more than half of that left. Between two looks a relay sends at most
its part of a quarter: as many relays as there are partitions then stay below three quarters, and
the last one is for those whose partitions changed hands.
"""

from __future__ import annotations

import time

import structlog

from common.events import transport
from common.events.models import PARTITIONS
from common.events.subscribers import awaited, note_subscribers
from common.events.transport import StreamState, Transport

log = structlog.get_logger(__name__)

# Looked at so often although little is sent, so that subscribers are remembered.
LOOK_SECONDS = 60.0
WAIT_SECONDS = 1.0


class Headroom:
    """How many more events one relay may send."""

    def __init__(self) -> None:
        self._left = 0
        self._looked_at = float("-inf")
        self._in_the_way: dict[str, int] = {}

    def left(self, pipe: Transport, stream: str) -> int:
        """Return how many events may be sent now; 0 while a slow consumer is waited for."""
        since = time.monotonic() - self._looked_at
        if since >= LOOK_SECONDS or (
            self._left <= 0 and (not self._in_the_way or since >= WAIT_SECONDS)
        ):
            self._look(pipe, stream)
        return self._left

    def spend(self, count: int) -> None:
        """Take note of events that are about to be sent."""
        self._left -= count

    def _look(self, pipe: Transport, stream: str) -> None:
        state = pipe.state(stream)
        note_subscribers(stream, state)
        found = in_the_way(stream, state)
        if found and not self._in_the_way:
            log.warning("the relay waits for slow consumers", stream=stream, groups=found)
        elif self._in_the_way and not found:
            log.info("the relay goes on", stream=stream)
        self._left = 0 if found else max(1, transport.STREAM_LENGTH_MAX // 4 // PARTITIONS)
        self._in_the_way, self._looked_at = found, time.monotonic()


def in_the_way(stream: str, state: StreamState) -> dict[str, int]:
    """Return the groups that the relays wait for, and how many entries each may have left."""
    left = {
        # Who cannot say how far behind it is may be behind by all.
        name: state.length if one.lag is None else one.lag + one.pending
        for name, one in state.groups.items()
    }
    behind = {
        name: count for name, count in left.items() if count > transport.STREAM_LENGTH_MAX // 2
    }
    names = awaited(stream) if behind else set()
    return {name: count for name, count in behind.items() if name in names}
