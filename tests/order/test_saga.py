"""The order's table, cell by cell: each step from each state, and what each state asks for."""

from __future__ import annotations

from datetime import timedelta

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
    OrderStatus,
    PaymentStatus,
)

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


@pytest.mark.parametrize("status", OrderStatus.values)
@pytest.mark.parametrize("step", MOVES)
def test_a_step_moves_an_order_from_where_it_starts_and_from_nowhere_else(step, status):
    order = make_order(status)
    row = ORDER_STEPS[step]
    allowed = row.source == status

    assert saga.apply(order.pk, step) is allowed

    order.refresh_from_db()
    assert order.status == (row.target if allowed else status)
    assert order.version == (2 if allowed else 1)
    events = [(event.type, event.payload["data"]["version"]) for event in OutboxEvent.objects.all()]
    assert events == ([(row.event, 2)] if allowed else [])


@pytest.mark.parametrize("step", MOVES)
def test_a_step_is_taken_once(step):
    order = make_order(ORDER_STEPS[step].source)

    assert saga.apply(order.pk, step)
    assert not saga.apply(order.pk, step)
    assert OutboxEvent.objects.count() == 1


@pytest.mark.parametrize("status", PaymentStatus.values)
@pytest.mark.parametrize("step", sorted(PAYMENT_STEPS))
def test_a_payment_moves_from_where_its_step_starts_and_from_nowhere_else(step, status):
    payment = make_payment(make_order(OrderStatus.PAID), status)
    row = PAYMENT_STEPS[step]
    allowed = row.source == status

    assert payments.apply(payment.pk, step) is allowed

    payment.refresh_from_db()
    assert payment.status == (row.target if allowed else status)
    assert (payment.due_at is not None) is (allowed and row.target == PaymentStatus.REFUND_DUE)


def test_a_final_state_leads_nowhere():
    sources = {step.source for step in ORDER_STEPS.values()}

    final = set(OrderStatus) - sources
    assert final == {
        OrderStatus.REJECTED,
        OrderStatus.CONFIRMED,
        OrderStatus.CANCELLED,
        OrderStatus.EXPIRED,
    }


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
