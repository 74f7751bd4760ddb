"""The catalog's projection ends in inventory's newest state, however its events come."""

from __future__ import annotations

import pytest

from common.events.redis_streams import RedisStreams
from common.events.transport import stream_name
from services.catalog.models import Availability
from tests.common import event_storm

pytestmark = pytest.mark.django_db(transaction=True)
TICKETS, VERSIONS = 6, 20


def test_a_storm_of_doubled_shuffled_and_late_events_ends_in_the_newest_stock(monkeypatch):
    RedisStreams()._redis.delete(stream_name("inventory"))
    events = [
        event_storm.event(
            "inventory",
            "stock.changed",
            {"ticket_id": ticket_id, "version": version, "available": 1000 - version},
        )
        for ticket_id in range(1, TICKETS + 1)
        for version in range(1, VERSIONS + ticket_id)
    ]

    event_storm.rage("inventory", events, monkeypatch)

    known = Availability.objects.values_list("ticket_id", "version", "available")
    newest = {ticket_id: VERSIONS + ticket_id - 1 for ticket_id in range(1, TICKETS + 1)}
    assert set(known) == {(t, version, 1000 - version) for t, version in newest.items()}
