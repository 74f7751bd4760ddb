"""The one place that repeats a transaction; common.database_errors says which errors allow it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import stamina
import stamina.instrumentation
from django.db import OperationalError, connection, transaction

from common.database_errors import Meaning, meaning_of

T = TypeVar("T")

MAX_ATTEMPTS = 3
# No new attempt after this long, so that the last one ends before the caller stops waiting.
ATTEMPTS_SECONDS_MAX = 1.2

# SQLite has one writer, and those who wait for it poll: a crowd of threads would starve itself.
# One thread of a process at a time goes to the file; the others stand in line here.
_sqlite_turn = threading.Lock()
SQLITE_TURN_SECONDS = 5.0

# A retry is the normal course under contention, not news: without this each one is a log line.
stamina.instrumentation.set_on_retry_hooks([])


def in_transaction(work: Callable[[], T]) -> T:
    """Run ``work`` in one transaction, again (up to 3 times, jittered) when the database asks.

    ``work`` must be repeatable by the ids it writes: after a lost connection it cannot be known
    whether the first COMMIT happened. Inside an outer transaction nothing is retried, because
    only the outermost one can be rolled back and repeated as a whole.
    """
    if connection.in_atomic_block:
        with transaction.atomic():
            return work()
    for attempt in stamina.retry_context(
        on=_may_be_repeated,
        attempts=MAX_ATTEMPTS,
        timeout=ATTEMPTS_SECONDS_MAX,
        wait_initial=0.01,
        wait_max=0.2,
        wait_jitter=0.05,
    ):
        with attempt, _turn(), transaction.atomic():
            return work()
    raise AssertionError("retry_context either returns or raises")


@contextmanager
def _turn() -> Iterator[None]:
    if connection.vendor != "sqlite":
        yield
        return
    if not _sqlite_turn.acquire(timeout=SQLITE_TURN_SECONDS):
        raise OperationalError("database is busy: too many writers stand in line")
    try:
        yield
    finally:
        _sqlite_turn.release()


def _may_be_repeated(error: Exception) -> bool:
    meaning = meaning_of(error)
    if meaning is Meaning.UNKNOWN:
        connection.close()
    return meaning in (Meaning.UNKNOWN, Meaning.ROLLED_BACK)
