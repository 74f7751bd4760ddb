"""Money that comes too late: it goes back, or the order gets its units once more; never neither."""

from __future__ import annotations

from functools import partial

import pytest

from common.repairing import repair_all
from services.order import late, notices, orphans, payments, saga, webhooks
from services.order.models import Order, Payment
from services.order.providers import sandbox
from services.order.providers.base import Notice, Outcome
from services.order.repairing import REPAIRS
from services.order.states import ORDER_STEPS, PAYMENT_STEPS, Actor
from services.order.sweeping import sweep_orders, sweep_payments
from tests.common.concurrency import times, together
from tests.order.conftest import Crash
from tests.order.driver import (
    Buyer,
    deliver,
    expired,
    hear,
    make_due,
    order_events,
    reservation_ids,
    violations,
)

pytestmark = pytest.mark.django_db


@pytest.fixture
def rereserve(settings):
    settings.LATE_PAYMENT = "rereserve"


@pytest.fixture
def ticket(on_sale):
    return on_sale(2)


@pytest.fixture
def order_id(ann, ticket):
    """Return Ann's order of all there is, 50.00 EUR."""
    return ann.place({ticket: 2}).body["id"]


def captured(payment):
    return sandbox.notice_body(payment, Outcome.CAPTURED)


def lose(inventory, order_id):
    """Let the hold run out; the order has not heard of it."""
    for reservation_id in reservation_ids(order_id):
        inventory.release(reservation_id)


def expire(inventory, order_id):
    """Let the hold run out and the order follow."""
    events = [expired(order_id, number) for number in range(len(reservation_ids(order_id)))]
    lose(inventory, order_id)
    for event in events:
        hear("inventory", "reservation.expired", event)


def sweep():
    make_due()
    sweep_payments()
    sweep_orders()


def by_request(ann, order_id, meanwhile, monkeypatch):
    charge = sandbox.SandboxProvider.charge

    def charge_after(self, payment):
        meanwhile()
        return charge(self, payment)

    monkeypatch.setattr(sandbox.SandboxProvider, "charge", charge_after)
    assert ann.pay(order_id, "sandbox_ok").status == 200


def by_webhook(ann, order_id, meanwhile, monkeypatch):
    ann.pay(order_id, "sandbox_later")
    meanwhile()
    assert deliver(captured(Payment.objects.get())).status_code == 200


def by_sweeper(ann, order_id, meanwhile, monkeypatch):
    ann.pay(order_id, "sandbox_later")
    notice = Notice("n", Payment.objects.get().pk, Outcome.CAPTURED, 5000, "EUR", "ref")
    notices.keep("sandbox", notice)
    meanwhile()
    assert webhooks.book_kept() == 1


WAYS = {Actor.REQUEST: by_request, Actor.WEBHOOK: by_webhook, Actor.SWEEPER: by_sweeper}
# what happened to the order, who bought meanwhile, the setting → steps, payment, what it says
CASES = {
    ("nothing", False, "refund"): (["pay", "confirm"], "CAPTURED", ""),
    ("lose", False, "refund"): (["pay", "lose"], "REFUNDED", "refunded"),
    ("lose", False, "rereserve"): (["pay", "renew", "confirm"], "CAPTURED", "rereserved"),
    ("lose", True, "rereserve"): (["pay", "lose"], "REFUNDED", "refunded"),
    ("expire", False, "refund"): (["expire", "refund_expired"], "REFUNDED", "refunded"),
    ("expire", False, "rereserve"): (["expire", "revive", "confirm"], "CAPTURED", "rereserved"),
    ("expire", True, "rereserve"): (["expire", "refund_expired"], "REFUNDED", "refunded"),
    ("cancel", False, "refund"): (["cancel", "refund_cancelled"], "REFUNDED", "refunded"),
    ("cancel", False, "rereserve"): (["cancel", "refund_cancelled"], "REFUNDED", "refunded"),
}


@pytest.mark.parametrize("actor", WAYS, ids=lambda actor: actor.name)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_money_gets_the_units_or_goes_back_whoever_brings_it_and_whenever(
    ann, bob, ticket, order_id, inventory, settings, monkeypatch, case, actor
):
    happening, sold_out, settings.LATE_PAYMENT = case
    steps, payment_status, says = CASES[case]

    def meanwhile():
        if happening == "cancel":
            assert ann.cancel(order_id).status == 200
        elif happening != "nothing":
            {"lose": lose, "expire": expire}[happening](inventory, order_id)
        if sold_out:
            assert bob.place({ticket: 1}).status == 201

    WAYS[actor](ann, order_id, meanwhile, monkeypatch)

    last = ORDER_STEPS[steps[-1]]
    order, payment = Order.objects.get(pk=order_id), Payment.objects.get()
    assert (order.status, payment.status) == (last.target, payment_status)
    assert order.late_payment == ann.order(order_id).body["late_payment"] == says
    own = [event for event in order_events() if event != "order.placed"]
    assert own == [ORDER_STEPS[step].event for step in steps]
    assert all(actor in ORDER_STEPS[step].by for step in steps if step not in ("expire", "cancel"))
    kept = (0, 0, 2) if payment_status == "CAPTURED" else (1, 1, 0) if sold_out else (2, 0, 0)
    assert inventory.stock(ticket) == kept
    sweep()
    assert (inventory.stock(ticket), violations()) == (kept, [])


def test_an_order_that_is_over_tells_that_money_is_owed_not_that_it_is_back(ann, order_id):
    ann.pay(order_id, "sandbox_later")
    ann.cancel(order_id)

    deliver(captured(Payment.objects.get()))

    assert order_events() == ["order.placed", "order.cancelled", "order.refund_due"]


@pytest.mark.parametrize("repair", ["give_money_back", "expire_order", "refund_payment"])
def test_an_operator_may_take_the_steps_that_repairs_take(
    ann, order_id, inventory, monkeypatch, repair
):
    taken = []
    for module, table in ((saga, ORDER_STEPS), (payments, PAYMENT_STEPS)):
        apply = module.apply

        def noted(pk, step, *, apply=apply, table=table, **more):
            done = apply(pk, step, **more)
            taken.extend([table[step]] if done else [])
            return done

        monkeypatch.setattr(module, "apply", noted)
    row_id = order_id
    if repair == "expire_order":
        lose(inventory, order_id)
    else:
        row_id = ann.pay(order_id).body["payment"]["id"]
        status = "CAPTURED" if repair == "give_money_back" else "REFUND_DUE"
        Payment.objects.update(status=status)
        Order.objects.update(status="CANCELLED")
        row_id = order_id if repair == "give_money_back" else row_id
        taken.clear()

    [done] = repair_all([{"repair": repair, "id": row_id, "why": "a test"}], REPAIRS)

    assert done["ok"], done
    assert taken
    assert all(Actor.OPERATOR in step.by for step in taken)
    assert Actor.OPERATOR in PAYMENT_STEPS["owe_refund"].by


def test_an_order_gets_its_units_again_once_and_is_refunded_the_next_time(
    ann, order_id, inventory, rereserve, ticket, crash_at
):
    ann.pay(order_id, "sandbox_later")
    expire(inventory, order_id)
    crash_at(saga, "advance_if_possible")
    with pytest.raises(Crash):
        webhooks_receive(Payment.objects.get())
    assert Order.objects.get().status == "PAID"
    lose(inventory, order_id)

    sweep()

    assert (Order.objects.get().status, Payment.objects.get().status) == ("EXPIRED", "REFUNDED")
    assert ann.order(order_id).body["late_payment"] == "refunded"
    assert inventory.stock(ticket) == (2, 0, 0)
    assert violations() == []


def test_only_the_hold_that_was_lost_is_taken_again(ann, on_sale, inventory, rereserve):
    kept, lost = on_sale(5), on_sale(5)
    order_id = ann.place({kept: 2, lost: 1}).body["id"]
    first = reservation_ids(order_id)
    inventory.release(first[1])

    paid = ann.pay(order_id)

    assert paid.body["order"]["status"] == "CONFIRMED"
    assert paid.body["order"]["late_payment"] == "rereserved"
    assert reservation_ids(order_id)[0] == first[0]
    assert reservation_ids(order_id)[1] != first[1]
    assert (inventory.stock(kept), inventory.stock(lost)) == ((3, 0, 2), (4, 0, 1))
    assert violations() == []


def test_what_an_expired_order_still_holds_goes_back_before_it_is_held_again(
    ann, on_sale, inventory, rereserve
):
    first, second = on_sale(2, per_user_limit=2), on_sale(5)
    order_id = ann.place({first: 2, second: 1}).body["id"]
    ann.pay(order_id, "sandbox_later")
    inventory.release(reservation_ids(order_id)[1])
    hear("inventory", "reservation.expired", expired(order_id, 1))
    assert inventory.stock(first) == (0, 2, 0), "the sweeper has not been there"

    assert deliver(captured(Payment.objects.get())).status_code == 200

    assert Order.objects.get().status == "CONFIRMED"
    assert (inventory.stock(first), inventory.stock(second)) == ((0, 0, 2), (4, 0, 1))
    assert violations() == []


def test_all_of_an_order_is_held_again_or_nothing(ann, bob, on_sale, inventory, rereserve):
    plenty, scarce = on_sale(5), on_sale(1)
    order_id = ann.place({plenty: 2, scarce: 1}).body["id"]
    ann.pay(order_id, "sandbox_later")
    expire(inventory, order_id)
    bob.place({scarce: 1})

    deliver(captured(Payment.objects.get()))

    assert (Order.objects.get(pk=order_id).status, Payment.objects.get().status) == (
        "EXPIRED",
        "REFUNDED",
    )
    assert inventory.stock(plenty) == (5, 0, 0)
    assert violations() == []


def test_a_person_does_not_get_more_than_their_limit_by_paying_late(
    ann, on_sale, inventory, rereserve
):
    ticket = on_sale(5, per_user_limit=2)
    order_id = ann.place({ticket: 2}).body["id"]
    ann.pay(order_id, "sandbox_later")
    expire(inventory, order_id)
    assert ann.place({ticket: 2}, key="another").status == 201

    deliver(captured(Payment.objects.get()))

    assert Payment.objects.get().status == "REFUNDED"
    assert inventory.stock(ticket) == (3, 2, 0)


def test_fifty_deliveries_of_late_money_get_the_units_once(
    transactional_db, ann, ticket, order_id, inventory, rereserve
):
    ann.pay(order_id, "sandbox_later")
    expire(inventory, order_id)
    body = captured(Payment.objects.get())
    signature = sandbox.sign(body)

    answers = together(*times(50, partial(deliver, body, signature)))
    sweep()

    assert {answer.status_code for answer in answers} <= {200, 503}
    assert order_events() == ["order.placed", "order.expired", "order.paid", "order.confirmed"]
    assert inventory.stock(ticket) == (0, 0, 2)
    assert violations() == []


def test_two_late_payments_at_once_keep_the_money_of_one(
    transactional_db, ann, ticket, order_id, inventory, rereserve
):
    for key in ("one", "two"):
        ann.pay(order_id, "sandbox_later", key)
    expire(inventory, order_id)

    together(*(partial(deliver, captured(payment)) for payment in Payment.objects.all()))
    sweep()

    # One may take back what the other has held: then both go back.
    statuses = sorted(Payment.objects.values_list("status", flat=True))
    status = Order.objects.get().status
    assert (statuses, status) in [
        (["CAPTURED", "REFUNDED"], "CONFIRMED"),
        (["REFUNDED", "REFUNDED"], "EXPIRED"),
    ]
    assert inventory.holds() == []
    assert violations() == []


def webhooks_receive(payment):
    body = captured(payment)
    webhooks.receive(
        provider_name="sandbox", headers={"Sandbox-Signature": sandbox.sign(body)}, body=body
    )


POINTS = {
    "held, not booked": (late, "hold_again", True),
    "not booked": (late, "take_over", False),
    "booked, not committed": (saga, "advance_if_possible", False),
}


@pytest.mark.parametrize("point", POINTS)
def test_a_crash_between_hold_and_sale_is_finished_by_the_same_webhook_or_the_sweeper(
    transactional_db, ann, ticket, order_id, inventory, rereserve, crash_at, point
):
    ann.pay(order_id, "sandbox_later")
    expire(inventory, order_id)
    module, name, after = POINTS[point]
    crash_at(module, name, after=after)
    with pytest.raises(Crash):
        webhooks_receive(Payment.objects.get())

    assert deliver(captured(Payment.objects.get())).status_code == 200
    sweep()

    assert (Order.objects.get().status, Payment.objects.get().status) == ("CONFIRMED", "CAPTURED")
    assert inventory.stock(ticket) == (0, 0, 2)
    assert violations() == []


def test_a_crash_after_which_nobody_comes_again_leaves_no_hold_and_no_money(
    transactional_db, ann, ticket, order_id, inventory, rereserve, crash_at, suspect_at_once
):
    ann.pay(order_id, "sandbox_later")
    expire(inventory, order_id)
    crash_at(late, "hold_again", after=True)
    with pytest.raises(Crash):
        webhooks_receive(Payment.objects.get())
    assert inventory.stock(ticket) == (0, 2, 0)

    orphans.OrphanSearch().step()
    assert inventory.stock(ticket) == (2, 0, 0)
    assert deliver(captured(Payment.objects.get())).status_code == 200

    assert (Order.objects.get().status, Payment.objects.get().status) == ("EXPIRED", "REFUNDED")
    assert inventory.stock(ticket) == (2, 0, 0)
    assert violations() == []


@pytest.mark.parametrize("orphans_first", [False, True])
def test_a_crash_while_a_paid_order_is_renewed_is_finished_by_the_sweeper(
    transactional_db,
    ann,
    ticket,
    order_id,
    inventory,
    rereserve,
    crash_at,
    suspect_at_once,
    orphans_first,
):
    lose(inventory, order_id)
    crash_at(late, "hold_again", after=True)
    with pytest.raises(Crash):
        ann.pay(order_id)
    assert Order.objects.get().status == "PAID"

    if orphans_first:
        # It finds a hold that is no line of its order, and then the commit finds it gone.
        orphans.OrphanSearch().step()
    sweep()

    outcome = (Order.objects.get().status, Payment.objects.get().status)
    assert outcome == (("EXPIRED", "REFUNDED") if orphans_first else ("CONFIRMED", "CAPTURED"))
    assert inventory.stock(ticket) == ((2, 0, 0) if orphans_first else (0, 0, 2))
    assert violations() == []


@pytest.mark.parametrize("fault", ["lose", "down", "refuse"])
def test_late_money_waits_for_an_inventory_that_is_away(
    transactional_db, ann, ticket, order_id, inventory, rereserve, road, fault
):
    ann.pay(order_id, "sandbox_later")
    expire(inventory, order_id)
    payment = Payment.objects.get()
    road.plan(fault)

    away = deliver(captured(payment))
    waiting = Payment.objects.get().status
    again = deliver(captured(payment))

    assert (away.status_code, away.json()["code"]) == (503, "inventory_unavailable")
    assert waiting == "CREATED", "the provider tells it again"
    assert again.status_code == 200
    assert (Order.objects.get().status, inventory.stock(ticket)) == ("CONFIRMED", (0, 0, 2))
    assert violations() == []


@pytest.mark.parametrize("fault", ["lose", "down"])
def test_a_paid_order_waits_for_an_inventory_that_is_away(
    transactional_db, ann, ticket, order_id, inventory, rereserve, road, fault
):
    lose(inventory, order_id)
    road.plan("pass", fault)

    paid = ann.pay(order_id)
    sweep()

    assert paid.body["order"]["status"] == "PAID"
    assert (Order.objects.get().status, inventory.stock(ticket)) == ("CONFIRMED", (0, 0, 2))
    assert violations() == []


def test_the_sweeper_and_the_request_that_renew_at_once_renew_once(
    transactional_db, ann, ticket, order_id, inventory, rereserve, crash_at
):
    lose(inventory, order_id)
    crash_at(saga, "advance_if_possible")
    with pytest.raises(Crash):
        ann.pay(order_id)
    order = Order.objects.get()

    together(*[partial(saga.advance, order)] * 4)

    assert Order.objects.get().status == "CONFIRMED"
    assert order_events() == ["order.placed", "order.paid", "order.paid", "order.confirmed"]
    assert inventory.stock(ticket) == (0, 0, 2)
    assert violations() == []


def test_buyers_of_the_units_that_come_back_are_not_sold_one_too_many(
    transactional_db, ann, ticket, order_id, inventory, rereserve
):
    ann.pay(order_id, "sandbox_later")
    expire(inventory, order_id)
    others = [Buyer() for _ in range(6)]

    together(
        partial(deliver, captured(Payment.objects.get())),
        *(partial(other.place, {ticket: 1}) for other in others),
    )
    sweep()

    available, reserved, sold = inventory.stock(ticket)
    assert (available + reserved + sold, sold) in {(2, 0), (2, 2)}
    confirmed = Order.objects.get(pk=order_id).status == "CONFIRMED"
    assert confirmed is (sold == 2)
    assert Payment.objects.get().status == ("CAPTURED" if confirmed else "REFUNDED")
    assert violations() == []
