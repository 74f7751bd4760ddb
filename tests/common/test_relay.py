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
from common.events.models import PARTITIONS, InboxEvent, Lease, OutboxEvent
from common.events.outbox import RETENTION, partition_of, pending_count, publish, purge
from common.events.redis_streams import RedisStreams
from common.events.relay import Relay
from tests.common.concurrency import together
from tests.common.faults import losing_the_answer_to_a_commit
from tests.common.handlers import tallies

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stream")]
STREAM = "flashsale:inventory"
PARTITIONS_OF_STOCKS = [6, 0, 2, 4, 7, 1, 3, 5, 4, 2]


class Killed(BaseException):
    """What ends a process at a chosen point; no ``except Exception`` may outlive it."""


class KilledBeforeSending(RedisStreams):
    def send(self, stream, events, after=""):
        raise Killed


class KilledAfterSending(RedisStreams):
    def send(self, stream, events, after=""):
        super().send(stream, events, after)
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
    happen(*[1] * 7)
    relay = Relay()

    assert [relay.step() for _ in range(4)] == [3, 3, 1, 0]
    assert len(sent(stream)) == 7


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
    dead = RedisStreams("redis://127.0.0.1:1/0")
    with pytest.raises(redis.exceptions.ConnectionError):
        Relay(dead).step()

    assert pending_count() == 2
    Relay().step()
    assert sent(stream) == [1, 2]


def test_events_of_an_aggregate_lie_in_one_partition_for_ever(happen):
    happen(7, 8, 7)
    partitions = OutboxEvent.objects.order_by("seq").values_list("partition", flat=True)
    assert list(partitions) == [partition_of("test", name) for name in ("7", "8", "7")]
    # The numbers are in tables already: another hash would let new events overtake old ones.
    assert [partition_of("stock", str(number)) for number in range(10)] == PARTITIONS_OF_STOCKS


def test_a_partition_that_is_full_does_not_keep_the_others_waiting(stream, happen, monkeypatch):
    monkeypatch.setattr(relay_module, "BATCH_SIZE", 5)
    happen(*[1] * 100)
    hot = partition_of("test", "1")
    others = {number for number in range(2, 40) if partition_of("test", str(number)) != hot}
    happen(*others)
    relay = Relay()

    for _ in range(3 * PARTITIONS):
        relay.step()

    assert others <= set(sent(stream))
    assert OutboxEvent.objects.filter(published_at=None, aggregateid="1").exists()


def test_the_relay_finds_its_events_without_looking_at_those_of_the_past(happen):
    """One index serves it: with millions of published events the step costs the same."""
    happen(*range(20))
    OutboxEvent.objects.update(published_at=timezone.now())
    happen(*range(20))
    waiting = OutboxEvent.objects.filter(partition=3, published_at=None).order_by("seq")[:5]
    assert "outbox_partition" in waiting.explain()
    assert "filesort" not in waiting.explain()
    assert "TEMP B-TREE" not in waiting.explain()


def test_an_idle_step_costs_one_read(stream, happen, django_assert_num_queries):
    happen(1)
    relay = Relay()
    relay.step()
    relay.step()
    with django_assert_num_queries(1):
        assert relay.step() == 0


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


def test_the_relay_purges_in_pieces_until_nothing_old_is_left(stream, happen, monkeypatch):
    happen(*range(5))
    relay = Relay()
    relay.step()
    OutboxEvent.objects.update(published_at=timezone.now() - RETENTION - timedelta(minutes=1))
    monkeypatch.setattr(relay_module, "purge", lambda: purge(limit=2))
    monkeypatch.setattr(relay_module, "PURGE_INTERVAL_SECONDS", 0)
    left = []
    for _ in range(4):
        relay.step()
        left.append(OutboxEvent.objects.count())
    assert left == [3, 1, 0, 0]


@pytest.mark.usefixtures("subscribed")
def test_a_lost_answer_to_the_commit_of_a_mark_leaves_nothing_behind(stream, happen):
    happen(1, 2)
    relay = Relay()
    with losing_the_answer_to_a_commit(of_table="outbox_event") as lost:
        relay.step()
    assert lost
    while relay.step():
        pass
    happen(3)
    relay.step()
    assert pending_count() == 0
    Consumer().step()
    assert tallies() == {1: 1, 2: 1, 3: 1}


def test_the_command_does_one_step(stream, happen, monkeypatch):
    happen(1)
    Lease.objects.all().delete()
    output = StringIO()
    call_command("relay_outbox", "--once", stdout=output)
    assert output.getvalue().startswith("relay_outbox: ")
