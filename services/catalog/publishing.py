"""Events: making and revising them, and what the public may see of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.utils import timezone

from common.transactions import in_transaction
from services.catalog import listing, offers, periods
from services.catalog.models import Event, Ticket
from services.catalog.refusals import event_not_found, invalid_transition, wrong_way_round
from services.catalog.searching import folded_columns

DRAFT, PUBLISHED, ENDED = Event.Status.DRAFT, Event.Status.PUBLISHED, Event.Status.ENDED

# call → (from, to)
TRANSITIONS = {
    "publish": (DRAFT, PUBLISHED),
    "unpublish": (PUBLISHED, DRAFT),
    "end": (PUBLISHED, ENDED),
}


def create_event(details: Mapping[str, Any]) -> int:
    """Make a draft of an event and return its id; 400 when it would end before it starts."""
    periods.in_order(details, "starts_at", "ends_at", may_touch=True)
    columns = {**details, **folded_columns(dict(details))}
    return in_transaction(lambda: Event.objects.create(**columns)).pk


def revise_event(event_id: int, changes: Mapping[str, Any]) -> None:
    """Change what is known of an event, in any state; its tickets are announced anew."""
    if changes:
        in_transaction(lambda: _revise(event_id, changes))


def move_event(event_id: int, call: str) -> None:
    """Carry out ``call``, a row of TRANSITIONS; 409 ``invalid_transition`` from another state.

    The conditional UPDATE decides: of two callers at once, one wins and the other is refused.
    """
    in_transaction(lambda: _move(event_id, call))


def _revise(event_id: int, changes: Mapping[str, Any]) -> None:
    ordered = periods.in_order(changes, "starts_at", "ends_at", may_touch=True)
    rows = Event.objects.filter(ordered, pk=event_id)
    if not rows.update(**changes, **folded_columns(dict(changes)), updated_at=timezone.now()):
        _require_event(event_id)
        raise wrong_way_round("starts_at", "ends_at")
    _changed(event_id)


def _move(event_id: int, call: str) -> None:
    source, target = TRANSITIONS[call]
    rows = Event.objects.filter(pk=event_id, status=source)
    if not rows.update(status=target, updated_at=timezone.now()):
        status = _require_event(event_id)
        raise invalid_transition(call, thing="an event", wanted=source, found=status)
    _changed(event_id)


def _require_event(event_id: int) -> str:
    status = Event.objects.filter(pk=event_id).values_list("status", flat=True).first()
    if status is None:
        raise event_not_found()
    return status


def _changed(event_id: int) -> None:
    offers.touch(Ticket.objects.filter(event_id=event_id))
    listing.forget_after_commit()
