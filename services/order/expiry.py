"""Expiry: inventory says that a hold has run out, and its order follows."""

from __future__ import annotations

from typing import Any

from services.order import saga
from services.order.models import OrderItem


def apply_reservation_expired(data: dict[str, Any], event: dict[str, Any]) -> None:
    """Expire the order whose hold has run out, unless it is paid or over already.

    A paid one is not touched: its commit at inventory will find the hold lost and refund. Other
    holds of the order are released by the saga, not here: an inbox transaction waits for nobody.
    """
    item = OrderItem.objects.filter(pk=data["reservation_id"], order_id=data["order_id"]).first()
    if item is None:
        return
    alone = not OrderItem.objects.filter(order_id=item.order_id).exclude(pk=item.pk).exists()
    saga.apply(item.order_id, "expire", settled=alone)
