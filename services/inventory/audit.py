"""The invariants that inventory can check by itself (I1 to I3, and the ledger), and the facts that
the audit across services joins with those of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from django.db.models import Count, Q, Sum
from django.utils import timezone

from common.databases import consistent_snapshot
from common.events.outbox import pending_count
from common.events.parked import check_parked
from services.inventory import ledger
from services.inventory.models import BuyerHold, Reservation, Stock, StockMovement
from services.inventory.states import INIT, TRANSITIONS, Status

VIOLATIONS_SHOWN_MAX = 20
Check = dict[str, Any]


def audit() -> dict[str, Any]:
    """Return checks and facts of one consistent snapshot."""
    with consistent_snapshot():
        stocks = {row.ticket_id: row for row in Stock.objects.all()}
        checks = [
            _check("I1", "available + reserved + sold = total, none negative", _conserved(stocks)),
            _check("I2", "reserved and sold are the sums of the reservations", _sums(stocks)),
            _check("I3", "each reservation's log is a path of the state machine", _paths()),
            _check("I2", "the counters follow from the ledger", _ledger(stocks)),
            _check("I2", "buyer holds are the sums of their reservations", _buyers()),
            check_parked(),
        ]
        return {"service": "inventory", "checks": checks, "facts": _facts(stocks)}


def _check(number: str, name: str, violations: Iterable[str]) -> Check:
    found = list(violations)
    return {
        "id": number,
        "name": name,
        "ok": not found,
        "violations": found[:VIOLATIONS_SHOWN_MAX],
        "count": len(found),
    }


def _conserved(stocks: dict[int, Stock]) -> Iterable[str]:
    for ticket_id, row in stocks.items():
        counters = (row.available, row.reserved, row.sold)
        if min(counters) < 0 or sum(counters) != row.total:
            yield f"ticket {ticket_id}: {counters} against total {row.total}"


def _sums(stocks: dict[int, Stock]) -> Iterable[str]:
    sums = {
        row["ticket_id"]: (row["held"] or 0, row["gone"] or 0)
        for row in Reservation.objects.values("ticket_id").annotate(
            held=Sum("quantity", filter=Q(status=Status.RESERVED)),
            gone=Sum("quantity", filter=Q(status=Status.COMMITTED)),
        )
    }
    for ticket_id, row in stocks.items():
        held, gone = sums.pop(ticket_id, (0, 0))
        if (row.reserved, row.sold) != (held, gone):
            yield (
                f"ticket {ticket_id}: reserved {row.reserved}, sold {row.sold}; "
                f"its reservations say {held}, {gone}"
            )
    for ticket_id, (held, gone) in sums.items():
        if held or gone:
            yield f"ticket {ticket_id}: reservations without a stock row"


def _paths() -> Iterable[str]:
    steps: dict[str, list[str]] = defaultdict(list)
    movements = StockMovement.objects.exclude(reservation_id="").order_by("seq")
    for reservation_id, kind in movements.values_list("reservation_id", "kind").iterator():
        steps[reservation_id].append(kind)
    for reservation_id, status in Reservation.objects.values_list("pk", "status").iterator():
        state = INIT
        kinds = steps.pop(reservation_id, [])
        for kind in kinds:
            step = TRANSITIONS[kind]
            state = str(step.target) if step.source == state else f"no {kind} from {state}"
        if state != status:
            yield f"reservation {reservation_id} is {status}; its log {kinds} leads to {state}"
    for reservation_id in steps:
        yield f"reservation {reservation_id} is in the ledger and does not exist"


def _ledger(stocks: dict[int, Stock]) -> Iterable[str]:
    counters: dict[int, ledger.Counters] = {}
    movements = StockMovement.objects.order_by("seq").values_list("ticket_id", "kind", "quantity")
    for ticket_id, kind, quantity in movements.iterator():
        if kind == StockMovement.Kind.INITIALISE:
            counters[ticket_id] = ledger.Counters(
                total=quantity, available=quantity, reserved=0, sold=0
            )
        elif ticket_id in counters:
            ledger.add(counters[ticket_id], kind, quantity)
    for ticket_id, row in stocks.items():
        stored = ledger.Counters(
            total=row.total, available=row.available, reserved=row.reserved, sold=row.sold
        )
        if counters.get(ticket_id) != stored:
            yield f"ticket {ticket_id}: {stored}; the ledger says {counters.get(ticket_id)}"


def _buyers() -> Iterable[str]:
    live = (
        Reservation.objects.filter(status__in=[Status.RESERVED, Status.COMMITTED])
        .exclude(buyer_id="")
        .values_list("ticket_id", "buyer_id")
        .annotate(units=Sum("quantity"))
    )
    sums = {(ticket_id, buyer_id): units for ticket_id, buyer_id, units in live}
    rows = BuyerHold.objects.values_list("ticket_id", "buyer_id", "quantity")
    for ticket_id, buyer_id, quantity in rows.iterator():
        units = sums.pop((ticket_id, buyer_id), 0)
        if quantity != units:
            yield f"buyer {buyer_id}, ticket {ticket_id}: counted {quantity}, holds {units}"
    for ticket_id, buyer_id in sums:
        yield f"buyer {buyer_id}, ticket {ticket_id}: holds units that were never counted"


def _facts(stocks: dict[int, Stock]) -> dict[str, Any]:
    now = timezone.now()
    rows = Reservation.objects.values_list(
        "pk", "status", "order_id", "ticket_id", "quantity", "expires_at", "created_at"
    )
    return {
        "reservations": [
            [
                pk,
                status,
                str(order_id) if order_id else None,
                ticket_id,
                quantity,
                (now - expires_at).total_seconds() if status == Status.RESERVED else None,
                (now - created_at).total_seconds(),
            ]
            for pk, status, order_id, ticket_id, quantity, expires_at, created_at in rows.iterator()
        ],
        "stocks": {
            ticket_id: {
                "total": row.total,
                "available": row.available,
                "reserved": row.reserved,
                "sold": row.sold,
                "version": row.version,
            }
            for ticket_id, row in stocks.items()
        },
        "outbox_pending": pending_count(),
        "reservations_by_status": dict(
            Reservation.objects.values_list("status").annotate(n=Count("pk"))
        ),
    }
