"""The sweeper: repeats every step that did not finish. All steps are idempotent, so this is the
whole crash recovery, and any number of sweepers may run."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

import structlog
from django.db.models import QuerySet
from django.utils import timezone

from common.errors import Problem, Unavailable
from common.failpoints import failpoint
from common.loops import Loop
from common.transactions import in_transaction
from services.order import paying, saga, webhooks
from services.order.models import Order, Payment
from services.order.orphans import OrphanSearch

log = structlog.get_logger(__name__)
Row = TypeVar("Row", Order, Payment)

BATCH_SIZE = 50
# Who fails comes up again after this long, behind those that wait already.
RETRY_AFTER = timedelta(seconds=3)
# No row is begun after this long, so that who hangs at every row holds nobody else up for long.
ROUND_SECONDS_MAX = 5.0
# Whoever makes a payment books what was kept for it; this is for when that was interrupted.
NOTICES_INTERVAL_SECONDS = 3.0
ORPHANS_INTERVAL_SECONDS = 5.0
# Who is away for one row is away for the others. All else is the trouble of that row alone: a
# provider may refuse one payment and take the next.
_STOPS_THE_ROUND = "inventory_unavailable"


class Sweeper:
    """One round: orders, payments, and now and then kept notices and holds without an order.

    What fails in one part is logged and keeps no other part from its work.
    """

    def __init__(self) -> None:
        self._orphans = OrphanSearch()
        self._next_at: dict[str, float] = {}

    def step(self) -> int:
        """Do one bounded round; return how much was found to do."""
        found = _alone("orders", sweep_orders) + _alone("payments", sweep_payments)
        if self._is_time_for("notices", NOTICES_INTERVAL_SECONDS):
            found += _alone("notices", webhooks.book_kept)
        if self._is_time_for("orphans", ORPHANS_INTERVAL_SECONDS):
            found += _alone("orphans", self._orphans.step)
        return found

    def _is_time_for(self, part: str, interval_seconds: float) -> bool:
        now = time.monotonic()
        if now < self._next_at.get(part, now):
            return False
        self._next_at[part] = now + interval_seconds
        return True


def sweep_orders() -> int:
    """Advance orders that nobody has finished; return how many."""
    due = Order.objects.filter(settled_at=None, due_at__lte=timezone.now()).order_by("due_at")
    return _sweep(due, saga.advance)


def sweep_payments() -> int:
    """Finish payments that were interrupted, and refunds that are due; return how many."""
    due = Payment.objects.filter(due_at__lte=timezone.now()).order_by("due_at")
    return _sweep(due.select_related("order"), paying.resume)


def _sweep(due: QuerySet[Row], finish: Callable[[Row], object]) -> int:
    done = 0
    ends_at = time.monotonic() + ROUND_SECONDS_MAX
    for row in due[:BATCH_SIZE]:
        if time.monotonic() > ends_at:
            break
        if not _claim(row):
            continue
        failpoint("order.sweep.claimed")
        try:
            finish(row)
        except Problem as error:
            log.warning("sweeper waits", row=str(row), reason=str(error))
            if error.code == _STOPS_THE_ROUND:
                break
        except Exception:
            # One bad row must not keep the others from being finished.
            log.exception("sweeper failed", row=str(row))
        done += 1
    return done


def _claim(row: Order | Payment) -> bool:
    """Take a row for this sweeper by moving its time on; another one finds it moved."""
    found_at, row.due_at = row.due_at, timezone.now() + RETRY_AFTER
    assert found_at is not None, "found by its due_at"
    unclaimed = type(row).objects.filter(pk=row.pk, due_at=found_at)
    return bool(in_transaction(lambda: unclaimed.update(due_at=row.due_at)))


def _alone(part: str, work: Callable[[], int]) -> int:
    try:
        return work()
    except Unavailable as error:
        log.warning("sweeper waits", part=part, reason=str(error))
    except Exception:
        log.exception("sweeper failed", part=part)
    return 0


finish_orders = Loop("finish_orders", Sweeper().step, interval_seconds=0.5)
