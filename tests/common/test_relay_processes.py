"""Relays as processes: many share the work, and each aggregate's order outlives their deaths."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack

import pytest
from django.db import connections, transaction

from common.events.inbox import Consumer
from common.events.leases import holders
from common.events.models import OutboxEvent
from common.events.outbox import NewEvent, pending_count, publish_all
from common.events.relay import JOB
from tests.common.handlers import tallies
from tests.common.relay_process import RelayProcess

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("stream", "subscribed"),
]
STREAM = "flashsale:inventory"
LEASE_SECONDS = 1.5
AGGREGATES = 16
PATIENCE_SECONDS = 60.0


def wait(condition, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def publish(numbers):
    """Publish the next event of each aggregate: ``aggregate * 10_000 + number``."""
    for number in numbers:
        with transaction.atomic():
            publish_all(
                NewEvent("test", str(a), "test.happened", {"number": a * 10_000 + number})
                for a in range(AGGREGATES)
            )


def sent(stream):
    """Return the numbers in the stream, in its order."""
    return [json.loads(fields["event"])["data"]["number"] for _, fields in stream.xrange(STREAM)]


def prove_order(stream, count):
    """All is there, and each aggregate's events stand in order where they stand first."""
    numbers = dict.fromkeys(sent(stream))
    assert set(numbers) == {a * 10_000 + n for a in range(AGGREGATES) for n in range(count)}
    for aggregate in range(AGGREGATES):
        own = [number for number in numbers if number // 10_000 == aggregate]
        assert own == sorted(own)


def prove_applied(count):
    consumer = Consumer()
    while consumer.step():
        pass
    everything = {a * 10_000 + n for a in range(AGGREGATES) for n in range(count)}
    assert tallies() == dict.fromkeys(everything, 1)


def all_sent():
    return not pending_count()


def shares():
    return sorted(holders(JOB).values())


def test_relays_at_once_share_the_work_and_keep_the_order_though_some_die(stream):
    """Events happen all the time; one relay is killed, one ended, one comes as a stranger."""
    done = threading.Event()
    count = 0

    def happen():
        nonlocal count
        try:
            while not done.is_set():
                publish([count])
                count += 1
                time.sleep(0.1)
        finally:
            connections.close_all()

    happening = threading.Thread(target=happen, daemon=True)
    with ExitStack() as stack:
        first, second = (stack.enter_context(RelayProcess(LEASE_SECONDS)) for _ in range(2))
        happening.start()
        wait(lambda: shares() == [4, 4], "two relays do not share")
        first.kill()
        wait(lambda: shares() == [8], "a dead relay's partitions are not taken over")
        stack.enter_context(RelayProcess(LEASE_SECONDS))
        wait(lambda: shares() == [4, 4], "a newcomer gets no share")
        second.terminate()
        assert shares() in ([4], [8]), "who ends lets go at once"
        wait(lambda: shares() == [8], "who ends is not followed")
        done.set()
        happening.join(20)
        wait(all_sent, "events are not sent")
    assert count > 10
    prove_order(stream, count)
    prove_applied(count)


def test_a_relay_that_is_stopped_past_its_leases_and_goes_on_sends_only_doubles(stream):
    """It has picked events that others have sent when it comes to send them."""
    publish(range(3))
    with RelayProcess(LEASE_SECONDS, "stop") as stopped:
        stopped.wait_until_stopped()
        assert sent(stream) == []
        with RelayProcess(LEASE_SECONDS) as heir:
            wait(all_sent, "nobody takes over from a relay that is stopped")
            publish(range(3, 5))
            wait(all_sent, "the heir does not go on")
            before = sent(stream)
            stopped.go_on()
            wait(lambda: len(sent(stream)) > len(before), "the stopped one does not go on")
            publish(range(5, 7))
            wait(all_sent, "events are stuck")
            wait(lambda: shares() == [4, 4], "the stopped one does not take part again")
            heir.kill()
            publish(range(7, 8))
            wait(all_sent, "the stopped one does not take over")
    late = sent(stream)[len(before) :]
    assert set(late) & set(before), "what it sent late was sent before"
    assert OutboxEvent.objects.filter(published_at=None).count() == 0
    prove_order(stream, 8)
    prove_applied(8)
