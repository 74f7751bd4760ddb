"""The audit: silent when the books are right, and it finds every way to falsify them."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from common import auditing
from common.events.inbox import park_event
from common.ids import uuid7
from services.inventory.audit import audit
from services.inventory.models import BuyerHold, Reservation, Stock, StockMovement
from tests.common.concurrency import together
from tests.inventory.books import make_overdue

pytestmark = pytest.mark.django_db(transaction=True)
ORDER = "0190c7f0-0000-7000-8000-000000000001"


@pytest.fixture
def books(order, tickets):
    """Fill the books: one reservation in each state, and one without a buyer."""
    tickets(20, 5)
    for name in ("held", "sold", "released"):
        order.reserve(name, quantity=2, buyer_id="ann", order_id=ORDER)
    order.commit("sold")
    order.release("released")
    order.reserve("refused", quantity=99)
    order.reserve("anonymous", ticket_id=2)


def found():
    """Return (check, violation) pairs."""
    return [(check["id"], one) for check in audit()["checks"] for one in check["violations"]]


def test_right_books_have_no_violations(books):
    assert found() == []
    assert [check["id"] for check in audit()["checks"]] == [
        *("I1", "I2", "I3", "I2", "I2", "I8", "I7")
    ]
    assert all(check["ok"] and check["count"] == 0 for check in audit()["checks"])


def without_constraints(sql):
    """Run a statement that the CHECK constraints of the table would refuse."""
    off, on = {
        "sqlite": ("PRAGMA ignore_check_constraints = 1", "PRAGMA ignore_check_constraints = 0"),
        "mysql": ("SET SESSION check_constraint_checks = 0", "SET check_constraint_checks = 1"),
    }[connection.vendor]
    with connection.cursor() as cursor:
        cursor.execute(off)
        try:
            cursor.execute(sql)
        finally:
            cursor.execute(on)


def line(**fields):
    """Add a movement that nothing stands for."""
    StockMovement.objects.create(
        **{"ticket_id": 1, "quantity": 1, "actor": "thief", "at": timezone.now(), **fields}
    )


CORRUPTIONS = {
    "counters that do not add up": (
        lambda: without_constraints("UPDATE stock SET available = available + 1"),
        {"I1", "I2"},
    ),
    "a unit moved from reserved to sold": (
        lambda: without_constraints("UPDATE stock SET reserved = 1, sold = 3 WHERE ticket_id = 1"),
        {"I2"},
    ),
    "stock that appears from nowhere": (
        lambda: Stock.objects.filter(ticket_id=1).update(total=21, available=17),
        {"I2"},
    ),
    "a reservation changed to sold": (
        lambda: Reservation.objects.filter(pk="held").update(status="COMMITTED"),
        {"I2", "I3"},
    ),
    "a sold reservation changed to released": (
        lambda: Reservation.objects.filter(pk="sold").update(status="RELEASED"),
        {"I2", "I3"},
    ),
    "a refusal changed to a hold": (
        lambda: Reservation.objects.filter(pk="refused").update(status="RESERVED"),
        {"I2", "I3"},
    ),
    "a reservation with another quantity": (
        lambda: Reservation.objects.filter(pk="sold").update(quantity=1),
        {"I2"},
    ),
    "a reservation of another ticket": (
        lambda: Reservation.objects.filter(pk="held").update(ticket_id=2),
        {"I2"},
    ),
    "a reservation of a ticket without stock": (
        lambda: Reservation.objects.filter(pk="held").update(ticket_id=77),
        {"I2"},
    ),
    "a reservation that was deleted": (
        lambda: Reservation.objects.filter(pk="released").delete(),
        {"I3"},
    ),
    "a reservation that nothing tells of": (
        lambda: Reservation.objects.create(
            pk="x", ticket_id=1, quantity=1, status="FAILED", expires_at=timezone.now()
        ),
        {"I3"},
    ),
    "stock that was deleted": (lambda: Stock.objects.filter(ticket_id=1).delete(), {"I2"}),
    "a ledger line that was deleted": (
        lambda: StockMovement.objects.filter(reservation_id="sold", kind="commit").delete(),
        {"I2", "I3"},
    ),
    "a ledger line with another quantity": (
        lambda: StockMovement.objects.filter(reservation_id="sold").update(quantity=1),
        {"I2"},
    ),
    "a ledger line of another kind": (
        lambda: StockMovement.objects.filter(kind="release").update(kind="commit"),
        {"I2", "I3"},
    ),
    "a second end of one reservation": (
        lambda: line(kind="release", reservation_id="sold", quantity=2),
        {"I2", "I3"},
    ),
    "an expiry of what was never reserved": (
        lambda: line(kind="expire", reservation_id="nobody"),
        {"I2", "I3"},
    ),
    "a refusal that moved stock": (
        lambda: line(kind="reserve", reservation_id="refused"),
        {"I2", "I3", "I8"},
    ),
    "an adjustment that never happened": (lambda: line(kind="adjust"), {"I2"}),
    "a buyer's count that is too low": (
        lambda: BuyerHold.objects.filter(buyer_id="ann").update(quantity=1),
        {"I2"},
    ),
    "a buyer's count that was deleted": (lambda: BuyerHold.objects.all().delete(), {"I2"}),
    "a buyer's count of nothing": (
        lambda: BuyerHold.objects.create(ticket_id=2, buyer_id="eve", quantity=1),
        {"I2"},
    ),
    "a reservation of another buyer": (
        lambda: Reservation.objects.filter(pk="held").update(buyer_id="eve"),
        {"I2"},
    ),
}


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_the_audit_finds(corruption, books):
    falsify, expected = CORRUPTIONS[corruption]
    falsify()
    assert {check for check, _ in found()} == expected


# corruption → (check, finding, subject, id) that must be among what is found
NAMED = {
    "counters that do not add up": ("I1", "stock_wrong", "ticket", "1"),
    "a unit moved from reserved to sold": ("I2", "stock_wrong", "ticket", "1"),
    "a reservation of a ticket without stock": ("I2", "stock_wrong", "ticket", "77"),
    "a sold reservation changed to released": ("I3", "log_wrong", "reservation", "sold"),
    "an expiry of what was never reserved": ("I3", "log_wrong", "reservation", "nobody"),
    "a buyer's count that is too low": ("I2", "buyer_miscounted", "ticket", "1"),
    "a buyer's count of nothing": ("I2", "buyer_miscounted", "ticket", "2"),
    "a refusal that moved stock": ("I8", "refusal_moved_stock", "reservation", "refused"),
}


@pytest.mark.parametrize("corruption", NAMED)
def test_the_audit_names(corruption, books):
    CORRUPTIONS[corruption][0]()
    named = {(check, one["finding"], one["subject"], one["id"]) for check, one in found()}
    assert NAMED[corruption] in named


def test_a_wrong_count_names_its_buyer_for_the_repair(books):
    BuyerHold.objects.filter(buyer_id="ann").update(quantity=1)
    [(_, violation)] = found()
    assert violation["details"] == {"buyer_id": "ann"}


def test_an_event_that_was_put_aside_is_named(books):
    event_id = str(uuid7())
    park_event({"id": event_id, "type": "ticket.changed", "data": {}}, "no version")
    [(check, violation)] = found()
    assert (check, violation["finding"], violation["id"]) == ("I7", "event_parked", event_id)
    assert violation["details"] == {"service": "inventory"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE stock SET available = available + 1",
        "UPDATE stock SET sold = sold - 3, available = available + 3 WHERE ticket_id = 1",
        "UPDATE reservation SET quantity = 0",
        "UPDATE buyer_hold SET quantity = quantity - 99",
    ],
)
def test_the_database_itself_refuses_books_that_cannot_be(books, statement):
    with pytest.raises(Exception) as refusal, connection.cursor() as cursor:
        cursor.execute(statement)
    assert type(refusal.value).__module__ == "django.db.utils"
    assert found() == []


def test_many_violations_are_counted_and_only_the_first_are_named(books, monkeypatch):
    monkeypatch.setattr(auditing, "NAMED_MAX", 25)
    for n in range(30):
        line(kind="commit", reservation_id=f"ghost-{n}")

    paths = next(check for check in audit()["checks"] if check["id"] == "I3")
    assert (paths["count"], len(paths["violations"]), paths["ok"]) == (30, 25, False)
    printed = StringIO()
    with pytest.raises(CommandError):
        call_command("audit", stdout=printed)
    assert "FAIL (30) I3" in printed.getvalue()
    assert printed.getvalue().count("ghost-") == 20 == auditing.SHOWN_MAX


def test_the_facts_are_what_the_audit_across_services_joins(books):
    make_overdue("held", by_seconds=60)
    Reservation.objects.filter(pk="held").update(created_at=timezone.now() - timedelta(minutes=11))

    facts = audit()["facts"]

    rows = {row[0]: row[1:] for row in facts["reservations"]}
    *what, overdue, age = rows["held"]
    assert what == ["RESERVED", ORDER, 1, 2, "ann"]
    assert 60 <= overdue < 90
    assert 660 <= age < 690
    assert rows["sold"][:5] == ["COMMITTED", ORDER, 1, 2, "ann"]
    assert rows["sold"][5] is None
    assert rows["anonymous"][1] is None
    assert facts["stocks"][1] == {
        "total": 20,
        "available": 16,
        "reserved": 2,
        "sold": 2,
        "version": 6,
    }
    assert facts["unsent_count"] == len(facts["unsent"]) > 0


def test_the_command_prints_json_and_leaves_the_judgement_to_its_caller(books):
    Stock.objects.filter(ticket_id=1).update(total=21, available=17)
    output = StringIO()

    call_command("audit", "--json", stdout=output)

    result = json.loads(output.getvalue())
    assert result["service"] == "inventory"
    assert not all(check["ok"] for check in result["checks"])
    assert len(result["facts"]["reservations"]) == 5


def test_the_command_fails_on_a_violation(books):
    output = StringIO()
    call_command("audit", stdout=output)
    assert "FAIL" not in output.getvalue()

    Stock.objects.filter(ticket_id=1).update(total=21, available=17)
    with pytest.raises(CommandError):
        call_command("audit", stdout=output)
    assert "ticket 1" in output.getvalue()


def test_the_audit_sees_one_moment_while_traffic_runs_on(order, books, monkeypatch):
    """A hold that is decided between two of the audit's queries belongs to none or to both."""
    from services.inventory import audit as module

    paths = module._paths

    def decide_meanwhile():
        together(lambda: order.commit("held"))
        return paths()

    monkeypatch.setattr(module, "_paths", decide_meanwhile)
    assert found() == []
    assert Reservation.objects.get(pk="held").status == "COMMITTED"
