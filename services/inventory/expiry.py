"""Holds always come back: the loop that gives overdue ones back."""

from __future__ import annotations

from django.utils import timezone

from common.loops import Loop
from services.inventory import reservations
from services.inventory.models import Reservation
from services.inventory.states import Status

# Bounds a transaction's locks: the hot stock row must not wait for a long list.
BATCH_SIZE = 100


def expire_batch() -> int:
    """Expire up to BATCH_SIZE overdue holds; return how many were found.

    Any number of workers may do this at once: the conditional UPDATE gives each hold to one.
    """
    overdue = Reservation.objects.filter(status=Status.RESERVED, expires_at__lt=timezone.now())
    found = list(overdue.order_by("expires_at").values_list("pk", flat=True)[:BATCH_SIZE])
    if found:
        reservations.expire(reservation_ids=found)
    return len(found)


expire_holds = Loop("expire_holds", expire_batch, interval_seconds=0.5)
