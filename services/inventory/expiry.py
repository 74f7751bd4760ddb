"""Holds always come back: the loop that gives overdue ones back."""

from __future__ import annotations

import time
from functools import partial

import structlog

from common.database_errors import is_outage
from common.loops import Loop
from services.inventory import deciding

log = structlog.get_logger(__name__)

# Bounds a transaction's locks: the hot stock row must not wait for a long list.
BATCH_SIZE = 256
# A hold that cannot be given back is tried again after this long; meanwhile it keeps no others.
ASIDE_SECONDS, ASIDE_MAX = 60.0, 1_000

# reservation id → when it may be tried again
Aside = dict[str, float]


def expire_batch(aside: Aside | None = None) -> int:
    """Expire up to BATCH_SIZE overdue holds; return how many this worker has given back.

    Any number of workers may do this at once: each claims holds that no other has. ``aside``
    remembers from call to call what cannot be given back, because its books are wrong.
    """
    aside = {} if aside is None else aside
    for reservation_id in [one for one, until in aside.items() if until < time.monotonic()]:
        del aside[reservation_id]
    # Most of the time there are none, and finding that out shall lock nothing.
    found = list(deciding.overdue(aside).values_list("pk", flat=True)[:BATCH_SIZE])
    if not found:
        return 0
    try:
        return deciding.expire(limit=BATCH_SIZE, passing_over=aside)
    except Exception as error:
        if is_outage(error):
            raise
        log.error("a batch cannot be given back, trying one by one", error=str(error))
    return sum(_expire_alone(reservation_id, aside) for reservation_id in found)


def _expire_alone(reservation_id: str, aside: Aside) -> int:
    """Expire one hold; one whose books are wrong stays, and must not keep the others."""
    try:
        return deciding.expire(limit=1, only=reservation_id)
    except Exception as error:
        if is_outage(error):
            raise
        log.error("hold cannot be given back", reservation_id=reservation_id, error=str(error))
    if len(aside) < ASIDE_MAX:
        aside[reservation_id] = time.monotonic() + ASIDE_SECONDS
    return 0


expire_holds = Loop("expire_holds", partial(expire_batch, {}), interval_seconds=0.5)
