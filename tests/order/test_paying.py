"""Paying: taken once, booked once, given back when the order is not to be had."""

from __future__ import annotations

import time
from datetime import timedelta
from functools import partial

import pytest
import urllib3
from django.utils import timezone
from rest_framework.test import APIClient

from common.events.models import OutboxEvent
from common.times import iso
from services.order import inventory_client, saga
from services.order.models import Order, Payment
from services.order.providers import sandbox
from services.order.providers.base import Outcome
from tests.common.concurrency import times, together
from tests.order.conftest import NOWHERE
from tests.order.driver import make_overdue, violations

pytestmark = pytest.mark.django_db

WEBHOOKS = "/api/payments/webhooks/sandbox"


@pytest.fixture
def order_id(ann, on_sale):
    """Return an order of Ann's that awaits its payment of 50.00 EUR."""
    return ann.place({on_sale(10): 2}).body["id"]


@pytest.fixture
def pending(ann, order_id):
    """Return a payment that is to be settled later."""
    return Payment.objects.get(pk=ann.pay(order_id, "sandbox_later").body["payment"]["id"])


def deliver(caller, body, signature=None, provider="sandbox"):
    """Send a webhook; signed as the sandbox does unless a signature is given."""
    signature = sandbox.sign(body) if signature is None else signature
    client = APIClient(raise_request_exception=False)
    return client.generic(
        "POST",
        f"/api/payments/webhooks/{provider}",
        body,
        "application/json",
        HTTP_SANDBOX_SIGNATURE=signature,
    )


def order_events():
    return list(OutboxEvent.objects.order_by("seq").values_list("type", flat=True))


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


def test_a_duplicate_webhook_is_taken_and_changes_nothing(ann, order_id, pending):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)

    first, second = deliver(ann, body), deliver(ann, body)

    assert (first.status_code, second.status_code) == (200, 200)
    assert order_events() == ["order.placed", "order.paid", "order.confirmed"]
    assert violations() == []


def test_the_very_same_webhook_recorded_and_replayed_changes_nothing(ann, order_id, pending):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)
    signature = sandbox.sign(body)

    assert deliver(ann, body, signature).status_code == 200
    assert deliver(ann, body, signature).status_code == 200
    assert order_events() == ["order.placed", "order.paid", "order.confirmed"]


def test_fifty_webhooks_at_once_book_the_money_once(
    transactional_db, ann, order_id, pending, inventory
):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)

    answers = together(*times(50, partial(deliver, ann, body)))

    assert {answer.status_code for answer in answers} == {200}
    assert order_events() == ["order.placed", "order.paid", "order.confirmed"]
    assert inventory.statuses(order_id) == ["COMMITTED"]
    assert violations() == []


def test_a_forged_webhook_is_a_400_and_books_nothing(ann, order_id, pending, caplog):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)
    genuine = sandbox.sign(body)
    forgeries = [
        "",
        "nonsense",
        genuine.replace("v1=", "v1=00"),
        genuine[:-1] + ("0" if genuine[-1] != "0" else "1"),
        genuine.replace("t=", "t=1"),
        genuine.replace(",n=", ",n=x"),
        sandbox.sign(body, secret="somebody else's"),
        sandbox.sign(body, secret=""),
        sandbox.sign(body + b" "),
        "t=1,n=é,v1=" + "0" * 64,
        "t=99999999999999999999,n=a,v1=" + "0" * 64,
    ]

    with caplog.at_level("WARNING"):
        for forgery in forgeries:
            answer = deliver(ann, body, forgery)
            assert (answer.status_code, answer.json()["code"]) == (400, "webhook_refused"), forgery
    assert caplog.text.count("webhook refused") == len(forgeries)
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"


@pytest.mark.parametrize("age", [301, -301, 10**6])
def test_an_old_webhook_is_a_400(ann, order_id, pending, age):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)

    answer = deliver(ann, body, sandbox.sign(body, at=time.time() - age))

    assert (answer.status_code, answer.json()["code"]) == (400, "webhook_refused")
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"


@pytest.mark.parametrize("wrong", [{"amount": 1}, {"amount": "5000"}, {"currency": "USD"}], ids=str)
def test_another_amount_is_a_400_and_books_nothing(ann, order_id, pending, wrong):
    answer = deliver(ann, sandbox.notice_body(pending, Outcome.CAPTURED, **wrong))

    assert (answer.status_code, answer.json()["code"]) == (400, "amount_mismatch")
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"
    assert Payment.objects.get().status == "CREATED"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"7", b"{}", b"\xff", b"[" * 100_000, b'{"payment_id": 1}'],
    ids=lambda body: repr(body[:20]),
)
def test_a_signed_webhook_that_says_nothing_is_a_400(ann, body):
    answer = deliver(ann, body)

    assert (answer.status_code, answer.json()["code"]) == (400, "webhook_refused")


def test_a_webhook_for_an_unknown_payment_is_to_come_again(ann, pending):
    body = sandbox.notice_body(
        pending, Outcome.CAPTURED, payment_id="00000000-0000-4000-8000-000000000000"
    )

    answer = deliver(ann, body)

    assert (answer.status_code, answer.json()["code"]) == (503, "payment_unknown")
    assert answer.headers["Retry-After"]


def test_an_unknown_provider_is_a_404_and_a_huge_webhook_a_413(ann, pending):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)

    assert deliver(ann, body, provider="gold").status_code == 404
    assert deliver(ann, b"x" * 2**20).status_code == 413


def test_a_cookie_is_no_way_around_the_signature(ann, pending):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)

    assert ann.call("POST", WEBHOOKS, None).status == 400
    assert deliver(ann, body).status_code == 200, "and needs no CSRF token"


def test_money_for_a_cancelled_order_is_given_back_at_once(ann, order_id, pending, inventory):
    ann.cancel(order_id)

    answer = deliver(ann, sandbox.notice_body(pending, Outcome.CAPTURED))

    assert answer.status_code == 200
    assert Payment.objects.get().status == "REFUNDED"
    assert ann.order(order_id).body["status"] == "CANCELLED"
    assert inventory.statuses(order_id) == ["RELEASED"]
    assert violations() == []


def test_money_that_comes_after_a_decline_is_given_back(ann, order_id, pending):
    deliver(ann, sandbox.notice_body(pending, Outcome.DECLINED))

    answer = deliver(ann, sandbox.notice_body(pending, Outcome.CAPTURED))

    assert answer.status_code == 200
    assert Payment.objects.get().status == "REFUNDED"
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"


def test_a_decline_that_comes_after_the_money_changes_nothing(ann, order_id, pending):
    deliver(ann, sandbox.notice_body(pending, Outcome.CAPTURED))

    answer = deliver(ann, sandbox.notice_body(pending, Outcome.DECLINED))

    assert answer.status_code == 200
    assert Payment.objects.get().status == "CAPTURED"
    assert ann.order(order_id).body["status"] == "CONFIRMED"


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


def test_the_webhook_endpoint_answers_over_http_too(transactional_db, ann, pending, webhooks):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)
    headers = {"Sandbox-Signature": sandbox.sign(body), "Content-Type": "application/json"}

    answer = urllib3.request("POST", webhooks + WEBHOOKS, body=body, headers=headers)

    assert (answer.status, answer.json()) == (200, {"received": True})
