"""A purchase: what somebody wants to buy under which key, and the ids that follow from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from common.ids import derived_token, derived_uuid
from common.request_id import current_request_id
from services.order.models import Order, OrderItem


@dataclass(frozen=True)
class Purchase:
    """What somebody wants to buy, under which key; ``quantities`` by ticket, ascending."""

    user_id: str
    key: str
    fingerprint: str
    quantities: Mapping[int, int]
    request_id: str

    @cached_property
    def order_id(self) -> UUID:
        return derived_uuid(self.user_id, self.key)

    @cached_property
    def tickets(self) -> tuple[int, ...]:
        return tuple(self.quantities)

    def reservation_id(self, ticket_id: int) -> str:
        return derived_token(self.user_id, self.key, str(ticket_id))


@dataclass(frozen=True)
class Placed:
    """The order that a key stands for; ``replayed`` when an earlier request made it."""

    order: Order
    items: Sequence[OrderItem]
    replayed: bool


def purchase_of(
    *, user_id: str, key: str, fingerprint: str, lines: Sequence[Mapping[str, int]]
) -> Purchase:
    """Return the purchase that a request asks for; lines of the same ticket count together."""
    quantities: Counter[int] = Counter()
    for line in sorted(lines, key=lambda line: line["ticket_id"]):
        quantities[line["ticket_id"]] += line["quantity"]
    return Purchase(user_id, key, fingerprint, dict(quantities), current_request_id())
