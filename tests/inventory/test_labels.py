"""Names of tickets arrive from the catalog; the newest one stays, whatever the order of arrival."""

from __future__ import annotations

import itertools

import pytest

from services.inventory.admin import label_of
from services.inventory.labels import apply_ticket_changed
from services.inventory.models import TicketLabel

pytestmark = pytest.mark.django_db


def ticket_changed(version, title="Concert", name="Balcony"):
    """Return the data of the catalog's event."""
    return {"ticket_id": 5, "version": version, "event_title": title, "name": name, "price": 100}


def test_a_ticket_is_called_by_its_event_and_name():
    apply_ticket_changed(ticket_changed(1), {})
    assert label_of(5) == "Concert · Balcony (#5)"
    assert label_of(6) == "Ticket #6"


@pytest.mark.parametrize("arrival", list(itertools.permutations([1, 2, 3])))
def test_the_newest_name_wins_in_any_order_of_arrival(arrival):
    for version in (*arrival, *arrival):
        apply_ticket_changed(ticket_changed(version, title=f"Title {version}"), {})
    label = TicketLabel.objects.get(ticket_id=5)
    assert (label.label, label.version) == ("Title 3 · Balcony", 3)


def test_a_long_name_is_cut_to_what_fits():
    apply_ticket_changed(ticket_changed(1, title="x" * 600), {})
    assert len(TicketLabel.objects.get(ticket_id=5).label) == 512
