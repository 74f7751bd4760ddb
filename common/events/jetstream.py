"""The transport over NATS JetStream, for a cluster that may lose a server."""

from __future__ import annotations

import asyncio
import json
import os
import re
import threading
from collections import defaultdict
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from math import inf
from typing import Any, TypeVar
from urllib.parse import parse_qs

import nats
import nats.errors
import structlog
from django.core.exceptions import ImproperlyConfigured
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js import JetStreamContext, api
from nats.js.errors import NoStreamResponseError, NotFoundError

from common.events import transport
from common.events.transport import Backlog, Message, StreamLost, StreamState

log = structlog.get_logger(__name__)
T = TypeVar("T")

REPLICAS_MAX = 3
# A batch that is sent again within this time finds what is there already by its events' ids.
DUPLICATE_WINDOW_SECONDS = 120
# Delivered and not acknowledged, by all consumers of a group; ten times a consumer's batch.
UNACKNOWLEDGED_MAX = 1_000
RECONNECT_PAUSE_SECONDS = 0.2
# A whole call, should none of its own limits end it.
CALL_SECONDS_MAX = 30.0
_starting = threading.Lock()
_POSITION = re.compile(r"(\d{20})-([0-9a-f-]{36})")


class JetStream:
    """See common.events.transport.Transport.

    A position is the entry's number and its event's id: of a stream that was cut short or made
    anew, the same number is another event's.
    """

    outages: tuple[type[Exception], ...] = (nats.errors.Error, TimeoutError, OSError)

    def __init__(self, url: str, patience_seconds: float = transport.PATIENCE_SECONDS) -> None:
        self._servers, self._replicas = _parsed(url)
        self._patience = patience_seconds
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._streams: set[str] = set()
        self._subscriptions: dict[tuple[str, str], JetStreamContext.PullSubscription] = {}
        self._fetching: dict[tuple[str, str], asyncio.Task[list[Msg]]] = {}

    def send(self, stream: str, events: Sequence[dict[str, Any]], after: str = "") -> str:
        if after and not _POSITION.fullmatch(after):
            raise StreamLost(stream)
        return _run(self._send(stream, events, after))

    def holds(self, stream: str, positions: Iterable[str]) -> bool:
        return _run(self._holds(stream, {position for position in positions if position}))

    def subscribe(self, stream: str, group: str) -> None:
        _run(self._subscribe(stream, group))

    def receive(
        self, streams: Sequence[str], group: str, consumer: str, count: int
    ) -> list[Message]:
        return [
            Message(stream, str(message.metadata.sequence.stream), _event(message), message)
            for stream, message in _run(self._receive(streams, group, count))
        ]

    def deliveries(self, message: Message, group: str) -> int:
        return int(message.handle.metadata.num_delivered or 1)

    def acknowledge(self, message: Message, group: str) -> None:
        _run(message.handle.ack())

    def tidy(self, streams: Sequence[str], group: str) -> int:
        """Nothing: a group's consumers have no names here."""
        return 0

    def state(self, stream: str) -> StreamState:
        return _run(self._state(stream))

    def close(self) -> None:
        _run(self._close())

    async def _send(self, stream: str, events: Sequence[dict[str, Any]], after: str) -> str:
        context = await self._context()
        await self._ensure(context, stream)
        acknowledged: list[tuple[int, str]] = []
        try:
            for batch in _rounds(events):
                numbers = await asyncio.gather(
                    *(self._publish(context, stream, event) for event in batch),
                    return_exceptions=True,
                )
                for event, number in zip(batch, numbers, strict=True):
                    if isinstance(number, BaseException):
                        raise number
                    acknowledged.append((number, str(event["id"])))
        except NoStreamResponseError:
            # Nobody leads it at the moment, or somebody deleted it.
            self._streams.discard(stream)
            raise
        # Now, as it may have been lost while the events were on their way.
        if after and not await self._holds(stream, {after}):
            raise StreamLost(stream)
        number, event_id = max(acknowledged)
        return f"{number:020d}-{event_id}"

    async def _publish(self, context: JetStreamContext, stream: str, event: dict[str, Any]) -> int:
        body = json.dumps(event, separators=(",", ":")).encode()
        headers: dict[str, Any] = {api.Header.MSG_ID: str(event["id"])}
        answer = await context.publish(
            _subject(stream), body, timeout=self._patience, headers=headers
        )
        return int(answer.seq)

    async def _holds(self, stream: str, positions: set[str]) -> bool:
        matches = [_POSITION.fullmatch(position) for position in positions]
        if None in matches:
            return False
        context = await self._context()
        found = await asyncio.gather(
            *(self._id_at(context, stream, int(match[1])) for match in matches if match)
        )
        return found == [match[2] for match in matches if match]

    async def _id_at(self, context: JetStreamContext, stream: str, number: int) -> str:
        """Ask the stream's leader (a follower may not know yet) which event has the number."""
        try:
            message = await context.get_msg(_name(stream), number)
        except NotFoundError:
            return ""
        return str((message.headers or {}).get(api.Header.MSG_ID, ""))

    async def _receive(
        self, streams: Sequence[str], group: str, count: int
    ) -> list[tuple[str, Msg]]:
        for stream in streams:
            if (stream, group) not in self._fetching:
                fetch = self._fetch(stream, group, count)
                self._fetching[stream, group] = asyncio.ensure_future(fetch)
        # What is still on its way is not called off, as its messages would wait for a redelivery:
        # it is looked at next time.
        await asyncio.wait(self._fetching.values(), return_when=asyncio.FIRST_COMPLETED)
        done = [key for key, task in self._fetching.items() if task.done()]
        return [(key[0], message) for key in done for message in self._fetching.pop(key).result()]

    async def _fetch(self, stream: str, group: str, count: int) -> list[Msg]:
        subscription = await self._subscription(stream, group)
        try:
            return await subscription.fetch(count, timeout=transport.BLOCK_MS / 1000)
        except TimeoutError:
            return []
        except nats.errors.Error:
            # Deleted by somebody, or lost with its servers: the next one makes it anew.
            self._subscriptions.pop((stream, group), None)
            self._streams.discard(stream)
            raise

    async def _subscription(self, stream: str, group: str) -> JetStreamContext.PullSubscription:
        known = self._subscriptions.get((stream, group))
        if known is not None:
            return known
        context = await self._subscribe(stream, group)
        subscription = await context.pull_subscribe_bind(group, stream=_name(stream))
        self._subscriptions[stream, group] = subscription
        return subscription

    async def _subscribe(self, stream: str, group: str) -> JetStreamContext:
        context = await self._context()
        await self._ensure(context, stream)
        try:
            await context.add_consumer(
                _name(stream),
                api.ConsumerConfig(
                    durable_name=group,
                    ack_policy=api.AckPolicy.EXPLICIT,
                    ack_wait=transport.ABANDONED_AFTER_MS / 1000,
                    max_ack_pending=UNACKNOWLEDGED_MAX,
                    deliver_policy=api.DeliverPolicy.ALL,
                ),
                timeout=self._patience,
            )
        except NotFoundError:
            # The stream, deleted by somebody: the next one makes it anew.
            self._streams.discard(stream)
            raise
        return context

    async def _state(self, stream: str) -> StreamState:
        context = await self._context()
        try:
            info = await context.stream_info(_name(stream))
            consumers = await context.consumers_info(_name(stream))
        except NotFoundError:
            return StreamState(0, {})
        return StreamState(
            info.state.messages,
            {
                str(one.name): Backlog(
                    one.num_pending, int(one.num_ack_pending or 0), _idle_seconds(one)
                )
                for one in consumers
            },
        )

    async def _ensure(self, context: JetStreamContext, stream: str) -> None:
        """Make the stream where it is missing; one that is there stays as its operator has it."""
        if stream in self._streams:
            return
        try:
            await context.stream_info(_name(stream))
        except NotFoundError:
            await context.add_stream(
                api.StreamConfig(
                    name=_name(stream),
                    subjects=[_subject(stream)],
                    storage=api.StorageType.FILE,
                    discard=api.DiscardPolicy.OLD,
                    max_msgs=transport.STREAM_LENGTH_MAX,
                    duplicate_window=DUPLICATE_WINDOW_SECONDS,
                    num_replicas=self._replicas,
                )
            )
        self._streams.add(stream)

    async def _context(self) -> JetStreamContext:
        # Tasks of several streams come here at once, and what one subscribes must not be forgotten
        # by the next.
        async with self._connecting:
            if self._client is None or self._client.is_closed:
                self._client = await self._connect()
                self._streams.clear()
                self._subscriptions.clear()
            return self._client.jetstream(timeout=self._patience)

    async def _connect(self) -> Client:
        connecting = nats.connect(
            self._servers,
            name="flash-sale",
            connect_timeout=1,
            reconnect_time_wait=RECONNECT_PAUSE_SECONDS,
            max_reconnect_attempts=-1,
            error_cb=_note,
        )
        return await asyncio.wait_for(connecting, self._patience)

    async def _close(self) -> None:
        for task in self._fetching.values():
            task.cancel()
        self._fetching.clear()
        if self._client is not None:
            await self._client.close()


def _parsed(url: str) -> tuple[list[str], int]:
    """Return the servers and the number of copies: one on each server named, three at most."""
    addresses, _, options = url.partition("?")
    servers = [
        address if "://" in address else f"nats://{address}" for address in addresses.split(",")
    ]
    wanted = parse_qs(options).get("replicas", [str(min(REPLICAS_MAX, len(servers)))])[-1]
    if not wanted.isdecimal() or not 1 <= int(wanted) <= 5:
        raise ImproperlyConfigured(f"EVENT_TRANSPORT: replicas is 1 to 5, not {wanted!r}")
    return servers, int(wanted)


def _name(stream: str) -> str:
    return stream.replace(":", "-")


def _subject(stream: str) -> str:
    return stream.replace(":", ".")


def _rounds(events: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield groups in which no subject comes twice, each subject's events in their order.

    Within a group they are sent at once; the next one follows when all are acknowledged. Otherwise
    a server that dies could lose an event and take the subject's next one.
    """
    queues: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        queues[event.get("subject")].append(event)
    for number in range(max(map(len, queues.values()), default=0)):
        yield [queue[number] for queue in queues.values() if number < len(queue)]


def _idle_seconds(group: api.ConsumerInfo) -> float:
    if group.num_waiting:
        return 0.0
    moments = [
        one.last_active for one in (group.delivered, group.ack_floor) if one and one.last_active
    ]
    # The group's leader forgets these when it ends.
    if not moments:
        return inf
    # Written by the server, whose clock may be ahead.
    return max(0.0, (datetime.now(UTC) - max(moments)).total_seconds())


def _event(message: Msg) -> dict[str, Any]:
    """Return the event; what no relay has sent is wrapped, so that it can be put aside."""
    try:
        event = json.loads(message.data)
    except ValueError:
        event = None
    if isinstance(event, dict):
        return event
    return {"unreadable": {"event": message.data.decode(errors="replace")}}


async def _note(error: Exception) -> None:
    log.info("nats", error=f"{type(error).__name__}: {error}")


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run in this process's event loop, and wait for the result."""
    with _starting:
        loop = _event_loop(os.getpid())
    future = asyncio.run_coroutine_threadsafe(work, loop)
    try:
        return future.result(CALL_SECONDS_MAX)
    except TimeoutError:
        future.cancel()
        raise


@cache
def _event_loop(pid: int) -> asyncio.AbstractEventLoop:
    """Start the one thread that nats-py runs in; a forked process needs one of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="jetstream", daemon=True).start()
    return loop
