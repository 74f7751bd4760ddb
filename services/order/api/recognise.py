"""Well-formed purchases, recognised without a serializer: it costs more than the durable write.

A body that is not recognised is judged by its serializer, which alone says what is wrong with it.
What is recognised here, the serializer accepts and understands in the same way (a test says so).
"""

from __future__ import annotations

from typing import Any

from common.serializers import is_whole
from services.order.api.serializers import (
    ITEMS_MAX,
    QUANTITY_MAX,
    TICKET_ID_MAX,
    LineSerializer,
    PlaceOrderSerializer,
)

_ORDER_MEMBERS = frozenset(PlaceOrderSerializer().fields)
_LINE_MEMBERS = frozenset(LineSerializer().fields)


def purchase_body(body: Any) -> dict[str, list[dict[str, int]]] | None:
    """Return the validated body of an order, None where the serializer has to look."""
    items = body["items"] if type(body) is dict and body.keys() == _ORDER_MEMBERS else None
    if type(items) is not list or not 0 < len(items) <= ITEMS_MAX:
        return None
    if not all(_is_line(item) for item in items):
        return None
    # Lines of one ticket are summed up by the serializer.
    distinct = len({item["ticket_id"] for item in items}) == len(items)
    return body if distinct else None


def _is_line(item: Any) -> bool:
    return (
        type(item) is dict
        and item.keys() == _LINE_MEMBERS
        and is_whole(item["ticket_id"], TICKET_ID_MAX)
        and is_whole(item["quantity"], QUANTITY_MAX)
    )
