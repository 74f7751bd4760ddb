"""Holds always come back: the loop that gives overdue ones back."""

from __future__ import annotations

import structlog
from django.utils import timezone

from common.loops import Loop
from services.inventory import deciding
from services.inventory.models import Reservation
from services.inventory.states import Status
from services.inventory.stock import BooksDisagree

log = structlog.get_logger(__name__)

# Bounds a transaction's locks: the hot stock row must not wait for a long list.
BATCH_SIZE = 256


def expire_batch() -> int:
    """Expire up to BATCH_SIZE overdue holds; return how many this worker has given back.

    Any number of workers may do this at once: each claims holds that no other has.
    """
    # Most of the time there are none, and finding that out shall lock nothing.
    overdue = Reservation.objects.filter(status=Status.RESERVED, expires_at__lt=timezone.now())
    found = list(overdue.order_by("expires_at").values_list("pk", flat=True)[:BATCH_SIZE])
    if not found:
        return 0
    try:
        return deciding.expire(limit=BATCH_SIZE)
    except BooksDisagree:
        return sum(_expire_alone(reservation_id) for reservation_id in found)


def _expire_alone(reservation_id: str) -> int:
    """Expire one hold; one whose books are wrong stays, and must not keep the others."""
    try:
        return deciding.expire(limit=1, only=reservation_id)
    except BooksDisagree as error:
        log.error("hold cannot be given back", reservation_id=reservation_id, error=str(error))
        return 0


expire_holds = Loop("expire_holds", expire_batch, interval_seconds=0.5)
