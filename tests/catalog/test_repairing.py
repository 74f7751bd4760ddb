"""The catalog's repairs: an offer is said again, so that whoever follows it hears the truth."""

from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import CommandError, call_command

from common.events.models import OutboxEvent
from common.repairing import NOTHING, repair_all
from services.catalog.models import Ticket
from services.catalog.offers import offer_of
from services.catalog.repairing import REPAIRS

pytestmark = pytest.mark.django_db(transaction=True)


def repair(row_id, **more):
    [done] = repair_all([{"repair": "republish_offer", "id": row_id, "why": "", **more}], REPAIRS)
    assert done["ok"], done
    return done["result"]


@pytest.mark.parametrize("above", [0, 2, 90])
def test_an_offer_is_published_again_under_a_version_that_counts_as_news(show, above):
    ticket_id = show()["tickets"][0]["id"]
    before = Ticket.objects.get().version
    version = max(before, above) + 1

    assert repair(str(ticket_id), above=above) == f"published as version {version}"

    event = OutboxEvent.objects.order_by("seq").last()
    assert event.type == "ticket.changed"
    assert event.payload["data"] == offer_of(ticket_id)
    assert event.payload["data"]["version"] == version


def test_the_offer_of_an_unknown_ticket_cannot_be_published():
    assert repair("77") == NOTHING
    assert OutboxEvent.objects.count() == 0


def test_the_command_says_all_offers_again(show):
    show(tickets=2)
    before = OutboxEvent.objects.count()
    out = StringIO()

    call_command("republish", "--all", stdout=out)

    assert OutboxEvent.objects.count() == before + 2
    assert len(out.getvalue().splitlines()) == 2
    with pytest.raises(CommandError):
        call_command("republish", "12345", stdout=out)
