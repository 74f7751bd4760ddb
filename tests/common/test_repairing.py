"""Repairs by name: each by itself, logged, and harmless when there is nothing to do."""

from __future__ import annotations

import io
import json

import pytest
from django.core.management import CommandError, call_command
from django.utils import timezone
from structlog.testing import capture_logs

from common import repair_command
from common.events.inbox import apply_event, park_event
from common.events.models import InboxEvent, OutboxEvent
from common.ids import uuid7
from common.repairing import EVENT_REPAIRS, NOTHING, repair_all
from tests.common import handlers

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("subscribed")]


def event(**data):
    return {
        "id": str(uuid7()),
        "source": "/flashsale/inventory",
        "type": "test.happened",
        "data": {"number": 1, **data},
    }


def repair(name, row_id, **more):
    """Do one repair; return (ok, result)."""
    [done] = repair_all([{"repair": name, "id": row_id, "why": "a test", **more}], EVENT_REPAIRS)
    return done["ok"], done["result"]


def test_a_parked_event_is_applied_once_its_cause_is_gone():
    parked = event()
    park_event(parked, "something was missing")

    assert repair("retry_event", parked["id"]) == (True, "applied")

    assert handlers.tallies() == {1: 1}
    assert InboxEvent.objects.get().status == "APPLIED"
    assert repair("retry_event", parked["id"]) == (True, NOTHING)
    assert handlers.tallies() == {1: 1}


def test_an_event_that_still_cannot_be_applied_stays_parked():
    poison = event(poison=True)
    park_event(poison, "poison")

    ok, result = repair("retry_event", poison["id"])

    assert (ok, "number 1 is poison" in result) == (False, True)
    assert InboxEvent.objects.get().status == "PARKED"
    assert handlers.tallies() == {}


def test_an_event_that_was_applied_is_not_applied_again_by_a_repair():
    applied = event()
    apply_event(applied)
    assert repair("retry_event", applied["id"]) == (True, NOTHING)
    assert handlers.tallies() == {1: 1}


def test_a_sent_event_is_sent_again():
    sent = OutboxEvent.objects.create(
        aggregatetype="test", aggregateid="1", type="t", payload={}, published_at=timezone.now()
    )
    assert repair("resend_event", str(sent.id)) == (True, "the relay sends it again")
    assert OutboxEvent.objects.get().published_at is None
    assert repair("resend_event", str(sent.id)) == (True, NOTHING)


@pytest.mark.parametrize("row_id", [str(uuid7()), "no uuid"])
@pytest.mark.parametrize("name", EVENT_REPAIRS)
def test_what_does_not_exist_cannot_be_repaired(name, row_id):
    ok, result = repair(name, row_id)
    assert result == NOTHING if ok else "no uuid" in result


def test_one_that_fails_does_not_keep_the_others():
    good = event()
    park_event(good, "why not")
    done = repair_all(
        [
            {"repair": "fly", "id": "1"},
            {"repair": "retry_event"},
            {"repair": "retry_event", "id": good["id"]},
        ],
        EVENT_REPAIRS,
    )
    assert [one["ok"] for one in done] == [False, False, True]
    assert "no such repair" in done[0]["result"]


def test_every_repair_is_logged_with_what_which_and_why():
    with capture_logs() as logs:
        repair("resend_event", str(uuid7()), why="it was lost")
    [line] = [line for line in logs if line["event"] == "repair"]
    assert line["log_level"] == "warning"
    assert (line["repair"], line["why"], line["result"], line["ok"]) == (
        *("resend_event", "it was lost", NOTHING, True),
    )


def run(monkeypatch, text):
    monkeypatch.setattr(repair_command.sys, "stdin", io.StringIO(text))
    out = io.StringIO()
    call_command("repair", stdout=out)
    return json.loads(out.getvalue())


def test_the_command_reads_a_list_and_prints_what_came_of_it(monkeypatch):
    item = {"repair": "resend_event", "id": str(uuid7()), "why": "w"}
    [done] = run(monkeypatch, json.dumps([item]))
    assert done == {**item, "ok": True, "result": NOTHING}
    assert run(monkeypatch, "[]") == []


@pytest.mark.parametrize("text", ["", "{", "{}", "[1]", '[{"repair": "fly", "id": "1"}]'])
def test_the_command_refuses_what_it_cannot_do(monkeypatch, text):
    with pytest.raises(CommandError):
        run(monkeypatch, text)


def test_the_command_takes_a_bounded_list(monkeypatch):
    monkeypatch.setattr(repair_command, "ITEMS_MAX", 1)
    with pytest.raises(CommandError, match="at most 1"):
        run(monkeypatch, '[{"repair": "a"}, {"repair": "b"}]')
