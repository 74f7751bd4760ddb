"""The Django admin: one login by auth's cookie, and every button goes through the domain."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.contrib.admin.models import LogEntry
from django.test import Client

from common.events.models import OutboxEvent
from services.catalog.models import Availability, Event, Ticket

pytestmark = pytest.mark.django_db(transaction=True)

BASE = "/admin/catalog/catalog"


@pytest.fixture
def browser(access_token: Callable[..., str]) -> Client:
    """Return an admin's browser, signed in by the cookie of the auth service."""
    client = Client()
    client.cookies[settings.ACCESS_COOKIE] = access_token(role="admin", username="root")
    return client


def event_form(event: dict[str, Any] | None = None, **changes: str) -> dict[str, str]:
    """Return the fields of an event's page as the browser sends them."""
    fields = {
        "title": event["title"] if event else "Jazz",
        "description": "",
        "starts_at_0": "2027-06-01",
        "starts_at_1": "19:00:00",
        "ends_at_0": "2027-06-01",
        "ends_at_1": "23:00:00",
        "tickets-TOTAL_FORMS": "0",
        "tickets-INITIAL_FORMS": "0",
    }
    for number, ticket in enumerate(event["tickets"] if event else []):
        fields |= ticket_row(number, ticket, event["id"] if event else "")
        fields["tickets-INITIAL_FORMS"] = fields["tickets-TOTAL_FORMS"] = str(number + 1)
    return fields | changes


def ticket_row(number: int, ticket: dict[str, Any], event_id: Any = "") -> dict[str, str]:
    """Return one row of the table of tickets on an event's page."""
    row = {
        "id": str(ticket.get("id", "")),
        "event": str(event_id),
        "name": ticket["name"],
        "price": str(ticket["price"]),
        "currency": "EUR",
        "per_order_limit": "10",
        "per_user_limit": "",
        "sale_starts_at_0": "",
        "sale_starts_at_1": "",
        "sale_ends_at_0": "",
        "sale_ends_at_1": "",
    }
    return {f"tickets-{number}-{name}": value for name, value in row.items()}


def messages_of(response: Any) -> str:
    return " ".join(str(message) for message in response.context["messages"])


def test_without_an_admins_cookie_one_is_sent_to_the_login(access_token):
    client = Client()
    for token in (None, access_token(role="user"), "nonsense"):
        if token:
            client.cookies[settings.ACCESS_COOKIE] = token
        response = client.get(f"{BASE}/event/", follow=False)
        assert response.status_code == 302
        assert "/login" in response.headers["Location"]


def test_every_page_opens(browser, show):
    event = show("Jazz", tickets=2)
    Availability.objects.create(ticket_id=event["tickets"][0]["id"], available=42, version=1)
    pages = [
        "/admin/catalog/",
        f"{BASE}/event/",
        f"{BASE}/event/?q=jazz",
        f"{BASE}/event/?status__exact=PUBLISHED",
        f"{BASE}/event/add/",
        f"{BASE}/event/{event['id']}/change/",
        f"{BASE}/event/{event['id']}/history/",
        f"{BASE}/ticket/",
        f"{BASE}/ticket/?q=Row",
        f"{BASE}/ticket/{event['tickets'][0]['id']}/change/",
        f"{BASE}/availability/",
        f"{BASE}/availability/?q=1",
    ]
    for page in pages:
        assert browser.get(page).status_code == 200, page
    for page in (pages[5], pages[7], pages[9], pages[10]):
        assert "42" in browser.get(page).text, page
    # Where the admin lists a ticket, it says which event it is for.
    assert "Jazz" in browser.get(f"{BASE}/availability/").text


def test_a_search_ignores_case_and_accents(browser, show):
    show("Die ÄRZTE", tickets=0)
    assert "ÄRZTE" in browser.get(f"{BASE}/event/?q=arzte").text
    assert "ÄRZTE" not in browser.get(f"{BASE}/event/?q=jazz").text


def test_an_event_is_made_with_its_tickets(browser, anyone):
    row = ticket_row(0, {"name": "Stalls", "price": 2500})
    form = event_form(title="New", **row, **{"tickets-TOTAL_FORMS": "1"})
    response = browser.post(f"{BASE}/event/add/", form, follow=True)
    assert "was added successfully" in messages_of(response)
    event, ticket = Event.objects.get(), Ticket.objects.get()
    assert (event.title, event.status, event.folded_title) == ("New", "DRAFT", "new")
    assert (ticket.event, ticket.name, ticket.status, ticket.version) == (
        event,
        "Stalls",
        "OFF_SHELF",
        1,
    )
    assert OutboxEvent.objects.get().payload["data"]["event_title"] == "New"
    assert LogEntry.objects.get().user.username == "root"


def test_saving_changes_only_what_was_changed_and_announces_it(browser, anyone, show):
    event = show("Jazz", tickets=2)
    anyone.event(event["id"]).expect(200)
    versions = list(Ticket.objects.order_by("pk").values_list("version", flat=True))
    form = event_form(event, **{"tickets-1-price": "99"})
    # Somebody else changes the title while the form is open.
    Event.objects.update(title="Blues")
    form["title"] = form["title"]
    response = browser.post(f"{BASE}/event/{event['id']}/change/", form, follow=True)
    assert "was changed successfully" in messages_of(response)
    first, second = Ticket.objects.order_by("pk")
    assert second.price == 99
    assert second.version > versions[1]
    assert first.price == 2500
    assert anyone.event(event["id"]).expect(200)["tickets"][1]["price"] == 99
    last = OutboxEvent.objects.order_by("seq").last()
    assert (last.payload["data"]["ticket_id"], last.payload["data"]["price"]) == (second.pk, 99)


def test_the_title_in_the_admin_is_the_title_everywhere(browser, anyone, show):
    event = show("Jazz")
    anyone.list().expect(200)
    form = event_form(event, title="Blues")
    browser.post(f"{BASE}/event/{event['id']}/change/", form, follow=True)
    assert anyone.titles(search="BLUES") == ["Blues"]
    assert OutboxEvent.objects.order_by("seq").last().payload["data"]["event_title"] == "Blues"


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"ends_at_0": "2027-05-01"}, "An event cannot end before it starts."),
        ({"starts_at_0": "0001-01-01"}, "Must be between 2000 and 2200."),
        ({"title": ""}, "This field is required."),
        ({"title": "x" * 201}, "at most 200 characters"),
        ({"tickets-0-price": "-1"}, "greater than or equal to 0"),
        ({"tickets-0-price": "1000000001"}, "less than or equal to 1000000000"),
        ({"tickets-0-price": "9" * 30}, "less than or equal to"),
        ({"tickets-0-currency": "ZZZ"}, "Not an ISO 4217 currency code."),
        ({"tickets-0-per_order_limit": "0"}, "greater than or equal to 1"),
        (
            {
                "tickets-0-sale_starts_at_0": "2027-01-02",
                "tickets-0-sale_starts_at_1": "00:00",
                "tickets-0-sale_ends_at_0": "2027-01-01",
                "tickets-0-sale_ends_at_1": "00:00",
            },
            "The sale must start before it ends.",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_form_that_makes_no_sense_comes_back_with_a_reason(browser, show, changes, complaint):
    event = show()
    before = list(Event.objects.values()), list(Ticket.objects.values())
    response = browser.post(f"{BASE}/event/{event['id']}/change/", event_form(event, **changes))
    assert response.status_code == 200
    assert complaint in response.text
    assert (list(Event.objects.values()), list(Ticket.objects.values())) == before


def run_action(browser: Client, thing: str, action: str, *ids: int) -> str:
    form = {"action": action, "_selected_action": [str(one) for one in ids]}
    return messages_of(browser.post(f"{BASE}/{thing}/", form, follow=True))


def test_actions_move_events_and_say_what_could_not_be_moved(browser, anyone, show):
    draft, ended = show("draft", status="DRAFT"), show("ended", status="ENDED")
    said = run_action(browser, "event", "publish", draft["id"], ended["id"])
    assert "Done: 1." in said
    assert "ended: publish is for an event that is DRAFT; this one is ENDED." in said
    assert anyone.titles() == ["draft"]
    run_action(browser, "event", "unpublish", draft["id"])
    assert anyone.titles() == []
    assert "this one is DRAFT" in run_action(browser, "event", "end", draft["id"])


def test_actions_move_tickets(browser, anyone, show):
    first, second = (ticket["id"] for ticket in show(tickets=2)["tickets"])
    assert "Done: 2." in run_action(browser, "ticket", "put_on_sale", first, second)
    assert anyone.availability(first).body["on_sale"] is True
    assert "Done: 1." in run_action(browser, "ticket", "take_off_shelf", first)
    assert anyone.availability(first).body["on_sale"] is False
    assert "this one is OFF_SHELF" in run_action(browser, "ticket", "take_off_shelf", first)


def test_the_buttons_beside_save_move_what_was_saved(browser, anyone, show):
    event = show("Jazz", status="DRAFT")
    page = f"{BASE}/event/{event['id']}/change/"
    button = re.search(r'name="(catalog_event_publish_this)"', browser.get(page).text)
    assert button
    assert "catalog_event_end_this" not in browser.get(page).text
    form = event_form(event, title="Blues") | {button[1]: "on"}
    said = messages_of(browser.post(page, form, follow=True))
    assert "Done: 1." in said
    assert anyone.titles() == ["Blues"]
    said = messages_of(browser.post(page, form, follow=True))
    assert "publish is for an event that is DRAFT" in said

    ticket = event["tickets"][0]
    page = f"{BASE}/ticket/{ticket['id']}/change/"
    form = {
        name.removeprefix("tickets-0-"): value
        for name, value in ticket_row(0, ticket).items()
        if not name.endswith(("-id", "-event"))
    }
    form |= {"price": "7", "catalog_ticket_put_this_on_sale": "on"}
    browser.post(page, form, follow=True)
    shown = anyone.ticket(ticket["id"]).expect(200)
    assert (shown["price"], shown["status"]) == (7, "ON_SALE")


def test_a_refusal_while_saving_is_a_message_and_changes_nothing(browser, show):
    event = show(status="ENDED")
    row = ticket_row(1, {"name": "Late", "price": 1}, event["id"])
    form = event_form(event, title="renamed") | row | {"tickets-TOTAL_FORMS": "2"}
    response = browser.post(f"{BASE}/event/{event['id']}/change/", form, follow=True)
    assert "The event is over; it gets no more tickets." in messages_of(response)
    assert Event.objects.get().title == "Jazz"
    assert Ticket.objects.count() == 1


def test_nothing_can_be_deleted_and_availability_not_even_changed(browser, show):
    event = show()
    ticket_id = event["tickets"][0]["id"]
    Availability.objects.create(ticket_id=ticket_id, available=42, version=1)
    for page in (
        f"{BASE}/event/{event['id']}/delete/",
        f"{BASE}/ticket/{ticket_id}/delete/",
        f"{BASE}/availability/{ticket_id}/delete/",
        f"{BASE}/availability/add/",
        f"{BASE}/ticket/add/",
    ):
        assert browser.post(page, {"post": "yes"}).status_code == 403, page
    changed = browser.post(f"{BASE}/availability/{ticket_id}/change/", {"available": "1"})
    assert changed.status_code == 403
    assert Availability.objects.get().available == 42
    assert "delete_selected" not in browser.get(f"{BASE}/event/").text


def test_status_and_version_cannot_be_typed_in(browser, show):
    event = show(status="DRAFT")
    form = event_form(event, title="x", status="PUBLISHED", folded_title="evil")
    browser.post(f"{BASE}/event/{event['id']}/change/", form | {"tickets-0-version": "99"})
    row = Event.objects.get()
    assert (row.status, row.folded_title) == ("DRAFT", "x")
    assert Ticket.objects.get().version < 99


def test_a_form_from_elsewhere_is_refused(access_token, show):
    event = show(status="DRAFT")
    client = Client(enforce_csrf_checks=True)
    client.cookies[settings.ACCESS_COOKIE] = access_token(role="admin")
    form = {"action": "publish", "_selected_action": str(event["id"])}
    assert client.post(f"{BASE}/event/", form).status_code == 403
    assert Event.objects.get().status == "DRAFT"
