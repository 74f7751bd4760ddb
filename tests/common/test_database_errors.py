"""What an error of the database means: the whole table, as drivers and real databases raise it."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from django.db import (
    DatabaseError,
    DataError,
    IntegrityError,
    InterfaceError,
    InternalError,
    OperationalError,
    ProgrammingError,
    connection,
    transaction,
)
from django.db.models import F
from django.db.transaction import TransactionManagementError

from common import database_errors
from common.database_errors import Meaning, as_problem, is_outage, meaning_of
from common.errors import Unavailable
from services.inventory.models import Reservation, Stock, TicketLabel
from tests.common.concurrency import together

on_rows = pytest.mark.django_db(transaction=True)
on_mysql = pytest.mark.skipif("connection.vendor != 'mysql'", reason="a matter of MySQL")
on_mariadb = pytest.mark.skipif(
    "not getattr(connection, 'mysql_is_mariadb', False)", reason="a matter of MariaDB"
)
on_sqlite = pytest.mark.skipif("connection.vendor != 'sqlite'", reason="a matter of SQLite")

NUMBERS = {
    Meaning.ROLLED_BACK: {OperationalError: (1205, 1213, 1020)},
    Meaning.UNKNOWN: {OperationalError: (2006, 2013, 2055, 1927, 1053, 4031)},
    Meaning.UNAVAILABLE: {
        OperationalError: (1040, 1203, 2002, 2003, 1114, 1021, 1969, 3024, 1317, 1290, 1836)
    },
    Meaning.DUPLICATE: {IntegrityError: (1062,)},
    Meaning.FORBIDDEN: {IntegrityError: (1690, 4025, 3819), DataError: (1264,)},
    Meaning.OTHER: {OperationalError: (1292, 1366)},
}
NUMBERED = [
    (kind(number, "as the driver puts it"), meaning)
    for meaning, kinds in NUMBERS.items()
    for kind, numbers in kinds.items()
    for number in numbers
]
WORDED = [
    (OperationalError("database is locked"), Meaning.ROLLED_BACK),
    (OperationalError("database table is locked: stock"), Meaning.ROLLED_BACK),
    (IntegrityError("UNIQUE constraint failed: stock.ticket_id"), Meaning.DUPLICATE),
    (IntegrityError("CHECK constraint failed: stock_conserved"), Meaning.FORBIDDEN),
]
CLASSED = [
    # Operational, so not the request's fault: whatever it is.
    (OperationalError(9999, "of a version to come"), Meaning.UNAVAILABLE),
    (OperationalError("disk I/O error"), Meaning.UNAVAILABLE),
    (OperationalError("database is busy: too many writers stand in line"), Meaning.UNAVAILABLE),
    (OperationalError(), Meaning.UNAVAILABLE),
    # The connection is gone.
    (InterfaceError(0, ""), Meaning.UNKNOWN),
    (InterfaceError("connection already closed"), Meaning.UNKNOWN),
    (TransactionManagementError("in the current transaction"), Meaning.UNKNOWN),
    # Mistakes of ours, or of the values.
    (IntegrityError(1048, "Column 'total' cannot be null"), Meaning.OTHER),
    (IntegrityError("NOT NULL constraint failed: stock.total"), Meaning.OTHER),
    (IntegrityError("FOREIGN KEY constraint failed"), Meaning.OTHER),
    (IntegrityError(), Meaning.OTHER),
    (DataError(1406, "Data too long for column 'label'"), Meaning.OTHER),
    (ProgrammingError(1146, "Table 'stock' doesn't exist"), Meaning.OTHER),
    (InternalError("what is this"), Meaning.OTHER),
    (DatabaseError("database disk image is malformed"), Meaning.OTHER),
    # No errors of Django's databases, even where they look like it.
    (ValueError(1213), Meaning.OTHER),
    (RuntimeError("database is locked"), Meaning.OTHER),
    (sqlite3.OperationalError("database is locked"), Meaning.OTHER),
    (Unavailable("database_unavailable", "Try again."), Meaning.OTHER),
    (KeyboardInterrupt(), Meaning.OTHER),
]
OUTAGES = {Meaning.ROLLED_BACK, Meaning.UNKNOWN, Meaning.UNAVAILABLE}


def label(number: int) -> TicketLabel:
    return TicketLabel.objects.create(ticket_id=number, label="", version=0)


# The table


def test_the_tests_know_every_number_and_every_text():
    numbers = {error.args[0]: meaning for error, meaning in NUMBERED}
    assert numbers == database_errors._BY_NUMBER
    for words, meaning in database_errors._BY_TEXT.items():
        assert {m for error, m in WORDED if words in str(error)} == {meaning}


@pytest.mark.parametrize(("error", "meaning"), [*NUMBERED, *WORDED, *CLASSED], ids=repr)
def test_an_error_means_what_the_table_says(error, meaning):
    assert meaning_of(error) is meaning
    assert is_outage(error) == (meaning in OUTAGES)


@pytest.mark.parametrize(("error", "meaning"), [*NUMBERED, *WORDED, *CLASSED], ids=repr)
def test_a_caller_is_told_what_it_may_do(error, meaning):
    problem = as_problem(error)
    told = problem and (problem.status_code, problem.code, problem.wait)
    if meaning in OUTAGES:
        assert told == (503, "database_unavailable", 1)
        assert isinstance(problem, Unavailable)
    elif isinstance(error, DataError):
        assert told == (400, "validation_error", None)
    elif meaning is Meaning.FORBIDDEN:
        assert told == (409, "conflict", None)
    else:
        assert told is None, "a mistake of ours is none of the caller's"


@pytest.mark.parametrize("error", [error for error, _ in [*NUMBERED, *WORDED]], ids=repr)
def test_a_caller_is_told_nothing_of_the_databases_insides(error):
    problem = as_problem(error)
    assert problem is None or str(error.args[-1]) not in problem.text


# Real databases


def raised_by(statement: Callable[[], object]) -> Exception:
    """Return the error of a statement, which leaves nothing behind."""
    with pytest.raises(DatabaseError) as raised, transaction.atomic():
        statement()
    return raised.value


@on_rows
@on_mysql
@pytest.mark.parametrize(
    ("error", "meaning"),
    # What a server says can be signalled; those of 2000 and more are the client's own.
    [pair for pair in NUMBERED if not 2000 <= pair[0].args[0] < 3000],
    ids=repr,
)
def test_the_driver_raises_the_numbers_as_the_table_has_them(error, meaning):
    number, text = error.args

    def signal() -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                f"SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = {number}, MESSAGE_TEXT = '{text}'"
            )

    raised = raised_by(signal)
    assert (type(raised), raised.args) == (type(error), error.args)
    assert meaning_of(raised) is meaning


@on_rows
def test_a_real_duplicate_is_one():
    label(1)
    assert meaning_of(raised_by(lambda: label(1))) is Meaning.DUPLICATE


@on_rows
def test_a_real_check_constraint_forbids():
    error = raised_by(lambda: Stock.objects.create(ticket_id=1, total=5, available=4))
    assert meaning_of(error) is Meaning.FORBIDDEN
    assert as_problem(error).code == "conflict"


@on_rows
def test_what_would_make_a_counter_negative_is_forbidden():
    """By the column's range on MySQL (1690), by a CHECK constraint on SQLite."""
    Stock.objects.create(ticket_id=1, total=5, available=5)
    error = raised_by(lambda: Stock.objects.update(available=F("available") - 6))
    assert meaning_of(error) is Meaning.FORBIDDEN
    assert as_problem(error).status_code == 409
    if connection.vendor == "mysql":
        assert error.args[0] == 1690


@on_rows
def test_a_negative_value_is_forbidden():
    error = raised_by(lambda: Stock.objects.create(ticket_id=1, total=-1, available=-1))
    assert meaning_of(error) is Meaning.FORBIDDEN


@on_rows
@on_mysql
def test_a_value_out_of_an_unsigned_columns_range_is_the_callers_mistake():
    error = raised_by(
        lambda: Reservation.objects.create(
            reservation_id="r", ticket_id=1, quantity=2**32, expires_at=datetime.now(UTC)
        )
    )
    assert (type(error), error.args[0]) == (DataError, 1264)
    assert meaning_of(error) is Meaning.FORBIDDEN
    assert as_problem(error).status_code == 400


@on_rows
@on_mariadb
def test_a_statement_that_takes_too_long_is_an_outage():
    def slow() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SET STATEMENT max_statement_time = 0.01 FOR SELECT SLEEP(5)")

    error = raised_by(slow)
    assert error.args[0] == 1969
    assert meaning_of(error) is Meaning.UNAVAILABLE


def kill_own_connection() -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT CONNECTION_ID()")
        [number] = cursor.fetchone()
    together(lambda: connection.cursor().execute(f"KILL {number}"))


@on_rows
@on_mysql
def test_after_a_killed_connection_it_is_unknown_what_has_happened():
    def work() -> None:
        label(1)
        kill_own_connection()
        label(2)

    assert meaning_of(raised_by(work)) is Meaning.UNKNOWN


@on_rows
@on_mysql
def test_so_it_is_where_the_connection_died_inside_a_savepoint():
    def work() -> None:
        label(1)
        with suppress(OperationalError), transaction.atomic():
            kill_own_connection()
            label(2)
        label(3)

    error = raised_by(work)
    assert isinstance(error, TransactionManagementError)
    assert meaning_of(error) is Meaning.UNKNOWN


@pytest.fixture
def locked_file() -> Iterator[None]:
    """Let another process, so to speak, hold SQLite's write lock for the whole test."""
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA busy_timeout = 20")
    other = sqlite3.connect(connection.settings_dict["NAME"], isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.close()
    connection.close()


@on_rows
@on_sqlite
def test_a_locked_sqlite_file_may_be_tried_again(locked_file):
    error = raised_by(lambda: label(1))
    assert str(error) == "database is locked"
    assert meaning_of(error) is Meaning.ROLLED_BACK
