"""Ids in URLs: only those that a database column can hold reach a view, each in one spelling."""

from __future__ import annotations

import re

import pytest

from common.converters import RowId, Token


@pytest.mark.parametrize("text", ["1", "42", "9" * 18])
def test_a_row_id_is_a_number_from_1_that_fits_a_bigint(text):
    assert re.fullmatch(RowId.regex, text)
    assert 1 <= RowId().to_python(text) < 2**63


@pytest.mark.parametrize(
    "text", ["", "0", "01", "-1", "+1", "1.0", "9" * 19, "٣", "1\n", "x", " 1"]
)
def test_anything_else_is_not_a_row_id(text):
    assert not re.fullmatch(RowId.regex, text)


@pytest.mark.parametrize("text", ["a", "A-z_0", "-", "x" * 64])
def test_a_token_is_what_a_client_may_call_a_thing(text):
    assert re.fullmatch(Token.regex, text)


@pytest.mark.parametrize("text", ["", "x" * 65, "a b", "a/b", "a.b", "é", "a\n", "\x00"])
def test_anything_else_is_not_a_token(text):
    assert not re.fullmatch(Token.regex, text)
