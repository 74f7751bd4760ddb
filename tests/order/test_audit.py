"""The audit finds what is wrong with orders and payments, and tells the facts the others need."""

from __future__ import annotations

import json
from datetime import timedelta
from io import StringIO
from uuid import UUID, uuid4

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db.models import F
from django.utils import timezone

from common.events.inbox import park_event
from common.events.models import OutboxEvent
from common.idempotency.models import IdempotencyRecord
from common.ids import derived_uuid, uuid7
from services.order.models import Order, OrderItem, Payment, TicketOffer
from services.order.offers import offer_document
from services.order.states import OrderStatus
from tests.order.driver import hear, offer, reservation_ids, violations

pytestmark = pytest.mark.django_db
LONG_AGO = timedelta(minutes=1)


@pytest.fixture
def confirmed(ann, on_sale):
    order_id = ann.place({on_sale(5): 2}).body["id"]
    ann.pay(order_id)
    return order_id


def report():
    out = StringIO()
    call_command("audit", "--json", stdout=out)
    return json.loads(out.getvalue())


def found():
    """Return (check, finding, subject, id) of every violation."""
    return {
        (check["id"], one["finding"], one["subject"], one["id"])
        for check in report()["checks"]
        for one in check["violations"]
    }


def test_the_report_joins_orders_with_their_holds_and_payments(ann, on_sale, confirmed):
    ticket = on_sale(5)
    waiting = ann.place({ticket: 1}, key="waiting").body["id"]

    told = report()

    assert told["service"] == "order"
    assert all(check["ok"] for check in told["checks"])
    orders = {row[0]: row for row in told["facts"]["orders"]}
    for order_id, status, total in (
        (confirmed, "CONFIRMED", 5000),
        (waiting, "AWAITING_PAYMENT", 2500),
    ):
        _, *row, items = orders[order_id]
        assert (row[0], row[1], row[3:]) == (status, str(ann.user_id), [total, "EUR"])
        assert 0 <= row[2] < 60
        assert [item[0] for item in items] == reservation_ids(order_id)
    assert orders[waiting][-1][0][1:] == [ticket, 1]
    [payment] = told["facts"]["payments"]
    assert payment[1:] == [confirmed, "CAPTURED", 5000, "EUR"]
    assert told["facts"]["unsent_count"] == len(told["facts"]["unsent"]) == 4


def test_an_offer_is_told_as_the_catalog_said_it(on_sale):
    said = offer(7, version=3, sale_ends_at="2031-01-01T00:00:00.000001Z")
    hear("catalog", "ticket.changed", said)

    told = report()["facts"]["offers"]["7"]

    assert told.keys() == said.keys()
    assert told["sale_ends_at"] == "2031-01-01T00:00:00.000001Z"
    assert told["event_starts_at"] == said["event_starts_at"].replace("+00:00", "Z")
    plain = {name: value for name, value in said.items() if not name.endswith("_at")}
    assert {name: told[name] for name in plain} == plain


def change(order_id, **changes):
    Order.objects.filter(pk=order_id).update(**changes)


def tell(order_id, **changes):
    """Change what the last event of the order has told."""
    event = OutboxEvent.objects.filter(aggregateid=order_id).order_by("seq").last()
    event.payload["data"].update(changes)
    event.save()


def copy_of(order_id):
    """Insert a second order of the same user and key."""
    order = Order.objects.get(pk=order_id)
    order.pk = uuid4()
    order.status, order.total = OrderStatus.REJECTED, 0
    order.save(force_insert=True)
    return str(order.pk)


def second_payment():
    payment = Payment.objects.get()
    payment.pk = uuid4()
    payment.save(force_insert=True)


def answer(order_id, part=None, **changes):
    """Change the kept answer of the payment."""
    record = IdempotencyRecord.objects.get(operation=f"order.pay:{order_id}")
    (record.body[part] if part else record.body).update(changes)
    record.save()


def refused_although_paid(order_id):
    IdempotencyRecord.objects.update(status=409, body={"code": "order_expired", "detail": ""})
    return str(Payment.objects.get().pk)


def long_ago():
    return timezone.now() - LONG_AGO


def cancelled_though_kept(order_id):
    answered = {"id": order_id, "status": "CANCELLED"}
    IdempotencyRecord.objects.create(
        scope="s",
        user_id="u",
        operation=f"order.cancel:{order_id}",
        key="k",
        fingerprint="f",
        status=200,
        body=answered,
        locked_until=timezone.now(),
    )


def refund_due(order_id):
    change(order_id, status="EXPIRED")
    Payment.objects.update(status="REFUND_DUE", updated_at=long_ago())
    return str(Payment.objects.get().pk)


def parked(order_id):
    event_id = uuid7()
    park_event({"id": str(event_id), "type": "ticket.changed", "data": {}}, "no version")
    return str(event_id)


def lost_row(order_id):
    ghost = str(uuid4())
    OutboxEvent.objects.filter(aggregateid=order_id).update(aggregateid=ghost)
    for event in OutboxEvent.objects.filter(aggregateid=ghost):
        event.payload["data"]["order_id"] = ghost
        event.save()
    return ghost


# what is done to a confirmed order → (check, finding, subject); the id is the order's, unless the
# damage returns another one
BREAKAGES = {
    "another total": (lambda o: change(o, total=1), ("I5", "total_wrong", "order")),
    "another price": (
        lambda o: OrderItem.objects.update(unit_price=1),
        ("I5", "total_wrong", "order"),
    ),
    "no items": (
        lambda o: (OrderItem.objects.all().delete(), change(o, total=0)),
        ("I5", "items_missing", "order"),
    ),
    "another state than told": (
        lambda o: change(o, status="CANCELLED"),
        ("I5", "history_wrong", "order"),
    ),
    "a version that no event told": (
        lambda o: change(o, version=F("version") + 1),
        ("I5", "history_wrong", "order"),
    ),
    "items that were told otherwise": (
        lambda o: tell(o, items=[]),
        ("I5", "history_wrong", "order"),
    ),
    "a total that was told otherwise": (
        lambda o: tell(o, total=1),
        ("I5", "history_wrong", "order"),
    ),
    "a step that the table does not have": (
        lambda o: (tell(o, status="CANCELLED"), change(o, status="CANCELLED")),
        ("I5", "history_wrong", "order"),
    ),
    "a version left out": (
        lambda o: (tell(o, version=9), change(o, version=9)),
        ("I5", "history_wrong", "order"),
    ),
    "an order that was told of and is gone": (lost_row, ("I5", "history_wrong", "order")),
    "another ticket's hold": (
        lambda o: OrderItem.objects.update(ticket_id=1),
        ("I6", "key_wrong", "order"),
    ),
    "another buyer": (lambda o: change(o, user_id="eve"), ("I6", "key_wrong", "order")),
    "a second order of the key": (copy_of, ("I6", "key_wrong", "order")),
    "an answer about another order": (
        lambda o: answer(o, "order", id=str(uuid4())),
        ("I6", "answer_wrong", "order"),
    ),
    "an answer with another payment": (
        lambda o: answer(o, "payment", id=str(uuid4())),
        ("I6", "answer_wrong", "order"),
    ),
    "an answer with another amount": (
        lambda o: answer(o, "payment", amount=1),
        ("I6", "answer_wrong", "order"),
    ),
    "an answer that cannot have become this": (
        lambda o: answer(o, "order", status="CANCELLED"),
        ("I6", "answer_wrong", "order"),
    ),
    "a payment that cannot have become this": (
        lambda o: answer(o, "payment", status="REFUNDED"),
        ("I6", "answer_wrong", "order"),
    ),
    "an answer about a payment that is gone": (
        lambda o: Payment.objects.all().delete(),
        ("I6", "answer_wrong", "order"),
    ),
    "a cancellation that was answered": (cancelled_though_kept, ("I6", "answer_wrong", "order")),
    "a payment whose key was refused": (
        refused_although_paid,
        ("I8", "refused_payment", "payment"),
    ),
    "money of a refused order": (
        lambda o: change(o, status="REJECTED"),
        ("I8", "money_kept", "order"),
    ),
    "money of a cancelled order": (
        lambda o: change(o, status="CANCELLED"),
        ("I9", "money_kept", "order"),
    ),
    "money of an order that waits for it": (
        lambda o: change(o, status="AWAITING_PAYMENT"),
        ("I9", "paid_unbooked", "order"),
    ),
    "no money": (
        lambda o: Payment.objects.update(status="REFUNDED"),
        ("I9", "paid_wrong", "order"),
    ),
    "money in another currency": (
        lambda o: Payment.objects.update(currency="CHF"),
        ("I9", "paid_wrong", "order"),
    ),
    "money taken twice": (
        lambda o: second_payment(),
        ("I9", "paid_wrong", "order"),
    ),
    "an order that is not settled": (
        lambda o: change(o, settled_at=None, updated_at=long_ago()),
        ("I10", "order_unsettled", "order"),
    ),
    "a refund that is not made": (refund_due, ("I10", "refund_due", "payment")),
    "an event put aside": (parked, ("I7", "event_parked", "event")),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_what_is_broken_is_named(confirmed, breakage):
    assert found() == set()
    damage, expected = BREAKAGES[breakage]

    told = damage(confirmed)

    assert (*expected, told if isinstance(told, str) else confirmed) in found()
    with pytest.raises(CommandError):
        call_command("audit", stdout=StringIO())


def test_a_life_through_every_state_leaves_nothing_to_find(ann, bob, on_sale, confirmed):
    ticket = on_sale(2)
    cancelled = ann.place({ticket: 1}, key="c").body["id"]
    ann.cancel(cancelled, key="cancel")
    ann.pay(cancelled, key="too late")
    expired = bob.place({ticket: 1}, key="e").body["id"]
    bob.pay(expired, "sandbox_decline", key="declined")
    hear(
        "inventory",
        "reservation.expired",
        {"reservation_id": reservation_ids(expired)[0], "order_id": expired},
    )
    assert bob.place({ticket: 9}, key="refused").status == 409

    statuses = {str(pk): status for pk, status in Order.objects.values_list("pk", "status")}

    assert statuses[confirmed] == "CONFIRMED"
    assert (statuses[cancelled], statuses[expired]) == ("CANCELLED", "EXPIRED")
    assert sorted(statuses.values())[-1] == "REJECTED"
    assert violations() == []


def test_what_the_outbox_has_forgotten_is_not_missed(confirmed):
    OutboxEvent.objects.filter(type="order.placed").delete()
    assert violations() == []
    OutboxEvent.objects.all().delete()
    assert violations() == []


def test_an_open_key_is_no_answer_yet(ann, confirmed):
    payment = derived_uuid(str(ann.user_id), confirmed, "p")
    assert Payment.objects.get().pk == UUID(str(payment))
    IdempotencyRecord.objects.update(status=None, body=None)
    assert violations() == []


def test_the_offer_of_a_ticket_says_all_that_its_event_said(on_sale):
    ticket = on_sale(1)
    document = offer_document(TicketOffer.objects.get(pk=ticket))
    assert document.keys() == offer(ticket).keys()
