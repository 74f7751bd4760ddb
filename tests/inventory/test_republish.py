"""``republish``: inventory says again what it knows, of some tickets or of all."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from common.events.models import OutboxEvent

pytestmark = pytest.mark.django_db


def republish(*arguments):
    out = StringIO()
    OutboxEvent.objects.all().delete()
    call_command("republish", *arguments, stdout=out)
    events = OutboxEvent.objects.order_by("seq")
    return out.getvalue(), [(one.type, one.aggregateid) for one in events]


def test_all_tickets_are_published_again(tickets):
    tickets(5, 6)
    printed, events = republish("--all")
    assert printed.splitlines() == ["ticket 1: version 2", "ticket 2: version 2"]
    assert events == [("stock.changed", "1"), ("stock.changed", "2")]


def test_only_named_tickets_are_published_again(tickets):
    tickets(5, 6)
    assert republish("2")[1] == [("stock.changed", "2")]


@pytest.mark.parametrize("arguments", [[], ["--all", "1"], ["9"]])
def test_what_is_not_clear_is_refused(tickets, arguments):
    tickets(5)
    with pytest.raises(CommandError):
        republish(*arguments)
