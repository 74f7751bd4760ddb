"""Hot reads come from Redis, once from the database, and never stale after a write."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction

from common import routers
from services.catalog import listing, publishing
from services.catalog.models import Event
from tests.catalog.driver import Answer, Caller
from tests.catalog.watching import READS, reads, redis
from tests.common.concurrency import times, together

pytestmark = pytest.mark.django_db(transaction=True)

READERS = 20


@pytest.mark.parametrize("name", READS)
def test_a_second_reader_costs_no_query(anyone, show, queries, name):
    read = reads(anyone, show())[name]
    with queries.watching():
        first = read().expect(200)
        asked = queries.count
        assert asked > 0
        assert read().expect(200) == first
        assert queries.count == asked


@pytest.mark.parametrize("name", READS)
def test_twenty_readers_at_once_cost_the_queries_of_one(anyone, show, queries, name):
    read = reads(anyone, show())[name]
    with queries.watching():
        read().expect(200)
    alone, queries.count = queries.count, 0
    redis().flushdb()
    queries.during = lambda: time.sleep(0.05)
    answers = together(*times(READERS, queries.watched(read)))
    assert {answer.status for answer in answers} == {200}
    assert len({str(answer.body) for answer in answers}) == 1
    assert queries.count == alone


def test_what_is_old_is_renewed_by_one_while_the_others_take_the_old(
    anyone, show, queries, monkeypatch
):
    event = show("old")
    monkeypatch.setattr(listing.SHELF, "fresh_ms", 50)
    anyone.event(event["id"]).expect(200)
    # Behind the cache, as a lost invalidation would leave it.
    Event.objects.update(title="new")
    time.sleep(0.06)
    monkeypatch.setattr(listing.SHELF, "fresh_ms", 5_000)
    queries.during = lambda: time.sleep(0.3)

    def read() -> tuple[str, float]:
        began = time.monotonic()
        title = anyone.event(event["id"]).expect(200)["title"]
        return title, time.monotonic() - began

    answers = together(*times(READERS, queries.watched(read)))
    titles = [title for title, _ in answers]
    assert titles.count("new") == 1
    assert titles.count("old") == READERS - 1
    assert queries.count <= 4
    assert anyone.event(event["id"]).body["title"] == "new"


def writes(admin: Caller, event: dict[str, Any]) -> dict[str, Callable[[], Answer]]:
    ticket_id = event["tickets"][0]["id"]
    return {
        "title": lambda: admin.patch_event(event["id"], title="changed"),
        "price": lambda: admin.patch_ticket(ticket_id, price=1),
        "on sale": lambda: admin.move_ticket(ticket_id, "on-sale"),
        "new ticket": lambda: admin.create_ticket(event["id"]),
        "end": lambda: admin.move_event(event["id"], "end"),
        "unpublish": lambda: admin.move_event(event["id"], "unpublish"),
    }


@pytest.mark.parametrize("write", ["title", "price", "on sale", "new ticket", "end", "unpublish"])
def test_a_write_is_seen_by_the_next_reader_of_anything(admin, anyone, show, write):
    event = show()
    for read in reads(anyone, event).values():
        read().expect(200)
    assert writes(admin, event)[write]().status in (200, 201)
    if write == "unpublish":
        assert [read().status for read in reads(anyone, event).values()] == [200, 404, 404, 404]
        assert anyone.titles() == []
        return
    truth = admin.event(event["id"]).expect(200)
    assert anyone.event(event["id"]).expect(200) == truth
    assert anyone.ticket(truth["tickets"][0]["id"]).expect(200) == truth["tickets"][0]
    assert anyone.list(status=truth["status"]).expect(200)["results"] == [truth]
    on_sale = anyone.availability(truth["tickets"][0]["id"]).expect(200)["on_sale"]
    assert on_sale is (write == "on sale")


def test_a_crowd_in_front_of_a_draft_sees_it_as_soon_as_it_is_published(admin, anyone, show):
    event = show(status="DRAFT")
    assert anyone.event(event["id"]).status == 404
    admin.move_event(event["id"], "publish").expect(200)
    assert anyone.event(event["id"]).status == 200


def test_a_page_that_was_loaded_before_a_write_does_not_outlive_it(admin, anyone, show, queries):
    event = show("old")
    loaded, written = threading.Event(), threading.Event()

    def hold_back() -> None:
        loaded.set()
        assert written.wait(10)

    queries.during = hold_back

    def write() -> None:
        assert loaded.wait(10)
        admin.patch_event(event["id"], title="new").expect(200)
        written.set()

    slow, _ = together(queries.watched(lambda: anyone.event(event["id"])), write)
    assert slow.expect(200)["title"] == "old"
    assert anyone.event(event["id"]).expect(200)["title"] == "new"


def test_a_page_that_is_loaded_in_the_middle_of_a_write_does_not_outlive_it(anyone, show):
    event = show("old")
    with transaction.atomic():
        publishing.revise_event(event["id"], {"title": "new"})
        [meanwhile] = together(lambda: anyone.event(event["id"]))
        assert meanwhile.expect(200)["title"] == "old"
    assert anyone.event(event["id"]).expect(200)["title"] == "new"


@pytest.mark.parametrize("name", READS)
def test_the_public_may_be_answered_by_a_replica_and_an_admin_never(
    anyone, admin, show, queries, name
):
    event = show()
    allowed: set[bool] = set()
    queries.during = lambda: allowed.add(routers._replica_allowed.get())
    with queries.watching():
        reads(anyone, event)[name]().expect(200)
        assert allowed == {True}
        allowed.clear()
        reads(admin, event)[name]().expect(200)
        assert allowed == {False}


def test_an_admin_reads_the_database(admin, anyone, show):
    event = show("old")
    for caller in (anyone, admin):
        assert caller.event(event["id"]).body["title"] == "old"
    Event.objects.update(title="new")
    assert anyone.event(event["id"]).body["title"] == "old"
    assert admin.event(event["id"]).body["title"] == "new"
    assert admin.list().body["results"][0]["title"] == "new"


def test_a_search_leaves_nothing_in_the_cache(anyone, show):
    show()
    anyone.list().expect(200)
    kept = redis().dbsize()
    for number in range(5):
        anyone.list(search=f"jazz{number}", starts_after="2027-01-01").expect(200)
        anyone.list(page=number + 100)
    assert redis().dbsize() == kept


def test_everything_in_the_cache_expires(anyone, show):
    for read in reads(anyone, show()).values():
        read().expect(200)
    lasting = [key for key in redis().keys("*") if redis().ttl(key) < 0]
    assert [key for key in lasting if b":stamp:" not in key] == []
