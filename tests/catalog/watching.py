"""What the tests of hot reads look through: the reads, the queries they cost, and the cache."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any

from django.db import connection
from django_redis import get_redis_connection

from tests.catalog.driver import Answer, Caller

_READS_CATALOG = re.compile("""FROM ["`](event|ticket|availability)["`]""")


class Queries:
    """Counts this service's queries in every thread that runs ``watched``, and can slow them."""

    def __init__(self) -> None:
        self.count = 0
        self.during: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def watched(self, call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            with self.watching():
                return call()

        return run

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        with connection.execute_wrapper(self._execute):
            yield

    def _execute(self, execute: Any, sql: Any, params: Any, many: Any, context: Any) -> Any:
        result = execute(sql, params, many, context)
        # What a new connection says to its server is no query of ours.
        if _READS_CATALOG.search(sql):
            with self._lock:
                self.count += 1
            self.during()
        return result


def reads(anyone: Caller, event: dict[str, Any]) -> dict[str, Callable[[], Answer]]:
    """Return the public reads of an event, by name."""
    ticket_id = event["tickets"][0]["id"]
    return {
        "list": anyone.list,
        "event": lambda: anyone.event(event["id"]),
        "ticket": lambda: anyone.ticket(ticket_id),
        "availability": lambda: anyone.availability(ticket_id),
    }


READS = ("list", "event", "ticket", "availability")


def redis() -> Any:
    """Return the cache as it is, keys and bytes."""
    return get_redis_connection("default")
