"""The invariants that inventory can check by itself (I1 to I3, I8, and the ledger), and the facts
that the audit across services joins with those of the others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from django.db.models import Q, Sum
from django.utils import timezone

from common.auditing import Violation, check
from common.databases import consistent_snapshot
from common.events.audit import Window, event_facts, nothing_parked, window_at
from services.inventory import ledger
from services.inventory.models import BuyerHold, Reservation, Stock, StockMovement, TicketLabel
from services.inventory.states import INIT, TRANSITIONS, Status


def audit(window: Window | None = None) -> dict[str, Any]:
    """Return checks and facts of one consistent snapshot."""
    with consistent_snapshot():
        stocks = {row.ticket_id: row for row in Stock.objects.all()}
        checks = [
            check("I1", "available + reserved + sold = total, none negative", _conserved(stocks)),
            check("I2", "reserved and sold are the sums of the reservations", _sums(stocks)),
            check("I3", "each reservation's log is a path of the state machine", _paths()),
            check("I2", "the counters follow from the ledger", _ledger(stocks)),
            check("I2", "buyer holds are the sums of their reservations", _buyers()),
            check("I8", "a refused reservation has moved no stock", _refusals()),
            nothing_parked(),
        ]
        facts = {**_facts(stocks), **event_facts(window or window_at())}
        return {"service": "inventory", "checks": checks, "facts": facts}


def _stock(ticket_id: int, text: str) -> Violation:
    return Violation("stock_wrong", "ticket", str(ticket_id), f"ticket {ticket_id}: {text}")


def _conserved(stocks: dict[int, Stock]) -> Iterable[Violation]:
    for ticket_id, row in stocks.items():
        counters = (row.available, row.reserved, row.sold)
        if min(counters) < 0 or sum(counters) != row.total:
            yield _stock(ticket_id, f"{counters} against total {row.total}")


def _sums(stocks: dict[int, Stock]) -> Iterable[Violation]:
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
            told = f"reserved {row.reserved}, sold {row.sold}; its reservations say {held}, {gone}"
            yield _stock(ticket_id, told)
    for ticket_id, (held, gone) in sums.items():
        if held or gone:
            yield _stock(ticket_id, "reservations without a stock row")


def _paths() -> Iterable[Violation]:
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
            yield _log(reservation_id, f"is {status}; its log {kinds} leads to {state}")
    for reservation_id in steps:
        yield _log(reservation_id, "is in the ledger and does not exist")


def _log(reservation_id: str, text: str) -> Violation:
    told = f"reservation {reservation_id} {text}"
    return Violation("log_wrong", "reservation", reservation_id, told)


def _refusals() -> Iterable[Violation]:
    moved = StockMovement.objects.exclude(reservation_id="").exclude(kind="refuse")
    failed = Reservation.objects.filter(status=Status.FAILED).values("pk")
    rows = moved.filter(reservation_id__in=failed).order_by("seq")
    for reservation_id, kind, quantity in rows.values_list("reservation_id", "kind", "quantity"):
        text = f"reservation {reservation_id} was refused, yet {kind} has moved {quantity} units"
        yield Violation("refusal_moved_stock", "reservation", reservation_id, text)


def _ledger(stocks: dict[int, Stock]) -> Iterable[Violation]:
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
            yield _stock(ticket_id, f"{stored}; the ledger says {counters.get(ticket_id)}")


def _buyers() -> Iterable[Violation]:
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
            yield _buyer(ticket_id, buyer_id, f"counted {quantity}, holds {units}")
    for ticket_id, buyer_id in sums:
        yield _buyer(ticket_id, buyer_id, "holds units that were never counted")


def _buyer(ticket_id: int, buyer_id: str, text: str) -> Violation:
    told = f"buyer {buyer_id}, ticket {ticket_id}: {text}"
    return Violation("buyer_miscounted", "ticket", str(ticket_id), told, {"buyer_id": buyer_id})


def _facts(stocks: dict[int, Stock]) -> dict[str, Any]:
    now = timezone.now()
    rows = Reservation.objects.values_list(
        *("pk", "status", "order_id", "ticket_id", "quantity", "buyer_id"),
        *("expires_at", "created_at"),
    )
    labels = TicketLabel.objects.values_list("pk", "label", "version")
    return {
        "reservations": [
            [
                pk,
                status,
                str(order_id) if order_id else None,
                *what,
                (now - expires_at).total_seconds() if status == Status.RESERVED else None,
                (now - created_at).total_seconds(),
            ]
            for pk, status, order_id, *what, expires_at, created_at in rows.iterator()
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
        "labels": {
            ticket_id: {"label": label, "version": version} for ticket_id, label, version in labels
        },
    }
