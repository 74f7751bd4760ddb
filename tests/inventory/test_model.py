"""The service beside a model of it: thousands of calls in any order, and after each of them the
answer, the rows, the counters, the limits and the ledger are those of the model.

The model is plain Python: dictionaries and sums, no SQL, no transactions, nothing to repeat. The
seed is printed; FLASHSALE_SEED=… plays the same steps again.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from itertools import count
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from django.db import transaction
from django.test import override_settings
from django.utils import timezone
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from common.errors import Problem
from common.events.models import OutboxEvent
from services.inventory import expiry, extending, ledger, reservations, stock
from services.inventory.deciding import Decision
from services.inventory.entries import Group, Hold, states_of
from services.inventory.models import STOCK_MAX, BuyerHold, Reservation, Stock, StockMovement
from tests.inventory.books import make_overdue, violations

STEPS_MIN, STEPS_MAX = 5_000, 15_000
ROUND = {"max_examples": 25, "stateful_step_count": 50}
AUDIT_EVERY_STEPS = 10
STOCKED, UNSTOCKED = (1, 2, 3), (4, 9)
IDS = 200
TABLES = (OutboxEvent, StockMovement, BuyerHold, Reservation, Stock)

# What each line of the ledger does to (total, available, reserved, sold), and to the buyer's bag.
EFFECTS = {
    "adjust": ((1, 1, 0, 0), 0),
    "reserve": ((0, -1, 1, 0), 1),
    "refuse": ((0, 0, 0, 0), 0),
    "commit": ((0, 0, -1, 1), 0),
    "release": ((0, 1, -1, 0), -1),
    "expire": ((0, 1, -1, 0), -1),
}
EXTENSION = timedelta(seconds=300)
TARGETS = {"commit": "COMMITTED", "release": "RELEASED"}
# All that callers can be told comes up in every run, or the run has proven too little.
TELLABLE = {
    *("reserved", "replayed", "decided", "extended", "initialised", "adjusted"),
    *("expired", "group_refused", "insufficient_stock", "limit_exceeded", "ticket_not_found"),
    *("reservation_mismatch", "reservation_not_found", "reservation_failed"),
    *("reservation_already_committed", "reservation_already_released", "reservation_expired"),
    *("stock_in_use", "stock_not_found", "stock_too_large"),
}


@dataclass(frozen=True)
class Row:
    """A reservation as it should be stored."""

    ticket_id: int
    quantity: int
    order_id: UUID | None
    buyer_id: str
    status: str = "RESERVED"
    reason: str = ""


class Told(NamedTuple):
    """What should be said of one hold or one id."""

    code: str | None = None
    data: dict[str, Any] = {}
    row: Row | None = None
    created: bool = False


class Line(NamedTuple):
    """One line that should be in the ledger."""

    ticket_id: int
    kind: str
    quantity: int
    reservation_id: str
    actor: str
    reason: str


class Model:
    """What must come of every call."""

    def __init__(self):
        self.stocks = {}  # ticket → (total, available, reserved, sold)
        self.rows = {}  # reservation id → Row
        self.bags = Counter()  # (ticket, buyer) → units
        self.lines = []  # the ledger
        self.ends = {}  # reservation id → when its hold lapses
        self.extended = set()

    def reserve(self, groups, at_once):
        """Serve groups lane by lane (a lane: tickets in common), ``at_once`` of a lane together."""
        told = {}
        for lane in lanes_of([{one.ticket_id for one in group.holds} for group in groups]):
            for start in range(0, len(lane), at_once):
                batch = {number: groups[number] for number in lane[start : start + at_once]}
                told |= self._reserve_together(batch)
        return [told[number] for number in range(len(groups))]

    def _reserve_together(self, batch):
        """Serve in their order. Who repeats what one before him brings waits for what comes of
        that, and if he wants more than that, so does everybody behind him."""
        told, known = {number: {} for number in batch}, set()
        waiting = list(batch)
        while waiting:
            turn, brought = [], set()
            for number in waiting:
                told[number] = replayed = {
                    one.reservation_id: self._replay(one)
                    for one in batch[number].holds
                    if one.reservation_id in known
                }
                fresh = {one.reservation_id for one in batch[number].holds} - replayed.keys()
                if any(one.code for one in replayed.values()):
                    replayed |= dict.fromkeys(fresh, Told("group_refused"))
                elif not fresh & brought:
                    turn += [number] if fresh else []
                    brought |= fresh
                elif not fresh <= brought:
                    break
            if not brought & self.rows.keys():
                for number in turn:
                    told[number] |= self._reserve_new(batch[number], told[number])
            known |= brought & self.rows.keys()
            waiting = [n for n in waiting if len(told[n]) < len(batch[n].holds)]
        return {
            number: [told[number][one.reservation_id] for one in group.holds]
            for number, group in batch.items()
        }

    def _replay(self, hold):
        row = self.rows[hold.reservation_id]
        if replace(row, status="RESERVED", reason="") != row_of(hold):
            return Told("reservation_mismatch")
        return Told(row.reason if row.status == "FAILED" else None, row=row)

    def _reserve_new(self, group, replayed):
        """All of what is new in a group, or nothing of it."""
        holds = [one for one in group.holds if one.reservation_id not in replayed]
        wanted, bags, limits = Counter(), Counter(), {}
        for one in holds:
            bag = one.ticket_id, one.buyer_id
            wanted[one.ticket_id] += one.quantity
            bags[bag] += one.quantity
            if one.buyer_id and one.buyer_limit:
                limits[bag] = min(one.buyer_limit, limits.get(bag, one.buyer_limit))
        left = {ticket: counters[1] for ticket, counters in self.stocks.items()}
        unknown = wanted.keys() - left.keys()
        over = {bag for bag in limits if self.bags[bag] + bags[bag] > limits[bag]}
        lacking = {ticket for ticket in wanted if wanted[ticket] > left.get(ticket, STOCK_MAX)}

        told = {}
        for one in holds:
            ticket, bag, row = one.ticket_id, (one.ticket_id, one.buyer_id), row_of(one)
            if not (unknown or over or lacking):
                told[one.reservation_id] = Told(row=row, created=True)
                self._write(one.reservation_id, row, "reserve", group.actor)
                continue
            answer = Told("group_refused")
            if unknown:
                answer = Told("ticket_not_found") if ticket in unknown else answer
            elif over:
                data = {"ticket_id": ticket, "limit": limits.get(bag)}
                answer = Told("limit_exceeded", data) if bag in over else answer
            elif ticket in lacking:
                data = {"ticket_id": ticket, "available": left[ticket]}
                answer = Told("insufficient_stock", data)
            if not unknown:
                row = replace(row, status="FAILED", reason=answer.code)
                answer = answer._replace(row=row)
                self._write(one.reservation_id, row, "refuse", group.actor)
            told[one.reservation_id] = answer
        return told

    def decide(self, call, decisions):
        """Commit or release. Who is refused was so before the call: it leads to one state only."""
        told = {number: self._refuse(call, one) for number, one in enumerate(decisions)}
        open_ones = [number for number, refused in told.items() if not refused]
        tickets = [
            {self.rows[one].ticket_id for one in decisions[number].reservation_ids}
            for number in open_ones
        ]
        for lane in lanes_of(tickets):
            for number in lane:
                told[open_ones[number]] = self._decide(call, decisions[open_ones[number]])
        return [told[number] for number in range(len(decisions))]

    def _refuse(self, call, decision):
        rows = {one: self.rows.get(one) for one in decision.reservation_ids}
        codes = {one: refusal_of(row, TARGETS[call]) for one, row in rows.items()}
        if not any(codes.values()):
            return None
        movable = {one for one, row in rows.items() if row and row.status == "RESERVED"}
        return [
            Told("group_refused") if one in movable else Told(codes[one], row=rows[one])
            for one in rows
        ]

    def _decide(self, call, decision):
        for one in decision.reservation_ids:
            if self.rows[one].status == "RESERVED":
                row = replace(self.rows[one], status=TARGETS[call])
                self._write(one, row, call, decision.actor)
        return [Told(row=self.rows[one]) for one in decision.reservation_ids]

    def extend(self, reservation_id):
        """More time for a hold, once."""
        row = self.rows.get(reservation_id)
        code = refusal_of(row, "RESERVED")
        if code is None and reservation_id not in self.extended:
            self.extended.add(reservation_id)
            self.ends[reservation_id] += EXTENSION
        return Told(code, row=row)

    def expire(self):
        """Give all overdue holds back; return how many that were."""
        now = timezone.now()
        holding = [one for one, row in self.rows.items() if row.status == "RESERVED"]
        due = [one for one in holding if self.ends[one] < now]
        for one in due:
            row = replace(self.rows[one], status="RELEASED", reason="expired")
            self._write(one, row, "expire", "expiry")
        return len(due)

    def adjust(self, ticket_id, delta, actor):
        """Return the code of the refusal, None when it is done."""
        if ticket_id not in self.stocks:
            return "stock_not_found"
        total, available, *_ = self.stocks[ticket_id]
        if available + delta < 0:
            return "insufficient_stock"
        if total + delta > STOCK_MAX:
            return "stock_too_large"
        self._move(Line(ticket_id, "adjust", delta, "", actor, ""))
        return None

    def initialise(self, ticket_id, total, actor):
        """Return the code of the refusal, None when it is done."""
        if any(self.stocks.get(ticket_id, (0,))[2:]):
            return "stock_in_use"
        self.lines.append(Line(ticket_id, "initialise", total, "", actor, ""))
        self.stocks[ticket_id] = (total, total, 0, 0)
        return None

    def _write(self, reservation_id, row, kind, actor):
        self.rows[reservation_id] = row
        what = (row.ticket_id, kind, row.quantity, reservation_id, actor, row.reason)
        self._move(Line(*what), row.buyer_id)

    def _move(self, line, buyer_id=""):
        self.lines.append(line)
        signs, bag = EFFECTS[line.kind]
        counters = self.stocks[line.ticket_id]
        self.stocks[line.ticket_id] = tuple(
            before + sign * line.quantity for before, sign in zip(counters, signs, strict=True)
        )
        if buyer_id:
            self.bags[line.ticket_id, buyer_id] += bag * line.quantity


def lanes_of(tickets):
    """Return the numbers of what shares tickets, also through others, in lists; first come first.

    Their order matters to each other, and to nobody else.
    """
    lanes = []
    for number, mine in enumerate(tickets):
        mixed = [lane for lane in lanes if lane[0] & mine]
        numbers = [number, *(one for _, some in mixed for one in some)]
        lanes = [lane for lane in lanes if lane not in mixed]
        lanes.append((mine.union(*(some for some, _ in mixed)), numbers))
    return sorted(sorted(numbers) for _, numbers in lanes)


def row_of(hold):
    """Return the row that a hold becomes."""
    return Row(hold.ticket_id, hold.quantity, hold.order_id, hold.buyer_id)


def refusal_of(row, target):
    """Return why a row cannot come to a state, None when it can or is there."""
    if row is None:
        return "reservation_not_found"
    if row.status in ("RESERVED", target):
        return None
    if row.reason == "expired":
        return "reservation_expired"
    return {
        "COMMITTED": "reservation_already_committed",
        "RELEASED": "reservation_already_released",
        "FAILED": "reservation_failed",
    }[row.status]


def as_row(state):
    """Return what is stored in the model's terms."""
    what = (state.ticket_id, state.quantity, state.order_id, state.buyer_id)
    return Row(*what, str(state.status), state.reason)


def as_told(outcome):
    """Return what the service says in the model's terms."""
    state, problem, created = outcome
    row = as_row(state) if state else None
    if problem is None:
        return Told(None, {}, row, created)
    return Told(problem.code, problem.extra, row, created)


actors = st.sampled_from(["order", "admin"])


def hold_of(number):
    """Return the hold of a number: all of it follows from that, so that it can be sent again.

    Some ids and buyers differ in case only: they are compared byte for byte.
    """
    return Hold(
        reservation_id=("R" if number % 2 else "r") + str(number // 2),
        ticket_id=(*STOCKED * 7, *UNSTOCKED)[number % 23],
        quantity=(1, 2, 3, 4, 1, 2, 1, 2, 3, 1, 30)[number % 11],
        ttl_seconds=600,
        order_id=UUID(int=number) if number % 3 else None,
        buyer_id=("", "ann", "bob", "BOB")[number // 2 % 4],
    )


HOLDS = [hold_of(number) for number in range(IDS)]
limits = st.sampled_from([None, None, 1, 2, 4, 8])
holds = st.builds(
    lambda number, limit: HOLDS[number]._replace(buyer_limit=limit), st.integers(0, IDS - 1), limits
)
# How a hold may be sent again: the first two are the same one.
CHANGES = {
    "nothing": lambda hold: hold,
    "time": lambda hold: hold._replace(ttl_seconds=60),
    "ticket": lambda hold: hold._replace(ticket_id=1 + hold.ticket_id % 3),
    "quantity": lambda hold: hold._replace(quantity=hold.quantity + 1),
    "order": lambda hold: hold._replace(order_id=UUID(int=IDS)),
    "no order": lambda hold: hold._replace(order_id=None),
    "no buyer": lambda hold: hold._replace(buyer_id=""),
    "capitals": lambda hold: hold._replace(buyer_id=hold.buyer_id.swapcase()),
}


def groups_of(most):
    """Draw groups of up to ``most`` holds, each id once in a group."""
    several = st.lists(holds, min_size=1, max_size=most, unique_by=lambda one: one.reservation_id)
    return st.builds(Group, several, actors)


calls = st.sampled_from(list(TARGETS))
tickets = st.sampled_from([*STOCKED, *UNSTOCKED[:1]])


class Service(RuleBasedStateMachine):
    """Each rule calls the service and the model, and compares what they say."""

    steps = 0
    told: Counter[str] = Counter()

    def __init__(self):
        super().__init__()
        with transaction.atomic():
            for table in TABLES:
                table.objects.all().delete()
        self.model = Model()
        self.lines_read = self.seq_read = self.steps_here = 0
        self.sharing = None

    @initialize(
        at_once=st.sampled_from([256, 256, 2, 1]), totals=st.tuples(*[st.integers(0, 50)] * 3)
    )
    def start(self, at_once, totals):
        self.at_once = at_once
        self.sharing = override_settings(
            GROUP_COMMIT_MAX_BATCH=at_once, HOLD_EXTENSION_SECONDS=EXTENSION.total_seconds()
        )
        self.sharing.enable()
        Service.steps -= 1  # this is none
        for ticket_id, total in zip(STOCKED, totals, strict=True):
            self.initialise(ticket_id, total)

    @rule(group=groups_of(1))
    def reserve(self, group):
        self._reserve([group])

    @rule(group=groups_of(4))
    def reserve_several(self, group):
        self._reserve([group])

    @rule(batch=st.lists(groups_of(1) | groups_of(3), min_size=2, max_size=6))
    def reserve_batch(self, batch):
        self._reserve(batch)

    @rule(change=st.just("nothing") | st.sampled_from(list(CHANGES)), data=st.data())
    def reserve_again(self, change, data):
        """What exists already, as it was or changed, and new ones beside it."""
        known = [n for n in range(IDS) if HOLDS[n].reservation_id in self.model.rows]
        again = CHANGES[change](HOLDS[data.draw(st.sampled_from(known or [0]))])
        beside = data.draw(groups_of(2))
        new = [one for one in beside.holds if one.reservation_id != again.reservation_id]
        self._reserve([Group([again, *new], beside.actor)])

    @rule(
        first=st.integers(0, IDS - 5),
        picks=st.lists(
            st.lists(st.integers(0, 4), min_size=1, max_size=3, unique=True), min_size=2, max_size=6
        ),
    )
    def reserve_entangled(self, first, picks):
        """A batch whose groups have each other's ids."""
        groups = [[HOLDS[first + number] for number in pick] for pick in picks]
        self._reserve([Group(group, "order") for group in groups])

    @rule(call=calls, data=st.data())
    def decide(self, call, data):
        self._decide(call, [Decision(self._ids(data), data.draw(actors))])

    @rule(call=calls, data=st.data())
    def decide_batch(self, call, data):
        count = data.draw(st.integers(2, 4))
        self._decide(call, [Decision(self._ids(data), data.draw(actors)) for _ in range(count)])

    @rule(data=st.data())
    def time_passes(self, data):
        """Holds run out; until somebody looks after them they can still be decided."""
        ids = self._ids(data)
        make_overdue(*ids)
        self.model.ends |= dict(
            Reservation.objects.filter(pk__in=ids).values_list("pk", "expires_at")
        )

    @rule(data=st.data())
    def expire(self, data):
        self.time_passes(data)
        expected = self.model.expire()
        assert expiry.expire_batch() == expected
        Service.told["expired"] += expected

    @rule(data=st.data())
    def extend(self, data):
        [reservation_id, *_] = self._ids(data)
        expected = self.model.extend(reservation_id)
        self._compare([[extending.extend(reservation_id)]], [[expected]], "extended")

    @rule(ticket_id=tickets, delta=st.integers(-20, 20) | st.just(STOCK_MAX))
    def adjust(self, ticket_id, delta):
        self._change_stock("adjusted", stock.adjust, ticket_id=ticket_id, delta=delta)

    @rule(ticket_id=tickets, total=st.integers(0, 50))
    def initialise(self, ticket_id, total):
        self._change_stock("initialised", stock.initialise, ticket_id=ticket_id, total=total)

    def _ids(self, data):
        """Draw a few ids: mostly holds, then those that are decided, seldom one of nothing."""
        rows = self.model.rows
        holding = sorted(one for one, row in rows.items() if row.status == "RESERVED")
        some = st.sampled_from(holding or sorted(rows) or ["nobody"])
        some = some | some | some | st.sampled_from(sorted(rows) or ["nobody"])
        some = some | holds.map(lambda one: one.reservation_id)
        return data.draw(st.lists(some, min_size=1, max_size=3, unique=True))

    def _reserve(self, groups):
        expected = self.model.reserve(groups, self.at_once)
        before = timezone.now()
        told = reservations.reserve(groups)
        self._learn_ends(groups, told, before)
        self._compare(told, expected, "replayed")

    def _learn_ends(self, groups, told, before):
        """The model has no clock: when a new hold lapses it has to be told, within bounds."""
        now = timezone.now()
        for group, outcomes in zip(groups, told, strict=True):
            for hold, (state, _, created) in zip(group.holds, outcomes, strict=True):
                if state is not None and hold.reservation_id not in self.model.ends:
                    self.model.ends[hold.reservation_id] = state.expires_at
                if created:
                    ttl = timedelta(seconds=hold.ttl_seconds)
                    assert before + ttl <= state.expires_at <= now + ttl

    def _decide(self, call, batch):
        expected = self.model.decide(call, batch)
        self._compare(reservations.decide(call, batch), expected, "decided")

    def _compare(self, outcomes, expected, done):
        assert [[as_told(one) for one in group] for group in outcomes] == expected
        acknowledged = [one.reservation for group in outcomes for one in group if one.reservation]
        stored = states_of(state.reservation_id for state in acknowledged)
        assert all(stored[state.reservation_id] == state for state in acknowledged)
        for group in expected:
            for one in group:
                Service.told[one.code or ("reserved" if one.created else done)] += 1

    def _change_stock(self, done, change, **arguments):
        arguments["actor"] = "admin"
        expected = getattr(self.model, change.__name__)(**arguments)
        assert refusal_by(partial(change, **arguments)) == expected
        Service.told[expected or done] += 1

    @invariant()
    def the_books_are_the_models(self):
        stocks = dict(rows_of(Stock, "ticket_id", "total", "available", "reserved", "sold"))
        assert stocks == self.model.stocks
        stored = list(Reservation.objects.all())
        rows = {row.pk: as_row(row) for row in stored}
        assert rows == self.model.rows
        assert {row.pk: row.expires_at for row in stored} == self.model.ends
        assert {row.pk for row in stored if row.extended} == self.model.extended
        units = Counter()
        for row in rows.values():
            units[row.ticket_id, row.status] += row.quantity
        for ticket_id, (total, available, reserved, sold) in stocks.items():
            assert (reserved, sold) == (units[ticket_id, "RESERVED"], units[ticket_id, "COMMITTED"])
            assert available == total - reserved - sold >= 0
        bags = BuyerHold.objects.exclude(quantity=0)
        bags = {(row.ticket_id, row.buyer_id): row.quantity for row in bags}
        assert bags == +self.model.bags
        self._read_the_ledger()

    def _read_the_ledger(self):
        fresh = StockMovement.objects.filter(seq__gt=self.seq_read).order_by("seq")
        fresh = list(fresh.values_list("seq", *Line._fields))
        expected = self.model.lines[self.lines_read :]
        assert sorted(line[1:] for line in fresh) == sorted(expected)
        self.lines_read += len(expected)
        self.seq_read = fresh[-1][0] if fresh else self.seq_read

    @invariant()
    def now_and_then_an_auditor_comes(self):
        Service.steps += 1
        self.steps_here += 1
        if self.steps_here % AUDIT_EVERY_STEPS:
            return
        assert violations() == []
        for ticket_id, counters in self.model.stocks.items():
            assert tuple(ledger.counters(ticket_id).values()) == counters
        self._read_the_events()

    def _read_the_events(self):
        """One event for every version of a stock, the last with its state; one for every expiry."""
        events = list(OutboxEvent.objects.order_by("seq").values_list("type", "payload"))
        for row in Stock.objects.all():
            told = [
                event["data"]
                for kind, event in events
                if kind == "stock.changed" and event["data"]["ticket_id"] == row.ticket_id
            ]
            assert [one["version"] for one in told] == list(range(1, row.version + 1))
            assert told[-1] == {name: getattr(row, name) for name in stock.COUNTERS}
        expired = [e["data"]["reservation_id"] for kind, e in events if kind != "stock.changed"]
        assert sorted(expired) == sorted(
            name for name, row in self.model.rows.items() if row.reason == "expired"
        )

    def teardown(self):
        if self.sharing:
            self.sharing.disable()


def refusal_by(call):
    """Return the code with which a call is refused, None when it is not."""
    try:
        call()
    except Problem as refusal:
        return refusal.code
    return None


def rows_of(table, key, *columns):
    """Return (key, (column, …)) of every row."""
    return ((first, tuple(rest)) for first, *rest in table.objects.values_list(key, *columns))


@pytest.mark.django_db(transaction=True)
def test_whatever_is_called_answers_and_books_are_those_of_the_model():
    chosen = os.environ.get("FLASHSALE_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"\nmodel: FLASHSALE_SEED={chosen}, at least {STEPS_MIN} steps")
    Service.steps, Service.told = 0, Counter()

    # Hypothesis ends an example when it likes, so that rounds of examples are played until enough
    # has been done and everything has come up.
    for number in count():
        if Service.steps > STEPS_MAX or (
            Service.steps >= STEPS_MIN and set(Service.told) >= TELLABLE
        ):
            break
        run_state_machine_as_test(
            seed(f"{chosen}-{number}")(Service),
            settings=settings(
                **ROUND,
                deadline=None,
                database=None,
                phases=[Phase.generate, Phase.shrink],
                suppress_health_check=list(HealthCheck),
            ),
        )

    print(f"model: {Service.steps} steps, {dict(Service.told)}")
    assert set(Service.told) >= TELLABLE
