"""The endpoint by which order finds holds that nobody answers for, and the batch's own rules."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from services.inventory.models import Reservation
from tests.inventory.driver import decide_group, entry, reserve_group

pytestmark = pytest.mark.django_db(transaction=True)


def order_id(n):
    return f"0190c7f0-0000-7000-8000-{n:012}"


@pytest.fixture
def holds(order, tickets):
    """Make five holds of orders, ``h0`` the oldest (50 minutes) to ``h4`` (10 minutes)."""
    tickets(100)
    now = timezone.now()
    for n in range(5):
        order.reserve(f"h{n}", quantity=1 + n, order_id=order_id(n))
        Reservation.objects.filter(pk=f"h{n}").update(
            created_at=now - timedelta(minutes=50 - 10 * n)
        )
    return [f"h{n}" for n in range(5)]


def minutes_ago(n):
    return (timezone.now() - timedelta(minutes=n)).isoformat()


def ids(answer):
    return [hold["reservation_id"] for hold in answer.body["holds"]]


def test_holds_that_name_an_order_are_listed_oldest_first(order, holds):
    answer = order.holds(created_before=minutes_ago(0))

    assert (ids(answer), answer.body["next"]) == (holds, None)
    first = answer.body["holds"][0]
    assert first.keys() == {
        "reservation_id",
        "order_id",
        "ticket_id",
        "quantity",
        "expires_at",
        "created_at",
    }
    assert (first["order_id"], first["ticket_id"], first["quantity"]) == (order_id(0), 1, 1)


def test_young_decided_and_orderless_holds_are_not_listed(order, holds):
    order.reserve("alone")
    Reservation.objects.filter(pk="alone").update(created_at=timezone.now() - timedelta(hours=2))
    order.commit("h0")
    order.release("h1")

    assert ids(order.holds(created_before=minutes_ago(15))) == ["h2", "h3"]


@pytest.mark.parametrize("limit", [1, 2, 3, 5])
def test_pages_follow_each_other_without_gap_or_double(order, holds, limit):
    # Two holds of one moment: the id decides between them.
    same = Reservation.objects.get(pk="h1").created_at
    Reservation.objects.filter(pk="h2").update(created_at=same)
    found, cursor = [], {}
    for _ in range(10):
        answer = order.holds(created_before=minutes_ago(0), limit=limit, **cursor)
        assert len(answer.body["holds"]) <= limit
        found += ids(answer)
        if answer.body["next"] is None:
            break
        cursor = {"after": answer.body["next"]}
    assert found == holds


def test_a_page_is_not_disturbed_by_holds_that_vanish_between(order, holds):
    first = order.holds(created_before=minutes_ago(0), limit=2)
    for reservation_id in ("h0", "h1", "h2"):
        order.release(reservation_id)

    assert ids(order.holds(created_before=minutes_ago(0), after=first.body["next"])) == ["h3", "h4"]


@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "|",
        "|x",
        "2026-01-01|x",
        "2026-01-01T00:00:00|x",
        "2026-13-01T00:00:00Z|x",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z|",
        "0001-01-01T00:00:00+23:59|x",
        "9999-12-31T23:59:59-23:59|x",
        "\N{SNOWMAN}|\N{SNOWMAN}",
        "2026-01-01T00:00:00Z|\x00",
    ],
)
def test_a_cursor_that_is_none_is_refused(order, holds, cursor):
    answer = order.holds(created_before=minutes_ago(0), after=cursor)
    assert answer.status == 400
    assert answer.code in ("invalid_cursor", "validation_error")


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"created_before": "yesterday"},
        {"created_before": "0001-01-01T00:00:00+23:59"},
        {"created_before": minutes_ago(0), "limit": 0},
        {"created_before": minutes_ago(0), "limit": 1001},
        {"created_before": minutes_ago(0), "limit": "many"},
        {"created_before": minutes_ago(0), "limit": "9" * 5000},
        {"created_before": minutes_ago(0), "after": "x" * 200},
    ],
)
def test_a_query_that_makes_no_sense_is_refused(order, query):
    answer = order.holds(**query)
    assert (answer.status, answer.code) == (400, "validation_error")


def test_a_group_takes_at_most_twenty_entries(order, tickets):
    tickets(1000)
    twenty = [entry(f"r{n}") for n in range(20)]

    assert order.batch(reserve_group(*twenty)).body["groups"][0]["ok"]
    answer = order.batch(reserve_group(*twenty, entry("r20")))
    assert (answer.status, answer.code) == (400, "validation_error")
    assert Reservation.objects.count() == 20


def test_a_call_takes_at_most_256_entries(order, tickets):
    tickets(1000)
    groups = [reserve_group(entry(f"r{n}")) for n in range(257)]

    answer = order.batch(*groups)
    assert (answer.status, answer.code) == (400, "validation_error")
    assert Reservation.objects.count() == 0

    answer = order.batch(*groups[:256])
    assert all(group["ok"] for group in answer.body["groups"])
    assert Reservation.objects.count() == 256


@pytest.mark.parametrize("call", ["reserve", "commit"])
def test_an_id_may_stand_only_once_in_a_group(order, tickets, call):
    tickets(10)
    order.reserve("a")
    group = (
        reserve_group(entry("a"), entry("a"))
        if call == "reserve"
        else decide_group("commit", "a", "a")
    )
    answer = order.batch(group)
    assert (answer.status, answer.code) == (400, "validation_error")


def test_one_id_in_two_groups_is_reserved_once(order, tickets):
    tickets(10)
    answer = order.batch(reserve_group(entry("a")), reserve_group(entry("a")))

    statuses = [group["entries"][0]["status"] for group in answer.body["groups"]]
    assert statuses == [201, 200]
    assert Reservation.objects.count() == 1


def test_a_call_with_one_invalid_entry_does_nothing_and_says_where(order, tickets):
    tickets(10)
    answer = order.batch(reserve_group(entry("a")), reserve_group(entry("b"), entry("c", 1, 0)))

    assert (answer.status, answer.code) == (400, "validation_error")
    assert [error["field"] for error in answer.body["errors"]] == ["groups.1.entries.1.quantity"]
    assert Reservation.objects.count() == 0
