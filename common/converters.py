"""URL path converters: ids that fit a database column, so that no URL can overflow one."""

from __future__ import annotations

from django.urls import register_converter
from django.urls.converters import IntConverter, StringConverter


class RowId(IntConverter):
    """A whole number from 1 of up to 18 digits (a BIGINT holds all of them), written one way."""

    regex = "[1-9][0-9]{0,17}"


class Token(StringConverter):
    """1 to 64 characters of ``A-Za-z0-9_-``."""

    regex = "[A-Za-z0-9_-]{1,64}"


register_converter(RowId, "row_id")
register_converter(Token, "token")
