"""Changing a service's tables behind its back, as a person with a database client may."""

from __future__ import annotations

import sqlite3
import uuid
from contextlib import closing
from typing import Any
from urllib.parse import parse_qs, urlsplit

from deploy.stack.layout import Layout, read_json


def sql(layout: Layout, service: str, statement: str, *values: Any) -> list[Any]:
    """Run a statement in a service's database; names that need quoting stand in backticks."""
    written = read_json(layout.environment_json) or {}
    url = written["env"].get(f"{service.upper()}_DATABASE_URL")
    if url:
        return _mysql(url, statement, values)
    path = layout.db / f"{service}.sqlite3"
    with closing(sqlite3.connect(path, timeout=20)) as database, database:
        return database.execute(statement, values).fetchall()


def hex_of(text: str) -> str:
    """Return a UUID in the form that every database takes."""
    return uuid.UUID(text).hex


def _mysql(url: str, statement: str, values: tuple[Any, ...]) -> list[Any]:
    # Not there on machines without MariaDB.
    import MySQLdb

    parts = urlsplit(url)
    connection = MySQLdb.connect(
        user=parts.username,
        password=parts.password,
        unix_socket=parse_qs(parts.query)["unix_socket"][0],
        database=parts.path.strip("/"),
    )
    with closing(connection):
        cursor = connection.cursor()
        cursor.execute(statement.replace("?", "%s"), values)
        connection.commit()
        return list(cursor.fetchall())
