"""Placing an order: check the offer, hold the units, insert the order with its outcome.

Everything has an id derived from (user, key), so nothing has to be written before inventory is
asked: whoever repeats the request meets the same holds and the same order. A crash between the two
leaves a hold that names an order which does not exist; orphans.py finds it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn
from uuid import UUID

import structlog
from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from common.errors import Problem, Unavailable
from common.failpoints import failpoint
from common.idempotency.keys import key_reused
from common.ids import derived_token, derived_uuid
from common.request_id import current_request_id
from common.transactions import in_transaction
from services.order import inventory_client, saga, sold_out
from services.order.inventory_client import Entry, HoldRequest
from services.order.models import Order, OrderItem, TicketOffer
from services.order.offers import open_offers, sale_not_open
from services.order.states import ORDER_STEPS, OrderStatus

log = structlog.get_logger(__name__)

# Keeps every sum far inside a BIGINT.
TOTAL_MAX = 10**15
# inventory's refusal → (ours, for the buyer)
_REFUSALS = {"insufficient_stock": "sold_out", "limit_exceeded": "limit_exceeded"}


@dataclass(frozen=True)
class Purchase:
    """What somebody wants to buy, under which key."""

    user_id: str
    key: str
    fingerprint: str
    quantities: Mapping[int, int]

    @cached_property
    def order_id(self) -> UUID:
        return derived_uuid(self.user_id, self.key)

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
    return Purchase(user_id, key, fingerprint, dict(quantities))


def place_order(purchase: Purchase) -> Placed:
    """Place the order, or return the one that an earlier request with this key has made.

    A REJECTED order is an outcome, kept under the key. What is raised is not kept, so the same key
    may succeed later: 404 ``ticket_not_found``, 409 ``sale_not_open``, ``sold_out`` by the flag,
    ``limit_exceeded`` of one order, 503. Another body: 422 ``idempotency_key_reused``.
    """
    earlier = _earlier(purchase)
    if earlier is not None:
        return earlier
    offers = open_offers(purchase.quantities)
    _require_countable(purchase, offers)
    try:
        entries = _reserve(purchase, offers)
    except sold_out.SoldOut as known:
        return _earlier(purchase) or _refuse_by_flag(purchase, offers, known)
    order, items = _order_with_outcome(purchase, offers, entries)
    try:
        in_transaction(lambda: _insert(order, items))
    except IntegrityError:
        return _lost_to_another(purchase, entries)
    failpoint("order.place.committed")
    return Placed(order, items, replayed=False)


def rejection_problem(placed: Placed) -> Problem | None:
    """Return the refusal that a REJECTED order answers, word for word as the first time."""
    rejection: dict[str, Any] | None = placed.order.rejection
    if rejection is None:
        return None
    return Problem(
        rejection["status"],
        rejection["code"],
        rejection["detail"],
        request_id=rejection["request_id"],
        # Sorted: some databases do not keep the order of a JSON column's members.
        **dict(sorted(rejection["extra"].items())),
    )


def refusal(code: str, detail: str, **extra: Any) -> dict[str, Any]:
    """Return what a REJECTED order keeps of its refusal."""
    return {
        "status": 409,
        "code": code,
        "detail": detail,
        "request_id": current_request_id(),
        "extra": extra,
    }


def _earlier(purchase: Purchase) -> Placed | None:
    order = Order.objects.prefetch_related("items").filter(pk=purchase.order_id).first()
    if order is None:
        return None
    if not order.user_id:
        # A stand-in for this very purchase, which was interrupted: only its buyer can come here,
        # as the id is derived from the user. It now learns whose it is.
        Order.objects.filter(pk=order.pk, user_id="").update(
            user_id=purchase.user_id,
            idempotency_key=purchase.key,
            fingerprint=purchase.fingerprint,
        )
        order.refresh_from_db()
    if order.fingerprint != purchase.fingerprint:
        raise key_reused()
    return Placed(order, list(order.items.all()), replayed=True)


def _require_countable(purchase: Purchase, offers: Mapping[int, TicketOffer]) -> None:
    if _total(purchase, offers) > TOTAL_MAX:
        raise Problem(409, "total_too_large", f"An order's total is at most {TOTAL_MAX}.")


def _reserve(purchase: Purchase, offers: Mapping[int, TicketOffer]) -> list[Entry]:
    """Ask inventory for the holds, when it is this request's turn to ask."""
    with sold_out.turn(purchase.quantities) as asked_at:
        failpoint("order.place.before_reserve")
        [entries] = inventory_client.reserve([_holds(purchase, offers)])
        failpoint("order.place.reserved")
        if not any(entry.code for entry in entries):
            sold_out.forget(purchase.quantities)
        for ticket_id, entry in zip(purchase.quantities, entries, strict=True):
            # The replay of an old refusal does not say what is left, and is no news.
            if "available" in entry.error:
                left = entry.error["available"]
                sold_out.remember(ticket_id, available=left, asked_at=asked_at)
    return entries


def _refuse_by_flag(
    purchase: Purchase, offers: Mapping[int, TicketOffer], known: sold_out.SoldOut
) -> NoReturn:
    detail = _sold_out_detail(offers[known.ticket_id], purchase.quantities[known.ticket_id])
    raise Problem(409, "sold_out", detail, ticket_id=known.ticket_id, available=known.available)


def _sold_out_detail(offer: TicketOffer, quantity: int) -> str:
    return f"{offer} is sold out: {quantity} wanted."


def _total(purchase: Purchase, offers: Mapping[int, TicketOffer]) -> int:
    return sum(offers[one].price * quantity for one, quantity in purchase.quantities.items())


def _holds(purchase: Purchase, offers: Mapping[int, TicketOffer]) -> list[HoldRequest]:
    return [
        HoldRequest(
            reservation_id=purchase.reservation_id(ticket_id),
            ticket_id=ticket_id,
            quantity=quantity,
            order_id=purchase.order_id,
            buyer_id=purchase.user_id,
            buyer_limit=offers[ticket_id].per_user_limit,
            ttl_seconds=settings.HOLD_TTL_SECONDS,
        )
        for ticket_id, quantity in purchase.quantities.items()
    ]


def _order_with_outcome(
    purchase: Purchase, offers: Mapping[int, TicketOffer], entries: Sequence[Entry]
) -> tuple[Order, list[OrderItem]]:
    """Return the order, not saved yet, with what inventory's answer makes of it."""
    rejection = _rejection(purchase, offers, entries)
    expires_at = None if rejection else min(_expiries(entries))
    now = timezone.now()
    # A refused group holds nothing; an interrupted one may still hold a part.
    settled = rejection is not None and all(entry.code for entry in entries)
    order = Order(
        id=purchase.order_id,
        user_id=purchase.user_id,
        idempotency_key=purchase.key,
        fingerprint=purchase.fingerprint,
        status=ORDER_STEPS["reject" if rejection else "place"].target,
        total=_total(purchase, offers),
        currency=next(iter(offers.values())).currency,
        expires_at=expires_at,
        rejection=rejection,
        settled_at=now if settled else None,
        due_at=saga.overdue_at(expires_at) if expires_at else now + saga.SWEEP_AFTER,
        created_at=now,
        updated_at=now,
    )
    items = [
        OrderItem(
            reservation_id=purchase.reservation_id(ticket_id),
            order=order,
            ticket_id=ticket_id,
            quantity=quantity,
            unit_price=offers[ticket_id].price,
            name=str(offers[ticket_id]),
        )
        for ticket_id, quantity in purchase.quantities.items()
    ]
    return order, items


def _rejection(
    purchase: Purchase, offers: Mapping[int, TicketOffer], entries: Sequence[Entry]
) -> dict[str, Any] | None:
    """Return why the order is refused for good, or None; raises what is not to be kept."""
    for ticket_id, entry in zip(purchase.quantities, entries, strict=True):
        if entry.code == "ticket_not_found":
            raise sale_not_open(ticket_id, f"No units of {offers[ticket_id]} are for sale yet.")
        if entry.code == "reservation_mismatch":
            # The key holds other units already: another body got there a moment earlier.
            raise key_reused()
        if entry.code in _REFUSALS:
            return _refused_by_inventory(entry, offers[ticket_id], purchase.quantities[ticket_id])
    if any(entry.code == "group_refused" for entry in entries):
        # Refused along with an entry that is not in this body: the key was sent with another one.
        raise key_reused()
    if any(entry.code for entry in entries):
        log.error("reserve refused", answers=[entry.error for entry in entries])
        raise Unavailable("inventory_unavailable", "The inventory service refused the hold.")
    if any(entry.status != "RESERVED" for entry in entries):
        return interrupted()
    return None


def _refused_by_inventory(entry: Entry, offer: TicketOffer, quantity: int) -> dict[str, Any]:
    code = _REFUSALS[entry.code]
    extra = {name: entry.error[name] for name in ("available", "limit") if name in entry.error}
    detail = (
        _sold_out_detail(offer, quantity)
        if code == "sold_out"
        else f"At most {offer.per_user_limit} of {offer} per person, earlier orders included."
    )
    return refusal(code, detail, ticket_id=offer.ticket_id, **extra)


def interrupted() -> dict[str, Any]:
    """Return the refusal of a purchase whose holds were given back before its order existed."""
    return refusal(
        "order_interrupted",
        "This purchase was interrupted and nothing is held for it; order again with a new key.",
    )


def _expiries(entries: Sequence[Entry]) -> list[datetime]:
    return [entry.expires_at for entry in entries if entry.expires_at is not None]


def _insert(order: Order, items: Sequence[OrderItem]) -> None:
    order.save(force_insert=True)
    OrderItem.objects.bulk_create(items)
    rejected = order.status == OrderStatus.REJECTED
    saga.announce(order, items, ORDER_STEPS["reject" if rejected else "place"].event)
    failpoint("order.place.before_commit")


def _lost_to_another(purchase: Purchase, entries: Sequence[Entry]) -> Placed:
    """Answer from the order that was inserted first, holding nothing that is not in it."""
    theirs = set(OrderItem.objects.filter(order_id=purchase.order_id).values_list("pk", flat=True))
    stray = [one.reservation_id for one in entries if one.status]
    stray = [one for one in stray if one not in theirs]
    if stray:
        try:
            saga.release_holds(stray)
        except Unavailable:
            log.warning("left to the sweeper", order_id=str(purchase.order_id), holds=stray)
    earlier = _earlier(purchase)
    if earlier is None:
        raise Unavailable("service_unavailable", "The order could not be stored; try again.")
    return earlier
