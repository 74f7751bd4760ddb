"""Redis or the database away, frozen, emptied or full of nonsense: never a 500, never wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import OperationalError

from services.catalog import availability, hot_reads, listing
from services.catalog.availability import apply_stock_changed
from services.catalog.models import Event
from tests.catalog.private_redis import PrivateRedis
from tests.catalog.watching import READS, reads, redis
from tests.common.concurrency import times, together

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def own_redis(tmp_path: Path, settings: Any) -> Iterator[PrivateRedis]:
    """Return a Redis of this test's own that serves as the cache."""
    server = PrivateRedis(tmp_path)
    server.start()
    settings.CACHES = {"default": {**settings.CACHES["default"], "LOCATION": server.url}}
    yield server
    server.kill()


def test_without_redis_everything_is_answered_from_the_database(admin, anyone, show, own_redis):
    event = show("before")
    own_redis.kill()
    for read in reads(anyone, event).values():
        began = time.monotonic()
        read().expect(200)
        assert time.monotonic() - began < 2
    admin.patch_event(event["id"], title="after").expect(200)
    ticket_id = event["tickets"][0]["id"]
    apply_stock_changed({"ticket_id": ticket_id, "available": 5, "version": 1}, {})
    assert anyone.event(event["id"]).body["title"] == "after"
    assert anyone.ticket(ticket_id).body["available"] == 5


def test_a_redis_that_comes_back_is_used_again(anyone, show, own_redis, queries, monkeypatch):
    monkeypatch.setattr(hot_reads, "AWAY_SECONDS", 0.1)
    event = show()
    own_redis.kill()
    anyone.event(event["id"]).expect(200)
    own_redis.start()
    time.sleep(0.11)
    anyone.event(event["id"]).expect(200)
    with queries.watching():
        anyone.event(event["id"]).expect(200)
    assert queries.count == 0


def test_a_frozen_redis_slows_one_reader_and_stops_nobody(anyone, show, own_redis):
    event = show()
    anyone.event(event["id"]).expect(200)
    own_redis.freeze()
    try:
        took = []
        for _ in range(10):
            began = time.monotonic()
            anyone.event(event["id"]).expect(200)
            took.append(time.monotonic() - began)
    finally:
        own_redis.thaw()
    assert max(took) < 2
    assert sum(took) - max(took) < 2


def test_a_write_while_redis_is_frozen_is_seen_after_a_few_seconds(
    admin, anyone, show, own_redis, monkeypatch
):
    monkeypatch.setattr(hot_reads, "AWAY_SECONDS", 0.1)
    monkeypatch.setattr(listing.SHELF, "fresh_ms", 500)
    event = show("old")
    anyone.event(event["id"]).expect(200)
    own_redis.freeze()
    admin.patch_event(event["id"], title="new").expect(200)
    own_redis.thaw()
    deadline = time.monotonic() + 3
    while anyone.event(event["id"]).expect(200)["title"] != "new":
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_an_emptied_redis_is_filled_again(anyone, show, queries):
    event = show()
    for read in reads(anyone, event).values():
        read().expect(200)
    redis().flushdb()
    for read in reads(anyone, event).values():
        read().expect(200)
    with queries.watching():
        anyone.event(event["id"]).expect(200)
    assert queries.count == 0


POISONS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda value: b"",
    "text": lambda value: b"nonsense",
    "bytes": lambda value: b"\xff\x00\x80" * 100,
    "json of another shape": lambda value: b'{"results": 5}',
    "pickle": lambda value: b"\x80\x04\x95cos\nsystem\n(S'true'\ntR.",
    "no seal": lambda value: b"1|99999999999999|" + b"0" * 32 + b'|{"title": "forged"}',
    "changed": lambda value: value.replace(b"old", b"bad").replace(b":0", b":9"),
    "fresh for ever": lambda value: b"9" * 18 + b"|999999999999999|" + value.split(b"|", 2)[2],
    "cut off": lambda value: value[:-3],
    "huge": lambda value: b"1" * 1_000_000,
}


@pytest.mark.parametrize("poison", POISONS)
def test_whatever_lies_in_the_cache_is_a_miss(anyone, show, queries, poison):
    event = show("old")
    right = {name: read().expect(200) for name, read in reads(anyone, event).items()}
    # A poisoned stamp would hide the rest: it has a test of its own.
    for key in [key for key in redis().keys("*") if b":stamp:" not in key]:
        redis().set(key, POISONS[poison](redis().get(key)))
    for name, read in reads(anyone, event).items():
        answer = read().expect(200)
        answer.pop("as_of", None), right[name].pop("as_of", None)
        assert answer == right[name]
    # It has healed by now.
    with queries.watching():
        anyone.event(event["id"]).expect(200)
    assert queries.count == 0


@pytest.mark.parametrize("poison", [b"", b"nonsense", b"\xff" * 32, b"1" * 1_000_000])
def test_a_poisoned_stamp_is_replaced(admin, anyone, show, poison):
    event = show("old")
    anyone.event(event["id"]).expect(200)
    for key in redis().keys("*:stamp:*"):
        redis().set(key, poison)
    assert anyone.event(event["id"]).expect(200)["title"] == "old"
    admin.patch_event(event["id"], title="new").expect(200)
    assert anyone.event(event["id"]).expect(200)["title"] == "new"


def test_values_of_another_type_are_a_miss(anyone, show, queries):
    event = show()
    for read in reads(anyone, event).values():
        read().expect(200)
    for key in redis().keys("*"):
        redis().delete(key)
        redis().rpush(key, "x", "y")
    for read in reads(anyone, event).values():
        read().expect(200)
    with queries.watching():
        anyone.event(event["id"]).expect(200)
    assert queries.count == 0


def test_an_entry_under_another_key_is_a_miss(anyone, show):
    first, second = show("first"), show("second")
    for event in (first, second):
        anyone.event(event["id"]).expect(200)
    keys = {event["id"]: redis().keys(f"*:event:{event['id']}")[0] for event in (first, second)}
    redis().copy(keys[first["id"]], keys[second["id"]], replace=True)
    assert anyone.event(second["id"]).expect(200)["title"] == "second"


def test_a_lost_stamp_never_brings_old_pages_back(admin, anyone, show):
    event = show("old")
    anyone.event(event["id"]).expect(200)
    for title in ("newer", "newest"):
        admin.patch_event(event["id"], title=title).expect(200)
        redis().delete(*redis().keys("*:stamp:*"))
        assert anyone.event(event["id"]).expect(200)["title"] == title


def test_an_older_number_never_replaces_a_newer_one_in_the_cache():
    shelf = availability.SHELF

    def kept() -> int:
        return shelf.read(["1"], lambda idents: pytest.fail("not kept"))["1"]

    shelf.put({"1": (5, 50)})
    shelf.put({"1": (4, 40)})
    assert kept() == 50
    shelf.put({"1": (5, 51)})
    assert kept() == 51
    shelf.put({"1": (60, 6)})
    assert kept() == 6


def test_a_clock_that_is_ahead_elsewhere_makes_nothing_fresh_for_long(anyone, show, monkeypatch):
    event = show("old")
    now_ms = hot_reads._now_ms
    monkeypatch.setattr(hot_reads, "_now_ms", lambda: now_ms() + 300_000)
    anyone.event(event["id"]).expect(200)
    monkeypatch.setattr(hot_reads, "_now_ms", now_ms)
    Event.objects.update(title="new")
    assert anyone.event(event["id"]).expect(200)["title"] == "new"


def broken() -> None:
    raise OperationalError(2013, "Lost connection to server during query")


@pytest.mark.parametrize("name", READS)
def test_without_the_database_what_is_known_is_still_shown(
    anyone, show, queries, monkeypatch, name
):
    read = reads(anyone, show())[name]
    for shelf in (listing.SHELF, availability.SHELF):
        monkeypatch.setattr(shelf, "fresh_ms", 10)
    read().expect(200)
    time.sleep(0.02)
    queries.during = broken
    with queries.watching():
        read().expect(200)
        redis().flushdb()
        answer = read()
    assert (answer.status, answer.code) == (503, "database_unavailable")
    assert answer.headers["Retry-After"] == "1"
    read().expect(200)


def test_only_so_many_readers_are_in_the_database_at_once(
    anyone, show, own_redis, queries, monkeypatch
):
    monkeypatch.setattr(hot_reads, "_database_readers", threading.BoundedSemaphore(2))
    monkeypatch.setattr(hot_reads, "DATABASE_WAIT_SECONDS", 0.05)
    event = show()
    own_redis.kill()
    queries.during = lambda: time.sleep(0.2)
    answers = together(*times(10, queries.watched(lambda: anyone.event(event["id"]))))
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 503}
    assert {answer.code for answer in answers if answer.status == 503} == {"catalog_busy"}
    assert statuses.count(200) >= 2
    queries.during = lambda: None
    anyone.event(event["id"]).expect(200)


def test_a_reader_who_dies_while_renewing_holds_nobody_up(anyone, show, queries, monkeypatch):
    event = show()
    queries.during = broken
    with queries.watching():
        assert anyone.event(event["id"]).status == 503
    began = time.monotonic()
    anyone.event(event["id"]).expect(200)
    assert time.monotonic() - began < 0.9
    # One that was killed leaves its lock; the others wait a moment, then help themselves.
    redis().flushdb()
    monkeypatch.setattr(hot_reads, "WAIT_SECONDS", 0.2)
    anyone.event(event["id"]).expect(200)
    stored = redis().keys("*:event:*")[0]
    redis().delete(stored)
    redis().set(stored.replace(b"catalog:1:", b"catalog:1:lock:"), "dead", px=60_000)
    anyone.event(event["id"]).expect(200)
