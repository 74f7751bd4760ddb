"""The sandbox's page: every case that a provider can make a shop suffer, played for real."""

from __future__ import annotations

import time

import pytest

from services.order.models import Order, Payment, WebhookNotice
from services.order.providers import sandbox_page
from tests.order.driver import order_events, violations

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("webhooks")]

TAKEN = {"status": 200, "code": "", "detail": ""}


@pytest.mark.parametrize("outcome", ["captured", "declined"])
def test_playing_it_twice_is_two_webhooks_and_one_booking(ann, pending, outcome):
    answer = ann.settle(str(pending.pk), outcome, play="twice")

    assert (answer.status, answer.body["status"]) == (200, outcome.upper())
    assert answer.body["deliveries"] == [TAKEN, TAKEN]
    assert WebhookNotice.objects.count() == 2
    assert order_events().count("order.paid") == (1 if outcome == "captured" else 0)
    assert violations() == []


@pytest.mark.parametrize(
    ("play", "code"), [("wrong_amount", "amount_mismatch"), ("forged", "webhook_refused")]
)
def test_what_the_shop_refuses_is_told_and_the_payment_stays_open(ann, pending, play, code):
    answer = ann.settle(str(pending.pk), "captured", play=play)

    assert (answer.status, answer.body["status"]) == (200, "CREATED")
    [delivery] = answer.body["deliveries"]
    assert (delivery["status"], delivery["code"]) == (400, code)
    assert delivery["detail"]
    assert Order.objects.get().status == "AWAITING_PAYMENT"
    assert not WebhookNotice.objects.filter(refusal="").exists()
    assert ann.settle(str(pending.pk), "captured").body["status"] == "CAPTURED"


def test_a_webhook_that_comes_later_comes_by_itself(ann, pending, monkeypatch):
    monkeypatch.setattr(sandbox_page, "LATER_SECONDS", 0.2)

    answer = ann.settle(str(pending.pk), "captured", play="later")

    assert (answer.body["status"], answer.body["deliveries"]) == ("CREATED", [])
    deadline = time.monotonic() + 10
    while Order.objects.get().status != "CONFIRMED" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (Order.objects.get().status, Payment.objects.get().status) == ("CONFIRMED", "CAPTURED")


def test_only_so_many_webhooks_may_wait(ann, pending, monkeypatch):
    monkeypatch.setattr(sandbox_page, "_later", sandbox_page.threading.BoundedSemaphore(1))
    monkeypatch.setattr(sandbox_page, "LATER_SECONDS", 0.2)
    ann.settle(str(pending.pk), "captured", play="later")

    too_many = ann.settle(str(pending.pk), "captured", play="later")

    assert (too_many.status, too_many.code) == (503, "webhook_not_delivered")
    assert sandbox_page._later.acquire(timeout=10), "and its place is free again"


@pytest.mark.parametrize("play", ["", "thrice", 1, None, ["once"]])
def test_a_play_that_does_not_exist_is_refused_by_name(ann, pending, play):
    answer = ann.settle(str(pending.pk), "captured", play=play)

    assert (answer.status, answer.code) == (400, "validation_error")
    assert answer.body["errors"][0]["field"] == "play"


@pytest.mark.parametrize("play", ["once", "twice", "later", "wrong_amount", "forged"])
def test_what_is_settled_stays_so_whatever_is_played(ann, pending, play):
    ann.settle(str(pending.pk), "declined")

    answer = ann.settle(str(pending.pk), "captured", play=play)

    assert (answer.status, answer.code) == (409, "payment_already_settled")


def test_other_peoples_payments_are_not_to_be_played_with(ann, bob, pending):
    assert bob.settle(str(pending.pk), "captured", play="twice").status == 404
