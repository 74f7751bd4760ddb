"""Reading holds: which are out there that name an order, for the sweeper that looks for orphans."""

from __future__ import annotations

from datetime import UTC, datetime

from django.db.models import Q
from django.utils.dateparse import parse_datetime

from common.errors import Problem
from services.inventory.models import Reservation
from services.inventory.states import Status


def with_orders(
    *, created_before: datetime, limit: int, after: str = ""
) -> tuple[list[Reservation], str | None]:
    """Return (holds, cursor of the next page or None), oldest first.

    ``after`` is a cursor of an earlier page; 400 ``invalid_cursor`` if it is not.
    """
    rows = Reservation.objects.filter(
        status=Status.RESERVED, order_id__isnull=False, created_at__lt=created_before
    ).order_by("created_at", "pk")
    if after:
        at, last = _parsed(after)
        rows = rows.filter(Q(created_at__gt=at) | Q(created_at=at, pk__gt=last))
    page = list(rows[:limit])
    full = len(page) == limit
    return page, f"{page[-1].created_at.isoformat()}|{page[-1].pk}" if full else None


def _parsed(cursor: str) -> tuple[datetime, str]:
    at_text, _, last = cursor.partition("|")
    try:
        at = parse_datetime(at_text)
        if at is not None and at.tzinfo is not None and last:
            return at.astimezone(UTC), last
    except (ValueError, OverflowError):
        pass
    raise Problem(400, "invalid_cursor", "`after` is not a cursor that this service made.")
