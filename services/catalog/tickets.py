"""Tickets of an event: making and revising them, and putting them on sale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import F
from django.utils import timezone

from common.errors import Problem
from common.transactions import in_transaction
from services.catalog import listing, offers, periods
from services.catalog.models import Event, Ticket
from services.catalog.refusals import (
    event_not_found,
    invalid_transition,
    ticket_not_found,
    wrong_way_round,
)

OFF_SHELF, ON_SALE = Ticket.Status.OFF_SHELF, Ticket.Status.ON_SALE

# call → (from, to)
TRANSITIONS = {
    "on-sale": (OFF_SHELF, ON_SALE),
    "off-shelf": (ON_SALE, OFF_SHELF),
}
# An event shows all its tickets, and a change of it announces each of them.
TICKETS_PER_EVENT_MAX = 100


def create_ticket(event_id: int, details: Mapping[str, Any]) -> int:
    """Make a ticket that is not on sale yet, and return its id.

    404 without that event, 409 ``event_ended`` when it is over, 409 ``too_many_tickets``.
    """
    periods.in_order(details, "sale_starts_at", "sale_ends_at", may_touch=False)
    return in_transaction(lambda: _create(event_id, details))


def revise_ticket(ticket_id: int, changes: Mapping[str, Any]) -> None:
    """Change what is known of a ticket, in any state."""
    if changes:
        in_transaction(lambda: _revise(ticket_id, changes))


def move_ticket(ticket_id: int, call: str) -> None:
    """Carry out ``call``, a row of TRANSITIONS; 409 ``invalid_transition`` from another state."""
    in_transaction(lambda: _move(ticket_id, call))


def _create(event_id: int, details: Mapping[str, Any]) -> int:
    # Holding the event's row makes a change of the event wait, or come before: no ticket misses it.
    running = Event.objects.filter(pk=event_id).exclude(status=Event.Status.ENDED)
    if not running.update(updated_at=timezone.now()):
        if not Event.objects.filter(pk=event_id).exists():
            raise event_not_found()
        raise Problem(409, "event_ended", "The event is over; it gets no more tickets.")
    if Ticket.objects.filter(event_id=event_id).count() >= TICKETS_PER_EVENT_MAX:
        raise Problem(
            409, "too_many_tickets", f"An event has at most {TICKETS_PER_EVENT_MAX} tickets."
        )
    ticket = Ticket.objects.create(event_id=event_id, **details)
    _announce(ticket.pk)
    return ticket.pk


def _revise(ticket_id: int, changes: Mapping[str, Any]) -> None:
    ordered = periods.in_order(changes, "sale_starts_at", "sale_ends_at", may_touch=False)
    rows = Ticket.objects.filter(ordered, pk=ticket_id)
    if not rows.update(**changes, version=F("version") + 1, updated_at=timezone.now()):
        _require_ticket(ticket_id)
        raise wrong_way_round("sale_starts_at", "sale_ends_at")
    _announce(ticket_id)


def _move(ticket_id: int, call: str) -> None:
    source, target = TRANSITIONS[call]
    rows = Ticket.objects.filter(pk=ticket_id, status=source)
    if not rows.update(status=target, version=F("version") + 1, updated_at=timezone.now()):
        status = _require_ticket(ticket_id)
        raise invalid_transition(call, thing="a ticket", wanted=source, found=status)
    _announce(ticket_id)


def _require_ticket(ticket_id: int) -> str:
    status = Ticket.objects.filter(pk=ticket_id).values_list("status", flat=True).first()
    if status is None:
        raise ticket_not_found()
    return status


def _announce(ticket_id: int) -> None:
    offers.announce(Ticket.objects.filter(pk=ticket_id))
    listing.forget_after_commit()
