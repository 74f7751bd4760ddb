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
from common.failpoints import failpoint
from common.loops import Loop

log = structlog.get_logger(__name__)

BATCH_SIZE = 200
REFILL_SIZE = 1_000
LEASE_SECONDS = 10.0
PURGE_INTERVAL_SECONDS = 60.0
CHECK_INTERVAL_SECONDS = 1.0
HOLDER = f"{socket.gethostname()}:{os.getpid()}"[-64:]


class Relay:
    """Publishes this service's outbox. Any number may run; the lease lets one work at a time.

    An event is marked only after it was sent, so a crash in between sends it twice and never not
    at all. Within an aggregate seq follows commit order, because the effect held the row's lock.
    """

    def __init__(self, transport: StreamTransport | None = None, holder: str = HOLDER) -> None:
        self._transport = transport
        self._holder = holder
        self._lease_ends_at = self._checked_at = self._purged_at = float("-inf")

    def step(self) -> int:
        """Publish one batch; return its size. An idle step costs one read and no write."""
        self._look_after_stream()
        events = list(OutboxEvent.objects.filter(published_at=None).order_by("seq")[:BATCH_SIZE])
        if not events or not self._leads():
            return 0
        failpoint("relay.picked")
        stream = stream_name(settings.SERVICE)
        if self._stream().is_empty(stream) and self._refill(stream):
            # From the oldest on, in the next step: what is sent first must not hide what was lost.
            return len(events)
        if self._stream().send(stream, [event.payload for event in events]):
            self._refill(stream)
        failpoint("relay.sent")
        OutboxEvent.objects.filter(seq__in=[event.seq for event in events]).update(
            published_at=timezone.now(), attempts=F("attempts") + 1
        )
        failpoint("relay.marked")
        return len(events)

    def _stream(self) -> StreamTransport:
        if self._transport is None:
            self._transport = StreamTransport()
        return self._transport

    def _leads(self) -> bool:
        """Tell whether this relay holds the lease; it is renewed when half of it is over."""
        now = time.monotonic()
        if self._lease_ends_at - now < LEASE_SECONDS / 2:
            held = hold_lease("relay", self._holder, LEASE_SECONDS)
            self._lease_ends_at = now + LEASE_SECONDS if held else float("-inf")
        return self._lease_ends_at > now

    def _look_after_stream(self) -> None:
        now = time.monotonic()
        if now - self._checked_at > CHECK_INTERVAL_SECONDS:
            self._checked_at = now
            stream = stream_name(settings.SERVICE)
            if self._stream().is_empty(stream) and self._leads():
                self._refill(stream)
        if now - self._purged_at > PURGE_INTERVAL_SECONDS:
            self._purged_at = now
            purge()

    def _refill(self, stream: str) -> bool:
        """Publish the retained events again after Redis lost the stream; consumers know doubles."""
        sent = OutboxEvent.objects.exclude(published_at=None)
        again = 0
        # Newest first and in pieces: as long as one is left, its stream is still known to be lost,
        # and no single statement runs into the database's time limit.
        while seqs := list(sent.order_by("-seq").values_list("seq", flat=True)[:REFILL_SIZE]):
            again += OutboxEvent.objects.filter(seq__in=seqs).update(published_at=None)
        if again:
            log.warning(
                "stream was empty; publishing retained events again", stream=stream, events=again
            )
        return again > 0


relay_outbox = Loop("relay_outbox", Relay().step, interval_seconds=0.1)
