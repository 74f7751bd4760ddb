"""Ids: time-ordered ones, and ones that follow from what a client sent."""

from __future__ import annotations

import re
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ids import derived_token, derived_uuid, uuid7

PARTS = st.lists(st.text(max_size=8), max_size=4)


def test_a_uuid7_carries_its_time_and_its_version():
    before = time.time_ns() // 1_000_000
    made = [uuid7() for _ in range(1_000)]
    after = time.time_ns() // 1_000_000

    assert len(set(made)) == 1_000
    assert {one.version for one in made} == {7}
    assert {one.variant for one in made} == {uuid.RFC_4122}
    assert all(before <= one.int >> 80 <= after for one in made)


def test_a_later_uuid7_is_greater():
    earlier = uuid7()
    time.sleep(0.002)
    assert earlier < uuid7()


@given(PARTS, PARTS)
def test_derived_ids_are_equal_exactly_when_their_parts_are(one, other):
    try:
        same = one == other
        assert (derived_uuid(*one) == derived_uuid(*other)) is same
        assert (derived_token(*one) == derived_token(*other)) is same
    except UnicodeEncodeError:
        pytest.fail("text of hypothesis has no surrogates")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a", ""), ("", "a")),
        (("a",), ("a", "")),
        (("1:a",), ("a", "1:a")),
        (("a1:b",), ("a", "b")),
        (("12", "3"), ("1", "23")),
    ],
)
def test_parts_cannot_be_shifted_into_each_other(one, other):
    assert derived_uuid(*one) != derived_uuid(*other)
    assert derived_token(*one) != derived_token(*other)


def test_two_users_with_one_key_have_two_ids():
    assert derived_token("5", "order", "key") != derived_token("6", "order", "key")


def test_derived_ids_never_change():
    """Stored ones must still be found by the next version of this code."""
    assert str(derived_uuid("5", "key")) == "f3be2209-0321-5365-ba51-d2f203199210"
    assert derived_token("5", "key") == "3362243ea77b70ebea2f81e1efdf146428247c86"


def test_a_derived_token_fits_a_reservation_id():
    assert re.fullmatch(r"[A-Za-z0-9_-]{40}", derived_token("é" * 500, "\x00"))
