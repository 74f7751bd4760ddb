"""Offers: the projection of the catalog, and one more look at the real catalog before a refusal."""

from __future__ import annotations

import json
import threading
from functools import partial

import pytest
import urllib3

from common.tokens import AccessToken
from services.order import offers
from services.order.models import TicketOffer
from tests.common.concurrency import times, together
from tests.order.driver import hear, offer

pytestmark = pytest.mark.django_db


class Catalog:
    """The real catalog, as its admin uses it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, path, body=None):
        token = AccessToken.issue(user_id=1, username="root", role="admin")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        sent = json.dumps(body or {}).encode()
        answer = urllib3.request("POST", self.url + path, body=sent, headers=headers, timeout=5)
        assert answer.status in (200, 201), answer.data
        return answer.json()

    def new_ticket(self, **changes):
        """Return the id of a ticket that is not on sale, of an event that is published."""
        event = {
            "title": "Harbour Lights",
            "starts_at": "2099-01-01T19:00:00Z",
            "ends_at": "2099-01-01T23:00:00Z",
        }
        event_id = self.post("/api/catalog/events", event)["id"]
        ticket = {"name": "Standing", "price": 1500, "currency": "EUR"} | changes
        ticket_id = self.post(f"/api/catalog/events/{event_id}/tickets", ticket)["id"]
        self.post(f"/api/catalog/events/{event_id}/publish")
        return ticket_id

    def put_on_sale(self, ticket_id):
        self.post(f"/api/catalog/tickets/{ticket_id}/on-sale")


@pytest.fixture
def catalog(catalog_process, settings):
    settings.CATALOG_URL = catalog_process.url
    return Catalog(catalog_process.url)


@pytest.fixture
def looks(monkeypatch):
    """Return the list of tickets that the catalog was asked about."""
    asked = []
    read = offers._read_through
    monkeypatch.setattr(
        offers, "_read_through", lambda ticket_id: asked.append(ticket_id) or read(ticket_id)
    )
    return asked


def test_an_offer_that_no_event_has_told_yet_is_read_from_the_catalog(
    ann, catalog, inventory, looks
):
    ticket = catalog.new_ticket(per_user_limit=2)
    catalog.put_on_sale(ticket)
    inventory.set_stock(ticket, 10)

    placed = ann.place({ticket: 2})
    beyond = ann.place({ticket: 1}, key="more")

    assert (placed.status, placed.body["total"]) == (201, 3000)
    assert placed.body["items"][0]["name"] == "Harbour Lights · Standing"
    assert beyond.code == "limit_exceeded"
    assert looks == [ticket], "the second order knew it"


def test_a_sale_that_has_just_opened_is_open_at_once(ann, catalog, inventory, looks):
    ticket = catalog.new_ticket()
    inventory.set_stock(ticket, 10)
    closed = ann.place({ticket: 1})
    catalog.put_on_sale(ticket)

    assert (closed.status, closed.code) == (409, "sale_not_open")
    assert ann.place({ticket: 1}).status == 201
    assert looks == [ticket, ticket]


def test_a_ticket_that_nobody_knows_is_a_404_that_is_not_kept(ann, catalog):
    answer = ann.place({10**17: 1})

    assert (answer.status, answer.code) == (404, "ticket_not_found")
    assert ann.place({10**17: 1, 10**17 + 1: 1}).code == "ticket_not_found"


def test_an_open_offer_needs_no_catalog(ann, on_sale, looks):
    assert ann.place({on_sale(1): 1}).status == 201
    assert looks == []


def test_a_catalog_that_is_away_makes_an_unknown_ticket_a_503_and_a_closed_one_a_409(ann, on_sale):
    closed = on_sale(1, status="OFF_SHELF")

    unknown_answer, closed_answer = ann.place({10**16: 1}), ann.place({closed: 1})

    assert (unknown_answer.status, unknown_answer.code) == (503, "catalog_unavailable")
    assert (closed_answer.status, closed_answer.code) == (409, "sale_not_open")


def test_what_is_read_late_never_overwrites_a_newer_event(on_sale):
    ticket = on_sale(1)
    hear("catalog", "ticket.changed", offer(ticket, version=9, price=900))

    offers.store(offer(ticket, version=8, price=800))

    assert TicketOffer.objects.get(pk=ticket).price == 900


def test_a_crowd_in_front_of_a_closed_sale_costs_the_catalog_little(
    transactional_db, on_sale, monkeypatch
):
    ticket = on_sale(1, status="OFF_SHELF")
    looked, at_work = [], threading.Lock()

    def slow_look(ticket_id):
        assert at_work.acquire(blocking=False), "two looks at once"
        looked.append(ticket_id)
        threading.Event().wait(0.2)
        at_work.release()
        return True

    monkeypatch.setattr(offers, "_read_through", slow_look)
    known = TicketOffer.objects.get(pk=ticket)

    together(*times(20, partial(offers._looked_up, ticket, known)))

    assert 1 <= len(looked) <= 3


def test_a_draft_is_as_unknown_here_as_in_the_catalog(ann, on_sale, settings):
    settings.CATALOG_URL = "http://127.0.0.1:9"
    ticket = on_sale(5)
    hear("catalog", "ticket.changed", offer(ticket, version=9, event_status="DRAFT"))

    answer = ann.place({ticket: 1})

    assert (answer.status, answer.code) == (404, "ticket_not_found")
    assert "Night of Stars" not in str(answer.body)
