"""Counting calls per window with django-ratelimit, and what a dead Redis means for each limit."""

from __future__ import annotations

from dataclasses import dataclass

from django.core.cache import cache
from django.http import HttpRequest
from django_ratelimit.core import get_usage


@dataclass(frozen=True)
class Usage:
    """How much of a limit is used up; ``retry_after_seconds`` is when the window ends."""

    limited: bool
    limit: int
    remaining: int
    retry_after_seconds: int


def count_call(
    request: HttpRequest,
    *,
    group: str,
    key: str,
    rate: str,
    fail_open: bool,
    increment: bool = True,
) -> Usage:
    """Count one call of ``key`` in ``group`` against ``rate`` (``"20/m"``).

    ``increment=False`` only looks. Without Redis the answer is "not limited" for ``fail_open`` and
    "limited" otherwise: reads and buying go on, guessing passwords does not.
    """
    usage = get_usage(
        request, group=group, key=lambda group, request: key, rate=rate, increment=increment
    )
    # django-ratelimit reports a cache that is away as limit 0, but only when it tried to write.
    away = usage is None or usage["limit"] == 0
    if away or (not increment and not _cache_is_alive()):
        return Usage(not fail_open, 0, 0, 1)
    limit = int(usage["limit"])
    count = int(usage["count"])
    return Usage(count > limit, limit, max(0, limit - count), max(1, int(usage["time_left"])))


def client_ip(request: HttpRequest) -> str:
    """Return the client's address as nginx saw it.

    nginx overwrites X-Real-IP, and services listen where only nginx reaches them, so what a
    client sends in that header never arrives here.
    """
    return str(request.META.get("HTTP_X_REAL_IP") or request.META["REMOTE_ADDR"])


def _cache_is_alive() -> bool:
    # django-redis tells whether it has written, though Django's interface promises nothing.
    return bool(cache.set("limits-probe", 1, 5))  # type: ignore[func-returns-value]
