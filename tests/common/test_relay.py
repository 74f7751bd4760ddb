"""The relay: every fact of the outbox reaches the stream, at least once and in its order."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from io import StringIO
from uuid import uuid4

import pytest
import redis
from django.core.management import call_command
from django.db import connection, transaction
from django.utils import timezone

from common.events import relay as relay_module
from common.events.inbox import Consumer
from common.events.leases import hold_lease
from common.events.models import InboxEvent, Lease, OutboxEvent
from common.events.outbox import RETENTION, pending_count, publish, purge
from common.events.relay import Relay
from common.events.transport import StreamTransport
from tests.common.concurrency import together
from tests.common.handlers import tallies

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stream")]
STREAM = "flashsale:inventory"


class Killed(BaseException):
    """What ends a process at a chosen point; no ``except Exception`` may outlive it."""


class KilledBeforeSending(StreamTransport):
    def send(self, stream, events):
        raise Killed


class KilledAfterSending(StreamTransport):
    def send(self, stream, events):
        super().send(stream, events)
        raise Killed


def sent(stream):
    """Return the numbers in the stream, in its order."""
    return [json.loads(fields["event"])["data"]["number"] for _, fields in stream.xrange(STREAM)]


def test_facts_are_sent_in_their_order_and_marked(stream, happen):
    happen(3, 1, 2)

    assert Relay().step() == 3

    assert sent(stream) == [3, 1, 2]
    assert pending_count() == 0
    assert set(OutboxEvent.objects.values_list("attempts", flat=True)) == {1}
    assert Relay().step() == 0, "nothing is sent again"
    assert sent(stream) == [3, 1, 2]


def test_a_sent_event_is_the_one_of_the_outbox(stream, happen):
    happen(1, text="é\N{SNOWMAN}😀\x00\n", big=2**53, nested={"a": [None, True, 1.5]})
    Relay().step()

    (_, fields), *_ = stream.xrange(STREAM)
    assert json.loads(fields["event"]) == OutboxEvent.objects.get().payload


def test_a_full_outbox_is_sent_in_batches(stream, happen, monkeypatch):
    monkeypatch.setattr(relay_module, "BATCH_SIZE", 3)
    happen(*range(7))
    relay = Relay()

    assert [relay.step() for _ in range(4)] == [3, 3, 1, 0]
    assert sent(stream) == list(range(7))


def test_a_relay_killed_before_sending_loses_nothing(stream, happen):
    happen(1, 2)
    with pytest.raises(Killed):
        Relay(KilledBeforeSending()).step()

    assert (sent(stream), pending_count()) == ([], 2)
    Relay().step()
    assert sent(stream) == [1, 2]


@pytest.mark.usefixtures("subscribed")
def test_a_relay_killed_between_send_and_mark_doubles_events_that_are_applied_once(stream, happen):
    happen(1, 2)
    with pytest.raises(Killed):
        Relay(KilledAfterSending()).step()
    assert pending_count() == 2
    Relay().step()
    assert sent(stream) == [1, 2, 1, 2]

    Consumer().step()

    assert tallies() == {1: 1, 2: 1}


def test_without_redis_nothing_is_marked_and_later_all_is_sent(stream, happen):
    happen(1, 2)
    dead = StreamTransport("redis://127.0.0.1:1/0")
    with pytest.raises(redis.exceptions.ConnectionError):
        Relay(dead).step()

    assert pending_count() == 2
    Relay().step()
    assert sent(stream) == [1, 2]


@pytest.mark.usefixtures("subscribed")
def test_an_emptied_stream_is_noticed_and_filled_again(stream, happen, monkeypatch):
    monkeypatch.setattr(relay_module, "CHECK_INTERVAL_SECONDS", 0)
    happen(1, 2)
    relay = Relay()
    relay.step()
    Consumer().step()
    happen(3)
    relay.step()
    stream.flushdb()  # 3 was sent and never received

    relay.step()
    Consumer().step()

    assert sent(stream) == [1, 2, 3]
    assert tallies() == {1: 1, 2: 1, 3: 1}


@pytest.mark.usefixtures("subscribed")
def test_a_stream_emptied_under_load_is_filled_again_too(stream, happen):
    """The next event arrives before anybody looks, so that the stream is not empty any more."""
    happen(1, 2)
    relay = Relay()
    relay.step()
    stream.flushdb()
    happen(3)

    while relay.step():
        pass
    Consumer().step()

    assert set(sent(stream)) == {1, 2, 3}
    assert tallies() == {1: 1, 2: 1, 3: 1}


def test_what_is_older_than_the_retention_is_not_sent_again(stream, happen):
    happen(1, 2, 3)
    relay = Relay()
    relay.step()
    long_ago = timezone.now() - RETENTION - timedelta(minutes=1)
    first = OutboxEvent.objects.order_by("seq").first()
    OutboxEvent.objects.filter(pk=first.pk).update(published_at=long_ago)
    purge()
    stream.flushdb()

    Relay().step()

    assert sent(stream) == [2, 3]


def test_of_two_relays_one_works_and_the_other_takes_over(stream, happen):
    first, second = Relay(holder="first"), Relay(holder="second")
    happen(1)
    assert first.step() == 1
    happen(2)
    assert second.step() == 0, "the first one holds the lease"

    Lease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert second.step() == 1
    assert sent(stream) == [1, 2]


def test_two_relays_at_once_send_each_event_once_and_in_order(stream, happen):
    happen(*range(60))

    def work(holder):
        relay = Relay(holder=holder)
        while pending_count():
            relay.step()

    together(*(lambda holder=holder: work(holder) for holder in ("first", "second", "third")))

    assert sent(stream) == list(range(60))


def test_a_lease_is_held_by_one_renewed_by_it_and_free_when_it_ends():
    assert hold_lease("relay", "first", 10)
    assert hold_lease("relay", "first", 10), "renewed"
    assert not hold_lease("relay", "second", 10)
    assert hold_lease("another", "second", 10)
    Lease.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    assert hold_lease("relay", "second", 10)
    assert not hold_lease("relay", "first", 10)


@pytest.mark.parametrize("state", ["free", "expired"])
def test_a_lease_wanted_by_many_at_once_goes_to_one(state):
    if state == "expired":
        hold_lease("relay", "old", -1)

    held = together(*(lambda n=n: hold_lease("relay", f"h{n}", 10) for n in range(8)))

    assert held.count(True) == 1
    assert Lease.objects.get().holder == f"h{held.index(True)}"


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="SQLite has one writer at a time")
def test_an_event_that_commits_late_is_not_passed_over(stream, happen):
    """Its seq is lower than one that was sent already."""
    assert connection.vendor == "mysql"
    written, may_commit = threading.Event(), threading.Event()

    def slow():
        with transaction.atomic():
            publish(aggregate_type="t", aggregate_id="1", event_type="e", data={"number": 1})
            written.set()
            assert may_commit.wait(10)

    def overtake():
        assert written.wait(10)
        happen(2)
        Relay(holder="r").step()
        may_commit.set()

    together(slow, overtake)
    Relay(holder="r").step()

    assert sent(stream) == [2, 1]


def test_an_event_is_published_only_with_its_transaction(happen):
    with pytest.raises(RuntimeError, match="inside the transaction"):
        publish(aggregate_type="t", aggregate_id="1", event_type="e", data={})
    with transaction.atomic():
        publish(aggregate_type="t", aggregate_id="1", event_type="e", data={})
        transaction.set_rollback(True)
    assert pending_count() == 0


def test_the_purge_takes_what_is_old_and_done_and_nothing_else(happen):
    happen(1, 2, 3)
    old = timezone.now() - RETENTION - timedelta(minutes=1)
    done, *_ = OutboxEvent.objects.order_by("seq")
    OutboxEvent.objects.filter(pk=done.pk).update(published_at=old)
    OutboxEvent.objects.exclude(pk=done.pk).update(created_at=old)
    for status in InboxEvent.Status:
        InboxEvent.objects.create(id=uuid4(), type="t", status=status)
        InboxEvent.objects.create(id=uuid4(), type="t", status=status)
    stale = [InboxEvent.objects.filter(status=status).first().pk for status in InboxEvent.Status]
    InboxEvent.objects.filter(pk__in=stale).update(received_at=old)

    assert purge() == 2

    assert pending_count() == 2, "what was never sent stays, however old"
    assert InboxEvent.objects.filter(status="PARKED").count() == 2, "a person has to look at these"
    assert InboxEvent.objects.filter(status="APPLIED").count() == 1


def test_the_command_does_one_step(stream, happen, monkeypatch):
    happen(1)
    Lease.objects.all().delete()
    output = StringIO()
    call_command("relay_outbox", "--once", stdout=output)
    assert output.getvalue().startswith("relay_outbox: ")
