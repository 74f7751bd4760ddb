"""Late money: holding an order's units once more, under ids of their own.

Inventory is asked before anything is booked, so that no transaction waits for it. A crash after its
answer leaves a hold that is no line of its order: whoever repeats the step meets it by its derived
id, or orphans.py gives it back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from uuid import UUID

import structlog
from django.conf import settings

from common.errors import Unavailable
from common.failpoints import failpoint
from common.ids import derived_token
from services.order import inventory_client
from services.order.inventory_client import HoldRequest
from services.order.models import Order, OrderItem, TicketOffer
from services.order.states import OVER

log = structlog.get_logger(__name__)

REFUND, RERESERVE = "refund", "rereserve"


def ids_of_line(user_id: str, key: str, ticket_id: int) -> tuple[str, str]:
    """Return the ids that an order's line may bear: its first hold's, and the one held again."""
    ticket = str(ticket_id)
    return derived_token(user_id, key, ticket), derived_token(user_id, key, ticket, "again")


def may_hold_again(order: Order) -> bool:
    """Tell whether late money may get the order its units after all; once per order."""
    return settings.LATE_PAYMENT == RERESERVE and not order.late_payment


def hold_again(order: Order, items: Iterable[OrderItem]) -> dict[str, str]:
    """Hold the units of lost lines once more: {id of the lost hold: new id}, empty if refused.

    Raises Unavailable when inventory does not answer; nothing is lost, call it again later.
    """
    lines = {item.pk: item for item in items}
    again = {pk: _again(order, item) for pk, item in lines.items()}
    if not again or any(pk == new for pk, new in again.items()):
        return {}
    failpoint("order.late.before_reserve")
    limits = TicketOffer.objects.in_bulk([item.ticket_id for item in lines.values()])
    [entries] = inventory_client.reserve(
        [[_request(order, lines[pk], new, limits) for pk, new in again.items()]]
    )
    failpoint("order.late.reserved")
    if all(entry.status == "RESERVED" for entry in entries):
        return again
    log.info("late money gets nothing", order_id=str(order.pk), answers=[e.code for e in entries])
    _release([entry.reservation_id for entry in entries if entry.status == "RESERVED"])
    return {}


def take_over(again: Mapping[str, str]) -> None:
    """Let the lines bear the ids of their new holds; belongs inside the step's transaction."""
    for lost, new in sorted(again.items()):
        OrderItem.objects.filter(pk=lost).update(reservation_id=new)


def let_go(order_id: UUID) -> None:
    """Give holds back that nobody made use of, as the order was over or taken up by another."""
    order = Order.objects.prefetch_related("items").get(pk=order_id)
    again = {_again(order, item) for item in order.items.all()}
    if order.status in OVER:
        _release(sorted(again - {item.pk for item in order.items.all()}))


def _again(order: Order, item: OrderItem) -> str:
    return ids_of_line(order.user_id, order.idempotency_key, item.ticket_id)[1]


def _request(
    order: Order, item: OrderItem, reservation_id: str, offers: Mapping[int, TicketOffer]
) -> HoldRequest:
    offer = offers.get(item.ticket_id)
    return HoldRequest(
        reservation_id=reservation_id,
        ticket_id=item.ticket_id,
        quantity=item.quantity,
        order_id=order.pk,
        buyer_id=order.user_id,
        buyer_limit=offer.per_user_limit if offer else None,
        ttl_seconds=settings.HOLD_TTL_SECONDS,
    )


def _release(reservation_ids: list[str]) -> None:
    if not reservation_ids:
        return
    try:
        inventory_client.release(reservation_ids)
    except Unavailable:
        log.warning("left to the sweeper", holds=reservation_ids)
