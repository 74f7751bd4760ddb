"""Repairs: what a service does about a finding of the audit, one row at a time.

A repair names a row; whether there is anything to do is decided by the database when it is done, so
that it may be asked for twice, or late, and then does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from django.conf import settings

from common.errors import Problem
from common.events.models import OutboxEvent
from common.events.parked import parked_events, retry
from common.failpoints import failpoint

log = structlog.get_logger(__name__)

Item = Mapping[str, Any]
# A repair gets its item and returns what it has done; nothing if there was nothing to do.
Repair = Callable[[Item], str]
NOTHING = "nothing to do"


def repair_all(items: Iterable[Item], repairs: Mapping[str, Repair]) -> list[dict[str, Any]]:
    """Do what the items ask for, each by itself; return each with ``ok`` and its ``result``.

    An item is ``{"repair", "id", "why"}`` and what the repair wants besides. Every one is logged.
    """
    return [_repaired(item, repairs) for item in items]


def _repaired(item: Item, repairs: Mapping[str, Repair]) -> dict[str, Any]:
    failpoint("repair.before")
    name, row_id = str(item.get("repair")), str(item.get("id"))
    ok = True
    try:
        result = repairs[name](item) or NOTHING
    except Exception as error:
        # One that cannot be done must not keep the others from being done.
        ok, result = False, _reason(error, name, repairs)
        if not isinstance(error, Problem | LookupError):
            log.exception("repair failed", repair=name, id=row_id)
    failpoint("repair.done")
    told = {"repair": name, "id": row_id, "why": str(item.get("why", "")), "result": result}
    log.warning("repair", service=settings.SERVICE, ok=ok, **told)
    return {**told, "ok": ok}


def _reason(error: Exception, name: str, repairs: Mapping[str, Repair]) -> str:
    if name not in repairs:
        return f"{settings.SERVICE} has no such repair; it has {', '.join(sorted(repairs))}"
    return f"{type(error).__name__}: {error}"


def retry_event(item: Item) -> str:
    """Apply an event that was parked; it stays parked if it still cannot be applied."""
    row = parked_events().filter(pk=item["id"]).first()
    if row is None:
        return ""
    if hindrance := retry(row):
        raise Problem(409, "event_not_applied", hindrance)
    return "applied"


def resend_event(item: Item) -> str:
    """Send an event again; who has applied it knows it, and who has not does so now."""
    sent = OutboxEvent.objects.filter(id=item["id"]).exclude(published_at=None)
    return "the relay sends it again" if sent.update(published_at=None) else ""


EVENT_REPAIRS: Mapping[str, Repair] = {"retry_event": retry_event, "resend_event": resend_event}
