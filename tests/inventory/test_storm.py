"""Storms: many threads, calls of all kinds, and afterwards the books and every single answer.

``shared``: the threads share their transactions, as those of one process do. ``alone``: each call
has its own, as with one thread to a process. ``processes``: four groups of threads, each sharing
among themselves. The seed is printed; FLASHSALE_SEED=… draws the same calls again (their
interleaving is the machine's).
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import pytest
from django.db import OperationalError, connection

from common.events.models import OutboxEvent
from common.group_commit import GroupCommit
from common.transactions import in_transaction
from services.inventory import expiry, reservations
from services.inventory.entries import states_of
from services.inventory.models import Reservation, Stock
from services.inventory.reserving import reserve_groups
from tests.common.concurrency import together
from tests.inventory.books import make_overdue, violations
from tests.inventory.driver import Answer, Caller, decide_group, entry, reserve_group
from tests.inventory.history import History

pytestmark = [pytest.mark.slow, pytest.mark.django_db(transaction=True)]

FULL = bool(os.environ.get("FLASHSALE_TEST_FULL"))
THREADS, PROCESSES = 32, 4
# In each of the three ways of sharing.
ATTEMPTS = 8_000 if FULL else 500
MIXED_OPERATIONS = 4_000 if FULL else 400
SECONDS_MAX = 900 if FULL else 120
# A 503 says that the same call may work in a moment; on a busy machine it may take several.
TRIES_MAX, RETRY_SECONDS = 50, 0.2
DAWDLE, DAWDLE_SECONDS_MAX = 0.05, 0.005
TOKEN_SECONDS = 20.0


def dawdling(rng: random.Random) -> Any:
    """Let this thread stop now and then in front of a statement, so that others come in between."""

    def dawdle(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if rng.random() < DAWDLE:
            time.sleep(rng.random() * DAWDLE_SECONDS_MAX)
        return execute(sql, params, many, context)

    return connection.execute_wrapper(dawdle)


def let_expire(*reservation_ids: str) -> None:
    """Let the holds' time run out and look after what is overdue, as the loop does: it goes on
    after an error, and what was locked too long it gives back another time."""
    with suppress(OperationalError):
        in_transaction(partial(make_overdue, *reservation_ids))
        expiry.expire_batch()


def seeded(name: str) -> random.Random:
    """Return the storm's source of randomness, and say how to get the same again."""
    seed = os.environ.get("FLASHSALE_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"\n{name}: FLASHSALE_SEED={seed}, {THREADS} threads")
    return random.Random(f"{seed}-{name}")


class RenewingCaller(Caller):
    """A caller whose storm outlives its token."""

    def __init__(self, issue: Callable[[], str]) -> None:
        self._issue, self._renew_at = issue, 0.0
        super().__init__()

    def call(self, *args: Any, **kwargs: Any) -> Answer:
        if time.monotonic() > self._renew_at:
            self.token, self._renew_at = self._issue(), time.monotonic() + TOKEN_SECONDS
        return super().call(*args, **kwargs)


@pytest.fixture
def order(service_token_for: Callable[[str], str]) -> Caller:
    """Return the order service calling inventory."""
    return RenewingCaller(partial(service_token_for, "order"))


class OfSeveralProcesses:
    """As many group commits as there are processes; each thread belongs to one of them."""

    def __init__(self, work: Callable[[list[Any]], Any]) -> None:
        self._parts = [GroupCommit(work) for _ in range(PROCESSES)]
        self._numbers, self._thread = count(), threading.local()

    def submit(self, lane: Any, entries: Any) -> Any:
        if not hasattr(self._thread, "part"):
            self._thread.part = self._parts[next(self._numbers) % PROCESSES]
        return self._thread.part.submit(lane, entries)


@pytest.fixture(params=["shared", "alone", "processes"])
def sharing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set how the threads share their transactions."""
    if request.param == "alone":
        request.getfixturevalue("alone")
    if request.param == "processes":
        monkeypatch.setattr(reservations, "_reserving", OfSeveralProcesses(reserve_groups))
        deciding = {
            call: OfSeveralProcesses(partial(reservations._decide, call))
            for call in ("commit", "release")
        }
        monkeypatch.setattr(reservations, "_deciding", deciding)
    return str(request.param)


@dataclass(frozen=True)
class Attempt:
    """Somebody who wants units of a ticket, and what comes of the hold if there is one."""

    reservation_id: str
    ticket_id: int
    quantity: int
    buyer_id: str
    buyer_limit: int | None
    fate: str

    @property
    def body(self) -> dict[str, Any]:
        more = {"buyer_id": self.buyer_id, "buyer_limit": self.buyer_limit}
        return entry(self.reservation_id, self.ticket_id, self.quantity, **more)


# Fates of holds, in percent; of all sales together a fifth of the holds is cancelled. Contested:
# one thread commits while another one releases.
RETURNING = {"release": 30, "commit": 16, "expire": 8, "contested": 6, "keep": 40}
STAYING = {"commit": 40, "keep": 60}
TWICE = 0.05  # so many are sent by two threads at once, as by a double click


class Sales:
    """Sales one after the other, each of one ticket with more demand than there is."""

    def __init__(self, rng: random.Random, attempts: int) -> None:
        self.stocks: dict[int, int] = {}
        self.staying: set[int] = set()
        self.limits: dict[str, int] = {}
        self.attempts: list[Attempt] = []
        while len(self.attempts) < attempts:
            self._add(rng, ticket_id=1 + len(self.stocks))
        # The last one may be cut before it is sold out.
        del self.attempts[attempts:]

    def _add(self, rng: random.Random, ticket_id: int) -> None:
        stock = round(10 ** rng.uniform(0, 3))
        self.stocks[ticket_id] = stock
        # Where nothing is given back, what is left at the end was left at every moment before.
        stays = rng.random() < 0.4
        self.staying |= {ticket_id} if stays else set()
        fates = STAYING if stays else RETURNING
        buyers = [f"t{ticket_id}b{n}" for n in range(2 + stock // 4)]
        self.limits |= {one: rng.randint(1, 6) for one in buyers[: len(buyers) // 3]}
        wanted = 0
        while wanted < max(THREADS, stock * 1.5):
            buyer = rng.choice(buyers)
            attempt = Attempt(
                f"r{len(self.attempts)}",
                ticket_id,
                rng.randint(1, 4),
                buyer,
                self.limits.get(buyer),
                rng.choices(list(fates), list(fates.values()))[0],
            )
            self.attempts += [attempt] * (1 + (rng.random() < TWICE))
            wanted += attempt.quantity


class Crowd:
    """The threads of a storm: they take attempts from one queue and see holds to their end."""

    def __init__(self, order: Caller, attempts: list[Attempt]) -> None:
        self.order = order
        self.queue, self.contested = deque(attempts), deque()
        self.history = History()
        self.told: list[tuple[str, str, Answer]] = []

    def buy(self, rng: random.Random) -> None:
        """Work as one thread: buy, and now and then decide what was bought some time ago."""
        with dawdling(random.Random(rng.random())):
            self._buy(rng, holding=deque())

    def _buy(self, rng: random.Random, holding: deque[Attempt]) -> None:
        while self.queue or holding or self.contested:
            if self.contested:
                self._take(self.contested, partial(self._call, "release"))
            if self.queue:
                self._take(self.queue, partial(self._reserve, holding))
            while len(holding) > (rng.randrange(4) if self.queue else 0):
                self._decide(holding.popleft())

    def _take(self, queue: deque[Attempt], act: Callable[[Attempt], Any]) -> None:
        try:
            attempt = queue.popleft()
        except IndexError:  # another thread was faster
            return
        act(attempt)

    def _reserve(self, holding: deque[Attempt], attempt: Attempt) -> None:
        if self._call("reserve", attempt).status == 201:
            holding.append(attempt)

    def _decide(self, attempt: Attempt) -> None:
        if attempt.fate == "contested":
            self.contested.append(attempt)
        if attempt.fate == "expire":
            self._expire(attempt)
        elif attempt.fate != "keep":
            self._call("release" if attempt.fate == "release" else "commit", attempt)

    def _call(self, name: str, attempt: Attempt) -> Answer:
        """Send a call, and again after a 503, as the order service does."""
        one = attempt.reservation_id
        send = {
            "reserve": lambda: self.order.reserve(**attempt.body),
            "commit": lambda: self.order.commit(one),
            "release": lambda: self.order.release(one),
        }[name]
        for _ in range(TRIES_MAX):
            answer = self._record(name, attempt, send)
            self.told.append((name, one, answer))
            if answer.status != 503:
                return answer
            time.sleep(RETRY_SECONDS)
        raise AssertionError(f"{name} of {one} was never answered: {answer}")

    def _expire(self, attempt: Attempt) -> None:
        """Let time run out for a hold, and look after it; somebody else may do so as well."""
        one = attempt.reservation_id

        def send() -> Answer:
            let_expire(one)
            state = states_of([one])[one]
            gone = (state.status, state.reason) == ("RELEASED", "expired")
            return Answer(200 if gone else 503, {}, {})

        self._record("expire", attempt, send)

    def _record(self, name: str, attempt: Attempt, send: Callable[[], Answer]) -> Answer:
        what = (attempt.reservation_id, attempt.ticket_id, attempt.quantity, attempt.buyer_id)
        return self.history.record(send, name, *what)


def test_a_sale_sells_what_there_is_and_every_answer_is_true(order, admin, sharing):
    rng = seeded(f"sales-{sharing}")
    sales = Sales(rng, ATTEMPTS)
    for ticket_id, total in sales.stocks.items():
        assert admin.set_stock(ticket_id, total).status == 201
    crowd = Crowd(order, sales.attempts)

    threads = [partial(crowd.buy, random.Random(rng.random())) for _ in range(THREADS)]
    together(*threads, patience_seconds=SECONDS_MAX)

    statuses = Counter(answer.status for *_, answer in crowd.told)
    print(f"{len(sales.stocks)} sales, {len(sales.attempts)} attempts, {dict(statuses)}")
    assert set(statuses) <= {200, 201, 409, 503}
    assert crowd.history.impossible(sales.stocks, sales.limits) == []
    assert_the_books_are_right()
    assert_answers_are_true(crowd.told)
    assert_limits_are_kept(sales.limits)
    assert_nothing_was_kept_back(sales, crowd.told)
    assert_what_is_left_can_be_bought(order)


class Actor:
    """One thread of the mixed storm: calls of every kind, drawn from its own random source.

    Few ids, so that the threads meet on them.
    """

    tickets, buyers, limit = 3, 5, 6

    def __init__(self, seed: float, order: Caller, admin: Caller, ids: int) -> None:
        self.random = random.Random(seed)
        self.ids = ids
        self.order, self.admin = order, admin
        self.told: Counter[int] = Counter()

    def run(self, operations: int) -> Counter[int]:
        weights = {
            self.reserve: 40,
            self.reserve_several: 10,
            self.commit: 15,
            self.release: 15,
            self.decide_several: 5,
            self.adjust: 5,
            self.initialise: 2,
            self.expire: 8,
        }
        with dawdling(random.Random(self.random.random())):
            for act in self.random.choices(list(weights), list(weights.values()), k=operations):
                self.told.update(statuses_of(act()))
        return self.told

    def _id(self):
        return f"r{self.random.randrange(self.ids)}"

    def _entry(self, reservation_id):
        # The fields follow from the id, mostly: so replays happen, and now and then a mismatch.
        number = int(reservation_id[1:])
        quantity = 1 + number % 3 + (self.random.random() < 0.05)
        return entry(
            reservation_id,
            1 + number % self.tickets,
            quantity,
            buyer_id=f"b{number % self.buyers}",
            buyer_limit=self.limit,
        )

    def reserve(self):
        return self.order.reserve(**self._entry(self._id()))

    def reserve_several(self):
        ids = {self._id() for _ in range(3)}
        return self.order.batch(reserve_group(*(self._entry(one) for one in ids)))

    def commit(self):
        return self.order.commit(self._id())

    def release(self):
        return self.order.release(self._id())

    def decide_several(self):
        ids = {self._id() for _ in range(3)}
        call = self.random.choice(["commit", "release"])
        return self.order.batch(decide_group(call, *ids))

    def adjust(self):
        ticket_id = self.random.randint(1, self.tickets)
        return self.admin.adjust(ticket_id, self.random.choice([-2, -1, 1, 2]))

    def initialise(self):
        ticket_id = self.random.randint(1, self.tickets)
        return self.admin.set_stock(ticket_id, self.random.randint(5, 30))

    def expire(self):
        let_expire(self._id(), self._id())


def test_after_a_storm_of_all_calls_on_few_ids_the_books_are_right(order, admin, tickets, sharing):
    tickets(12, 12, 12)
    rng = seeded(f"mixed-{sharing}")
    ids = MIXED_OPERATIONS // 10

    actors = [Actor(rng.random(), order, admin, ids) for _ in range(THREADS)]
    share = 1 + MIXED_OPERATIONS // THREADS
    calls = [partial(actor.run, share) for actor in actors]
    told = sum(together(*calls, patience_seconds=SECONDS_MAX), Counter())

    print(f"{THREADS * share} operations, {dict(told)}")
    assert set(told) <= {200, 201, 404, 409, 422, 503}
    assert_the_books_are_right()
    assert_limits_are_kept({f"b{n}": Actor.limit for n in range(Actor.buyers)})
    assert all(told[status] for status in (200, 201, 409, 422)), "every kind of answer came up"


def statuses_of(answer: Answer | None) -> list[int]:
    """Return the status of an answer, and of every entry of a batch's."""
    if answer is None:
        return []
    groups = answer.body.get("groups", []) if answer.status == 200 else []
    return [answer.status, *(one["status"] for group in groups for one in group["entries"])]


def assert_the_books_are_right():
    """Check counters = rows = ledger = events."""
    assert violations() == []
    events: dict[str, list[dict[str, Any]]] = {}
    for one in OutboxEvent.objects.filter(type="stock.changed").order_by("seq"):
        events.setdefault(one.aggregateid, []).append(one.payload["data"])
    for row in Stock.objects.all():
        told = events[str(row.ticket_id)]
        versions = [event["version"] for event in told]
        assert versions == list(range(1, row.version + 1)), "an event for every version, in order"
        assert told[-1] == {
            "ticket_id": row.ticket_id,
            "total": row.total,
            "available": row.available,
            "reserved": row.reserved,
            "sold": row.sold,
            "version": row.version,
        }
    expired = Reservation.objects.filter(status="RELEASED", reason="expired")
    announced = OutboxEvent.objects.filter(type="reservation.expired")
    names = [event.payload["data"]["reservation_id"] for event in announced]
    assert sorted(names) == sorted(row.pk for row in expired), "each expiry was announced once"


def assert_limits_are_kept(limits):
    """Check that nobody with a limit holds or has bought more of a ticket."""
    units = Counter()
    for row in Reservation.objects.filter(status__in=["RESERVED", "COMMITTED"]):
        units[row.ticket_id, row.buyer_id] += row.quantity
    for (_, buyer_id), held in units.items():
        assert held <= limits.get(buyer_id, held)


def assert_answers_are_true(told):
    """Check that whatever was acknowledged is in the database, with that content."""
    rows = {row.pk: row for row in Reservation.objects.all()}
    for name, reservation_id, answer in told:
        if answer.status == 503:
            continue
        row = rows[reservation_id]
        now = (row.status, row.reason)
        if answer.status < 300:
            columns = ("reservation_id", "ticket_id", "quantity", "order_id", "buyer_id")
            body = {column: answer.body[column] for column in columns}
            assert body == {column: getattr(row, column) for column in columns}
            later = {"reserve": ("RESERVED", "COMMITTED", "RELEASED")}.get(name)
            assert row.status in (later or (answer.body["status"],)), (name, now, answer.body)
        else:
            refused = {
                "reservation_already_committed": ("COMMITTED", ""),
                "reservation_already_released": ("RELEASED", ""),
                "reservation_expired": ("RELEASED", "expired"),
            }
            assert now == refused.get(answer.code, ("FAILED", answer.code)), (name, answer.body)
    final: dict[str, str] = {}
    for name, reservation_id, answer in told:
        if name != "reserve" and answer.status == 200:
            assert final.setdefault(reservation_id, name) == name, "one fate for each"


def assert_nothing_was_kept_back(sales, told):
    """Check that where nothing was given back, nobody was refused what is still there."""
    quantities = {one.reservation_id: one for one in sales.attempts}
    left = dict(Stock.objects.values_list("ticket_id", "available"))
    for name, reservation_id, answer in told:
        attempt = quantities[reservation_id]
        if name == "reserve" and answer.code == "insufficient_stock":
            if attempt.ticket_id in sales.staying:
                assert left[attempt.ticket_id] < attempt.quantity
            assert answer.body.get("available", 0) < attempt.quantity


def assert_what_is_left_can_be_bought(order):
    """Check that no unit is lost: the rest of each ticket goes to one late comer, and no more."""
    for row in Stock.objects.filter(available__gt=0):
        assert order.reserve(f"late-{row.ticket_id}", row.ticket_id, row.available).status == 201
        after = order.reserve(f"too-late-{row.ticket_id}", row.ticket_id, 1)
        assert after.code == "insufficient_stock"
    assert violations() == []
