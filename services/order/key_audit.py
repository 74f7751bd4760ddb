"""I6 and I8: what a key stands for. One key, one order or payment, and answers that stay true."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from common.auditing import Violation
from common.idempotency.models import IdempotencyRecord
from common.ids import derived_uuid
from services.order import late
from services.order.models import Order, OrderItem, Payment
from services.order.states import ORDER_STEPS, PAYMENT_STEPS, OrderStatus

PAY, CANCEL = "order.pay", "order.cancel"
_ORDER_MOVES = frozenset((step.source, str(step.target)) for step in ORDER_STEPS.values())
_PAYMENT_MOVES = frozenset((str(s.source), str(s.target)) for s in PAYMENT_STEPS.values())
Moves = frozenset[tuple[str, str]]


class _Kept(NamedTuple):
    """An answer that is kept under a key, and what it is about."""

    user_id: str
    call: str
    order_id: str
    key: str
    body: Any

    @property
    def payment_id(self) -> UUID:
        return derived_uuid(self.user_id, self.order_id, self.key)


def ids() -> Iterator[Violation]:
    """Find orders and holds whose ids are not those of their user and key, and a key with two."""
    owners: dict[UUID, tuple[str, str]] = {}
    of_key: dict[tuple[str, str], UUID] = {}
    orders = Order.objects.exclude(user_id="").order_by()
    for pk, *owner in orders.values_list("pk", "user_id", "idempotency_key").iterator():
        user_id, key = owners[pk] = (owner[0], owner[1])
        if pk != derived_uuid(user_id, key):
            yield _order(pk, f"is not the order of user {user_id} and key {key}")
        first = of_key.setdefault((user_id, key), pk)
        if first != pk:
            yield _order(pk, f"is a second one of user {user_id} and key {key}, beside {first}")
    items = OrderItem.objects.order_by().values_list("pk", "order_id", "ticket_id")
    for reservation_id, order_id, ticket_id in items.iterator():
        owned_by = owners.get(order_id)
        if owned_by and reservation_id not in late.ids_of_line(*owned_by, ticket_id):
            yield _order(order_id, f"has the item {reservation_id}: another purchase's id")


def answers() -> Iterator[Violation]:
    """Find kept answers that tell of other orders and payments than there are."""
    orders = {str(pk): status for pk, status in Order.objects.values_list("pk", "status")}
    payments = {
        str(pk): (str(order_id), status, amount)
        for pk, order_id, status, amount in Payment.objects.values_list(
            "pk", "order_id", "status", "amount"
        )
    }
    for kept in _kept(200):
        for text in _wrong(kept, orders, payments):
            told = f"order {kept.order_id}, key {kept.key}: {text}"
            yield Violation("answer_wrong", "order", kept.order_id, told)


def effects_of_refusals() -> Iterator[Violation]:
    """Find payments that exist though their key was definitely refused."""
    refused = {kept.payment_id: kept for kept in _kept(409) if kept.call == PAY}
    if not refused:
        return
    for pk in Payment.objects.order_by().values_list("pk", flat=True).iterator():
        if pk in refused:
            text = f"payment {pk} was made though its key {refused[pk].key} was refused"
            yield Violation("refused_payment", "payment", str(pk), text)


def _order(pk: UUID, text: str) -> Violation:
    return Violation("key_wrong", "order", str(pk), f"order {pk} {text}")


def _kept(status: int) -> Iterator[_Kept]:
    """Return what was answered with this status."""
    records = IdempotencyRecord.objects.filter(status=status).order_by()
    rows = records.values_list("user_id", "operation", "key", "body")
    for user_id, operation, key, body in rows.iterator():
        call, _, order_id = operation.partition(":")
        if call in (PAY, CANCEL):
            yield _Kept(user_id, call, order_id, key, body)


def _wrong(
    kept: _Kept, orders: Mapping[str, str], payments: Mapping[str, tuple[str, str, int]]
) -> Iterable[str]:
    found = orders.get(kept.order_id)
    told = kept.body["order"] if kept.call == PAY else kept.body
    if found is None:
        yield "answered, and the order does not exist"
    elif told["id"] != kept.order_id:
        yield f"the answer tells of order {told['id']}"
    elif kept.call == CANCEL and found != OrderStatus.CANCELLED:
        yield f"cancelled, and the order is {found}"
    elif not _reachable(told["status"], found, _ORDER_MOVES):
        yield f"answered {told['status']}, and the order is {found}"
    if kept.call == PAY:
        yield from _payment_wrong(kept, payments)


def _payment_wrong(kept: _Kept, payments: Mapping[str, tuple[str, str, int]]) -> Iterable[str]:
    told, wanted = kept.body["payment"], str(kept.payment_id)
    found = payments.get(wanted)
    if told["id"] != wanted:
        yield f"the answer tells of payment {told['id']}, the key's is {wanted}"
    elif found is None:
        yield f"answered, and payment {told['id']} does not exist"
    elif found[0] != kept.order_id or found[2] != told["amount"]:
        yield f"payment {told['id']} is over {found[2]} for order {found[0]}"
    elif not _reachable(told["status"], found[1], _PAYMENT_MOVES):
        yield f"answered {told['status']}, and payment {told['id']} is {found[1]}"


@cache
def _reachable(source: str, target: str, moves: Moves) -> bool:
    """Tell whether steps of the table lead from one state to the other."""
    seen, edge = {source}, {source}
    while edge:
        edge = {after for before, after in moves if before in edge} - seen
        seen |= edge
    return target in seen
