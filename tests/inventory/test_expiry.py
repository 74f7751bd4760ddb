"""Holds always come back: the expiry loop, alone, beside others and against a commit."""

from __future__ import annotations

import time
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import call_command
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from common.events.models import OutboxEvent
from services.inventory import deciding, expiry
from services.inventory.models import BuyerHold, Reservation, Stock
from tests.common.concurrency import meet_before, times, together
from tests.inventory.books import counters, ledger_of, make_overdue, status_of, violations

pytestmark = pytest.mark.django_db(transaction=True)
ORDER = "0190c7f0-0000-7000-8000-000000000001"


def test_an_overdue_hold_gives_its_units_back(order, tickets):
    tickets(5)
    order.reserve("r", quantity=2, order_id=ORDER)
    make_overdue("r")

    assert expiry.expire_batch() == 1

    assert (status_of("r"), counters(), ledger_of("r")) == (
        "RELEASED",
        (5, 0, 0),
        ["reserve", "expire"],
    )
    assert order.reservation("r").body["reason"] == "expired"
    assert expiry.expire_batch() == 0, "nothing is left to do"
    assert violations() == []


def test_expiry_is_announced_with_the_order_it_concerns(order, tickets):
    tickets(5)
    order.reserve("r", quantity=2, order_id=ORDER)
    order.reserve("alone", quantity=1)
    make_overdue("r", "alone")

    expiry.expire_batch()

    events = OutboxEvent.objects.filter(type="reservation.expired").order_by("aggregateid")
    assert [event.payload["data"] for event in events] == [
        {"reservation_id": "alone", "order_id": None, "ticket_id": 1, "quantity": 1},
        {"reservation_id": "r", "order_id": ORDER, "ticket_id": 1, "quantity": 2},
    ]


def test_holds_that_are_not_overdue_stay(order, tickets):
    tickets(5)
    order.reserve("r", quantity=2)

    assert expiry.expire_batch() == 0
    assert (status_of("r"), counters()) == ("RESERVED", (3, 2, 0))


def test_what_is_decided_already_does_not_expire(order, tickets):
    tickets(9)
    for reservation_id in ("sold", "released"):
        order.reserve(reservation_id, quantity=2)
    order.commit("sold")
    order.release("released")
    make_overdue("sold", "released")

    assert expiry.expire_batch() == 0
    assert (status_of("sold"), status_of("released")) == ("COMMITTED", "RELEASED")
    assert counters() == (7, 0, 2)


def test_a_hold_found_overdue_but_decided_since_is_left_alone(order, tickets):
    tickets(5)
    order.reserve("r", quantity=2)
    make_overdue("r")
    order.commit("r")

    assert deciding.expire(limit=10) == 0
    assert counters() == (3, 0, 2)


def test_a_hold_that_is_not_overdue_cannot_be_expired_by_mistake(order, tickets):
    tickets(5)
    order.reserve("r", quantity=2)

    assert deciding.expire(limit=10, only="r") == 0
    assert status_of("r") == "RESERVED"


def test_several_workers_at_once_expire_each_hold_once(order, tickets, monkeypatch):
    tickets(40, 40)
    ids = [f"r{n}" for n in range(20)]
    for n, reservation_id in enumerate(ids):
        order.reserve(reservation_id, ticket_id=1 + n % 2, quantity=2, buyer_id=f"b{n % 3}")
    make_overdue(*ids)
    meet_before(monkeypatch, deciding, "in_transaction", parties=4)

    together(*times(4, expiry.expire_batch))

    assert all(ledger_of(one) == ["reserve", "expire"] for one in ids)
    assert OutboxEvent.objects.filter(type="reservation.expired").count() == len(ids)
    assert (counters(1), counters(2)) == ((40, 0, 0), (40, 0, 0))
    assert violations() == []


def test_a_batch_is_bounded_and_the_oldest_go_first(order, tickets, monkeypatch):
    monkeypatch.setattr(expiry, "BATCH_SIZE", 3)
    tickets(10)
    for n in range(5):
        order.reserve(f"r{n}")
        make_overdue(f"r{n}", by_seconds=10 - n)

    assert [expiry.expire_batch() for _ in range(3)] == [3, 2, 0]
    assert [row.pk for row in Reservation.objects.order_by("updated_at", "pk")][:3] == [
        "r0",
        "r1",
        "r2",
    ]


@pytest.mark.parametrize(("stated", "seconds"), [({}, 600), ({"ttl_seconds": 30}, 30)])
def test_every_hold_has_an_end(order, tickets, stated, seconds):
    tickets(5)

    answer = order.reserve("r", **stated)

    left = parse_datetime(answer.body["expires_at"]) - timezone.now()
    assert timedelta(seconds=seconds - 5) < left <= timedelta(seconds=seconds)


def test_the_command_does_one_step(order, tickets):
    tickets(5)
    order.reserve("r", quantity=2)
    make_overdue("r")
    output = StringIO()

    call_command("expire_holds", "--once", stdout=output)

    assert output.getvalue().strip() == "expire_holds: 1"
    assert counters() == (5, 0, 0)


def test_the_search_for_overdue_holds_uses_its_index():
    query = Reservation.objects.filter(status="RESERVED", expires_at__lt=timezone.now())
    plan = query.order_by("expires_at").values_list("pk")[:100].explain()
    assert "reservation_overdue" in plan


def test_a_wrong_count_of_one_buyer_keeps_no_other_hold(order, tickets):
    tickets(10, 10)
    order.reserve("wrong", 1, 2, buyer_id="ann")
    for number in range(5):
        order.reserve(f"right{number}", 1 + number % 2, 1, buyer_id="bob")
    BuyerHold.objects.filter(buyer_id="ann").update(quantity=1)
    make_overdue("wrong", by_seconds=60)
    make_overdue(*(f"right{number}" for number in range(5)))
    aside = {}

    assert expiry.expire_batch(aside) == 5
    assert (status_of("wrong"), list(aside)) == ("RESERVED", ["wrong"])
    assert expiry.expire_batch(aside) == 0


def test_a_buyer_who_was_never_counted_is_not_counted_by_giving_back(order, tickets):
    tickets(10)
    order.reserve("r", 1, 2, buyer_id="ann")
    BuyerHold.objects.all().delete()

    assert order.release("r").status == 500
    assert (BuyerHold.objects.count(), status_of("r"), counters()) == (0, "RESERVED", (8, 2, 0))


def test_many_holds_that_cannot_be_given_back_do_not_starve_the_others(order, tickets, monkeypatch):
    monkeypatch.setattr(expiry, "BATCH_SIZE", 3)
    tickets(20, 10)
    wrong = [f"wrong{number}" for number in range(7)]
    for reservation_id in wrong:
        order.reserve(reservation_id, 1, 2)
    order.reserve("right", 2, 1)
    Stock.objects.filter(ticket_id=1).update(reserved=0, total=6)
    make_overdue(*wrong, by_seconds=60)
    make_overdue("right")
    aside = {}

    given_back = sum(expiry.expire_batch(aside) for _ in range(4))

    assert (given_back, status_of("right")) == (1, "RELEASED")
    assert sorted(aside) == wrong


def test_what_was_put_aside_is_tried_again_later(order, tickets, monkeypatch):
    tickets(10)
    order.reserve("r", 1, 2)
    make_overdue("r")
    aside = {"r": time.monotonic() + 1000, "gone": time.monotonic() + 1000}
    assert expiry.expire_batch(aside) == 0
    aside["r"] = time.monotonic() - 1
    assert expiry.expire_batch(aside) == 1
    assert list(aside) == ["gone"]
