"""The demo sale: two published events with tickets on sale, made through the public API."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from deploy.stack.api import Api

OPENS_BEFORE = timedelta(hours=1)


@dataclass(frozen=True)
class DemoTicket:
    name: str
    price: int
    stock: int
    per_order_limit: int = 4
    per_user_limit: int = 8


@dataclass(frozen=True)
class DemoEvent:
    title: str
    description: str
    days_ahead: int
    tickets: tuple[DemoTicket, ...]


EVENTS = (
    DemoEvent(
        "Midnight Orchestra: One Night Only",
        "The whole orchestra, the whole night, and one hall that is far too small.",
        30,
        (
            DemoTicket("Front row", 12_900, 100, per_order_limit=2, per_user_limit=2),
            DemoTicket("Stalls", 6_900, 2_000),
            DemoTicket("Balcony", 3_900, 5_000),
        ),
    ),
    DemoEvent(
        "Harbour Lights Festival",
        "Three stages by the water, forty bands, and the ferry home at dawn.",
        60,
        (
            DemoTicket("Weekend pass", 14_900, 10_000),
            DemoTicket("Saturday", 8_900, 8_000),
            DemoTicket("Backstage tour", 24_900, 20, per_order_limit=1, per_user_limit=1),
        ),
    ),
)


def is_empty(admin: Api) -> bool:
    """Tell whether the catalog has no event at all."""
    count: int = admin.get("/api/catalog/events").require(200)["count"]
    return count == 0


def load(admin: Api) -> None:
    """Make what is missing of the demo sale; harmless to repeat after an interruption."""
    for event in EVENTS:
        found = _find_event(admin, event.title)
        if found is None:
            found = create_event(admin, event.title, event.description, event.days_ahead)
        present = {ticket["name"]: ticket for ticket in found["tickets"]}
        for ticket in event.tickets:
            known = present.get(ticket.name) or create_ticket(admin, found["id"], ticket)
            if known["status"] != "ON_SALE":
                put_on_sale(admin, known["id"], ticket.stock)
        if found["status"] == "DRAFT":
            publish(admin, found["id"])


def create_event(admin: Api, title: str, description: str, days_ahead: int) -> dict[str, Any]:
    """Create a draft event."""
    starts = (datetime.now(UTC) + timedelta(days=days_ahead)).replace(
        hour=19, minute=0, second=0, microsecond=0
    )
    event = {
        "title": title,
        "description": description,
        "starts_at": starts.isoformat(),
        "ends_at": (starts + timedelta(hours=4)).isoformat(),
    }
    created: dict[str, Any] = admin.post("/api/catalog/events", event).require(201)
    return created


def create_ticket(admin: Api, event_id: int, ticket: DemoTicket) -> dict[str, Any]:
    """Create a ticket that is not on sale yet."""
    now = datetime.now(UTC)
    data = {
        "name": ticket.name,
        "price": ticket.price,
        "currency": "EUR",
        "per_order_limit": ticket.per_order_limit,
        "per_user_limit": ticket.per_user_limit,
        "sale_starts_at": (now - OPENS_BEFORE).isoformat(),
        "sale_ends_at": (now + timedelta(days=28)).isoformat(),
    }
    created: dict[str, Any] = admin.post(f"/api/catalog/events/{event_id}/tickets", data).require(
        201
    )
    return created


def put_on_sale(admin: Api, ticket_id: int, stock: int) -> None:
    """Set the ticket's stock and open its sale."""
    # 409: it was on sale before, and some of it is sold.
    admin.put(f"/api/inventory/stocks/{ticket_id}", {"total": stock}).require(200, 201, 409)
    admin.post(f"/api/catalog/tickets/{ticket_id}/on-sale").require(200)


def publish(admin: Api, event_id: int) -> None:
    admin.post(f"/api/catalog/events/{event_id}/publish").require(200)


def _find_event(admin: Api, title: str) -> dict[str, Any] | None:
    """Return the event with this title, a draft also; admins see those too."""
    page: dict[str, Any] = admin.get("/api/catalog/events?page_size=100").require(200)
    return next((event for event in page["results"] if event["title"] == title), None)
