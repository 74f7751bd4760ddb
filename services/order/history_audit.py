"""I5: orders are what their retained events told, and have moved by rows of the table only.

An order's event is written in the transaction that moves it, with the whole new state: what was
acknowledged can be compared with what there is, for as long as the outbox keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple
from uuid import UUID

from common.auditing import Violation
from common.events.models import OutboxEvent
from services.order.documents import item_list
from services.order.models import Order, OrderItem
from services.order.states import INIT, ORDER_STEPS

_STEPS = frozenset((step.source, str(step.target), step.event) for step in ORDER_STEPS.values())


class _Row(NamedTuple):
    """An order as it is; ``content`` stands for what never changes."""

    status: str
    version: int
    content: int


class _Told(NamedTuple):
    """An order as its last event told."""

    status: str
    version: int


def violations() -> Iterator[Violation]:
    """Walk through the retained events of all orders, in the order of their making."""
    rows = _rows()
    last: dict[UUID, _Told] = {}
    events = OutboxEvent.objects.filter(aggregatetype="order").order_by("seq")
    for event_type, payload in events.values_list("type", "payload").iterator():
        data = payload["data"]
        order_id = UUID(data["order_id"])
        row, told = rows.get(order_id), _Told(data["status"], data["version"])
        if row is None:
            yield _violation(order_id, f"was told of by {event_type} and does not exist")
            continue
        if _content(data["total"], data["currency"], data["items"]) != row.content:
            yield _violation(order_id, f"had other items or another total at {event_type}")
        before = last.get(order_id)
        if not _leads(before, told, event_type):
            came = f"{before.status} ({before.version})" if before else "nothing"
            text = f"went from {came} to {told.status} ({told.version}) by {event_type}"
            yield _violation(order_id, text)
        last[order_id] = told
    for order_id, told in last.items():
        row = rows[order_id]
        if (row.status, row.version) != told:
            text = f"is {row.status} ({row.version}), last told {told.status} ({told.version})"
            yield _violation(order_id, text)


def _leads(before: _Told | None, told: _Told, event_type: str) -> bool:
    """Tell whether a row of the table leads here; what came before may be forgotten already."""
    if before is None:
        return told.version > 1 or (INIT, told.status, event_type) in _STEPS
    return told.version == before.version + 1 and (before.status, told.status, event_type) in _STEPS


def _rows() -> dict[UUID, _Row]:
    items: dict[UUID, list[OrderItem]] = {}
    for item in OrderItem.objects.order_by("ticket_id").iterator():
        items.setdefault(item.order_id, []).append(item)
    orders = Order.objects.order_by().values_list("pk", "status", "version", "total", "currency")
    return {
        pk: _Row(status, version, _content(total, currency, item_list(items.pop(pk, []))))
        for pk, status, version, total, currency in orders.iterator()
    }


def _content(total: int, currency: str, items: list[dict[str, Any]]) -> int:
    """Return one number for it: a hundred thousand orders' items would fill the memory."""
    return hash((total, currency, tuple(tuple(sorted(item.items())) for item in items)))


def _violation(order_id: UUID, text: str) -> Violation:
    return Violation("history_wrong", "order", str(order_id), f"order {order_id} {text}")
