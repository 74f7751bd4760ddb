"""The joined part of the audit: what only shows when the services are put side by side."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from common.auditing import Violation
from deploy.stack import audit, invariants
from deploy.stack.audit import Check, Result, show
from deploy.stack.invariants import Gap


def reservation(name="r1", state="COMMITTED", order_id="o1", **changes):
    fields = {"ticket": 1, "units": 2, "buyer": "ann", "overdue": None, "age": 60, **changes}
    return [name, state, order_id, *fields.values()]


def order(name="o1", status="CONFIRMED", reservations=("r1",), total=100, user="ann"):
    return [name, status, user, 60, total, "EUR", [[one, 1, 2] for one in reservations]]


def facts(orders=(), payments=(), reservations=()):
    return {
        "orders": list(orders),
        "payments": list(payments),
        "reservations": list(reservations),
    }


def found(check: Callable[..., Any], *arguments: Any) -> list[tuple[str, str, str]]:
    return [(one.finding, one.subject, one.id) for one in check(*arguments)]


def agree(orders, reservations):
    """Return what does not fit between orders and reservations."""
    told = facts(orders, reservations=reservations)
    return found(invariants.orders_against_reservations, told, told)


STATES = ("RESERVED", "COMMITTED", "RELEASED", "FAILED", None)
OVER = ("CANCELLED", "EXPIRED", "REJECTED")
# (order, its reservation) → the finding; every other pair fits
MISFITS = {
    ("CONFIRMED", "RESERVED"): ("sale_not_committed", "reservation", "r1"),
    **{("CONFIRMED", state): ("sold_nothing", "order", "o1") for state in STATES[2:]},
    ("AWAITING_PAYMENT", "COMMITTED"): ("sold_unpaid", "reservation", "r1"),
    **{("AWAITING_PAYMENT", state): ("hold_lost", "order", "o1") for state in STATES[2:]},
    **{(over, "RESERVED"): ("held_though_over", "reservation", "r1") for over in OVER},
    **{(over, "COMMITTED"): ("sold_though_over", "reservation", "r1") for over in OVER},
    **{("PAID", state): ("order_unsettled", "order", "o1") for state in STATES},
    **{("SOMETHING_NEW", state): ("order_unsettled", "order", "o1") for state in STATES},
}


@pytest.mark.parametrize(
    ("status", "state"),
    list(
        itertools.product(("CONFIRMED", "AWAITING_PAYMENT", "PAID", "SOMETHING_NEW", *OVER), STATES)
    ),
)
def test_every_state_of_an_order_fits_some_of_its_reservations(status, state):
    reservations = [reservation(state=state)] if state else []
    misfit = MISFITS.get((status, state))
    assert agree([order(status=status)], reservations) == ([misfit] if misfit else [])


def test_one_wrong_reservation_among_several_is_found():
    both = [reservation("r1"), reservation("r2", "RELEASED")]
    assert agree([order(reservations=("r1", "r2"))], both) == [("sold_nothing", "order", "o1")]


def test_a_repair_of_a_hold_is_told_which_order_it_is_about():
    told = facts([order(status="EXPIRED")], reservations=[reservation(state="RESERVED")])
    [violation] = invariants.orders_against_reservations(told, told)
    assert violation.details == {"order_id": "o1"}
    assert violation.text == "order o1 is EXPIRED, its reservation r1 is RESERVED"


def test_a_hold_that_names_another_order_is_not_to_be_fitted_to_this_one():
    theirs = reservation(state="RESERVED", order_id="o2")
    assert agree([order(status="EXPIRED")], [theirs]) == [("item_differs", "reservation", "r1")]


@pytest.mark.parametrize(
    ("state", "finding"),
    [("RESERVED", "hold_of_no_item"), ("COMMITTED", "sale_of_no_item"), ("RELEASED", None)],
)
def test_units_taken_for_an_order_that_does_not_list_them_are_found(state, finding):
    told = agree([order()], [reservation("r1"), reservation("r2", state)])
    assert told == ([(finding, "reservation", "r2")] if finding else [])


@pytest.mark.parametrize(
    "changes", [{"ticket": 2}, {"units": 1}, {"buyer": "eve"}, {"order_id": "o2"}]
)
def test_a_line_and_its_reservation_that_differ_are_found(changes):
    check = invariants.items_against_reservations
    same = facts([order()], reservations=[reservation()])
    assert found(check, same, same) == []
    other = facts([order()], reservations=[reservation(**changes)])
    assert found(check, other, other) == [("item_differs", "reservation", "r1")]


@pytest.mark.parametrize(
    ("state", "finding"), [("RESERVED", "torn_purchase"), ("COMMITTED", "sale_without_order")]
)
def test_a_hold_or_sale_waits_30_seconds_for_its_order_and_no_longer(state, finding):
    for age, expected in ((29, []), (31, [(finding, "reservation", "r1")])):
        told = facts(reservations=[reservation(state=state, age=age)])
        assert found(invariants.forgotten_holds, told, told) == expected


def test_a_hold_of_nobody_stands_for_itself_until_it_expires():
    for overdue, expected in ((-5, []), (31, [("hold_overdue", "reservation", "r1")])):
        hold = reservation(state="RESERVED", order_id=None, overdue=overdue, age=999)
        told = facts(reservations=[hold])
        assert found(invariants.forgotten_holds, told, told) == expected


@pytest.mark.parametrize(
    ("taken", "expected"),
    [
        (reservation(state="RESERVED"), ("held_though_over", "reservation", "r1")),
        (reservation(state="COMMITTED"), ("sold_though_over", "reservation", "r1")),
        (reservation("r9", "RESERVED"), ("hold_of_no_item", "reservation", "r9")),
        (reservation(state="FAILED"), None),
    ],
)
def test_a_refused_order_has_taken_nothing(taken, expected):
    told = facts([order(status="REJECTED"), order("o2")], reservations=[taken])
    assert found(invariants.refusals_that_took, told, told) == ([expected] if expected else [])


def stocks(version, available):
    return {"stocks": {"1": {"version": version, "available": available}}}


@pytest.mark.parametrize(
    ("shown", "above"),
    [({"version": 4, "available": 4}, 4), ({"version": 5, "available": 4}, 5), (None, 0)],
)
def test_the_catalog_must_show_the_last_version_and_its_number(shown, above):
    catalog = {"availability": {"1": shown} if shown else {}}
    [violation] = invariants.stock_projection(catalog, stocks(5, 3))
    assert (violation.finding, violation.id) == ("stock_behind", "1")
    assert violation.details == {"above": above}
    level = {"availability": {"1": {"version": 5, "available": 3}}}
    assert found(invariants.stock_projection, level, stocks(5, 3)) == []
    assert found(invariants.stock_projection, level, {"stocks": {}}) == [
        ("stock_from_nowhere", "ticket", "1")
    ]


def offers(version=2, price=100):
    offer = {"version": version, "price": price, "event_title": "Jazz", "name": "Stalls"}
    return {"offers": {"1": offer}}


def test_orders_must_know_the_last_offer_in_every_field():
    check = invariants.offer_projection
    assert found(check, offers(), offers()) == []
    behind = [("offer_behind", "ticket", "1")]
    assert found(check, offers(), offers(version=1)) == behind
    assert found(check, offers(), offers(price=99)) == behind
    assert found(check, offers(), {"offers": {}}) == behind
    assert found(check, {"offers": {}}, offers()) == [("offer_from_nowhere", "ticket", "1")]


def test_inventory_must_know_the_last_name():
    check = invariants.label_projection
    known = {"labels": {"1": {"label": "Jazz · Stalls", "version": 2}}}
    other = {"labels": {"1": {"label": "Jazz · Stall", "version": 2}}}
    assert found(check, offers(), known) == []
    assert found(check, offers(), other) == [("label_behind", "ticket", "1")]


def payment(name="p1", order_id="o1", status="CAPTURED", amount=100, currency="EUR"):
    return [name, order_id, status, amount, currency]


@pytest.mark.parametrize(
    ("status", "payments", "expected"),
    [
        ("CONFIRMED", [payment()], []),
        ("CONFIRMED", [payment(), payment("p2", status="REFUNDED")], []),
        ("CONFIRMED", [], [("money_differs", "currency", "EUR")]),
        ("CONFIRMED", [payment(), payment("p2")], [("money_differs", "currency", "EUR")]),
        (
            "CONFIRMED",
            [payment(currency="CHF")],
            [("money_differs", "currency", "CHF"), ("money_differs", "currency", "EUR")],
        ),
        ("EXPIRED", [payment()], [("money_differs", "currency", "EUR")]),
        ("EXPIRED", [payment(status="REFUND_DUE")], [("refund_due", "payment", "p1")]),
        ("EXPIRED", [payment(status="REFUNDED")], []),
        ("EXPIRED", [payment(status="DECLINED")], []),
    ],
)
def test_money_is_what_confirmed_orders_cost(status, payments, expected):
    assert found(invariants.money, facts([order(status=status)], payments)) == expected


def test_money_belongs_to_an_order_in_its_currency():
    check = invariants.payments_against_orders
    assert found(check, facts([order()], [payment()])) == []
    wrong = [("payment_wrong", "payment", "p1")]
    assert found(check, facts([order()], [payment(currency="CHF")])) == wrong
    assert found(check, facts([], [payment()])) == wrong


def emitting(sums):
    return {"subscriptions": {}, "emitted": {"t": sums}, "dealt_with": {}}


def following(sums):
    subscriptions = {"shop": ["t"], "elsewhere": ["x"]}
    return {"subscriptions": subscriptions, "emitted": {}, "dealt_with": {"t": sums}}


def test_events_are_compared_bucket_by_bucket_for_each_consumer():
    sums = {"1": [2, "ab"], "2": [1, "cd"]}
    told = {"shop": emitting(sums), "level": following(sums), "none": following({})}
    told["other"] = following({"1": [2, "ab"], "2": [1, "ce"], "3": [1, "00"]})
    assert invariants.event_gaps(told) == [
        Gap("shop", "none", "t", [1, 2]),
        Gap("shop", "other", "t", [2, 3]),
    ]


def test_events_in_a_gap_are_named_with_who_can_send_them_again():
    gap = Gap("shop", "books", "t", [1])
    lost, unknown = invariants.events_in(gap, ["a", "b"], ["b", "c"])
    assert (lost.finding, lost.id, lost.details) == ("event_not_applied", "a", {"service": "shop"})
    assert (unknown.finding, unknown.id) == ("event_from_nowhere", "c")


def test_unsent_events_are_named_and_counted_by_service():
    told = {
        "order": {"unsent": ["a", "b"], "unsent_count": 4},
        "catalog": {"unsent": [], "unsent_count": 0},
    }
    names = [one.id for one in invariants.unsent_events(told)]
    assert names == ["a", "b", "", ""]


def looks(monkeypatch: pytest.MonkeyPatch, *answers: list[Violation]) -> None:
    """Let the audit's looks find this, one after the other; the last one stays."""
    left = list(answers)

    def look(env: object) -> list[Check]:
        found = left.pop(0) if len(left) > 1 else left[0]
        return [Check("I4", "all", "orders and reservations agree", len(found), found)]

    monkeypatch.setattr(audit, "look", look)
    monkeypatch.setattr(audit, "PAUSE_SECONDS", 0.0)


def in_flight(order_id: str) -> Violation:
    return Violation("hold_lost", "order", order_id, f"order {order_id} has no hold")


def test_what_the_next_look_does_not_find_was_work_in_flight(monkeypatch):
    stuck = in_flight("stuck")
    looks(monkeypatch, [in_flight("a"), stuck], [stuck, in_flight("b")], [in_flight("c"), stuck])

    result = audit.audit_until_settled({}, 0.1)

    assert [one.id for one in result.checks[0].violations] == ["stuck"]
    assert result.checks[0].count == 1


def test_a_busy_system_in_which_nothing_lasts_is_well(monkeypatch):
    numbers = (str(n) for n in itertools.count())

    def look(env: object) -> list[Check]:
        return [Check("I4", "all", "orders and reservations agree", 1, [in_flight(next(numbers))])]

    monkeypatch.setattr(audit, "look", look)
    monkeypatch.setattr(audit, "PAUSE_SECONDS", 0.0)

    assert audit.audit_until_settled({}, 0.1).ok


def test_what_does_not_run_is_looked_at_once(monkeypatch):
    looks(monkeypatch, [in_flight("a")], [])

    assert not audit.audit_until_settled({}, 0.0).ok


def test_the_result_is_a_table_the_violations_and_one_verdict(capsys):
    told = facts([order(status="PAID")])
    violations = list(invariants.orders_against_reservations(told, told))
    broken = Check("I4", "all", "orders fit", 3_000, violations * 30)
    result = Result([Check("I1", "inventory", "counters"), broken], 1.0)

    show(result)

    shown = capsys.readouterr().out.splitlines()
    assert shown[2].split() == ["I1", "inventory", "counters", "ok"]
    assert shown[3].endswith("BROKEN (3000)")
    assert shown[4] == "I4 all: order o1 is still PAID"
    assert shown.count(shown[4]) == 20
    assert "I4 all: ... and 2980 more" in shown
    assert shown[-1] == "Some invariants are BROKEN (1.0 s)."
    [_, check] = result.as_json()["checks"]
    assert check["ok"] is False
    assert check["violations"][0] == {
        "finding": "order_unsettled",
        "subject": "order",
        "id": "o1",
        "text": "order o1 is still PAID",
        "details": {},
    }


@pytest.mark.parametrize("command", [["audit"], ["reconcile"], ["reconcile", "--repair"]])
def test_what_was_never_started_is_told_in_one_line(manage_all, layout, command):
    result = manage_all(*command)
    assert result.returncode == 1
    [line] = result.stderr.strip().splitlines()
    assert line.startswith(f"manage_all: there is no data under {layout.var} yet")
