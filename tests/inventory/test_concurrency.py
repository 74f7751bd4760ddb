"""What must hold when calls meet: real threads, stopped where the race would be decided."""

from __future__ import annotations

from collections import Counter
from functools import partial

import pytest
from django.db import connection, transaction

from services.inventory import deciding, expiry, limits, stock
from services.inventory.models import Reservation, StockMovement
from tests.common.concurrency import meet_before, times, together
from tests.inventory.books import counters, ledger_of, make_overdue, status_of, violations
from tests.inventory.driver import decide_group, entry, reserve_group

pytestmark = pytest.mark.django_db(transaction=True)


def told(answers) -> Counter:
    """Count the answers by (status, code)."""
    return Counter((answer.status, answer.code) for answer in answers)


def test_the_last_unit_goes_to_one_of_fifty(order, tickets):
    tickets(1)

    answers = together(*(partial(order.reserve, f"r{n}") for n in range(50)))

    assert told(answers) == {(201, None): 1, (409, "insufficient_stock"): 49}
    assert counters() == (0, 1, 0)
    assert Reservation.objects.filter(status="FAILED").count() == 49
    assert violations() == []


def test_fifty_buyers_of_ten_units_never_get_eleven(order, tickets):
    tickets(10)

    answers = together(*(partial(order.reserve, f"r{n}", quantity=1 + n % 3) for n in range(50)))

    sold = sum(answer.body["quantity"] for answer in answers if answer.status == 201)
    available, reserved, _ = counters()
    assert (sold, available) == (reserved, 10 - reserved)
    assert available == 0, "single units were still wanted"
    assert violations() == []


def test_two_releases_at_once_give_the_unit_back_once(order, tickets, deciding_at_once):
    tickets(5)
    order.reserve("r", quantity=2)
    deciding_at_once()

    answers = together(*times(2, partial(order.release, "r")))

    assert told(answers) == {(200, None): 2}
    assert counters() == (5, 0, 0)
    assert ledger_of("r") == ["reserve", "release"]
    assert violations() == []


def test_two_commits_at_once_sell_the_unit_once(order, tickets, deciding_at_once):
    tickets(5)
    order.reserve("r", quantity=2)
    deciding_at_once()

    answers = together(*times(2, partial(order.commit, "r")))

    assert told(answers) == {(200, None): 2}
    assert counters() == (3, 0, 2)
    assert ledger_of("r") == ["reserve", "commit"]
    assert violations() == []


@pytest.mark.parametrize("run", range(5))
def test_release_and_commit_at_once_one_of_them_wins(order, tickets, deciding_at_once, run):
    tickets(5)
    order.reserve("r", quantity=2)
    deciding_at_once()

    released, committed = together(partial(order.release, "r"), partial(order.commit, "r"))

    if committed.status == 200:
        assert (released.status, released.code) == (409, "reservation_already_committed")
        assert (counters(), ledger_of("r")) == ((3, 0, 2), ["reserve", "commit"])
    else:
        assert (committed.status, committed.code) == (409, "reservation_already_released")
        assert released.status == 200
        assert (counters(), ledger_of("r")) == ((5, 0, 0), ["reserve", "release"])
    assert violations() == []


@pytest.mark.parametrize("run", range(5))
def test_expiry_and_commit_at_once_one_of_them_wins(order, tickets, deciding_at_once, run):
    tickets(5)
    order.reserve("r", quantity=2)
    make_overdue("r")
    deciding_at_once()

    _, committed = together(expiry.expire_batch, partial(order.commit, "r"))

    if committed.status == 200:
        assert (counters(), ledger_of("r")) == ((3, 0, 2), ["reserve", "commit"])
    else:
        assert (committed.status, committed.code) == (409, "reservation_expired")
        assert (counters(), ledger_of("r")) == ((5, 0, 0), ["reserve", "expire"])
    assert violations() == []


def test_expiry_and_release_at_once_give_the_unit_back_once(order, tickets, deciding_at_once):
    tickets(5)
    order.reserve("r", quantity=2)
    make_overdue("r")
    deciding_at_once()

    _, released = together(expiry.expire_batch, partial(order.release, "r"))

    assert released.status == 200
    assert counters() == (5, 0, 0)
    assert len(ledger_of("r")) == 2
    assert violations() == []


@pytest.mark.parametrize("threads", [2, 10])
def test_one_id_sent_many_times_at_once_is_one_reservation(order, tickets, racing, threads):
    tickets(50)
    racing(threads)

    answers = together(*times(threads, partial(order.reserve, "r", quantity=2)))

    assert told(answers) == {(201, None): 1, (200, None): threads - 1}
    assert len({answer.body["expires_at"] for answer in answers}) == 1
    assert counters() == (48, 2, 0)
    assert ledger_of("r") == ["reserve"]
    assert violations() == []


def test_one_refused_id_sent_many_times_at_once_is_refused_once(order, tickets, racing):
    tickets(1)
    racing(10)

    answers = together(*times(10, partial(order.reserve, "r", quantity=2)))

    assert told(answers) == {(409, "insufficient_stock"): 10}
    assert ledger_of("r") == ["refuse"]
    assert violations() == []


def test_one_id_with_different_fields_at_once_belongs_to_one_of_them(order, tickets, racing):
    tickets(50, 50)
    racing(10)

    answers = together(
        *(partial(order.reserve, "r", ticket_id=1 + n % 2, quantity=1 + n // 2) for n in range(10))
    )

    assert told(answers) == {(201, None): 1, (422, "reservation_mismatch"): 9}
    assert counters(1)[1] + counters(2)[1] == Reservation.objects.get().quantity
    assert violations() == []


def test_one_id_without_stock_sent_many_times_at_once_leaves_nothing(order, racing):
    racing(10)

    answers = together(*times(10, partial(order.reserve, "r", ticket_id=9)))

    # Rows that are inserted and rolled back by ten at once may cost MySQL more deadlocks than
    # there are retries; "try again" is then a right answer too.
    assert set(told(answers)) <= {(404, "ticket_not_found"), (503, "database_unavailable")}
    assert (404, "ticket_not_found") in told(answers)
    assert status_of("r") is None


def test_one_group_sent_many_times_at_once_is_one_group(order, tickets, racing):
    tickets(50, 50)
    racing(8)
    group = reserve_group(entry("a", 2, 2), entry("b", 1, 3))

    answers = together(*times(8, partial(order.batch, group)))

    statuses = Counter(
        tuple(one["status"] for one in answer.body["groups"][0]["entries"]) for answer in answers
    )
    assert statuses == {(201, 201): 1, (200, 200): 7}
    assert (counters(1), counters(2)) == ((47, 3, 0), (48, 2, 0))
    assert violations() == []


def test_groups_over_the_same_tickets_in_any_order_all_come_through(order, tickets, racing):
    tickets(50, 50, 50)
    racing(10)

    def one(n: int):
        wanted = [1, 2, 3] if n % 2 else [3, 2, 1]
        return order.batch(reserve_group(*(entry(f"r{n}-{t}", t) for t in wanted)))

    answers = together(*(partial(one, n) for n in range(10)))

    assert all(answer.body["groups"][0]["ok"] for answer in answers)
    assert [counters(ticket) for ticket in (1, 2, 3)] == [(40, 10, 0)] * 3
    assert violations() == []


@pytest.mark.parametrize("threads", [2, 30])
def test_a_buyers_limit_holds_when_all_orders_come_at_once(order, tickets, racing, threads):
    tickets(100)
    racing(threads)

    answers = together(
        *(
            partial(order.reserve, f"r{n}", quantity=2, buyer_id="ann", buyer_limit=3)
            for n in range(threads)
        )
    )

    assert told(answers) == {(201, None): 1, (409, "limit_exceeded"): threads - 1}
    assert counters() == (98, 2, 0)
    assert violations() == []


def test_initialising_twice_at_once_sets_the_stock_once(admin, monkeypatch):
    meet_before(monkeypatch, stock, "in_transaction", parties=2)

    answers = together(partial(admin.set_stock, 1, 10), partial(admin.set_stock, 1, 20))

    assert sorted(answer.status for answer in answers) == [200, 201]
    later = max(answers, key=lambda answer: answer.body["version"])
    assert admin.stock().body == later.body
    assert (later.body["version"], later.body["available"]) == (2, later.body["total"])
    assert violations() == []


@pytest.mark.parametrize("run", range(3))
def test_initialising_and_racing_keep_the_books_right(admin, order, tickets, run):
    tickets(10)

    reset, reserved = together(partial(admin.set_stock, 1, 20), partial(order.reserve, "r"))

    assert reserved.status == 201
    if reset.status == 200:
        assert counters() == (19, 1, 0)
    else:
        assert (reset.status, reset.code) == (409, "stock_in_use")
        assert counters() == (9, 1, 0)
    assert violations() == []


def test_taking_stock_away_and_racing_never_go_below_zero(admin, order, tickets):
    tickets(10)
    takers = [partial(admin.adjust, 1, -3) for _ in range(6)]
    buyers = [partial(order.reserve, f"r{n}", quantity=2) for n in range(6)]

    answers = together(*takers, *buyers)

    assert set(told(answers)) <= {(200, None), (201, None), (409, "insufficient_stock")}
    taken = 3 * sum(answer.status == 200 for answer in answers[:6])
    held = 2 * sum(answer.status == 201 for answer in answers[6:])
    assert counters() == (10 - taken - held, held, 0)
    assert counters()[0] < 3, "what was left was wanted"
    assert violations() == []


def test_parallel_adjustments_add_up(admin, tickets):
    tickets(100)

    together(*(partial(admin.adjust, 1, delta) for delta in [5, -3] * 8))

    assert counters() == (100 + 16, 0, 0)
    assert StockMovement.objects.filter(kind="adjust").count() == 16
    assert violations() == []


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="SQLite has one writer at a time")
@pytest.mark.parametrize("name", ["commit", "release"])
@pytest.mark.parametrize("other", ["commit", "release"])
def test_a_reservation_that_another_decides_after_it_was_read_is_looked_up_again(
    order, tickets, alone, monkeypatch, name, other
):
    """What was read says RESERVED, and the deciding UPDATE finds that it is not."""
    tickets(5)
    order.reserve("r", quantity=2)
    move = deciding._move

    def decide_meanwhile(*args, **kwargs):
        monkeypatch.setattr(deciding, "_move", move)
        together(partial(getattr(order, other), "r"))
        return move(*args, **kwargs)

    monkeypatch.setattr(deciding, "_move", decide_meanwhile)
    answer = getattr(order, name)("r")

    refused = {"commit": "reservation_already_released", "release": "reservation_already_committed"}
    expected = (200, None) if name == other else (409, refused[name])
    assert (answer.status, answer.code) == expected
    assert ledger_of("r") == ["reserve", other]
    assert violations() == []


def test_these_tests_run_on_the_database_they_were_asked_to(settings):
    engine = settings.DATABASES["default"]["ENGINE"].rpartition(".")[2]
    assert connection.vendor == {"mysql": "mysql", "sqlite3": "sqlite"}[engine]


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="a matter of MySQL's plans")
def test_deciding_looks_for_reservations_by_id_and_not_by_their_state(order, tickets):
    """By an index on the state it would wait for every reservation that anybody decides."""
    tickets(1000)
    for number in range(40):
        order.reserve(f"r{number}")
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE TABLE reservation")
    ids = [f"r{number}" for number in range(40)]
    plan = Reservation.objects.filter(deciding._is_in("RESERVED"), pk__in=ids).explain()
    assert "reservation_overdue" not in plan
    assert "reservation_age" not in plan


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="SQLite has one writer at a time")
@pytest.mark.parametrize("name", ["commit", "release"])
def test_what_others_hold_of_another_ticket_is_not_waited_for(order, tickets, name):
    tickets(1000, 1000)
    for number in range(40):
        order.reserve(f"r{number}", buyer_id=f"b{number:02}", buyer_limit=3)
    order.reserve("other", 2, buyer_id="b05", buyer_limit=3)
    answers = []

    def decide_and_buy():
        # Waiting would end in 503 after a second; a new buyer falls between those of ticket 2.
        answers.append(order.batch(*(decide_group(name, f"r{number}") for number in range(40))))
        answers.append(order.reserve("new", 1, buyer_id="zoe", buyer_limit=3))

    with transaction.atomic():
        Reservation.objects.filter(pk="other").update(reason="held")
        limits.count({(2, "b05"): 1})
        together(decide_and_buy)
        transaction.set_rollback(True)

    assert all(group["ok"] for group in answers[0].body["groups"])
    assert answers[1].status == 201
