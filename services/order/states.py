"""The life of an order and of a payment, whole, on one page.

    INIT                                  INIT
    ├─ REJECTED                           └─ CREATED ─┬─ CAPTURED ── REFUND_DUE ── REFUNDED
    └─ AWAITING_PAYMENT ─┬─ PAID ─┬─ CONFIRMED        └─ DECLINED ──────┘
                         │        └─ EXPIRED
                         ├─ CANCELLED
                         └─ EXPIRED ─ PAID, by money that came late, where settings allow it

INIT is the state before the row exists: an order is inserted with its outcome. A step is a row of
ORDER_STEPS; saga.py applies it with a conditional UPDATE that decides who wins. What then has to be
done at inventory follows from the state reached, and whoever finds it undone may do it: a step is
taken once, however many try. ``by`` documents who comes to a step; no code asks it, tests check it.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from django.db import models


class OrderStatus(models.TextChoices):
    """What an order can be. REJECTED, CONFIRMED, CANCELLED and EXPIRED are final, but for the
    step "revive"."""

    AWAITING_PAYMENT = "AWAITING_PAYMENT"
    REJECTED = "REJECTED"
    PAID = "PAID"
    CONFIRMED = "CONFIRMED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


# An order that holds nothing and costs nothing (any more).
OVER = frozenset({OrderStatus.REJECTED, OrderStatus.CANCELLED, OrderStatus.EXPIRED})


class PaymentStatus(models.TextChoices):
    """What a payment can be. REFUNDED is final; CAPTURED is, as long as its order stands."""

    CREATED = "CREATED"
    CAPTURED = "CAPTURED"
    DECLINED = "DECLINED"
    REFUND_DUE = "REFUND_DUE"
    REFUNDED = "REFUNDED"


class LatePayment(models.TextChoices):
    """What became of money that came when its order was over or its hold lost."""

    REFUNDED = "refunded"
    RERESERVED = "rereserved"


class Actor(StrEnum):
    """Who may come to take a step, or to repeat one that may have been interrupted."""

    REQUEST = "the buyer's request"
    WEBHOOK = "a provider's webhook"
    EVENT = "an event of inventory's"
    SWEEPER = "the sweeper"
    OPERATOR = "a person's repair of what an audit has found"


INIT = "INIT"
_AWAITING, _PAID = OrderStatus.AWAITING_PAYMENT, OrderStatus.PAID
_CANCELLED, _EXPIRED = OrderStatus.CANCELLED, OrderStatus.EXPIRED
_BUYER = frozenset({Actor.REQUEST})
# Whoever brings the news of money, and the sweeper that finds it was not dealt with.
_PAYING = frozenset({Actor.REQUEST, Actor.WEBHOOK, Actor.SWEEPER})
# What a repair may do as well: the next step of an order, and what gives money back.
_FINISHING = _PAYING | {Actor.OPERATOR}
_ENDING = frozenset({Actor.EVENT, Actor.SWEEPER, Actor.OPERATOR})
_REFUSING = frozenset({Actor.REQUEST, Actor.SWEEPER, Actor.OPERATOR})


@dataclass(frozen=True)
class OrderStep:
    """One row of the order's table: from a state to a state, and the event that says so.

    ``settles`` means that inventory is in line with the state reached as soon as it is reached;
    ``late`` is what the step notes about late money, and ``once`` that nothing may be noted yet;
    ``ends_paying`` that nobody is to pay on an open page any more.
    """

    source: str
    target: OrderStatus
    event: str
    by: frozenset[Actor]
    settles: bool = False
    late: LatePayment | None = None
    once: bool = False
    ends_paying: bool = False


@dataclass(frozen=True)
class PaymentStep:
    """One row of the payment's table."""

    source: PaymentStatus
    target: PaymentStatus
    by: frozenset[Actor] = _PAYING


ORDER_STEPS = {
    # by the buyer's request; the sweeper or a repair refuses in the place of one that was torn
    "place": OrderStep(INIT, _AWAITING, "order.placed", _BUYER),
    "reject": OrderStep(INIT, OrderStatus.REJECTED, "order.rejected", _REFUSING),
    "cancel": OrderStep(_AWAITING, _CANCELLED, "order.cancelled", _BUYER, ends_paying=True),
    # by a captured payment: the point of no return, from here on only forward (booking.py sees to
    # the other payments' pages, before it locks its own payment)
    "pay": OrderStep(_AWAITING, _PAID, "order.paid", _PAYING),
    # by inventory: the hold ran out before the money came; the clock says so if the word got lost
    "expire": OrderStep(_AWAITING, _EXPIRED, "order.expired", _ENDING, ends_paying=True),
    # by inventory's answer to the commit: sold, or the hold was lost and the money goes back
    "confirm": OrderStep(_PAID, OrderStatus.CONFIRMED, "order.confirmed", _FINISHING, settles=True),
    "lose": OrderStep(_PAID, _EXPIRED, "order.expired", _FINISHING, late=LatePayment.REFUNDED),
    # by late money, under LATE_PAYMENT=rereserve, when inventory could hold the units once more
    "renew": OrderStep(
        _PAID, _PAID, "order.paid", _FINISHING, late=LatePayment.RERESERVED, once=True
    ),
    "revive": OrderStep(
        _EXPIRED, _PAID, "order.paid", _PAYING, late=LatePayment.RERESERVED, once=True
    ),
    # by late money otherwise: the order stays what it is and says that the money goes back
    "refund_expired": OrderStep(
        _EXPIRED, _EXPIRED, "order.refund_due", _FINISHING, late=LatePayment.REFUNDED, once=True
    ),
    "refund_cancelled": OrderStep(
        _CANCELLED, _CANCELLED, "order.refund_due", _FINISHING, late=LatePayment.REFUNDED, once=True
    ),
}

PAYMENT_STEPS = {
    "capture": PaymentStep(PaymentStatus.CREATED, PaymentStatus.CAPTURED),
    "decline": PaymentStep(PaymentStatus.CREATED, PaymentStatus.DECLINED),
    # the order it was for can no longer be had
    "owe_refund": PaymentStep(PaymentStatus.CAPTURED, PaymentStatus.REFUND_DUE, _FINISHING),
    # the provider said no first and then took the money after all: the buyer was told no
    "owe_refund_of_declined": PaymentStep(PaymentStatus.DECLINED, PaymentStatus.REFUND_DUE),
    "refund": PaymentStep(PaymentStatus.REFUND_DUE, PaymentStatus.REFUNDED, _FINISHING),
}
