"""The one request parser: JSON, bounded in size and depth, without NaN, doubled keys or halves of
characters."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Mapping
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import ParseError
from rest_framework.parsers import BaseParser
from rest_framework.renderers import JSONRenderer

from common.errors import Problem

MAX_DEPTH = 32
# Possessive, and content with a string that does not end: nothing is looked at twice.
_STRINGS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_NO_BRACKETS = re.compile(r"[^\[\]{}]+")


class StrictJSONParser(BaseParser):
    """Parses a JSON body of up to DATA_UPLOAD_MAX_MEMORY_SIZE bytes and MAX_DEPTH levels.

    DRF's own parser reads any size and dies of a RecursionError at about 995 levels.
    """

    media_type = "application/json"
    renderer_class = JSONRenderer

    def parse(
        self,
        stream: IO[bytes],
        media_type: str | None = None,
        parser_context: Mapping[str, Any] | None = None,
    ) -> Any:
        limit = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read(limit + 1)
        if len(body) > limit:
            raise Problem(413, "body_too_large", f"The body is larger than {limit} bytes.")
        try:
            text = codecs.decode(body, "utf-8")
        except UnicodeDecodeError as error:
            raise ParseError("The body is not UTF-8.", code="malformed_json") from error
        if _depth_bound(text) > MAX_DEPTH:
            raise ParseError(
                f"The body is nested deeper than {MAX_DEPTH} levels.", code="malformed_json"
            )
        try:
            data = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
            _refuse_half_characters(text, data)
        except ValueError as error:
            raise ParseError(f"The body is not JSON: {error}", code="malformed_json") from error
        return data


def _depth_bound(text: str) -> int:
    """Return the deepest run of open brackets outside of strings."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    # What is left without strings is short, and only that is looked at letter by letter.
    for char in _NO_BRACKETS.sub("", _STRINGS.sub("", text)):
        depth += 1 if char in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return result


def _refuse_half_characters(text: str, data: Any) -> None:
    # A lone surrogate (RFC 8259, 8.2) fits no database, no hash and no answer that quotes it.
    if "\\ud" in text.lower():
        try:
            json.dumps(data, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("half of a surrogate pair") from error
