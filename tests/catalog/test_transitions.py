"""The life of an event and of a ticket, cell by cell; of two admins at once, one wins."""

from __future__ import annotations

import pytest

from common.events.models import OutboxEvent
from services.catalog import publishing, tickets
from services.catalog.models import Event, Ticket
from tests.catalog.driver import Caller
from tests.common.concurrency import times, together

pytestmark = pytest.mark.django_db(transaction=True)

EVENT_CELLS = {
    ("DRAFT", "publish"): "PUBLISHED",
    ("DRAFT", "unpublish"): None,
    ("DRAFT", "end"): None,
    ("PUBLISHED", "publish"): None,
    ("PUBLISHED", "unpublish"): "DRAFT",
    ("PUBLISHED", "end"): "ENDED",
    ("ENDED", "publish"): None,
    ("ENDED", "unpublish"): None,
    ("ENDED", "end"): None,
}
TICKET_CELLS = {
    ("OFF_SHELF", "on-sale"): "ON_SALE",
    ("OFF_SHELF", "off-shelf"): None,
    ("ON_SALE", "on-sale"): None,
    ("ON_SALE", "off-shelf"): "OFF_SHELF",
}


@pytest.mark.parametrize(("cell", "target"), EVENT_CELLS.items(), ids=str)
def test_an_event_moves_only_as_its_table_says(admin, show, cell, target):
    status, call = cell
    event = show(status=status)
    answer = admin.move_event(event["id"], call)
    if target:
        assert answer.expect(200)["status"] == target
    else:
        assert (answer.status, answer.code) == (409, "invalid_transition")
        assert answer.body["current_status"] == status
    assert admin.event(event["id"]).expect(200)["status"] == (target or status)


@pytest.mark.parametrize(("cell", "target"), TICKET_CELLS.items(), ids=str)
def test_a_ticket_moves_only_as_its_table_says(admin, show, cell, target):
    status, call = cell
    ticket_id = show()["tickets"][0]["id"]
    if status == "ON_SALE":
        admin.move_ticket(ticket_id, "on-sale").expect(200)
    answer = admin.move_ticket(ticket_id, call)
    if target:
        assert answer.expect(200)["status"] == target
    else:
        assert (answer.status, answer.code) == (409, "invalid_transition")
        assert answer.body["current_status"] == status
    assert admin.ticket(ticket_id).expect(200)["status"] == (target or status)


def test_the_cells_above_are_all_there_are():
    for cells, table, statuses in (
        (EVENT_CELLS, publishing.TRANSITIONS, Event.Status),
        (TICKET_CELLS, tickets.TRANSITIONS, Ticket.Status),
    ):
        assert set(cells) == {(status.value, call) for status in statuses for call in table}
        legal = {(a, call): b for (a, call), b in cells.items() if b}
        assert legal == {(source, call): target for call, (source, target) in table.items()}


def test_what_is_not_there_cannot_be_moved(admin):
    assert admin.move_event(1, "publish").code == "event_not_found"
    assert admin.move_ticket(1, "on-sale").code == "ticket_not_found"


def test_of_two_admins_who_publish_at_once_one_wins(admin, show):
    event = show(status="DRAFT", tickets=2)
    published = OutboxEvent.objects.count()
    answers = together(*times(2, lambda: admin.move_event(event["id"], "publish")))
    assert sorted(answer.status for answer in answers) == [200, 409]
    # The loser left nothing behind: one event for each ticket.
    assert OutboxEvent.objects.count() == published + 2


def test_of_many_who_end_or_unpublish_at_once_one_wins(admin, show):
    event = show()
    calls = ["end", "unpublish"] * 5

    def mover(call: str):
        return lambda: admin.move_event(event["id"], call)

    answers = together(*(mover(call) for call in calls))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 9
    winner = calls[[answer.status for answer in answers].index(200)]
    assert Event.objects.get().status == {"end": "ENDED", "unpublish": "DRAFT"}[winner]


def test_of_many_who_put_a_ticket_on_sale_at_once_one_wins(admin, show):
    ticket_id = show()["tickets"][0]["id"]
    version = Ticket.objects.get().version
    answers = together(*times(10, lambda: admin.move_ticket(ticket_id, "on-sale")))
    assert sorted(answer.status for answer in answers) == [200] + [409] * 9
    assert Ticket.objects.get().version == version + 1


def test_a_repeated_key_gets_the_first_answer_again(admin, show):
    event = show(status="DRAFT")
    first = admin.move_event(event["id"], "publish", idempotency_key="once")
    again = admin.move_event(event["id"], "publish", idempotency_key="once")
    assert (first.status, again.status) == (200, 200)
    assert again.body == first.body
    refused = admin.move_event(event["id"], "publish", idempotency_key="twice")
    again = admin.move_event(event["id"], "publish", idempotency_key="twice")
    assert refused.code == again.code == "invalid_transition"
    assert again.headers["Idempotent-Replayed"] == "true"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"starts_at": "2027-06-01T19:00:00Z"}, {"ends_at": "2027-06-01T18:00:00Z"}),
        ({"ends_at": "2027-06-01T18:00:00Z"}, {"starts_at": "2027-06-01T19:00:00Z"}),
    ],
)
def test_two_halves_of_a_period_cannot_cross_each_other(admin: Caller, show, first, second):
    event = show(starts_at="2027-06-01T17:00:00Z", ends_at="2027-06-01T20:00:00Z")
    assert admin.patch_event(event["id"], **first).status == 200
    refused = admin.patch_event(event["id"], **second)
    assert (refused.status, refused.code) == (400, "validation_error")
    assert refused.body["errors"][0]["code"] == "before_start"


def test_two_halves_of_a_period_sent_at_once_cannot_cross_either(admin, show):
    event = show(starts_at="2027-06-01T17:00:00Z", ends_at="2027-06-01T20:00:00Z")
    late = lambda: admin.patch_event(event["id"], starts_at="2027-06-01T19:00:00Z")  # noqa: E731
    early = lambda: admin.patch_event(event["id"], ends_at="2027-06-01T18:00:00Z")  # noqa: E731
    answers = together(late, early)
    assert sorted(answer.status for answer in answers) == [200, 400]


def test_half_a_sale_window_is_measured_against_the_other_half(admin, show):
    ticket_id = show()["tickets"][0]["id"]
    admin.patch_ticket(ticket_id, sale_starts_at="2027-01-01T00:00:00Z").expect(200)
    refused = admin.patch_ticket(ticket_id, sale_ends_at="2027-01-01T00:00:00Z")
    assert refused.wrong_fields == {"sale_ends_at"}
    admin.patch_ticket(ticket_id, sale_starts_at=None, sale_ends_at="2027-01-01T00:00:00Z").expect(
        200
    )
    refused = admin.patch_ticket(ticket_id, sale_starts_at="2027-01-02T00:00:00Z")
    assert refused.status == 400
    admin.patch_ticket(ticket_id, sale_starts_at="2027-01-02T00:00:00Z", sale_ends_at=None).expect(
        200
    )
