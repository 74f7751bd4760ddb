"""Periods of time whose two ends may be changed one at a time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Q

from services.catalog.refusals import wrong_way_round


def in_order(changes: Mapping[str, Any], start: str, end: str, *, may_touch: bool) -> Q:
    """Return the condition on a row under which ``changes`` leave its start before its end.

    With both ends given it is decided here: 400 when they are the wrong way round. With one, the
    row's other end decides, in the WHERE of the UPDATE, so that nothing is read before it is
    written. An end that is None is open.
    """
    first, last = changes.get(start), changes.get(end)
    if first is not None and last is not None:
        if first > last or (first == last and not may_touch):
            raise wrong_way_round(start, end)
        return Q()
    equal = "e" if may_touch else ""
    if first is not None and end not in changes:
        return Q(**{f"{end}__isnull": True}) | Q(**{f"{end}__gt{equal}": first})
    if last is not None and start not in changes:
        return Q(**{f"{start}__isnull": True}) | Q(**{f"{start}__lt{equal}": last})
    return Q()
