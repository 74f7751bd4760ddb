"""Set-up of the tests of shared code; some project is needed, so they run in inventory's."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import hypothesis
import pytest
import redis
from django.conf import settings as django_settings
from django.db import transaction

from common.events import transport
from common.events.outbox import publish

# A busy machine is no reason to fail, and what was found is printed: nothing to keep on disk.
hypothesis.settings.register_profile("ours", deadline=None, database=None)
hypothesis.settings.load_profile("ours")


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> Iterator[redis.Redis]:
    """Return a client of the streams' Redis, empty; waits are short and nobody is patient."""
    monkeypatch.setattr(transport, "BLOCK_MS", 20)
    monkeypatch.setattr(transport, "ABANDONED_AFTER_MS", 0)
    client = redis.Redis.from_url(django_settings.STREAM_URL, decode_responses=True)
    client.flushdb()
    yield client
    client.flushdb()
    client.close()


@pytest.fixture
def subscribed(settings: object) -> None:
    """Let this service listen to itself: its ``test.happened`` events are tallied."""
    settings.EVENT_SUBSCRIPTIONS = {  # type: ignore[attr-defined]
        "inventory": {"test.happened": "tests.common.handlers.tally"}
    }


@pytest.fixture
def happen() -> Callable[..., None]:
    """Return what publishes ``test.happened`` events, each in a transaction of its own."""

    def make(*numbers: int, **more: object) -> None:
        for number in numbers:
            with transaction.atomic():
                publish(
                    aggregate_type="test",
                    aggregate_id=str(number),
                    event_type="test.happened",
                    data={"number": number, **more},
                )

    return make
