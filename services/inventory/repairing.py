"""What inventory does about findings of the audit. Counters of stock are not among it: which of
the books is right, a person has to find out."""

from __future__ import annotations

from collections.abc import Mapping

from common.repairing import EVENT_REPAIRS, Item, Repair
from services.inventory import deciding, limits, stock


def expire_hold(item: Item) -> str:
    """Give back a hold whose time is over."""
    return "given back" if deciding.expire(limit=1, only=item["id"]) else ""


def recount_buyer(item: Item) -> str:
    """Count anew what a buyer holds and has bought of a ticket."""
    before, after = limits.recount(int(item["id"]), str(item["buyer_id"]))
    return "" if before == after else f"counted {after} instead of {before}"


def republish_stock(item: Item) -> str:
    """Publish a ticket's counters again, under a version that every projection takes for news."""
    version = stock.republish(int(item["id"]), above=int(item.get("above", 0)))
    return f"published as version {version}" if version else ""


REPAIRS: Mapping[str, Repair] = {
    "expire_hold": expire_hold,
    "recount_buyer": recount_buyer,
    "republish_stock": republish_stock,
    **EVENT_REPAIRS,
}
