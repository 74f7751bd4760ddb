"""What the public and admins see: published things, found by words, times and order, in pages."""

from __future__ import annotations

import pytest
from django.utils import timezone

from services.catalog.availability import apply_stock_changed
from tests.catalog.driver import ENDS, STARTS

pytestmark = pytest.mark.django_db(transaction=True)

EVENT_MEMBERS = {"id", "title", "description", "starts_at", "ends_at", "status", "tickets"}
TICKET_MEMBERS = {
    "id",
    "event",
    "name",
    "price",
    "currency",
    "per_order_limit",
    "per_user_limit",
    "sale_starts_at",
    "sale_ends_at",
    "status",
    "available",
}


def test_an_event_needs_only_a_title_and_its_times(admin):
    event = admin.create_event(title="Jazz").expect(201)
    assert set(event) == EVENT_MEMBERS
    assert (event["title"], event["description"], event["status"]) == ("Jazz", "", "DRAFT")
    assert (event["starts_at"], event["ends_at"], event["tickets"]) == (STARTS, ENDS, [])


def test_a_ticket_needs_only_a_name_and_a_price(admin, show):
    event = show(tickets=0)
    ticket = admin.create_ticket(event["id"], name="Stalls", price=0).expect(201)
    assert set(ticket) == TICKET_MEMBERS
    assert ticket == ticket | {
        "event": event["id"],
        "name": "Stalls",
        "price": 0,
        "currency": "EUR",
        "per_order_limit": 10,
        "per_user_limit": None,
        "sale_starts_at": None,
        "sale_ends_at": None,
        "status": "OFF_SHELF",
        "available": 0,
    }


def test_times_are_answered_in_utc_whatever_offset_they_were_sent_with(admin):
    event = admin.create_event(
        starts_at="2027-06-01T21:00:00+02:00", ends_at="2027-06-01T23:30:00.25+00:00"
    ).expect(201)
    assert event["starts_at"] == "2027-06-01T19:00:00Z"
    assert event["ends_at"] == "2027-06-01T23:30:00.250000Z"


def test_the_public_is_shown_published_events_and_ended_ones_if_it_asks(anyone, show):
    for status in ("DRAFT", "PUBLISHED", "ENDED"):
        show(status, status=status)
    assert anyone.titles() == ["PUBLISHED"]
    assert anyone.titles(status="PUBLISHED") == ["PUBLISHED"]
    assert anyone.titles(status="ENDED") == ["ENDED"]
    assert anyone.titles(status="DRAFT") == []


def test_an_admin_is_shown_all_events_and_filters_by_status(admin, show):
    for status in ("DRAFT", "PUBLISHED", "ENDED"):
        show(status, status=status)
    assert set(admin.titles()) == {"DRAFT", "PUBLISHED", "ENDED"}
    assert admin.titles(status="DRAFT") == ["DRAFT"]


@pytest.mark.parametrize("status", ["DRAFT", "PUBLISHED", "ENDED"])
def test_a_draft_and_its_tickets_are_not_there_for_the_public(anyone, user, order, show, status):
    event = show(status=status)
    ticket_id = event["tickets"][0]["id"]
    for caller in (anyone, user, order):
        for answer in (
            caller.event(event["id"]),
            caller.ticket(ticket_id),
            caller.availability(ticket_id),
        ):
            assert answer.status == (404 if status == "DRAFT" else 200)


def test_an_admin_sees_a_draft_under_the_same_addresses(admin, show):
    event = show(status="DRAFT")
    ticket_id = event["tickets"][0]["id"]
    assert admin.event(event["id"]).expect(200)["tickets"][0]["id"] == ticket_id
    assert admin.ticket(ticket_id).expect(200)["event"] == event["id"]
    assert admin.availability(ticket_id).expect(200)["on_sale"] is False


def test_what_was_never_there_is_not_found(anyone, admin):
    for caller in (anyone, admin):
        for path in ("events/1", "tickets/1", "tickets/1/availability", f"events/{'9' * 18}"):
            answer = caller.call("GET", f"/api/catalog/{path}")
            assert answer.status == 404
            assert answer.code in ("event_not_found", "ticket_not_found")
            assert answer.headers["Content-Type"] == "application/problem+json"


def test_the_list_carries_tickets_with_what_is_left_of_them(anyone, show):
    event = show(tickets=2)
    first, second = (ticket["id"] for ticket in event["tickets"])
    apply_stock_changed({"ticket_id": second, "available": 7, "version": 3}, {})
    tickets = anyone.list().expect(200)["results"][0]["tickets"]
    assert [(t["id"], t["available"]) for t in tickets] == [(first, 0), (second, 7)]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("jazz", ["Jazz Night", "Café JAZZ"]),
        ("JAZZ night", ["Jazz Night"]),
        ("night jazz", ["Jazz Night"]),
        ("cafe", ["Café JAZZ"]),
        ("CAFÉ", ["Café JAZZ"]),
        ("ärzte", ["Die ÄRZTE"]),
        ("strasse", ["Die ÄRZTE"]),
        ("STRAẞE", ["Die ÄRZTE"]),
        ("50%", ["Die ÄRZTE"]),
        ("50_", []),
        ("a\\b", []),
        ("' OR 1=1 --", []),
        ("nowhere", []),
        ("   ", ["Jazz Night", "Café JAZZ", "Die ÄRZTE"]),
    ],
)
def test_a_search_finds_every_word_in_any_case_and_accent(anyone, show, words, found):
    show("Jazz Night", tickets=0)
    show("Café JAZZ", tickets=0, description="late")
    show("Die ÄRZTE", tickets=0, description="In der Straße, 50% off")
    assert anyone.titles(search=words) == found


def test_a_search_follows_a_changed_title_and_description(admin, anyone, show):
    event = show("Jazz", tickets=0, description="horns")
    admin.patch_event(event["id"], title="BLÜES").expect(200)
    assert anyone.titles(search="jazz") == []
    assert anyone.titles(search="blues HORNS") == ["BLÜES"]
    admin.patch_event(event["id"], description="GUITARS").expect(200)
    assert anyone.titles(search="horns") == []
    assert anyone.titles(search="guitars") == ["BLÜES"]


def test_events_are_filtered_by_when_they_start(anyone, show):
    for day in (1, 2, 3):
        show(
            f"day {day}",
            tickets=0,
            starts_at=f"2027-06-0{day}T10:00:00Z",
            ends_at=ENDS.replace("01T", "09T"),
        )
    assert anyone.titles(starts_after="2027-06-02T10:00:00Z") == ["day 2", "day 3"]
    assert anyone.titles(starts_before="2027-06-02T10:00:00Z") == ["day 1"]
    assert anyone.titles(starts_after="2027-06-02T12:00:00+02:00", starts_before="2027-06-03") == [
        "day 2"
    ]


@pytest.mark.parametrize(
    ("ordering", "titles"),
    [
        (None, ["b", "C", "a"]),
        ("starts_at", ["b", "C", "a"]),
        ("-starts_at", ["a", "C", "b"]),
        ("title", ["a", "b", "C"]),
        ("-title", ["C", "b", "a"]),
        ("id", ["a", "b", "C"]),
        ("-id", ["C", "b", "a"]),
    ],
)
def test_events_are_ordered_as_asked(anyone, show, ordering, titles):
    for title, day in (("a", 3), ("b", 1), ("C", 2)):
        show(title, tickets=0, starts_at=f"2027-05-0{day}T10:00:00Z")
    assert anyone.titles(**({"ordering": ordering} if ordering else {})) == titles


@pytest.mark.parametrize("who", ["anyone", "admin"])
def test_pages_cover_everything_once_and_link_to_each_other(request, show, who):
    caller = request.getfixturevalue(who)
    for number in range(5):
        show(f"same time {number}", tickets=0)
    first = caller.list(page_size=2).expect(200)
    assert (first["count"], first["previous"]) == (5, None)
    seen, page = [], first
    while page["next"]:
        seen += [event["id"] for event in page["results"]]
        page = caller.call("GET", page["next"]).expect(200)
        assert page["previous"]
    seen += [event["id"] for event in page["results"]]
    assert len(seen) == len(set(seen)) == 5
    assert caller.list(page=3, page_size=2).expect(200)["results"][0]["id"] == seen[4]


@pytest.mark.parametrize("who", ["anyone", "admin"])
def test_an_empty_catalog_has_one_empty_page(request, who):
    caller = request.getfixturevalue(who)
    page = {"count": 0, "next": None, "previous": None, "results": []}
    assert caller.list().expect(200) == page
    assert caller.list(page=2).code == "not_found"


def test_a_page_has_at_most_a_hundred_events(anyone, show):
    show(tickets=0)
    page = anyone.list(page_size=5000).expect(200)
    assert (page["count"], page["next"]) == (1, None)


@pytest.mark.parametrize(
    ("window", "open_now"),
    [
        ({}, True),
        ({"sale_starts_at": -60}, True),
        ({"sale_starts_at": 60}, False),
        ({"sale_ends_at": 60}, True),
        ({"sale_ends_at": -60}, False),
        ({"sale_starts_at": -60, "sale_ends_at": 60}, True),
    ],
)
def test_a_ticket_is_on_sale_within_its_window(admin, anyone, show, window, open_now):
    now = timezone.now()
    ticket_id = show()["tickets"][0]["id"]
    times = {
        name: (now + timezone.timedelta(seconds=seconds)).isoformat()
        for name, seconds in window.items()
    }
    admin.patch_ticket(ticket_id, **times).expect(200)
    assert anyone.availability(ticket_id).expect(200)["on_sale"] is False
    admin.move_ticket(ticket_id, "on-sale").expect(200)
    assert anyone.availability(ticket_id).expect(200)["on_sale"] is open_now


def test_a_sale_opens_by_the_clock_though_its_page_is_cached(admin, anyone, show):
    ticket_id = show()["tickets"][0]["id"]
    admin.move_ticket(ticket_id, "on-sale").expect(200)
    opens = timezone.now() + timezone.timedelta(seconds=1.2)
    admin.patch_ticket(ticket_id, sale_starts_at=opens.isoformat()).expect(200)
    states = []
    while timezone.now() < opens + timezone.timedelta(milliseconds=50):
        asked = timezone.now()
        states.append((asked > opens, anyone.availability(ticket_id).expect(200)["on_sale"]))
    assert (False, False) in states
    assert (True, False) not in states
    assert anyone.availability(ticket_id).expect(200)["on_sale"] is True


def test_an_ended_event_is_reachable_and_not_on_sale(admin, anyone, show):
    event = show()
    ticket_id = event["tickets"][0]["id"]
    admin.move_ticket(ticket_id, "on-sale").expect(200)
    assert anyone.availability(ticket_id).expect(200)["on_sale"] is True
    admin.move_event(event["id"], "end").expect(200)
    assert anyone.event(event["id"]).expect(200)["status"] == "ENDED"
    assert anyone.availability(ticket_id).expect(200)["on_sale"] is False


def test_availability_says_how_many_and_whether_any(anyone, show):
    ticket_id = show()["tickets"][0]["id"]
    state = anyone.availability(ticket_id).expect(200)
    assert set(state) == {"ticket_id", "available", "on_sale", "sold_out", "as_of"}
    assert (state["ticket_id"], state["available"], state["sold_out"]) == (ticket_id, 0, True)
    apply_stock_changed({"ticket_id": ticket_id, "available": 3, "version": 1}, {})
    state = anyone.availability(ticket_id).expect(200)
    assert (state["available"], state["sold_out"]) == (3, False)


def test_put_replaces_and_patch_changes(admin, show):
    event = show("Jazz", description="horns")
    event_path, ticket_path = f"/api/catalog/events/{event['id']}", ""
    changed = admin.patch_event(event["id"], title="Blues").expect(200)
    assert (changed["title"], changed["description"]) == ("Blues", "horns")
    body = {"title": "Rock", "starts_at": STARTS, "ends_at": STARTS}
    replaced = admin.call("PUT", event_path, body).expect(200)
    assert (replaced["title"], replaced["description"], replaced["ends_at"]) == ("Rock", "", STARTS)
    assert replaced["status"] == "PUBLISHED"

    ticket_path = f"/api/catalog/tickets/{event['tickets'][0]['id']}"
    limited = {"per_user_limit": 2, "currency": "CHF", "sale_ends_at": ENDS}
    ticket = admin.call("PATCH", ticket_path, limited).expect(200)
    assert ticket == ticket | limited | {"price": 2500}
    replaced = admin.call("PUT", ticket_path, {"name": "Box", "price": 1}).expect(200)
    assert (replaced["name"], replaced["price"], replaced["currency"]) == ("Box", 1, "EUR")
    assert (replaced["per_user_limit"], replaced["sale_ends_at"]) == (None, None)


def test_what_was_read_may_be_put_back_as_it_is(admin, show):
    event = show(tickets=1)
    ticket = event["tickets"][0]
    assert admin.call("PUT", f"/api/catalog/events/{event['id']}", event).expect(200) == event
    assert admin.call("PUT", f"/api/catalog/tickets/{ticket['id']}", ticket).expect(200) == ticket


def test_an_empty_patch_changes_nothing(admin, order, show):
    ticket_id = show()["tickets"][0]["id"]
    path = f"/internal/catalog/tickets/{ticket_id}/offer"
    before = order.call("GET", path).expect(200)
    admin.patch_ticket(ticket_id).expect(200)
    assert order.call("GET", path).expect(200) == before


def test_an_event_has_at_most_a_hundred_tickets(admin, show, monkeypatch):
    monkeypatch.setattr("services.catalog.tickets.TICKETS_PER_EVENT_MAX", 2)
    event = show(tickets=2)
    assert admin.create_ticket(event["id"]).code == "too_many_tickets"


def test_an_ended_event_gets_no_more_tickets(admin, show):
    event = show(status="ENDED")
    assert admin.create_ticket(event["id"]).code == "event_ended"
    assert admin.create_ticket(event["id"] + 1).code == "event_not_found"


def test_a_repeated_key_makes_one_event(admin):
    body = {"title": "Jazz", "starts_at": STARTS, "ends_at": ENDS}
    first = admin.call("POST", "/api/catalog/events", body, idempotency_key="k1")
    again = admin.call("POST", "/api/catalog/events", body, idempotency_key="k1")
    assert (again.status, again.body) == (first.status, first.body) == (201, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert admin.list().expect(200)["count"] == 1
    other = admin.call("POST", "/api/catalog/events", {**body, "title": "x"}, idempotency_key="k1")
    assert (other.status, other.code) == (422, "idempotency_key_reused")


def test_an_event_published_between_count_and_page_is_counted(anyone, show, monkeypatch):
    for _ in range(3):
        show(tickets=0)
    monkeypatch.setattr("django.db.models.query.QuerySet.count", lambda rows: 2)
    page = anyone.list(page_size=2, page=2).expect(200)
    assert (page["count"], len(page["results"])) == (3, 1)
