"""The transport over Redis Streams."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any, cast

import redis
from django.conf import settings
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError
from redis.retry import Retry

from common.events import transport
from common.events.transport import Backlog, Message, StreamLost, StreamState

# Consumers bear the names of processes, and those come and go.
FORGOTTEN_AFTER_MS = 600_000
# Atomic: either all events stand in the stream, behind the entry that they were to follow, or none.
_SEND = """
if ARGV[2] ~= '' and #redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2]) == 0 then return false end
local last
for i = 3, #ARGV do
  last = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'event', ARGV[i])
end
return last
"""
# Atomic: what a consumer has pending is lost to its group when the consumer is deleted.
_TIDY = """
local gone = 0
for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local it = {}
  for i = 1, #fields, 2 do it[fields[i]] = fields[i + 1] end
  if it.pending == 0 and it.idle > tonumber(ARGV[2]) then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], it.name)
    gone = gone + 1
  end
end
return gone
"""
# Positions sort as text; Redis's own ids do not.
_POSITION = re.compile(r"(\d{20})-(\d{20})")


class RedisStreams:
    """See common.events.transport.Transport; raises RedisError when Redis is away."""

    outages: tuple[type[Exception], ...] = (RedisError,)

    def __init__(
        self, url: str | None = None, patience_seconds: float = transport.PATIENCE_SECONDS
    ) -> None:
        self._redis = redis.Redis.from_url(
            url or settings.STREAM_URL,
            decode_responses=True,
            encoding_errors="replace",
            retry=Retry(NoBackoff(), 1),
            socket_connect_timeout=0.2,
            socket_timeout=patience_seconds,
        )
        self._append = self._redis.register_script(_SEND)
        self._delete_idle = self._redis.register_script(_TIDY)

    def send(self, stream: str, events: Sequence[dict[str, Any]], after: str = "") -> str:
        after_id = _entry_id(after)
        if after and not after_id:
            raise StreamLost(stream)
        bodies = [json.dumps(event, separators=(",", ":")) for event in events]
        arguments = [str(transport.STREAM_LENGTH_MAX), after_id, *bodies]
        last = cast("str | None", self._append(keys=[stream], args=arguments))
        if last is None:
            raise StreamLost(stream)
        return _position(last)

    def holds(self, stream: str, positions: Iterable[str]) -> bool:
        ids = [_entry_id(position) for position in positions if position]
        if "" in ids:
            return False
        pipeline = self._redis.pipeline(transaction=False)
        for entry_id in ids:
            pipeline.xrange(stream, entry_id, entry_id)
        return all(pipeline.execute())

    def subscribe(self, stream: str, group: str) -> None:
        self._create_group(stream, group, make_stream=True)

    def receive(
        self, streams: Sequence[str], group: str, consumer: str, count: int
    ) -> list[Message]:
        try:
            return self._receive(streams, group, consumer, count)
        except ResponseError as error:
            if "NOGROUP" not in str(error):
                raise
        # A stream that nothing was sent to yet must not keep the others from being read.
        present = self._with_group(streams, group)
        return self._receive(present, group, consumer, count) if present else []

    def deliveries(self, message: Message, group: str) -> int:
        rows = self._redis.xpending_range(
            message.stream, group, message.message_id, message.message_id, 1
        )
        return int(cast("list[dict[str, Any]]", rows)[0]["times_delivered"]) if rows else 1

    def acknowledge(self, message: Message, group: str) -> None:
        self._redis.xack(message.stream, group, message.message_id)

    def tidy(self, streams: Sequence[str], group: str) -> int:
        gone = 0
        for stream in streams:
            try:
                count = self._delete_idle(keys=[stream], args=[group, FORGOTTEN_AFTER_MS])
                gone += cast("int", count)
            except ResponseError as error:
                if not _is_missing(error):
                    raise
        return gone

    def state(self, stream: str) -> StreamState:
        length, groups = 0, {}
        try:
            about = self._redis.xinfo_stream(stream)
            length = int(about["length"])
            for row in self._redis.xinfo_groups(stream):
                groups[str(row["name"])] = self._backlog(stream, row, about)
        except ResponseError as error:
            # Nothing was sent yet, or somebody deletes it (or a group) at this moment.
            if not _is_missing(error):
                raise
        return StreamState(length, groups)

    def close(self) -> None:
        self._redis.close()

    def _receive(
        self, streams: Sequence[str], group: str, consumer: str, count: int
    ) -> list[Message]:
        messages = self._claim(streams, group, consumer, count)
        if messages:
            return messages
        answer = self._redis.xreadgroup(
            group, consumer, dict.fromkeys(streams, ">"), count=count, block=transport.BLOCK_MS
        )
        pairs = answer.items() if isinstance(answer, dict) else answer or []
        return [
            message
            for stream, entries in cast("list[tuple[str, Any]]", pairs)
            for message in _messages(stream, entries)
        ]

    def _claim(
        self, streams: Sequence[str], group: str, consumer: str, count: int
    ) -> list[Message]:
        found: list[Message] = []
        for stream in streams:
            answer = self._redis.xautoclaim(
                stream, group, consumer, transport.ABANDONED_AFTER_MS, count=count
            )
            found += _messages(stream, answer[1])
        return found

    def _with_group(self, streams: Sequence[str], group: str) -> list[str]:
        """Make the group on the streams that exist; return those streams."""
        present = []
        for stream in streams:
            try:
                self._create_group(stream, group, make_stream=False)
            except ResponseError as error:
                if not _is_missing(error):
                    raise
            else:
                present.append(stream)
        return present

    def _create_group(self, stream: str, group: str, *, make_stream: bool) -> None:
        try:
            self._redis.xgroup_create(stream, group, id="0", mkstream=make_stream)
        except ResponseError as error:
            # It was there, or somebody else was faster.
            if "BUSYGROUP" not in str(error):
                raise

    def _backlog(self, stream: str, group: dict[str, Any], about: dict[str, Any]) -> Backlog:
        lag = group.get("lag")
        # Redis before 7 never tells a lag, but where it is nothing.
        if group["last-delivered-id"] == about["last-generated-id"]:
            lag = 0
        consumers = self._redis.xinfo_consumers(stream, str(group["name"]))
        idle_ms = min((float(one["idle"]) for one in consumers), default=inf)
        return Backlog(lag, int(group["pending"]), idle_ms / 1000)


def _is_missing(error: ResponseError) -> bool:
    """Tell whether the stream, or the group on it, is not there (yet)."""
    text = str(error)
    return any(words in text for words in ("requires the key to exist", "no such key", "NOGROUP"))


def _position(entry_id: str) -> str:
    milliseconds, _, number = entry_id.partition("-")
    return f"{int(milliseconds):020d}-{int(number):020d}"


def _entry_id(position: str) -> str:
    """Return Redis's id of an entry; nothing for what names none of Redis's."""
    match = _POSITION.fullmatch(position)
    return f"{int(match[1])}-{int(match[2])}" if match else ""


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
