"""What is left of a ticket follows inventory's events, in whatever order they come."""

from __future__ import annotations

import random
import time
from functools import partial

import pytest
from django.db import transaction

from common.events.inbox import Consumer, apply_event
from common.events.models import InboxEvent
from common.events.redis_streams import RedisStreams
from common.events.transport import stream_name
from common.ids import uuid7
from services.catalog.availability import apply_stock_changed
from services.catalog.models import Availability
from tests.common.concurrency import together

pytestmark = pytest.mark.django_db(transaction=True)


def stock_changed(ticket_id: int, version: int, available: int) -> dict:
    """Return an event as inventory's relay sends it."""
    data = {"ticket_id": ticket_id, "total": 100, "available": available, "reserved": 0}
    return {
        "id": str(uuid7()),
        "source": "/flashsale/inventory",
        "type": "stock.changed",
        "data": {**data, "sold": 100 - available, "version": version},
    }


def known(ticket_id: int) -> tuple[int, int]:
    row = Availability.objects.get(ticket_id=ticket_id)
    return row.version, row.available


def test_shuffled_and_doubled_events_end_at_the_newest():
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    shuffle = random.Random(seed)
    for ticket_id in range(1, 6):
        events = [stock_changed(ticket_id, version, 100 - version) for version in range(1, 21)] * 2
        shuffle.shuffle(events)
        newest = 0
        for event in events:
            apply_event(event)
            newest = max(newest, event["data"]["version"])
            assert known(ticket_id) == (newest, 100 - newest)


def test_an_event_is_applied_once():
    event = stock_changed(1, 1, 50)
    assert apply_event(event) is True
    assert apply_event(event) is False
    assert InboxEvent.objects.count() == 1


def test_consumers_at_once_end_at_the_newest():
    versions = random.sample(range(1, 13), 12)
    events = [stock_changed(1, version, version) for version in versions]
    together(*(partial(apply_event, event) for event in events))
    assert known(1) == (12, 12)


def test_a_stock_without_a_ticket_is_remembered_until_the_ticket_comes(admin, anyone, show):
    event = show(tickets=0)
    first = admin.create_ticket(event["id"]).expect(201)["id"]
    apply_event(stock_changed(first + 1, 1, 9))
    second = admin.create_ticket(event["id"]).expect(201)
    assert (second["id"], second["available"]) == (first + 1, 9)


@pytest.mark.parametrize("field", ["ticket_id", "available", "version"])
@pytest.mark.parametrize("value", [-1, None, "x", [], {}])
def test_a_nonsensical_event_changes_nothing(field, value):
    apply_event(stock_changed(1, 1, 5))
    event = stock_changed(1, 2, 3)
    event["data"][field] = value
    with pytest.raises((ValueError, TypeError)):
        apply_event(event)
    assert known(1) == (1, 5)
    assert InboxEvent.objects.count() == 1


def test_every_answer_follows_an_event_at_once(anyone, show):
    event = show()
    ticket_id = event["tickets"][0]["id"]
    for version, available in ((1, 10), (2, 3), (3, 0), (4, 8)):
        apply_event(stock_changed(ticket_id, version, available))
        assert anyone.availability(ticket_id).body["available"] == available
        assert anyone.availability(ticket_id).body["sold_out"] is (available == 0)
        assert anyone.ticket(ticket_id).body["available"] == available
        assert anyone.event(event["id"]).body["tickets"][0]["available"] == available
        assert anyone.list().body["results"][0]["tickets"][0]["available"] == available


def test_a_late_event_never_shows_an_older_number(anyone, show):
    ticket_id = show()["tickets"][0]["id"]
    apply_event(stock_changed(ticket_id, 5, 2))
    apply_event(stock_changed(ticket_id, 4, 90))
    assert anyone.availability(ticket_id).body["available"] == 2


def test_an_event_that_is_rolled_back_is_never_shown(anyone, show):
    ticket_id = show()["tickets"][0]["id"]
    apply_event(stock_changed(ticket_id, 1, 10))

    def dies() -> None:
        with transaction.atomic():
            apply_stock_changed(stock_changed(ticket_id, 2, 99)["data"], {})
            raise RuntimeError("the consumer dies here")

    with pytest.raises(RuntimeError):
        dies()
    assert anyone.availability(ticket_id).body["available"] == 10


def test_a_number_that_changed_behind_the_cache_is_seen_within_two_seconds(anyone, show):
    ticket_id = show()["tickets"][0]["id"]
    apply_event(stock_changed(ticket_id, 1, 10))
    assert anyone.ticket(ticket_id).body["available"] == 10
    # As if the consumer had died between its commit and the cache.
    Availability.objects.filter(ticket_id=ticket_id).update(available=4, version=2)
    deadline = time.monotonic() + 2
    while anyone.availability(ticket_id).body["available"] != 4:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_events_arrive_through_the_stream(anyone, show):
    ticket_id = show()["tickets"][0]["id"]
    transport = RedisStreams()
    transport._redis.delete(stream_name("inventory"))
    transport.send(
        stream_name("inventory"),
        [stock_changed(ticket_id, 2, 40), stock_changed(ticket_id, 1, 50)],
    )
    consumer = Consumer(transport, "test")
    assert any(consumer.step() for _ in range(3))
    assert anyone.availability(ticket_id).body["available"] == 40
