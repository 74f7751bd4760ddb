"""Placing orders: check the offers, hold the units, insert the orders with their outcome.

Purchases that wait at the same moment are placed together (common.group_commit), in lanes by
ticket: one call to inventory and one transaction for all of them.

Everything has an id derived from (user, key), so nothing has to be written before inventory is
asked: whoever repeats the request meets the same holds and the same order. A crash between the two
leaves a hold that names an order which does not exist; orphans.py finds it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import NamedTuple
from uuid import UUID

import structlog
from django.conf import settings
from django.db import IntegrityError
from django.utils import timezone

from common import bulk
from common.database_errors import as_problem
from common.errors import Problem, Unavailable
from common.events.outbox import NewEvent, publish_all
from common.failpoints import failpoint
from common.group_commit import GroupCommit
from common.idempotency.keys import key_reused
from common.transactions import in_transaction
from services.order import inventory_client, offers, saga, sold_out
from services.order.inventory_client import Entry, HoldRequest
from services.order.models import Order, OrderItem, TicketOffer
from services.order.purchases import Placed, Purchase
from services.order.refusals import rejection_of, sold_out_for_now
from services.order.states import ORDER_STEPS, OrderStatus

log = structlog.get_logger(__name__)

# Keeps every sum far inside a BIGINT.
TOTAL_MAX = 10**15

Offers = Mapping[int, TicketOffer]


class _Closed(NamedTuple):
    """The offers known here do not allow the purchase; the catalog may know better."""


@dataclass(frozen=True)
class _Overtaken:
    """Another process has inserted the order since; what may be held that is not in it."""

    entries: Sequence[Entry]


class _Draft(NamedTuple):
    """An order that is about to be inserted with its outcome, and inventory's answer to it."""

    order: Order
    items: Sequence[OrderItem]
    entries: Sequence[Entry]
    request_id: str


_Outcome = Placed | Problem | _Closed | _Overtaken


def place_order(purchase: Purchase) -> Placed:
    """Place the order, or return the one that an earlier request with this key has made.

    A REJECTED order is an outcome, kept under the key. What is raised is not kept, so the same key
    may succeed later: 404 ``ticket_not_found``, 409 ``sale_not_open``, ``sold_out`` by what
    another one was just told, ``limit_exceeded`` of one order, 503. Another body: 422
    ``idempotency_key_reused``.
    """
    outcome = _submit(purchase)
    if isinstance(outcome, _Closed):
        offers.require_open(purchase.quantities)
        outcome = _submit(purchase)
    if isinstance(outcome, _Closed):
        raise offers.sale_not_open(purchase.tickets[0], "The sale is opening or closing.")
    if isinstance(outcome, _Overtaken):
        return _overtaken(purchase, outcome.entries)
    if isinstance(outcome, Problem):
        raise outcome
    return outcome


def _submit(purchase: Purchase) -> _Outcome:
    [outcome] = _placing.submit(purchase.tickets, [purchase])
    if isinstance(outcome, Problem) or not isinstance(outcome, Exception):
        return outcome
    # One for each caller: an exception that several threads raise collects their tracebacks.
    raise as_problem(outcome) or outcome


def _place(purchases: Sequence[Purchase]) -> list[_Outcome]:
    """Place a batch and say for each purchase what came of it, in their order."""
    earlier = _earlier(purchases)
    firsts: dict[UUID, Purchase] = {}
    for purchase in purchases:
        if purchase.order_id not in earlier:
            firsts.setdefault(purchase.order_id, purchase)
    outcomes = _place_new(list(firsts.values())) if firsts else {}
    return [
        _replay(purchase, earlier[purchase.order_id])
        if purchase.order_id in earlier
        else _told(purchase, firsts[purchase.order_id], outcomes[purchase.order_id])
        for purchase in purchases
    ]


def _told(purchase: Purchase, first: Purchase, outcome: _Outcome) -> _Outcome:
    """Return what a purchase is told of the outcome of the first one in its batch with this key."""
    if purchase is first:
        return outcome
    if purchase.fingerprint == first.fingerprint:
        return replace(outcome, replayed=True) if isinstance(outcome, Placed) else copy(outcome)
    if isinstance(outcome, Placed):
        return key_reused()
    return Problem(
        409,
        "request_in_progress",
        "Another request with this key was still at work; try again in a second.",
        retry_after_seconds=1,
    )


def _earlier(purchases: Iterable[Purchase]) -> dict[UUID, Order]:
    """Return the orders that earlier requests have made, by id."""
    ids = {purchase.order_id for purchase in purchases}
    found = Order.objects.prefetch_related("items").filter(pk__in=ids)
    return {order.pk: order for order in found}


def _replay(purchase: Purchase, order: Order) -> Placed | Problem:
    if not order.user_id:
        # A stand-in for this very purchase, which was interrupted: only its buyer can come here,
        # as the id is derived from the user. It now learns whose it is.
        unowned = Order.objects.filter(pk=order.pk, user_id="")
        owner = {"user_id": purchase.user_id, "idempotency_key": purchase.key}
        in_transaction(lambda: unowned.update(**owner, fingerprint=purchase.fingerprint))
        order.refresh_from_db()
    if order.fingerprint != purchase.fingerprint:
        return key_reused()
    return Placed(order, list(order.items.all()), replayed=True)


def _place_new(purchases: Sequence[Purchase]) -> dict[UUID, _Outcome]:
    known = TicketOffer.objects.in_bulk({one for item in purchases for one in item.tickets})
    outcomes: dict[UUID, _Outcome] = {}
    wanted = []
    for purchase in purchases:
        refusal = _refused_by_offer(purchase, known)
        if refusal is None:
            wanted.append(purchase)
        else:
            outcomes[purchase.order_id] = refusal
    drafts = []
    for purchase, entries in _reserve(wanted, known):
        try:
            if isinstance(entries, Problem):
                raise entries
            drafts.append(_draft(purchase, known, entries))
        except Problem as refusal:
            outcomes[purchase.order_id] = refusal
    return outcomes | _insert(drafts)


def _refused_by_offer(purchase: Purchase, known: Offers) -> Problem | _Closed | None:
    if not offers.all_open(purchase.quantities, known):
        return _Closed()
    try:
        offers.require_buyable(purchase.quantities, known)
    except Problem as refusal:
        return refusal
    if _total(purchase, known) > TOTAL_MAX:
        return Problem(409, "total_too_large", f"An order's total is at most {TOTAL_MAX}.")
    return None


def _total(purchase: Purchase, known: Offers) -> int:
    return sum(known[one].price * quantity for one, quantity in purchase.quantities.items())


def _reserve(
    purchases: Sequence[Purchase], known: Offers
) -> Iterable[tuple[Purchase, list[Entry] | Problem]]:
    """Ask inventory for the holds of the purchases, and yield each with the answer to it.

    Where units are known to be short, the first one asks for the others as well (sold_out.py).
    """
    waiting = [one for one in purchases if sold_out.is_doubtful(one.quantities)][1:]
    behind = {purchase.order_id for purchase in waiting}
    asking = [purchase for purchase in purchases if purchase.order_id not in behind]
    while asking:
        failpoint("order.place.before_reserve")
        try:
            answers = inventory_client.reserve([_holds(one, known) for one in asking])
        except Unavailable as error:
            sold_out.forget(one for purchase in asking for one in purchase.tickets)
            yield from ((one, Unavailable(error.code, error.text)) for one in asking + waiting)
            return
        failpoint("order.place.reserved")
        answered = list(zip(asking, answers, strict=True))
        news = sold_out.learn((one.quantities, entries) for one, entries in answered)
        yield from answered
        asking, behind_them, waiting = [], waiting, []
        for purchase in behind_them:
            short = [one for one, n in purchase.quantities.items() if n > news.get(one, n)]
            if short:
                yield purchase, sold_out_for_now(purchase, known, short[0], news[short[0]])
            else:
                asking.append(purchase)


def _holds(purchase: Purchase, known: Offers) -> list[HoldRequest]:
    return [
        HoldRequest(
            reservation_id=purchase.reservation_id(ticket_id),
            ticket_id=ticket_id,
            quantity=quantity,
            order_id=purchase.order_id,
            buyer_id=purchase.user_id,
            buyer_limit=known[ticket_id].per_user_limit,
            ttl_seconds=settings.HOLD_TTL_SECONDS,
        )
        for ticket_id, quantity in purchase.quantities.items()
    ]


def _draft(purchase: Purchase, known: Offers, entries: Sequence[Entry]) -> _Draft:
    """Return the order with what inventory's answer makes of it; raises what is not to be kept."""
    rejection = rejection_of(purchase, known, entries)
    ends = [entry.expires_at for entry in entries if entry.expires_at is not None]
    expires_at = None if rejection else min(ends)
    now = timezone.now()
    # A refused group holds nothing; an interrupted one may still hold a part.
    settled = rejection is not None and all(entry.code for entry in entries)
    order = Order(
        id=purchase.order_id,
        user_id=purchase.user_id,
        idempotency_key=purchase.key,
        fingerprint=purchase.fingerprint,
        status=ORDER_STEPS["reject" if rejection else "place"].target,
        total=_total(purchase, known),
        currency=known[purchase.tickets[0]].currency,
        expires_at=expires_at,
        rejection=rejection,
        settled_at=now if settled else None,
        due_at=saga.overdue_at(expires_at) if expires_at else now + saga.SWEEP_AFTER,
        created_at=now,
        updated_at=now,
    )
    items = [
        OrderItem(
            reservation_id=purchase.reservation_id(ticket_id),
            order=order,
            ticket_id=ticket_id,
            quantity=quantity,
            unit_price=known[ticket_id].price,
            name=str(known[ticket_id]),
        )
        for ticket_id, quantity in purchase.quantities.items()
    ]
    return _Draft(order, items, entries, purchase.request_id)


def _insert(drafts: Sequence[_Draft]) -> dict[UUID, _Outcome]:
    """Insert the orders that nobody has inserted yet, in one transaction."""
    outcomes: dict[UUID, _Outcome] = {}
    left = {draft.order.pk: draft for draft in drafts}
    while left:
        try:
            in_transaction(lambda: _write(list(left.values())))
            break
        except IntegrityError:
            taken = Order.objects.filter(pk__in=left).values_list("pk", flat=True)
            overtaken = {pk: _Overtaken(left.pop(pk).entries) for pk in taken}
            if not overtaken:
                raise
            outcomes |= overtaken
    if drafts:
        failpoint("order.place.committed")
    return outcomes | {
        pk: Placed(draft.order, draft.items, replayed=False) for pk, draft in left.items()
    }


_ORDER_COLUMNS = tuple(field.attname for field in Order._meta.concrete_fields)
_ITEM_COLUMNS = tuple(field.attname for field in OrderItem._meta.concrete_fields)
_insert_orders = bulk.inserter(Order, *_ORDER_COLUMNS)
_insert_items = bulk.inserter(OrderItem, *_ITEM_COLUMNS)


def _write(drafts: Sequence[_Draft]) -> None:
    _insert_orders([getattr(draft.order, name) for name in _ORDER_COLUMNS] for draft in drafts)
    _insert_items(
        [getattr(item, name) for name in _ITEM_COLUMNS] for draft in drafts for item in draft.items
    )
    publish_all(_event(draft) for draft in drafts)
    failpoint("order.place.before_commit")


def _event(draft: _Draft) -> NewEvent:
    step = ORDER_STEPS["reject" if draft.order.status == OrderStatus.REJECTED else "place"]
    return saga.event_of(draft.order, draft.items, step.event, draft.request_id)


def _overtaken(purchase: Purchase, entries: Sequence[Entry]) -> Placed:
    """Answer from the order that was inserted first, holding nothing that is not in it."""
    theirs = set(OrderItem.objects.filter(order_id=purchase.order_id).values_list("pk", flat=True))
    stray = [one.reservation_id for one in entries if one.status]
    stray = [one for one in stray if one not in theirs]
    if stray:
        try:
            saga.release_holds(stray)
        except Unavailable:
            log.warning("left to the sweeper", order_id=str(purchase.order_id), holds=stray)
    order = _earlier([purchase]).get(purchase.order_id)
    if order is None:
        raise Unavailable("service_unavailable", "The order could not be stored; try again.")
    outcome = _replay(purchase, order)
    if isinstance(outcome, Problem):
        raise outcome
    return outcome


# A batch of orders waits for another one at inventory, and shares its process with payments.
_placing = GroupCommit(_place, stall_seconds=1.5)
