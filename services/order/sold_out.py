"""The sold-out flag: where inventory has refused units of a ticket, one purchase asks for a crowd.

A flag never refuses anybody by itself. It lets the first of a batch ask alone, and the answer,
which is younger than everybody's arrival, is told to those who want more than it says is left. So
nobody is refused by old news, units that come back are on sale at once, and a crowd that comes too
late costs inventory one entry a batch, and the order service's database one row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from services.order.inventory_client import Entry

FLAGS_MAX = 10_000

# ticket → how many units were left when inventory last refused some
_left: dict[int, int] = {}


def is_doubtful(quantities: Mapping[int, int]) -> bool:
    """Tell whether more is wanted of a ticket than was left at its last refusal."""
    return any(quantity > _left.get(ticket, quantity) for ticket, quantity in quantities.items())


def learn(answers: Iterable[tuple[Mapping[int, int], Sequence[Entry]]]) -> dict[int, int]:
    """Raise and lower flags by what inventory answers to these quantities, in their order.

    Returns ticket → units left, of those tickets that it says to be short of units just now.
    """
    news: dict[int, int] = {}
    for quantities, entries in answers:
        if not any(entry.code for entry in entries):
            forget(quantities)
        for ticket_id, entry in zip(quantities, entries, strict=True):
            # The replay of an old refusal does not say what is left, and is no news.
            if "available" in entry.error:
                news[ticket_id] = entry.error["available"]
    if len(_left) >= FLAGS_MAX:
        _left.clear()
    _left.update(news)
    return news


def forget(tickets: Iterable[int]) -> None:
    """Note that inventory had units of these tickets, or that it is not known."""
    for ticket_id in tickets:
        _left.pop(ticket_id, None)


def forget_all() -> None:
    """Forget everything."""
    _left.clear()
