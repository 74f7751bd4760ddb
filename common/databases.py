"""Database connections of a service, with what SQLite and MySQL each need to be safe."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connection, connections, transaction

# The ladder of timeouts: the innermost wait ends first, so that who waits outside hears why. On it
# stand further: transactions' last attempt (1.2 s + a lock wait), group_commit's two waits (1.5 s
# each), http_client's call between services (3.5 s), nginx (8 s) and gunicorn (10 s). MariaDB
# counts the wait for a lock as part of the statement.
LOCK_WAIT_SECONDS = 1
STATEMENT_SECONDS = 1.5
CONNECT_TIMEOUT_SECONDS = 2
SOCKET_TIMEOUT_SECONDS = 2
# A worker that stops in the middle of a write must not keep the hot row for longer (MariaDB).
IDLE_WRITE_SECONDS = 3
# For what a person starts and waits for: a migration, an audit of millions of rows.
UNHURRIED_SECONDS = 3600

# Comments that only one of them executes tell MariaDB's variables from MySQL's.
_SESSION = (
    f"SET SESSION innodb_lock_wait_timeout={LOCK_WAIT_SECONDS}"
    f" /*M! , idle_write_transaction_timeout={IDLE_WRITE_SECONDS} */"
)
_STATEMENT_LIMIT = (
    f" /*M! , max_statement_time={STATEMENT_SECONDS} */"
    f" /*!80000 , max_execution_time={STATEMENT_SECONDS * 1000:.0f} */"
)
MYSQL_OPTIONS: dict[str, Any] = {
    "charset": "utf8mb4",
    "isolation_level": "read committed",
    "connect_timeout": CONNECT_TIMEOUT_SECONDS,
    "read_timeout": SOCKET_TIMEOUT_SECONDS,
    "write_timeout": SOCKET_TIMEOUT_SECONDS,
    "init_command": _SESSION + _STATEMENT_LIMIT,
}
_UNHURRIED = {
    "read_timeout": UNHURRIED_SECONDS,
    "write_timeout": UNHURRIED_SECONDS,
    "init_command": _SESSION,
}
SQLITE_OPTIONS: dict[str, Any] = {
    # A transaction that starts as a reader and then writes cannot wait for its turn in SQLite.
    "transaction_mode": "IMMEDIATE",
    "timeout": 5,
    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
}


def databases(service: str) -> dict[str, dict[str, Any]]:
    """Return Django's DATABASES: ``default``, and ``replica`` where one is configured.

    Read from ``<SERVICE>_DATABASE_URL`` (default: a SQLite file under var/db) and
    ``<SERVICE>_REPLICA_URL``.
    """
    from common.settings import VAR, env

    name = service.upper()
    default = env.db_url(
        f"{name}_DATABASE_URL", default=f"sqlite:///{VAR / 'db' / service}.sqlite3"
    )
    result = {"default": _with_options(default)}
    if env.str(f"{name}_REPLICA_URL", default=""):
        result["replica"] = _with_options(env.db_url(f"{name}_REPLICA_URL"))
        result["replica"]["TEST"] = {"MIRROR": "default"}
    return result


def _with_options(config: dict[str, Any]) -> dict[str, Any]:
    mysql = config["ENGINE"] == "django.db.backends.mysql"
    own = MYSQL_OPTIONS if mysql else SQLITE_OPTIONS
    config["OPTIONS"] = {**own, **config.get("OPTIONS", {})}
    # With gthread's long-lived threads this is the connection pool.
    config["CONN_MAX_AGE"] = 600
    config["CONN_HEALTH_CHECKS"] = mysql
    if not mysql:
        Path(config["NAME"]).parent.mkdir(parents=True, exist_ok=True)
        # Threads of a test must meet in a file: an in-memory database has no lock to wait for.
        config["TEST"] = {"NAME": f"{config['NAME']}.test"}
    return config


def has_database() -> bool:
    """Tell whether this project has a database at all; the gateway has none."""
    return bool(connection.settings_dict["ENGINE"] != "django.db.backends.dummy")


def database_answers() -> str:
    """Return ``ok`` when the service's database answers a query; raises a database error if not."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return "ok"


@contextmanager
def unhurried() -> Iterator[None]:
    """Let this thread's statements take up to an hour, on a connection of their own.

    Inside a transaction, which a connection cannot leave, nothing changes.
    """
    if connection.vendor != "mysql" or connection.in_atomic_block:
        yield
        return
    usual = connections["default"]
    config = {**usual.settings_dict, "OPTIONS": {**usual.settings_dict["OPTIONS"], **_UNHURRIED}}
    connections["default"] = type(usual)(config, "default")
    try:
        yield
    finally:
        connections["default"].close()
        connections["default"] = usual


@contextmanager
def consistent_snapshot() -> Iterator[None]:
    """Let every query of the block see the database as of one moment, while traffic runs on.

    Inside a transaction it is that transaction's view that counts.
    """
    if connection.in_atomic_block:
        yield
    elif connection.vendor == "mysql":
        with connection.cursor() as cursor:
            # For the next transaction only; the connection's default is READ COMMITTED.
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        with transaction.atomic():
            yield
    else:
        # atomic() would take SQLite's one write lock (IMMEDIATE) and stop the traffic.
        with connection.cursor() as cursor:
            cursor.execute("BEGIN DEFERRED")
            try:
                yield
            finally:
                cursor.execute("ROLLBACK")
