"""Invariants that only show when services are put side by side: facts in, violations out."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from common.auditing import Violation

Facts = Mapping[str, Any]
# How long a hold may wait for its order, and outlive its own expiry (invariant I4).
LATE_SECONDS_MAX = 30.0

_OVER: Mapping[str | None, str] = {"RESERVED": "held_though_over", "COMMITTED": "sold_though_over"}
# An order's state → the states of its reservations that do not belong to it at rest, each with its
# finding; None: there is no such reservation. A state that is missing here is no state of rest.
MISFITS: Mapping[str, Mapping[str | None, str]] = {
    "CONFIRMED": {
        "RESERVED": "sale_not_committed",
        **dict.fromkeys(("RELEASED", "FAILED", None), "sold_nothing"),
    },
    "AWAITING_PAYMENT": {
        "COMMITTED": "sold_unpaid",
        **dict.fromkeys(("RELEASED", "FAILED", None), "hold_lost"),
    },
    "CANCELLED": _OVER,
    "EXPIRED": _OVER,
    "REJECTED": _OVER,
}
# What is mended at the order; the other findings are about the reservation.
_OF_THE_ORDER = frozenset({"sold_nothing", "hold_lost"})
_TAKING = frozenset({"RESERVED", "COMMITTED"})


class Order(NamedTuple):
    """An order as its service tells of it; ``items`` are (reservation, ticket, units)."""

    id: str
    status: str
    user_id: str
    age_seconds: float
    total: int
    currency: str
    items: list[list[Any]]


class Reservation(NamedTuple):
    """A reservation as inventory tells of it."""

    id: str
    status: str
    order_id: str | None
    ticket_id: int
    quantity: int
    buyer_id: str
    overdue_seconds: float | None
    age_seconds: float


class Payment(NamedTuple):
    """A payment as the order service tells of it."""

    id: str
    order_id: str
    status: str
    amount: int
    currency: str


class Gap(NamedTuple):
    """Buckets in which what was emitted differs from what was dealt with."""

    emitter: str
    consumer: str
    event_type: str
    buckets: list[int]


def orders_against_reservations(order: Facts, inventory: Facts) -> Iterator[Violation]:
    """I4: the state of an order and that of each of its reservations belong together."""
    reservations = {row[0]: row for row in inventory["reservations"]}
    orders: dict[str, Order] = {}
    owned: set[str] = set()
    for one in map(Order._make, order["orders"]):
        orders[one.id] = one
        owned.update(item[0] for item in one.items)
        misfits = MISFITS.get(one.status)
        if misfits is None:
            text = f"order {one.id} is still {one.status}"
            yield Violation("order_unsettled", "order", one.id, text)
            continue
        for reservation_id, *_ in one.items:
            row = reservations.get(reservation_id)
            finding = misfits.get(row[1] if row else None)
            if finding:
                # What names another order is not to be touched for this one.
                own = row is None or row[2] == one.id
                state = row[1] if row else None
                yield _misfit(finding if own else "item_differs", one, reservation_id, state)
    for reservation in map(Reservation._make, inventory["reservations"]):
        if reservation.order_id in orders and reservation.id not in owned:
            yield from _stray(reservation, orders[reservation.order_id])


def refusals_that_took(order: Facts, inventory: Facts) -> Iterator[Violation]:
    """I8: what was refused holds nothing and has bought nothing."""
    refused = [row for row in order["orders"] if row[1] == "REJECTED"]
    named = {row[0] for row in refused} | {item[0] for row in refused for item in row[-1]}
    taking = [
        row
        for row in inventory["reservations"]
        if row[1] in _TAKING and (row[0] in named or row[2] in named)
    ]
    yield from orders_against_reservations({"orders": refused}, {"reservations": taking})


def items_against_reservations(order: Facts, inventory: Facts) -> Iterator[Violation]:
    """I4: a line of an order and its reservation speak of the same units, for the same buyer."""
    reservations = {row[0]: Reservation._make(row) for row in inventory["reservations"]}
    for one in map(Order._make, order["orders"]):
        for reservation_id, ticket_id, quantity in one.items:
            found = reservations.get(reservation_id)
            if found is None:
                continue
            ours = (ticket_id, quantity, one.user_id, one.id)
            theirs = (found.ticket_id, found.quantity, found.buyer_id, found.order_id)
            if ours != theirs:
                text = f"reservation {found.id} says {theirs}, order {one.id} says {ours}"
                yield Violation("item_differs", "reservation", found.id, text)


def forgotten_holds(order: Facts, inventory: Facts) -> Iterator[Violation]:
    """I4: a hold or a sale that names an order has it, and no hold outlives its expiry."""
    orders = {row[0] for row in order["orders"]}
    for one in map(Reservation._make, inventory["reservations"]):
        if one.status not in _TAKING:
            continue
        if one.order_id and one.order_id not in orders and one.age_seconds > LATE_SECONDS_MAX:
            finding = "torn_purchase" if one.status == "RESERVED" else "sale_without_order"
            text = f"is {one.status} for order {one.order_id}, which is missing"
            yield _reservation(finding, one.id, text, one.order_id)
        overdue = one.overdue_seconds
        if one.status == "RESERVED" and overdue is not None and overdue > LATE_SECONDS_MAX:
            text = f"expired {overdue:.0f} s ago and is RESERVED"
            yield _reservation("hold_overdue", one.id, text, one.order_id)


def unsent_events(facts: Mapping[str, Facts]) -> Iterator[Violation]:
    """I7: at rest no outbox holds an event that was not sent."""
    for name, told in facts.items():
        for event_id in told["unsent"]:
            yield Violation("event_unsent", "event", event_id, f"{name}: event {event_id} not sent")
        # More than a service names.
        for _ in range(told["unsent_count"] - len(told["unsent"])):
            yield Violation("event_unsent", "event", "", f"{name}: one more event not sent")


def event_gaps(facts: Mapping[str, Facts]) -> list[Gap]:
    """I7: return where an emitter's events and those that a consumer dealt with differ."""
    gaps = []
    for consumer, told in facts.items():
        for emitter, event_types in told["subscriptions"].items():
            for event_type in event_types if emitter in facts else ():
                sent = facts[emitter]["emitted"].get(event_type, {})
                seen = told["dealt_with"].get(event_type, {})
                buckets = sorted(int(n) for n in {*sent, *seen} if sent.get(n) != seen.get(n))
                if buckets:
                    gaps.append(Gap(emitter, consumer, event_type, buckets))
    return gaps


def events_in(gap: Gap, emitted: Iterable[str], dealt_with: Iterable[str]) -> Iterator[Violation]:
    """I7: name the events in a gap, from the ids of both sides."""
    sent, seen = set(emitted), set(dealt_with)
    for event_id in sorted(sent - seen):
        text = f"{gap.event_type} {event_id} of {gap.emitter} was not applied by {gap.consumer}"
        details = {"service": gap.emitter}
        yield Violation("event_not_applied", "event", event_id, text, details)
    for event_id in sorted(seen - sent):
        text = f"{gap.consumer} applied {gap.event_type} {event_id}, which {gap.emitter} has not"
        yield Violation("event_from_nowhere", "event", event_id, f"{text} emitted")


def stock_projection(catalog: Facts, inventory: Facts) -> Iterator[Violation]:
    """I7: at rest the catalog has applied the last version of every stock."""
    wanted = {
        ticket_id: {"available": stock["available"], "version": stock["version"]}
        for ticket_id, stock in inventory["stocks"].items()
    }
    return _projection("stock", ("inventory", wanted), ("catalog", catalog["availability"]))


def offer_projection(catalog: Facts, order: Facts) -> Iterator[Violation]:
    """I7: at rest the order service has applied the last version of every ticket."""
    return _projection("offer", ("catalog", catalog["offers"]), ("order", order["offers"]))


def label_projection(catalog: Facts, inventory: Facts) -> Iterator[Violation]:
    """I7: at rest inventory has applied the last name of every ticket."""
    wanted = {
        ticket_id: {
            "label": f"{offer['event_title']} · {offer['name']}"[:512],
            "version": offer["version"],
        }
        for ticket_id, offer in catalog["offers"].items()
    }
    return _projection("label", ("catalog", wanted), ("inventory", inventory["labels"]))


def money(order: Facts) -> Iterator[Violation]:
    """I9: what was taken is what confirmed orders cost and what was given back, per currency."""
    taken: dict[str, int] = defaultdict(int)
    for one in map(Payment._make, order["payments"]):
        if one.status == "CAPTURED":
            taken[one.currency] += one.amount
        elif one.status == "REFUND_DUE":
            text = f"payment {one.id} of order {one.order_id}: {one.amount} is not refunded yet"
            yield Violation("refund_due", "payment", one.id, text)
    due: dict[str, int] = defaultdict(int)
    for bought in map(Order._make, order["orders"]):
        if bought.status == "CONFIRMED":
            due[bought.currency] += bought.total
    for currency in sorted({*taken, *due}):
        if taken[currency] != due[currency]:
            text = (
                f"{taken[currency]} {currency} are captured and not given back, "
                f"confirmed orders come to {due[currency]}"
            )
            yield Violation("money_differs", "currency", currency, text)


def payments_against_orders(order: Facts) -> Iterator[Violation]:
    """I9: money belongs to an order that exists, and is over the currency of it."""
    currencies = {row[0]: row[5] for row in order["orders"]}
    for one in map(Payment._make, order["payments"]):
        if currencies.get(one.order_id) != one.currency:
            currency = currencies.get(one.order_id)
            text = f"payment {one.id} is in {one.currency}, order {one.order_id} in {currency}"
            yield Violation("payment_wrong", "payment", one.id, text)


def _misfit(finding: str, order: Order, reservation_id: str, state: str | None) -> Violation:
    text = f"order {order.id} is {order.status}, its reservation {reservation_id} is {state}"
    if finding in _OF_THE_ORDER:
        return Violation(finding, "order", order.id, text)
    return Violation(finding, "reservation", reservation_id, text, {"order_id": order.id})


def _stray(reservation: Reservation, order: Order) -> Iterator[Violation]:
    """Find units that were taken for an order which does not list them."""
    if reservation.status in _TAKING:
        held = reservation.status == "RESERVED"
        text = f"is {reservation.status} for order {order.id}, which has it not"
        finding = "hold_of_no_item" if held else "sale_of_no_item"
        yield _reservation(finding, reservation.id, text, order.id)


def _reservation(finding: str, pk: str, text: str, order_id: str | None) -> Violation:
    told = f"reservation {pk} {text}"
    return Violation(finding, "reservation", pk, told, {"order_id": order_id})


def _projection(
    what: str, source: tuple[str, Mapping[str, Any]], copy: tuple[str, Mapping[str, Any]]
) -> Iterator[Violation]:
    """Find tickets of which one service shows another state than their owner has."""
    (owner, truth), (follower, shown) = source, copy
    for ticket_id, wanted in truth.items():
        known = shown.get(ticket_id)
        if known == wanted:
            continue
        told = "has not heard of it" if known is None else "shows " + _differences(known, wanted)
        text = f"ticket {ticket_id}: {follower} {told}, {owner} has version {wanted['version']}"
        above = known["version"] if known else 0
        yield Violation(f"{what}_behind", "ticket", str(ticket_id), text, {"above": above})
    for ticket_id in shown:
        if ticket_id not in truth:
            text = f"ticket {ticket_id}: {follower} shows its {what}, {owner} has none"
            yield Violation(f"{what}_from_nowhere", "ticket", str(ticket_id), text)


def _differences(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} {known.get(name)} instead of {value}"
        for name, value in wanted.items()
        if known.get(name) != value
    )
