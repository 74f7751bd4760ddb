"""What may be bought, at which price and how many: the order service's own copy of the catalog.

The copy follows the catalog's ticket.changed events. It may be a moment behind, so an offer that is
unknown or closed in it is read from the catalog once more before anybody is refused.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import structlog
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from common import bulk
from common.errors import NotFound, Problem, Unavailable
from common.http_client import call_service
from common.times import iso_or_none
from common.transactions import in_transaction
from services.order.models import TicketOffer

log = structlog.get_logger(__name__)

# How long a request waits for another's look at the catalog; longer than one look may take.
LOOK_WAIT_SECONDS = 3.0
# All looks of one request; the last one may begin just before it is over.
LOOKS_SECONDS_MAX = 2.0
STRIPES = 64

_PLAIN_FIELDS = (
    "version",
    "event_id",
    "event_title",
    "event_status",
    "name",
    "price",
    "currency",
    "per_order_limit",
    "per_user_limit",
    "status",
)
_TIME_FIELDS = ("event_starts_at", "event_ends_at", "sale_starts_at", "sale_ends_at")


# Of an event that is still a draft nobody may learn so much as the name.
KNOWN_TO_THE_PUBLIC = frozenset({"PUBLISHED", "ENDED"})


def all_open(tickets: Iterable[int], offers: Mapping[int, TicketOffer]) -> bool:
    """Tell whether all of the tickets may be bought now, as far as these offers know."""
    now = timezone.now()
    return all(one in offers and offers[one].is_open(now) for one in tickets)


def require_open(tickets: Collection[int]) -> None:
    """Ask the catalog about those of the tickets that are unknown or closed here.

    404 ``ticket_not_found``, 409 ``sale_not_open`` unless all of them may be bought now.
    """
    known = TicketOffer.objects.in_bulk(tickets)
    deadline = time.monotonic() + LOOKS_SECONDS_MAX
    for ticket_id in tickets:
        if not all_open([ticket_id], known):
            if time.monotonic() > deadline:
                raise Unavailable("catalog_unavailable", "The catalog is slow; try again.")
            _require_open(_looked_up(ticket_id, known.get(ticket_id)))


def require_buyable(quantities: Mapping[int, int], offers: Mapping[int, TicketOffer]) -> None:
    """Require that one order may have so many of these tickets.

    409 ``limit_exceeded`` (of one order), ``mixed_currencies``.
    """
    for ticket_id, quantity in quantities.items():
        offer = offers[ticket_id]
        limit = offer.per_order_limit
        if limit is not None and quantity > limit:
            raise Problem(
                409,
                "limit_exceeded",
                f"At most {limit} of {offer} per order; {quantity} wanted.",
                ticket_id=ticket_id,
                limit=limit,
            )
    if len({offers[one].currency for one in quantities}) > 1:
        raise Problem(
            409, "mixed_currencies", "These tickets are sold in different currencies; order apart."
        )


_ensure = bulk.ensurer(TicketOffer, "ticket_id", *_PLAIN_FIELDS, *_TIME_FIELDS)


def apply_ticket_changed(data: dict[str, Any], event: dict[str, Any]) -> None:
    """Keep the newest state of a ticket; older events than the one known change nothing."""
    store(data)


def store(data: Mapping[str, Any]) -> None:
    """Project what the catalog says of a ticket, unless something newer is known already."""
    ticket_id = int(data["ticket_id"])
    fields = {name: data[name] for name in _PLAIN_FIELDS}
    fields |= {name: parse_datetime(data[name]) if data[name] else None for name in _TIME_FIELDS}
    _ensure([(ticket_id, *fields.values())])
    older = TicketOffer.objects.filter(ticket_id=ticket_id, version__lt=fields["version"])
    older.update(**fields)


def offer_document(offer: TicketOffer) -> dict[str, Any]:
    """Return the copy as the catalog's event would say it."""
    times = {name: iso_or_none(getattr(offer, name)) for name in _TIME_FIELDS}
    plain = {name: getattr(offer, name) for name in _PLAIN_FIELDS}
    return {"ticket_id": offer.ticket_id, **plain, **times}


def _require_open(offer: TicketOffer) -> None:
    if offer.event_status not in KNOWN_TO_THE_PUBLIC:
        raise _no_such_ticket(offer.ticket_id)
    if not offer.is_open(timezone.now()):
        raise sale_not_open(offer.ticket_id, f"{offer} is not on sale at this moment.")


def sale_not_open(ticket_id: int, detail: str) -> Problem:
    """Return the refusal for a ticket that cannot be bought now; the same key may work later."""
    return Problem(409, "sale_not_open", detail, ticket_id=ticket_id)


def _looked_up(ticket_id: int, known: TicketOffer | None) -> TicketOffer:
    try:
        exists = _stripes[ticket_id % STRIPES].look(ticket_id)
    except Unavailable:
        if known is None:
            raise
        # The copy says closed and nobody says otherwise.
        return known
    offer = TicketOffer.objects.filter(pk=ticket_id).first() if exists or known else None
    if offer is None:
        raise _no_such_ticket(ticket_id)
    return offer


def _no_such_ticket(ticket_id: int) -> NotFound:
    return NotFound("ticket_not_found", f"There is no ticket {ticket_id}.")


class _Stripe:
    """Lets a crowd in front of a closed sale ask the catalog once, not each for himself.

    A look that began after a request arrived is fresh enough for it, whoever began it. At most one
    look per stripe of tickets is under way in this process.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ticket_id = 0
        self._began = float("-inf")
        self._found: bool | Unavailable = False

    def look(self, ticket_id: int) -> bool:
        """Read the offer into the projection; False when the catalog has none."""
        arrived = time.monotonic()
        if not self._lock.acquire(timeout=LOOK_WAIT_SECONDS):
            raise Unavailable("catalog_unavailable", "The catalog is slow; try again.")
        try:
            if self._ticket_id != ticket_id or self._began < arrived:
                began = time.monotonic()
                self._found = _read_through(ticket_id)
                self._ticket_id, self._began = ticket_id, began
            found = self._found
        finally:
            self._lock.release()
        if isinstance(found, Unavailable):
            raise found
        return found


_stripes = tuple(_Stripe() for _ in range(STRIPES))


def _read_through(ticket_id: int) -> bool | Unavailable:
    try:
        path = f"/internal/catalog/tickets/{ticket_id}/offer"
        status, data = call_service("catalog", "GET", path)
    except Unavailable as error:
        return error
    if status == 404:
        return False
    if status != 200:
        log.error("the catalog refused to show an offer", ticket_id=ticket_id, status=status)
        return Unavailable("catalog_unavailable", "The catalog did not answer; try again.")
    in_transaction(lambda: store(data))
    return True
