"""Well-formed bodies, recognised without a serializer: it costs more than the durable write.

A body that is not recognised is judged by its serializer, which alone says what is wrong with it.
What is recognised here, the serializer accepts and understands in the same way (a test says so).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

from django.conf import settings

from common.serializers import is_whole
from services.inventory.api.serializers import (
    CALL_ENTRIES_MAX,
    GROUP_ENTRIES_MAX,
    ID_PATTERN,
    LIMIT_MAX,
    QUANTITY_MAX,
    TICKET_ID_MAX,
    TTL_SECONDS_MAX,
    BatchSerializer,
    Call,
    GroupSerializer,
    ReserveSerializer,
)
from services.inventory.entries import Hold

_is_id = re.compile(ID_PATTERN).match
_is_uuid = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z").match
_RESERVE_MEMBERS = frozenset(ReserveSerializer().fields)
_GROUP_MEMBERS = frozenset(GroupSerializer().fields)
_BATCH_MEMBERS = frozenset(BatchSerializer().fields)


def hold_of(body: Any) -> Hold | None:
    """Return the hold that a reserve body asks for, None where the serializer has to look."""
    if type(body) is not dict or not body.keys() <= _RESERVE_MEMBERS:
        return None
    get: Callable[[str], Any] = body.get
    reservation_id, buyer_id, order_id = get("reservation_id"), get("buyer_id"), get("order_id")
    ttl = get("ttl_seconds")
    limit = get("buyer_limit")
    if (
        _is_text(reservation_id)
        and is_whole(ticket_id := get("ticket_id"), TICKET_ID_MAX)
        and is_whole(quantity := get("quantity"), QUANTITY_MAX)
        and (order_id is None or (type(order_id) is str and _is_uuid(order_id)))
        and (buyer_id is None or _is_text(buyer_id))
        and (limit is None or is_whole(limit, LIMIT_MAX))
        and (ttl is None or is_whole(ttl, TTL_SECONDS_MAX))
    ):
        return Hold(
            reservation_id,
            ticket_id,
            quantity,
            ttl or settings.HOLD_TTL_SECONDS,
            UUID(order_id) if order_id else None,
            buyer_id or "",
            limit,
        )
    return None


def calls_of(body: Any) -> list[Call] | None:
    """Return the calls that a batch body asks for, None where the serializer has to look."""
    groups = body["groups"] if type(body) is dict and body.keys() == _BATCH_MEMBERS else None
    if type(groups) is not list or not 0 < len(groups) <= CALL_ENTRIES_MAX:
        return None
    calls = [_call_of(group) for group in groups]
    known = [call for call in calls if call is not None]
    if len(known) < len(calls) or sum(len(call.entries) for call in known) > CALL_ENTRIES_MAX:
        return None
    return known


def _call_of(group: Any) -> Call | None:
    known = type(group) is dict and group.keys() == _GROUP_MEMBERS
    entries = group["entries"] if known else None
    if type(entries) is not list or not 0 < len(entries) <= GROUP_ENTRIES_MAX:
        return None
    # Commits and releases come one order at a time: their serializer is no matter.
    holds = [hold_of(entry) for entry in entries] if group["call"] == "reserve" else []
    ids = {hold.reservation_id for hold in holds if hold is not None}
    return Call("reserve", holds) if len(ids) == len(entries) else None


def _is_text(value: Any) -> bool:
    return type(value) is str and _is_id(value) is not None
