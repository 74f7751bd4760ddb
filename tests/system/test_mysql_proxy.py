"""The proxy does to a COMMIT what it says: otherwise the storms would prove nothing."""

from __future__ import annotations

import importlib
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from deploy.stack.mysql_server import PrivateMySQL
from deploy.stack.plan import EMBEDDED_VARIABLE
from tests.system.mysql_proxy import Fate, MySQLProxy

pytestmark = pytest.mark.skipif(
    bool(os.environ.get(EMBEDDED_VARIABLE)), reason="--embedded: this machine needs no MariaDB"
)
NOBODY_KNOWS = (2006, 2013)


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateMySQL]:
    with (
        tempfile.TemporaryDirectory(prefix="fs-sys-") as folder,
        PrivateMySQL(Path(folder)) as running,
    ):
        yield running


@pytest.fixture
def proxy(server: PrivateMySQL) -> Iterator[MySQLProxy]:
    with (
        tempfile.TemporaryDirectory(prefix="fs-sys-") as folder,
        MySQLProxy(server.socket, Path(folder) / "proxy.sock") as running,
    ):
        yield running


class Database:
    """A client's view of one table, through the proxy."""

    def __init__(self, server: PrivateMySQL, proxy: MySQLProxy) -> None:
        url = urlsplit(server.create_database("proxied"))
        self._driver: Any = importlib.import_module("MySQLdb")
        self._login = {"user": url.username, "password": url.password, "database": "proxied"}
        self._socket = str(proxy.socket)
        self.server = server
        server.execute("CREATE OR REPLACE TABLE proxied.told (word VARCHAR(9) PRIMARY KEY)")

    def connect(self) -> Any:
        return self._driver.connect(
            **self._login, unix_socket=self._socket, connect_timeout=1, read_timeout=1
        )

    def write(self, word: str) -> int:
        """Write in a transaction; returns the number of the error, 0 for none."""
        try:
            connection = self.connect()
            connection.cursor().execute("INSERT INTO told VALUES (%s)", (word,))
            connection.commit()
        except self._driver.OperationalError as error:
            return int(error.args[0])
        return 0

    def words(self) -> list[str]:
        """Return what is there, asked past the proxy."""
        return [row[0] for row in self.server.execute("SELECT word FROM proxied.told ORDER BY 1")]


@pytest.fixture
def database(server: PrivateMySQL, proxy: MySQLProxy) -> Database:
    return Database(server, proxy)


def test_a_commit_that_is_passed_on_is_done_and_answered(
    database: Database, proxy: MySQLProxy
) -> None:
    assert (database.write("a"), database.words()) == (0, ["a"])
    assert proxy.fates[Fate.PASSED_ON] >= 1


def test_a_commit_that_is_lost_before_it_was_done_is_not_in_the_database(
    database: Database, proxy: MySQLProxy
) -> None:
    proxy.fate = lambda: Fate.LOST_UNDONE
    assert database.write("a") in NOBODY_KNOWS
    proxy.fate = lambda: Fate.PASSED_ON
    assert database.write("b") == 0
    assert database.words() == ["b"]
    assert proxy.fates[Fate.LOST_UNDONE] == 1


def test_a_commit_that_is_lost_after_it_was_done_is_in_the_database(
    database: Database, proxy: MySQLProxy
) -> None:
    proxy.fate = lambda: Fate.LOST_DONE
    assert database.write("a") in NOBODY_KNOWS
    assert database.words() == ["a"]
    assert proxy.fates[Fate.LOST_DONE] == 1


def test_nothing_passes_while_it_is_paused_and_everything_afterwards(
    database: Database, proxy: MySQLProxy
) -> None:
    connection = database.connect()
    with proxy.paused():
        started = time.monotonic()
        assert database.write("a") in (2002, *NOBODY_KNOWS)
        assert time.monotonic() - started < 5, "the client gives up by itself"
        cursor = connection.cursor()
        answered = threading.Thread(target=cursor.execute, args=("SELECT 1",))
        answered.start()
        answered.join(0.3)
        assert answered.is_alive()
    answered.join(5)
    assert cursor.fetchall() == ((1,),)
    assert (database.write("b"), database.words()) == (0, ["b"])


def test_cut_connections_are_gone_and_new_ones_work(database: Database, proxy: MySQLProxy) -> None:
    connection = database.connect()
    connection.cursor().execute("INSERT INTO told VALUES ('a')")
    assert proxy.cut() >= 1
    with pytest.raises(database._driver.OperationalError) as failure:
        connection.commit()
    assert failure.value.args[0] in NOBODY_KNOWS
    assert (database.write("b"), database.words()) == (0, ["b"])


def test_large_statements_and_answers_pass_unchanged(database: Database) -> None:
    text = "x" * 3_000_000
    cursor = database.connect().cursor()
    cursor.execute("SELECT %s", (text,))
    assert cursor.fetchone() == (text,)
