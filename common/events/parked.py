"""Parked events: put aside because their handler failed too often, until a person has decided."""

from __future__ import annotations

from uuid import UUID

import structlog
from django.db.models import QuerySet

from common.events.inbox import apply_event
from common.events.models import InboxEvent

log = structlog.get_logger(__name__)

ERROR_CHARACTERS_MAX = 2_000


def parked_events() -> QuerySet[InboxEvent]:
    """Return the parked events, oldest first."""
    return InboxEvent.objects.filter(status=InboxEvent.Status.PARKED).order_by("received_at", "id")


def retry(row: InboxEvent) -> str:
    """Apply a parked event now; return what stands in the way, or nothing when it is applied."""
    try:
        handled = apply_event(row.payload or {})
    except Exception as error:
        # Whatever a handler raises: the event stays parked, for the newer reason.
        reason = f"{type(error).__name__}: {error}"
        parked_events().filter(pk=row.pk).update(error=reason[:ERROR_CHARACTERS_MAX])
        log.warning("parked event failed again", event_id=str(row.pk), type=row.type, error=reason)
        return reason
    if not handled and parked_events().filter(pk=row.pk).exists():
        return "nothing here handles events of this type"
    log.info("parked event applied", event_id=str(row.pk), type=row.type)
    return ""


def discard(event_id: UUID, reason: str) -> bool:
    """Give a parked event up, for a reason that is kept with it; False if none is parked."""
    for row in parked_events().filter(pk=event_id):
        error = f"discarded: {reason}; parked: {row.error}"[:ERROR_CHARACTERS_MAX]
        # It may have been applied since the look.
        if (
            parked_events()
            .filter(pk=event_id)
            .update(status=InboxEvent.Status.DISCARDED, error=error)
        ):
            log.warning("event discarded", event_id=str(event_id), type=row.type, reason=reason)
            return True
    return False
