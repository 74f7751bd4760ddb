"""What people see of the catalog: pages of events, an event, a ticket, and what is left of it.

The public sees published events, and ended ones by their address. Admins see everything, as it is
in the database at this moment. Everything here is plain data, ready to be sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, TypedDict

from django.db.models import QuerySet
from django.utils import timezone

from common.errors import NotFound
from common.routers import replica_reads
from common.times import iso, iso_or_none
from services.catalog import availability
from services.catalog.hot_reads import Shelf
from services.catalog.models import Event, Ticket
from services.catalog.refusals import event_not_found, ticket_not_found

SHELF = Shelf("pages", fresh_seconds=5, kept_seconds=60, stamped=True)
PUBLIC_STATUSES = (Event.Status.PUBLISHED, Event.Status.ENDED)

Facts = dict[str, Any]


class Page(TypedDict):
    """One page of events, and how many there are on all pages."""

    count: int
    results: list[Facts]


def forget_after_commit() -> None:
    """Let no page from before the transaction at work be seen after it."""
    SHELF.forget_after_commit()


def visible_events(*, public: bool) -> QuerySet[Event]:
    """Return the events that the caller may know of."""
    return Event.objects.filter(status__in=PUBLIC_STATUSES) if public else Event.objects.all()


def events_page(
    events: QuerySet[Event], *, number: int, size: int, public: bool, hot_name: str | None
) -> Page:
    """Return a page of ``events``; 404 beyond the last one.

    ``hot_name`` names a public list that many ask for. The others (a search, say) would fill the
    cache with what nobody asks for again.
    """

    def load() -> Page:
        first = (number - 1) * size
        shown = events.prefetch_related("tickets")[first : first + size]
        results = [_event_facts(event) for event in shown]
        # An event may appear between the two queries; what is shown is counted in any case.
        known = first + len(results) if results else 0
        return Page(count=max(events.count(), known), results=results)

    page: Page
    if public and hot_name:
        page = _hot(f"events:{hot_name}:{number}:{size}", load)
    else:
        page = _from_replica(load) if public else load()
    if number > 1 and not page["results"]:
        raise NotFound(detail="There is no such page.")
    _fill_in_available([t for event in page["results"] for t in event["tickets"]], hot=public)
    return page


def show_event(event_id: int, *, public: bool) -> Facts:
    """Return an event with its tickets; 404 when the caller may not know of it."""

    def load() -> Facts | None:
        rows = visible_events(public=public).prefetch_related("tickets")
        row = rows.filter(pk=event_id).first()
        return _event_facts(row) if row else None

    facts: Facts | None = _hot(f"event:{event_id}", load) if public else load()
    if facts is None:
        raise event_not_found()
    _fill_in_available(facts["tickets"], hot=public)
    return facts


def show_ticket(ticket_id: int, *, public: bool) -> Facts:
    """Return a ticket; 404 when the caller may not know of its event."""
    facts: Facts = _ticket(ticket_id, public=public)["ticket"]
    _fill_in_available([facts], hot=public)
    return facts


def show_availability(ticket_id: int, *, public: bool) -> Facts:
    """Return what a page polls: how many are left and whether they can be bought now."""
    known = _ticket(ticket_id, public=public)
    seen = availability.available_of([ticket_id], hot=public)[ticket_id]
    return {
        "ticket_id": ticket_id,
        "available": seen["available"],
        "on_sale": _is_on_sale(known["ticket"], known["event_status"]),
        "sold_out": seen["available"] == 0,
        "as_of": seen["as_of"],
    }


def _ticket(ticket_id: int, *, public: bool) -> Facts:
    def load() -> Facts | None:
        rows = Ticket.objects.select_related("event")
        if public:
            rows = rows.filter(event__status__in=PUBLIC_STATUSES)
        row = rows.filter(pk=ticket_id).first()
        return {"ticket": _ticket_facts(row), "event_status": row.event.status} if row else None

    known: Facts | None = _hot(f"ticket:{ticket_id}", load) if public else load()
    if known is None:
        raise ticket_not_found()
    return known


def _hot(ident: str, load: Callable[[], Any]) -> Any:
    def load_one(idents: list[str]) -> dict[str, tuple[int, Any]]:
        # A page has no version: the shelf's stamp tells newer from older.
        return {ident: (0, _from_replica(load))}

    return SHELF.read([ident], load_one)[ident]


def _from_replica(load: Callable[[], Any]) -> Any:
    with replica_reads():
        return load()


def _fill_in_available(tickets: Iterable[Facts], *, hot: bool) -> None:
    by_id = {ticket["id"]: ticket for ticket in tickets}
    for ticket_id, seen in availability.available_of(by_id, hot=hot).items():
        by_id[ticket_id]["available"] = seen["available"]


def _is_on_sale(ticket: Facts, event_status: str) -> bool:
    # Decided when it is asked: the clock opens and closes a sale, and tells no cache.
    now = timezone.now()
    starts_at, ends_at = ticket["sale_starts_at"], ticket["sale_ends_at"]
    return (
        ticket["status"] == Ticket.Status.ON_SALE
        and event_status == Event.Status.PUBLISHED
        and (starts_at is None or datetime.fromisoformat(starts_at) <= now)
        and (ends_at is None or now < datetime.fromisoformat(ends_at))
    )


def _event_facts(event: Event) -> Facts:
    return {
        "id": event.pk,
        "title": event.title,
        "description": event.description,
        "starts_at": iso(event.starts_at),
        "ends_at": iso(event.ends_at),
        "status": event.status,
        "tickets": [_ticket_facts(ticket) for ticket in event.tickets.all()],
    }


def _ticket_facts(ticket: Ticket) -> Facts:
    return {
        "id": ticket.pk,
        "event": ticket.event_id,
        "name": ticket.name,
        "price": ticket.price,
        "currency": ticket.currency,
        "per_order_limit": ticket.per_order_limit,
        "per_user_limit": ticket.per_user_limit,
        "sale_starts_at": iso_or_none(ticket.sale_starts_at),
        "sale_ends_at": iso_or_none(ticket.sale_ends_at),
        "status": ticket.status,
        "available": 0,
    }
