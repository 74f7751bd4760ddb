"""The way of every event through a system on SQLite: outbox, stream, inbox and projection."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import redis

from deploy.stack.supervisor import Stack
from tests.system.client import within

SERVICES = ("catalog", "inventory", "order")
# Delivered and applied at the latest, counted from the last fault: a dead relay's lease, a dead
# consumer's messages, each 10 s, and what a busy machine adds.
ARRIVED_SECONDS_MAX = 30.0
# event type → (consumer, table of its projection, key)
PROJECTIONS = {
    "stock.changed": (("catalog", "availability", "ticket_id"),),
    "ticket.changed": (
        ("order", "ticket_offer", "ticket_id"),
        ("inventory", "ticket_label", "ticket_id"),
    ),
}


@dataclass(frozen=True)
class Fact:
    """A row of an outbox."""

    seq: int
    event_id: UUID
    aggregate: tuple[str, str]
    type: str
    data: dict[str, Any]


class EventBooks:
    """Compares what was emitted with what was delivered and applied."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._subscriptions = {name: self._subscribed(name) for name in SERVICES}

    def require_exactly_once(self) -> Counter[str]:
        """Wait until every consumer has applied what it subscribes to, each event once, and hold
        streams and projections against the outboxes; returns how many events of each kind.
        """
        for consumer in SERVICES:
            within(ARRIVED_SECONDS_MAX, lambda one=consumer: self._not_applied(one), set())
        emitted = {name: self._emitted(name) for name in SERVICES}
        for consumer in SERVICES:
            rows = self._rows(consumer, "SELECT id, status FROM inbox_event")
            assert {status for _, status in rows} <= {"APPLIED"}, "no event was parked"
            wanted = Counter(fact.event_id for fact in self._wanted(consumer, emitted))
            assert Counter(UUID(row[0]) for row in rows) == wanted, f"the inbox of {consumer}"
        for facts in emitted.values():
            self._require_projections(facts)
        for name, facts in emitted.items():
            self._require_order(name, facts)
        return Counter(fact.type for facts in emitted.values() for fact in facts)

    def _subscribed(self, consumer: str) -> dict[str, dict[str, str]]:
        code = (
            "import json; from django.conf import settings; "
            "print(json.dumps(settings.EVENT_SUBSCRIPTIONS))"
        )
        shown = self._stack.manage(consumer, "shell", "-v0", "-c", code)
        subscriptions: dict[str, dict[str, str]] = json.loads(shown.stdout.splitlines()[-1])
        return subscriptions

    def _rows(self, service: str, statement: str) -> list[tuple[Any, ...]]:
        path = self._stack.layout.db / f"{service}.sqlite3"
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=10)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def _emitted(self, service: str) -> list[Fact]:
        rows = self._rows(
            service,
            "SELECT seq, id, aggregatetype, aggregateid, type, payload FROM outbox_event "
            "ORDER BY seq",
        )
        return [
            Fact(seq, UUID(event_id), (kind, aggregate), event_type, json.loads(payload)["data"])
            for seq, event_id, kind, aggregate, event_type, payload in rows
        ]

    def _wanted(self, consumer: str, emitted: dict[str, list[Fact]]) -> Iterator[Fact]:
        for emitter, types in self._subscriptions[consumer].items():
            yield from (fact for fact in emitted[emitter] if fact.type in types)

    def _not_applied(self, consumer: str) -> set[UUID]:
        emitted = {name: self._emitted(name) for name in self._subscriptions[consumer]}
        applied = {UUID(row[0]) for row in self._rows(consumer, "SELECT id FROM inbox_event")}
        return {fact.event_id for fact in self._wanted(consumer, emitted)} - applied

    def _require_projections(self, facts: list[Fact]) -> None:
        """Every projection shows the newest version of its subject that was ever told."""
        newest: dict[tuple[str, str], int] = {}
        for fact in facts:
            if fact.type in PROJECTIONS:
                key = (fact.type, fact.aggregate[1])
                newest[key] = max(newest.get(key, 0), int(fact.data["version"]))
        for (event_type, subject), version in newest.items():
            for consumer, table, key_column in PROJECTIONS[event_type]:
                shown = self._rows(
                    consumer, f"SELECT version FROM {table} WHERE {key_column} = {int(subject)}"
                )
                assert shown == [(version,)], f"{consumer}'s {table} of {subject}"

    def _require_order(self, service: str, facts: list[Fact]) -> None:
        """Everything is in the service's stream (or its parts), and of each aggregate the first
        delivery of each event comes in the order of the outbox."""
        wanted = defaultdict(list)
        for fact in facts:
            wanted[fact.aggregate].append(fact.event_id)
        aggregate_of = {fact.event_id: fact.aggregate for fact in facts}
        delivered: dict[tuple[str, str], dict[UUID, None]] = defaultdict(dict)
        for event_id in self._stream(service):
            delivered[aggregate_of[event_id]].setdefault(event_id)
        assert {aggregate: list(ids) for aggregate, ids in delivered.items()} == wanted

    def _stream(self, service: str) -> Iterator[UUID]:
        client = redis.Redis.from_url(self._stack.env["STREAM_URL"], decode_responses=True)
        try:
            for name in sorted(client.scan_iter(f"flashsale:{service}*", _type="stream")):
                for _, fields in client.xrange(name):
                    yield UUID(json.loads(fields["event"])["id"])
        finally:
            client.close()
