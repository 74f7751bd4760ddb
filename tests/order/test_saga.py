"""The order's table, cell by cell: each step from each state, and what each state asks for."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from django.utils import timezone

from common.events.models import OutboxEvent
from common.ids import uuid7
from services.order import payments, saga
from services.order.models import Order, Payment
from services.order.states import (
    INIT,
    ORDER_STEPS,
    PAYMENT_STEPS,
    LatePayment,
    OrderStatus,
    PaymentStatus,
)
from tests.common.concurrency import times, together

pytestmark = pytest.mark.django_db

MOVES = sorted(name for name, step in ORDER_STEPS.items() if step.source != INIT)


def make_order(status, **changes):
    now = timezone.now()
    fields = {
        "id": uuid7(),
        "user_id": "1",
        "idempotency_key": "k",
        "fingerprint": "f",
        "status": status,
        "total": 100,
        "currency": "EUR",
        "expires_at": now + timedelta(minutes=10),
        "due_at": now,
        "created_at": now,
        "updated_at": now,
    }
    return Order.objects.create(**fields | changes)


def make_payment(order, status):
    now = timezone.now()
    return Payment.objects.create(
        id=uuid7(),
        order=order,
        provider="sandbox",
        method="sandbox_ok",
        amount=order.total,
        currency=order.currency,
        status=status,
        created_at=now,
        updated_at=now,
    )


def everything():
    """Return all that a step could change: orders, money, events."""
    return [list(model.objects.order_by("pk").values()) for model in (Order, Payment, OutboxEvent)]


@pytest.mark.parametrize("status", OrderStatus.values)
@pytest.mark.parametrize("step", MOVES)
def test_a_step_moves_an_order_from_where_it_starts_and_changes_nothing_elsewhere(step, status):
    order = make_order(status)
    make_payment(order, PaymentStatus.CAPTURED)
    before = everything()
    row = ORDER_STEPS[step]
    allowed = row.source == status

    assert saga.apply(order.pk, step) is allowed

    if not allowed:
        assert everything() == before
        return
    order.refresh_from_db()
    assert (order.status, order.version) == (row.target, 2)
    assert order.late_payment == (row.late or "")
    events = [(event.type, event.payload["data"]) for event in OutboxEvent.objects.all()]
    [(event_type, data)] = events
    assert event_type == row.event
    assert (data["status"], data["version"]) == (row.target, 2)
    assert data["late_payment"] == (row.late or "")


@pytest.mark.parametrize("late", LatePayment.values)
@pytest.mark.parametrize("step", sorted(name for name in MOVES if ORDER_STEPS[name].once))
def test_what_is_done_once_is_not_done_after_late_money_was_dealt_with(step, late):
    order = make_order(ORDER_STEPS[step].source, late_payment=late)
    before = everything()

    assert not saga.apply(order.pk, step)
    assert everything() == before


@pytest.mark.parametrize("step", MOVES)
def test_of_two_who_take_a_step_at_once_one_wins(transactional_db, step):
    order = make_order(ORDER_STEPS[step].source)

    won = together(*times(2, partial(saga.apply, order.pk, step)))

    assert sorted(won) == [False, True]
    assert OutboxEvent.objects.count() == 1
    assert Order.objects.get().version == 2


@pytest.mark.parametrize("status", PaymentStatus.values)
@pytest.mark.parametrize("step", sorted(PAYMENT_STEPS))
def test_a_payment_moves_from_where_its_step_starts_and_from_nowhere_else(step, status):
    payment = make_payment(make_order(OrderStatus.PAID), status)
    before = everything()
    row = PAYMENT_STEPS[step]
    allowed = row.source == status

    assert payments.apply(payment.pk, step) is allowed

    if not allowed:
        assert everything() == before
        return
    payment.refresh_from_db()
    assert payment.status == row.target
    assert (payment.due_at is not None) is (row.target == PaymentStatus.REFUND_DUE)


@pytest.mark.parametrize("step", sorted(PAYMENT_STEPS))
def test_of_two_who_move_a_payment_at_once_one_wins(transactional_db, step):
    payment = make_payment(make_order(OrderStatus.PAID), PAYMENT_STEPS[step].source)

    won = together(*times(2, partial(payments.apply, payment.pk, step)))

    assert sorted(won) == [False, True]


def test_only_late_money_leads_out_of_a_final_state():
    ways_out = {
        (step.source, name) for name, step in ORDER_STEPS.items() if step.target != step.source
    }
    final = set(OrderStatus) - {OrderStatus.AWAITING_PAYMENT, OrderStatus.PAID}

    assert {name for source, name in ways_out if source in final} == {"revive"}
    assert all(step.by for step in (*ORDER_STEPS.values(), *PAYMENT_STEPS.values()))


def test_a_confirmed_order_asks_nothing_more_of_inventory(settings):
    settings.INVENTORY_URL = "http://127.0.0.1:9"
    order = make_order(OrderStatus.CONFIRMED)

    assert saga.advance(order).status == OrderStatus.CONFIRMED


def test_an_order_that_is_still_to_be_paid_is_left_alone(settings):
    settings.INVENTORY_URL = "http://127.0.0.1:9"
    order = make_order(OrderStatus.AWAITING_PAYMENT)

    assert saga.advance(order).status == OrderStatus.AWAITING_PAYMENT


def test_a_settled_order_is_not_looked_at_again(settings):
    settings.INVENTORY_URL = "http://127.0.0.1:9"
    order = make_order(OrderStatus.CANCELLED, settled_at=timezone.now())

    saga.advance(order)
