"""How the event pipe of this service is doing: what waits, since when, and where.

Every query is bounded, and served by an index: a scrape must not be what a service dies of.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import cache

import structlog
from django.conf import settings
from django.db import Error as DatabaseError
from django.utils import timezone
from prometheus_client import Metric

from common.events.headroom import in_the_way
from common.events.leases import holders
from common.events.models import PARTITIONS, InboxEvent, OutboxEvent
from common.events.parked import parked_events
from common.events.relay import JOB
from common.events.transport import Transport, connect, stream_name
from common.metrics import gauge, gauges

log = structlog.get_logger(__name__)

COUNTED_MAX = 100_000
RATE_SECONDS = 10
# Who scrapes waits for all of it: a transport that hangs is as good as one that is away.
PATIENCE_SECONDS = 0.3


def collect() -> Iterator[Metric]:
    """Yield what is known; a database or a transport that is away leaves its own part out."""
    try:
        yield from list(_of_database())
    except DatabaseError as error:
        log.warning("scraped without the outbox", error=str(error))
    yield from _of_transport()


def _of_database() -> Iterator[Metric]:
    waiting = OutboxEvent.objects.filter(partition__in=range(PARTITIONS), published_at=None)
    yield gauge(
        "outbox_pending",
        f"Events that wait to be published; {COUNTED_MAX} stands for any more.",
        waiting.order_by()[:COUNTED_MAX].count(),
    )
    yield gauge(
        "outbox_oldest_pending_seconds",
        "For how long the oldest event has been waiting to be published; 0 when none is.",
        _oldest_seconds(),
    )
    yield gauge("inbox_parked", "Events put aside until a person decides.", parked_events().count())
    since = timezone.now() - timedelta(seconds=RATE_SECONDS)
    applied = InboxEvent.objects.filter(status=InboxEvent.Status.APPLIED, received_at__gt=since)
    yield gauge(
        "inbox_applied_per_second",
        f"Events applied, a second, over the last {RATE_SECONDS} s.",
        applied.order_by()[:COUNTED_MAX].count() / RATE_SECONDS,
    )
    yield gauges(
        "relay_partitions",
        "How many partitions of the outbox each running relay sends.",
        ["relay"],
        (([relay], count) for relay, count in sorted(holders(JOB).items())),
    )


def _oldest_seconds() -> float:
    """Return the age of the oldest waiting event: the first of each partition, so that no backlog
    has to be sorted."""
    waiting = OutboxEvent.objects.filter(published_at=None).order_by("seq")
    firsts = (
        waiting.filter(partition=number).values_list("created_at", flat=True).first()
        for number in range(PARTITIONS)
    )
    times = [created_at for created_at in firsts if created_at]
    # Written by another process, whose clock may be ahead.
    return max(0.0, (timezone.now() - min(times)).total_seconds()) if times else 0.0


def _of_transport() -> Iterator[Metric]:
    transport = _transport()
    stream = stream_name(settings.SERVICE)
    try:
        state = transport.state(stream)
    except transport.outages as error:
        log.warning("scraped without the event transport", error=str(error))
        yield gauge("event_transport_up", "Whether the event transport answers.", 0)
        return
    yield gauge("event_transport_up", "Whether the event transport answers.", 1)
    yield gauges(
        "stream_length", "Entries in this service's stream.", ["stream"], [([stream], state.length)]
    )
    labels = ["stream", "group"]
    yield gauges(
        "stream_group_lag",
        "Entries that a consumer group has not received.",
        labels,
        (([stream, name], left.lag) for name, left in state.groups.items() if left.lag is not None),
    )
    yield gauges(
        "stream_group_pending",
        "Entries that a consumer group has received and not acknowledged.",
        labels,
        (([stream, name], left.pending) for name, left in state.groups.items()),
    )
    try:
        slow = in_the_way(stream, state)
    except DatabaseError as error:
        log.warning("scraped without the subscribers", error=str(error))
        return
    yield gauges(
        "relay_waiting",
        "Whether the relay waits until a consumer group has less left.",
        labels,
        (([stream, name], int(name in slow)) for name in state.groups),
    )


@cache
def _transport() -> Transport:
    return connect(PATIENCE_SECONDS)
