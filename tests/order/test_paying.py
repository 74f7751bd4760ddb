"""Paying: taken once, booked once, given back when the order is not to be had."""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import pytest
from django.utils import timezone

from common.times import iso
from services.order import inventory_client, saga
from services.order.models import Order, Payment
from services.order.paying import _require_payable
from services.order.providers import sandbox
from services.order.providers.base import Outcome
from tests.common.concurrency import times, together
from tests.order.conftest import NOWHERE
from tests.order.driver import deliver, make_overdue, order_events, violations

pytestmark = pytest.mark.django_db


def test_a_paid_order_is_confirmed_and_its_units_are_sold(ann, order_id, inventory):
    answer = ann.pay(order_id)

    assert answer.status == 200
    assert answer.body["order"]["status"] == "CONFIRMED"
    assert answer.body["payment"]["status"] == "CAPTURED"
    assert (answer.body["payment"]["amount"], answer.body["payment"]["currency"]) == (5000, "EUR")
    assert answer.body["payment"]["method"] == "sandbox_ok"
    assert inventory.statuses(order_id) == ["COMMITTED"]
    assert order_events() == ["order.placed", "order.paid", "order.confirmed"]
    assert Order.objects.get().settled_at is not None
    assert violations() == []


def test_a_payment_is_replayed_not_repeated(ann, order_id):
    first = ann.pay(order_id)

    again = ann.pay(order_id)

    assert (again.status, again.body) == (200, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert Payment.objects.count() == 1


def test_the_key_of_a_payment_with_another_method_is_refused(ann, order_id):
    ann.pay(order_id, "sandbox_decline")

    again = ann.pay(order_id, "sandbox_ok")

    assert (again.status, again.code) == (422, "idempotency_key_reused")
    assert Payment.objects.get().status == "DECLINED"


def test_a_declined_payment_leaves_the_order_to_be_paid_in_another_way(ann, order_id):
    declined = ann.pay(order_id, "sandbox_decline", key="first")
    paid = ann.pay(order_id, "sandbox_ok", key="second")

    assert (declined.status, declined.body["payment"]["status"]) == (200, "DECLINED")
    assert declined.body["order"]["status"] == "AWAITING_PAYMENT"
    assert paid.body["order"]["status"] == "CONFIRMED"
    assert [p["status"] for p in paid.body["order"]["payments"]] == ["DECLINED", "CAPTURED"]
    assert violations() == []


def test_an_order_is_paid_once_and_a_second_payment_is_refused_for_good(ann, order_id):
    ann.pay(order_id, key="one")

    two = ann.pay(order_id, key="two")
    again = ann.pay(order_id, key="two")

    assert (two.status, two.code) == (409, "order_already_paid")
    assert (again.status, again.body) == (two.status, two.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert Payment.objects.count() == 1


def test_an_order_that_is_over_cannot_be_paid(ann, on_sale, order_id):
    ann.cancel(order_id)
    cancelled = ann.pay(order_id)
    ann.place({on_sale(1): 2}, key="refused")
    refused = ann.pay(str(Order.objects.get(status="REJECTED").pk))
    late_id = ann.place({on_sale(1): 1}, key="late").body["id"]
    make_overdue(late_id, by_seconds=0.1)
    late = ann.pay(late_id)

    assert (cancelled.status, cancelled.code) == (409, "order_not_payable")
    assert (refused.status, refused.code) == (409, "order_not_payable")
    assert (late.status, late.code) == (409, "order_expired")
    assert not Payment.objects.exists()


def test_what_only_a_clock_says_is_not_kept(ann, order_id):
    make_overdue(order_id, by_seconds=0.1)
    early = ann.pay(order_id)
    assert (early.status, early.code) == (409, "order_expired")

    Order.objects.update(extended_until=timezone.now() + timedelta(seconds=60))
    paid = ann.pay(order_id)

    assert (paid.status, paid.body["order"]["status"]) == (200, "CONFIRMED")
    assert violations() == []


def test_the_time_to_pay_is_what_the_order_says_now_and_what_its_state_says_is_kept(ann, order_id):
    make_overdue(order_id)
    read_before = Order.objects.get()
    Order.objects.update(extended_until=timezone.now() + timedelta(seconds=60))
    _require_payable(read_before)
    make_overdue(order_id)
    saga.advance(Order.objects.get())

    for replayed in (None, "true"):
        refused = ann.pay(order_id)
        assert (refused.status, refused.code) == (409, "order_expired")
        assert refused.headers.get("Idempotent-Replayed") == replayed


def test_fifty_payments_at_once_take_the_money_once(
    transactional_db, ann, on_sale, inventory, monkeypatch
):
    order_id = ann.place({on_sale(10): 2}).body["id"]
    charged = []
    charge = sandbox.SandboxProvider.charge
    monkeypatch.setattr(
        sandbox.SandboxProvider,
        "charge",
        lambda self, payment: charged.append(payment.pk) or charge(self, payment),
    )

    answers = together(*times(20, partial(ann.pay, order_id)))

    assert {answer.status for answer in answers} <= {200, 409}
    assert {a.code for a in answers if a.status == 409} <= {"request_in_progress"}
    assert len(charged) == 1
    assert inventory.statuses(order_id) == ["COMMITTED"]
    assert violations() == []


def test_two_keys_at_once_keep_the_money_of_one(transactional_db, ann, on_sale):
    order_id = ann.place({on_sale(10): 2}).body["id"]

    together(*(partial(ann.pay, order_id, key=f"p{n}") for n in range(8)))

    statuses = list(Payment.objects.values_list("status", flat=True))
    assert statuses.count("CAPTURED") == 1
    assert set(statuses) <= {"CAPTURED", "REFUNDED"}
    assert Order.objects.get().status == "CONFIRMED"
    assert violations() == []


def test_a_payment_that_comes_later_waits_for_its_webhook(
    transactional_db, ann, order_id, pending, webhooks, inventory
):
    assert pending.status == "CREATED"
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"

    settled = ann.settle(str(pending.pk), "captured")

    assert (settled.status, settled.body["status"]) == (200, "CAPTURED")
    assert settled.body.pop("deliveries") == [{"status": 200, "code": "", "detail": ""}]
    assert ann.payment(str(pending.pk)).body == settled.body
    assert ann.order(order_id).body["status"] == "CONFIRMED"
    assert inventory.statuses(order_id) == ["COMMITTED"]


def test_a_payment_that_comes_later_gets_the_order_and_its_holds_more_time_once(
    transactional_db, ann, order_id, settings
):
    for key in ("p", "p", "q"):
        assert ann.pay(order_id, "sandbox_later", key).status == 200

    order = Order.objects.get()
    more = timedelta(seconds=settings.HOLD_EXTENSION_SECONDS)
    assert order.ends_at == order.expires_at + more
    assert order.due_at == saga.overdue_at(order.ends_at)
    assert ann.order(order_id).body["expires_at"] == iso(order.ends_at)
    [entry] = inventory_client.extend([item.pk for item in order.items.all()])
    assert entry.expires_at == order.ends_at, "inventory says the same, and gives no more"


def test_an_order_that_got_more_time_is_replayed_as_it_was_placed(transactional_db, ann, on_sale):
    items = {on_sale(10): 2}
    placed = ann.place(items, key="k")
    ann.pay(placed.body["id"], "sandbox_later")
    assert ann.place(items, key="k").body == placed.body


def test_an_order_that_gets_more_time_at_that_moment_is_not_expired(
    transactional_db, ann, order_id, monkeypatch
):
    make_overdue(order_id)
    read_before = Order.objects.get()
    until = timezone.now() + timedelta(seconds=60)
    Order.objects.update(extended_until=until)

    saga.advance(read_before)

    assert Order.objects.get().status == "AWAITING_PAYMENT"


def test_a_payment_that_comes_later_is_taken_also_when_inventory_does_not_answer(
    transactional_db, ann, order_id, settings
):
    settings.INVENTORY_URL = NOWHERE
    assert ann.pay(order_id, "sandbox_later").body["payment"]["status"] == "CREATED"

    assert Order.objects.get().extended_until is None


def test_a_payment_declined_later_leaves_the_order_to_be_paid(
    transactional_db, ann, order_id, pending, webhooks
):
    settled = ann.settle(str(pending.pk), "declined")

    assert (settled.status, settled.body["status"]) == (200, "DECLINED")
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"
    assert ann.pay(order_id, key="again").body["order"]["status"] == "CONFIRMED"


def test_settling_twice_is_the_same_webhook_twice_and_another_outcome_is_refused(
    transactional_db, ann, pending, webhooks
):
    ann.settle(str(pending.pk), "captured")

    again = ann.settle(str(pending.pk), "captured")
    otherwise = ann.settle(str(pending.pk), "declined")

    assert (again.status, again.body["status"]) == (200, "CAPTURED")
    assert (otherwise.status, otherwise.code) == (409, "payment_already_settled")
    assert violations() == []


def test_a_shop_that_does_not_take_the_webhook_is_a_503_and_later_works(
    transactional_db, ann, pending, settings, request
):
    settings.ORDER_URL = "http://127.0.0.1:9"
    away = ann.settle(str(pending.pk), "captured")
    settings.ORDER_URL = request.getfixturevalue("live_server").url

    assert (away.status, away.code) == (503, "webhook_not_delivered")
    assert away.headers["Retry-After"] == "1"
    assert ann.settle(str(pending.pk), "captured").body["status"] == "CAPTURED"


def test_money_for_a_cancelled_order_is_given_back_at_once(ann, order_id, pending, inventory):
    ann.cancel(order_id)

    answer = deliver(sandbox.notice_body(pending, Outcome.CAPTURED))

    assert answer.status_code == 200
    assert Payment.objects.get().status == "REFUNDED"
    assert ann.order(order_id).body["status"] == "CANCELLED"
    assert inventory.statuses(order_id) == ["RELEASED"]
    assert violations() == []


def test_a_paid_order_whose_hold_is_lost_expires_and_the_money_goes_back(ann, on_sale, inventory):
    kept, lost = on_sale(5), on_sale(5)
    order_id = ann.place({kept: 2, lost: 1}).body["id"]
    inventory.release(Order.objects.get().items.get(ticket_id=lost).pk)

    answer = ann.pay(order_id)

    assert answer.status == 200
    assert answer.body["order"]["status"] == "EXPIRED"
    assert answer.body["payment"]["status"] == "REFUNDED"
    assert inventory.stock(kept) == (5, 0, 0), "what was still held is free again"
    assert order_events() == ["order.placed", "order.paid", "order.expired"]
    assert violations() == []


def test_an_order_that_costs_nothing_is_paid_like_any_other(ann, on_sale):
    order_id = ann.place({on_sale(5, price=0): 1}).body["id"]

    assert ann.pay(order_id).body["order"]["status"] == "CONFIRMED"
    assert violations() == []


def test_an_order_tells_how_it_may_be_paid_and_a_pending_payment_where(ann, order_id):
    offered = ann.order(order_id).body["payment_methods"]
    pending = ann.pay(order_id, "sandbox_later", key="later").body["payment"]
    paid = ann.pay(order_id, "sandbox_ok", key="now").body

    assert offered == ["sandbox_ok", "sandbox_decline", "sandbox_later"]
    assert pending["page"] == f"/pay/{pending['id']}"
    assert paid["payment"]["page"] is None
    assert paid["order"]["payment_methods"] == []
