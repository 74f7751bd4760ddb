"""The strict parser: what is not plain, bounded JSON never reaches a view."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rest_framework.exceptions import ParseError

from common.errors import Problem
from common.parsers import MAX_DEPTH, StrictJSONParser

LIMIT = 256 * 1024


def parse(body):
    return StrictJSONParser().parse(BytesIO(body))


@pytest.mark.parametrize(
    "value",
    [
        *[0, -1, 1.5, 10**4000, True, None, "", "x", [], {}, {"a": [{"b": None}]}],
        *["é", "\N{SNOWMAN}", "😀", "\x00", '"', "\\", "[" * 500, "{" * 500, '\\"[[['],
    ],
    ids=lambda value: ascii(value)[:20] if not isinstance(value, int) else "int",
)
@pytest.mark.parametrize("ensure_ascii", [True, False])
def test_what_is_json_is_read(value, ensure_ascii):
    assert parse(json.dumps(value, ensure_ascii=ensure_ascii).encode()) == value


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=20,
    )
)
def test_whatever_json_can_say_is_read_as_it_was_meant(value):
    if json.dumps(value).count("[") + json.dumps(value).count("{") <= MAX_DEPTH:
        assert parse(json.dumps(value).encode()) == value


@given(st.binary(max_size=200))
def test_whatever_bytes_arrive_are_read_or_refused(body):
    with suppress(ParseError):
        parse(body)


@pytest.mark.parametrize(
    "body",
    [
        *[b"", b" ", b"{", b"nul", b"{'a': 1}", b'{"a": 1,}', b"[1] [2]", b"01", b"+1", b".5"],
        *[b"NaN", b"[NaN]", b"Infinity", b"-Infinity", b'{"a": 1, "a": 1}', b'[{"a":1,"a":2}]'],
        *[b"\xff", b'"\xed\xa0\x80"', b'"\xc0\xaf"', b'\xef\xbb\xbf{"a": 1}', b'{"a": 1}\x00'],
        *[b'"\\ud800"', b'"\\uDFFF"', b'{"\\ud800": 1}', b'["\\udc00\\ud800"]', b"1" * 5000],
        *[b'"a\nb"', "{}".encode("utf-16"), "{}".encode("utf-32")],
    ],
    ids=lambda body: ascii(body)[:30],
)
def test_what_is_not_json_is_refused(body):
    with pytest.raises(ParseError) as refusal:
        parse(body)
    assert refusal.value.detail.code == "malformed_json"


def test_a_pair_of_surrogates_is_one_character():
    assert parse(b'"\\ud83d\\ude00"') == "😀"
    assert parse(b'"\\\\ud800"') == "\\ud800", "an escaped backslash, and then letters"


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_depth_is_bounded(opening):
    closing = {"[": "]", '{"a":': "}"}[opening]

    def nested(depth):
        return (opening * depth + "1" + closing * depth).encode()

    parse(nested(MAX_DEPTH))
    for depth in (MAX_DEPTH + 1, 995, 20_000):
        with pytest.raises(ParseError, match="nested deeper"):
            parse(nested(depth))


def test_many_brackets_side_by_side_are_not_deep():
    assert len(parse(b"[" + b"{}," * 10_000 + b"{}]")) == 10_001


def test_brackets_in_strings_do_not_count():
    assert parse(b'["' + b"[" * 100 + b'", "\\"' + b"{" * 100 + b'"]')


def test_size_is_bounded():
    exactly = b'"' + b"x" * (LIMIT - 2) + b'"'
    assert len(parse(exactly)) == LIMIT - 2
    for body in (exactly + b" ", b"[" * 2**20, b"x" * 2**22):
        with pytest.raises(Problem) as refusal:
            parse(body)
        assert (refusal.value.status_code, refusal.value.code) == (413, "body_too_large")


@pytest.mark.parametrize("tail", ['\\"', "\\", "\\\\", "a", '"', '""', '"\\'])
def test_no_body_costs_many_times_what_a_harmless_one_of_its_size_does(tail):
    """A scanner that goes back over what it has seen would take minutes for the worst of them."""

    def seconds(body):
        started = time.perf_counter()
        with suppress(ParseError):
            parse(body)
        return time.perf_counter() - started

    brackets = "[" * (MAX_DEPTH + 1)
    awkward = (brackets + '"' + tail * (LIMIT // len(tail)))[: LIMIT - 1]
    harmless = "[" + "[[],[]]," * (LIMIT // 9) + "1]"

    usual = min(seconds(harmless.encode()) for _ in range(3))
    assert min(seconds(awkward.encode()) for _ in range(3)) < 20 * usual
