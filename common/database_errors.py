"""What a database error means, and so what may be done about it: the one table of error numbers."""

from __future__ import annotations

from enum import Enum

from django.db import DatabaseError, DataError, InterfaceError, OperationalError
from django.db.transaction import TransactionManagementError

from common.errors import Problem, Unavailable


class Meaning(Enum):
    """What has happened when a statement or a COMMIT failed."""

    # Nothing, once the transaction is rolled back (1205 alone undoes the statement only): it may
    # be repeated as a whole, at once.
    ROLLED_BACK = "rolled back"
    # The connection is gone. Nothing, or at COMMIT perhaps everything: repeat it by its ids.
    UNKNOWN = "unknown"
    # Nothing, and repeating it at once would not help: too many connections, no space, read-only.
    UNAVAILABLE = "unavailable"
    # Nothing: a row with this key exists.
    DUPLICATE = "duplicate"
    # Nothing: a CHECK constraint or the range of an unsigned column forbids it.
    FORBIDDEN = "forbidden"
    # A mistake in the statement or its values, or no error of a database at all.
    OTHER = "other"


_BY_NUMBER = {
    number: meaning
    for meaning, numbers in {
        # lock wait timeout, deadlock, record changed since the snapshot (MariaDB)
        Meaning.ROLLED_BACK: (1205, 1213, 1020),
        # server gone, lost during query, lost at system call, killed, shutting down, idle too long
        Meaning.UNKNOWN: (2006, 2013, 2055, 1927, 1053, 4031),
        # too many connections (server, user), cannot connect, table full, disk full, statement out
        # of time (MariaDB, MySQL) or interrupted, read-only
        Meaning.UNAVAILABLE: (1040, 1203, 2002, 2003, 1114, 1021, 1969, 3024, 1317, 1290, 1836),
        Meaning.DUPLICATE: (1062,),
        # unsigned out of range, value out of range, CHECK (MariaDB, MySQL)
        Meaning.FORBIDDEN: (1690, 1264, 4025, 3819),
        # wrong date, wrong value: the driver calls them operational, but they are not
        Meaning.OTHER: (1292, 1366),
    }.items()
    for number in numbers
}
# SQLite has words instead of numbers.
_BY_TEXT = {
    "is locked": Meaning.ROLLED_BACK,
    "UNIQUE constraint failed": Meaning.DUPLICATE,
    "CHECK constraint failed": Meaning.FORBIDDEN,
}
_OUTAGES = frozenset({Meaning.ROLLED_BACK, Meaning.UNKNOWN, Meaning.UNAVAILABLE})


def meaning_of(error: BaseException) -> Meaning:
    """Return what an error of the database means; OTHER for what is none."""
    if isinstance(error, InterfaceError | TransactionManagementError):
        # The latter: a savepoint that could not be undone, because the connection had died.
        return Meaning.UNKNOWN
    if not isinstance(error, DatabaseError):
        return Meaning.OTHER
    # What the driver calls operational is not the request's fault, whatever the number is.
    default = Meaning.UNAVAILABLE if isinstance(error, OperationalError) else Meaning.OTHER
    number = error.args[0] if error.args else None
    if isinstance(number, int):
        return _BY_NUMBER.get(number, default)
    text = str(error)
    return next((meaning for words, meaning in _BY_TEXT.items() if words in text), default)


def is_outage(error: BaseException) -> bool:
    """Tell whether the database is at fault and not the request: the same one may work later."""
    return meaning_of(error) in _OUTAGES


def as_problem(error: BaseException) -> Problem | None:
    """Return what a caller is told of an error of the database; None where it is our mistake."""
    if is_outage(error):
        return Unavailable("database_unavailable", "The database did not answer; try again.")
    if isinstance(error, DataError):
        return Problem(400, "validation_error", "A value is out of range.")
    if meaning_of(error) is Meaning.FORBIDDEN:
        return Problem(409, "conflict", "The database's rules forbid this; nothing was changed.")
    return None
