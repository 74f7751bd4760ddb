"""More time for a hold, once: its units must not lapse while the payment is on its way."""

from __future__ import annotations

from datetime import timedelta

from django.conf import settings
from django.db.models import F
from django.utils import timezone

from common.errors import Problem
from common.transactions import in_transaction
from services.inventory.deciding import refused
from services.inventory.entries import Outcome, reservation_not_found, states_of
from services.inventory.models import Reservation
from services.inventory.states import Status


def extend(reservation_id: str) -> Outcome:
    """Move the end of a hold on by HOLD_EXTENSION_SECONDS, once; asking again changes nothing.

    The state decides and not the clock: a hold that is overdue and not given back yet is extended.
    409 ``extension_not_allowed`` where the setting is 0; else as a commit is refused.
    """
    seconds: int = settings.HOLD_EXTENSION_SECONDS
    if not seconds:
        return Outcome(
            problem=Problem(409, "extension_not_allowed", "Holds are not extended here.")
        )
    hold = Reservation.objects.filter(pk=reservation_id, status=Status.RESERVED, extended=False)
    in_transaction(
        lambda: hold.update(
            expires_at=F("expires_at") + timedelta(seconds=seconds),
            extended=True,
            updated_at=timezone.now(),
        )
    )
    state = states_of([reservation_id]).get(reservation_id)
    if state is None:
        return Outcome(problem=reservation_not_found(reservation_id))
    return Outcome(state) if state.status == Status.RESERVED else refused("extend", state)
