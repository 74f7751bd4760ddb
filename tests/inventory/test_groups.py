"""Groups: all entries of one happen or none, also when some of them were sent before."""

from __future__ import annotations

import pytest
from django.db import OperationalError

from services.inventory import reservations
from services.inventory.models import BuyerHold, Reservation
from tests.inventory.books import counters, ledger_of, status_of, violations
from tests.inventory.driver import decide_group, entry, reserve_group

pytestmark = pytest.mark.django_db(transaction=True)


def run(order, group):
    """Send one group; return (ok, [(status, code of the error or None), …])."""
    answer = order.batch(group)
    assert answer.status == 200
    result = answer.body["groups"][0]
    entries = [
        (one["status"], one["error"]["code"] if one["error"] else None) for one in result["entries"]
    ]
    return result["ok"], entries


def test_a_group_reserves_all_its_entries(order, tickets):
    tickets(10, 10)

    assert run(order, reserve_group(entry("b", 2, 3), entry("a", 1, 2))) == (
        True,
        [(201, None), (201, None)],
    )

    assert (counters(1), counters(2)) == ((8, 2, 0), (7, 3, 0))
    assert violations() == []


@pytest.mark.parametrize("order_of_tickets", [(1, 2), (2, 1)])
def test_a_group_with_one_entry_that_does_not_fit_takes_nothing(order, tickets, order_of_tickets):
    tickets(10, 1)
    wanted = {1: entry("fits", 1, 2), 2: entry("lacks", 2, 2)}

    ok, entries = run(order, reserve_group(*(wanted[ticket] for ticket in order_of_tickets)))

    codes = dict(zip(order_of_tickets, entries, strict=True))
    assert not ok
    assert codes == {1: (409, "group_refused"), 2: (409, "insufficient_stock")}
    assert (counters(1), counters(2)) == ((10, 0, 0), (1, 0, 0))
    assert violations() == []


def test_a_refused_group_is_recorded_as_failed_with_reasons_and_ledger(order, tickets):
    tickets(10, 1)
    group = reserve_group(entry("fits", 1, 2, buyer_id="ann"), entry("lacks", 2, 2))

    first = run(order, group)

    rows = {row.pk: (row.status, row.reason) for row in Reservation.objects.all()}
    assert rows == {"fits": ("FAILED", "group_refused"), "lacks": ("FAILED", "insufficient_stock")}
    assert (ledger_of("fits"), ledger_of("lacks")) == (["refuse"], ["refuse"])
    assert sum(BuyerHold.objects.values_list("quantity", flat=True)) == 0
    assert run(order, group) == first, "a replay gets the same answer"
    assert ledger_of("fits") == ["refuse"]


def test_the_answer_says_what_is_left_of_the_ticket_that_lacked(order, tickets):
    tickets(10, 1)

    answer = order.batch(reserve_group(entry("fits", 1, 2), entry("lacks", 2, 2)))

    error = answer.body["groups"][0]["entries"][1]["error"]
    assert (error["ticket_id"], error["available"]) == (2, 1)


def test_a_group_beyond_a_limit_takes_nothing(order, tickets):
    tickets(10, 10)
    over = entry("over", 1, 3, buyer_id="ann", buyer_limit=2)

    ok, entries = run(order, reserve_group(over, entry("fine", 2, 1, buyer_id="ann")))

    assert (ok, entries) == (False, [(409, "limit_exceeded"), (409, "group_refused")])
    assert (counters(1), counters(2)) == ((10, 0, 0), (10, 0, 0))
    assert violations() == []


def test_entries_of_one_ticket_are_summed_against_its_stock(order, tickets):
    tickets(3)

    ok, entries = run(order, reserve_group(entry("a", 1, 2), entry("b", 1, 2)))

    assert (ok, entries) == (False, [(409, "insufficient_stock")] * 2)
    assert counters() == (3, 0, 0)


def test_a_group_with_an_unknown_ticket_records_nothing(order, tickets):
    tickets(10)
    group = reserve_group(entry("a", 1, 2), entry("b", 9, 1))

    assert run(order, group) == (False, [(409, "group_refused"), (404, "ticket_not_found")])

    assert (status_of("a"), status_of("b"), counters()) == (None, None, (10, 0, 0))
    assert violations() == []


def test_a_group_sent_again_is_answered_from_its_reservations(order, tickets):
    tickets(10, 10)
    group = reserve_group(entry("a", 1, 2), entry("b", 2, 3))
    run(order, group)
    order.commit("a")

    answer = order.batch(group)

    entries = answer.body["groups"][0]["entries"]
    assert [one["status"] for one in entries] == [200, 200]
    assert [one["reservation"]["status"] for one in entries] == ["COMMITTED", "RESERVED"]
    assert (counters(1), counters(2)) == ((8, 0, 2), (7, 3, 0))


def test_a_group_of_known_and_new_entries_reserves_only_the_new(order, tickets):
    tickets(10, 10)
    order.reserve("a", 1, 2)

    ok, entries = run(order, reserve_group(entry("b", 2, 3), entry("a", 1, 2)))

    assert (ok, entries) == (True, [(201, None), (200, None)])
    assert (counters(1), counters(2)) == ((8, 2, 0), (7, 3, 0))
    assert violations() == []


def test_a_group_with_a_known_refusal_reserves_nothing_new(order, tickets):
    tickets(1, 10)
    order.reserve("a", 1, 2)

    ok, entries = run(order, reserve_group(entry("a", 1, 2), entry("b", 2, 3)))

    assert (ok, entries) == (False, [(409, "insufficient_stock"), (409, "group_refused")])
    assert (status_of("b"), counters(2)) == (None, (10, 0, 0))
    assert violations() == []


def test_a_group_with_a_mismatch_reserves_nothing_new(order, tickets):
    tickets(10, 10)
    order.reserve("a", 1, 2)

    ok, entries = run(order, reserve_group(entry("a", 1, 5), entry("b", 2, 3)))

    assert (ok, entries) == (False, [(422, "reservation_mismatch"), (409, "group_refused")])
    assert (status_of("b"), counters(1), counters(2)) == (None, (8, 2, 0), (10, 0, 0))


def test_a_new_entry_that_does_not_fit_leaves_the_known_one_as_it_was(order, tickets):
    tickets(10, 1)
    order.reserve("a", 1, 2)

    ok, entries = run(order, reserve_group(entry("a", 1, 2), entry("b", 2, 3)))

    assert (ok, entries) == (False, [(200, None), (409, "insufficient_stock")])
    assert (status_of("a"), status_of("b")) == ("RESERVED", "FAILED")
    assert violations() == []


@pytest.mark.parametrize(
    ("call", "books"), [("commit", ((8, 0, 2), (7, 0, 3))), ("release", ((10, 0, 0),) * 2)]
)
def test_a_group_is_decided_as_a_whole_and_again_the_same(order, tickets, call, books):
    tickets(10, 10)
    run(order, reserve_group(entry("a", 1, 2), entry("b", 2, 3)))

    for _ in range(2):
        assert run(order, decide_group(call, "b", "a")) == (True, [(200, None)] * 2)
        assert (counters(1), counters(2)) == books

    assert violations() == []


@pytest.mark.parametrize("call", ["commit", "release"])
def test_a_group_with_one_entry_that_cannot_move_moves_none(order, tickets, call):
    tickets(10, 10)
    run(order, reserve_group(entry("a", 1, 2), entry("b", 2, 3)))
    getattr(order, "release" if call == "commit" else "commit")("b")
    before = counters(1), counters(2)

    ok, entries = run(order, decide_group(call, "a", "b"))

    code = "reservation_already_released" if call == "commit" else "reservation_already_committed"
    assert (ok, entries) == (False, [(409, "group_refused"), (409, code)])
    assert status_of("a") == "RESERVED"
    assert (counters(1), counters(2)) == before
    assert violations() == []


@pytest.mark.parametrize("call", ["commit", "release"])
def test_a_group_with_an_unknown_entry_moves_none(order, tickets, call):
    tickets(10)
    order.reserve("a", 1, 2)

    ok, entries = run(order, decide_group(call, "a", "nobody"))

    assert (ok, entries) == (False, [(409, "group_refused"), (404, "reservation_not_found")])
    assert (status_of("a"), counters()) == ("RESERVED", (8, 2, 0))


def test_a_group_may_finish_what_was_half_done(order, tickets):
    tickets(10, 10)
    run(order, reserve_group(entry("a", 1, 2), entry("b", 2, 3)))
    order.commit("a")

    assert run(order, decide_group("commit", "a", "b")) == (True, [(200, None)] * 2)
    assert (counters(1), counters(2)) == ((8, 0, 2), (7, 0, 3))


def test_one_refused_group_does_not_touch_the_others_of_its_call(order, tickets):
    tickets(10)
    order.reserve("old", 1, 1)

    answer = order.batch(
        reserve_group(entry("a", 1, 2)),
        reserve_group(entry("b", 1, 99)),
        decide_group("commit", "nobody"),
        decide_group("commit", "old"),
        reserve_group(entry("c", 1, 3)),
    )

    assert [group["ok"] for group in answer.body["groups"]] == [True, False, False, True, True]
    assert counters() == (4, 5, 1)
    assert violations() == []


def test_the_batchs_answer_names_each_reservation(order, tickets):
    tickets(10)
    order_id = "0190c7f0-0000-7000-8000-000000000001"

    answer = order.batch(reserve_group(entry("a", 1, 2, order_id=order_id, ttl_seconds=60)))

    (one,) = answer.body["groups"][0]["entries"]
    assert one["error"] is None
    expected = {"reservation_id": "a", "ticket_id": 1, "quantity": 2, "status": "RESERVED"}
    assert expected.items() <= one["reservation"].items()
    assert one["reservation"]["order_id"] == order_id
    assert one["reservation"]["expires_at"].endswith("Z")


def test_earlier_groups_of_a_call_win_also_over_several_tickets(order, tickets):
    """The second group joins the tickets of the first and the third."""
    tickets(1, 2)

    answer = order.batch(
        reserve_group(entry("first", 2, 1)),
        reserve_group(entry("second-1", 1, 1), entry("second-2", 2, 1)),
        reserve_group(entry("third", 2, 1)),
    )

    assert [group["ok"] for group in answer.body["groups"]] == [True, True, False]
    assert (counters(1), counters(2)) == ((0, 1, 0), (0, 2, 0))
    assert violations() == []


def test_nobody_is_served_before_a_group_that_has_to_wait_for_an_earlier_one(order, tickets):
    tickets(3)

    answer = order.batch(
        reserve_group(entry("a", 1, 1)),
        reserve_group(entry("a", 1, 1), entry("b", 1, 2)),
        reserve_group(entry("c", 1, 2)),
    )

    assert [group["ok"] for group in answer.body["groups"]] == [True, True, False]
    assert counters() == (0, 3, 0)
    assert violations() == []


@pytest.mark.parametrize(
    ("tickets_of_entries", "lanes"),
    [
        ([(1,), (2,), (1,)], [(1,), (2,), (1,)]),
        ([(1,), (1, 2), (2,), (3,)], [(1, 2), (1, 2), (1, 2), (3,)]),
        ([(1, 2), (3, 4), (2, 3), (5,)], [(1, 2, 3, 4)] * 3 + [(5,)]),
        ([(5,), (1, 2), (2, 3), (3, 5)], [(1, 2, 3, 5)] * 4),
        ([(), (1,)], [(), (1,)]),
    ],
)
def test_entries_that_are_connected_by_tickets_share_a_lane(tickets_of_entries, lanes):
    assert reservations.lanes_of(tickets_of_entries) == lanes


def test_an_outage_of_one_lane_is_told_to_its_entries_and_to_no_others(order, tickets, monkeypatch):
    tickets(5, 5)
    work = reservations._reserving._work

    def fail_for_ticket_2(groups):
        if any(hold.ticket_id == 2 for group in groups for hold in group.holds):
            raise OperationalError(1205, "Lock wait timeout exceeded")
        return work(groups)

    monkeypatch.setattr(reservations._reserving, "_work", fail_for_ticket_2)
    answer = order.batch(reserve_group(entry("a", 2, 1)), reserve_group(entry("b", 1, 1)))
    alone = order.batch(reserve_group(entry("a", 2, 1)))

    [down, up] = [group["entries"][0] for group in answer.body["groups"]]
    assert (down["status"], down["error"]["code"]) == (503, "database_unavailable")
    assert (up["status"], up["error"]) == (201, None)
    assert (alone.status, alone.headers["Retry-After"]) == (503, "1"), "where nothing else is told"
