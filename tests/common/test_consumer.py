"""The consumer: every event is applied exactly once, and a bad one stops nobody."""

from __future__ import annotations

import json
import random
import time
from uuid import uuid4

import pytest
from django.db import OperationalError

from common.events import inbox, redis_streams, transport
from common.events.inbox import Consumer, apply_event
from common.events.models import InboxEvent, OutboxEvent
from common.events.redis_streams import RedisStreams
from common.events.relay import Relay
from tests.common import handlers
from tests.common.concurrency import together
from tests.common.faults import losing_the_answer_to_a_commit
from tests.common.handlers import tallies

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("stream", "subscribed"),
]
STREAM = "flashsale:inventory"
GROUP = "inventory"


def event(number, **changes):
    """Return an event as another service's relay would send it."""
    return {
        "specversion": "1.0",
        "id": str(uuid4()),
        "source": "/flashsale/inventory",
        "type": "test.happened",
        "data": {"number": number},
        **changes,
    }


def send(*events):
    RedisStreams().send(STREAM, list(events))


def consume(consumer=None, steps=1):
    """Let a consumer take ``steps`` batches."""
    consumer = consumer or Consumer()
    for _ in range(steps):
        consumer.step()


def unacknowledged(stream):
    return stream.xpending(STREAM, GROUP)["pending"]


def test_an_event_is_applied_once_however_often_it_is_sent(stream):
    one, two = event(1), event(2)
    send(one, two, one)
    consume()
    send(two, one)
    consume()

    assert tallies() == {1: 1, 2: 1}
    assert InboxEvent.objects.count() == 2
    assert unacknowledged(stream) == 0


def test_doubled_and_shuffled_events_are_each_applied_once():
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    events = [event(number) for number in range(1, 41)] * 3
    random.Random(seed).shuffle(events)
    send(*events)

    consume(steps=3)

    assert tallies() == dict.fromkeys(range(1, 41), 1)


def test_the_order_of_the_stream_is_the_order_of_application(happen):
    handlers.order_of_application.clear()
    happen(*range(30))
    Relay().step()
    consume()
    assert handlers.order_of_application == list(range(30))


def test_a_consumer_that_starts_late_gets_what_was_sent_before(happen):
    happen(1, 2)
    Relay().step()
    consume()
    assert tallies() == {1: 1, 2: 1}


def test_a_handler_that_fails_once_is_tried_again(stream, monkeypatch):
    send(event(1), event(2))
    tally, failures = handlers.tally, iter([RuntimeError("once"), RuntimeError("twice")])

    def weak(data, one):
        tally(data, one)
        failure = next(failures, None) if data["number"] == 1 else None
        if failure:
            raise failure

    monkeypatch.setattr(handlers, "tally", weak)
    consume()
    assert tallies() == {2: 1}, "the failed one's effect was taken back"
    assert unacknowledged(stream) == 1

    consume()
    assert tallies() == {1: 1, 2: 1}
    assert unacknowledged(stream) == 0


def test_a_poison_event_is_parked_after_some_tries_and_the_others_go_on(stream, monkeypatch):
    monkeypatch.setattr(transport, "ABANDONED_AFTER_MS", 100)
    poison = event(13, data={"number": 13, "poison": True})
    send(event(1), poison, event(2))
    consumer, number = Consumer(), 100

    while not InboxEvent.objects.filter(status=InboxEvent.Status.PARKED):
        number += 1
        send(event(number))
        for _ in range(20):
            consumer.step()
            if number in tallies():
                break
        assert tallies()[number] == 1, "those behind it are applied meanwhile"
        assert number < 1_000, "it is not tried for ever"

    assert {1, 2} < tallies().keys()
    assert 13 not in tallies()
    parked = InboxEvent.objects.get(status=InboxEvent.Status.PARKED)
    assert (str(parked.id), parked.payload) == (poison["id"], poison)
    assert "number 13 is poison" in parked.error
    assert unacknowledged(stream) == 0, "it is not delivered again"


def test_a_parked_event_can_be_tried_again_when_the_cause_is_mended():
    poison = event(13, data={"number": 13, "poison": True})
    inbox.park_event(poison, "RuntimeError")

    assert apply_event({**poison, "data": {"number": 13}})
    assert tallies() == {13: 1}
    assert InboxEvent.objects.get().status == InboxEvent.Status.APPLIED
    assert not apply_event({**poison, "data": {"number": 13}})
    assert tallies() == {13: 1}


def test_an_event_that_another_consumer_applied_is_not_parked():
    one = event(1)
    apply_event(one)
    inbox.park_event(one, "too late")
    assert InboxEvent.objects.get().status == InboxEvent.Status.APPLIED
    assert not apply_event(one)
    assert tallies() == {1: 1}


UNREADABLE = {
    "not JSON": {"event": "{"},
    "no event": {"something": "else"},
    "broken text": {"event": b"\xff\xfe"},
    "a list": {"event": "[1]"},
    "null": {"event": "null"},
    "empty": {"event": "{}"},
    "no id": {"event": json.dumps({**event(7), "id": None})},
    "an id that is none": {"event": json.dumps(event(7, id="seven"))},
    "an id of another kind": {"event": json.dumps(event(7, id=[1]))},
    "no source": {"event": json.dumps(event(7, source=None))},
    "no data": {"event": json.dumps({k: v for k, v in event(7).items() if k != "data"})},
    "data that is none": {"event": json.dumps(event(7, data=[]))},
    "a type of another kind": {"event": json.dumps(event(7, type=["test.happened"]))},
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_a_message_that_makes_no_sense_stops_nobody(stream, kind):
    send(event(1))
    stream.xadd(STREAM, UNREADABLE[kind])
    send(event(2))

    consume(steps=inbox.DELIVERIES_MAX + 2)
    send(event(3))
    consume()

    assert tallies() == {1: 1, 2: 1, 3: 1}
    assert unacknowledged(stream) == 0


def test_an_unreadable_message_is_kept_for_a_person_to_look_at(stream):
    stream.xadd(STREAM, {"event": "{"})
    send(event(1))

    consume(steps=inbox.DELIVERIES_MAX + 2)

    parked = InboxEvent.objects.get(status=InboxEvent.Status.PARKED)
    assert "{" in json.dumps(parked.payload)


class DiesBeforeAcknowledging(RedisStreams):
    def acknowledge(self, message, group):
        raise SystemExit


def test_a_consumer_killed_after_its_commit_does_not_apply_twice(stream):
    send(event(1), event(2))
    with pytest.raises(SystemExit):
        Consumer(DiesBeforeAcknowledging(), name="dead").step()
    assert tallies() == {1: 1, 2: 1}
    assert unacknowledged(stream) == 2

    consume(Consumer(name="heir"))

    assert tallies() == {1: 1, 2: 1}
    assert unacknowledged(stream) == 0


def test_a_consumer_killed_before_its_commit_is_inherited(stream, monkeypatch):
    send(event(1), event(2))
    tally = handlers.tally

    def killed(data, one):
        tally(data, one)
        raise SystemExit

    monkeypatch.setattr(handlers, "tally", killed)
    with pytest.raises(SystemExit):
        Consumer(name="dead").step()
    assert (tallies(), InboxEvent.objects.count()) == ({}, 0), "effect and inbox row, or neither"

    monkeypatch.setattr(handlers, "tally", tally)
    consume(Consumer(name="heir"))

    assert tallies() == {1: 1, 2: 1}
    assert unacknowledged(stream) == 0


def test_a_lost_answer_to_commit_applies_nothing_twice():
    send(event(1), event(2))

    with losing_the_answer_to_a_commit(of_table="inbox_event") as lost:
        consume(steps=2)

    assert lost
    assert tallies() == {1: 1, 2: 1}


def test_two_consumers_at_once_apply_each_event_once(stream):
    """Without patience: they also take each other's messages over."""
    send(*(event(number) for number in range(1, 61)))
    consume(Consumer(name="maker"), steps=0)

    def work(name):
        consumer = Consumer(name=name)
        while len(tallies()) < 60:
            consumer.step()

    together(lambda: work("first"), lambda: work("second"))

    assert tallies() == dict.fromkeys(range(1, 61), 1)


def test_events_that_nobody_here_wants_are_passed_over(stream):
    send(event(1, type="something.else"), event(2, source="/flashsale/catalog"), event(3))
    consume()
    assert tallies() == {3: 1}
    assert InboxEvent.objects.count() == 1
    assert unacknowledged(stream) == 0


def test_a_stream_that_was_never_written_to_does_not_hide_the_others(settings):
    settings.EVENT_SUBSCRIPTIONS = {"catalog": {}, **settings.EVENT_SUBSCRIPTIONS}
    send(event(1))
    consume(steps=2)
    assert tallies() == {1: 1}


def test_an_event_stands_in_the_inbox_as_it_was_sent(happen):
    happen(1)
    Relay().step()
    consume()
    assert InboxEvent.objects.get().id == OutboxEvent.objects.get().id


def test_a_database_that_is_away_is_not_the_fault_of_an_event(stream, monkeypatch):
    sent = event(1)
    send(sent)
    consume()
    send(event(2), event(3))

    def away(event):
        raise OperationalError(2006, "Server has gone away")

    with monkeypatch.context() as outage:
        outage.setattr(inbox, "apply_event", away)
        outage.setattr(transport, "ABANDONED_AFTER_MS", 0)
        for _ in range(inbox.DELIVERIES_MAX + 2):
            with pytest.raises(OperationalError):
                consume()
    monkeypatch.setattr(transport, "ABANDONED_AFTER_MS", 0)
    consume(steps=2)

    assert not InboxEvent.objects.filter(status=InboxEvent.Status.PARKED).exists()
    assert unacknowledged(stream) == 0


def consumers(stream):
    return {row["name"] for row in stream.xinfo_consumers(STREAM, GROUP)}


def test_consumers_that_are_gone_and_owe_nothing_are_forgotten(stream, monkeypatch):
    send(event(1), event(2))
    consume(Consumer(name="gone"))
    send(event(3))
    monkeypatch.setattr(transport, "ABANDONED_AFTER_MS", 60_000)
    RedisStreams().receive([STREAM], GROUP, "owes", 1)
    assert consumers(stream) == {"gone", "owes"}
    monkeypatch.setattr(redis_streams, "FORGOTTEN_AFTER_MS", 50)
    time.sleep(0.1)

    here = Consumer(name="here")
    consume(here)

    assert consumers(stream) == {"owes", "here"}
    assert unacknowledged(stream) == 1, "what is owed can still be claimed"
    monkeypatch.setattr(transport, "ABANDONED_AFTER_MS", 0)
    consume(here)
    assert tallies() == {1: 1, 2: 1, 3: 1}


def test_tidying_a_stream_that_was_never_written_to_finds_nothing(stream):
    assert RedisStreams().tidy([STREAM], GROUP) == 0
    send(event(1))
    assert RedisStreams().tidy([STREAM], GROUP) == 0
