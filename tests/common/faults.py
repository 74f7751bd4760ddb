"""Faults made on purpose, as close to the real thing as one process can come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from django.db import OperationalError, connections


@contextmanager
def losing_the_answer_to_a_commit(of_table: str) -> Iterator[list[str]]:
    """Let the next COMMIT of a transaction that wrote to ``of_table`` happen, but look failed.

    Yields a list that is filled once it has come to that.
    """
    connection = connections["default"]
    written: list[str] = []
    lost: list[str] = []
    commit = connection._commit

    def note_writes(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        if of_table in sql and not sql.startswith("SELECT"):
            written.append(sql)
        return execute(sql, params, many, context)

    def commit_and_lose_the_answer() -> None:
        commit()
        if written and not lost:
            lost.append(of_table)
            raise OperationalError(2013, "Lost connection to server during query")

    with (
        connection.execute_wrapper(note_writes),
        patch.object(connection, "_commit", commit_and_lose_the_answer),
    ):
        yield lost


@contextmanager
def failing_commit(number: int, *, done: bool) -> Iterator[list[str]]:
    """Let the ``number``-th COMMIT from here look failed, whether it is done or not.

    Yields a list that is filled once it has come to that.
    """
    connection = connections["default"]
    commit = connection._commit
    count = 0
    failed: list[str] = []

    def commit_and_fail() -> None:
        nonlocal count
        count += 1
        if count != number:
            commit()
            return
        failed.append("COMMIT")
        if done:
            commit()
        else:
            connection.close()
        raise OperationalError(2013, "Lost connection to server during query")

    with patch.object(connection, "_commit", commit_and_fail):
        yield failed


@contextmanager
def failing_statement(number: int, code: int) -> Iterator[list[str]]:
    """Let the ``number``-th statement from here fail once, with an error of MySQL's.

    Yields a list that is filled once it has come to that.
    """
    count = 0
    failed: list[str] = []

    def fail_once(
        execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any
    ) -> Any:
        nonlocal count
        count += 1
        if count == number:
            failed.append(sql)
            raise OperationalError(code, "made to fail")
        return execute(sql, params, many, context)

    with connections["default"].execute_wrapper(fail_once):
        yield failed


@contextmanager
def database_away() -> Iterator[None]:
    """Let every statement of this thread fail as if the server were gone."""

    def fail(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        raise OperationalError(2006, "Server has gone away")

    with connections["default"].execute_wrapper(fail):
        yield
