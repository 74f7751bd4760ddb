"""Stripe: its pages, its webhooks and its refunds, against Stripe's documented answers."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from common.ids import uuid7
from services.order import saga, sweeping
from services.order.booking import book
from services.order.models import Order, Payment, WebhookNotice
from services.order.providers import registry, stripe
from services.order.providers.base import Charge, Outcome
from services.order.providers.sandbox import SandboxProvider
from services.order.providers.stripe import StripeProvider
from services.order.sweeping import sweep_orders, sweep_payments
from tests.order.conftest import Crash
from tests.order.driver import (
    expired,
    hear,
    make_due,
    make_overdue,
    reservation_ids,
    violations,
)
from tests.order.stripe_api import StripeApi, event, signature

pytestmark = pytest.mark.django_db

SECRET = "whsec_of_the_tests"
COMPLETED = "checkout.session.completed"
SUCCEEDED = "checkout.session.async_payment_succeeded"
FAILED = "checkout.session.async_payment_failed"
EXPIRED = "checkout.session.expired"


@pytest.fixture(autouse=True)
def api(settings, monkeypatch):
    """Serve Stripe's API locally and let the shop be configured for it."""
    settings.PAYMENT_PROVIDER = "stripe"
    settings.STRIPE_SECRET_KEY = "sk_test_local"
    settings.STRIPE_WEBHOOK_SECRET = SECRET
    with StripeApi() as api:
        providers = {"stripe": StripeProvider(api.url)}
        monkeypatch.setattr(registry, "_providers", lambda: providers)
        yield api


@pytest.fixture
def payment(ann, order_id):
    """Return a payment that Ann has begun and Stripe has a page for."""
    ann.pay(order_id)
    return Payment.objects.get()


@pytest.fixture
def session(api, payment):
    return api.sessions[payment.provider_reference]


def deliver(body, header=None):
    header = signature(body, SECRET) if header is None else header
    path = "/api/payments/webhooks/stripe"
    return APIClient(raise_request_exception=False).generic(
        "POST", path, body, "application/json", HTTP_STRIPE_SIGNATURE=header
    )


def test_the_buyer_is_sent_to_a_page_of_stripes_that_asks_for_the_whole_order(
    ann, on_sale, api, settings
):
    first, second = on_sale(5, price=1250), on_sale(5, price=400)
    order_id = ann.place({first: 2, second: 1}).body["id"]

    answer = ann.pay(order_id)

    assert answer.status == 200
    told = answer.body["payment"]
    assert (told["provider"], told["method"], told["status"]) == (
        "stripe",
        "stripe_checkout",
        "CREATED",
    )
    assert told["page"] == "https://checkout.stripe.com/c/pay/cs_test_0"
    [(call, headers, form)] = api.requests
    assert call == "POST /v1/checkout/sessions"
    assert headers["idempotency-key"] == told["id"]
    assert headers["authorization"] == "Bearer sk_test_local"
    assert form["metadata[payment_id]"] == told["id"]
    assert form["mode"] == "payment"
    assert form["success_url"] == f"{settings.PUBLIC_URL}/orders/{order_id}"
    assert form["line_items[0][price_data][currency]"] == "eur"
    assert api.sessions["cs_test_0"]["amount_total"] == answer.body["order"]["total"] == 2900
    assert ann.order(order_id).body["payment_methods"] == ["stripe_checkout"]


@pytest.mark.parametrize(("ttl", "minutes"), [(600, 35), (7200, 120), (86_400, 24 * 60 - 5)])
def test_the_page_closes_with_the_hold_where_stripe_allows_it(
    ann, on_sale, api, settings, ttl, minutes
):
    settings.HOLD_TTL_SECONDS = ttl
    ann.pay(ann.place({on_sale(5): 1}).body["id"])

    assert api.sessions["cs_test_0"]["expires_at"] == pytest.approx(
        time.time() + minutes * 60, abs=10
    )


def test_a_currency_without_decimals_is_charged_in_its_own_units(ann, on_sale, api):
    order_id = ann.place({on_sale(5, price=900, currency="JPY"): 2}).body["id"]
    ann.pay(order_id)
    session = api.sessions["cs_test_0"]
    api.pay("cs_test_0")

    assert (session["amount_total"], session["currency"]) == (1800, "jpy")
    assert deliver(event(session, COMPLETED)).status_code == 200
    assert Order.objects.get().status == "CONFIRMED"


def test_repeating_a_charge_finds_the_same_page(ann, order_id, api, crash_at):
    crash_at(stripe.StripeProvider, "charge", after=True)
    with pytest.raises(Crash):
        ann.pay(order_id)

    answer = ann.pay(order_id)

    assert answer.status == 200
    assert len(api.sessions) == 1
    assert api.requests[0][2] == api.requests[1][2], "Stripe refuses a key with other parameters"


NEWS = {
    "paid": ([(COMPLETED, "paid")], "CAPTURED", "CONFIRMED"),
    "free": ([(COMPLETED, "no_payment_required")], "CAPTURED", "CONFIRMED"),
    "on its way": ([(COMPLETED, "unpaid")], "CREATED", "AWAITING_PAYMENT"),
    "arrived": ([(COMPLETED, "unpaid"), (SUCCEEDED, "paid")], "CAPTURED", "CONFIRMED"),
    "shuffled": ([(SUCCEEDED, "paid"), (COMPLETED, "unpaid")], "CAPTURED", "CONFIRMED"),
    "failed": ([(COMPLETED, "unpaid"), (FAILED, "unpaid")], "DECLINED", "AWAITING_PAYMENT"),
    "left open": ([(EXPIRED, "unpaid")], "DECLINED", "AWAITING_PAYMENT"),
    "of another kind": ([("charge.refunded", "paid")], "CREATED", "AWAITING_PAYMENT"),
}


@pytest.mark.parametrize("news", NEWS)
def test_every_event_is_booked_as_what_it_says(session, news):
    events, payment_status, order_status = NEWS[news]

    for number, (kind, payment_status_told) in enumerate(events):
        body = event(session, kind, f"evt_{number}", payment_status=payment_status_told)
        answer = deliver(body)
        assert (answer.status_code, answer.json()) == (200, {"received": True})

    assert Payment.objects.get().status == payment_status
    assert Order.objects.get().status == order_status
    assert Payment.objects.get().page == session["url"]
    assert violations() == []


def test_an_event_is_known_by_its_own_id(session):
    for _ in range(3):
        # Stripe signs each retry anew; the event stays the same.
        assert deliver(event(session, COMPLETED, payment_status="paid")).status_code == 200

    assert WebhookNotice.objects.get().notice_id == "evt_1"


def test_an_event_about_something_else_that_the_account_sells_is_none_of_our_business(session):
    for metadata in ({}, None, {"cart": "7"}):
        answer = deliver(event(session, COMPLETED, payment_status="paid", metadata=metadata))
        assert answer.status_code == 200
    assert not WebhookNotice.objects.exists()


@pytest.mark.parametrize("wrong", [{"amount_total": 1}, {"currency": "usd"}], ids=str)
def test_another_amount_is_refused(session, wrong):
    answer = deliver(event(session, COMPLETED, payment_status="paid", **wrong))

    assert (answer.status_code, answer.json()["code"]) == (400, "amount_mismatch")
    assert Payment.objects.get().status == "CREATED"


def test_a_forged_or_old_event_is_refused(session):
    body = event(session, COMPLETED, payment_status="paid")
    genuine = signature(body, SECRET)
    for header in (
        "",
        "nonsense",
        genuine[:-1] + ("0" if genuine[-1] != "0" else "1"),
        genuine.replace("v1=", "v0="),
        signature(body, "somebody else's"),
        signature(body + b" ", SECRET),
        signature(body, SECRET, age_seconds=301),
    ):
        answer = deliver(body, header)
        assert (answer.status_code, answer.json()["code"]) == (400, "webhook_refused"), header
    assert Payment.objects.get().status == "CREATED"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"7",
        b"\xff",
        b"{}",
        b'{"object": "event"}',
        b'{"object": "event", "type": "checkout.session.completed", "data": {"object": []}}',
        b'{"object": "v2.core.event"}',
    ],
)
def test_a_signed_body_that_is_no_event_is_refused(body):
    answer = deliver(body)

    assert (answer.status_code, answer.json()["code"]) == (400, "webhook_refused")


def test_money_for_an_order_that_is_over_is_given_back_once(ann, api, order_id, session, payment):
    ann.cancel(order_id)
    api.pay(session["id"])

    for number in range(2):
        deliver(event(session, COMPLETED, f"evt_{number}"))

    assert Payment.objects.get().status == "REFUNDED"
    [refund] = api.refunds
    assert refund["payment_intent"] == f"pi_{session['id']}"
    [headers] = [headers for call, headers, _ in api.requests if call == "POST /v1/refunds"]
    assert headers["idempotency-key"] == f"{payment.pk}-refund"
    assert violations() == []


def test_a_refund_that_was_given_before_is_enough(ann, api, order_id, session):
    ann.cancel(order_id)
    api.pay(session["id"])
    api.fail(500, type="api_error")
    deliver(event(session, COMPLETED))
    assert Payment.objects.get().status == "REFUND_DUE"

    provider = registry.provider("stripe")
    provider.refund(Payment.objects.get())
    api._by_key.clear()
    refunds = api.answer

    def refuse_refunds(method, path, headers, form):
        if path == "/v1/refunds":
            error = {"type": "invalid_request_error", "code": "charge_already_refunded"}
            return 400, {"error": error}
        return refunds(method, path, headers, form)

    api.answer = refuse_refunds
    make_due()
    sweep_payments()

    assert Payment.objects.get().status == "REFUNDED"
    assert len(api.refunds) == 1


def test_an_interrupted_charge_of_an_order_that_is_over_closes_its_page(
    ann, api, order_id, crash_at
):
    crash_at(stripe.StripeProvider, "charge", after=True)
    with pytest.raises(Crash):
        ann.pay(order_id)
    ann.cancel(order_id)

    make_due()
    sweep_payments()
    sweep_orders()

    assert api.sessions["cs_test_0"]["status"] == "expired"
    assert Payment.objects.get().status == "DECLINED"


def test_a_payment_that_stripe_never_heard_of_ends_when_its_order_is_over_for_long(
    ann, api, order_id
):
    api.fail(503, type="api_error")
    assert ann.pay(order_id).status == 503
    Payment.objects.update(created_at=timezone.now() - timedelta(minutes=11))
    ann.cancel(order_id)

    make_due()
    sweep_payments()

    assert Payment.objects.get().status == "DECLINED"
    assert api.sessions == {}
    assert violations() == []


def test_the_trouble_of_one_payment_delays_no_refund_of_another(ann, bob, api, on_sale):
    ticket = on_sale(5)
    troubled, refunded = (buyer.place({ticket: 1}).body["id"] for buyer in (ann, bob))
    for buyer, order_id in ((ann, troubled), (bob, refunded)):
        buyer.pay(order_id)
        api.pay(Payment.objects.get(order_id=order_id).provider_reference)
    past = timezone.now() - timedelta(seconds=2)
    Payment.objects.update(status="REFUND_DUE", due_at=past)
    Payment.objects.filter(order_id=troubled).update(due_at=past - timedelta(seconds=1))
    api.fail(500, type="api_error")

    assert sweep_payments() == 2

    assert Payment.objects.get(order_id=troubled).status == "REFUND_DUE", "it is tried again"
    assert Payment.objects.get(order_id=refunded).status == "REFUNDED"


def test_a_stripe_that_hangs_holds_a_round_up_for_a_bounded_time(
    ann, api, order_id, payment, monkeypatch
):
    monkeypatch.setattr(stripe, "READ_TIMEOUT_SECONDS", 0.2)
    impatient = {"stripe": StripeProvider(api.url)}
    monkeypatch.setattr(registry, "_providers", lambda: impatient)
    monkeypatch.setattr(sweeping, "ROUND_SECONDS_MAX", 0.5)
    api.hang(0.5)
    Payment.objects.update(status="REFUND_DUE")
    for _ in range(9):
        payment.pk, payment.status = uuid7(), "REFUND_DUE"
        payment.save(force_insert=True)
    Payment.objects.update(due_at=timezone.now())

    started = time.monotonic()
    tried = sweep_payments()

    assert 1 <= tried < 10
    assert time.monotonic() - started < 2.0


@pytest.mark.parametrize("late_payment", ["refund", "rereserve"])
@pytest.mark.parametrize("end", ["cancel", "expire"])
def test_the_page_of_an_order_that_is_over_is_closed_unless_late_money_is_welcome(
    ann, order_id, session, settings, end, late_payment
):
    settings.LATE_PAYMENT = late_payment
    make_due()
    sweep_payments()
    assert session["status"] == "open", "there is time to pay"
    assert Payment.objects.get().due_at == saga.overdue_at(Order.objects.get().ends_at)
    if end == "cancel":
        ann.cancel(order_id)
    else:
        make_overdue(order_id)
        sweep_orders()

    for _ in range(2):
        make_due()
        sweep_payments()

    welcome = (end, late_payment) == ("expire", "rereserve")
    payment = Payment.objects.get()
    if welcome:
        assert (session["status"], payment.status) == ("open", "CREATED")
        assert payment.due_at == payment.created_at + StripeProvider.page_lifetime
    else:
        assert (session["status"], payment.status) == ("expired", "DECLINED")
        assert payment.due_at is None
    deliver(event(session, EXPIRED))
    assert Payment.objects.get().status == "DECLINED"
    assert violations() == []


@pytest.mark.parametrize("end", ["cancel", "expire"])
def test_money_is_given_back_although_its_webhook_never_comes(ann, api, order_id, session, end):
    api.pay(session["id"])
    if end == "cancel":
        ann.cancel(order_id)
    else:
        make_overdue(order_id)
        sweep_orders()

    make_due()
    sweep_payments()

    assert Payment.objects.get().status == "REFUNDED"
    assert len(api.refunds) == 1
    assert ann.order(order_id).body["late_payment"] == "refunded"
    assert violations() == []
    assert deliver(event(session, COMPLETED)).status_code == 200
    assert len(api.refunds) == 1, "and a late webhook changes nothing"


def test_money_that_comes_after_a_decline_is_given_back_from_where_it_lies(
    api, order_id, session, payment
):
    # The answer to the charge was lost, and the payment has ended without knowing its page.
    Payment.objects.update(status="DECLINED", provider_reference="")
    api._by_key.clear()
    api.pay(session["id"])

    assert deliver(event(session, COMPLETED)).status_code == 200

    assert Payment.objects.get().status == "REFUNDED"
    assert Payment.objects.get().provider_reference == session["id"]
    [refund] = api.refunds
    assert refund["payment_intent"] == f"pi_{session['id']}"
    assert len(api.sessions) == 1


@pytest.mark.parametrize("end", ["cancel", "expire", "pay in another way"])
def test_a_page_is_closed_within_seconds_when_its_order_needs_it_no_more(
    ann, order_id, session, payment, end
):
    if end == "cancel":
        ann.cancel(order_id)
    elif end == "expire":
        hear("inventory", "reservation.expired", expired(order_id))
    else:
        ann.pay(order_id, key="another")
        other = Payment.objects.exclude(pk=payment.pk).get()
        book(other, Charge(Outcome.CAPTURED, other.provider_reference))

    sweep_payments()

    assert session["status"] == "expired"
    payment.refresh_from_db()
    assert (payment.status, payment.due_at) == ("DECLINED", None)


def test_a_page_whose_order_ends_while_the_sweeper_looks_is_looked_at_again(
    ann, order_id, session, monkeypatch
):
    overdue_at = saga.overdue_at

    def cancelled_meanwhile(moment):
        ann.cancel(order_id)
        return overdue_at(moment)

    make_due()
    monkeypatch.setattr(saga, "overdue_at", cancelled_meanwhile)
    sweep_payments()
    monkeypatch.undo()
    assert session["status"] == "open"
    assert Payment.objects.get().due_at <= timezone.now()


def test_a_provider_that_is_not_configured_any_more_spoils_no_purchase_and_is_named(
    ann, on_sale, inventory, api, order_id, session, payment, monkeypatch, settings
):
    api.pay(session["id"])
    Payment.objects.update(status="REFUND_DUE", updated_at=timezone.now() - timedelta(minutes=1))
    settings.PAYMENT_PROVIDER = "sandbox"
    both = registry._providers() | {"sandbox": SandboxProvider()}
    monkeypatch.setattr(registry, "_providers", lambda: {"sandbox": both["sandbox"]})
    inventory.release(reservation_ids(order_id)[0])

    paid = ann.pay(order_id, "sandbox_ok", key="another")

    assert (paid.status, paid.body["payment"]["status"]) == (200, "REFUNDED")
    assert Payment.objects.get(pk=payment.pk).status == "REFUND_DUE"
    make_due()
    assert sweep_payments() == 1
    [violation] = violations()
    assert "stripe, which is not configured" in violation

    monkeypatch.setattr(registry, "_providers", lambda: both)
    make_due()
    sweep_payments()

    assert Payment.objects.get(pk=payment.pk).status == "REFUNDED"
    assert len(api.refunds) == 1
    assert ann.order(order_id).body["payment_methods"] == []
    other = ann.place({on_sale(5): 1}, key="other").body["id"]
    assert "stripe_checkout" not in ann.order(other).body["payment_methods"]


def test_welcome_late_money_is_found_without_a_webhook_when_its_page_is_over(
    ann, api, order_id, session, settings
):
    settings.LATE_PAYMENT = "rereserve"
    make_overdue(order_id)
    sweep_orders()
    api.pay(session["id"])
    Payment.objects.update(created_at=timezone.now() - StripeProvider.page_lifetime)

    make_due()
    sweep_payments()

    assert (Order.objects.get().status, Payment.objects.get().status) == ("CONFIRMED", "CAPTURED")
    assert violations() == []


def test_money_that_is_on_its_way_when_the_order_is_over_is_asked_for_until_it_is_known(
    ann, api, order_id, session
):
    session |= {"status": "complete", "payment_status": "unpaid"}
    ann.cancel(order_id)
    for _ in range(2):
        make_due()
        sweep_payments()
        payment = Payment.objects.get()
        assert payment.status == "CREATED"
        assert payment.due_at > timezone.now() + timedelta(minutes=59)

    api.pay(session["id"])
    make_due()
    sweep_payments()

    assert Payment.objects.get().status == "REFUNDED"


def test_a_payment_of_an_order_that_is_over_and_that_nobody_asks_about_shows_in_the_audit(
    ann, order_id, session, payment
):
    ann.cancel(order_id)
    old = timezone.now() - StripeProvider.page_lifetime
    Payment.objects.update(due_at=None, created_at=old + timedelta(minutes=1))
    assert violations() == []

    Payment.objects.update(created_at=old - timedelta(minutes=1))

    [violation] = violations()
    assert str(payment.pk) in violation


def test_a_page_that_was_paid_while_it_was_closed_is_looked_at_again(api, payment, session):
    provider = registry.provider("stripe")
    answer = api.answer

    def paid_meanwhile(method, path, headers, form):
        if path.endswith("/expire"):
            api.pay(session["id"])
        return answer(method, path, headers, form)

    api.answer = paid_meanwhile
    with pytest.raises(Exception, match="provider_unavailable"):
        provider.refund(payment)
    provider.refund(payment)

    assert len(api.refunds) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, "invalid_request_error"), (429, "rate_limit_error"), (500, "api_error")],
)
def test_a_stripe_in_trouble_is_a_503_and_the_same_key_then_works(ann, api, order_id, status, kind):
    api.fail(status, type=kind)

    away, again = ann.pay(order_id), ann.pay(order_id)

    assert (away.status, away.code) == (503, "provider_unavailable")
    assert again.body["payment"]["page"]
    assert len(api.requests) == 2, "and each was tried once"


def test_a_stripe_that_hangs_is_left_before_the_request_runs_out_of_time(
    ann, api, order_id, monkeypatch
):
    monkeypatch.setattr(stripe, "READ_TIMEOUT_SECONDS", 0.3)
    impatient = StripeProvider(api.url)
    monkeypatch.setattr(registry, "_providers", lambda: {"stripe": impatient})
    api.hang(1.0)

    started = time.monotonic()
    away = ann.pay(order_id)

    assert (away.status, away.code) == (503, "provider_unavailable")
    assert time.monotonic() - started < 0.9
    assert len(api.requests) == 1


def test_a_payment_that_stripe_refuses_for_good_is_declined(ann, api, order_id):
    api.fail(400, type="invalid_request_error", code="amount_too_small")

    answer = ann.pay(order_id)

    assert answer.status == 200
    assert answer.body["payment"]["status"] == "DECLINED"
    assert answer.body["order"]["status"] == "AWAITING_PAYMENT"
