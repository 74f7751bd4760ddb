"""Holds that do not fit their order: torn purchases, and steps that inventory never heard of.

A request that dies between inventory's answer and its own insert leaves a hold which names an
order that does not exist. A REJECTED stand-in is inserted under that id first, so that the request,
should it be alive after all, loses at the primary key; then the hold is given back.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

import structlog
from django.db import IntegrityError
from django.utils import timezone

from common.failpoints import failpoint
from common.request_id import current_request_id
from common.transactions import in_transaction
from services.order import inventory_client, saga
from services.order.inventory_client import OrphanSuspect
from services.order.models import Order
from services.order.refusals import interrupted
from services.order.states import ORDER_STEPS, OVER, OrderStatus

log = structlog.get_logger(__name__)

# Far longer than a request may take between its hold and its order.
SUSPECT_AFTER = timedelta(seconds=30)
PAGE_SIZE = 500
# One look's bound; the next look goes on from there.
PAGES_MAX = 40
FAILURES_MAX = 3
# A hold that was in line once stays so, but for what is done behind the order service's back.
ALL_AGAIN_AFTER_SECONDS = 60.0

_SOLD = frozenset({OrderStatus.PAID, OrderStatus.CONFIRMED})


class OrphanSearch:
    """Looks at every hold once it is older than SUSPECT_AFTER, and at all of them now and then."""

    def __init__(self) -> None:
        self._after: str | None = None
        self._began_at = float("-inf")

    def step(self) -> int:
        """Look at a bounded number of holds; return how many did not fit their order."""
        resolved = 0
        if self._after is None:
            self._began_at = time.monotonic()
        for _ in range(PAGES_MAX):
            page, following = inventory_client.holds(
                created_before=timezone.now() - SUSPECT_AFTER, after=self._after, limit=PAGE_SIZE
            )
            resolved += _resolve(page)
            if following is None:
                if time.monotonic() - self._began_at > ALL_AGAIN_AFTER_SECONDS:
                    self._after = None
                break
            self._after = following
        return resolved


def _resolve(page: Sequence[OrphanSuspect]) -> int:
    by_order: dict[UUID, set[str]] = defaultdict(set)
    for hold in page:
        by_order[hold.order_id].add(hold.reservation_id)
    orders = Order.objects.prefetch_related("items").in_bulk(by_order)
    resolved = failures = 0
    for order_id, reservation_ids in by_order.items():
        try:
            resolved += fit(order_id, reservation_ids, orders.get(order_id))
            failures = 0
        except Exception:
            # One that cannot be brought in line must not hide those behind it; but where one after
            # the other fails, it is inventory that is away.
            log.exception("hold left out of line", order_id=str(order_id))
            failures += 1
            if failures >= FAILURES_MAX:
                raise
    return resolved


def fit(order_id: UUID, reservation_ids: set[str], order: Order | None) -> int:
    """Bring the holds in line with their order; return how many were out of line."""
    if order is None:
        order = _stand_in(order_id)
        if order is None:
            # The request was only slow; its order came in at this moment.
            return 0
        failpoint("order.orphan.stood_in")
        log.warning("torn purchase", order_id=str(order_id), holds=sorted(reservation_ids))
    own = {item.pk for item in order.items.all()}
    # What belongs to no line of the order was held for a request that lost to another one.
    over = reservation_ids if order.status in OVER else reservation_ids - own
    if over and saga.release_holds(sorted(over)) and order.status in OVER:
        saga.settle(order)
    unsold = reservation_ids & own if order.status in _SOLD else set()
    if unsold and order.status == OrderStatus.PAID:
        saga.advance(order)
    elif unsold:
        # Confirmed a moment ago, usually; the commit is then a replay.
        inventory_client.commit(sorted(unsold))
    return len(over | unsold)


def _stand_in(order_id: UUID) -> Order | None:
    """Insert a REJECTED order under the id; None when there is an order after all."""
    now = timezone.now()
    order = Order(
        id=order_id,
        # Whose it is, and under which key, went with the request; both can be shown again by the
        # buyer only (placing.py).
        user_id="",
        idempotency_key=str(order_id),
        fingerprint="",
        status=ORDER_STEPS["reject"].target,
        total=0,
        currency="",
        rejection=interrupted(current_request_id()),
        due_at=now + saga.SWEEP_AFTER,
        created_at=now,
        updated_at=now,
    )

    def insert() -> None:
        order.save(force_insert=True)
        saga.announce(order, (), ORDER_STEPS["reject"].event)

    try:
        in_transaction(insert)
    except IntegrityError:
        return None
    return order
