"""Calls on a transport as its users make them: a cluster may elect a leader at any moment, and a
relay or a consumer then tries again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from common.events.transport import Message, Transport

T = TypeVar("T")
GROUP = "catalog"
INSIST_SECONDS_MAX = 20.0
PAUSE_SECONDS = 0.05


def insist(pipe: Transport, call: Callable[[], T], seconds: float = INSIST_SECONDS_MAX) -> T:
    """Call until the transport is not away."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            return call()
        except pipe.outages:
            if time.monotonic() > deadline:
                raise
            time.sleep(PAUSE_SECONDS)


def sent(pipe: Transport, stream: str, events: Sequence[dict[str, Any]], after: str = "") -> str:
    """Send as a relay does; return the last one's position."""
    return insist(pipe, lambda: pipe.send(stream, events, after=after))


def received(
    pipe: Transport,
    stream: str,
    count: int = 100,
    name: str = "c",
    seconds: float = 5.0,
    group: str = GROUP,
) -> list[Message]:
    """Return what comes until something does."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        messages = received_at_once(pipe, [stream], count, name, group)
        if messages:
            return messages
    return []


def received_at_once(
    pipe: Transport, streams: Sequence[str], count: int = 10, name: str = "c", group: str = GROUP
) -> list[Message]:
    """Look once as a consumer does, which rests during an outage."""
    try:
        return pipe.receive(streams, group, name, count)
    except pipe.outages:
        time.sleep(PAUSE_SECONDS)
        return []
