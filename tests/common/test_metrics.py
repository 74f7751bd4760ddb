"""Metrics: each figure is the one that is meant, and what is away takes no other with it."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from common.events import metrics as event_metrics
from common.events.inbox import Consumer, park_event
from common.events.models import OutboxEvent
from common.events.redis_streams import RedisStreams
from common.events.relay import Relay
from tests.common.faults import database_away

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("stream")]
STREAM = "flashsale:inventory"


def name_of(sample):
    return sample.name.removeprefix("flashsale_")


@pytest.fixture
def scrape(client):
    """Return what reads /metrics: {(name, values of the labels in their alphabet…): value}."""

    def read():
        response = client.get("/metrics")
        assert response.status_code == 200
        assert response["Content-Type"].startswith("text/plain; version=")
        return {
            (name_of(sample), *(value for _, value in sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(response.content.decode())
            for sample in family.samples
        }

    return read


def test_what_waits_to_be_published_and_for_how_long(scrape, happen):
    assert scrape()["outbox_pending",] == scrape()["outbox_oldest_pending_seconds",] == 0
    happen(1, 2, 3)
    oldest = OutboxEvent.objects.order_by("seq").first()
    OutboxEvent.objects.filter(pk=oldest.pk).update(
        created_at=timezone.now() - timedelta(seconds=90)
    )
    found = scrape()
    assert found["outbox_pending",] == 3
    assert 90 <= found["outbox_oldest_pending_seconds",] < 120
    Relay().step()
    assert scrape()["outbox_pending",] == 0


def test_an_event_of_the_future_is_not_younger_than_nothing(scrape, happen):
    happen(1)
    OutboxEvent.objects.update(created_at=timezone.now() + timedelta(minutes=5))
    assert scrape()["outbox_oldest_pending_seconds",] == 0


def test_a_backlog_is_counted_up_to_a_limit(scrape, happen, monkeypatch):
    monkeypatch.setattr(event_metrics, "COUNTED_MAX", 2)
    happen(1, 2, 3)
    assert scrape()["outbox_pending",] == 2


@pytest.mark.usefixtures("subscribed")
def test_what_was_applied_and_what_is_parked(scrape, happen):
    happen(*range(20))
    Relay().step()
    Consumer().step()
    park_event({"id": "0" * 32, "type": "t"}, "broken")
    found = scrape()
    assert found["inbox_applied_per_second",] == 20 / event_metrics.RATE_SECONDS
    assert found["inbox_parked",] == 1


@pytest.mark.usefixtures("subscribed")
def test_how_long_the_stream_is_and_how_far_behind_its_groups_are(scrape, happen, monkeypatch):
    assert scrape()["stream_length", STREAM] == 0
    monkeypatch.setattr("common.events.inbox.BATCH_SIZE", 2)
    happen(1, 2, 3, 4, 5)
    Relay().step()
    Consumer().step()
    RedisStreams().receive([STREAM], "inventory", "slow", 1)
    found = scrape()
    assert found["stream_length", STREAM] == 5
    assert found["stream_group_lag", "inventory", STREAM] == 2
    assert found["stream_group_pending", "inventory", STREAM] == 1


def test_which_relay_sends_how_many_partitions(scrape, happen):
    happen(1)
    Relay(holder="one").step()
    Relay(holder="two").step()
    found = scrape()
    assert (found["relay_partitions", "one"], found["relay_partitions", "two"]) == (8, 0)


def test_a_dead_redis_leaves_its_own_figures_out(scrape, happen, monkeypatch):
    assert scrape()["event_transport_up",] == 1
    happen(1)
    dead = RedisStreams("redis://127.0.0.1:1/0", event_metrics.PATIENCE_SECONDS)
    monkeypatch.setattr(event_metrics, "_transport", lambda: dead)
    started = time.monotonic()
    found = scrape()
    assert time.monotonic() - started < 1
    assert found["event_transport_up",] == 0
    assert not [name for name, *_ in found if name.startswith("stream_")]
    assert (found["database_up",], found["outbox_pending",]) == (1, 1)


def test_a_dead_database_leaves_its_own_figures_out(scrape):
    with database_away():
        found = scrape()
    assert found["database_up",] == 0
    assert not [name for name, *_ in found if name.startswith(("outbox", "inbox", "relay"))]
    assert found["event_transport_up",] == 1


def test_a_scrape_asks_little_of_the_database(scrape, happen, django_assert_max_num_queries):
    happen(*range(30))
    with django_assert_max_num_queries(16):
        scrape()


def test_the_count_of_the_parked_is_served_by_an_index():
    plan = event_metrics.parked_events().explain()
    assert "inbox_status" in plan
