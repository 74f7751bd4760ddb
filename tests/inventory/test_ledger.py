"""The ledger: every counter can be computed from it, and nothing in it is ever changed."""

from __future__ import annotations

from pathlib import Path

import pytest

import services.inventory
from services.inventory import expiry
from services.inventory.models import StockMovement
from tests.inventory.books import counters, ledger_of, make_overdue, violations
from tests.inventory.driver import entry, reserve_group

pytestmark = pytest.mark.django_db(transaction=True)


def lines(**condition):
    """Return (kind, quantity, reservation, actor, reason), oldest first."""
    rows = StockMovement.objects.filter(**condition).order_by("seq")
    return [tuple(row) for row in rows.values_list(*FIELDS)]


FIELDS = ("kind", "quantity", "reservation_id", "actor", "reason")


def test_every_change_is_one_line_that_says_who_and_why(admin, order):
    admin.set_stock(1, 10)
    admin.adjust(1, -2)
    order.reserve("a", quantity=2)
    order.commit("a")
    admin.reserve("b", quantity=1)
    admin.release("b")
    order.reserve("c", quantity=1)
    make_overdue("c")
    expiry.expire_batch()
    order.reserve("d", quantity=99)

    assert lines() == [
        ("initialise", 10, "", "admin:root", ""),
        ("adjust", -2, "", "admin:root", ""),
        ("reserve", 2, "a", "service:order", ""),
        ("commit", 2, "a", "service:order", ""),
        ("reserve", 1, "b", "admin:root", ""),
        ("release", 1, "b", "admin:root", ""),
        ("reserve", 1, "c", "service:order", ""),
        ("expire", 1, "c", "expiry", "expired"),
        ("refuse", 99, "d", "service:order", "insufficient_stock"),
    ]
    assert counters() == (6, 0, 2)
    assert violations() == [], "the counters follow from the ledger"


def test_refused_calls_write_no_line(admin, order):
    admin.set_stock(1, 10)
    order.reserve("a", quantity=2)
    order.commit("a")
    before = lines()

    admin.set_stock(1, 50)
    admin.adjust(1, -9)
    order.release("a")
    order.commit("a")
    order.commit("nobody")
    order.reserve("a", quantity=2)
    order.reserve("a", quantity=1)
    order.reserve("x", ticket_id=9)

    assert lines() == before


def test_a_group_writes_one_line_per_reservation(order, tickets):
    tickets(10, 10)
    order.batch(reserve_group(entry("b", 2, 3), entry("a", 1, 2)))

    assert (ledger_of("a"), ledger_of("b")) == (["reserve"], ["reserve"])
    assert lines(ticket_id=2)[-1] == ("reserve", 3, "b", "service:order", "")


def test_setting_the_stock_again_starts_the_tickets_sum_anew(admin, order):
    admin.set_stock(1, 10)
    order.reserve("a", quantity=2)
    order.release("a")
    admin.adjust(1, 5)
    admin.set_stock(1, 3)
    order.reserve("b", quantity=1)

    assert counters() == (2, 1, 0)
    assert violations() == []


def test_the_lines_of_a_ticket_are_in_the_order_of_its_versions(admin, order):
    admin.set_stock(1, 10)
    for n in range(3):
        order.reserve(f"r{n}")
    order.commit("r1")

    assert [line[2] for line in lines(ticket_id=1)] == ["", "r0", "r1", "r2", "r1"]


def test_no_code_of_the_service_changes_or_deletes_a_line():
    """Append-only by construction: outside the ledger module movements are only read."""
    folder = Path(services.inventory.__file__).parent
    sources = {
        path: path.read_text() for path in folder.rglob("*.py") if "migrations" not in path.parts
    }
    writers = [
        path.name
        for path, text in sources.items()
        if "StockMovement(" in text.replace("class StockMovement(", "")
        or "StockMovement.objects.create" in text
    ]
    assert writers == ["ledger.py"]
    for path, text in sources.items():
        for line in text.splitlines():
            if "StockMovement.objects" in line:
                assert ".update(" not in line, path
                assert ".delete(" not in line, path
