"""Start-up: no service runs on a database that would forget, and every wait has its place."""

from __future__ import annotations

import re
import runpy
import time
from pathlib import Path

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import OperationalError, connection

from common import databases, durability, group_commit, http_client, transactions
from common.databases import unhurried
from tests.common.concurrency import together

pytestmark = pytest.mark.django_db(transaction=True)
ROOT = Path(__file__).resolve().parents[2]
on_mysql = pytest.mark.skipif("connection.vendor != 'mysql'", reason="MySQL's own settings")
on_sqlite = pytest.mark.skipif("connection.vendor != 'sqlite'", reason="SQLite's own settings")


def nginx_read_seconds():
    text = (ROOT / "gateway" / "nginx.conf.template").read_text()
    return float(re.search(r"proxy_read_timeout (\d+)s", text).group(1))


def test_every_wait_is_shorter_than_the_one_around_it():
    gunicorn = runpy.run_path(str(ROOT / "deploy" / "gunicorn.conf.py"))
    assert databases.LOCK_WAIT_SECONDS < databases.STATEMENT_SECONDS
    assert databases.STATEMENT_SECONDS < databases.SOCKET_TIMEOUT_SECONDS
    # What a transaction may take in all: its last attempt waits for a lock, too.
    transaction = transactions.ATTEMPTS_SECONDS_MAX + databases.LOCK_WAIT_SECONDS
    followers = 2 * group_commit.WAIT_SECONDS_MAX
    calls = http_client.READ_TIMEOUT_SECONDS
    assert transaction < followers < calls
    # A service that asks another one has a transaction of its own after that.
    assert calls + transaction < nginx_read_seconds() < gunicorn["graceful_timeout"]
    assert group_commit.STALL_SECONDS < databases.LOCK_WAIT_SECONDS
    assert calls > databases.IDLE_WRITE_SECONDS


def test_the_database_of_the_tests_is_as_it_should_be():
    assert durability.problems() == []
    durability.require_durable()
    call_command("check", databases=["default"], verbosity=0)


@pytest.fixture
def found(monkeypatch):
    """Return a switch: let the server say other values than it has."""
    real = durability._mysql_variables

    def say(**values):
        monkeypatch.setattr(durability, "_mysql_variables", lambda: {**real(), **values})

    return say


@on_mysql
@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("innodb_flush_log_at_trx_commit", "2"),
        ("innodb_flush_log_at_trx_commit", "0"),
        ("tx_isolation", "REPEATABLE-READ"),
        ("transaction_isolation", "SERIALIZABLE"),
        ("character_set_connection", "latin1"),
        ("character_set_database", "latin1"),
        ("innodb_lock_wait_timeout", "50"),
        ("idle_write_transaction_timeout", "0"),
        ("sql_mode", "NO_ENGINE_SUBSTITUTION"),
    ],
)
def test_a_server_that_is_set_up_otherwise_is_refused_by_name(found, variable, value):
    found(**{variable: value})

    with pytest.raises(ImproperlyConfigured, match=variable):
        durability.require_durable()
    with pytest.raises(SystemCheckError, match=variable):
        call_command("migrate", verbosity=0, skip_checks=False)


@on_mysql
@pytest.mark.parametrize(
    ("log_bin", "sync", "wrong"), [("ON", "0", 1), ("ON", "1", 0), ("OFF", "0", 0)]
)
def test_a_binary_log_has_to_be_on_the_disk_as_well(found, log_bin, sync, wrong):
    found(log_bin=log_bin, sync_binlog=sync)
    assert len(durability.problems()) == wrong


@on_mysql
def test_a_server_that_does_not_know_a_variable_is_judged_by_the_others(monkeypatch):
    real = durability._mysql_variables()
    absent = {"log_bin", "sync_binlog", "tx_isolation"}
    some = {name: value for name, value in real.items() if name not in absent}
    monkeypatch.setattr(durability, "_mysql_variables", lambda: some)
    assert durability.problems() == []


@on_mysql
def test_a_real_session_that_is_set_up_otherwise_is_noticed():
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION innodb_lock_wait_timeout = 7")
    try:
        assert "innodb_lock_wait_timeout is 7 and must be 1" in durability.problems()[0]
    finally:
        connection.close()


@on_sqlite
@pytest.mark.parametrize("pragma", ["synchronous = NORMAL", "synchronous = OFF"])
def test_a_file_that_is_not_synced_is_refused(pragma):
    with connection.cursor() as cursor:
        cursor.execute(f"PRAGMA {pragma}")
    try:
        assert "PRAGMA synchronous is" in durability.problems()[0]
    finally:
        connection.close()


def test_a_database_that_is_away_is_waited_for_and_not_judged(monkeypatch):
    def away():
        raise OperationalError(2002, "away")

    monkeypatch.setattr(durability, "problems", away)
    durability.require_durable()


@on_mysql
def test_a_statement_that_takes_too_long_is_ended_by_the_server():
    started = time.monotonic()
    with pytest.raises(OperationalError) as caught, connection.cursor() as cursor:
        cursor.execute("SELECT COUNT(*) FROM seq_1_to_100000000 a JOIN seq_1_to_1000 b")
    assert caught.value.args[0] in (1969, 3024)
    assert time.monotonic() - started < databases.SOCKET_TIMEOUT_SECONDS


@on_mysql
def test_who_may_take_time_has_other_limits_and_then_the_usual_ones():
    def limits():
        with connection.cursor() as cursor:
            cursor.execute("SELECT @@max_statement_time, @@innodb_lock_wait_timeout")
            return cursor.fetchone()

    usual = (databases.STATEMENT_SECONDS, databases.LOCK_WAIT_SECONDS)

    def others_limits():
        return together(limits)[0]

    assert limits() == usual
    with unhurried():
        assert limits() == (0, databases.LOCK_WAIT_SECONDS)
        assert connection.settings_dict["OPTIONS"]["read_timeout"] == databases.UNHURRIED_SECONDS
        assert others_limits() == usual, "other threads are in the usual hurry"
    assert limits() == usual
    assert connection.settings_dict["OPTIONS"]["read_timeout"] == databases.SOCKET_TIMEOUT_SECONDS
