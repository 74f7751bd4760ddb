"""The database's clock: where several processes must agree on the time, it is the one they share.

A process's own clock may be minutes off; what is compared with what another process wrote is then
written and compared by the database. Both are UTC, as Django stores its times.
"""

from __future__ import annotations

from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.models import DateTimeField, Func
from django.db.models.sql.compiler import SQLCompiler


class DatabaseTime(Func):
    """The database's time, ``seconds`` from now.

    Django's own Now() is the time of MySQL's session, which need not be in UTC.
    """

    output_field = DateTimeField()

    def __init__(self, seconds: float = 0.0) -> None:
        super().__init__()
        self._seconds = float(seconds)

    def as_mysql(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any
    ) -> tuple[str, tuple[str | int, ...]]:
        """Microseconds, as DATETIME(6) columns hold them."""
        return "(UTC_TIMESTAMP(6) + INTERVAL %s MICROSECOND)", (round(self._seconds * 1e6),)

    def as_sqlite(
        self, compiler: SQLCompiler, connection: BaseDatabaseWrapper, **context: Any
    ) -> tuple[str, tuple[str | int, ...]]:
        """Text that sorts as the text that Django writes does."""
        # Without it a whole second would sort before its own fractions: SQLite writes milliseconds.
        return (
            "strftime('%%Y-%%m-%%d %%H:%%M:%%f000', 'now', %s)",
            (f"{self._seconds:+f} seconds",),
        )
