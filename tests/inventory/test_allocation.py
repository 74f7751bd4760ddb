"""First come, first served, as numbers: what ``allocate`` gives to whom, and never more.

A second, naive way of serving (unit by unit, from a shelf that can be put back) says what is right.
"""

from __future__ import annotations

from collections import Counter
from copy import deepcopy
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.inventory.allocation import allocate, limits_of
from services.inventory.entries import Hold

TICKETS, UNKNOWN_TICKET = (1, 2, 3), 9
# Few of everything, so that holds meet on tickets, buyers and limits.
WISHES = st.tuples(
    st.sampled_from([*TICKETS, *TICKETS, UNKNOWN_TICKET]),
    st.integers(1, 4),
    st.sampled_from(["", "ann", "bob"]),
    st.none() | st.integers(1, 6),
)
LEFT = st.fixed_dictionaries({ticket: st.integers(0, 12) for ticket in TICKETS})
HELD = st.dictionaries(
    st.tuples(st.sampled_from(TICKETS), st.sampled_from(["ann", "bob"])), st.integers(0, 5)
)
GROUPS = st.lists(st.lists(WISHES, min_size=1, max_size=4), max_size=10)
anything = settings(deadline=None, database=None, max_examples=200)


def hold(name, ticket_id=1, quantity=1, buyer="", limit=None):
    return Hold(name, ticket_id, quantity, 600, None, buyer, limit)


def named(wishes):
    """Return groups of holds from groups of wishes, each hold with an id of its own."""
    number = count()
    return [[hold(f"r{next(number)}", *wish) for wish in group] for group in wishes]


def codes(told):
    """Return the refusals of one group by code."""
    return {name: problem.code for name, problem in told.items()}


class Shop:
    """The naive reference: takes units from the shelf one at a time, and puts a group's back."""

    def __init__(self, left, held):
        self.shelf, self.bags = dict(left), Counter(held)

    def serve(self, group):
        """Return the codes of the refusals of a group, none if it was served."""
        before = deepcopy((self.shelf, self.bags))
        reasons = {"ticket_not_found": set(), "limit_exceeded": set(), "insufficient_stock": set()}
        for one in group:
            for _ in range(one.quantity):
                if one.ticket_id not in self.shelf:
                    reasons["ticket_not_found"].add(one.reservation_id)
                    continue
                self.shelf[one.ticket_id] -= 1
                self.bags[one.ticket_id, one.buyer_id] += 1
        for one in group:
            mine = [o for o in group if (o.ticket_id, o.buyer_id) == (one.ticket_id, one.buyer_id)]
            stated = [o.buyer_limit for o in mine if o.buyer_limit is not None]
            bag = self.bags[one.ticket_id, one.buyer_id]
            if one.buyer_id and any(bag > limit for limit in stated):
                reasons["limit_exceeded"].add(one.reservation_id)
            if self.shelf.get(one.ticket_id, 0) < 0:
                reasons["insufficient_stock"].add(one.reservation_id)
        for code, names in reasons.items():  # the gravest first
            if names:
                self.shelf, self.bags = before
                return {
                    one.reservation_id: code if one.reservation_id in names else "group_refused"
                    for one in group
                }
        return {}


@anything
@given(GROUPS, LEFT, HELD)
def test_it_serves_as_somebody_who_hands_out_unit_by_unit(wishes, left, held):
    groups = named(wishes)
    shop = Shop(left, held)

    told = allocate(groups, left, held)

    assert [codes(one) for one in told] == [shop.serve(group) for group in groups]


@anything
@given(GROUPS, LEFT, HELD)
def test_serving_all_at_once_is_serving_each_alone_in_their_order(wishes, left, held):
    groups = named(wishes)
    at_once = allocate(groups, left, held)

    for group, told in zip(groups, at_once, strict=True):
        [alone] = allocate([group], left, held)
        assert codes(alone) == codes(told)
        if not alone:
            left = {ticket: number - units(group, ticket) for ticket, number in left.items()}
            keys = {(one.ticket_id, one.buyer_id) for one in group if one.buyer_id}
            held = held | {key: held.get(key, 0) + units(group, *key) for key in keys}


@anything
@given(GROUPS, LEFT, HELD, st.integers(0, 10))
def test_later_arrivals_change_nothing_for_the_earlier(wishes, left, held, first):
    groups = named(wishes)

    earlier = allocate(groups[:first], left, held)

    assert [codes(one) for one in allocate(groups, left, held)[:first]] == [
        codes(one) for one in earlier
    ]


@anything
@given(GROUPS, LEFT, HELD)
def test_never_more_than_is_left_and_nobody_beyond_a_limit(wishes, left, held):
    groups = named(wishes)
    told = allocate(groups, left, held)

    served = [group for group, refusals in zip(groups, told, strict=True) if not refusals]
    everything = [one for group in served for one in group]
    for ticket in {one.ticket_id for one in everything}:
        assert units(everything, ticket) <= left[ticket]
    for number, group in enumerate(served):
        so_far = [one for earlier in served[: number + 1] for one in earlier]
        for (ticket, buyer), limit in limits_of(group).items():
            assert held.get((ticket, buyer), 0) + units(so_far, ticket, buyer) <= limit


@anything
@given(GROUPS, LEFT, HELD)
def test_a_group_is_served_whole_or_refused_whole(wishes, left, held):
    groups = named(wishes)

    for group, refusals in zip(groups, allocate(groups, left, held), strict=True):
        assert refusals.keys() in (set(), {one.reservation_id for one in group})


@anything
@given(GROUPS, LEFT, HELD)
def test_whoever_would_still_fit_is_served(wishes, left, held):
    """What is left at the end is not enough for any group that was refused for want of stock."""
    groups = named(wishes)
    told = allocate(groups, left, held)

    served = [one for g, refused in zip(groups, told, strict=True) if not refused for one in g]
    rest = {ticket: number - units(served, ticket) for ticket, number in left.items()}
    for group, refusals in zip(groups, told, strict=True):
        if "insufficient_stock" in codes(refusals).values():
            assert any(units(group, ticket) > rest[ticket] for ticket in rest)


@anything
@given(GROUPS, LEFT, HELD)
def test_one_group_has_one_reason_and_the_others_in_it_are_refused_for_its_sake(wishes, left, held):
    groups = named(wishes)

    for refusals in allocate(groups, left, held):
        reasons = set(codes(refusals).values()) - {"group_refused"}
        assert len(reasons) == bool(refusals)


@anything
@given(GROUPS, LEFT, HELD)
def test_what_is_given_in_stays_as_it_was(wishes, left, held):
    groups = named(wishes)
    before = deepcopy((groups, left, held))

    allocate(groups, left, held)

    assert (groups, left, held) == before


def units(holds, ticket_id, buyer_id=None):
    """Return the units of a ticket that holds want, of one buyer or of all."""
    return sum(
        one.quantity
        for one in holds
        if one.ticket_id == ticket_id and buyer_id in (None, one.buyer_id)
    )


def test_a_small_group_behind_a_large_one_still_gets_what_is_left():
    large, small = [hold("large", quantity=3)], [hold("small", quantity=2)]

    assert [codes(told) for told in allocate([large, small], {1: 2}, {})] == [
        {"large": "insufficient_stock"},
        {},
    ]


def test_a_refused_group_gives_back_what_it_had_of_other_tickets():
    both = [hold("a", 1, 2), hold("b", 2, 1)]

    told = allocate([both, [hold("c", 1, 2)]], {1: 2, 2: 0}, {})

    assert [codes(one) for one in told] == [{"a": "group_refused", "b": "insufficient_stock"}, {}]


def test_a_refused_group_does_not_count_against_its_buyers_limit():
    large = [hold("large", 1, 3, "ann", 3)]
    small = [hold("small", 1, 2, "ann", 3)]

    assert [codes(told) for told in allocate([large, small], {1: 2}, {})] == [
        {"large": "insufficient_stock"},
        {},
    ]


@pytest.mark.parametrize(
    ("holds", "left", "expected"),
    [
        ([hold("a", 9), hold("b", 1, 1)], {1: 1}, ["ticket_not_found", "group_refused"]),
        ([hold("a", 9), hold("b", 1, 5)], {1: 1}, ["ticket_not_found", "group_refused"]),
        ([hold("a", 9), hold("b", 8)], {1: 1}, ["ticket_not_found", "ticket_not_found"]),
        ([hold("a", 1, 2, "ann", 1), hold("b", 1)], {1: 9}, ["limit_exceeded", "group_refused"]),
        ([hold("a", 1, 2, "ann", 1), hold("b", 1, 9)], {1: 9}, ["limit_exceeded", "group_refused"]),
        ([hold("a", 1, 1, "ann", 1), hold("b", 1, 1, "ann")], {1: 9}, ["limit_exceeded"] * 2),
        ([hold("a", 1, 1, "ann", 9), hold("b", 1, 1, "ann", 1)], {1: 9}, ["limit_exceeded"] * 2),
        ([hold("a", 1, 1, "ann", 1), hold("b", 1, 1, "bob", 1)], {1: 9}, None),
        ([hold("a", 1, 1, "ann", 1), hold("b", 2, 1, "ann", 1)], {1: 9, 2: 9}, None),
        ([hold("a", 1, 2), hold("b", 1, 2)], {1: 3}, ["insufficient_stock"] * 2),
        ([hold("a", 1, 2), hold("b", 2, 2)], {1: 2, 2: 1}, ["group_refused", "insufficient_stock"]),
        ([hold("a", 1, 1, "", 1), hold("b", 1, 1, "", 1)], {1: 2}, None),
    ],
)  # fmt: skip
def test_the_gravest_reason_is_told_to_whom_it_concerns(holds, left, expected):
    [told] = allocate([holds], left, {})

    wanted = dict(zip("ab", expected, strict=True)) if expected else {}
    assert codes(told) == wanted


def test_a_refusal_for_want_of_stock_says_what_was_left_at_that_turn():
    groups = [[hold("a", quantity=3)], [hold("b", quantity=3)]]

    [_, told] = allocate(groups, {1: 5}, {})

    assert told["b"].extra == {"ticket_id": 1, "available": 2}
    assert told["b"].status_code == 409


def test_a_refusal_for_a_limit_says_which():
    [told] = allocate([[hold("a", 1, 2, "ann", 3)]], {1: 9}, {(1, "ann"): 2})

    assert (told["a"].status_code, told["a"].extra) == (409, {"ticket_id": 1, "limit": 3})


def test_a_limit_that_is_reached_exactly_is_kept():
    assert allocate([[hold("a", 1, 2, "ann", 3)]], {1: 2}, {(1, "ann"): 1}) == [{}]
