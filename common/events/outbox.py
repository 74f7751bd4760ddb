"""Publishing a fact: a row in the outbox, in the transaction of the effect it speaks of."""

from __future__ import annotations

from binascii import crc32
from collections.abc import Iterable
from datetime import timedelta
from typing import Any, NamedTuple

from django.conf import settings
from django.db import connection
from django.utils import timezone

from common import bulk
from common.events.models import PARTITIONS, InboxEvent, OutboxEvent
from common.ids import uuid7
from common.request_id import current_request_id

# An emptied stream can be refilled, and a doubled event recognised, for this long.
RETENTION = timedelta(hours=48)


class NewEvent(NamedTuple):
    """A fact about an aggregate; ``data`` is what consumers get to see of it."""

    aggregate_type: str
    aggregate_id: str
    event_type: str
    data: dict[str, Any]
    # The request that it comes from, where that is not the one at work now.
    request_id: str = ""


def publish(
    *, aggregate_type: str, aggregate_id: str, event_type: str, data: dict[str, Any]
) -> None:
    """Write one event to the outbox; see publish_all()."""
    publish_all([NewEvent(aggregate_type, aggregate_id, event_type, data)])


def publish_all(events: Iterable[NewEvent]) -> None:
    """Write events (CloudEvents 1.0 names) to the outbox, in their order.

    Must run inside the transaction of the effect: an event without its effect, or the reverse,
    is what an outbox exists to rule out.
    """
    if not connection.in_atomic_block:
        raise RuntimeError("publish_all() belongs inside the transaction of the effect")
    _insert(_row(event) for event in events)


_insert = bulk.inserter(
    OutboxEvent,
    *("id", "aggregatetype", "aggregateid", "type", "partition"),
    *("payload", "created_at", "attempts"),
)


def _row(event: NewEvent) -> tuple[Any, ...]:
    event_id, now = uuid7(), timezone.now()
    payload = {
        "specversion": "1.0",
        "id": str(event_id),
        "source": f"/flashsale/{settings.SERVICE}",
        "type": event.event_type,
        "subject": event.aggregate_id,
        "time": now.isoformat(),
        "datacontenttype": "application/json",
        "requestid": event.request_id or current_request_id(),
        "data": event.data,
    }
    partition = partition_of(event.aggregate_type, event.aggregate_id)
    named = (event.aggregate_type, event.aggregate_id, event.event_type)
    return (event_id, *named, partition, payload, now, 0)


def partition_of(aggregate_type: str, aggregate_id: str) -> int:
    """Return the partition of an aggregate's events, the same on every process and machine."""
    return crc32(f"{aggregate_type}/{aggregate_id}".encode()) % PARTITIONS


def pending_count() -> int:
    """Return how many events wait to be published."""
    return OutboxEvent.objects.filter(published_at=None).count()


def purge(limit: int = 1000) -> int:
    """Delete published and applied events older than RETENTION; return how many went."""
    horizon = timezone.now() - RETENTION
    old = OutboxEvent.objects.filter(
        partition__in=range(PARTITIONS), published_at__lt=horizon
    ).values_list("seq", flat=True)[:limit]
    gone, _ = OutboxEvent.objects.filter(seq__in=list(old)).delete()
    applied = InboxEvent.objects.filter(
        status=InboxEvent.Status.APPLIED, received_at__lt=horizon
    ).values_list("id", flat=True)[:limit]
    gone_too, _ = InboxEvent.objects.filter(id__in=list(applied)).delete()
    return gone + gone_too
