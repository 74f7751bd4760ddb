"""Which events this service has emitted and dealt with, so that two services can be compared.

Sets of ids grow with the traffic, sums do not: by its random bits an id falls into one of BUCKETS,
and a bucket is told by how many ids it holds and by their XOR. Ids are asked for only where two
sums differ. A UUIDv7 says when it was made, so that both sides speak of the same events.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from django.utils import timezone

from common.auditing import NAMED_MAX, Check, Violation, check
from common.events.models import InboxEvent, OutboxEvent
from common.events.outbox import RETENTION, pending_count
from common.events.parked import parked_events

BUCKETS = 1024
# An event may be on its way for so long.
UNDER_WAY = timedelta(seconds=5)
# Clocks differ, and what is about to be forgotten is not compared.
NEARLY_FORGOTTEN = timedelta(minutes=5)
UUID_VERSION = 7

# event type → bucket → (how many, XOR of their ids in hex)
Sums = dict[str, dict[str, tuple[int, str]]]
Buckets = Mapping[str, Iterable[int]]


class Window(NamedTuple):
    """From when to when an event was made, in milliseconds since 1970."""

    since_ms: int
    until_ms: int

    def __contains__(self, number: object) -> bool:
        """Tell whether a UUIDv7, as a number, was made in it."""
        assert isinstance(number, int)
        return (number >> 76) & 0xF == UUID_VERSION and (
            self.since_ms <= number >> 80 < self.until_ms
        )


def window_at(moment: datetime | None = None) -> Window:
    """Return what can be compared at a moment: not under way any more, and not forgotten."""
    now = moment or timezone.now()
    since, until = now - RETENTION + NEARLY_FORGOTTEN, now - UNDER_WAY
    return Window(int(since.timestamp() * 1000), int(until.timestamp() * 1000))


def event_facts(window: Window) -> dict[str, Any]:
    """Return what the audit across services compares and counts."""
    unsent = OutboxEvent.objects.filter(published_at=None).order_by("seq")
    return {
        "subscriptions": {
            emitter: sorted(types) for emitter, types in settings.EVENT_SUBSCRIPTIONS.items()
        },
        "emitted": _sums(_emitted(), window),
        "dealt_with": _sums(_dealt_with(), window),
        "unsent": [str(one) for one in unsent.values_list("id", flat=True)[:NAMED_MAX]],
        "unsent_count": pending_count(),
    }


def event_ids(window: Window, buckets: Buckets) -> dict[str, dict[str, list[str]]]:
    """Return the ids in these buckets of each type, emitted and dealt with here."""
    return {
        "emitted": _ids(_emitted(), window, buckets),
        "dealt_with": _ids(_dealt_with(), window, buckets),
    }


def nothing_parked() -> Check:
    """Return the check that no event was put aside as impossible to apply."""
    return check("I7", "no event is parked", (_parked(row) for row in parked_events()))


def _parked(row: InboxEvent) -> Violation:
    return Violation(
        "event_parked",
        "event",
        str(row.pk),
        f"event {row.pk} ({row.type}) is parked: {row.error[:200]}",
        {"service": settings.SERVICE},
    )


def _emitted() -> Iterator[tuple[str, UUID]]:
    return OutboxEvent.objects.values_list("type", "id").iterator()


def _dealt_with() -> Iterator[tuple[str, UUID]]:
    # What is parked is told of by a check of its own; it was delivered.
    return InboxEvent.objects.values_list("type", "id").iterator()


def _sums(rows: Iterable[tuple[str, UUID]], window: Window) -> Sums:
    sums: dict[str, dict[int, list[int]]] = {}
    for event_type, event_id in rows:
        number = event_id.int
        if number in window:
            bucket = sums.setdefault(event_type, {}).setdefault(number % BUCKETS, [0, 0])
            bucket[0] += 1
            bucket[1] ^= number
    return {
        event_type: {str(n): (count, f"{xor:032x}") for n, (count, xor) in buckets.items()}
        for event_type, buckets in sums.items()
    }


def _ids(
    rows: Iterable[tuple[str, UUID]], window: Window, buckets: Buckets
) -> dict[str, list[str]]:
    wanted = {event_type: frozenset(numbers) for event_type, numbers in buckets.items()}
    found: dict[str, list[str]] = {event_type: [] for event_type in wanted}
    for event_type, event_id in rows:
        number = event_id.int
        if event_type in wanted and number in window and number % BUCKETS in wanted[event_type]:
            found[event_type].append(str(event_id))
    return found
