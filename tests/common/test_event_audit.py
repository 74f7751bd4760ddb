"""Events compared by sums: two services agree, or the ids that they disagree about are found."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from django.db import transaction
from django.utils import timezone

from common.events import audit as event_audit
from common.events.audit import event_facts, event_ids, window_at
from common.events.inbox import park_event
from common.events.models import InboxEvent, OutboxEvent
from common.events.outbox import RETENTION, publish
from common.ids import uuid7

pytestmark = pytest.mark.django_db(transaction=True)


def later(**distance):
    return window_at(timezone.now() + timedelta(**distance))


def emit(count=1):
    """Emit events; return their ids, oldest first."""
    before = set(OutboxEvent.objects.values_list("id", flat=True))
    with transaction.atomic():
        for number in range(count):
            publish(
                aggregate_type="test",
                aggregate_id=str(number),
                event_type="test.happened",
                data={"number": number},
            )
    new = OutboxEvent.objects.exclude(id__in=before).order_by("seq")
    return list(new.values_list("id", flat=True))


def deal_with(ids):
    InboxEvent.objects.bulk_create(InboxEvent(id=one, type="test.happened") for one in ids)


def sides(window):
    facts = event_facts(window)
    return facts["emitted"].get("test.happened"), facts["dealt_with"].get("test.happened")


def test_the_same_events_make_the_same_sums_in_any_order():
    ids = emit(50)
    random.SystemRandom().shuffle(ids)
    deal_with(ids)

    emitted, dealt_with = sides(later(minutes=1))

    assert emitted == dealt_with
    assert sum(count for count, _ in emitted.values()) == 50


@pytest.mark.parametrize("buckets", [1, 7, event_audit.BUCKETS])
def test_one_event_that_was_not_dealt_with_is_found_by_its_bucket(monkeypatch, buckets):
    monkeypatch.setattr(event_audit, "BUCKETS", buckets)
    lost, *ids = emit(50)
    deal_with(ids)
    window = later(minutes=1)

    emitted, dealt_with = sides(window)
    [bucket] = [n for n in emitted if emitted[n] != dealt_with.get(n)]
    told = event_ids(window, {"test.happened": [int(bucket)]})

    missing = set(told["emitted"]["test.happened"]) - set(told["dealt_with"]["test.happened"])
    assert missing == {str(lost)}


def test_another_event_in_the_place_of_one_is_no_match():
    emit()
    deal_with([uuid7()])
    emitted, dealt_with = sides(later(minutes=1))
    assert emitted != dealt_with


def test_what_is_under_way_is_not_compared_yet():
    ids = emit()
    assert sides(window_at()) == (None, None)
    assert sides(later(seconds=6))[0] is not None
    assert event_ids(window_at(), {"test.happened": [ids[0].int % event_audit.BUCKETS]}) == {
        "emitted": {"test.happened": []},
        "dealt_with": {"test.happened": []},
    }


def test_what_is_about_to_be_forgotten_is_not_compared_any_more():
    emit()
    end = RETENTION.total_seconds() - event_audit.NEARLY_FORGOTTEN.total_seconds()
    assert sides(later(seconds=end - 5))[0] is not None
    assert sides(later(seconds=end + 5)) == (None, None)


def test_a_parked_event_was_delivered_and_is_told_by_a_check_of_its_own():
    [event_id] = emit()
    park_event({"id": str(event_id), "type": "test.happened"}, "poison")
    emitted, dealt_with = sides(later(minutes=1))
    assert emitted == dealt_with
    check = event_audit.nothing_parked()
    assert [one["id"] for one in check["violations"]] == [str(event_id)]
    assert "poison" in check["violations"][0]["text"]


def test_what_is_not_sent_is_named_oldest_first(monkeypatch):
    monkeypatch.setattr(event_audit, "NAMED_MAX", 2)
    ids = emit(3)
    facts = event_facts(window_at())
    assert (facts["unsent"], facts["unsent_count"]) == ([str(one) for one in ids[:2]], 3)
    OutboxEvent.objects.update(published_at=timezone.now())
    assert event_facts(window_at())["unsent_count"] == 0


def test_ids_that_say_no_time_are_not_compared():
    deal_with(["0" * 32])
    assert sides(later(minutes=1)) == (None, None)
