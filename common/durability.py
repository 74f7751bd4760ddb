"""Is the database set up as the promises need it? Asked at start-up, by ``check`` and ``migrate``.

What kill -9 cannot show, a power cut does: a server that answers COMMIT before the disk has it
loses sales that were acknowledged. Nobody would notice before, so nothing starts on such a server.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, InterfaceError, connection

from common.databases import IDLE_WRITE_SECONDS, LOCK_WAIT_SECONDS

# variable (MySQL, MariaDB or both) → (what it must be, why)
MYSQL_VARIABLES: dict[str, tuple[str, str]] = {
    "innodb_flush_log_at_trx_commit": ("1", "a power cut would lose sales that were acknowledged"),
    "tx_isolation": ("READ-COMMITTED", "old snapshots would hide what others have sold"),
    "transaction_isolation": ("READ-COMMITTED", "old snapshots would hide what others have sold"),
    "character_set_connection": ("utf8mb4", "text would be changed on its way"),
    "character_set_database": ("utf8mb4", "text would be changed on its way; ALTER DATABASE"),
    "innodb_lock_wait_timeout": (str(LOCK_WAIT_SECONDS), "requests would wait longer than callers"),
    "idle_write_transaction_timeout": (
        str(IDLE_WRITE_SECONDS),
        "a stopped worker would keep the hot row",
    ),
}
SQLITE_PRAGMAS: dict[str, tuple[str, str]] = {
    "journal_mode": ("wal", "readers would stop writers"),
    "synchronous": ("2", "a power cut would lose sales that were acknowledged"),
}


def problems() -> list[str]:
    """Return what is wrong with the service's database; empty when all is right.

    Raises a database error when it does not answer.
    """
    if connection.vendor == "sqlite":
        return _sqlite_problems()
    found = _mysql_variables()
    wrong = [
        f"{name} is {found[name]} and must be {wanted}: else {why}"
        for name, (wanted, why) in MYSQL_VARIABLES.items()
        if name in found and found[name] != wanted
    ]
    if "STRICT_" not in found.get("sql_mode", ""):
        wrong.append("sql_mode must hold STRICT_TRANS_TABLES: else values are cut to what fits")
    if found.get("log_bin") == "ON" and found.get("sync_binlog") != "1":
        # After a crash InnoDB takes back what the binary log does not have.
        wrong.append(
            f"sync_binlog is {found.get('sync_binlog')} and must be 1, as there is a binary log: "
            "else a power cut would lose sales that were acknowledged"
        )
    return wrong


def require_durable() -> None:
    """Raise ImproperlyConfigured, naming each setting, unless the database may be trusted.

    A database that does not answer is none to judge: the service waits for it as ever.
    """
    if connection.vendor == "unknown":
        # The gateway has none: Django gives it one that only complains.
        return
    try:
        wrong = problems()
    except (DatabaseError, InterfaceError):
        return
    finally:
        connection.close()
    if wrong:
        raise ImproperlyConfigured("; ".join(wrong))


@register(Tags.database)
def check_durability(
    app_configs: Any = None, databases: Sequence[str] | None = None, **_: Any
) -> list[CheckMessage]:
    """Django's check: run by ``migrate``, and by ``check --database default``."""
    if "default" not in (databases or ()):
        return []
    return [Error(problem, id="flashsale.E001") for problem in problems()]


def _mysql_variables() -> dict[str, str]:
    names = [*MYSQL_VARIABLES, "sql_mode", "log_bin", "sync_binlog"]
    marks = ", ".join(["%s"] * len(names))
    with connection.cursor() as cursor:
        cursor.execute(f"SHOW VARIABLES WHERE Variable_name IN ({marks})", names)
        return dict(cursor.fetchall())


def _sqlite_problems() -> list[str]:
    wrong = []
    with connection.cursor() as cursor:
        for name, (wanted, why) in SQLITE_PRAGMAS.items():
            cursor.execute(f"PRAGMA {name}")
            [value] = cursor.fetchone()
            if str(value) != wanted:
                wrong.append(f"PRAGMA {name} is {value} and must be {wanted}: else {why}")
    return wrong
