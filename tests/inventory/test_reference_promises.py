"""Where the reference breaks its own promises: the points that inventory can show alone.

The numbers are those of the mission; each test replays what goes wrong in the reference.
"""

from __future__ import annotations

from functools import partial

import pytest
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from services.inventory import expiry
from services.inventory.models import Reservation, StockMovement
from tests.common.concurrency import times, together
from tests.inventory.books import counters, ledger_of, make_overdue, status_of, violations
from tests.inventory.driver import Caller, decide_group, entry, reserve_group

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("end", ["RELEASED", "FAILED"])
def test_1_commit_on_a_released_or_failed_reservation_takes_nobodys_unit(order, tickets, end):
    tickets(2)
    order.reserve("mine", quantity=9 if end == "FAILED" else 1)
    order.release("mine")
    order.reserve("theirs", quantity=1)

    answer = order.commit("mine")

    assert answer.status == 409
    assert answer.code in ("reservation_already_released", "reservation_failed")
    assert (status_of("mine"), counters()) == (end, (1, 1, 0))
    assert order.commit("theirs").status == 200, "the other buyer's unit is still there"
    assert violations() == []


def test_2_two_releases_at_once_make_no_phantom_stock(order, tickets, deciding_at_once):
    tickets(5)
    order.reserve("r", quantity=2)
    order.reserve("other", quantity=3)
    deciding_at_once()

    together(*times(2, partial(order.release, "r")))

    assert counters() == (2, 3, 0)
    assert violations() == []


def test_2_release_and_commit_at_once_do_not_both_apply(order, tickets, deciding_at_once):
    tickets(5)
    order.reserve("r", quantity=2)
    order.reserve("other", quantity=3)
    deciding_at_once()

    answers = together(partial(order.release, "r"), partial(order.commit, "r"))

    assert sorted(answer.status for answer in answers) == [200, 409]
    assert counters() in [(2, 3, 0), (0, 3, 2)]
    assert violations() == []


def test_3_a_refusal_stays_written_with_its_reason(order, tickets):
    tickets(1)

    assert order.reserve("r", quantity=2).status == 409

    kept = order.reservation("r").body
    assert (kept["status"], kept["reason"]) == ("FAILED", "insufficient_stock")
    assert [(step["from"], step["to"]) for step in kept["transitions"]] == [("INIT", "FAILED")]


def test_4_a_duplicate_id_at_the_same_moment_gets_the_idempotent_answer(order, tickets, racing):
    tickets(5)
    racing(8)

    answers = together(*times(8, partial(order.reserve, "r", quantity=2)))

    assert sorted(answer.status for answer in answers) == [200] * 7 + [201]
    assert {answer.body["status"] for answer in answers} == {"RESERVED"}
    assert counters() == (3, 2, 0)


@pytest.mark.parametrize("other", [{"ticket_id": 2}, {"quantity": 1}, {"buyer_id": "eve"}])
def test_5_the_same_id_with_other_fields_is_not_answered_from_the_old_one(order, tickets, other):
    tickets(5, 5)
    fields = {"ticket_id": 1, "quantity": 2, "buyer_id": "ann"}
    order.reserve("r", **fields)

    answer = order.reserve("r", **{**fields, **other})

    assert (answer.status, answer.code) == (422, "reservation_mismatch")
    assert (counters(1), counters(2)) == ((3, 2, 0), (5, 0, 0))


def test_7_a_reserve_whose_answer_was_lost_is_given_back_when_its_time_is_over(order, tickets):
    tickets(5)
    lost = order.reserve("r", quantity=2)  # nobody ever hears of it
    assert parse_datetime(lost.body["expires_at"]) > timezone.now(), "an end was set"
    make_overdue("r")

    expiry.expire_batch()

    assert (status_of("r"), counters()) == ("RELEASED", (5, 0, 0))
    assert Reservation.objects.filter(expires_at=None).count() == 0


@pytest.mark.parametrize("who", ["nobody", "a header", "user", "service"])
def test_9_stock_is_set_by_admins_only(access_token, service_token_for, admin, who):
    admin.set_stock(1, 10)
    token = {"user": access_token(role="user"), "service": service_token_for("order")}.get(who)
    caller = Caller(token)
    claims = {"x_user_id": "7", "x_user_role": "ADMIN"} if who == "a header" else {}

    for method, path, body in (
        ("PUT", "/api/inventory/stocks/1", {"total": 99}),
        ("POST", "/api/inventory/stocks/1/adjust", {"delta": 9}),
    ):
        assert caller.call(method, path, body, **claims).status in (401, 403)

    assert counters() == (10, 0, 0)


def test_9_the_ledger_names_the_caller_of_the_token_and_not_of_a_header(admin):
    admin.call("PUT", "/api/inventory/stocks/1", {"total": 5}, x_user_id="1", x_user_name="eve")
    assert StockMovement.objects.get().actor == "admin:root"


def test_12_a_commit_that_fails_on_one_item_sells_none_of_them(order, tickets):
    tickets(5, 5, 5)
    order.batch(reserve_group(entry("a", 1), entry("b", 2), entry("c", 3)))
    order.release("b")

    answer = order.batch(decide_group("commit", "a", "b", "c"))

    assert answer.body["groups"][0]["ok"] is False
    assert [status_of(one) for one in "abc"] == ["RESERVED", "RELEASED", "RESERVED"]
    assert [counters(ticket) for ticket in (1, 2, 3)] == [(4, 1, 0), (5, 0, 0), (4, 1, 0)]
    assert [ledger_of(one)[-1] for one in "abc"] == ["reserve", "release", "reserve"]
    assert violations() == []


def test_13_stock_can_be_read_restocked_and_corrected(admin, order):
    admin.set_stock(1, 5)
    order.reserve("r", quantity=2)

    restocked = admin.adjust(1, 10)
    corrected = admin.adjust(1, -3)

    assert (restocked.body["total"], corrected.body["total"]) == (15, 12)
    assert admin.stock().body == corrected.body == order.stock().body
    assert violations() == []


def test_13_a_reservation_can_be_read(order, tickets):
    tickets(5)
    order.reserve("r", quantity=2, buyer_id="ann")
    order.commit("r")

    answer = order.reservation("r")

    assert answer.status == 200
    expected = {"reservation_id": "r", "ticket_id": 1, "quantity": 2, "status": "COMMITTED"}
    assert expected.items() <= answer.body.items()
