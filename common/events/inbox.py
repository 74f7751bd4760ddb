"""The consumer: applies each event once, in the transaction that writes its inbox row."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

import structlog
from django.conf import settings
from django.db import IntegrityError, InterfaceError, OperationalError
from django.utils.module_loading import import_string

from common.events.models import InboxEvent
from common.events.transport import Message, Transport, connect, stream_name
from common.failpoints import failpoint
from common.ids import derived_uuid
from common.loops import Loop
from common.transactions import in_transaction

log = structlog.get_logger(__name__)

BATCH_SIZE = 100
# An event that failed this often is parked, so that those behind it go on.
DELIVERIES_MAX = 5
TIDY_INTERVAL_SECONDS = 60.0
CONSUMER = f"{socket.gethostname()}:{os.getpid()}"
Handler = Callable[[dict[str, Any], dict[str, Any]], None]


class Consumer:
    """Feeds this service's EVENT_SUBSCRIPTIONS: {emitting service: {event type: handler path}}.

    A handler gets (data, event) and must bear doubled, late and shuffled events: it compares the
    version that the data carries.
    """

    def __init__(self, transport: Transport | None = None, name: str = CONSUMER) -> None:
        self._transport = transport
        self._name = name
        self._tidied_at = float("-inf")

    def step(self) -> int:
        """Deal with one batch of messages; return its size."""
        if self._transport is None:
            self._transport = connect()
        streams = [stream_name(service) for service in settings.EVENT_SUBSCRIPTIONS]
        self._tidy(self._transport, streams)
        messages = self._transport.receive(streams, settings.SERVICE, self._name, BATCH_SIZE)
        if messages:
            failpoint("consumer.received")
        together = len(messages) > 1 and self._applied_together(messages)
        for message in messages:
            if together or self._dealt_with(message):
                failpoint("consumer.applied")
                self._transport.acknowledge(message, settings.SERVICE)
                failpoint("consumer.acknowledged")
        return len(messages)

    def _tidy(self, transport: Transport, streams: Sequence[str]) -> None:
        now = time.monotonic()
        if now - self._tidied_at > TIDY_INTERVAL_SECONDS:
            self._tidied_at = now
            transport.tidy(streams, settings.SERVICE)

    def _applied_together(self, messages: Sequence[Message]) -> bool:
        """Apply a whole batch with one COMMIT; False (and no effect) if one of them fails."""
        try:
            in_transaction(lambda: [apply_event(message.event) for message in messages])
        except (OperationalError, InterfaceError):
            raise
        except Exception as error:
            log.info("batch failed, trying one by one", size=len(messages), error=str(error))
            return False
        return True

    def _dealt_with(self, message: Message) -> bool:
        assert self._transport is not None
        try:
            apply_event(message.event)
        except (OperationalError, InterfaceError):
            # The database's fault, not the event's: rest, and let it be delivered again.
            raise
        except Exception as error:
            log.exception(
                "event failed", event_id=message.event.get("id"), type=message.event.get("type")
            )
            if self._transport.deliveries(message, settings.SERVICE) < DELIVERIES_MAX:
                return False
            park_event(message.event, str(error))
        return True


def apply_event(event: dict[str, Any]) -> bool:
    """Apply an event with its handler; False when nobody here wants it or it was applied before."""
    handler = _handler_for(event)
    if handler is None:
        return False

    def work() -> bool:
        inbox = InboxEvent(id=event["id"], type=event["type"])
        # A parked event that is tried again keeps its row.
        parked = InboxEvent.objects.filter(id=event["id"], status=InboxEvent.Status.PARKED)
        if not parked.update(status=InboxEvent.Status.APPLIED, payload=None, error=""):
            inbox.save(force_insert=True)
        handler(event["data"], event)
        failpoint("consumer.before_commit")
        return True

    try:
        return in_transaction(work)
    except IntegrityError:
        if InboxEvent.objects.filter(id=event["id"]).exists():
            return False
        raise


def park_event(event: dict[str, Any], error: str) -> None:
    """Put an event that cannot be applied aside, with the reason, and go on without it."""
    event_id, event_type = _id_of(event), str(event.get("type"))
    # One that was applied meanwhile, by another consumer, stays applied.
    InboxEvent.objects.get_or_create(
        id=event_id,
        defaults={
            "type": event_type[:64],
            "status": InboxEvent.Status.PARKED,
            "payload": event,
            "error": error[:2000],
        },
    )
    log.error("event parked", event_id=str(event_id), type=event_type, error=error)


def _id_of(event: dict[str, Any]) -> UUID:
    """Return the event's id; where it has none, one that stands for its content."""
    try:
        return UUID(event["id"])
    except (KeyError, TypeError, ValueError, AttributeError):
        return derived_uuid(json.dumps(event, sort_keys=True))


def _handler_for(event: dict[str, Any]) -> Handler | None:
    emitter = str(event["source"]).rpartition("/")[2]
    path = settings.EVENT_SUBSCRIPTIONS.get(emitter, {}).get(event["type"])
    return import_string(path) if path else None


consume_events = Loop("consume_events", Consumer().step, interval_seconds=0.05)
