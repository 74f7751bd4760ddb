"""Whatever is sent, the answer is a problem with a code, and nothing has changed."""

from __future__ import annotations

import json

import pytest

from common.events.models import OutboxEvent
from services.catalog.models import Event, Ticket
from tests.catalog.driver import ENDS, EVENTS, STARTS, Answer

pytestmark = pytest.mark.django_db(transaction=True)

WRONG_TEXTS = [None, 5, 1.5, True, [], {}, ["x"], "", "   ", "\x00", "a\x00b"]
WRONG_TIMES = [
    None,
    5,
    0,
    True,
    [],
    {},
    "",
    "soon",
    "2027-13-01T00:00:00Z",
    "2027-02-30T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "9999-12-31T23:59:59-14:00",
    "1999-12-31T23:59:59Z",
    "2200-01-01T00:00:01Z",
    "2027-06-01T19:00:00Z\x00",
    "2027-W22",
    "2027-06-01",
    "2027-06-01T19:00:00+99:99",
    "٢٠٢٧-06-01T19:00:00Z",
    "2027-06-01T19:00:00Z" * 50,
]
WRONG_NUMBERS = [
    True,
    False,
    [],
    {},
    "",
    "x",
    "1",
    "12.00",
    1.0,
    1.5,
    -1,
    10**18,
    10**400,
    "9" * 999,
]

EVENT_CASES = (
    [("title", value) for value in [*WRONG_TEXTS, "x" * 201]]
    + [("description", value) for value in [None, 5, [], {}, "x" * 10_001, "a\x00b"]]
    + [(field, value) for field in ("starts_at", "ends_at") for value in WRONG_TIMES]
)
TICKET_CASES = (
    [("name", value) for value in [*WRONG_TEXTS, "x" * 101]]
    + [("price", value) for value in [None, *WRONG_NUMBERS, 10**9 + 1]]
    + [("per_order_limit", value) for value in [None, *WRONG_NUMBERS, 0, 10**6 + 1]]
    + [("per_user_limit", value) for value in [*WRONG_NUMBERS, 0, 10**6 + 1]]
    + [
        ("currency", value)
        for value in [None, 5, [], {}, "", "eur", "EU", "EURO", "ZZZ", "€€€", "E\x00R"]
    ]
    + [
        (field, value)
        for field in ("sale_starts_at", "sale_ends_at")
        for value in WRONG_TIMES
        if value is not None
    ]
)


def refused(answer: Answer, *fields: str) -> None:
    """Check that this is a validation error about these fields."""
    assert (answer.status, answer.code) == (400, "validation_error"), answer.body
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "code", "request_id", "errors"} <= set(answer.body)
    assert set(fields) <= answer.wrong_fields


def test_every_wrong_value_of_an_event_is_named(admin, show):
    event = show(tickets=0)
    before = list(Event.objects.values())
    for field, value in EVENT_CASES:
        refused(admin.create_event(**{field: value}), field)
        refused(admin.patch_event(event["id"], **{field: value}), field)
    assert list(Event.objects.values()) == before


def test_every_wrong_value_of_a_ticket_is_named(admin, show):
    event = show(tickets=1)
    before, published = list(Ticket.objects.values()), OutboxEvent.objects.count()
    for field, value in TICKET_CASES:
        refused(admin.create_ticket(event["id"], **{field: value}), field)
        refused(admin.patch_ticket(event["tickets"][0]["id"], **{field: value}), field)
    assert list(Ticket.objects.values()) == before
    assert OutboxEvent.objects.count() == published


def test_what_must_be_sent_is_named_when_it_is_missing(admin, show):
    event = show()
    ticket_path = f"/api/catalog/tickets/{event['tickets'][0]['id']}"
    refused(admin.call("POST", EVENTS, {}), "title", "starts_at", "ends_at")
    refused(admin.call("POST", EVENTS), "title", "starts_at", "ends_at")
    refused(admin.call("PUT", f"{EVENTS}/{event['id']}", {"title": "x"}), "starts_at", "ends_at")
    refused(admin.call("POST", f"{EVENTS}/{event['id']}/tickets", {}), "name", "price")
    refused(admin.call("PUT", ticket_path, {"name": "x"}), "price")


def test_an_event_cannot_end_before_it_starts(admin, show):
    refused(admin.create_event(starts_at=ENDS, ends_at=STARTS), "ends_at")
    event = show()
    body = {"title": "x", "starts_at": ENDS, "ends_at": STARTS}
    refused(admin.call("PUT", f"{EVENTS}/{event['id']}", body), "ends_at")
    refused(
        admin.create_ticket(event["id"], sale_starts_at=ENDS, sale_ends_at=ENDS), "sale_ends_at"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "PUBLISHED"},
        {"status": "DRAFT"},
        {"id": 5},
        {"tickets": []},
        {"titel": "x"},
        {"created_at": STARTS},
        {"folded_title": "x"},
        {"__class__": "x"},
        {"": "x"},
        {"x" * 5000: "x"},
    ],
)
def test_an_event_refuses_members_that_it_does_not_take(admin, show, fields):
    event = show(status="ENDED", tickets=0)
    refused(admin.create_event(**fields))
    refused(admin.patch_event(event["id"], **fields))


@pytest.mark.parametrize(
    "fields",
    [
        {"status": "ON_SALE"},
        {"available": 100},
        {"version": 9},
        {"event": 1},
        {"event_id": 1},
        {"per_order_limt": 1},
    ],
)
def test_a_ticket_refuses_members_that_it_does_not_take(admin, show, fields):
    event = show()
    refused(admin.create_ticket(event["id"], **fields), *fields)
    refused(admin.patch_ticket(event["tickets"][0]["id"], **fields), *fields)


def test_a_put_refuses_what_it_would_have_to_change_elsewhere(admin, show):
    event = show()
    ticket = event["tickets"][0]
    refused(admin.call("PUT", f"{EVENTS}/{event['id']}", {**event, "status": "ENDED"}), "status")
    refused(admin.call("PUT", f"{EVENTS}/{event['id']}", {**event, "id": 9}), "id")
    path = f"/api/catalog/tickets/{ticket['id']}"
    refused(admin.call("PUT", path, {**ticket, "event": 99}), "event")
    refused(admin.call("PUT", path, {**ticket, "status": "ON_SALE"}), "status")


BODIES = {
    b"{": "malformed_json",
    b"nope": "malformed_json",
    b"\xff\xfe\x00": "malformed_json",
    b'{"title": "\xe9"}': "malformed_json",
    b'{"title": NaN}': "malformed_json",
    b'{"title": "\\ud800"}': "malformed_json",
    b'{"title": "a", "title": "b"}': "malformed_json",
    b"[" * 100_000: "malformed_json",
    b'{"a":' * 5_000 + b"1" + b"}" * 5_000: "malformed_json",
    b"null": "validation_error",
    b"[]": "validation_error",
    b"5": "validation_error",
    b'"text"': "validation_error",
    b'[{"title": "x"}]': "validation_error",
    b"1" * 5_000: "malformed_json",
    json.dumps({"title": "x" * 1_000_000}).encode(): "body_too_large",
}


@pytest.mark.parametrize(("body", "code"), BODIES.items(), ids=range(len(BODIES)))
def test_a_body_that_is_no_object_is_refused(admin, show, body, code):
    event = show()
    ticket_path = f"/api/catalog/tickets/{event['tickets'][0]['id']}"
    for method, path in (
        ("POST", EVENTS),
        ("PUT", f"{EVENTS}/{event['id']}"),
        ("PATCH", f"{EVENTS}/{event['id']}"),
        ("POST", f"{EVENTS}/{event['id']}/tickets"),
        ("PUT", ticket_path),
        ("PATCH", ticket_path),
    ):
        answer = admin.call(method, path, body)
        assert (answer.status, answer.code) == (413 if code == "body_too_large" else 400, code)


@pytest.mark.parametrize(
    "body", [body for body, code in BODIES.items() if code != "validation_error"]
)
def test_a_move_refuses_a_broken_body_too(admin, show, body):
    event = show(status="DRAFT")
    assert admin.call("POST", f"{EVENTS}/{event['id']}/publish", body).status in (400, 413)
    assert admin.event(event["id"]).expect(200)["status"] == "DRAFT"


QUERIES = {
    "page=0": "page",
    "page=-1": "page",
    "page=x": "page",
    "page=1.5": "page",
    "page=last": "page",
    "page=%D9%A1": "page",
    "page=" + "9" * 1000: "page",
    "page_size=0": "page_size",
    "page_size=-5": "page_size",
    "page_size=many": "page_size",
    "ordering=price": "ordering",
    "ordering=-": "ordering",
    "ordering=tickets__price": "ordering",
    "ordering=starts_at,nope": "ordering",
    "status=SOLD": "status",
    "status=published": "status",
    "starts_after=soon": "starts_after",
    "starts_after=9999-12-31T23:59:59-14:00": "starts_after",
    "starts_after=0001-01-01T00:00:00%2B14:00": "starts_after",
    "starts_before=2027-02-30": "starts_before",
    "starts_before=%00": "starts_before",
    "search=%00": "search",
    "search=" + "x" * 101: "search",
}


@pytest.mark.parametrize(("query", "field"), QUERIES.items(), ids=range(len(QUERIES)))
@pytest.mark.parametrize("who", ["anyone", "admin"])
def test_a_wrong_query_parameter_is_named(request, who, query, field):
    answer = request.getfixturevalue(who).call("GET", f"{EVENTS}?{query}")
    refused(answer, field)


@pytest.mark.parametrize(
    "query",
    [
        "",
        "page=",
        "page_size=",
        "search=",
        "status=",
        "ordering=",
        "starts_after=",
        "search=%FF%FE",
        "search=%F0%9F%8E%AB",
        "search=" + "a+" * 50,
        "utm_source=x",
        "ordering=title,-starts_at,id",
        "ordering=" + "title," * 300 + "id",
        "&&=&=x",
    ],
)
def test_an_odd_query_that_says_nothing_wrong_is_answered(anyone, show, query):
    show()
    assert set(anyone.call("GET", f"{EVENTS}?{query}").expect(200)) == {
        "count",
        "next",
        "previous",
        "results",
    }


@pytest.mark.parametrize(
    "path", ["events/x", "events/-1", "events/1.5", "events/" + "9" * 30, "tickets/1/nope", "nope"]
)
def test_an_address_that_is_not_served_is_a_problem(anyone, path):
    answer = anyone.call("GET", f"/api/catalog/{path}")
    assert (answer.status, answer.code) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [("DELETE", "events/1"), ("PUT", "events"), ("GET", "events/1/publish"), ("POST", "tickets/1")],
)
def test_a_method_that_is_not_served_is_a_problem(admin, method, path):
    answer = admin.call(method, f"/api/catalog/{path}")
    assert (answer.status, answer.code) == (405, "method_not_allowed")


def test_a_body_in_another_format_is_refused(admin):
    from django.test import Client

    response = Client().post(
        EVENTS, {"title": "x"}, headers={"Authorization": f"Bearer {admin.token}"}
    )
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")


@pytest.mark.parametrize("key", ["", " ", "a b", "ä", "x" * 65, "a\x00"])
def test_a_malformed_key_is_refused(admin, key):
    answer = admin.call("POST", EVENTS, {"title": "x"}, idempotency_key=key)
    assert answer.status == 400
    assert Event.objects.count() == 0


def test_text_of_every_script_survives(admin, anyone, show):
    title = "日本 🎫 Ünïcødé עברית <script>alert(1)</script>"
    event = show(title, tickets=0, description=title * 3)
    assert anyone.event(event["id"]).expect(200)["title"] == title
    assert anyone.titles(search="日本") == [title]
    assert anyone.titles(search="🎫") == [title]
