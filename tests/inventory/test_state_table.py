"""The reservation calls of the state table, cell by cell: every state × every call × who is meant.

A cell says what the caller is told and which state the reservation is in afterwards; the counters
and the ledger must then follow from that state alone.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from services.inventory import expiry
from tests.inventory.books import counters, ledger_of, make_overdue, status_of, violations
from tests.inventory.driver import (
    RESERVATIONS,
    Answer,
    Caller,
    decide_group,
    entry,
    reserve_group,
)

pytestmark = pytest.mark.django_db(transaction=True)

MISMATCH = (422, "reservation_mismatch")
TOTAL, QUANTITY = 5, 2
ORDER, OTHER_ORDER = "0190c7f0-0000-7000-8000-000000000001", "0190c7f0-0000-7000-8000-000000000002"
FIELDS = {"ticket_id": 1, "quantity": QUANTITY, "buyer_id": "ann", "order_id": ORDER}

# state → (available, reserved, sold) and the ledger of the reservation
BOOKS = {
    None: ((TOTAL, 0, 0), []),
    "RESERVED": ((3, 2, 0), ["reserve"]),
    "COMMITTED": ((3, 0, 2), ["reserve", "commit"]),
    "RELEASED": ((TOTAL, 0, 0), ["reserve", "release"]),
    "EXPIRED": ((TOTAL, 0, 0), ["reserve", "expire"]),
    "FAILED": ((TOTAL, 0, 0), ["refuse"]),
}

# (state before, call) → (HTTP status, code of the problem or None, state after)
CELLS = {
    (None, "reserve"): (201, None, "RESERVED"),
    (None, "reserve too many"): (409, "insufficient_stock", "FAILED"),
    (None, "commit"): (404, "reservation_not_found", None),
    (None, "release"): (404, "reservation_not_found", None),
    ("RESERVED", "reserve"): (200, None, "RESERVED"),
    ("RESERVED", "commit"): (200, None, "COMMITTED"),
    ("RESERVED", "release"): (200, None, "RELEASED"),
    ("COMMITTED", "reserve"): (200, None, "COMMITTED"),
    ("COMMITTED", "commit"): (200, None, "COMMITTED"),
    ("COMMITTED", "release"): (409, "reservation_already_committed", "COMMITTED"),
    ("RELEASED", "reserve"): (200, None, "RELEASED"),
    ("RELEASED", "commit"): (409, "reservation_already_released", "RELEASED"),
    ("RELEASED", "release"): (200, None, "RELEASED"),
    ("EXPIRED", "reserve"): (200, None, "EXPIRED"),
    ("EXPIRED", "commit"): (409, "reservation_expired", "EXPIRED"),
    ("EXPIRED", "release"): (200, None, "EXPIRED"),
    ("FAILED", "reserve too many"): (409, "insufficient_stock", "FAILED"),
    ("FAILED", "commit"): (409, "reservation_failed", "FAILED"),
    ("FAILED", "release"): (409, "reservation_failed", "FAILED"),
    (None, "extend"): (404, "reservation_not_found", None),
    ("RESERVED", "extend"): (200, None, "RESERVED"),
    ("COMMITTED", "extend"): (409, "reservation_already_committed", "COMMITTED"),
    ("RELEASED", "extend"): (409, "reservation_already_released", "RELEASED"),
    ("EXPIRED", "extend"): (409, "reservation_expired", "EXPIRED"),
    ("FAILED", "extend"): (409, "reservation_failed", "FAILED"),
}
OTHER_FIELDS = {
    "ticket": {"ticket_id": 2},
    "quantity": {"quantity": 1},
    "buyer": {"buyer_id": "bob"},
    "no buyer": {"buyer_id": None},
    "buyer in capitals": {"buyer_id": "ANN"},
    "order": {"order_id": OTHER_ORDER},
    "no order": {"order_id": None},
}
STORED = [state for state in BOOKS if state]


@pytest.fixture(params=["single", "batch"])
def call(
    request: pytest.FixtureRequest, order: Caller, tickets: Callable[..., None]
) -> Callable[..., object]:
    """Return what performs a call of the table on reservation ``r`` (or another id)."""
    tickets(TOTAL, TOTAL)

    def single(name: str, reservation_id: str, fields: dict[str, object]) -> Answer:
        if name == "reserve":
            return order.reserve(reservation_id, **fields)
        return order.call("POST", f"{RESERVATIONS}/{reservation_id}/{name}")

    def batch(name: str, reservation_id: str, fields: dict[str, object]) -> Answer:
        if name == "reserve":
            answer = order.batch(reserve_group(entry(reservation_id, **fields)))
        else:
            answer = order.batch(decide_group(name, reservation_id))
        [told] = answer.body["groups"][0]["entries"]
        return Answer(told["status"], told["error"] or told["reservation"], answer.headers)

    def perform(name: str, reservation_id: str = "r", **changed: object) -> object:
        send = single if request.param == "single" else batch
        fields = {**FIELDS, **({"quantity": TOTAL + 1} if name == "reserve too many" else {})}
        return send(name.split()[0], reservation_id, {**fields, **changed})

    return perform


def bring_to(state: str | None, call: Callable[..., object]) -> None:
    """Lead reservation ``r`` into a state, by calls only (and time, for EXPIRED)."""
    if state == "FAILED":
        call("reserve too many")
    elif state:
        call("reserve")
    if state in ("COMMITTED", "RELEASED"):
        call("commit" if state == "COMMITTED" else "release")
    if state == "EXPIRED":
        make_overdue("r")
        assert expiry.expire_batch() == 1


def assert_books(state: str | None) -> None:
    """Check that counters, ledger and status say ``state`` and that the audit agrees."""
    assert status_of("r") == ("RELEASED" if state == "EXPIRED" else state)
    assert (counters(), ledger_of("r")) == BOOKS[state]
    assert violations() == []


@pytest.mark.parametrize(("state", "name"), CELLS)
def test_the_call_answers_and_moves_as_the_table_says(state, name, call):
    bring_to(state, call)
    status, code, after = CELLS[state, name]

    answer = call(name)

    assert (answer.status, answer.code) == (status, code)
    if code is None:
        assert answer.body["status"] == ("RELEASED" if after == "EXPIRED" else after)
    assert_books(after)


@pytest.mark.parametrize(("state", "name"), CELLS)
def test_the_same_call_again_answers_the_same_and_moves_nothing(state, name, call):
    bring_to(state, call)
    first = call(name)
    _, _, after = CELLS[state, name]

    for _ in range(3):
        again = call(name)
        # The one difference between the first answer and its replays: 201 Created becomes 200.
        assert again.status == (200 if first.status == 201 else first.status)
        assert again.code == first.code
        if first.code is None:
            assert again.body == first.body
        assert_books(after)


@pytest.mark.parametrize("state", STORED)
@pytest.mark.parametrize("other", OTHER_FIELDS)
def test_reserving_an_id_again_with_other_fields_is_a_mismatch(state, other, call):
    bring_to(state, call)
    name = "reserve too many" if state == "FAILED" else "reserve"

    answer = call(name, **OTHER_FIELDS[other])

    assert (answer.status, answer.code) == MISMATCH
    assert_books(state)
    assert counters(ticket_id=2) == (TOTAL, 0, 0)


@pytest.mark.parametrize("state", STORED)
def test_limit_and_ttl_are_not_part_of_the_comparison(state, call):
    bring_to(state, call)
    name = "reserve too many" if state == "FAILED" else "reserve"
    expected = call(name)

    answer = call(name, buyer_limit=1, ttl_seconds=1)

    assert (answer.status, answer.code) == (expected.status, expected.code)
    assert_books(state)


@pytest.mark.parametrize("state", STORED)
@pytest.mark.parametrize("name", ["commit", "release", "extend"])
def test_another_id_is_unknown_whatever_this_one_is(state, name, call):
    bring_to(state, call)

    answer = call(name, "R")  # ids are compared byte for byte

    assert (answer.status, answer.code) == (404, "reservation_not_found")
    assert_books(state)


@pytest.mark.parametrize("state", STORED)
def test_reserving_another_id_is_a_reservation_of_its_own(state, call):
    bring_to(state, call)
    available, reserved, sold = BOOKS[state][0]

    answer = call("reserve", "R", quantity=1)

    assert (answer.status, answer.body["reservation_id"]) == (201, "R")
    assert counters() == (available - 1, reserved + 1, sold)
    assert status_of("R") == "RESERVED"
    assert violations() == []


def test_reserving_a_ticket_without_stock_records_nothing(call):
    answer = call("reserve", ticket_id=99)

    assert (answer.status, answer.code) == (404, "ticket_not_found")
    assert_books(None)
    assert call("reserve").status == 201, "the id is still free"


@pytest.mark.parametrize("state", STORED)
def test_a_reservation_can_be_read_with_its_whole_life(state, call, order):
    bring_to(state, call)

    answer = order.reservation("r")

    assert answer.status == 200
    steps = [(step["from"], step["to"]) for step in answer.body["transitions"]]
    stored = "RELEASED" if state == "EXPIRED" else state
    first = ("INIT", "FAILED" if state == "FAILED" else "RESERVED")
    assert steps == ([first] if stored in ("RESERVED", "FAILED") else [first, ("RESERVED", stored)])
    assert answer.body["status"] == stored
    reasons = {"EXPIRED": "expired", "FAILED": "insufficient_stock"}
    assert answer.body["transitions"][-1]["reason"] == reasons.get(state, "")


def test_an_unknown_reservation_cannot_be_read(order):
    answer = order.reservation("nobody")
    assert (answer.status, answer.code) == (404, "reservation_not_found")
