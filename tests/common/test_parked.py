"""Parked events: a person sees them, tries them again, or gives them up; nothing happens unseen."""

from __future__ import annotations

import json
from io import StringIO
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from common.events import inbox
from common.events.audit import nothing_parked
from common.events.inbox import apply_event, park_event
from common.events.models import InboxEvent
from services.inventory.audit import audit
from tests.common.handlers import tallies

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("subscribed")]


def event(number, **changes):
    return {
        "id": str(uuid4()),
        "source": "/flashsale/inventory",
        "type": "test.happened",
        "data": {"number": number},
        **changes,
    }


def parked(*events, error="RuntimeError: broken\nand more"):
    for one in events:
        park_event(one, error)
    return [one["id"] for one in events]


def run(*arguments):
    """Run the command; return what it printed, and the error that it ended with, if any."""
    output = StringIO()
    try:
        call_command("events", *arguments, stdout=output)
    except CommandError as error:
        return output.getvalue(), error
    return output.getvalue(), None


def status(event_id):
    return InboxEvent.objects.get(pk=event_id).status


def test_the_list_says_what_is_parked_since_when_and_why():
    (one,) = parked(event(1))
    apply_event(event(2))
    output, _ = run("list")
    (line,) = output.splitlines()
    assert line.startswith(f"{one}  test.happened  since 20")
    assert line.endswith("RuntimeError: broken")


def test_an_empty_list_says_so():
    assert run("list") == ("No event is parked.\n", None)
    assert run("retry", "--all") == ("No event is parked.\n", None)
    assert json.loads(run("list", "--json")[0]) == []


def test_the_list_as_json_has_the_whole_event():
    one = event(1)
    parked(one)
    (row,) = json.loads(run("list", "--json")[0])
    assert row["event"] == one
    assert (row["id"], row["type"]) == (one["id"], "test.happened")
    assert row["error"] == "RuntimeError: broken\nand more"


def test_parked_events_are_applied_once_the_cause_is_mended():
    one, two, three = parked(event(1), event(2), event(3))
    output, error = run("retry", two, one)
    assert error is None
    assert output.splitlines() == [
        f"{two}  test.happened  applied",
        f"{one}  test.happened  applied",
    ]
    assert tallies() == {1: 1, 2: 1}
    assert run("retry", "--all")[0] == f"{three}  test.happened  applied\n"
    assert tallies() == {1: 1, 2: 1, 3: 1}
    assert not InboxEvent.objects.exclude(status=InboxEvent.Status.APPLIED).exists()


def test_one_that_fails_again_stays_parked_and_the_others_are_applied():
    poison, good = parked(event(13, data={"number": 13, "poison": True}), event(1))
    output, error = run("retry", "--all")
    assert "1 could not be applied" in str(error)
    assert f"{poison}  test.happened  failed: RuntimeError: number 13 is poison" in output
    assert tallies() == {1: 1}
    assert (status(poison), status(good)) == ("PARKED", "APPLIED")
    assert "number 13 is poison" in InboxEvent.objects.get(pk=poison).error


def test_what_nobody_handles_any_more_and_what_is_unreadable_fails_with_a_reason():
    unwanted, *_ = parked(event(1, type="gone.away"))
    park_event({"unreadable": {"event": "{"}}, "no source")
    output, error = run("retry", "--all")
    assert "2 could not be applied" in str(error)
    assert f"{unwanted}  gone.away  failed: nothing here handles events of this type" in output
    assert "failed: KeyError: 'source'" in output


def test_an_id_that_is_not_parked_is_an_error():
    one = event(1)
    apply_event(one)
    output, error = run("retry", one["id"])
    assert error
    assert output == f"{one['id']}  -  failed: it is not parked\n"
    assert tallies() == {1: 1}


def test_a_discarded_event_is_never_applied_and_keeps_its_reason():
    one = event(1)
    parked(one)
    output, error = run("discard", one["id"], "--reason", "sent by a test system")
    assert (output, error) == (f"{one['id']}  discarded\n", None)
    row = InboxEvent.objects.get()
    assert (row.status, row.payload) == ("DISCARDED", one)
    assert row.error.startswith("discarded: sent by a test system; parked: RuntimeError")
    assert not apply_event(one), "should it be delivered again"
    assert tallies() == {}
    assert run("list")[0] == "No event is parked.\n"


def test_what_was_applied_meanwhile_cannot_be_discarded():
    one = event(1)
    apply_event(one)
    _, error = run("discard", one["id"], "--reason", "too late")
    assert f"no parked event has the id {one['id']}" in str(error)
    assert status(one["id"]) == "APPLIED"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "ACTION"),
        (("retry",), "one of the arguments"),
        (("retry", "seven"), "an event's id is a UUID, not 'seven'"),
        (("retry", "--all", str(uuid4())), "not allowed with"),
        (("discard", str(uuid4())), "--reason"),
        (("discard", str(uuid4()), "--reason", " "), "a reason says something"),
        (("forget",), "invalid choice"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(arguments, words):
    _, error = run(*arguments)
    assert words in str(error)


def test_every_audit_finds_a_parked_event():
    assert nothing_parked() in audit()["checks"]
    assert nothing_parked()["ok"]
    parked(*(event(number) for number in range(30)))
    check = nothing_parked()
    assert (check["id"], check["ok"], check["count"]) == ("I7", False, 30)
    assert {one["subject"] for one in check["violations"]} == {"event"}
    assert check in audit()["checks"]


def test_parking_is_a_line_of_the_log_at_error(monkeypatch):
    lines = []
    monkeypatch.setattr(inbox.log, "error", lambda *words, **more: lines.append((words, more)))
    one = event(1)
    park_event(one, "broken")
    assert lines == [
        (
            ("event parked",),
            {"event_id": one["id"], "type": "test.happened", "error": "broken"},
        )
    ]
