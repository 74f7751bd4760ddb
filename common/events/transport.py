"""The pipe between services: Redis Streams, one stream per emitting service."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.retry import Retry

# The outbox can always publish again, so the stream need not grow for ever.
STREAM_LENGTH_MAX = 100_000
# A message whose consumer died is taken over after this long.
ABANDONED_AFTER_MS = 10_000
BLOCK_MS = 1_000


@dataclass(frozen=True)
class Message:
    """One delivery of an event: the stream and id to acknowledge it by, and the event itself."""

    stream: str
    message_id: str
    event: dict[str, Any]


def stream_name(service: str) -> str:
    """Return the name of a service's stream."""
    return f"flashsale:{service}"


class StreamTransport:
    """Sends and receives events; raises redis.exceptions.RedisError when Redis is away."""

    def __init__(self, url: str | None = None) -> None:
        self._redis = redis.Redis.from_url(
            url or settings.STREAM_URL,
            decode_responses=True,
            encoding_errors="replace",
            retry=Retry(NoBackoff(), 1),
            socket_connect_timeout=0.2,
            socket_timeout=BLOCK_MS / 1000 + 1,
        )

    def is_empty(self, stream: str) -> bool:
        """Tell whether the stream is missing: never written to, or lost with Redis's memory."""
        return not self._redis.exists(stream)

    def send(self, stream: str, events: list[dict[str, Any]]) -> bool:
        """Append the events in their order, in one round trip.

        True if the stream was empty before: it is new, or Redis has lost it a moment ago.
        """
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.xlen(stream)
        for event in events:
            body = json.dumps(event, separators=(",", ":"))
            pipeline.xadd(stream, {"event": body}, maxlen=STREAM_LENGTH_MAX, approximate=True)
        length_before = pipeline.execute()[0]
        return bool(length_before == 0)

    def receive(self, streams: list[str], group: str, consumer: str, count: int) -> list[Message]:
        """Return abandoned messages first, then new ones; waits up to BLOCK_MS for news."""
        try:
            return self._receive(streams, group, consumer, count)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
        # A stream that nothing was sent to yet must not keep the others from being read.
        present = self._with_group(streams, group)
        return self._receive(present, group, consumer, count) if present else []

    def _receive(self, streams: list[str], group: str, consumer: str, count: int) -> list[Message]:
        messages = self._claim(streams, group, consumer, count)
        if messages:
            return messages
        answer = self._redis.xreadgroup(
            group, consumer, dict.fromkeys(streams, ">"), count=count, block=BLOCK_MS
        )
        pairs = answer.items() if isinstance(answer, dict) else answer or []
        return [
            message
            for stream, entries in cast("list[tuple[str, Any]]", pairs)
            for message in _messages(stream, entries)
        ]

    def deliveries(self, message: Message, group: str) -> int:
        """Return how often the message has been handed out."""
        rows = self._redis.xpending_range(
            message.stream, group, message.message_id, message.message_id, 1
        )
        return int(cast("list[dict[str, Any]]", rows)[0]["times_delivered"]) if rows else 1

    def acknowledge(self, message: Message, group: str) -> None:
        """Tell the stream that the message is dealt with."""
        self._redis.xack(message.stream, group, message.message_id)

    def _claim(self, streams: list[str], group: str, consumer: str, count: int) -> list[Message]:
        found: list[Message] = []
        for stream in streams:
            answer = self._redis.xautoclaim(
                stream, group, consumer, ABANDONED_AFTER_MS, count=count
            )
            found += _messages(stream, answer[1])
        return found

    def _with_group(self, streams: list[str], group: str) -> list[str]:
        """Make the group on the streams that exist; return those streams."""
        present = []
        for stream in streams:
            try:
                self._redis.xgroup_create(stream, group, id="0", mkstream=False)
            except ResponseError as error:
                if "requires the key to exist" in str(error):
                    continue
                # BUSYGROUP: it was there, or another consumer was faster.
                if "BUSYGROUP" not in str(error):
                    raise
            present.append(stream)
        return present


def _messages(stream: str, entries: Any) -> list[Message]:
    return [
        Message(stream, message_id, _event(fields))
        for message_id, fields in _flat(entries)
        if fields
    ]


def _event(fields: dict[str, str]) -> dict[str, Any]:
    """Return the event; what no relay has sent is wrapped, so that it can be put aside."""
    try:
        event = json.loads(fields["event"])
    except (KeyError, ValueError):
        event = None
    return event if isinstance(event, dict) else {"unreadable": fields}


def _flat(entries: Any) -> list[tuple[str, dict[str, str]]]:
    # Some protocol versions of redis-py wrap a stream's entries in one more list.
    if entries and isinstance(entries[0], list) and entries[0] and isinstance(entries[0][0], tuple):
        return list(entries[0])
    return list(entries)
