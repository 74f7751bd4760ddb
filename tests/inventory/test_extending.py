"""More time for a hold whose payment is pending: once, and only while it is a hold."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils.dateparse import parse_datetime

from services.inventory import expiry
from services.inventory.models import Reservation
from tests.common.concurrency import times, together
from tests.common.faults import losing_the_answer_to_a_commit
from tests.inventory.books import counters, ledger_of, make_overdue, violations
from tests.inventory.conftest import user_token
from tests.inventory.driver import RESERVATIONS, Caller, decide_group

pytestmark = pytest.mark.django_db(transaction=True)
EXTENSION = timedelta(seconds=300)


@pytest.fixture
def extend(order):
    """Return what asks for more time."""
    return lambda reservation_id: order.call("POST", f"{RESERVATIONS}/{reservation_id}/extend")


def end_of(answer):
    return parse_datetime(answer.body["expires_at"])


def test_a_hold_is_extended_once_and_asking_again_changes_nothing(order, tickets, extend):
    tickets(5)
    first = end_of(order.reserve("r", quantity=2))

    answers = [extend("r") for _ in range(3)]

    assert [answer.status for answer in answers] == [200] * 3
    assert {end_of(answer) for answer in answers} == {first + EXTENSION}
    assert (counters(), ledger_of("r"), violations()) == ((3, 2, 0), ["reserve"], [])


def test_many_who_ask_at_once_extend_it_once(order, tickets, extend):
    tickets(5)
    first = end_of(order.reserve("r"))
    answers = together(*times(8, lambda: extend("r")))
    assert {end_of(answer) for answer in answers} == {first + EXTENSION}


def test_an_extended_hold_lapses_in_the_end(order, tickets, extend):
    tickets(5)
    order.reserve("r")
    extend("r")
    assert expiry.expire_batch() == 0
    make_overdue("r")
    assert expiry.expire_batch() == 1


def test_an_overdue_hold_that_was_not_given_back_yet_is_saved(order, tickets, extend):
    tickets(5)
    order.reserve("r")
    make_overdue("r")
    assert extend("r").status == 200
    assert expiry.expire_batch() == 0


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("commit", "reservation_already_committed"),
        ("release", "reservation_already_released"),
        ("expire", "reservation_expired"),
        ("fail", "reservation_failed"),
    ],
)
def test_what_is_decided_cannot_be_extended(order, tickets, extend, end, code):
    tickets(5)
    order.reserve("r", quantity=9 if end == "fail" else 1)
    if end == "expire":
        make_overdue("r")
        expiry.expire_batch()
    elif end != "fail":
        getattr(order, end)("r")
    before = Reservation.objects.get(pk="r").expires_at

    answer = extend("r")

    assert (answer.status, answer.code) == (409, code)
    assert Reservation.objects.get(pk="r").expires_at == before


def test_nobody_is_not_found(extend):
    assert (extend("nobody").status, extend("nobody").code) == (404, "reservation_not_found")


def test_it_can_be_switched_off(order, tickets, extend, settings):
    settings.HOLD_EXTENSION_SECONDS = 0
    tickets(5)
    first = end_of(order.reserve("r"))
    assert extend("r").code == "extension_not_allowed"
    assert end_of(order.reserve("r")) == first


def test_a_lost_answer_to_commit_extends_once(order, tickets, extend):
    tickets(5)
    first = end_of(order.reserve("r"))
    with losing_the_answer_to_a_commit(of_table="reservation") as lost:
        answer = extend("r")
    assert lost
    assert (answer.status, end_of(answer)) == (200, first + EXTENSION)


def test_services_extend_in_a_batch_each_for_itself(order, tickets):
    tickets(5)
    order.reserve("a")
    order.reserve("b")
    order.commit("b")

    answer = order.batch(decide_group("extend", "a", "b", "nobody"))

    [group] = answer.body["groups"]
    assert [one["status"] for one in group["entries"]] == [200, 409, 404]
    assert not group["ok"]


def test_only_services_and_admins_may(tickets, order):
    tickets(1)
    order.reserve("r")
    path = f"{RESERVATIONS}/r/extend"
    assert Caller(user_token()).call("POST", path).status == 403
    assert Caller(None).call("POST", path).status == 401
