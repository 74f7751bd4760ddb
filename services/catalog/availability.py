"""What is left of a ticket: a projection of inventory's events, never a count of our own."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any, TypedDict

from django.db import transaction
from django.utils import timezone

from common import bulk
from common.routers import replica_reads
from common.times import iso
from services.catalog.hot_reads import Shelf
from services.catalog.models import Availability

# Events renew it at once; the second is for when one of them could not reach the cache.
SHELF = Shelf("available", fresh_seconds=1, kept_seconds=10)


class Seen(TypedDict):
    """How many were available, and when the catalog knew it."""

    available: int
    as_of: str


_ensure = bulk.ensurer(Availability, "ticket_id", "available", "version", "updated_at")


def apply_stock_changed(data: dict[str, Any], event: dict[str, Any]) -> None:
    """Keep the newest number of a ticket; older events than the one known change nothing."""
    ticket_id, available = int(data["ticket_id"]), int(data["available"])
    version = int(data["version"])
    if min(ticket_id, available, version) < 0:
        raise ValueError(f"stock.changed with a negative number: {data}")
    newest = {"available": available, "version": version, "updated_at": timezone.now()}
    older = Availability.objects.filter(ticket_id=ticket_id, version__lt=version)
    if not older.update(**newest):
        _ensure([(ticket_id, *newest.values())])
        # The insert may have waited for somebody else's first row, and that may be an older one.
        older.update(**newest)
    transaction.on_commit(partial(_renew, str(ticket_id)), robust=True)


def available_of(ticket_ids: Collection[int], *, hot: bool) -> dict[int, Seen]:
    """Return what is left of each ticket: nothing, where no stock was ever set.

    ``hot`` answers from the cache, as far as the cache knows; otherwise from the database.
    """
    idents = [str(ticket_id) for ticket_id in ticket_ids]
    if hot:
        found = SHELF.read(idents, _load_from_replica)
    else:
        found = {ident: seen for ident, (_, seen) in _load(idents).items()}
    return {int(ident): seen for ident, seen in found.items()}


def _renew(ident: str) -> None:
    SHELF.put(_load([ident]))


def _load_from_replica(idents: list[str]) -> dict[str, tuple[int, Seen]]:
    with replica_reads():
        return _load(idents)


def _load(idents: list[str]) -> dict[str, tuple[int, Seen]]:
    as_of = iso(timezone.now())
    loaded = {ident: (0, Seen(available=0, as_of=as_of)) for ident in idents}
    rows = Availability.objects.filter(ticket_id__in=[int(ident) for ident in idents])
    for ticket_id, available, version in rows.values_list("ticket_id", "available", "version"):
        loaded[str(ticket_id)] = (version, Seen(available=available, as_of=as_of))
    return loaded
