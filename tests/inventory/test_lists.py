"""Lists for admins: stock, reservations and the ledger, in pages and with filters."""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import quote

import pytest
from django.utils import timezone

from services.inventory import expiry, ledger
from services.inventory.models import StockMovement
from tests.inventory.books import make_overdue
from tests.inventory.conftest import user_token
from tests.inventory.driver import RESERVATIONS, STOCKS, Caller

pytestmark = pytest.mark.django_db(transaction=True)
ORDER = "0190c7f0-0000-7000-8000-000000000001"
MOVEMENTS = f"{STOCKS}/1/movements"


@pytest.fixture
def shop(order, admin, tickets):
    """Return an admin's reader of a shop where something of everything has happened."""
    tickets(10, 3, 0)
    order.reserve("sold", 1, 2, buyer_id="ann", order_id=ORDER)
    order.commit("sold")
    order.reserve("given-back", 1, 1, buyer_id="ann")
    order.release("given-back")
    order.reserve("overdue", 1, 1, buyer_id="bob")
    order.reserve("held", 2, 3, buyer_id="bob")
    order.reserve("refused", 2, 1)
    make_overdue("overdue")

    def read(path, **query):
        answer = admin.call("GET", f"{path}?" + "&".join(f"{k}={v}" for k, v in query.items()))
        assert answer.status == 200, answer.body
        return answer.body

    return read


def ids(page, name="reservation_id"):
    return [row[name] for row in page["results"]]


def test_all_stock_is_listed_with_its_counters(shop):
    page = shop(STOCKS)
    assert page.keys() == {"count", "next", "previous", "results"}
    counters = [
        (row["total"], row["available"], row["reserved"], row["sold"]) for row in page["results"]
    ]
    assert counters == [(10, 7, 1, 2), (3, 0, 3, 0), (0, 0, 0, 0)]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"sold_out": "true"}, [2, 3]),
        ({"sold_out": "false"}, [1]),
        ({"ticket_id": 2}, [2]),
        ({"available_below": 8}, [1, 2, 3]),
        ({"available_below": 7}, [2, 3]),
    ],
)
def test_stock_can_be_filtered(shop, query, found):
    assert ids(shop(STOCKS, **query), "ticket_id") == found


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, {"sold", "given-back", "overdue", "held", "refused"}),
        ({"ticket_id": 2}, {"held", "refused"}),
        ({"status": "RESERVED"}, {"overdue", "held"}),
        ({"status": "FAILED", "ticket_id": 2}, {"refused"}),
        ({"buyer_id": "ann"}, {"sold", "given-back"}),
        ({"order_id": ORDER}, {"sold"}),
        ({"overdue": "true"}, {"overdue"}),
        ({"overdue": "false", "status": "RESERVED"}, {"held"}),
        ({"created_before": "2020-01-01T00:00:00Z"}, set()),
        ({"created_after": "2020-01-01T00:00:00Z", "buyer_id": "bob"}, {"overdue", "held"}),
    ],
)
def test_reservations_can_be_filtered(shop, query, found):
    page = shop(RESERVATIONS, **query)
    assert (set(ids(page)), page["count"]) == (found, len(found))


def test_the_newest_reservations_come_first_in_pages(shop):
    everything = ids(shop(RESERVATIONS))
    assert everything == ["refused", "held", "overdue", "given-back", "sold"]
    pages = [shop(RESERVATIONS, page_size=2, page=n) for n in (1, 2, 3)]
    assert [one for page in pages for one in ids(page)] == everything
    assert pages[0]["next"]
    assert not pages[2]["next"]


def test_a_listed_reservation_says_all_there_is(shop):
    [row] = shop(RESERVATIONS, order_id=ORDER)["results"]
    assert row["expires_at"].endswith("Z")
    assert (row["status"], row["quantity"], row["buyer_id"], row["order_id"], row["extended"]) == (
        "COMMITTED",
        2,
        "ann",
        ORDER,
        False,
    )


def test_the_ledger_of_a_ticket_is_listed_oldest_first(shop):
    page = shop(MOVEMENTS)
    assert [(row["kind"], row["quantity"]) for row in page["results"]] == [
        ("initialise", 10),
        ("reserve", 2),
        ("commit", 2),
        ("reserve", 1),
        ("release", 1),
        ("reserve", 1),
    ]
    assert page["results"][1].keys() == {
        *("seq", "kind", "quantity", "reservation_id", "actor", "reason", "at")
    }
    assert "counters" not in page


def test_movements_can_be_filtered(shop):
    assert len(shop(MOVEMENTS, kind="reserve")["results"]) == 3
    assert [row["kind"] for row in shop(MOVEMENTS, reservation_id="sold")["results"]] == [
        "reserve",
        "commit",
    ]


def test_the_counters_of_any_moment_can_be_recomputed(shop):
    lines = shop(MOVEMENTS)["results"]
    told = [shop(MOVEMENTS, up_to=line["seq"], page_size=1)["counters"] for line in lines]
    counters = [(one["total"], one["available"], one["reserved"], one["sold"]) for one in told]
    assert counters == [
        (10, 10, 0, 0),
        (10, 8, 2, 0),
        (10, 8, 0, 2),
        (10, 7, 1, 2),
        (10, 8, 0, 2),
        (10, 7, 1, 2),
    ]
    assert shop(MOVEMENTS, up_to=0)["counters"]["total"] == 0


def test_recomputing_follows_every_kind_of_movement(order, admin):
    admin.set_stock(1, 5)
    admin.set_stock(1, 9)
    admin.adjust(1, -2)
    order.reserve("a", quantity=3)
    order.reserve("b", quantity=99)
    order.reserve("c", quantity=1)
    order.commit("a")
    make_overdue("c")
    expiry.expire_batch()
    admin.adjust(1, 4)

    kinds = set(StockMovement.objects.values_list("kind", flat=True))
    assert kinds == {"initialise", "adjust", "reserve", "refuse", "commit", "expire"}
    assert ledger.counters(1) == {"total": 11, "available": 8, "reserved": 0, "sold": 3}
    assert ledger.counters(2) == {"total": 0, "available": 0, "reserved": 0, "sold": 0}


@pytest.mark.parametrize(
    ("path", "query"),
    [
        (STOCKS, "ticket_id=x"),
        (STOCKS, "available_below=-1"),
        (STOCKS, "ticket_id=99999999999999999999"),
        (STOCKS, "sold_out=maybe"),
        (RESERVATIONS, "overdue=x"),
        (RESERVATIONS, "status=GONE"),
        (RESERVATIONS, "order_id=1"),
        (RESERVATIONS, "ticket_id=1.5"),
        (RESERVATIONS, "created_after=yesterday"),
        (RESERVATIONS, "buyer_id=" + "a" * 65),
        (RESERVATIONS, "buyer_id=%00"),
        (MOVEMENTS, "up_to=1e3"),
        (MOVEMENTS, "up_to=1.5"),
        (MOVEMENTS, "up_to=NaN"),
        (MOVEMENTS, "up_to=-1"),
        (MOVEMENTS, "up_to=" + "9" * 5000),
        (MOVEMENTS, "kind=steal"),
        (MOVEMENTS, "reservation_id=%00"),
    ],
    ids=lambda text: text[:40],
)
def test_a_filter_that_makes_no_sense_is_refused(admin, tickets, path, query):
    tickets(1)
    answer = admin.call("GET", f"{path}?{query}")
    assert (answer.status, answer.code) == (400, "validation_error")
    assert answer.body["errors"][0]["field"] == query.partition("=")[0]


@pytest.mark.parametrize("path", [STOCKS, RESERVATIONS, MOVEMENTS])
def test_a_filter_that_is_misspelt_is_refused_and_not_passed_over(admin, tickets, path):
    tickets(1)
    answer = admin.call("GET", f"{path}?upto=1&page=1&page_size=5")
    assert (answer.status, answer.code) == (400, "validation_error")
    [error] = answer.body["errors"]
    assert (error["field"], error["code"]) == ("upto", "unknown_field")
    assert "page_size" in error["detail"]


@pytest.mark.parametrize("text", ["up_to=2.0", "up_to=%202", "up_to=", "format=json"])
def test_a_filter_that_can_be_understood_is(admin, tickets, text):
    tickets(1)
    assert admin.call("GET", f"{MOVEMENTS}?{text}").status == 200


def test_times_far_away_are_no_error(admin, tickets):
    for moment in ("0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"):
        for name in ("created_after", "created_before"):
            answer = admin.call("GET", f"{RESERVATIONS}?{name}={quote(moment)}")
            assert answer.status in (200, 400), answer.body


def test_a_ticket_without_stock_has_no_ledger(admin):
    answer = admin.call("GET", MOVEMENTS)
    assert (answer.status, answer.code) == (404, "stock_not_found")


@pytest.mark.parametrize("path", [STOCKS, RESERVATIONS, MOVEMENTS])
def test_lists_are_for_admins(order, tickets, path):
    tickets(1)
    assert Caller(None).call("GET", path).status == 401
    assert Caller(user_token()).call("GET", path).status == 403
    assert order.call("GET", path).status == 403


def test_a_page_beyond_the_last_is_not_found(admin, tickets):
    tickets(1)
    assert admin.call("GET", f"{STOCKS}?page=9").status == 404


def test_overdue_is_a_matter_of_now(shop, order):
    order.reserve("soon", 1, 1, ttl_seconds=600)
    assert "soon" not in ids(shop(RESERVATIONS, overdue="true"))
    make_overdue("soon", by_seconds=timedelta(days=1).total_seconds())
    assert "soon" in ids(shop(RESERVATIONS, overdue="true"))
    assert timezone.now()
