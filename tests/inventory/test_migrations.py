"""Migrations keep what is there: tables of the first version and their data, brought up to date."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from django.db import connection
from django.db.migrations.executor import MigrationExecutor

from services.inventory import reservations
from services.inventory.deciding import Decision
from services.inventory.models import BuyerHold, Reservation, Stock
from tests.inventory.books import counters, violations

pytestmark = pytest.mark.django_db(transaction=True)
FIRST = [("inventory", "0001_initial")]


def migrate(targets):
    """Migrate to the targets and return the models as they are then."""
    executor = MigrationExecutor(connection)
    executor.migrate(targets)
    return MigrationExecutor(connection).loader.project_state(targets).apps


@pytest.fixture
def at_first():
    """Return the models of the first version; afterwards the tables are up to date again."""
    newest = MigrationExecutor(connection).loader.graph.leaf_nodes("inventory")
    yield migrate(FIRST), lambda: migrate(newest)
    migrate(newest)


def test_holds_and_limits_of_the_first_version_live_on(at_first):
    old, bring_up_to_date = at_first
    old.get_model("inventory", "Stock").objects.create(
        ticket_id=1, total=10, available=5, reserved=3, sold=2
    )
    lives = {"held": ("RESERVED", 3), "sold": ("COMMITTED", 2), "gone": ("RELEASED", 4)}
    movements = old.get_model("inventory", "StockMovement").objects
    at = datetime(2031, 1, 1, tzinfo=UTC)
    movements.create(ticket_id=1, kind="initialise", quantity=10, actor="test", at=at)
    for name, (status, quantity) in lives.items():
        old.get_model("inventory", "Reservation").objects.create(
            reservation_id=name,
            ticket_id=1,
            quantity=quantity,
            buyer_id="ann",
            status=status,
            expires_at=at,
        )
        for kind in ("reserve", {"COMMITTED": "commit", "RELEASED": "release"}.get(status)):
            if kind:
                movements.create(
                    ticket_id=1, kind=kind, quantity=quantity, reservation_id=name, actor="t", at=at
                )
    old.get_model("inventory", "BuyerHold").objects.create(ticket_id=1, buyer_id="ann", quantity=5)

    bring_up_to_date()

    assert list(BuyerHold.objects.values_list("ticket_id", "buyer_id", "quantity")) == [
        (1, "ann", 5)
    ]
    assert Reservation.objects.filter(extended=True).count() == 0
    assert violations() == []
    [[outcome]] = reservations.decide("release", [Decision(["held"], "test")])
    assert outcome.problem is None
    assert counters() == (8, 0, 2)
    assert Stock.objects.count() == 1
    assert violations() == []
