"""What the catalog tells the others: ticket.changed with the whole state, and offers when asked."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import transaction

from common.events.models import OutboxEvent
from common.events.redis_streams import RedisStreams
from common.events.relay import Relay
from common.events.transport import stream_name
from services.catalog import publishing, tickets
from services.catalog.models import Event, Ticket
from tests.catalog.driver import ENDS, STARTS
from tests.common.concurrency import together

pytestmark = pytest.mark.django_db(transaction=True)

MEMBERS = {
    "ticket_id",
    "version",
    "event_id",
    "event_title",
    "event_status",
    "event_starts_at",
    "event_ends_at",
    "name",
    "price",
    "currency",
    "per_order_limit",
    "per_user_limit",
    "sale_starts_at",
    "sale_ends_at",
    "status",
}


def announced(ticket_id: int) -> list[dict[str, Any]]:
    """Return the data of every ticket.changed of a ticket, in order."""
    rows = OutboxEvent.objects.filter(aggregateid=str(ticket_id), type="ticket.changed")
    return [row.payload["data"] for row in rows.order_by("seq")]


def test_a_new_ticket_is_announced_with_its_whole_state(admin, show):
    event = show("Jazz", tickets=0, status="DRAFT")
    ticket = admin.create_ticket(
        event["id"], name="Box", price=990, currency="CHF", per_user_limit=2, sale_ends_at=ENDS
    ).expect(201)
    assert announced(ticket["id"]) == [
        {
            "ticket_id": ticket["id"],
            "version": 1,
            "event_id": event["id"],
            "event_title": "Jazz",
            "event_status": "DRAFT",
            "event_starts_at": STARTS,
            "event_ends_at": ENDS,
            "name": "Box",
            "price": 990,
            "currency": "CHF",
            "per_order_limit": 10,
            "per_user_limit": 2,
            "sale_starts_at": None,
            "sale_ends_at": ENDS,
            "status": "OFF_SHELF",
        }
    ]
    row = OutboxEvent.objects.get()
    assert (row.aggregatetype, row.type) == ("ticket", "ticket.changed")
    assert row.payload["source"] == "/flashsale/catalog"


def test_every_change_of_a_ticket_or_its_event_is_announced_with_a_newer_version(admin, show):
    event = show("Jazz", tickets=2, status="DRAFT")
    first, second = (ticket["id"] for ticket in event["tickets"])
    admin.patch_ticket(first, price=1).expect(200)
    admin.move_ticket(first, "on-sale").expect(200)
    admin.move_event(event["id"], "publish").expect(200)
    admin.patch_event(event["id"], title="Blues").expect(200)
    admin.move_event(event["id"], "end").expect(200)
    admin.move_ticket(first, "off-shelf").expect(200)
    members = ("version", "price", "status", "event_status", "event_title")
    assert [tuple(data[name] for name in members) for data in announced(first)] == [
        (1, 2500, "OFF_SHELF", "DRAFT", "Jazz"),
        (2, 1, "OFF_SHELF", "DRAFT", "Jazz"),
        (3, 1, "ON_SALE", "DRAFT", "Jazz"),
        (4, 1, "ON_SALE", "PUBLISHED", "Jazz"),
        (5, 1, "ON_SALE", "PUBLISHED", "Blues"),
        (6, 1, "ON_SALE", "ENDED", "Blues"),
        (7, 1, "OFF_SHELF", "ENDED", "Blues"),
    ]
    assert [e["version"] for e in announced(second)] == [1, 2, 3, 4]


def test_the_event_is_in_the_transaction_of_its_effect(admin, show):
    event = show(status="DRAFT")
    ticket_id = event["tickets"][0]["id"]
    before = announced(ticket_id)

    def dies() -> None:
        with transaction.atomic():
            publishing.move_event(event["id"], "publish")
            tickets.revise_ticket(ticket_id, {"price": 1})
            assert len(announced(ticket_id)) == len(before) + 2
            raise RuntimeError("the database dies here")

    with pytest.raises(RuntimeError):
        dies()
    assert announced(ticket_id) == before
    assert (Event.objects.get().status, Ticket.objects.get().price) == ("DRAFT", 2500)


def test_a_refused_change_announces_nothing(admin, show):
    event = show()
    ticket_id = event["tickets"][0]["id"]
    before = announced(ticket_id)
    assert admin.move_event(event["id"], "publish").status == 409
    assert admin.move_ticket(ticket_id, "off-shelf").status == 409
    assert admin.patch_ticket(ticket_id, price=-1).status == 400
    assert admin.patch_event(event["id"], ends_at="2001-01-01T00:00:00Z").status == 400
    assert announced(ticket_id) == before


def test_changes_at_once_leave_with_different_versions_and_the_last_says_it_all(admin, show):
    event = show(tickets=1)
    ticket_id = event["tickets"][0]["id"]
    before = len(announced(ticket_id))
    calls = [lambda n=n: admin.patch_ticket(ticket_id, price=n).expect(200) for n in range(5)]
    calls += [
        lambda n=n: admin.patch_event(event["id"], title=f"title {n}").expect(200) for n in range(5)
    ]
    together(*calls)
    versions = [data["version"] for data in announced(ticket_id)]
    assert len(versions) == before + 10
    assert versions == sorted(set(versions))
    last, row = announced(ticket_id)[-1], Ticket.objects.select_related("event").get()
    assert (last["version"], last["price"]) == (row.version, row.price)
    assert last["event_title"] == row.event.title


def test_no_ticket_made_while_its_event_changes_misses_the_change(admin, show):
    event = show(tickets=0, status="DRAFT")
    created = []
    together(
        *[lambda: created.append(admin.create_ticket(event["id"]).expect(201)["id"])] * 4,
        lambda: admin.move_event(event["id"], "publish").expect(200),
    )
    assert len(created) == 4
    for ticket_id in created:
        assert announced(ticket_id)[-1]["event_status"] == "PUBLISHED"


def test_an_offer_is_what_was_announced_last(order, admin, show):
    event = show(status="DRAFT")
    ticket_id = event["tickets"][0]["id"]
    path = f"/internal/catalog/tickets/{ticket_id}/offer"
    offer = order.call("GET", path).expect(200)
    assert set(offer) == MEMBERS
    assert offer == announced(ticket_id)[-1]
    admin.move_event(event["id"], "publish").expect(200)
    assert order.call("GET", path).expect(200) == announced(ticket_id)[-1]
    missing = order.call("GET", f"/internal/catalog/tickets/{ticket_id + 1}/offer")
    assert (missing.status, missing.code) == (404, "ticket_not_found")


def test_the_relay_sends_what_was_announced(admin, show):
    event = show()
    transport = RedisStreams()
    transport._redis.delete(stream_name("catalog"))
    relay = Relay(transport, "test")
    while relay.step():
        pass
    assert OutboxEvent.objects.filter(published_at=None).count() == 0
    messages = transport._redis.xrange(stream_name("catalog"))
    assert len(messages) == len(announced(event["tickets"][0]["id"]))
