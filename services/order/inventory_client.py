"""Inventory's internal API as the order service speaks it: groups of reserve, commit and release.

Every call may be repeated: what a lost answer did is found out by sending the same call again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import structlog

from common.errors import Unavailable
from common.http_client import call_service

log = structlog.get_logger(__name__)

BATCH_PATH = "/internal/inventory/reservations:batch"
HOLDS_PATH = "/internal/inventory/holds"
# Inventory takes no more in one call.
CALL_ENTRIES_MAX = 256


@dataclass(frozen=True)
class HoldRequest:
    """Units of one ticket that are to be held for an order."""

    reservation_id: str
    ticket_id: int
    quantity: int
    order_id: UUID
    buyer_id: str
    buyer_limit: int | None
    ttl_seconds: int

    def as_json(self) -> dict[str, Any]:
        return {
            "reservation_id": self.reservation_id,
            "ticket_id": self.ticket_id,
            "quantity": self.quantity,
            "order_id": str(self.order_id),
            "buyer_id": self.buyer_id,
            "buyer_limit": self.buyer_limit,
            "ttl_seconds": self.ttl_seconds,
        }


@dataclass(frozen=True)
class Entry:
    """Inventory's answer about one reservation: its present state, or why it was refused."""

    reservation_id: str
    status: str = ""
    expires_at: datetime | None = None
    code: str = ""
    error: dict[str, Any] = field(default_factory=dict)
    # Inventory was in trouble, and did not refuse: the same may work in a moment.
    is_outage: bool = False


@dataclass(frozen=True)
class OrphanSuspect:
    """A hold that names an order."""

    reservation_id: str
    order_id: UUID


def reserve(groups: Sequence[Sequence[HoldRequest]]) -> list[list[Entry]]:
    """Reserve each group as a whole or not at all, as many in one call as it takes.

    Unavailable if a call is not answered: what became of any of the groups is then not known.
    """
    answers: list[list[Entry]] = []
    for part in _parts(groups):
        answers += _batch("reserve", [[hold.as_json() for hold in group] for group in part])
    return answers


def commit(reservation_ids: Sequence[str]) -> list[Entry]:
    """Turn an order's holds into sales, all of them or none."""
    return _batch("commit", [_named(reservation_ids)])[0]


def release(reservation_ids: Sequence[str]) -> list[Entry]:
    """Give holds back, each by itself: one that cannot be given back must not keep the others."""
    answers = _batch("release", [_named([one]) for one in reservation_ids])
    return [answer[0] for answer in answers]


def extend(reservation_ids: Sequence[str]) -> list[Entry]:
    """Ask for more time for holds, each by itself; repeating it gives no more."""
    return _batch("extend", [_named(reservation_ids)])[0]


def holds(
    *, created_before: datetime, after: str | None, limit: int
) -> tuple[list[OrphanSuspect], str | None]:
    """Return a page of holds that name an order, oldest first, and the next page's cursor."""
    query = {"created_before": created_before.isoformat(), "limit": str(limit)}
    status, body = call_service(
        "inventory", "GET", HOLDS_PATH, query=query | ({"after": after} if after else {})
    )
    if status != 200:
        raise _misunderstood(status, body)
    found = [OrphanSuspect(one["reservation_id"], UUID(one["order_id"])) for one in body["holds"]]
    return found, body["next"]


def status_of(reservation_id: str) -> str:
    """Return the state of a reservation; empty where there is none."""
    path = f"/api/inventory/reservations/{reservation_id}"
    status, body = call_service("inventory", "GET", path)
    if status not in (200, 404):
        raise _misunderstood(status, body)
    return str(body["status"]) if status == 200 else ""


def _parts(groups: Sequence[Sequence[HoldRequest]]) -> Iterator[list[Sequence[HoldRequest]]]:
    """Yield the groups in pieces that fit into one call."""
    part: list[Sequence[HoldRequest]] = []
    size = 0
    for group in groups:
        if part and size + len(group) > CALL_ENTRIES_MAX:
            yield part
            part, size = [], 0
        part.append(group)
        size += len(group)
    if part:
        yield part


def _named(reservation_ids: Sequence[str]) -> list[dict[str, Any]]:
    return [{"reservation_id": one} for one in reservation_ids]


def _batch(call: str, groups: list[list[dict[str, Any]]]) -> list[list[Entry]]:
    body = {"groups": [{"call": call, "entries": entries} for entries in groups]}
    status, answer = call_service("inventory", "POST", BATCH_PATH, body)
    if status != 200:
        raise _misunderstood(status, answer)
    return [
        [
            _entry(sent["reservation_id"], received)
            for sent, received in zip(entries, group["entries"], strict=True)
        ]
        for entries, group in zip(groups, answer["groups"], strict=True)
    ]


def _entry(reservation_id: str, received: dict[str, Any]) -> Entry:
    error, reservation = received["error"], received["reservation"]
    if error:
        is_outage = received["status"] == 503
        return Entry(reservation_id, code=error["code"], error=error, is_outage=is_outage)
    return Entry(
        reservation_id,
        status=reservation["status"],
        expires_at=datetime.fromisoformat(reservation["expires_at"]),
    )


def _misunderstood(status: int, body: Any) -> Unavailable:
    # Our own mistake (a key, a version), not the buyer's: the same request may work when mended.
    log.error("inventory refused the call itself", status=status, answer=body)
    return Unavailable("inventory_unavailable", "The inventory service did not answer; try again.")
