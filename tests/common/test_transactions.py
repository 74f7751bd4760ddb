"""The one place that repeats a transaction: real deadlocks, real locks, real lost connections."""

from __future__ import annotations

import sqlite3
import threading
import time
from functools import partial

import pytest
from django.db import IntegrityError, OperationalError, connection, transaction

from common import transactions
from common.transactions import MAX_ATTEMPTS, in_transaction
from services.inventory.models import TicketLabel
from tests.common.concurrency import times, together
from tests.common.faults import losing_the_answer_to_a_commit

pytestmark = pytest.mark.django_db(transaction=True)
on_mysql = pytest.mark.skipif("connection.vendor != 'mysql'", reason="a matter of MySQL")
on_sqlite = pytest.mark.skipif("connection.vendor != 'sqlite'", reason="a matter of SQLite")


@pytest.fixture
def rows():
    """Make two rows to quarrel about."""
    for number in (1, 2):
        TicketLabel.objects.create(ticket_id=number, label="", version=0)


def add(number):
    """Add one to a row; the row stays locked to the end of the transaction."""
    row = TicketLabel.objects.get(ticket_id=number)
    assert TicketLabel.objects.filter(ticket_id=number).update(version=row.version + 1)


def versions():
    return dict(TicketLabel.objects.values_list("ticket_id", "version"))


def test_work_that_goes_well_is_done_once_and_its_result_returned(rows):
    assert in_transaction(lambda: add(1) or "result") == "result"
    assert versions() == {1: 1, 2: 0}


@pytest.mark.parametrize(
    "error", [ValueError("x"), IntegrityError("x"), OperationalError(1064, "x")]
)
def test_what_cannot_be_mended_by_repeating_is_raised_at_once_and_rolled_back(rows, error):
    runs = []

    def work():
        runs.append(1)
        add(1)
        raise error

    with pytest.raises(type(error)):
        in_transaction(work)
    assert (len(runs), versions()) == (1, {1: 0, 2: 0})


@pytest.mark.parametrize("code", [1205, 1213, 1020, 2006, 2013])
def test_what_the_database_asks_to_repeat_is_repeated_as_a_whole(rows, code):
    failures = [OperationalError(code, "again"), OperationalError(code, "again")]

    def work():
        add(1)
        if failures:
            raise failures.pop()
        add(2)
        return "done"

    assert in_transaction(work) == "done"
    assert versions() == {1: 1, 2: 1}


def test_it_is_repeated_a_few_times_and_not_for_ever(rows):
    runs = []

    def work():
        runs.append(1)
        raise OperationalError(1213, "deadlock")

    with pytest.raises(OperationalError):
        in_transaction(work)
    assert len(runs) == MAX_ATTEMPTS == 3


def test_only_the_outermost_transaction_is_repeated(rows):
    outer_runs, inner_runs, failures = [], [], [OperationalError(1213, "deadlock")]

    def inner():
        inner_runs.append(1)
        add(2)
        if failures:
            raise failures.pop()

    def outer():
        outer_runs.append(1)
        add(1)
        in_transaction(inner)

    in_transaction(outer)
    assert (len(outer_runs), len(inner_runs)) == (2, 2)
    assert versions() == {1: 1, 2: 1}


def test_inside_of_a_plain_atomic_block_nothing_is_repeated(rows):
    runs = []

    def work():
        runs.append(1)
        raise OperationalError(1213, "deadlock")

    with pytest.raises(OperationalError), transaction.atomic():
        in_transaction(work)
    assert len(runs) == 1


def test_an_inner_refusal_takes_back_the_inner_work_only(rows):
    def inner():
        add(2)
        raise ValueError

    def outer():
        add(1)
        with pytest.raises(ValueError):
            in_transaction(inner)

    in_transaction(outer)
    assert versions() == {1: 1, 2: 0}


def test_a_lost_answer_to_commit_makes_the_work_run_again(rows):
    """So work must be repeatable by the ids that it writes, as its docstring says."""
    runs = []

    def work():
        runs.append(1)
        TicketLabel.objects.filter(ticket_id=1).update(version=7)

    with losing_the_answer_to_a_commit(of_table="ticket_label") as lost:
        in_transaction(work)
    assert lost
    assert (len(runs), versions()[1]) == (2, 7)


def test_many_threads_lose_no_update(rows):
    def work():
        TicketLabel.objects.select_for_update().get(ticket_id=1)
        add(1)

    together(*times(20, lambda: in_transaction(work)))
    assert versions()[1] == 20


@on_mysql
def test_a_real_deadlock_is_survived_by_both(rows):
    both_hold_one, runs = threading.Barrier(2), []

    def work(first, second):
        runs.append(first)
        add(first)
        if len(runs) <= 2:
            both_hold_one.wait(10)
        add(second)

    together(
        lambda: in_transaction(partial(work, 1, 2)), lambda: in_transaction(partial(work, 2, 1))
    )

    assert len(runs) == 3, "one of them was the victim of error 1213 and ran again"
    assert versions() == {1: 2, 2: 2}


@on_mysql
def test_a_real_lock_wait_timeout_is_survived(rows):
    holds, runs = threading.Event(), []

    def holder():
        with transaction.atomic():
            add(1)
            holds.set()
            time.sleep(1.5)

    def waiter():
        assert holds.wait(10)
        with connection.cursor() as cursor:
            cursor.execute("SET SESSION innodb_lock_wait_timeout = 1")

        def work():
            runs.append(1)
            add(2)
            TicketLabel.objects.filter(ticket_id=1).update(label="waited")

        in_transaction(work)

    together(holder, waiter)

    assert len(runs) == 2, "error 1205 rolled back and ran again"
    assert versions() == {1: 1, 2: 1}, "1205 alone would have left the first statement done"


@on_mysql
def test_a_connection_that_is_killed_is_replaced(rows):
    killed = []

    def work():
        add(1)
        if not killed:
            with connection.cursor() as cursor:
                cursor.execute("SELECT CONNECTION_ID()")
                killed.append(cursor.fetchone()[0])
            together(lambda: connection.cursor().execute(f"KILL {killed[0]}"))
        add(2)

    in_transaction(work)
    assert versions() == {1: 1, 2: 1}
    with connection.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        assert cursor.fetchone()[0] != killed[0]


@on_mysql
def test_mysql_is_set_up_as_correctness_wants_it():
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@tx_isolation, @@innodb_lock_wait_timeout, @@character_set_client")
        assert cursor.fetchone() == ("READ-COMMITTED", 1, "utf8mb4")
        cursor.execute("SELECT @@sql_mode")
        assert "STRICT_TRANS_TABLES" in cursor.fetchone()[0]


@pytest.fixture
def lock_file():
    """Return another process's grip on the SQLite file: nobody else can write until it lets go."""
    other = sqlite3.connect(
        connection.settings_dict["NAME"], isolation_level=None, check_same_thread=False
    )
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 50")
    yield other
    other.close()
    connection.close()


@on_sqlite
def test_a_busy_sqlite_file_is_waited_for(rows, lock_file):
    lock_file.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.1, lambda: lock_file.execute("ROLLBACK"))
    release.start()

    in_transaction(lambda: add(1))

    release.join()
    assert versions() == {1: 1, 2: 0}


@on_sqlite
def test_a_sqlite_file_that_stays_busy_is_an_error_in_the_end(rows, lock_file):
    lock_file.execute("BEGIN IMMEDIATE")
    with pytest.raises(OperationalError, match="locked"):
        in_transaction(lambda: add(1))
    lock_file.execute("ROLLBACK")
    assert versions() == {1: 0, 2: 0}


@on_sqlite
def test_who_stands_in_line_too_long_is_told_so(rows, monkeypatch):
    monkeypatch.setattr(transactions, "SQLITE_TURN_SECONDS", 0.1)

    def wait_in_vain():
        with pytest.raises(OperationalError, match="busy"):
            in_transaction(lambda: None)

    def slow():
        add(1)
        together(wait_in_vain)

    in_transaction(slow)
    assert in_transaction(lambda: "next") == "next", "the line moves on"


@on_sqlite
def test_sqlite_is_set_up_as_correctness_wants_it():
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        assert cursor.fetchone() == ("wal",)
        cursor.execute("PRAGMA synchronous")
        assert cursor.fetchone() == (2,), "FULL"
        cursor.execute("PRAGMA foreign_keys")
        assert cursor.fetchone() == (1,)
