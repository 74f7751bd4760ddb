"""Money against the end of its order, for real: two threads, one winner, nothing lost and nothing
sold twice, whoever wins."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from services.order import saga
from services.order.models import Order, Payment
from services.order.providers import sandbox
from services.order.providers.base import Outcome
from services.order.sweeping import sweep_orders, sweep_payments
from tests.common.concurrency import together
from tests.order.driver import (
    Buyer,
    Inventory,
    deliver,
    expired,
    hear,
    make_due,
    make_overdue,
    violations,
)

pytestmark = pytest.mark.django_db(transaction=True)

FULL = bool(os.environ.get("FLASHSALE_TEST_FULL"))
RACES = 500 if FULL else 40
IN_TIME = ("CONFIRMED", "CAPTURED", "")
JITTER_SECONDS = 0.003
# What the loser of a race gets as a start in the next one: so they come to meet where it is tight.
LEAD_STEP_SECONDS = 0.002


@pytest.fixture
def races() -> Races:
    seed = int(os.environ.get("FLASHSALE_TEST_SEED", random.SystemRandom().randrange(10**6)))
    print(f"FLASHSALE_TEST_SEED={seed}")
    return Races(random.Random(seed))


def orders(ann: Buyer, ticket: int) -> Iterator[tuple[str, Payment]]:
    """Place order after order; yields each with a payment that is about to be captured."""
    for n in range(RACES):
        order_id = ann.place({ticket: 1}, key=f"k{n}").body["id"]
        told = ann.pay(order_id, "sandbox_later", key=f"p{n}").body["payment"]
        yield order_id, Payment.objects.get(pk=told["id"])


class Races:
    """Lets the money and its rival meet, again and again, ever closer to a tie."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._lead_of_money = 0.0

    def run(self, money: Callable[[], Any], rival: Callable[[], Any]) -> list[Any]:
        waits = (max(0.0, -self._lead_of_money), max(0.0, self._lead_of_money))

        def after(seconds: float, side: Callable[[], Any]) -> Any:
            time.sleep(seconds + self._chance.uniform(0, JITTER_SECONDS))
            return side()

        sides = zip(waits, (money, rival), strict=True)
        return together(*(partial(after, *side) for side in sides))

    def won_by(self, *, money: bool) -> None:
        self._lead_of_money += -LEAD_STEP_SECONDS if money else LEAD_STEP_SECONDS


def paid_in_time(order_id: str) -> bool:
    order = Order.objects.get(pk=order_id)
    return order.status in ("PAID", "CONFIRMED") and not order.late_payment


def settle_everything() -> None:
    for _ in range(2):
        make_due()
        # A round takes a bounded number.
        while sweep_payments() + sweep_orders():
            pass


def outcome(order_id: str, payment: Payment) -> tuple[str, str, str]:
    order = Order.objects.get(pk=order_id)
    payment.refresh_from_db()
    return str(order.status), str(payment.status), str(order.late_payment)


def capture(payment: Payment) -> Callable[[], Any]:
    return partial(deliver, sandbox.notice_body(payment, Outcome.CAPTURED))


def run_out(inventory: Inventory, event: dict[str, Any]) -> None:
    """Let a hold lapse, unless it is sold by now, and say so as inventory does."""
    if inventory.try_release(event["reservation_id"]):
        hear("inventory", "reservation.expired", event)


@pytest.mark.parametrize("by", ["the sweeper", "an event"])
@pytest.mark.parametrize("late_payment", ["refund", "rereserve"])
def test_money_against_expiry_is_decided_one_way_or_the_other(
    ann: Buyer,
    on_sale: Callable[..., int],
    inventory: Inventory,
    races: Races,
    settings: Any,
    late_payment: str,
    by: str,
) -> None:
    settings.LATE_PAYMENT = late_payment
    ticket = on_sale(RACES)
    raced = []
    for order_id, payment in orders(ann, ticket):
        make_overdue(order_id)
        if by == "an event":
            end = partial(run_out, inventory, expired(order_id))
        else:
            end = partial(saga.advance, Order.objects.get(pk=order_id))
        answer, _ = races.run(capture(payment), end)
        assert answer.status_code == 200
        races.won_by(money=paid_in_time(order_id))
        raced.append((order_id, payment))
    settle_everything()

    seen = Counter(outcome(*one) for one in raced)
    print(seen)
    too_late = {
        "refund": ("EXPIRED", "REFUNDED", "refunded"),
        "rereserve": ("CONFIRMED", "CAPTURED", "rereserved"),
    }[late_payment]
    assert set(seen) == {IN_TIME, too_late}, "each has won at least once"
    sold = RACES if late_payment == "rereserve" else seen[IN_TIME]
    assert inventory.stock(ticket) == (RACES - sold, 0, sold)
    assert violations() == []


def test_money_against_cancelling_is_decided_one_way_or_the_other(
    ann: Buyer, on_sale: Callable[..., int], inventory: Inventory, races: Races, settings: Any
) -> None:
    ticket = on_sale(RACES)
    raced = []
    for number, (order_id, payment) in enumerate(orders(ann, ticket)):
        # Neither the setting nor a key may make a difference.
        settings.LATE_PAYMENT = ("refund", "rereserve")[number % 2]
        key = f"c{number}" if number % 4 < 2 else None
        answer, told = races.run(capture(payment), partial(ann.cancel, order_id, key))
        money_won = paid_in_time(order_id)
        assert answer.status_code == 200
        assert told.status == (409 if money_won else 200)
        races.won_by(money=money_won)
        raced.append((order_id, payment))
    settle_everything()

    seen = Counter(outcome(*one) for one in raced)
    print(seen)
    assert set(seen) == {IN_TIME, ("CANCELLED", "REFUNDED", "refunded")}
    assert inventory.stock(ticket) == (RACES - seen[IN_TIME], 0, seen[IN_TIME])
    assert violations() == []


def test_a_buyer_who_pays_and_cancels_at_once_is_told_what_is_so(
    ann: Buyer, on_sale: Callable[..., int], inventory: Inventory, races: Races
) -> None:
    ticket = on_sale(RACES)
    seen = Counter()
    for n in range(RACES):
        order_id = ann.place({ticket: 1}, key=f"k{n}").body["id"]
        paid, cancelled = races.run(
            partial(ann.pay, order_id, key=f"p{n}"), partial(ann.cancel, order_id)
        )
        status = ann.order(order_id).body["status"]
        told = (paid.code if paid.status == 409 else paid.body["order"]["status"], cancelled.status)
        assert told in {
            "CONFIRMED": [("CONFIRMED", 409)],
            "CANCELLED": [("CANCELLED", 200), ("order_not_payable", 200)],
        }.get(status, [])
        races.won_by(money=status == "CONFIRMED")
        seen[status] += 1
    settle_everything()

    print(seen)
    assert set(seen) == {"CONFIRMED", "CANCELLED"}
    assert inventory.stock(ticket) == (RACES - seen["CONFIRMED"], 0, seen["CONFIRMED"])
    assert violations() == []


def test_many_open_pages_of_one_order_that_are_paid_at_once_keep_the_money_of_one(
    ann: Buyer, on_sale: Callable[..., int], inventory: Inventory
) -> None:
    ticket = on_sale(10)
    for n in range(RACES // 8):
        order_id = ann.place({ticket: 1}, key=f"k{n}").body["id"]
        for page in range(6):
            ann.pay(order_id, "sandbox_later", key=f"p{n}-{page}")
        payments = list(Payment.objects.filter(order_id=order_id))

        answers = together(*map(capture, payments), partial(ann.cancel, order_id))

        assert {answer.status_code for answer in answers[:-1]} == {200}
        statuses = Payment.objects.filter(order_id=order_id).values_list("status", flat=True)
        bought = Order.objects.get(pk=order_id).status == "CONFIRMED"
        assert sorted(statuses) == ["CAPTURED"] * bought + ["REFUNDED"] * (6 - bought)
    settle_everything()
    assert violations() == []
