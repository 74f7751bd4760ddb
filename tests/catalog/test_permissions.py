"""Who may call what: the matrix of callers and calls."""

from __future__ import annotations

import pytest
from django.conf import settings
from django.test import Client

from tests.catalog.driver import ENDS, EVENTS, STARTS, Caller

pytestmark = pytest.mark.django_db(transaction=True)

EVENT_BODY = {"title": "Jazz", "starts_at": STARTS, "ends_at": ENDS}
TICKET_BODY = {"name": "Box", "price": 5}
READS = [
    ("GET", "/api/catalog/events", None),
    ("GET", "/api/catalog/events/{event}", None),
    ("GET", "/api/catalog/tickets/{ticket}", None),
    ("GET", "/api/catalog/tickets/{ticket}/availability", None),
]
WRITES = [
    ("POST", "/api/catalog/events", EVENT_BODY),
    ("PUT", "/api/catalog/events/{event}", EVENT_BODY),
    ("PATCH", "/api/catalog/events/{event}", {}),
    ("POST", "/api/catalog/events/{event}/tickets", TICKET_BODY),
    ("PUT", "/api/catalog/tickets/{ticket}", TICKET_BODY),
    ("PATCH", "/api/catalog/tickets/{ticket}", {}),
    ("POST", "/api/catalog/tickets/{ticket}/on-sale", None),
    ("POST", "/api/catalog/tickets/{ticket}/off-shelf", None),
    ("POST", "/api/catalog/events/{event}/unpublish", None),
    ("POST", "/api/catalog/events/{event}/publish", None),
    ("POST", "/api/catalog/events/{event}/end", None),
]
INTERNAL = [("GET", "/internal/catalog/tickets/{ticket}/offer", None)]


def statuses(caller: Caller, calls, event) -> set[int]:
    ids = {"event": event["id"], "ticket": event["tickets"][0]["id"]}
    return {caller.call(method, path.format(**ids), body).status for method, path, body in calls}


def test_anybody_reads(anyone, user, admin, order, show):
    event = show()
    for caller in (anyone, user, admin, order):
        assert statuses(caller, READS, event) == {200}


def test_only_an_admin_writes(anyone, user, admin, order, show):
    event = show()
    before = admin.event(event["id"]).body
    assert statuses(anyone, WRITES, event) == {401}
    assert statuses(user, WRITES, event) == {403}
    assert statuses(order, WRITES, event) == {403}
    assert admin.event(event["id"]).body == before
    assert statuses(admin, WRITES, event) == {200, 201}


def test_only_a_service_reads_offers(anyone, user, admin, order, show):
    event = show()
    assert statuses(anyone, INTERNAL, event) == {401}
    assert statuses(user, INTERNAL, event) == {403}
    assert statuses(admin, INTERNAL, event) == {403}
    assert statuses(order, INTERNAL, event) == {200}


def test_a_bad_token_is_refused_even_where_none_is_needed(show):
    show()
    assert Caller("nonsense").list().code == "invalid_token"


def test_a_service_token_for_another_service_is_worth_nothing(show, monkeypatch):
    from common.tokens import ServiceToken

    token = ServiceToken(issuer="order", audience="inventory")
    token["sub"] = "order"
    assert statuses(Caller(str(token)), INTERNAL, show()) == {401}


def test_identity_headers_of_a_client_mean_nothing(anyone, show):
    show(status="DRAFT")
    answer = anyone.call("GET", EVENTS, x_user_role="admin", x_user_id="1", x_role="admin")
    assert answer.expect(200)["count"] == 0
    assert anyone.call("POST", EVENTS, EVENT_BODY, x_user_role="admin").status == 401


def test_what_an_admin_is_shown_may_not_be_kept_by_a_proxy(admin, anyone, show):
    show(status="DRAFT")
    assert "no-store" in admin.list().headers["Cache-Control"]
    assert "no-store" not in anyone.list().headers.get("Cache-Control", "")


def test_an_admin_in_a_browser_needs_the_csrf_token_to_write(access_token, show):
    event = show(status="DRAFT")
    client = Client(enforce_csrf_checks=True)
    client.cookies[settings.ACCESS_COOKIE] = access_token(role="admin")
    path = f"{EVENTS}/{event['id']}/publish"
    assert client.get(f"{EVENTS}/{event['id']}").status_code == 200
    refused = client.post(path)
    assert (refused.status_code, refused.json()["code"]) == (403, "csrf_failed")
    client.cookies["csrftoken"] = "a" * 32
    accepted = client.post(path, headers={"X-CSRFToken": "a" * 32})
    assert accepted.status_code == 200


def test_the_browsable_api_offers_an_admin_the_forms(access_token, show):
    event = show()
    client = Client(headers={"Accept": "text/html"})
    client.cookies[settings.ACCESS_COOKIE] = access_token(role="admin")
    ticket_id = event["tickets"][0]["id"]
    for path in (
        EVENTS,
        f"{EVENTS}/{event['id']}",
        f"{EVENTS}/{event['id']}/tickets",
        f"{EVENTS}/{event['id']}/publish",
        f"/api/catalog/tickets/{ticket_id}",
        f"/api/catalog/tickets/{ticket_id}/availability",
    ):
        response = client.get(path)
        assert response.headers["Content-Type"].startswith("text/html"), path
        assert response.status_code in (200, 405)
        assert ("_content" in response.text) == (not path.endswith("availability")), path
    assert "starts_after" in client.get(EVENTS).text
    assert "Filters" in client.get(EVENTS).text


def test_the_browsable_api_shows_a_person_what_is_published(access_token, show):
    show("Jazz")
    show("Secret", status="DRAFT")
    client = Client(headers={"Accept": "text/html"})
    for token in (None, access_token()):
        if token:
            client.cookies[settings.ACCESS_COOKIE] = token
        page = client.get(f"{EVENTS}?page_size=1")
        assert "Jazz" in page.text
        assert "Secret" not in page.text
        assert client.get(f"{EVENTS}?page=x").status_code == 400
