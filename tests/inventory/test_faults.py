"""Faults at every single statement: each call is done once, or not at all and then repeatable."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import pytest
import stamina
from django.core.management import call_command
from django.db import OperationalError

from common import transactions
from common.events.models import OutboxEvent
from services.inventory import expiry
from services.inventory.models import Reservation, Stock, StockMovement
from tests.common.faults import (
    database_away,
    failing_commit,
    failing_statement,
    losing_the_answer_to_a_commit,
)
from tests.inventory.books import counters, make_overdue, status_of, violations
from tests.inventory.driver import decide_group, entry, reserve_group

pytestmark = pytest.mark.django_db(transaction=True)

STATEMENTS_MAX = 60
TICKETS = (10, 10)
GROUP = reserve_group(
    entry("a", 2, 2, buyer_id="ann", buyer_limit=5), entry("b", 1, 3, buyer_id="ann", buyer_limit=5)
)
# New, sent before, refused for the stock, refused for the limit, and one more id of the first.
SEVERAL = (
    reserve_group(entry("c", 1, 1)),
    GROUP,
    reserve_group(entry("d", 1, 99), entry("e", 2, 1)),
    reserve_group(entry("f", 2, 1, buyer_id="ann", buyer_limit=2)),
    reserve_group(entry("c", 1, 1), entry("g", 1, 2), entry("h", 2, 1)),
)
TOO_MUCH = reserve_group(entry("a", 1, 2), entry("b", 2, 99))

# call → (what came before, the call, (available, reserved, sold) of tickets 1 and 2 afterwards,
#         ledger lines that the call writes)
CALLS = {
    "reserve": (
        lambda order, admin: None,
        lambda order, admin: order.batch(GROUP),
        ((7, 3, 0), (8, 2, 0)),
        2,
    ),
    "refuse": (
        lambda order, admin: None,
        lambda order, admin: order.batch(TOO_MUCH),
        ((10, 0, 0), (10, 0, 0)),
        2,
    ),
    "reserve several groups": (
        lambda order, admin: order.batch(GROUP),
        lambda order, admin: order.batch(*SEVERAL),
        ((4, 6, 0), (7, 3, 0)),
        6,
    ),
    "replay": (
        lambda order, admin: order.batch(GROUP),
        lambda order, admin: order.batch(GROUP),
        ((7, 3, 0), (8, 2, 0)),
        0,
    ),
    "commit": (
        lambda order, admin: order.batch(GROUP),
        lambda order, admin: order.batch(decide_group("commit", "a", "b")),
        ((7, 0, 3), (8, 0, 2)),
        2,
    ),
    "release": (
        lambda order, admin: order.batch(GROUP),
        lambda order, admin: order.batch(decide_group("release", "a", "b")),
        ((10, 0, 0), (10, 0, 0)),
        2,
    ),
    "set": (
        lambda order, admin: None,
        lambda order, admin: admin.set_stock(1, 20),
        ((20, 0, 0), (10, 0, 0)),
        1,
    ),
    "adjust": (
        lambda order, admin: None,
        lambda order, admin: admin.adjust(1, -4, key="k"),
        ((6, 0, 0), (10, 0, 0)),
        1,
    ),
}


@pytest.fixture(autouse=True)
def no_waiting_between_retries():
    """Retry as often as ever, at once: hundreds of faults are made here."""
    with stamina.set_testing(True, attempts=transactions.MAX_ATTEMPTS):
        yield


def reset():
    """Empty the tables between two tries of one test."""
    call_command("flush", verbosity=0, interactive=False, inhibit_post_migrate=True)


def repeat_until_answered(call):
    """Call, and call again while the answer is 503, as every caller is meant to."""
    for _ in range(5):
        answer = call()
        if answer.status != 503:
            return answer
        assert answer.code == "database_unavailable"
        assert answer.headers["Retry-After"] == "1"
    raise AssertionError("503 again and again")


def meet_each_fault(name, fault, order, admin, tickets, *, more_lines=0):
    """Let a call meet its first fault, its second, … until none comes; return how many it met.

    ``fault(number)`` makes the number-th fault. ``more_lines``: what the call may write besides.
    """
    before, call, books, lines = CALLS[name]
    for number in range(1, STATEMENTS_MAX):
        tickets(*TICKETS)
        before(order, admin)
        written = StockMovement.objects.count()

        with fault(number) as failed:
            answer = repeat_until_answered(lambda: call(order, admin))

        assert answer.status < 300, failed
        assert (counters(1), counters(2)) == books, failed
        assert StockMovement.objects.count() - written in (lines, lines + more_lines), failed
        assert violations() == [], failed
        if not failed:
            return number - 1
        reset()
    raise AssertionError("the call has more to fail than this test can try")


@pytest.mark.parametrize(
    "code", [1205, 1213, 2013], ids=["lock wait timeout", "deadlock", "connection lost"]
)
@pytest.mark.parametrize("name", CALLS)
def test_whichever_statement_fails_the_call_is_done_once(name, code, order, admin, tickets):
    fault = partial(failing_statement, code=code)
    met = meet_each_fault(name, fault, order, admin, tickets)
    assert met > 1, "some statements were tried"


@pytest.mark.parametrize("done", [True, False], ids=["done", "not done"])
@pytest.mark.parametrize("name", CALLS)
def test_whichever_commit_gets_no_answer_the_call_is_done_once(name, done, order, admin, tickets):
    fault = partial(failing_commit, done=done)
    # Setting the same total again is allowed, and says so in the ledger.
    meet_each_fault(name, fault, order, admin, tickets, more_lines=int(name == "set"))


@pytest.mark.parametrize("name", CALLS)
def test_a_lost_answer_to_commit_does_nothing_twice(name, order, admin, tickets):
    before, call, books, lines = CALLS[name]
    tickets(*TICKETS)
    before(order, admin)
    written = StockMovement.objects.count()

    with losing_the_answer_to_a_commit(of_table="stock_movement") as lost:
        answer = repeat_until_answered(lambda: call(order, admin))

    assert bool(lost) is (lines > 0)
    assert answer.status < 300
    assert (counters(1), counters(2)) == books
    # Setting the same total again is allowed, and says so in the ledger.
    assert StockMovement.objects.count() - written in (lines, lines + (name == "set"))
    assert violations() == []


@pytest.mark.parametrize("name", CALLS)
def test_without_a_database_the_answer_is_503_and_nothing_is_done(name, order, admin, tickets):
    before, call, _, _ = CALLS[name]
    tickets(*TICKETS)
    before(order, admin)
    state = counters(1), counters(2), StockMovement.objects.count(), OutboxEvent.objects.count()

    with database_away():
        answer = call(order, admin)

    assert (answer.status, answer.code) == (503, "database_unavailable")
    assert answer.headers["Retry-After"] == "1"
    assert "gone away" not in str(answer.body)
    assert state == (
        counters(1),
        counters(2),
        StockMovement.objects.count(),
        OutboxEvent.objects.count(),
    )


def test_whichever_statement_of_the_expiry_fails_the_units_come_back_once(order, tickets):
    for number in range(1, STATEMENTS_MAX):
        tickets(10)
        order.reserve("a", quantity=2, buyer_id="ann")
        order.reserve("b", quantity=3)
        make_overdue("a", "b")
        with failing_statement(number, 1213) as failed:
            for _ in range(3):  # as its loop does
                with suppress(OperationalError):
                    expiry.expire_batch()
        assert counters() == (10, 0, 0)
        assert OutboxEvent.objects.filter(type="reservation.expired").count() == 2
        assert violations() == []
        if not failed:
            return
        reset()


def test_a_hold_that_cannot_be_given_back_does_not_keep_the_others(order, tickets, monkeypatch):
    """Its books are wrong: more is held than the stock row knows of."""
    tickets(10, 10)
    order.reserve("wrong", 1, 5)
    order.reserve("right", 2, 5)
    Stock.objects.filter(ticket_id=1).update(reserved=1, total=6)
    make_overdue("wrong", by_seconds=60)
    make_overdue("right")

    assert expiry.expire_batch() == 1
    assert (status_of("wrong"), status_of("right")) == ("RESERVED", "RELEASED")
    assert counters(2) == (10, 0, 0)
    assert expiry.expire_batch() == 0, "and the loop may rest"
    assert Reservation.objects.filter(status="RESERVED").count() == 1
