"""A JetStream cluster loses servers while events flow: none is lost, each keeps its place."""

from __future__ import annotations

import random
import threading
import time
from collections import defaultdict
from contextlib import contextmanager
from functools import partial

import pytest
from django.db import connection, connections, transaction

from common import loops
from common.events import headroom
from common.events import relay as relay_module
from common.events import transport as transport_module
from common.events.inbox import Consumer
from common.events.jetstream import JetStream
from common.events.models import OutboxEvent
from common.events.outbox import NewEvent, pending_count, publish_all
from common.events.relay import Relay
from common.loops import Loop, run_loop
from tests.common.handlers import tallies
from tests.common.nats_cluster import running_cluster
from tests.common.patience import insist, received, received_at_once, sent

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("subscribed"),
    pytest.mark.skipif(connection.vendor == "mysql", reason="the database plays no part"),
]
STREAM, NAME = "flashsale:inventory", "flashsale-inventory"
AGGREGATES = 12
PATIENCE_SECONDS = 60.0


@pytest.fixture
def cluster(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(transport_module, "BLOCK_MS", 300)
    monkeypatch.setattr(transport_module, "ABANDONED_AFTER_MS", 1_000)
    monkeypatch.setattr(loops, "BACKOFF_SECONDS_MAX", 0.3)
    with running_cluster(tmp_path) as servers:
        settings.EVENT_TRANSPORT = servers.url
        yield servers


class Flow:
    """Events of many aggregates happen all the time, and a relay and a consumer pass them on."""

    def __init__(self, url: str) -> None:
        self._pipes = [JetStream(url, 0.5) for _ in range(2)]
        self._stop = threading.Event()
        self._happened: dict[int, int] = defaultdict(int)
        self._random = random.Random(1)
        relay, consumer = Relay(self._pipes[0], "relay"), Consumer(self._pipes[1], "consumer")
        loops = [
            Loop("happen", self._happen, interval_seconds=0.01),
            Loop("relay", relay.step, interval_seconds=0.02),
            Loop("consumer", consumer.step, interval_seconds=0.02),
        ]
        self._threads = [
            threading.Thread(target=run_loop, args=(loop, self._stop), daemon=True)
            for loop in loops
        ]
        self._happening = True

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)
        for pipe in self._pipes:
            pipe.close()

    def wait_for(self, more: int) -> None:
        """Wait until so many more events than now are applied."""
        enough = len(tallies()) + more
        self._wait(lambda: len(tallies()) >= enough)

    def finish(self) -> set[int]:
        """Let nothing more happen; return the events once all of them are applied."""
        self._happening = False
        happened = {
            aggregate * 10_000 + number
            for aggregate, count in self._happened.items()
            for number in range(count)
        }
        self._wait(lambda: not pending_count() and len(tallies()) >= len(happened))
        return happened

    def _happen(self) -> int:
        if self._happening:
            events = []
            for _ in range(3):
                aggregate = self._random.randrange(AGGREGATES)
                number = aggregate * 10_000 + self._happened[aggregate]
                self._happened[aggregate] += 1
                events.append(NewEvent("test", str(aggregate), "test.happened", {"number": number}))
            with transaction.atomic():
                publish_all(events)
        return 0

    def _wait(self, condition) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "events are stuck"
            time.sleep(0.05)


@contextmanager
def flowing(cluster):
    flow = Flow(cluster.url)
    flow.start()
    try:
        yield flow
    finally:
        flow.stop()
        connections.close_all()


def in_the_stream(cluster):
    """Return every entry's event, as a group that begins now sees them."""
    pipe = JetStream(cluster.url, 5.0)
    try:
        found = {}
        length = insist(pipe, lambda: pipe.state(STREAM)).length
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(found) < length:
            assert time.monotonic() < deadline, "the stream cannot be read"
            for message in received_at_once(pipe, [STREAM], 500, group="reader"):
                # Not acknowledged in time, it comes once more.
                found.setdefault(message.message_id, message.event)
                insist(pipe, partial(pipe.acknowledge, message, "reader"))
        return [found[number] for number in sorted(found, key=int)]
    finally:
        pipe.close()


def prove_that_all_arrived(cluster, happened):
    """Each event was applied once; in the stream the events of an aggregate stand in order."""
    assert tallies() == dict.fromkeys(happened, 1)
    assert not OutboxEvent.objects.filter(published_at=None).exists()
    numbers = [event["data"]["number"] for event in in_the_stream(cluster)]
    assert set(numbers) == happened
    for aggregate in range(AGGREGATES):
        own = dict.fromkeys(number for number in numbers if number // 10_000 == aggregate)
        assert list(own) == sorted(own), "the first time that each was sent"


def test_the_stream_has_three_copies_and_survives_the_death_of_its_leader(cluster):
    with flowing(cluster) as flow:
        flow.wait_for(60)
        leader = cluster.leader(NAME)
        leader.kill()
        flow.wait_for(60)
        assert cluster.leader(NAME) is not leader, "the others go on without it"
        leader.start()
        cluster.wait_ready()
        flow.wait_for(30)
        happened = flow.finish()
    prove_that_all_arrived(cluster, happened)


def test_nothing_is_lost_when_all_servers_die_and_come_back(cluster):
    with flowing(cluster) as flow:
        flow.wait_for(60)
        for server in cluster.servers:
            server.kill()
        time.sleep(0.5)
        cluster.start()
        flow.wait_for(60)
        happened = flow.finish()
    prove_that_all_arrived(cluster, happened)


def test_a_batch_that_is_sent_twice_is_recognised_by_its_ids(cluster):
    pipe = JetStream(cluster.url, 5.0)
    events = [
        {"id": f"0190b7a0-0000-7000-8000-{number:012d}", "subject": str(number % 3)}
        for number in range(9)
    ]
    first = sent(pipe, STREAM, events)
    assert sent(pipe, STREAM, events) == first
    assert insist(pipe, lambda: pipe.state(STREAM)).length == 9
    pipe.close()


def test_a_stream_that_is_deleted_is_made_anew_and_filled_again(cluster):
    """By relay and consumer alike, which both knew the old one."""
    with flowing(cluster) as flow:
        flow.wait_for(30)
        delete_stream(cluster)
        flow.wait_for(30)
        happened = flow.finish()
    assert tallies() == dict.fromkeys(happened, 1)


def test_a_refill_waits_for_who_read_the_stream_before_it_was_lost(cluster, monkeypatch):
    """The stream is shorter than the refill, and the consumer is away until the relay rests."""
    monkeypatch.setattr(transport_module, "STREAM_LENGTH_MAX", 320)
    monkeypatch.setattr(headroom, "WAIT_SECONDS", 0)
    monkeypatch.setattr(relay_module, "CHECK_INTERVAL_SECONDS", -1)
    relay_pipe, reader = JetStream(cluster.url, 5.0), JetStream(cluster.url, 5.0)
    relay = Relay(relay_pipe)
    found = set()

    def read():
        while messages := received(reader, STREAM, group="slow", seconds=0.4):
            found.update(message.event["data"]["number"] for message in messages)
            for message in messages:
                insist(reader, partial(reader.acknowledge, message, "slow"))

    def work():
        # The first step after the loss finds out that the stream has to be made.
        while insist(relay_pipe, relay.step):
            pass

    def happen(numbers):
        with transaction.atomic():
            publish_all(NewEvent("test", str(n), "test.happened", {"number": n}) for n in numbers)

    for start in range(0, 450, 150):
        happen(range(start, start + 150))
        work()
        read()
    delete_stream(cluster)
    found.clear()

    work()
    assert pending_count(), "it waits for who was there before the loss"
    deadline = time.monotonic() + PATIENCE_SECONDS
    while found != set(range(450)):
        assert time.monotonic() < deadline, "events are lost"
        read()
        work()
    relay_pipe.close()
    reader.close()


def delete_stream(cluster):
    from common.events.jetstream import _run

    pipe = JetStream(cluster.url, 5.0)

    async def delete():
        await (await pipe._context()).delete_stream(NAME)

    insist(pipe, lambda: _run(delete()))
    pipe.close()
