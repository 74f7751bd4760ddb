"""Buyers who do not give up, and a record of what they were told, to hold the system to it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

from tests.system.client import Client, Reply, insist, new_key, within
from tests.system.faults import SETTLED_SECONDS_MAX
from tests.system.shop import Shop, outcome

# Where the purchase was torn and its buyer came back too late, it is refused for good.
REFUSALS = frozenset({"409 sold_out", "409 order_interrupted"})
READERS = 8


class Acknowledged:
    """Orders, with the final states that their buyers may find them in after what they were told.

    PAID is on its way: to CONFIRMED, or back with the money if the hold ran out in the crash.
    """

    def __init__(self) -> None:
        self._orders: list[tuple[Client, str, tuple[str, ...]]] = []

    def __len__(self) -> int:
        return len(self._orders)

    def add(self, buyer: Client, order: str, *states: str) -> None:
        """Note that an order exists, and how it may end."""
        # Appending is atomic; so this is safe from many threads.
        self._orders.append((buyer, order, states))

    def add_answer(self, buyer: Client, order: str, answer: Reply) -> None:
        """Note what the definite answer to a payment or a cancellation says of the order."""
        if answer.status == 200:
            told = str(answer.json.get("order", answer.json)["status"])
            self.add(buyer, order, *(("CONFIRMED", "EXPIRED") if told == "PAID" else (told,)))
        else:
            # It could not be paid in time: where holds are short and the crash was long.
            assert answer.code in ("order_expired", "order_not_cancellable"), answer
            self.add(buyer, order, "EXPIRED")

    def require(self, seconds: float = SETTLED_SECONDS_MAX) -> Counter[str]:
        """Wait until every order is in a state that it may be in; returns how many are in which.

        An order that is lost, or in another state, fails.
        """
        deadline = time.monotonic() + seconds

        def final(buyer: Client, order: str, states: tuple[str, ...]) -> str:
            left = max(0.0, deadline - time.monotonic())
            read = partial(insist, lambda: buyer.get(f"/api/orders/{order}"), SETTLED_SECONDS_MAX)
            return within(left, lambda: str(read().require(200)["status"]), lambda s: s in states)

        with ThreadPoolExecutor(READERS) as pool:
            return Counter(pool.map(lambda noted: final(*noted), self._orders))


class Storm:
    """Buyers who order again and again, and repeat with the same key until they know."""

    def __init__(self, ticket: int) -> None:
        self.ticket = ticket
        self.tally: Counter[str] = Counter()
        self.acknowledged = Acknowledged()
        self._lock = threading.Lock()

    @property
    def answers(self) -> int:
        return sum(self.tally.values())

    def buy(self, buyer: Client) -> None:
        """Three orders: two are paid, one is cancelled."""
        for turn in range(3):
            key, second_key = new_key(), new_key()
            ordered = insist(lambda key=key: buyer.order(self.ticket, key=key))
            self._count(ordered)
            if ordered.status != 201:
                continue
            order = ordered.json["id"]
            if turn == 1:
                ended = insist(lambda order=order: buyer.cancel(order))
            else:
                ended = insist(lambda order=order, key=second_key: buyer.pay(order, key=key))
            self.acknowledged.add_answer(buyer, order, ended)

    def _count(self, reply: Reply) -> None:
        with self._lock:
            self.tally[outcome(reply)] += 1

    def then(self, answers: int, do: Callable[[], None]) -> None:
        """Do something once that many answers have come."""
        within(60, lambda: self.answers, lambda count: count >= answers)
        do()

    def require_what_was_acknowledged(self) -> Counter[str]:
        """Wait until every order is in the state that its buyer was told; returns how many are."""
        assert set(self.tally) <= {"201"} | REFUSALS, self.tally
        return self.acknowledged.require()


@contextmanager
def under_load(shop: Shop, ticket: int, buyers: int = 6) -> Iterator[Storm]:
    """Let so many people at a time buy, one after the other, until the block ends.

    The block begins when orders come in; what a buyer could not understand fails at its end.
    """
    storm, over = Storm(ticket), threading.Event()

    def keep_coming() -> None:
        while not over.is_set():
            storm.buy(shop.buyer())

    with ThreadPoolExecutor(buyers) as pool:
        coming = [pool.submit(keep_coming) for _ in range(buyers)]
        try:
            within(30, lambda: storm.answers, lambda count: count >= buyers)
            yield storm
        finally:
            over.set()
        for one in coming:
            one.result()


def require_sold_exactly(shop: Shop, ticket: int, total: int, confirmed: int) -> None:
    """Wait until inventory has sold what was confirmed and holds nothing else.

    A torn purchase is resolved by the sweeper, half a minute later.
    """
    within(60, lambda: shop.stock(ticket), (total - confirmed, 0, confirmed))
