"""Why a purchase is refused: for good, kept with its REJECTED order, or only for now."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import structlog

from common.errors import Problem, Unavailable
from common.idempotency.keys import key_reused
from services.order.inventory_client import Entry
from services.order.models import TicketOffer
from services.order.offers import sale_not_open
from services.order.purchases import Placed, Purchase

log = structlog.get_logger(__name__)

# inventory's refusal → (ours, for the buyer)
_REFUSALS = {"insufficient_stock": "sold_out", "limit_exceeded": "limit_exceeded"}


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


def rejection_of(
    purchase: Purchase, offers: Mapping[int, TicketOffer], entries: Sequence[Entry]
) -> dict[str, Any] | None:
    """Return what a REJECTED order keeps of inventory's refusal, None if all is held.

    Raises what is not to be kept, because the same key may succeed later.
    """
    for ticket_id, entry in zip(purchase.quantities, entries, strict=True):
        if entry.code == "ticket_not_found":
            raise sale_not_open(ticket_id, f"No units of {offers[ticket_id]} are for sale yet.")
        if entry.code == "reservation_mismatch":
            # The key holds other units already: another body got there a moment earlier.
            raise key_reused()
        if entry.code in _REFUSALS:
            return _by_inventory(purchase, offers[ticket_id], entry)
    if any(entry.code == "group_refused" for entry in entries):
        # Refused along with an entry that is not in this body: the key was sent with another one.
        raise key_reused()
    if any(entry.code for entry in entries):
        if not any(entry.is_outage for entry in entries):
            log.error("reserve refused", answers=[entry.error for entry in entries])
        raise Unavailable("inventory_unavailable", "The inventory service refused the hold.")
    if any(entry.status != "RESERVED" for entry in entries):
        return interrupted(purchase.request_id)
    return None


def interrupted(request_id: str) -> dict[str, Any]:
    """Return the refusal of a purchase whose holds were given back before its order existed."""
    return _kept(
        "order_interrupted",
        "This purchase was interrupted and nothing is held for it; order again with a new key.",
        request_id,
    )


def sold_out_for_now(
    purchase: Purchase, offers: Mapping[int, TicketOffer], ticket_id: int, available: int
) -> Problem:
    """Return the refusal by what inventory has just told somebody else; it is not kept."""
    detail = _sold_out(offers[ticket_id], purchase.quantities[ticket_id])
    return Problem(409, "sold_out", detail, ticket_id=ticket_id, available=available)


def _by_inventory(purchase: Purchase, offer: TicketOffer, entry: Entry) -> dict[str, Any]:
    code = _REFUSALS[entry.code]
    extra = {name: entry.error[name] for name in ("available", "limit") if name in entry.error}
    detail = (
        _sold_out(offer, purchase.quantities[offer.ticket_id])
        if code == "sold_out"
        else f"At most {offer.per_user_limit} of {offer} per person, earlier orders included."
    )
    return _kept(code, detail, purchase.request_id, ticket_id=offer.ticket_id, **extra)


def _sold_out(offer: TicketOffer, quantity: int) -> str:
    return f"{offer} is sold out: {quantity} wanted."


def _kept(code: str, detail: str, request_id: str, **extra: Any) -> dict[str, Any]:
    return {
        "status": 409,
        "code": code,
        "detail": detail,
        "request_id": request_id,
        "extra": extra,
    }
