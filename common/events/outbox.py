"""Publishing a fact: a row in the outbox, in the transaction of the effect it speaks of."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db import connection
from django.utils import timezone

from common.events.models import InboxEvent, OutboxEvent
from common.ids import uuid7
from common.request_id import current_request_id

# An emptied stream can be refilled, and a doubled event recognised, for this long.
RETENTION = timedelta(hours=48)


def publish(
    *, aggregate_type: str, aggregate_id: str, event_type: str, data: dict[str, Any]
) -> None:
    """Write an event (CloudEvents 1.0 names) to the outbox.

    Must run inside the transaction of the effect: an event without its effect, or the reverse,
    is what an outbox exists to rule out.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("publish() belongs inside the transaction of the effect")
    event_id = uuid7()
    OutboxEvent.objects.create(
        id=event_id,
        aggregatetype=aggregate_type,
        aggregateid=aggregate_id,
        type=event_type,
        payload={
            "specversion": "1.0",
            "id": str(event_id),
            "source": f"/flashsale/{settings.SERVICE}",
            "type": event_type,
            "subject": aggregate_id,
            "time": timezone.now().isoformat(),
            "datacontenttype": "application/json",
            "requestid": current_request_id(),
            "data": data,
        },
    )


def pending_count() -> int:
    """Return how many events wait to be published."""
    return OutboxEvent.objects.filter(published_at=None).count()


def purge(limit: int = 1000) -> int:
    """Delete published and applied events older than RETENTION; return how many went."""
    horizon = timezone.now() - RETENTION
    old = OutboxEvent.objects.filter(published_at__lt=horizon).values_list("seq", flat=True)[:limit]
    gone, _ = OutboxEvent.objects.filter(seq__in=list(old)).delete()
    applied = InboxEvent.objects.filter(
        status=InboxEvent.Status.APPLIED, received_at__lt=horizon
    ).values_list("id", flat=True)[:limit]
    gone_too, _ = InboxEvent.objects.filter(id__in=list(applied)).delete()
    return gone + gone_too
