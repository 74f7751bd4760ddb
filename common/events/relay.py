"""The relay: takes unpublished events from the outbox, in order, and sends them to the stream."""

from __future__ import annotations

import os
import socket
import time

import structlog
from django.conf import settings
from django.db.models import F
from django.utils import timezone

from common.events.bookmark import NOTHING, bookmark_of, forget_loss, move_bookmark
from common.events.headroom import Headroom
from common.events.leases import Shares
from common.events.models import PARTITIONS, OutboxEvent
from common.events.outbox import purge
from common.events.subscribers import awaited
from common.events.transport import StreamLost, Transport, connect, stream_name
from common.failpoints import failpoint
from common.loops import Loop
from common.transactions import in_transaction

log = structlog.get_logger(__name__)

JOB = "relay"
BATCH_SIZE = 200
REFILL_SIZE = 1_000
# How long the events of a relay that died may wait: short, but no pause of a healthy one.
LEASE_SECONDS = 6.0
PURGE_INTERVAL_SECONDS = 60.0
CHECK_INTERVAL_SECONDS = 1.0
# Others move the bookmark too; whoever has bad luck so often sends its events once more.
MARK_TRIES_MAX = 10
HOLDER = f"{socket.gethostname()}:{os.getpid()}"[-64:]


class Relay:
    """Publishes this service's outbox. Any number may run: each sends the partitions it leases.

    An event is marked only after it was sent, so a crash in between sends it twice and never not
    at all. Within an aggregate seq follows commit order, because the effect held the row's lock.
    A relay that is stopped and goes on after its leases ended sends what others have sent, too:
    leases keep the order and spare work, but nothing is lost or applied twice without them.
    """

    def __init__(self, transport: Transport | None = None, holder: str = HOLDER) -> None:
        self._transport = transport
        self._shares = Shares(JOB, PARTITIONS, holder, LEASE_SECONDS)
        self._headroom = Headroom()
        self._turn = 0
        self._checked_at = self._purged_at = float("-inf")
        # What the bookmark was when a loss was noticed, and up to which event it is made good.
        self._lost, self._unmarked_up_to = NOTHING, 0

    def step(self) -> int:
        """Publish one batch; return its size. An idle step costs one read, and now and then a
        look at the leases, the stream and its consumers."""
        partitions = self._shares.held()
        if not partitions:
            return 0
        if 0 not in partitions:
            self._lost = NOTHING
        elif again := self._look_after_stream():
            return again
        room = self._headroom.left(self._pipe(), stream_name(settings.SERVICE))
        events = self._pick(partitions, min(BATCH_SIZE, room)) if room > 0 else []
        if not events:
            return 0
        failpoint("relay.picked")
        return len(events) if self._publish(events) else 0

    def close(self) -> None:
        """Hand the partitions to the others at once."""
        self._shares.leave()

    def _pick(self, partitions: tuple[int, ...], count: int = BATCH_SIZE) -> list[OutboxEvent]:
        """Return the oldest events of the partitions; each comes first in its turn."""
        waiting = OutboxEvent.objects.filter(published_at=None)
        if not waiting.filter(partition__in=partitions).exists():
            return []
        self._turn += 1
        first = self._turn % len(partitions)
        events: list[OutboxEvent] = []
        for partition in partitions[first:] + partitions[:first]:
            left = count - len(events)
            if not left:
                break
            events += waiting.filter(partition=partition).order_by("seq")[:left]
        return sorted(events, key=lambda event: event.seq)

    def _publish(self, events: list[OutboxEvent]) -> bool:
        """Send the events and mark them; False when the stream is not what it was."""
        stream = stream_name(settings.SERVICE)
        known = bookmark_of(stream)
        if known == NOTHING:
            # A new stream, maybe in a lost one's place, should hold the place of all who read it.
            for group in sorted(awaited(stream)):
                self._pipe().subscribe(stream, group)
        self._headroom.spend(len(events))
        try:
            position = self._pipe().send(stream, [event.payload for event in events], after=known)
        except StreamLost:
            # Whoever leases the first partition publishes again what is lost, then these as well.
            return False
        failpoint("relay.sent")
        for _ in range(MARK_TRIES_MAX):
            if self._mark(events, stream, known, position):
                failpoint("relay.marked")
                return True
            known = bookmark_of(stream)
            if not self._pipe().holds(stream, [known, position]):
                return False
        return False

    def _mark(self, events: list[OutboxEvent], stream: str, known: str, position: str) -> bool:
        seqs = [event.seq for event in events]

        def mark() -> bool:
            # First, so that all relays lock in the same order, and who comes too late does little.
            if not move_bookmark(stream, known, position):
                return False
            OutboxEvent.objects.filter(seq__in=seqs).update(
                published_at=timezone.now(), attempts=F("attempts") + 1
            )
            return True

        return in_transaction(mark)

    def _pipe(self) -> Transport:
        if self._transport is None:
            self._transport = connect()
        return self._transport

    def _look_after_stream(self) -> int:
        """Do what one relay does for all: forget what is old, notice a loss, publish again."""
        now = time.monotonic()
        # A piece a step, until there is no more: a minute of a rush may leave more than one.
        if now - self._purged_at > PURGE_INTERVAL_SECONDS and not purge():
            self._purged_at = now
        if not self._lost and now - self._checked_at > CHECK_INTERVAL_SECONDS:
            self._checked_at = now
            stream = stream_name(settings.SERVICE)
            known = bookmark_of(stream)
            if known and not self._pipe().holds(stream, [known]):
                log.warning("the stream lost events; publishing again", stream=stream, lost=known)
                self._lost, self._unmarked_up_to = known, 0
        return self._refill() if self._lost else 0

    def _refill(self) -> int:
        """Unmark a piece of what is kept, oldest first, so that it is sent again; consumers know
        doubles. The bookmark tells of the loss until all of it is unmarked."""
        sent = OutboxEvent.objects.exclude(published_at=None).filter(seq__gt=self._unmarked_up_to)
        seqs = list(sent.order_by("seq").values_list("seq", flat=True)[:REFILL_SIZE])
        if seqs:
            OutboxEvent.objects.filter(seq__in=seqs).update(published_at=None)
            self._unmarked_up_to = seqs[-1]
            failpoint("relay.unmarked")
        else:
            # Refused if somebody marked events meanwhile, as sent before the loss: the next look
            # finds their bookmark lost as well.
            forget_loss(stream_name(settings.SERVICE), self._lost)
            self._lost, self._checked_at = NOTHING, float("-inf")
        return len(seqs) or 1


_relay = Relay()
relay_outbox = Loop("relay_outbox", _relay.step, interval_seconds=0.1, close=_relay.close)
