"""A storm of events, as a broken network would deliver them: through the real transport and the
real consumer, each of them five times, in no order, and some long after the newest."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from django.conf import settings

from common.events import transport
from common.events.inbox import Consumer
from common.events.models import InboxEvent
from common.events.transport import connect, stream_name
from common.ids import uuid7
from tests.common.concurrency import together

COPIES = 5
SETTLE_SECONDS_MAX = 60.0


def event(emitter: str, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """Return an event as another service's relay sends it."""
    return {
        "specversion": "1.0",
        "id": str(uuid7()),
        "source": f"/flashsale/{emitter}",
        "type": kind,
        "data": data,
    }


def rage(emitter: str, events: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the events, doubled, shuffled and late, to two consumers at once; return when both have
    dealt with all of it."""
    monkeypatch.setattr(transport, "BLOCK_MS", 20)
    monkeypatch.setattr(transport, "ABANDONED_AFTER_MS", 500)
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    dice = random.Random(seed)
    copies = events * COPIES
    dice.shuffle(copies)
    # Any of them may come once more when all else is over.
    late = dice.sample(events, len(events) // 4)
    pipe, stream = connect(), stream_name(emitter)
    pipe.send(stream, copies)

    def consume(name: str) -> None:
        consumer = Consumer(connect(), name)
        deadline = time.monotonic() + SETTLE_SECONDS_MAX
        while not _settled(stream):
            assert time.monotonic() < deadline, "the consumers do not come to an end"
            consumer.step()

    together(*(lambda name=name: consume(name) for name in ("first", "second")))
    pipe.send(stream, late)
    consume("first")
    assert InboxEvent.objects.filter(status=InboxEvent.Status.APPLIED).count() == len(events)


def _settled(stream: str) -> bool:
    left = connect().state(stream).groups.get(settings.SERVICE)
    return left is not None and not left.lag and not left.pending
