"""What the catalog tells the others about a ticket: its whole state and its version.

Whoever changes a ticket, or the event that it is for, announces it in the same transaction.
"""

from __future__ import annotations

from typing import TypedDict

from django.db.models import F, QuerySet, Value
from django.db.models.functions import Greatest
from django.utils import timezone

from common.events.outbox import publish
from common.times import iso, iso_or_none
from common.transactions import in_transaction
from services.catalog.models import Ticket
from services.catalog.refusals import ticket_not_found


class Offer(TypedDict):
    """The data of ``ticket.changed`` and the answer to who asks for an offer."""

    ticket_id: int
    version: int
    event_id: int
    event_title: str
    event_status: str
    event_starts_at: str
    event_ends_at: str
    name: str
    price: int
    currency: str
    per_order_limit: int
    per_user_limit: int | None
    sale_starts_at: str | None
    sale_ends_at: str | None
    status: str


def offer_of(ticket_id: int) -> Offer:
    """Return the offer of a ticket, whether anybody may buy it or not; 404 when there is none."""
    ticket = Ticket.objects.select_related("event").filter(pk=ticket_id).first()
    if ticket is None:
        raise ticket_not_found()
    return offer(ticket)


def announce(tickets: QuerySet[Ticket]) -> None:
    """Publish the present state of the tickets, each with the version that it has now.

    Must run inside the transaction that changed them: it holds the rows' locks, so versions leave
    in the order in which they are committed.
    """
    for ticket in tickets.select_related("event").order_by("pk"):
        publish(
            aggregate_type="ticket",
            aggregate_id=str(ticket.pk),
            event_type="ticket.changed",
            data=dict(offer(ticket)),
        )


def touch(tickets: QuerySet[Ticket]) -> None:
    """Announce the tickets as changed, because something that they all share did."""
    tickets.update(version=F("version") + 1, updated_at=timezone.now())
    announce(tickets.all())


def republish(ticket_id: int, *, above: int = 0) -> int:
    """Publish a ticket's offer again and return its version; 0 when there is no such ticket.

    The version is a new one, also above ``above``: a projection that is wrong under the present
    version, or one from before a backup was restored, would take no other for news.
    """

    def work() -> int:
        ticket = Ticket.objects.filter(pk=ticket_id)
        ticket.update(version=Greatest(F("version"), Value(above)) + 1, updated_at=timezone.now())
        announce(ticket)
        return ticket.values_list("version", flat=True).first() or 0

    return in_transaction(work)


def offer(ticket: Ticket) -> Offer:
    """Return the offer of a ticket that was read together with its event."""
    event = ticket.event
    return Offer(
        ticket_id=ticket.pk,
        version=ticket.version,
        event_id=event.pk,
        event_title=event.title,
        event_status=event.status,
        event_starts_at=iso(event.starts_at),
        event_ends_at=iso(event.ends_at),
        name=ticket.name,
        price=ticket.price,
        currency=ticket.currency,
        per_order_limit=ticket.per_order_limit,
        per_user_limit=ticket.per_user_limit,
        sale_starts_at=iso_or_none(ticket.sale_starts_at),
        sale_ends_at=iso_or_none(ticket.sale_ends_at),
        status=ticket.status,
    )
