"""The pipe between services, one stream per emitting service: what every kind of it can do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

# The outbox can always publish again, so a stream need not grow for ever.
STREAM_LENGTH_MAX = 100_000
# A message whose consumer died is taken over after this long.
ABANDONED_AFTER_MS = 10_000
BLOCK_MS = 1_000
# How long a call may take: a server that is well answers at once, but for the time it is to block.
PATIENCE_SECONDS = BLOCK_MS / 1000 + 1

# EVENT_TRANSPORT's scheme → what speaks it.
KINDS = {
    **dict.fromkeys(("redis", "rediss", "unix"), "common.events.redis_streams.RedisStreams"),
    **dict.fromkeys(("nats", "tls"), "common.events.jetstream.JetStream"),
}


class StreamLost(Exception):
    """The stream does not hold any more what was sent to it before."""


@dataclass(frozen=True)
class Message:
    """One delivery of an event: the stream and id to acknowledge it by, and the event itself."""

    stream: str
    message_id: str
    event: dict[str, Any]
    # What the transport itself keeps of it.
    handle: Any = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Backlog:
    """What one consumer group has not dealt with: not yet received, and not acknowledged."""

    # None where the transport does not know.
    lag: int | None
    pending: int
    # Since when none of its consumers asked for more; infinity where nobody has, or nobody knows.
    idle_seconds: float


@dataclass(frozen=True)
class StreamState:
    """How long a stream is, and how far behind its consumer groups are."""

    length: int
    groups: dict[str, Backlog]


class Transport(Protocol):
    """Sends and receives events, at least once each; raises one of ``outages`` where it cannot.

    A position names one entry of a stream for ever, and sorts as text in the stream's order.
    """

    outages: tuple[type[Exception], ...]

    def send(self, stream: str, events: Sequence[dict[str, Any]], after: str = "") -> str:
        """Append the events, those of one subject in their order; return the last one's position.

        Raises StreamLost unless the entry ``after`` stood in the stream when they were appended:
        then some of them may stand there, or none.
        """
        ...

    def holds(self, stream: str, positions: Iterable[str]) -> bool:
        """Tell whether the stream holds all of these entries; positions of "" count for nothing."""
        ...

    def subscribe(self, stream: str, group: str) -> None:
        """Give the group its place in the stream, from the beginning, unless it has one."""
        ...

    def receive(
        self, streams: Sequence[str], group: str, consumer: str, count: int
    ) -> list[Message]:
        """Return abandoned messages first, then new ones; waits up to BLOCK_MS for news."""
        ...

    def deliveries(self, message: Message, group: str) -> int:
        """Return how often the message has been handed out."""
        ...

    def acknowledge(self, message: Message, group: str) -> None:
        """Tell the stream that the message is dealt with."""
        ...

    def tidy(self, streams: Sequence[str], group: str) -> int:
        """Forget consumers that are gone and owe nothing; return how many there were."""
        ...

    def state(self, stream: str) -> StreamState:
        """Return how long the stream is and what its groups have left."""
        ...

    def close(self) -> None:
        """Let go of connections; the next call makes new ones."""
        ...


def stream_name(service: str) -> str:
    """Return the name of a service's stream."""
    return f"flashsale:{service}"


def connect(patience_seconds: float = PATIENCE_SECONDS) -> Transport:
    """Return the transport that the settings name; it connects when it is first used.

    Less patience is for those who do not receive.
    """
    url = settings.EVENT_TRANSPORT or settings.STREAM_URL
    # The address itself may hold a password.
    scheme = urlsplit(url).scheme
    if scheme not in KINDS:
        raise ImproperlyConfigured(
            f"EVENT_TRANSPORT is one of {', '.join(f'{kind}://' for kind in KINDS)}, "
            f"not {scheme or 'a text without a scheme'}"
        )
    try:
        kind = import_string(KINDS[scheme])
    except ModuleNotFoundError as error:
        raise ImproperlyConfigured(
            f"EVENT_TRANSPORT is {scheme}://…, and the package {error.name} that this needs is "
            "missing: pip install --require-hashes -r deploy/requirements/nats.txt"
        ) from error
    transport: Transport = kind(url, patience_seconds)
    return transport
