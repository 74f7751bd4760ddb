"""The joined part of the audit: what only shows when the services are put side by side."""

from __future__ import annotations

from deploy.stack import audit


def reservation(name, state="COMMITTED", order_id="o1", expired_for=None, age=60):
    return [name, state, order_id, 1, 1, expired_for, age]


def order(name="o1", status="CONFIRMED", reservations=("r1",), total=100):
    return [name, status, list(reservations), 60, True, total]


def facts(orders=(), payments=()):
    return {"orders": list(orders), "payments": list(payments), "outbox_pending": 0}


def found(check, *arguments):
    return list(check(*arguments))


def test_a_confirmed_order_with_sold_stock_is_right():
    inventory = {"reservations": [reservation("r1")]}
    assert not found(audit.orders_against_reservations, facts([order()]), inventory)


def test_a_confirmed_order_whose_stock_went_back_is_found():
    inventory = {"reservations": [reservation("r1", "RELEASED")]}
    problems = found(audit.orders_against_reservations, facts([order()]), inventory)
    assert problems == ["order o1 is CONFIRMED, its reservation r1 is RELEASED"]


def test_a_confirmed_order_without_any_reservation_is_found():
    assert found(audit.orders_against_reservations, facts([order()]), {"reservations": []})


def test_a_refused_order_may_have_no_reservation_but_must_not_hold_stock():
    rejected = facts([order(status="REJECTED")])
    none, held = [], [reservation("r1", "RESERVED")]
    assert not found(audit.orders_against_reservations, rejected, {"reservations": none})
    assert found(audit.orders_against_reservations, rejected, {"reservations": held})


def test_a_paid_order_that_never_settles_is_found():
    inventory = {"reservations": [reservation("r1", "RESERVED")]}
    problems = found(audit.orders_against_reservations, facts([order(status="PAID")]), inventory)
    assert problems == ["order o1 is still PAID"]


def test_stock_taken_for_an_order_that_does_not_know_of_it_is_found():
    inventory = {"reservations": [reservation("r1"), reservation("r2", "RESERVED")]}
    problems = found(audit.orders_against_reservations, facts([order()]), inventory)
    assert problems == ["reservation r2 is RESERVED for order o1, which has it not"]


def test_a_hold_waits_30_seconds_for_its_order_and_no_longer():
    young = {"reservations": [reservation("r1", "RESERVED", age=29)]}
    old = {"reservations": [reservation("r1", "RESERVED", age=31)]}
    assert not found(audit.forgotten_holds, facts(), young)
    assert found(audit.forgotten_holds, facts(), old)


def test_a_hold_of_nobody_stands_for_itself_until_it_expires():
    standing = {"reservations": [reservation("r1", "RESERVED", None, expired_for=-5, age=999)]}
    late = {"reservations": [reservation("r1", "RESERVED", None, expired_for=31, age=999)]}
    assert not found(audit.forgotten_holds, facts(), standing)
    assert found(audit.forgotten_holds, facts(), late)


def test_the_catalog_must_have_the_last_version():
    stocks = {"stocks": {"1": {"version": 5, "available": 3}}}
    behind = {"availability": {"1": {"version": 4, "available": 4}}}
    level = {"availability": {"1": {"version": 5, "available": 3}}}
    assert found(audit.projection_lag, behind, stocks)
    assert found(audit.projection_lag, {"availability": {}}, stocks)
    assert not found(audit.projection_lag, level, stocks)


def test_money_is_what_confirmed_orders_cost():
    paid = [["p1", "o1", "CAPTURED", 100]]
    assert not found(audit.money, facts([order()], paid))
    assert found(audit.money, facts([order()], [])) == [
        "order o1 is CONFIRMED: captured 0, due 100"
    ]
    twice = [*paid, ["p2", "o1", "CAPTURED", 100]]
    assert found(audit.money, facts([order()], twice))


def test_money_for_an_order_that_was_not_confirmed_must_be_refunded():
    expired = [order(status="EXPIRED")]
    assert found(audit.money, facts(expired, [["p1", "o1", "CAPTURED", 100]]))
    assert found(audit.money, facts(expired, [["p1", "o1", "REFUND_DUE", 100]]))
    assert not found(audit.money, facts(expired, [["p1", "o1", "REFUNDED", 100]]))


def test_unsent_events_are_named_by_service():
    reports = {
        "order": {"facts": {"outbox_pending": 2}},
        "catalog": {"facts": {"outbox_pending": 0}},
    }
    assert found(audit.unsent_events, reports) == ["order: 2 events not sent"]
