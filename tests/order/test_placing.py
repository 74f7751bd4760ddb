"""Placing an order: all of it or nothing, once per key, at the price and limits of the offer."""

from __future__ import annotations

import json
from datetime import timedelta
from uuid import UUID

import pytest
from django.utils import timezone

from common.events.models import OutboxEvent
from common.ids import derived_uuid
from services.order.models import Order, TicketOffer
from tests.order.driver import ORDERS, hear, offer, violations

pytestmark = pytest.mark.django_db


def events() -> list[str]:
    """Return the types of the events published, oldest first."""
    return list(OutboxEvent.objects.order_by("seq").values_list("type", flat=True))


def test_an_order_holds_its_units_and_says_what_and_until_when(ann, on_sale, inventory):
    first, second = on_sale(10, price=2500), on_sale(5, price=990, name="Balcony")

    answer = ann.place({first: 2, second: 1})

    assert answer.status == 201
    assert answer.body | {"created_at": "", "expires_at": ""} == {
        "id": str(derived_uuid(str(ann.user_id), "k")),
        "status": "AWAITING_PAYMENT",
        "items": [
            {
                "ticket_id": first,
                "name": f"Night of Stars · Ticket {first}",
                "quantity": 2,
                "unit_price": 2500,
            },
            {
                "ticket_id": second,
                "name": "Night of Stars · Balcony",
                "quantity": 1,
                "unit_price": 990,
            },
        ],
        "total": 5990,
        "currency": "EUR",
        "expires_at": "",
        "created_at": "",
    }
    left = timezone.datetime.fromisoformat(answer.body["expires_at"]) - timezone.now()
    assert timedelta(seconds=590) < left <= timedelta(seconds=600)
    assert inventory.stock(first) == (8, 2, 0)
    assert inventory.stock(second) == (4, 1, 0)
    assert events() == ["order.placed"]
    assert violations() == []


def test_a_replay_answers_the_same_even_after_the_order_has_moved_on(ann, on_sale, inventory):
    ticket = on_sale(10)
    first = ann.place({ticket: 2})
    ann.pay(first.body["id"])

    again = ann.place({ticket: 2})

    assert (again.status, again.body) == (201, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert inventory.stock(ticket) == (8, 0, 2)
    assert Order.objects.count() == 1


def test_a_replayed_refusal_is_the_first_one_word_for_word(ann, on_sale):
    ticket = on_sale(1)
    first = ann.place({ticket: 2})

    again = ann.place({ticket: 2})

    assert (first.status, first.code) == (409, "sold_out")
    assert (again.status, again.body) == (first.status, first.body)
    assert first.body["request_id"] == first.headers["X-Request-ID"]
    assert again.headers["X-Request-ID"] != first.headers["X-Request-ID"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.headers["Content-Type"] == "application/problem+json"


def test_the_same_key_with_another_body_is_refused(ann, on_sale, inventory):
    ticket = on_sale(10)
    ann.place({ticket: 2})

    other = ann.place({ticket: 3})

    assert (other.status, other.code) == (422, "idempotency_key_reused")
    assert inventory.stock(ticket) == (8, 2, 0)


def test_two_users_with_one_key_get_two_orders(ann, bob, on_sale, inventory):
    ticket = on_sale(10)

    one, two = ann.place({ticket: 1}, key="same"), bob.place({ticket: 1}, key="same")

    assert (one.status, two.status) == (201, 201)
    assert one.body["id"] != two.body["id"]
    assert "Idempotent-Replayed" not in two.headers
    assert inventory.stock(ticket) == (8, 2, 0)


def test_keys_that_differ_in_case_only_are_two_keys(ann, on_sale, inventory):
    ticket = on_sale(10)

    one, two = ann.place({ticket: 1}, key="abc"), ann.place({ticket: 1}, key="ABC")

    assert one.body["id"] != two.body["id"]
    assert inventory.stock(ticket) == (8, 2, 0)


def test_several_tickets_are_all_held_or_none(ann, on_sale, inventory):
    plenty, scarce = on_sale(10), on_sale(1)

    answer = ann.place({plenty: 2, scarce: 2})

    assert (answer.status, answer.code) == (409, "sold_out")
    assert answer.body["ticket_id"] == scarce
    assert inventory.stock(plenty) == (10, 0, 0)
    assert inventory.stock(scarce) == (1, 0, 0)
    assert events() == ["order.rejected"]
    order = Order.objects.get()
    assert (order.status, order.settled_at is not None) == ("REJECTED", True)


def test_a_refused_order_is_to_be_seen_with_its_reason(ann, on_sale):
    ann.place({on_sale(1): 2})

    [order] = ann.call("GET", ORDERS).body["results"]

    assert (order["status"], order["rejection"]["code"]) == ("REJECTED", "sold_out")


def test_lines_of_the_same_ticket_count_together(ann, on_sale, inventory):
    ticket = on_sale(10, per_order_limit=4)
    line = {"ticket_id": ticket, "quantity": 2}

    fits = ann.place([line, line], key="fits")
    too_many = ann.place([line, line, {"ticket_id": ticket, "quantity": 1}], key="more")

    assert [item["quantity"] for item in fits.body["items"]] == [4]
    assert (too_many.status, too_many.code) == (409, "limit_exceeded")
    assert inventory.stock(ticket) == (6, 4, 0)


def test_the_limit_per_person_holds_over_several_orders(ann, bob, on_sale, inventory):
    ticket = on_sale(10, per_user_limit=3)

    assert ann.place({ticket: 2}, key="1").status == 201
    beyond = ann.place({ticket: 2}, key="2")
    rest = ann.place({ticket: 1}, key="3")
    somebody_else = bob.place({ticket: 3}, key="2")

    assert (beyond.status, beyond.code) == (409, "limit_exceeded")
    assert (rest.status, somebody_else.status) == (201, 201)
    assert inventory.stock(ticket) == (4, 6, 0)


def test_the_price_comes_from_the_offer_and_stays_with_the_order(ann, on_sale):
    ticket = on_sale(10, price=1000)
    placed = ann.place({ticket: 2})
    hear("catalog", "ticket.changed", offer(ticket, version=2, price=9999))

    now_dearer = ann.place({ticket: 2}, key="later")

    assert (placed.body["total"], now_dearer.body["total"]) == (2000, 19998)
    assert ann.order(placed.body["id"]).body["total"] == 2000


@pytest.mark.parametrize(
    "closed",
    [
        {"status": "OFF_SHELF"},
        {"event_status": "ENDED"},
        {"sale_starts_at": (timezone.now() + timedelta(hours=1)).isoformat()},
        {"sale_ends_at": (timezone.now() - timedelta(seconds=1)).isoformat()},
    ],
    ids=lambda closed: " ".join(closed),
)
def test_nothing_is_sold_outside_of_its_sale(ann, on_sale, inventory, closed):
    ticket = on_sale(10, **closed)

    refused = ann.place({ticket: 1})

    assert (refused.status, refused.code) == (409, "sale_not_open")
    assert inventory.stock(ticket) == (10, 0, 0)


def test_a_sale_that_opens_later_takes_the_same_key(ann, on_sale):
    ticket = on_sale(10, status="OFF_SHELF")
    assert ann.place({ticket: 1}).code == "sale_not_open"
    hear("catalog", "ticket.changed", offer(ticket, version=2))

    assert ann.place({ticket: 1}).status == 201


def test_a_ticket_without_stock_is_not_for_sale_yet_and_takes_the_same_key_later(
    ann, on_sale, inventory
):
    ticket, other = on_sale(stock=None), on_sale(10)
    refused = ann.place({other: 1, ticket: 1})
    inventory.set_stock(ticket, 1)

    assert (refused.status, refused.code) == (409, "sale_not_open")
    assert inventory.stock(other) == (10, 0, 0)
    assert ann.place({other: 1, ticket: 1}).status == 201


def test_one_order_is_in_one_currency(ann, on_sale, inventory):
    euros, francs = on_sale(10), on_sale(10, currency="CHF")

    refused = ann.place({euros: 1, francs: 1})

    assert (refused.status, refused.code) == (409, "mixed_currencies")
    assert inventory.stock(euros) == (10, 0, 0)


def test_an_older_event_never_overwrites_a_newer_offer(on_sale):
    ticket = on_sale(10)
    hear("catalog", "ticket.changed", offer(ticket, version=5, price=500))
    hear("catalog", "ticket.changed", offer(ticket, version=4, price=400))
    event_id = "01890000-0000-7000-8000-000000000001"
    assert hear("catalog", "ticket.changed", offer(ticket, version=6, price=600), event_id)

    assert not hear("catalog", "ticket.changed", offer(ticket, version=7, price=700), event_id)
    known = TicketOffer.objects.get(pk=ticket)
    assert (known.version, known.price) == (6, 600)


def test_the_total_cannot_grow_out_of_its_column(ann, on_sale):
    ticket = on_sale(10_000, price=10**15, per_order_limit=10_000)

    refused = ann.place({ticket: 2})

    assert (refused.status, refused.code) == (409, "total_too_large")


def test_the_event_carries_the_whole_order(ann, on_sale):
    ticket = on_sale(10)
    placed = ann.place({ticket: 2})

    event = OutboxEvent.objects.get()

    assert event.aggregateid == placed.body["id"]
    assert event.payload["data"] == {
        "order_id": placed.body["id"],
        "user_id": str(ann.user_id),
        "status": "AWAITING_PAYMENT",
        "version": 1,
        "late_payment": "",
        "total": 5000,
        "currency": "EUR",
        "items": placed.body["items"],
    }


def test_the_order_id_follows_from_user_and_key_alone(ann, on_sale):
    placed = ann.place({on_sale(1): 1}, key="my-key_1")

    assert UUID(placed.body["id"]) == derived_uuid(str(ann.user_id), "my-key_1")


def test_a_body_may_differ_in_spacing_and_member_order(ann, on_sale):
    ticket = on_sale(10)
    first = ann.place({ticket: 1})
    client = ann.call
    spaced = json.loads(f'{{ "items" : [ {{"quantity":1 , "ticket_id": {ticket}}} ] }}')

    again = client("POST", ORDERS, spaced, idempotency_key="k")

    assert (again.status, again.body) == (201, first.body)


def test_a_key_whose_first_order_was_refused_and_lost_says_that_it_was_used(
    transactional_db, ann, on_sale, road
):
    sold_out_ticket, other = on_sale(0), on_sale(5)
    road.plan("lose")
    assert ann.place({sold_out_ticket: 1, other: 1}).status == 503

    answer = ann.place({other: 1})

    assert (answer.status, answer.code) == (422, "idempotency_key_reused")
