"""Group commit: who shares a transaction with whom, who leads, and who is told what.

Where the database is not the point, the work is plain Python with gates that hold a batch for as
long as a test needs. After every test all callers have ended and no lane is left over.
"""

from __future__ import annotations

import math
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

import pytest
from django.db import (
    IntegrityError,
    InterfaceError,
    OperationalError,
    connection,
    connections,
    transaction,
)

from common import group_commit
from common.errors import Unavailable
from common.group_commit import GroupCommit
from common.transactions import MAX_ATTEMPTS, in_transaction
from services.inventory.models import TicketLabel
from tests.common.concurrency import PATIENCE_SECONDS, together
from tests.common.faults import database_away

with_rows = pytest.mark.django_db(transaction=True)
LANE = "lane"


def until(condition: Callable[[], object]) -> None:
    """Wait for what must come, and fail where it does not."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "what the test waits for does not come"
        time.sleep(0.001)


def passes(event: threading.Event) -> None:
    assert event.wait(PATIENCE_SECONDS), "what the test waits for does not come"


class Gate:
    """Stops the batch with a certain entry in the middle of its work, until it is opened."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def hold(self) -> None:
        self.reached.set()
        passes(self.opened)

    def open(self) -> None:
        self.opened.set()


class Caller(threading.Thread):
    """A thread that submits entries; ``answers()`` returns what it got, or raises it."""

    def __init__(self, submit: Callable[[], list[Any]]) -> None:
        super().__init__(daemon=True)
        self._submit, self._future = submit, Future()
        self.start()

    def run(self) -> None:
        try:
            self._future.set_result(self._submit())
        except BaseException as error:
            self._future.set_exception(error)
        finally:
            connections.close_all()

    def answers(self) -> list[Any]:
        return self._future.result(PATIENCE_SECONDS)

    def has_ended(self) -> bool:
        return self._future.done()


class Stage:
    """A group commit whose work can be held and made to fail, and callers in their own threads."""

    def __init__(self, write: Callable[[list[Any]], object] = lambda entries: None) -> None:
        self.group: GroupCommit[Any, Any] = GroupCommit(self._work)
        self.runs: list[tuple[threading.Thread, list[Any]]] = []
        self.done: list[Any] = []
        self.failures: dict[Any, BaseException] = {}
        self._write = write
        self._gates: dict[Any, Gate] = {}
        self._callers: list[Caller] = []

    @property
    def batches(self) -> list[list[Any]]:
        """Return the entries of each run of the work."""
        return [entries for _, entries in self.runs]

    def gate(self, entry: Any) -> Gate:
        """Return a gate in front of the next batch that has this entry."""
        return self._gates.setdefault(entry, Gate())

    def call(self, *entries: Any, lane: Hashable = LANE) -> Caller:
        """Submit entries in a thread of their own."""
        caller = Caller(lambda: self.group.submit(lane, entries))
        self._callers.append(caller)
        return caller

    def lead(self, *entries: Any, lane: Hashable = LANE) -> tuple[Caller, Gate]:
        """Submit entries to an idle lane; return when their batch stands at its gate."""
        gate = self.gate(entries[0])
        caller = self.call(*entries, lane=lane)
        passes(gate.reached)
        return caller, gate

    def queue(self, *entries: Any, lane: Hashable = LANE) -> Caller:
        """Submit entries to a lane that is led; return when they stand in line."""
        before = self.waiting(lane)
        caller = self.call(*entries, lane=lane)
        until(lambda: self.waiting(lane) == before + 1)
        return caller

    def waiting(self, lane: Hashable = LANE) -> int:
        return len(self.group._lanes.get(lane, ()))

    def end(self) -> None:
        """Let everybody go home, and see that nothing is left."""
        for gate in self._gates.values():
            gate.open()
        for caller in self._callers:
            caller.join(PATIENCE_SECONDS)
            assert not caller.is_alive(), "a caller hangs"
        assert self.group._lanes == {}, "a lane is left over"

    def _work(self, entries: list[Any]) -> list[str]:
        self.runs.append((threading.current_thread(), list(entries)))
        for entry in entries:
            if entry in self._gates:
                self._gates[entry].hold()
        self._write(entries)
        for entry in entries:
            if entry in self.failures:
                raise self.failures[entry]
        self.done += entries
        return [answer_to(entry) for entry in entries]


def answer_to(entry: Any) -> str:
    return f"answer to {entry}"


def answers_to(*entries: Any) -> list[str]:
    return [answer_to(entry) for entry in entries]


class Wait:
    """Stands for what a call waits at: the test, and no clock, says when the wait is too long."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._ends = threading.Semaphore(0)
        self.timeouts: list[float] = []
        self.noticed = threading.Event()
        self.may_go_on, self.may_be_woken = threading.Event(), threading.Event()
        self.may_go_on.set()
        self.may_be_woken.set()

    def acquire(self, timeout: float) -> bool:
        self.timeouts.append(timeout)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if self._lock.acquire(timeout=0.001):
                return True
            if self._ends.acquire(blocking=False):
                self.noticed.set()
                passes(self.may_go_on)
                return False
        raise AssertionError("this call was neither woken nor told that it takes too long")

    def release(self) -> None:
        passes(self.may_be_woken)
        self._lock.release()

    def takes_too_long(self) -> None:
        self._ends.release()


@pytest.fixture(autouse=True)
def batch_max(settings: Any) -> Callable[[int], None]:
    """Return what sets how many entries may share a transaction; many, unless it is called."""

    def set_to(size: int) -> None:
        settings.GROUP_COMMIT_MAX_BATCH = size

    set_to(256)
    return set_to


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no batch count as stalled: here they are held on purpose."""
    monkeypatch.setattr(group_commit, "STALL_SECONDS", PATIENCE_SECONDS)


@pytest.fixture
def stage() -> Iterator[Stage]:
    made = Stage()
    yield made
    made.end()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> dict[Any, Wait]:
    """Return the waits of the calls to come, by their first entry."""
    made: dict[Any, Wait] = {}

    class Call(group_commit._Call):  # type: ignore[type-arg]
        def __init__(self, entries: Sequence[Any]) -> None:
            super().__init__(entries)
            self.wake = made[entries[0]] = Wait(self.wake)  # type: ignore[assignment]

    monkeypatch.setattr(group_commit, "_Call", Call)
    return made


# Who shares with whom


def test_an_idle_lane_runs_at_once_in_the_callers_own_thread(stage):
    threads = threading.active_count()
    assert stage.group.submit(LANE, ["a"]) == answers_to("a")
    assert stage.runs == [(threading.current_thread(), ["a"])]
    assert threading.active_count() == threads
    assert stage.group._lanes == {}


def test_who_waits_while_a_leader_works_shares_the_next_batch(stage):
    first, gate = stage.lead("a")
    others = {entry: stage.queue(entry) for entry in "bcd"}
    gate.open()

    assert first.answers() == answers_to("a")
    for entry, caller in others.items():
        assert caller.answers() == answers_to(entry)
    assert stage.batches == [["a"], ["b", "c", "d"]]


def test_a_batch_keeps_the_order_of_arrival(stage):
    arrivals = [number * 7 % 31 for number in range(31)]
    _, gate = stage.lead("first")
    callers = [stage.queue(number) for number in arrivals]
    gate.open()

    for caller in callers:
        caller.answers()
    assert stage.batches == [["first"], arrivals]


def test_each_caller_gets_its_own_answers_in_its_order(stage):
    _, gate = stage.lead("first")
    sent = [[f"{name}{number}" for number in range(ord(name) - ord("a"))] for name in "bzcmd"]
    callers = [stage.queue(*entries) for entries in sent]
    gate.open()

    for entries, caller in zip(sent, callers, strict=True):
        assert caller.answers() == answers_to(*entries)
    assert len(stage.runs) == 2


def test_equal_entries_of_several_callers_are_worked_on_one_by_one(stage):
    _, gate = stage.lead("first")
    callers = [stage.queue("same", "same"), stage.queue("same")]
    gate.open()

    assert [len(caller.answers()) for caller in callers] == [2, 1]
    assert stage.batches[1] == ["same"] * 3


def test_no_entries_are_no_work(stage, batch_max):
    for size in (256, 1):
        batch_max(size)
        assert stage.group.submit(LANE, []) == []
    assert stage.runs == []


# Who leads


def test_the_first_who_waits_leads_next_and_the_old_leader_does_not_wait_for_that(stage):
    old, gate = stage.lead("a")
    next_gate = stage.gate("b")
    new, follower = stage.queue("b"), stage.queue("c")
    gate.open()

    assert old.answers() == answers_to("a")
    passes(next_gate.reached)
    assert not new.has_ended()
    assert not follower.has_ended()
    next_gate.open()
    assert (new.answers(), follower.answers()) == (answers_to("b"), answers_to("c"))
    assert [thread for thread, _ in stage.runs] == [old, new]


def test_who_comes_while_the_second_batch_runs_is_in_the_third(stage):
    _, gate = stage.lead("a")
    next_gate = stage.gate("b")
    stage.queue("b")
    gate.open()
    passes(next_gate.reached)
    late = [stage.queue("c"), stage.queue("d")]
    next_gate.open()

    assert [caller.answers() for caller in late] == [answers_to("c"), answers_to("d")]
    assert stage.batches == [["a"], ["b"], ["c", "d"]]
    assert stage.runs[2][0] is late[0]


def test_the_next_batch_begins_before_the_last_one_is_told_its_answers(stage, waits):
    """The database shall not stand idle while callers are woken."""
    _, gate = stage.lead("a")
    next_gate = stage.gate("b")
    _, follower = stage.queue("b"), stage.queue("c")
    gate.open()
    passes(next_gate.reached)
    late = stage.queue("d")
    waits["c"].may_be_woken.clear()
    next_gate.open()

    assert late.answers() == answers_to("d")
    assert not follower.has_ended()
    waits["c"].may_be_woken.set()
    assert follower.answers() == answers_to("c")


def test_a_lane_that_stalls_stops_no_other(stage):
    stalled, gate = stage.lead("a", lane=1)
    waiting = stage.queue("b", lane=1)

    for entry, lane in (("c", 2), ("d", (1, 2)), ("e", 2)):
        assert stage.group.submit(lane, [entry]) == answers_to(entry)

    assert not stalled.has_ended()
    assert not waiting.has_ended()
    gate.open()
    assert waiting.answers() == answers_to("b")


def test_two_group_commits_share_no_lanes(stage):
    stage.lead("a")
    other = Stage()
    assert other.group.submit(LANE, ["b"]) == answers_to("b")


# How many share


def test_a_batch_is_bounded(stage, batch_max):
    batch_max(3)
    _, gate = stage.lead("a")
    callers = {entry: stage.queue(entry) for entry in "bcdefgh"}
    gate.open()

    for entry, caller in callers.items():
        assert caller.answers() == answers_to(entry)
    assert stage.batches == [["a"], ["b", "c", "d"], ["e", "f", "g"], ["h"]]


def test_a_batch_takes_callers_as_a_whole_and_nobody_overtakes(stage, batch_max):
    batch_max(4)
    _, gate = stage.lead("a")
    sent = [["b", "c"], ["d", "e", "f"], ["g"], ["h"]]
    callers = [stage.queue(*entries) for entries in sent]
    gate.open()

    for entries, caller in zip(sent, callers, strict=True):
        assert caller.answers() == answers_to(*entries)
    assert stage.batches == [["a"], ["b", "c"], ["d", "e", "f", "g"], ["h"]]


def test_who_has_more_entries_than_a_batch_holds_is_served_in_pieces(stage, batch_max):
    batch_max(3)
    assert stage.group.submit(LANE, range(8)) == answers_to(*range(8))
    assert stage.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]


def test_between_the_pieces_it_is_the_turn_of_who_waits(stage, batch_max):
    batch_max(3)
    big, gate = stage.lead(*range(8))
    other_gate = stage.gate("a")
    other = stage.queue("a")
    gate.open()
    passes(other_gate.reached)
    until(stage.waiting)
    other_gate.open()

    assert other.answers() == answers_to("a")
    assert big.answers() == answers_to(*range(8))
    assert stage.batches == [[0, 1, 2], ["a"], [3, 4, 5], [6, 7]]


def test_a_maximum_of_one_works_on_each_entry_alone_at_once_and_in_its_callers_thread(
    stage, batch_max
):
    batch_max(1)
    gates = [stage.gate(number) for number in range(3)]
    callers = [stage.call(number, f"second of {number}") for number in range(3)]
    for gate in gates:
        passes(gate.reached)
    assert sorted(stage.batches) == [[0], [1], [2]], "all at the same moment, in one lane"
    for gate in gates:
        gate.open()

    for number, caller in enumerate(callers):
        assert caller.answers() == answers_to(number, f"second of {number}")
        assert [batch for thread, batch in stage.runs if thread is caller] == [
            [number],
            [f"second of {number}"],
        ]


def test_a_maximum_of_one_also_lets_a_poisoned_entry_fail_alone(stage, batch_max):
    batch_max(1)
    stage.failures["b"] = ValueError("b")
    assert stage.group.submit(LANE, "abc") == ["answer to a", stage.failures["b"], "answer to c"]


# What one entry does to others


@pytest.mark.parametrize(
    ("count", "poisons"),
    [
        (2, {0}),
        (64, {0}),
        (64, {31}),
        (64, {63}),
        (37, {17}),
        (256, {100}),
        (64, {0, 63}),
        (64, {5, 6, 40}),
        (100, {0, 33, 50, 99}),
    ],
)
def test_poisoned_entries_fail_alone_after_few_runs(stage, count, poisons):
    stage.failures = {number: ValueError(number) for number in poisons}

    outcomes = stage.group.submit(LANE, range(count))

    for number, outcome in enumerate(outcomes):
        assert outcome == stage.failures.get(number, answer_to(number))
    assert stage.done == [n for n in range(count) if n not in poisons], "each once, in order"
    assert len(stage.runs) <= 1 + 2 * math.ceil(math.log2(count)) * len(poisons)


def test_where_all_are_poisoned_each_is_told_its_own_error(stage):
    stage.failures = {number: ValueError(number) for number in range(8)}
    assert stage.group.submit(LANE, range(8)) == list(stage.failures.values())
    assert len(stage.runs) == 15


@pytest.mark.parametrize("poisoned", ["b", "e", "i"])
def test_a_poisoned_call_leaves_the_calls_that_it_shares_with_alone(stage, poisoned):
    stage.failures[poisoned] = ValueError(poisoned)
    _, gate = stage.lead("a")
    callers = {entry: stage.queue(entry) for entry in "bcdefghi"}
    gate.open()

    for entry, caller in callers.items():
        assert caller.answers() == [stage.failures.get(entry, answer_to(entry))]
    assert stage.batches[1] == list("bcdefghi")
    assert stage.done == [entry for entry in "abcdefghi" if entry != poisoned]


@pytest.mark.parametrize(
    "error",
    [
        OperationalError(2006, "Server has gone away"),
        OperationalError(2013, "Lost connection to server during query"),
        OperationalError(1213, "Deadlock found when trying to get lock"),
        OperationalError(1205, "Lock wait timeout exceeded"),
        OperationalError(1040, "Too many connections"),
        OperationalError("database is locked"),
        InterfaceError(0, ""),
    ],
    ids=str,
)
def test_an_outage_is_told_to_everyone_and_nothing_is_tried_again(stage, error):
    stage.failures["d"] = error
    _, gate = stage.lead("a")
    callers = [stage.queue("b", "c"), stage.queue("d"), stage.queue("e")]
    gate.open()

    assert [caller.answers() for caller in callers] == [[error, error], [error], [error]]
    assert stage.batches == [["a"], ["b", "c", "d", "e"]]
    stage.failures.clear()
    assert stage.group.submit(LANE, "d") == answers_to("d"), "the lane goes on"


def test_an_outage_while_halving_leaves_the_halves_that_are_done_their_answers(stage):
    stage.failures = {3: ValueError(3), 6: OperationalError(2006, "gone")}

    outcomes = stage.group.submit(LANE, range(8))

    assert outcomes[:4] == [*answers_to(0, 1, 2), stage.failures[3]]
    assert outcomes[4:] == [stage.failures[6]] * 4
    assert stage.done == [0, 1, 2]


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_leader_that_is_interrupted_tells_its_followers_and_leaves_the_lane_usable(stage, kind):
    stage.failures["b"] = kind()
    _, gate = stage.lead("a")
    next_gate = stage.gate("b")
    leader, follower = stage.queue("b"), stage.queue("c", "d")
    gate.open()
    passes(next_gate.reached)
    late = stage.queue("e")
    next_gate.open()

    with pytest.raises(kind):
        leader.answers()
    told = follower.answers()
    assert [(type(outcome), outcome.code) for outcome in told] == [(Unavailable, "interrupted")] * 2
    assert late.answers() == answers_to("e")
    assert stage.batches == [["a"], ["b", "c", "d"], ["e"]]
    assert stage.group.submit(LANE, "f") == answers_to("f")


def test_what_is_interrupted_while_halving_says_so_to_all(stage):
    stage.failures = {"c": ValueError("c"), "d": SystemExit()}
    _, gate = stage.lead("a")
    leader, follower = stage.queue("b", "c"), stage.queue("d")
    gate.open()

    with pytest.raises(SystemExit):
        leader.answers()
    assert [outcome.code for outcome in follower.answers()] == ["interrupted"]


# Who waits in vain


def test_where_too_many_wait_the_next_is_refused_at_once(stage, monkeypatch):
    monkeypatch.setattr(group_commit, "QUEUE_MAX", 2)
    _, gate = stage.lead("a")
    waiting = [stage.queue("b"), stage.queue("c", "d")]

    with pytest.raises(Unavailable) as refusal:
        stage.group.submit(LANE, ["e"])

    assert (refusal.value.status_code, refusal.value.code) == (503, "overloaded")
    assert stage.group.submit("another lane", ["f"]) == answers_to("f")
    gate.open()
    assert [caller.answers() for caller in waiting] == [answers_to("b"), answers_to("c", "d")]
    assert stage.group.submit(LANE, ["g"]) == answers_to("g")
    assert "e" not in stage.done


def test_behind_a_batch_that_stalls_nobody_else_waits(stage, monkeypatch):
    """Or callers of one ticket would take all threads of the process."""
    _, gate = stage.lead("a")
    waiting = stage.queue("b")
    monkeypatch.setattr(group_commit, "STALL_SECONDS", 0.0)

    with pytest.raises(Unavailable) as refusal:
        stage.group.submit(LANE, ["c"])

    assert (refusal.value.status_code, refusal.value.code) == (503, "overloaded")
    assert stage.group.submit("another lane", ["d"]) == answers_to("d")
    gate.open()
    assert waiting.answers() == answers_to("b")
    assert stage.group.submit(LANE, ["e"]) == answers_to("e"), "the next batch is a new beginning"
    assert "c" not in stage.done


def test_who_waits_too_long_for_its_turn_is_told_so_and_never_worked_on(stage, monkeypatch):
    _, gate = stage.lead("a")
    monkeypatch.setattr(group_commit, "WAIT_SECONDS_MAX", 0.05)
    given_up = [stage.call("b"), stage.call("c", "d")]
    for caller in given_up:
        with pytest.raises(Unavailable) as refusal:
            caller.answers()
        assert (refusal.value.status_code, refusal.value.code) == (503, "overloaded")
    monkeypatch.setattr(group_commit, "WAIT_SECONDS_MAX", PATIENCE_SECONDS)
    patient = stage.queue("e")
    gate.open()

    assert patient.answers() == answers_to("e")
    assert stage.batches == [["a"], ["e"]]


def test_who_gives_up_leaves_the_others_in_line_where_they_are(stage, waits):
    _, gate = stage.lead("a")
    callers = {entry: stage.queue(entry) for entry in "bcde"}
    for entry in "bd":
        waits[entry].takes_too_long()
        with pytest.raises(Unavailable):
            callers[entry].answers()
    gate.open()

    assert [callers[entry].answers() for entry in "ce"] == [answers_to("c"), answers_to("e")]
    assert stage.batches == [["a"], ["c", "e"]]
    assert stage.runs[1][0] is callers["c"]


def test_a_batch_that_has_begun_is_waited_for_once_more(stage, waits):
    _, gate = stage.lead("a")
    next_gate = stage.gate("b")
    _, follower = stage.queue("b"), stage.queue("c")
    gate.open()
    passes(next_gate.reached)
    waits["c"].takes_too_long()
    until(lambda: len(waits["c"].timeouts) == 2)
    next_gate.open()

    assert follower.answers() == answers_to("c")
    assert waits["c"].timeouts == [group_commit.WAIT_SECONDS_MAX] * 2


def test_who_gives_up_while_it_is_worked_on_disturbs_nobody(stage, waits):
    _, gate = stage.lead("a")
    next_gate = stage.gate("b")
    leader, hasty, patient = stage.queue("b"), stage.queue("c", "d"), stage.queue("e")
    gate.open()
    passes(next_gate.reached)
    waits["c"].takes_too_long()
    waits["c"].takes_too_long()
    with pytest.raises(Unavailable) as refusal:
        hasty.answers()
    next_gate.open()

    assert (refusal.value.status_code, refusal.value.code) == (503, "overloaded")
    assert (leader.answers(), patient.answers()) == (answers_to("b"), answers_to("e"))
    assert stage.batches == [["a"], ["b", "c", "d", "e"]]
    assert stage.group.submit(LANE, ["c"]) == answers_to("c")


def test_who_is_made_leader_as_it_gives_up_leads(stage, waits):
    old, gate = stage.lead("a")
    late, follower = stage.queue("b"), stage.queue("c")
    waits["b"].may_go_on.clear()
    waits["b"].takes_too_long()
    passes(waits["b"].noticed)
    gate.open()
    assert old.answers() == answers_to("a")
    waits["b"].may_go_on.set()

    assert (late.answers(), follower.answers()) == (answers_to("b"), answers_to("c"))
    assert stage.batches == [["a"], ["b", "c"]]


def test_no_lane_loses_its_leader_however_slowly_it_is_woken(stage, waits):
    """Whoever is taken out of the line to lead must not be able to give up before it is woken."""
    _, gate = stage.lead("a")
    chosen, follower = stage.queue("b"), stage.queue("c")
    waits["b"].may_be_woken.clear()
    gate.open()
    until(lambda: stage.waiting() == 0)
    waits["b"].takes_too_long()
    waits["b"].takes_too_long()
    chosen.join(0.2)
    waits["b"].may_be_woken.set()

    assert chosen.answers() == answers_to("b")
    assert follower.answers() == answers_to("c")


# With a real table


def insert(entries: list[int]) -> None:
    """Write a row for each entry, in one transaction."""

    def write() -> None:
        for entry in entries:
            TicketLabel(ticket_id=entry, label="", version=0).save(force_insert=True)

    in_transaction(write)


def rows() -> set[int]:
    return set(TicketLabel.objects.values_list("ticket_id", flat=True))


@pytest.fixture
def table_stage() -> Iterator[Stage]:
    made = Stage(write=insert)
    yield made
    made.end()


@with_rows
def test_what_all_callers_wrote_is_there_when_they_have_their_answers(table_stage):
    _, gate = table_stage.lead(1)
    callers = {number: table_stage.queue(number, number + 100) for number in range(2, 12)}
    gate.open()

    for number, caller in callers.items():
        assert caller.answers() == answers_to(number, number + 100)
        assert {number, number + 100} <= rows()
    assert len(table_stage.runs) == 2
    assert len(rows()) == 21


@with_rows
@pytest.mark.parametrize("duplicate", [2, 5, 9])
def test_a_real_duplicate_fails_alone(table_stage, duplicate):
    insert([duplicate])
    _, gate = table_stage.lead(1)
    callers = {number: table_stage.queue(number) for number in range(2, 10)}
    gate.open()

    for number, caller in callers.items():
        [outcome] = caller.answers()
        if number == duplicate:
            assert isinstance(outcome, IntegrityError)
        else:
            assert outcome == answer_to(number)
    assert rows() == set(range(1, 10))
    assert sorted(table_stage.done) == sorted(set(range(1, 10)) - {duplicate})


@with_rows
def test_an_outage_leaves_nothing_of_a_shared_transaction():
    full = OperationalError(1114, "The table is full")

    def write(entries: list[int]) -> None:
        def work() -> None:
            insert(entries)
            if 4 in entries:
                raise full

        in_transaction(work)

    stage = Stage(write)
    _, gate = stage.lead(1)
    callers = [stage.queue(number) for number in (2, 3, 4, 5)]
    gate.open()

    assert [caller.answers() for caller in callers] == [[full]] * 4
    stage.end()
    assert rows() == {1}


@with_rows
def test_a_database_that_is_away_is_asked_for_the_batch_and_not_for_each_entry(table_stage):
    asked = []

    def note(execute: Callable[..., Any], sql: str, *args: Any) -> Any:
        asked.append(sql)
        return execute(sql, *args)

    with connection.execute_wrapper(note), database_away():
        outcomes = table_stage.group.submit(LANE, range(50))

    assert {type(outcome) for outcome in outcomes} == {OperationalError}
    assert (len(outcomes), len(table_stage.runs)) == (50, 1)
    assert 1 <= len(asked) <= MAX_ATTEMPTS


@with_rows
def test_inside_a_callers_own_transaction_nothing_is_shared(table_stage):
    others, gate = table_stage.lead(1)
    waiting = table_stage.queue(2)

    with transaction.atomic():
        assert table_stage.group.submit(LANE, [3, 4]) == answers_to(3, 4)
        assert rows() == {3, 4}
        transaction.set_rollback(True)
    gate.open()

    assert (others.answers(), waiting.answers()) == (answers_to(1), answers_to(2))
    own = [batch for thread, batch in table_stage.runs if thread is threading.current_thread()]
    assert own == [[3], [4]]
    assert rows() == {1, 2}, "its roll-back took nobody else's rows along"


@with_rows
def test_inside_a_callers_own_transaction_a_poisoned_entry_takes_back_itself_only(table_stage):
    insert([4])
    with transaction.atomic():
        outcomes = table_stage.group.submit(LANE, [3, 4, 5])
    assert [isinstance(outcome, IntegrityError) for outcome in outcomes] == [False, True, False]
    assert rows() == {3, 4, 5}


# Everything at once

THREADS, CALLS, ENTRIES_MAX, LANES = 24, 12, 10, 4
ATTEMPTS_MAX = 2_000


class Entry(NamedTuple):
    """One of a caller's; another attempt is another entry."""

    lane: int
    caller: int
    number: int
    poisoned: bool
    attempt: int = 0


class Storm:
    """Work that fails in every way, and callers that try again and note what they were told."""

    def __init__(self, dice: random.Random) -> None:
        self.group: GroupCommit[Entry, tuple[str, Entry]] = GroupCommit(self._work)
        self.committed: Counter[Entry] = Counter()
        self.answered: list[Entry] = []
        self.failed: list[Entry] = []
        self.unknown: list[Entry] = []
        self.refused: list[Entry] = []
        self._dice = dice
        self._led = [threading.Lock() for _ in range(LANES)]

    def submit(self, lane: int, entries: list[Entry]) -> None:
        """Have entries worked on; again, as new ones, those whose fate is not known."""
        for _ in range(ATTEMPTS_MAX):
            if not entries:
                return
            again = self._attempt(lane, entries)
            entries = [entry._replace(attempt=entry.attempt + 1) for entry in again]
        raise AssertionError("there is no end to it")

    def _attempt(self, lane: int, entries: list[Entry]) -> list[Entry]:
        try:
            outcomes = self.group.submit(lane, entries)
        except SystemExit:
            # The leader itself; what was done before is not known to it.
            self.unknown += entries
            return entries
        except Unavailable as error:
            if error.code != "overloaded":
                raise
            self.refused += entries
            time.sleep(0.001)  # as Retry-After asks for, in small
            return entries
        again = []
        for entry, outcome in zip(entries, outcomes, strict=True):
            if isinstance(outcome, ValueError):
                assert outcome.args == (entry,), "the error of another"
                self.failed.append(entry)
            elif isinstance(outcome, OperationalError | Unavailable):
                self.unknown.append(entry)
                again.append(entry)
            else:
                assert outcome == ("answer to", entry)
                self.answered.append(entry)
        return again

    def _work(self, entries: list[Entry]) -> list[tuple[str, Entry]]:
        [lane] = {entry.lane for entry in entries}
        assert self._led[lane].acquire(blocking=False), "two batches of one lane at a time"
        try:
            luck = self._dice.random()
            if luck < 0.02:
                raise SystemExit
            if luck < 0.06:
                raise OperationalError(1213, "deadlock")
            for entry in entries:
                if entry.poisoned:
                    raise ValueError(entry)
            self.committed.update(entries)
            if luck > 0.96:
                raise OperationalError(2013, "the answer to COMMIT is lost")
            return [("answer to", entry) for entry in entries]
        finally:
            self._led[lane].release()


@pytest.fixture
def hectic() -> Iterator[None]:
    """Let threads take turns all the time."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("queue_max", [256, 3])
def test_whatever_happens_each_entry_is_worked_on_once_and_told_its_own(
    batch_max, monkeypatch, hectic, queue_max
):
    seed = os.environ.get("FLASHSALE_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"FLASHSALE_SEED={seed}")
    dice = random.Random(seed)
    batch_max(dice.randrange(2, 40))
    monkeypatch.setattr(group_commit, "QUEUE_MAX", queue_max)
    monkeypatch.setattr(group_commit, "WAIT_SECONDS_MAX", PATIENCE_SECONDS)
    storm = Storm(dice)

    def calls_of(caller: int) -> list[tuple[int, list[Entry]]]:
        calls = [(dice.randrange(LANES), dice.randint(1, ENTRIES_MAX)) for _ in range(CALLS)]
        return [
            (lane, [Entry(lane, caller, 100 * call + n, dice.random() < 0.05) for n in range(size)])
            for call, (lane, size) in enumerate(calls)
        ]

    def run(calls: list[tuple[int, list[Entry]]]) -> None:
        for lane, entries in calls:
            storm.submit(lane, entries)

    plans = [calls_of(caller) for caller in range(THREADS)]
    together(*(lambda plan=plan: run(plan) for plan in plans))

    sent = {entry for plan in plans for _, entries in plan for entry in entries}
    assert {entry._replace(attempt=0) for entry in storm.answered} == {
        entry for entry in sent if not entry.poisoned
    }
    assert {entry._replace(attempt=0) for entry in storm.failed} == {
        entry for entry in sent if entry.poisoned
    }
    assert len(storm.answered) + len(storm.failed) == len(sent), "each told once"
    assert {storm.committed[entry] for entry in storm.answered} == {1}
    assert not any(storm.committed[entry] for entry in storm.failed)
    assert max(storm.committed.values()) == 1, "whatever its caller was told"
    assert storm.committed.keys() <= {*storm.answered, *storm.unknown, *storm.refused}
    assert storm.group._lanes == {}


def test_work_that_gives_too_few_answers_gives_nobody_anothers():
    commit = GroupCommit(lambda entries: entries[:1])

    outcomes = commit.submit("lane", ["a", "b", "c"])

    assert outcomes == ["a", "b", "c"], "each by itself, where one answer is enough"
    none = GroupCommit(lambda entries: [])
    assert [type(outcome) for outcome in none.submit("lane", ["a", "b"])] == [ValueError] * 2
    assert not commit._lanes
    assert not none._lanes
