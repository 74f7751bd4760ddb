"""Stock through the API: set, set again, read, adjust; under an Idempotency-Key exactly once."""

from __future__ import annotations

from functools import partial

import pytest

from common.idempotency.models import IdempotencyRecord
from services.inventory import stock
from services.inventory.models import STOCK_MAX, StockMovement
from tests.common.concurrency import meet_before, times, together
from tests.common.faults import losing_the_answer_to_a_commit
from tests.inventory.books import counters, violations
from tests.inventory.driver import STOCKS, Caller

pytestmark = pytest.mark.django_db(transaction=True)


def test_stock_is_set_once_and_again_until_it_is_used(admin):
    first = admin.set_stock(1, 10)
    again = admin.set_stock(1, 20)

    zero = {"ticket_id": 1, "reserved": 0, "sold": 0}
    assert (first.status, first.body) == (201, {**zero, "total": 10, "available": 10, "version": 1})
    assert (again.status, again.body) == (200, {**zero, "total": 20, "available": 20, "version": 2})
    assert admin.stock().body == again.body


@pytest.mark.parametrize("ending", [None, "commit"])
def test_stock_in_use_cannot_be_set(admin, order, ending):
    admin.set_stock(1, 10)
    order.reserve("r", quantity=2)
    if ending:
        getattr(order, ending)("r")
    before = admin.stock().body

    answer = admin.set_stock(1, 50)

    assert (answer.status, answer.code) == (409, "stock_in_use")
    assert admin.stock().body == before


def test_stock_that_was_released_can_be_set_again(admin, order):
    admin.set_stock(1, 10)
    order.reserve("r", quantity=2)
    order.release("r")

    assert admin.set_stock(1, 50).status == 200
    assert counters() == (50, 0, 0)
    assert violations() == []


def test_stock_may_be_nothing_and_as_much_as_a_billion(admin, order):
    assert admin.set_stock(1, 0).status == 201
    assert order.reserve("r").code == "insufficient_stock"
    assert admin.set_stock(2, STOCK_MAX).status == 201
    assert order.reserve("s", 2, 10_000).status == 201


def test_stock_of_an_unknown_ticket_is_not_found(admin):
    assert (admin.stock(9).status, admin.stock(9).code) == (404, "stock_not_found")
    assert (admin.adjust(9, 1).status, admin.adjust(9, 1).code) == (404, "stock_not_found")


def test_stock_can_be_added_and_taken_while_it_is_sold(admin, order):
    admin.set_stock(1, 10)
    order.reserve("r", quantity=4)

    assert admin.adjust(1, 5).body["available"] == 11
    answer = admin.adjust(1, -11)

    assert (answer.status, answer.body["available"], answer.body["total"]) == (200, 0, 4)
    assert counters() == (0, 4, 0)
    assert violations() == []


def test_what_is_reserved_or_sold_cannot_be_taken_away(admin, order):
    admin.set_stock(1, 10)
    order.reserve("r", quantity=4)

    answer = admin.adjust(1, -7)

    assert (answer.status, answer.code, answer.body["available"]) == (409, "insufficient_stock", 6)
    assert counters() == (6, 4, 0)
    assert StockMovement.objects.filter(kind="adjust").count() == 0


def test_stock_cannot_grow_beyond_a_billion(admin):
    admin.set_stock(1, STOCK_MAX - 1)

    assert admin.adjust(1, 1).status == 200
    answer = admin.adjust(1, 1)

    assert (answer.status, answer.code) == (409, "stock_too_large")
    assert counters() == (STOCK_MAX, 0, 0)


def test_without_a_key_every_adjustment_counts(admin):
    admin.set_stock(1, 10)
    admin.adjust(1, 5)
    admin.adjust(1, 5)
    assert counters() == (20, 0, 0)


def test_with_a_key_the_adjustment_happens_once_and_is_answered_again(admin, order):
    admin.set_stock(1, 10)
    first = admin.adjust(1, 5, key="k-1")
    order.reserve("r", quantity=3)

    again = admin.adjust(1, 5, key="k-1")

    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    assert counters() == (12, 3, 0)
    assert violations() == []


def test_a_key_sent_with_another_delta_is_refused(admin):
    admin.set_stock(1, 10)
    admin.adjust(1, 5, key="k")

    answer = admin.adjust(1, 6, key="k")

    assert (answer.status, answer.code) == (422, "idempotency_key_reused")
    assert counters() == (15, 0, 0)


def test_a_key_counts_per_ticket_and_per_admin(admin, access_token):
    other = Caller(access_token(role="admin", user_id=8, username="eve"))
    for ticket_id in (1, 2):
        admin.set_stock(ticket_id, 10)

    answers = [
        admin.adjust(1, 5, key="k"),
        admin.adjust(2, 6, key="k"),
        other.adjust(1, 7, key="k"),
    ]

    assert [answer.status for answer in answers] == [200, 200, 200]
    assert (counters(1), counters(2)) == ((22, 0, 0), (16, 0, 0))


def test_a_refusal_under_a_key_is_kept_like_any_final_answer(admin):
    admin.set_stock(1, 10)
    first = admin.adjust(1, -20, key="k")
    admin.adjust(1, 100)

    again = admin.adjust(1, -20, key="k")

    assert (first.status, first.code) == (409, "insufficient_stock")
    assert (again.status, again.body) == (first.status, first.body)
    assert again.headers["Content-Type"] == "application/problem+json"
    assert again.headers["Idempotent-Replayed"] == "true"
    assert counters() == (110, 0, 0)


def test_one_key_sent_many_times_at_once_adjusts_once(admin, tickets):
    tickets(10)

    answers = together(*times(12, partial(admin.adjust, 1, 5, key="k")))

    assert {answer.status for answer in answers} == {200}
    assert len({str(answer.body) for answer in answers}) == 1
    assert sum("Idempotent-Replayed" in answer.headers for answer in answers) == 11
    assert counters() == (15, 0, 0)


def test_one_admin_setting_and_another_adjusting_at_once_add_up(admin, tickets, monkeypatch):
    tickets(10)
    meet_before(monkeypatch, stock, "in_transaction", parties=2)

    reset, adjusted = together(partial(admin.set_stock, 1, 50), partial(admin.adjust, 1, 5))

    assert (reset.status, adjusted.status) == (200, 200)
    assert counters()[0] in (50, 55)
    assert violations() == []


@pytest.mark.parametrize("key", [None, "k"])
def test_a_lost_answer_to_commit_never_adjusts_twice(admin, tickets, key):
    tickets(10)

    with losing_the_answer_to_a_commit(of_table="stock_movement") as lost:
        answer = admin.adjust(1, 5, key=key)

    assert lost
    assert (answer.status, answer.code) in [(200, None), (503, "database_unavailable")]
    assert counters() == (15, 0, 0)
    if key:
        assert answer.status == 200, "with a key, the answer can be told for certain"
        assert admin.adjust(1, 5, key=key).body == answer.body
        assert counters() == (15, 0, 0)
    assert violations() == []


def test_keys_are_forgotten_after_their_time_by_a_loop(settings):
    assert any("idempotency" in path for path in settings.LOOPS)


def test_a_get_leaves_no_trace(admin, tickets):
    tickets(10)
    admin.call("GET", f"{STOCKS}/1", idempotency_key="k")
    assert IdempotencyRecord.objects.count() == 0
