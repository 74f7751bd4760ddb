"""The sold-out flag: one question to inventory answers the whole crowd that waits for it.

Where inventory has refused units of a ticket, requests of this process ask for that ticket one
after the other. Whoever came before a question was asked, and wants more than its answer says is
left, is refused by that answer. So nobody is refused by old news: units that come back are on sale
at once, and a crowd that comes too late costs inventory one question at a time.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

# Who has waited so long for others asks inventory himself.
WAIT_SECONDS = 1.0
FLAGS_MAX = 10_000


class SoldOut(Exception):
    """Inventory has just said that there is not enough left of a ticket."""

    def __init__(self, ticket_id: int, available: int) -> None:
        super().__init__(ticket_id, available)
        self.ticket_id = ticket_id
        self.available = available


@dataclass
class _Flag:
    turn: threading.Lock = field(default_factory=threading.Lock)
    # When the last refused question was begun, and how many units its answer spoke of.
    asked_at: float = float("-inf")
    available: int = 0


_flags: dict[int, _Flag] = {}
_flags_lock = threading.Lock()


@contextmanager
def turn(quantities: Mapping[int, int]) -> Iterator[float]:
    """Wait for one's turn to ask inventory; gives the moment at which the question begins.

    Raises SoldOut when another one's question was answered meanwhile. Tickets without a flag, or
    with enough units at the last answer, have no turns. ``quantities`` are in ascending tickets,
    so that nobody waits in a circle.
    """
    arrived = time.monotonic()
    with ExitStack() as turns:
        for ticket_id, quantity in quantities.items():
            flag = _flags.get(ticket_id)
            if flag is None or quantity <= flag.available:
                continue
            left = arrived + WAIT_SECONDS - time.monotonic()
            if not flag.turn.acquire(timeout=max(0.0, left)):
                continue
            turns.callback(flag.turn.release)
            if flag.asked_at > arrived and quantity > flag.available:
                raise SoldOut(ticket_id, flag.available)
            if _flags.get(ticket_id) is not flag:
                # There are units after all, or nobody knows: all may ask at once.
                turns.pop_all().close()
        try:
            yield time.monotonic()
        except BaseException:
            # No answer: the others shall not wait for one each.
            forget(quantities)
            raise


def remember(ticket_id: int, *, available: int, asked_at: float) -> None:
    """Note that a question begun at that moment was refused, and how many units were left."""
    with _flags_lock:
        if len(_flags) >= FLAGS_MAX:
            _flags.clear()
        flag = _flags.setdefault(ticket_id, _Flag())
        if asked_at > flag.asked_at:
            flag.asked_at, flag.available = asked_at, available


def forget(quantities: Mapping[int, int]) -> None:
    """Note that inventory had units of these tickets, or that it is not known."""
    for ticket_id in quantities:
        if ticket_id in _flags:
            with _flags_lock:
                _flags.pop(ticket_id, None)


def forget_all() -> None:
    """Forget everything."""
    with _flags_lock:
        _flags.clear()
