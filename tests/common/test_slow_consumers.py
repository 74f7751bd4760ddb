"""A relay does not run away from its consumers: what one of them has left, no stream drops."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from django.utils import timezone
from structlog.testing import capture_logs

from common.events import headroom
from common.events import relay as relay_module
from common.events import transport as transport_module
from common.events.models import PARTITIONS, OutboxEvent, Subscriber
from common.events.outbox import RETENTION, NewEvent, pending_count, publish_all
from common.events.redis_streams import RedisStreams
from common.events.relay import Relay
from common.transactions import in_transaction

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stream", "small")]
STREAM = "flashsale:inventory"
LENGTH_MAX = 320
MORE_THAN_FITS = 600


@pytest.fixture
def small(monkeypatch):
    """Let streams be short, and relays look after them in every step."""
    monkeypatch.setattr(transport_module, "STREAM_LENGTH_MAX", LENGTH_MAX)
    monkeypatch.setattr(relay_module, "CHECK_INTERVAL_SECONDS", -1)
    monkeypatch.setattr(headroom, "WAIT_SECONDS", 0)


class Reader:
    """Another service's consumer, which reads when it is told to."""

    def __init__(self, group="slow"):
        self._pipe, self._group, self.found = RedisStreams(), group, set()

    def read(self):
        """Read all there is."""
        while messages := self._pipe.receive([STREAM], self._group, "one", 100):
            for message in messages:
                self.found.add(message.event["data"]["number"])
                self._pipe.acknowledge(message, self._group)


def happen(numbers):
    events = [NewEvent("test", str(n), "test.happened", {"number": n}) for n in numbers]
    in_transaction(lambda: publish_all(events))


def work(*relays):
    """Let the relays work until none of them can do more; with all leases, if there is one."""
    while sum(relay.step() for relay in relays):
        pass


def finish(reader, *relays):
    """Let the consumer read and the relays send by turns until all is sent and read."""
    for _ in range(LENGTH_MAX):
        reader.read()
        work(*relays)
        if not pending_count():
            break
    assert not pending_count(), "events are stuck"
    reader.read()


def successor(relay):
    """Return a relay in the place of one whose process ended."""
    relay.close()
    return Relay(holder="successor")


def test_what_happens_while_a_consumer_is_away_waits_for_it(stream):
    relay, reader = Relay(), Reader()
    happen([0])
    work(relay)
    reader.read()
    happen(range(1, MORE_THAN_FITS))

    work(relay)

    assert LENGTH_MAX / 2 < stream.xlen(STREAM) < LENGTH_MAX
    assert pending_count(), "the rest waits in the outbox"
    finish(reader, relay)
    assert reader.found == set(range(MORE_THAN_FITS))


def test_a_refill_longer_than_the_stream_loses_nothing_that_nobody_received(stream):
    """The newest event was sent and not received; the consumer is away for all of the refill, and
    the relay is a new process, which has never seen it."""
    relay, reader = Relay(), Reader()
    for start in range(0, MORE_THAN_FITS, 100):
        happen(range(start, start + 100))
        work(relay)
        reader.read()
    happen([MORE_THAN_FITS])
    work(relay)
    stream.flushdb()
    reader.found.clear()

    relay = successor(relay)
    work(relay)

    assert pending_count(), "it waits for who was there before the loss"
    finish(reader, relay)
    assert reader.found == set(range(MORE_THAN_FITS + 1))


def test_many_relays_together_do_not_send_more_than_the_stream_holds(stream):
    class Part:
        def __init__(self, number):
            self.held = lambda: (number,)

    relays = [Relay(holder=str(number)) for number in range(PARTITIONS)]
    for number, relay in enumerate(relays):
        relay._shares = Part(number)
    reader = Reader()
    happen([0])
    work(*relays)
    reader.read()
    happen(range(1, MORE_THAN_FITS))

    work(*relays)

    assert stream.xlen(STREAM) <= LENGTH_MAX
    finish(reader, *relays)
    assert reader.found == set(range(MORE_THAN_FITS))


def test_a_group_that_nobody_reads_any_more_is_not_waited_for_longer_than_the_retention(stream):
    relay = Relay()
    happen([0])
    work(relay)
    stream.xgroup_create(STREAM, "removed", id="0")
    happen(range(1, MORE_THAN_FITS))
    work(relay)
    assert pending_count(), "it may come back"

    Subscriber.objects.update(seen_at=timezone.now() - RETENTION - timedelta(minutes=1))
    work(relay)

    assert not pending_count()


def test_a_group_whose_consumer_asks_is_waited_for_however_long_it_was_away(stream):
    relay, reader = Relay(), Reader()
    happen([0])
    work(relay)
    reader.read()
    Subscriber.objects.update(seen_at=timezone.now() - RETENTION - timedelta(minutes=1))
    happen(range(1, MORE_THAN_FITS))

    work(relay)

    assert pending_count()
    finish(reader, relay)
    assert reader.found == set(range(MORE_THAN_FITS))


def test_a_group_that_an_operator_destroys_is_not_waited_for(stream):
    relay = Relay()
    happen([0])
    work(relay)
    stream.xgroup_create(STREAM, "removed", id="0")
    happen(range(1, MORE_THAN_FITS))
    work(relay)
    assert pending_count()

    stream.xgroup_destroy(STREAM, "removed")
    work(relay)

    assert not pending_count()


def test_a_group_that_cannot_say_how_far_behind_it_is_may_be_behind_by_all(stream):
    """Redis does not know when entries after the group's last one were deleted."""
    relay, reader = Relay(), Reader()
    happen([0])
    work(relay)
    reader.read()
    happen(range(1, LENGTH_MAX // 2))
    work(relay)
    entry_id, fields = stream.xrange(STREAM)[5]
    stream.xdel(STREAM, entry_id)
    assert RedisStreams().state(STREAM).groups["slow"].lag is None
    happen(range(LENGTH_MAX // 2, MORE_THAN_FITS))

    work(relay)

    assert pending_count()
    finish(reader, relay)
    deleted = json.loads(fields["event"])["data"]["number"]
    assert reader.found == set(range(MORE_THAN_FITS)) - {deleted}


def test_looking_after_the_consumers_costs_nothing_in_most_steps(stream, monkeypatch):
    monkeypatch.setattr(transport_module, "STREAM_LENGTH_MAX", 100_000)
    looks = []

    class Counting(RedisStreams):
        def state(self, name):
            looks.append(name)
            return super().state(name)

    relay = Relay(Counting())
    happen(range(MORE_THAN_FITS))
    work(relay)
    assert OutboxEvent.objects.exclude(published_at=None).count() == MORE_THAN_FITS
    assert len(looks) == 1


def test_that_a_relay_waits_and_for_whom_is_logged_once_and_shown(stream, client):
    relay, reader = Relay(), Reader()
    happen([0])
    work(relay)
    reader.read()
    shown = f'flashsale_relay_waiting{{group="slow",stream="{STREAM}"}}'
    assert f"{shown} 0.0" in client.get("/metrics").content.decode()
    happen(range(1, MORE_THAN_FITS))

    with capture_logs() as logs:
        for _ in range(MORE_THAN_FITS):
            relay.step()
    assert [line["groups"].keys() for line in logs if "waits" in line["event"]] == [{"slow"}]
    assert f"{shown} 1.0" in client.get("/metrics").content.decode()

    with capture_logs() as logs:
        finish(reader, relay)
    assert any("goes on" in line["event"] for line in logs)
