"""The life of an order and of a payment, whole, on one page.

    INIT                                  INIT
    ├─ REJECTED                           └─ CREATED ─┬─ CAPTURED ── REFUND_DUE ── REFUNDED
    └─ AWAITING_PAYMENT ─┬─ PAID ─┬─ CONFIRMED        └─ DECLINED ──────┘
                         │        └─ EXPIRED
                         ├─ CANCELLED
                         └─ EXPIRED

INIT is the state before the row exists: an order is inserted with its outcome. A step is a row of
ORDER_STEPS; saga.py applies it with a conditional UPDATE that decides who wins. What then has to be
done at inventory follows from the state reached, and whoever finds it undone may do it.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import models


class OrderStatus(models.TextChoices):
    """What an order can be. REJECTED, CONFIRMED, CANCELLED and EXPIRED are final."""

    AWAITING_PAYMENT = "AWAITING_PAYMENT"
    REJECTED = "REJECTED"
    PAID = "PAID"
    CONFIRMED = "CONFIRMED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"


class PaymentStatus(models.TextChoices):
    """What a payment can be. REFUNDED is final; CAPTURED is, as long as its order stands."""

    CREATED = "CREATED"
    CAPTURED = "CAPTURED"
    DECLINED = "DECLINED"
    REFUND_DUE = "REFUND_DUE"
    REFUNDED = "REFUNDED"


INIT = "INIT"


@dataclass(frozen=True)
class OrderStep:
    """One row of the order's table: from a state to a state, and the event that says so.

    ``settles`` means that inventory is in line with the state reached as soon as it is reached.
    """

    source: str
    target: OrderStatus
    event: str
    settles: bool = False


@dataclass(frozen=True)
class PaymentStep:
    """One row of the payment's table."""

    source: PaymentStatus
    target: PaymentStatus


_AWAITING, _PAID = OrderStatus.AWAITING_PAYMENT, OrderStatus.PAID

ORDER_STEPS = {
    # by the buyer's request
    "place": OrderStep(INIT, _AWAITING, "order.placed"),
    "reject": OrderStep(INIT, OrderStatus.REJECTED, "order.rejected"),
    "cancel": OrderStep(_AWAITING, OrderStatus.CANCELLED, "order.cancelled"),
    # by a captured payment: the point of no return, from here on only forward
    "pay": OrderStep(_AWAITING, _PAID, "order.paid"),
    # by inventory: the hold ran out before the money came
    "expire": OrderStep(_AWAITING, OrderStatus.EXPIRED, "order.expired"),
    # by inventory's answer to the commit: sold, or the hold was lost and the money goes back
    "confirm": OrderStep(_PAID, OrderStatus.CONFIRMED, "order.confirmed", settles=True),
    "lose": OrderStep(_PAID, OrderStatus.EXPIRED, "order.expired"),
}

PAYMENT_STEPS = {
    "capture": PaymentStep(PaymentStatus.CREATED, PaymentStatus.CAPTURED),
    "decline": PaymentStep(PaymentStatus.CREATED, PaymentStatus.DECLINED),
    # the order it was for can no longer be had
    "owe_refund": PaymentStep(PaymentStatus.CAPTURED, PaymentStatus.REFUND_DUE),
    # the provider said no first and then took the money after all: the buyer was told no
    "owe_refund_of_declined": PaymentStep(PaymentStatus.DECLINED, PaymentStatus.REFUND_DUE),
    "refund": PaymentStep(PaymentStatus.REFUND_DUE, PaymentStatus.REFUNDED),
}
