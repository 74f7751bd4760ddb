"""The history checker itself: it accepts what can have happened, and catches what cannot."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.inventory.driver import Answer
from tests.inventory.history import UNKNOWN, Call, History, told_by

OUT = "insufficient_stock"
anything = settings(deadline=None, database=None, max_examples=500)


def call(name, reservation_id, begin, end, told="done", *, quantity=1, buyer_id=""):
    return Call(name, reservation_id, 1, quantity, begin, end, told, buyer_id)


def reserve(*args, **more):
    return call("reserve", *args, **more)


def release(*args, **more):
    return call("release", *args, **more)


def kinds(calls, stock, limits=None):
    """Return what is impossible about a history: (kind, reservation) of each."""
    history = History()
    history.calls += calls
    return [(one.kind, one.reservation_id) for one in history.impossible({1: stock}, limits)]


GOOD = {
    "nothing happened": [],
    "one after the other": [
        reserve("a", 0, 1),
        release("a", 2, 3),
        reserve("b", 4, 5),
        reserve("c", 6, 7, OUT),
    ],
    "both at once, one is refused": [reserve("a", 0, 9), reserve("b", 1, 2, OUT)],
    "a unit given back before the answer says so": [
        reserve("a", 0, 1),
        release("a", 2, 9),
        reserve("b", 3, 4),
    ],
    "a unit taken before the answer says so, and given back": [
        reserve("a", 0, 9),
        release("a", 3, 4),
        reserve("b", 4, 5),
    ],
    "refused in the moment in which the unit comes back": [
        reserve("a", 0, 1),
        release("a", 2, 3),
        reserve("b", 3, 4, OUT),
    ],
    "given back in the moment in which the next is acknowledged": [
        reserve("a", 0, 1),
        release("a", 2, 9),
        reserve("b", 1, 2),
    ],
    "refused because of a hold whose fate nobody knows": [
        reserve("a", 0, 1, UNKNOWN),
        reserve("b", 2, 3, OUT),
    ],
    "served though there is a hold whose fate nobody knows": [
        reserve("a", 0, 1, UNKNOWN),
        reserve("b", 2, 3),
    ],
    "a release of unknown fate may have happened": [
        reserve("a", 0, 1),
        release("a", 2, 3, UNKNOWN),
        reserve("b", 4, 5),
    ],
    "or not": [reserve("a", 0, 1), release("a", 2, 3, UNKNOWN), reserve("b", 4, 5, OUT)],
    "the first answer was lost, the second says what had happened": [
        reserve("a", 0, 1, UNKNOWN),
        reserve("b", 2, 3, OUT),
        reserve("a", 4, 5),
    ],
    "a refusal is told again later, when there is room": [
        reserve("a", 0, 1),
        reserve("b", 2, 3, OUT),
        release("a", 4, 5),
        reserve("b", 6, 7, OUT),
    ],
    "a release that was refused gave nothing back": [
        reserve("a", 0, 1),
        release("a", 2, 3, "reservation_already_committed"),
        reserve("b", 4, 5, OUT),
    ],
    "an expired hold is a unit again": [
        reserve("a", 0, 1),
        call("expire", "a", 2, 3),
        reserve("b", 4, 5),
    ],
    "other refusals say nothing of the stock": [reserve("a", 0, 1, "limit_exceeded")],
    "sold is held": [reserve("a", 0, 1), call("commit", "a", 2, 3), reserve("b", 4, 5, OUT)],
}
BAD = {
    "one unit, two holds": (
        [reserve("a", 0, 1), reserve("b", 2, 3)],
        [("oversold", "b")],
    ),
    "one unit, two holds at once": (
        [reserve("a", 0, 5), reserve("b", 1, 6)],
        [("oversold", "b")],
    ),
    "given back only after the next was acknowledged": (
        [reserve("a", 0, 1), reserve("b", 2, 3), release("a", 4, 5)],
        [("oversold", "b")],
    ),
    "an expired hold comes back once": (
        [reserve("a", 0, 1), call("expire", "a", 2, 3), reserve("b", 4, 5), reserve("c", 6, 7)],
        [("oversold", "c")],
    ),
    "sold, and reserved again": (
        [reserve("a", 0, 1), call("commit", "a", 2, 3), reserve("b", 4, 5)],
        [("oversold", "b")],
    ),
    "a refused release gives nothing back": (
        [reserve("a", 0, 1), release("a", 2, 3, "reservation_failed"), reserve("b", 4, 5)],
        [("oversold", "b")],
    ),
    "more than there is at once": ([reserve("a", 0, 1, quantity=2)], [("oversold", "a")]),
    "refused with all of it there": ([reserve("a", 0, 1, OUT)], [("refused falsely", "a")]),
    "refused after the unit had come back": (
        [reserve("a", 0, 1), release("a", 2, 3), reserve("b", 4, 5, OUT)],
        [("refused falsely", "b")],
    ),
    "refused before anybody came": (
        [reserve("a", 0, 1, OUT), reserve("b", 2, 3)],
        [("refused falsely", "a")],
    ),
    "refused for the sake of one that was refused too": (
        [reserve("a", 0, 9, OUT), reserve("b", 1, 8, OUT)],
        [("refused falsely", "a"), ("refused falsely", "b")],
    ),
    "the first refusal counts, whatever is told later": (
        [reserve("a", 0, 1, OUT), reserve("b", 2, 3), reserve("a", 4, 5, OUT)],
        [("refused falsely", "a")],
    ),
    "reserved and refused": (
        [reserve("a", 0, 1), reserve("a", 2, 3, "limit_exceeded")],
        [("contradiction", "a")],
    ),
    "sold and given back": (
        [reserve("a", 0, 1), call("commit", "a", 2, 3), release("a", 4, 5)],
        [("contradiction", "a")],
    ),
}


@pytest.mark.parametrize("story", GOOD)
def test_what_can_have_happened_is_accepted(story):
    assert kinds(GOOD[story], stock=1) == []


@pytest.mark.parametrize("story", BAD)
def test_what_cannot_have_happened_is_caught(story):
    calls, expected = BAD[story]
    assert kinds(calls, stock=1) == expected


def test_units_are_counted_and_not_calls():
    taken = [reserve("a", 0, 1, quantity=3), reserve("b", 2, 3, OUT, quantity=3)]
    assert kinds(taken, stock=5) == []
    assert kinds(taken, stock=6) == [("refused falsely", "b")]
    assert kinds(taken, stock=2) == [("oversold", "a")]


def test_a_buyers_limit_is_judged_like_a_stock():
    over = "limit_exceeded"
    calls = [
        reserve("a", 0, 1, quantity=2, buyer_id="ann"),
        reserve("b", 2, 3, over, buyer_id="ann"),
        reserve("c", 2, 3, buyer_id="bob"),
    ]
    assert kinds(calls, 9, {"ann": 2, "bob": 2}) == []
    assert kinds(calls, 9, {"ann": 3}) == [("refused falsely", "b")]
    assert kinds(calls, 9, {"ann": 1}) == [("oversold", "a")]


def test_tickets_are_judged_each_by_itself():
    history = History()
    history.calls += [reserve("a", 0, 1), reserve("b", 2, 3)._replace(ticket_id=2)]
    assert history.impossible({1: 1, 2: 1}) == []


def test_a_call_is_recorded_with_its_times_and_its_answer():
    history = History()
    answers = [Answer(201, {}, {}), Answer(409, {"code": OUT}, {}), Answer(503, {"code": "x"}, {})]
    for number, answer in enumerate(answers):
        history.record(lambda answer=answer: answer, "reserve", f"r{number}", 1, 2, "ann")

    assert [one.told for one in history.calls] == ["done", OUT, UNKNOWN]
    assert all(one.begin <= one.end for one in history.calls)
    assert history.calls[0][:4] + history.calls[0][7:] == ("reserve", "r0", 1, 2, "ann")
    assert told_by(Answer(500, b"", {})) == UNKNOWN


def test_a_call_that_breaks_is_recorded_as_one_of_unknown_fate():
    history = History()

    def lost():
        raise ConnectionError

    with pytest.raises(ConnectionError):
        history.record(lost, "reserve", "a", 1, 1)
    assert [one.told for one in history.calls] == [UNKNOWN]


STEPS = st.lists(
    st.tuples(st.integers(0, 7), st.integers(1, 4), st.booleans(), st.booleans()), max_size=30
)


@anything
@given(st.integers(0, 8), STEPS)
def test_of_calls_one_after_the_other_exactly_the_wrong_answers_are_caught(stock, steps):
    calls, wrong, held = [], Counter(), {}
    for at, (number, quantity, gives_back, served) in enumerate(steps):
        name, times = f"r{at}", (at, at + 0.5)
        if gives_back and held:
            one = sorted(held)[number % len(held)]
            calls.append(release(one, *times, quantity=held.pop(one)))
        elif served:
            calls.append(reserve(name, *times, quantity=quantity))
            held[name] = quantity
            wrong["oversold", name] += sum(held.values()) > stock
        else:
            calls.append(reserve(name, *times, OUT, quantity=quantity))
            wrong["refused falsely", name] += sum(held.values()) + quantity <= stock

    assert sorted(kinds(calls, stock)) == sorted((+wrong).elements())


@anything
@given(
    st.integers(0, 8),
    st.lists(
        st.tuples(
            st.integers(1, 4),
            st.floats(0, 10),
            st.floats(0, 10),
            st.floats(0, 3),
            st.floats(0, 3),
            st.booleans(),
        ),
        max_size=20,
    ),
)
def test_whatever_a_right_shop_did_at_some_moment_within_each_call_is_accepted(stock, wishes):
    moments = []
    for number, (quantity, at, stay, before, after, lost) in enumerate(wishes):
        moments.append((at, "reserve", f"r{number}", quantity, before, after, lost))
        moments.append((at + stay, "release", f"r{number}", quantity, after, before, lost))
    calls, held = [], {}
    for at, name, one, quantity, before, after, lost in sorted(moments):
        told = "done"
        if name == "release":
            told = "done" if held.pop(one, 0) else "reservation_failed"
        elif sum(held.values()) + quantity > stock:
            told = OUT
        else:
            held[one] = quantity
        told = UNKNOWN if lost else told
        calls.append(call(name, one, at - before, at + after, told, quantity=quantity))

    assert kinds(calls, stock) == []
