"""The relay: takes unpublished events from the outbox, in order, and sends them to the stream."""

from __future__ import annotations

import os
import socket
import time

import structlog
from django.conf import settings
from django.db.models import F
from django.utils import timezone

from common.events.leases import hold_lease
from common.events.models import OutboxEvent
from common.events.outbox import purge
from common.events.transport import StreamTransport, stream_name
from common.loops import Loop

log = structlog.get_logger(__name__)

BATCH_SIZE = 200
LEASE_SECONDS = 10.0
PURGE_INTERVAL_SECONDS = 60.0
HOLDER = f"{socket.gethostname()}:{os.getpid()}"[-64:]


class Relay:
    """Publishes this service's outbox. Any number may run; the lease lets one work at a time.

    An event is marked only after it was sent, so a crash in between sends it twice and never not
    at all. Within an aggregate seq follows commit order, because the effect held the row's lock.
    """

    def __init__(self, transport: StreamTransport | None = None, holder: str = HOLDER) -> None:
        self._transport = transport
        self._holder = holder
        self._purged_at = float("-inf")

    def step(self) -> int:
        """Publish one batch; return its size."""
        if not hold_lease("relay", self._holder, LEASE_SECONDS):
            return 0
        if self._transport is None:
            self._transport = StreamTransport()
        stream = stream_name(settings.SERVICE)
        if self._transport.is_empty(stream):
            self._refill(stream)
        events = list(OutboxEvent.objects.filter(published_at=None).order_by("seq")[:BATCH_SIZE])
        if events:
            seqs = [event.seq for event in events]
            OutboxEvent.objects.filter(seq__in=seqs).update(attempts=F("attempts") + 1)
            self._transport.send(stream, [event.payload for event in events])
            OutboxEvent.objects.filter(seq__in=seqs).update(published_at=timezone.now())
        self._purge_sometimes()
        return len(events)

    def _refill(self, stream: str) -> None:
        """Publish the retained events again after Redis lost the stream; consumers know doubles."""
        again = OutboxEvent.objects.exclude(published_at=None).update(published_at=None)
        if again:
            log.warning(
                "stream was empty; publishing retained events again", stream=stream, events=again
            )

    def _purge_sometimes(self) -> None:
        if time.monotonic() - self._purged_at > PURGE_INTERVAL_SECONDS:
            self._purged_at = time.monotonic()
            purge()


relay_outbox = Loop("relay_outbox", Relay().step, interval_seconds=0.1)
