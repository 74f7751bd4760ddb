"""What the catalog does about findings of the audit."""

from __future__ import annotations

from collections.abc import Mapping

from common.repairing import EVENT_REPAIRS, Item, Repair
from services.catalog import offers


def republish_offer(item: Item) -> str:
    """Publish a ticket's offer again, under a version that every projection takes for news."""
    version = offers.republish(int(item["id"]), above=int(item.get("above", 0)))
    return f"published as version {version}" if version else ""


REPAIRS: Mapping[str, Repair] = {"republish_offer": republish_offer, **EVENT_REPAIRS}
