"""Subscribers: which consumer groups read this service's stream, and when each was last alive.

The stream itself forgets them when it is lost, and they are those for whom it is filled again.
"""

from __future__ import annotations

from math import isfinite

from common.clock import DatabaseTime
from common.events.models import Subscriber
from common.events.outbox import RETENTION
from common.events.transport import StreamState
from common.transactions import in_transaction

# Not written again for less: what it is compared with is counted in days.
NEWS_SECONDS = 60.0


def note_subscribers(stream: str, state: StreamState) -> None:
    """Remember the stream's groups, and when somebody last asked for a group's messages."""
    rows = Subscriber.objects.filter(stream=stream)

    def note() -> None:
        known = set(rows.values_list("name", flat=True))
        # Seen for the first time, it counts as alive: nobody knows since when it has not been.
        new = [
            Subscriber(stream=stream, name=name, seen_at=DatabaseTime())
            for name in sorted(state.groups.keys() - known)
        ]
        Subscriber.objects.bulk_create(new, ignore_conflicts=True)
        for name in sorted(state.groups.keys() & known):
            idle_seconds = state.groups[name].idle_seconds
            if isfinite(idle_seconds):
                older = rows.filter(
                    name=name, seen_at__lt=DatabaseTime(-idle_seconds - NEWS_SECONDS)
                )
                older.update(seen_at=DatabaseTime(-idle_seconds))

    if state.groups:
        in_transaction(note)


def awaited(stream: str) -> set[str]:
    """Return the groups that were alive within RETENTION: for longer nothing is kept for anybody,
    and a service that was removed must not stop the relay for ever."""
    alive = Subscriber.objects.filter(
        stream=stream, seen_at__gt=DatabaseTime(-RETENTION.total_seconds())
    )
    return set(alive.values_list("name", flat=True))
