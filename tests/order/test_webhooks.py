"""Webhooks: only the provider's own count, each of them once, and in whatever order they come."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from functools import partial

import pytest
import urllib3
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from common.ids import derived_uuid
from services.order import booking, notices, orphans, sweeping, webhooks
from services.order.models import Order, Payment, WebhookNotice
from services.order.providers import sandbox
from services.order.providers.base import Notice, Outcome
from services.order.sweeping import sweep_orders, sweep_payments
from tests.common.concurrency import times, together
from tests.order.driver import deliver, make_due, order_events, violations

pytestmark = pytest.mark.django_db

WEBHOOKS = "/api/payments/webhooks/sandbox"
PAID_ONCE = ["order.placed", "order.paid", "order.confirmed"]


def test_a_duplicate_webhook_is_taken_and_changes_nothing(ann, order_id, pending):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)

    first, second = deliver(body), deliver(body)

    assert (first.status_code, second.status_code) == (200, 200)
    assert order_events() == PAID_ONCE
    assert violations() == []


def test_the_very_same_webhook_recorded_and_replayed_changes_nothing(ann, order_id, pending):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)
    signature = sandbox.sign(body)

    assert deliver(body, signature).status_code == 200
    assert deliver(body, signature).status_code == 200
    assert order_events() == PAID_ONCE


def test_fifty_webhooks_at_once_book_the_money_once(
    transactional_db, ann, order_id, pending, inventory
):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)

    answers = together(*times(50, partial(deliver, body)))

    assert {answer.status_code for answer in answers} == {200}
    assert order_events() == PAID_ONCE
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
            answer = deliver(body, forgery)
            assert (answer.status_code, answer.json()["code"]) == (400, "webhook_refused"), forgery
    assert caplog.text.count("webhook refused") == len(forgeries)
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"


@pytest.mark.parametrize("age", [301, -301, 10**6])
def test_an_old_webhook_is_a_400(ann, order_id, pending, age):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)

    answer = deliver(body, sandbox.sign(body, at=time.time() - age))

    assert (answer.status_code, answer.json()["code"]) == (400, "webhook_refused")
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"


@pytest.mark.parametrize("wrong", [{"amount": 1}, {"amount": "5000"}, {"currency": "USD"}], ids=str)
def test_another_amount_is_a_400_and_books_nothing(ann, order_id, pending, wrong):
    body = sandbox.notice_body(pending, Outcome.CAPTURED, **wrong)
    signature = sandbox.sign(body)

    for _ in range(2):
        answer = deliver(body, signature)
        assert (answer.status_code, answer.json()["code"]) == (400, "amount_mismatch")
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"
    assert Payment.objects.get().status == "CREATED"
    assert not WebhookNotice.objects.exclude(booked_at=None).exists()


def let_days_pass():
    long_ago = timezone.now() - notices.RETENTION - timedelta(seconds=1)
    WebhookNotice.objects.update(received_at=long_ago)
    WebhookNotice.objects.exclude(booked_at=None).update(booked_at=long_ago)


@pytest.mark.parametrize("kept_first", [False, True])
def test_captured_money_of_another_amount_is_in_the_audit_until_a_person_has_dealt_with_it(
    ann, order_id, unknown, kept_first
):
    if not kept_first:
        pay_later(ann, order_id)
    answer = deliver(sandbox.notice_body(unknown, Outcome.CAPTURED, amount=5001))
    assert answer.status_code == (200 if kept_first else 400)
    if kept_first:
        pay_later(ann, order_id)

    notice = WebhookNotice.objects.get()
    assert (notice.refusal, notice.amount) == ("amount_mismatch", 5001)
    let_days_pass()
    assert notices.purge_notices() == 0
    assert webhooks.book_kept() == 0
    [violation] = violations()
    assert "5001 EUR" in violation
    assert str(unknown.pk) in violation

    call_command("notices", "close", f"sandbox/{notice.notice_id}", "--reason", "refunded there")

    assert violations() == []
    let_days_pass()
    assert notices.purge_notices() == 1


@pytest.mark.parametrize("outcome", [Outcome.DECLINED, Outcome.PENDING])
def test_news_of_no_money_with_another_amount_is_refused_and_forgotten(pending, outcome):
    assert deliver(sandbox.notice_body(pending, outcome, amount=1)).status_code == 400

    assert not WebhookNotice.objects.exists()
    assert violations() == []


def test_a_person_lists_what_waits_and_closes_it_once(ann, unknown, capsys):
    deliver(sandbox.notice_body(unknown, Outcome.CAPTURED))
    # A nonce may begin like an option of the command line.
    notice_id = "--reason"
    WebhookNotice.objects.update(notice_id=notice_id)
    call_command("notices", "list")
    assert f"sandbox/{notice_id}  5000 EUR captured" in capsys.readouterr().out

    close = partial(call_command, "notices", "close", f"sandbox/{notice_id}", "--reason")
    with pytest.raises(CommandError, match="a reason says something"):
        close(" ")
    close("a test's")
    with pytest.raises(CommandError, match="no notice"):
        close("again")

    assert WebhookNotice.objects.get().refusal == "closed"
    call_command("notices", "list")
    assert "No notice waits." in capsys.readouterr().out


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"7", b"{}", b"\xff", b"[" * 100_000, b'{"payment_id": 1}'],
    ids=lambda body: repr(body[:20]),
)
def test_a_signed_webhook_that_says_nothing_is_a_400(ann, body):
    answer = deliver(body)

    assert (answer.status_code, answer.json()["code"]) == (400, "webhook_refused")


def test_an_unknown_provider_is_a_404_and_a_huge_webhook_a_413(ann, pending):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)

    assert deliver(body, provider="gold").status_code == 404
    assert deliver(b"x" * 2**20).status_code == 413


def test_a_cookie_is_no_way_around_the_signature(ann, pending):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)

    assert ann.call("POST", WEBHOOKS, None).status == 400
    assert deliver(body).status_code == 200, "and needs no CSRF token"


def test_money_that_comes_after_a_decline_is_given_back(ann, order_id, pending):
    deliver(sandbox.notice_body(pending, Outcome.DECLINED))

    answer = deliver(sandbox.notice_body(pending, Outcome.CAPTURED))

    assert answer.status_code == 200
    assert Payment.objects.get().status == "REFUNDED"
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"


def test_a_decline_that_comes_after_the_money_changes_nothing(ann, order_id, pending):
    deliver(sandbox.notice_body(pending, Outcome.CAPTURED))

    answer = deliver(sandbox.notice_body(pending, Outcome.DECLINED))

    assert answer.status_code == 200
    assert Payment.objects.get().status == "CAPTURED"
    assert ann.order(order_id).body["status"] == "CONFIRMED"


def test_the_webhook_endpoint_answers_over_http_too(transactional_db, ann, pending, webhooks):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)
    headers = {"Sandbox-Signature": sandbox.sign(body), "Content-Type": "application/json"}

    answer = urllib3.request("POST", webhooks + WEBHOOKS, body=body, headers=headers)

    assert (answer.status, answer.json()) == (200, {"received": True})


def test_fifty_deliveries_of_one_notice_are_booked_once(transactional_db, order_id, pending):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)
    signature = sandbox.sign(body)

    answers = together(*times(50, partial(deliver, body, signature)))

    assert {answer.status_code for answer in answers} == {200}
    notice = WebhookNotice.objects.get()
    assert (notice.payment_id, notice.outcome, notice.amount) == (pending.pk, "captured", 5000)
    assert notice.booked_at is not None
    assert order_events() == PAID_ONCE
    assert violations() == []


def test_a_replayed_notice_does_nothing_even_where_the_payment_has_moved_on(order_id, pending):
    body = sandbox.notice_body(pending, Outcome.CAPTURED)
    signature = sandbox.sign(body)
    deliver(body, signature)
    Payment.objects.update(status="CREATED")

    assert deliver(body, signature).status_code == 200
    assert Payment.objects.get().status == "CREATED"


def test_a_refused_webhook_leaves_its_nonce_free_for_the_genuine_one(order_id, pending):
    genuine = sandbox.notice_body(pending, Outcome.CAPTURED)

    deliver(sandbox.notice_body(pending, Outcome.CAPTURED, amount=1))
    deliver(genuine, sandbox.sign(genuine, secret="somebody else's"))

    assert not WebhookNotice.objects.filter(refusal="").exists()
    assert deliver(genuine).status_code == 200
    assert Payment.objects.get().status == "CAPTURED"


@pytest.mark.parametrize("seed", range(4))
def test_many_notices_of_all_outcomes_at_once_end_in_one_right_state(
    transactional_db, ann, order_id, pending, inventory, seed
):
    print(f"seed {seed}")
    outcomes = [outcome for outcome in Outcome for _ in range(8)]
    random.Random(seed).shuffle(outcomes)

    answers = together(
        *(partial(deliver, sandbox.notice_body(pending, outcome)) for outcome in outcomes)
    )
    make_due()
    sweep_payments()
    sweep_orders()

    assert {answer.status_code for answer in answers} == {200}
    assert WebhookNotice.objects.exclude(booked_at=None).count() == len(outcomes)
    # Whichever of them came first, the money is either the shop's or back.
    payment, order = Payment.objects.get().status, Order.objects.get().status
    assert (payment, order) in {("CAPTURED", "CONFIRMED"), ("REFUNDED", "AWAITING_PAYMENT")}
    assert violations() == []


ORDERLY = {
    ("captured", "declined"): ("CAPTURED", "CONFIRMED"),
    ("declined", "captured"): ("REFUNDED", "AWAITING_PAYMENT"),
    ("captured", "pending"): ("CAPTURED", "CONFIRMED"),
    ("pending", "captured"): ("CAPTURED", "CONFIRMED"),
    ("declined", "pending"): ("DECLINED", "AWAITING_PAYMENT"),
    ("pending", "declined"): ("DECLINED", "AWAITING_PAYMENT"),
}


@pytest.mark.parametrize("told", ORDERLY, ids="-".join)
def test_news_in_any_order_ends_in_the_right_state(ann, order_id, pending, told):
    for outcome in told:
        assert deliver(sandbox.notice_body(pending, Outcome(outcome))).status_code == 200

    assert (Payment.objects.get().status, Order.objects.get().status) == ORDERLY[told]
    assert violations() == []


@pytest.fixture
def unknown(ann, order_id):
    """Return the payment that Ann's next pay will make, before it exists."""
    payment_id = derived_uuid(str(ann.user_id), order_id, "p")
    return Payment(id=payment_id, amount=5000, currency="EUR")


def pay_later(ann, order_id):
    """Make the payment that was unknown."""
    return ann.pay(order_id, "sandbox_later").body


@pytest.mark.parametrize("told", ORDERLY, ids="-".join)
def test_news_of_an_unknown_payment_is_kept_and_booked_when_the_payment_appears(
    ann, order_id, unknown, told
):
    for outcome in told:
        answer = deliver(sandbox.notice_body(unknown, Outcome(outcome)))
        assert answer.status_code == 200
    assert WebhookNotice.objects.filter(booked_at=None).count() == 2

    pay_later(ann, order_id)

    assert (Payment.objects.get().status, Order.objects.get().status) == ORDERLY[told]
    assert not WebhookNotice.objects.filter(booked_at=None).exists()
    assert violations() == []


def test_a_kept_notice_is_kept_once_and_replays_of_it_do_nothing(
    transactional_db, ann, order_id, unknown
):
    body = sandbox.notice_body(unknown, Outcome.CAPTURED)
    signature = sandbox.sign(body)

    answers = together(*times(20, partial(deliver, body, signature)))

    assert {answer.status_code for answer in answers} == {200}
    assert WebhookNotice.objects.count() == 1
    assert pay_later(ann, order_id)["order"]["status"] == "CONFIRMED"
    assert deliver(body, signature).status_code == 200
    assert order_events() == PAID_ONCE


def test_a_notice_and_its_payment_that_come_at_once_miss_each_other_never(
    transactional_db, ann, on_sale
):
    ticket = on_sale(100)
    for n in range(10):
        order_id = ann.place({ticket: 1}, key=f"k{n}").body["id"]
        key = f"p{n}"
        payment_id = derived_uuid(str(ann.user_id), order_id, key)
        payment = Payment(id=payment_id, amount=2500, currency="EUR")
        together(
            partial(deliver, sandbox.notice_body(payment, Outcome.CAPTURED)),
            partial(ann.pay, order_id, "sandbox_later", key),
        )
        assert Payment.objects.get(pk=payment_id).status == "CAPTURED"
        assert not WebhookNotice.objects.filter(booked_at=None).exists()
    make_due()
    sweep_orders()
    assert set(Order.objects.values_list("status", flat=True)) == {"CONFIRMED"}
    assert violations() == []


def test_the_sweeper_books_what_a_crash_has_left_kept(transactional_db, ann, order_id, pending):
    notice = Notice("nonce", pending.pk, Outcome.CAPTURED, 5000, "EUR", "ref")
    notices.keep("sandbox", notice)

    done = together(*[webhooks.book_kept] * 4)

    assert sum(done) >= 1
    assert webhooks.book_kept() == 0
    assert Payment.objects.get().status == "CAPTURED"
    assert order_events().count("order.paid") == 1


def test_a_kept_notice_that_cannot_be_booked_keeps_no_other_from_it(
    transactional_db, ann, bob, on_sale, monkeypatch, caplog
):
    ticket = on_sale(5)
    bad, good = (
        Payment.objects.get(
            pk=buyer.pay(buyer.place({ticket: 1}).body["id"], "sandbox_later").body["payment"]["id"]
        )
        for buyer in (ann, bob)
    )
    for payment in (bad, good):
        notices.keep("sandbox", Notice(str(payment.pk), payment.pk, "captured", 2500, "EUR", "r"))
    book = booking.book

    def fails_for_one(payment, *args):
        if payment.pk == bad.pk:
            raise RuntimeError("a bug")
        return book(payment, *args)

    monkeypatch.setattr(booking, "book", fails_for_one)

    assert webhooks.book_kept() == 1

    assert Payment.objects.get(pk=good.pk).status == "CAPTURED"
    assert Payment.objects.get(pk=bad.pk).status == "CREATED"
    assert "kept webhook not booked" in caplog.text


PARTS = {
    "orders": (sweeping, "sweep_orders"),
    "payments": (sweeping, "sweep_payments"),
    "notices": (webhooks, "book_kept"),
    "orphans": (orphans.OrphanSearch, "step"),
}


@pytest.mark.parametrize("bad", PARTS)
def test_a_part_of_the_sweeper_that_fails_keeps_no_other_from_its_work(db, monkeypatch, bad):
    called = []

    def part(name):
        def work(*args):
            called.append(name)
            if name == bad:
                raise RuntimeError("a bug")
            return 1

        return work

    for name, (owner, attribute) in PARTS.items():
        monkeypatch.setattr(owner, attribute, part(name))

    assert sweeping.Sweeper().step() == len(PARTS) - 1
    assert called == list(PARTS)


@pytest.mark.parametrize("wrong", [{"amount": 1}, {"currency": "USD"}], ids=str)
def test_a_kept_notice_of_another_amount_is_refused_when_its_payment_appears(
    ann, order_id, unknown, wrong, caplog
):
    assert deliver(sandbox.notice_body(unknown, Outcome.CAPTURED, **wrong)).status_code == 200

    with caplog.at_level("ERROR"):
        paid = pay_later(ann, order_id)

    assert paid["payment"]["status"] == "CREATED"
    assert WebhookNotice.objects.get().refusal == "amount_mismatch"
    assert "kept webhook refused" in caplog.text
    assert webhooks.book_kept() == 0


@pytest.mark.parametrize(
    "wrong", [{"amount": "1"}, {"amount": -1}, {"amount": True}, {"amount": 2**63}, {"currency": 7}]
)
def test_a_notice_of_no_amount_is_not_kept(ann, unknown, wrong):
    answer = deliver(sandbox.notice_body(unknown, Outcome.CAPTURED, **wrong))

    assert (answer.status_code, answer.json()["code"]) == (400, "webhook_refused")
    assert not WebhookNotice.objects.exists()


def test_money_for_no_payment_shows_in_the_audit_after_thirty_seconds(ann, unknown):
    deliver(sandbox.notice_body(unknown, Outcome.CAPTURED))
    assert violations() == []

    WebhookNotice.objects.update(received_at=timezone.now() - timedelta(seconds=31))

    [violation] = violations()
    assert str(unknown.pk) in violation
    assert "5000 EUR captured" in violation


def test_news_of_no_money_for_no_payment_is_no_finding_and_is_forgotten(ann, unknown):
    for outcome in (Outcome.DECLINED, Outcome.PENDING):
        deliver(sandbox.notice_body(unknown, outcome))
    assert notices.purge_notices() == 0
    let_days_pass()
    assert violations() == []

    assert notices.purge_notices() == 2


def test_booked_notices_are_forgotten_after_two_days_and_unbooked_money_never(ann, unknown):
    long_ago = timezone.now() - notices.RETENTION - timedelta(seconds=1)
    for booked_at in (long_ago, timezone.now(), None):
        deliver(sandbox.notice_body(unknown, Outcome.CAPTURED))
        newest = WebhookNotice.objects.order_by("-pk")[:1].get()
        WebhookNotice.objects.filter(pk=newest.pk).update(booked_at=booked_at, received_at=long_ago)

    assert notices.purge_notices() == 1
    assert sorted(n.booked_at is None for n in WebhookNotice.objects.all()) == [False, True]
    assert notices.purge_notices() == 0
