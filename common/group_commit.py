"""Group commit: requests of one process that wait at the same moment share one transaction.

As in the logs of databases (Gawlick and Kinkade, IMS Fast Path, 1985): who finds a lane idle leads
it, works, and makes the first of those who have come meanwhile the next leader. There is no timer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

import structlog
from django.conf import settings
from django.db import connection

from common.database_errors import is_outage
from common.errors import Unavailable

log = structlog.get_logger(__name__)
Entry = TypeVar("Entry")
Answer = TypeVar("Answer")

QUEUE_MAX = 256  # callers in one lane: more than a process has threads, so a backstop
WAIT_SECONDS_MAX = 1.5  # for a turn, and then for its end: together less than a caller waits
STALL_SECONDS = 0.5  # a batch takes a fraction of it: behind one that does not, nobody else waits


class _Call(Generic[Entry, Answer]):
    """What one thread has submitted; ``wake`` is let go for an answer, or for a batch to lead."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.outcomes: list[Answer | Exception] = []
        self.batch: list[_Call[Entry, Answer]] = []
        self.wake = threading.Lock()
        self.wake.acquire()


class GroupCommit(Generic[Entry, Answer]):
    """Runs ``work`` on entries in order of arrival, one batch at a time in each lane. It returns
    an answer for each, from one transaction, and must be repeatable by the ids it writes."""

    def __init__(
        self,
        work: Callable[[list[Entry]], Sequence[Answer]],
        stall_seconds: float | None = None,
    ) -> None:
        self._work, self._mutex, self._stall_seconds = work, threading.Lock(), stall_seconds
        self._lanes: dict[Hashable, deque[_Call[Entry, Answer]]] = {}  # those led; who waits
        self._begun: dict[Hashable, float] = {}  # when the batch that runs in a lane began

    def submit(self, lane: Hashable, entries: Sequence[Entry]) -> list[Answer | Exception]:
        """Have the entries worked on; return for each its answer, or the exception it met: an
        outage is its whole batch's, whose fate is then not known, any other one an entry's own.
        Raises Unavailable where too many wait, too long, or behind a batch that stalls."""
        size: int = settings.GROUP_COMMIT_MAX_BATCH
        # A caller's own transaction must not carry, or roll back, what others have sent.
        if size == 1 or connection.in_atomic_block:
            return [outcome for entry in entries for outcome in self._outcomes([entry])]
        outcomes: list[Answer | Exception] = []
        for start in range(0, len(entries), size):
            call: _Call[Entry, Answer] = _Call(entries[start : start + size])
            self._join(lane, call)
            if call.batch:
                self._lead(lane, call.batch, size)
            outcomes += call.outcomes
        return outcomes

    def _join(self, lane: Hashable, call: _Call[Entry, Answer]) -> None:
        """Return with a batch to lead, or with the outcomes that a leader has brought."""
        with self._mutex:
            queue = self._lanes.get(lane)
            if queue is None:
                self._lanes[lane], self._begun[lane] = deque(), time.monotonic()
                call.batch = [call]
                return
            patience = STALL_SECONDS if self._stall_seconds is None else self._stall_seconds
            if len(queue) >= QUEUE_MAX or time.monotonic() - self._begun[lane] > patience:
                raise Unavailable("overloaded", "Too many wait for this already; try again.")
            queue.append(call)
        if not call.wake.acquire(timeout=WAIT_SECONDS_MAX):
            with self._mutex:
                if queued := call in queue:
                    queue.remove(call)
            if queued or not call.wake.acquire(timeout=WAIT_SECONDS_MAX):
                raise Unavailable("overloaded", "No answer in time; try again.")

    def _lead(self, lane: Hashable, batch: list[_Call[Entry, Answer]], size: int) -> None:
        entries = [entry for call in batch for entry in call.entries]
        told: list[Answer | Exception] = [Unavailable("interrupted", "Try again.")] * len(entries)
        try:
            told = self._outcomes(entries)
        finally:
            self._pass_on(lane, size)  # first of all: the database shall not wait for the answers
            outcomes = iter(told)
            for call in batch:
                call.outcomes = [next(outcomes) for _ in call.entries]
                call.wake.release()
            batch.clear()  # a call that has its own batch is garbage that nobody sees

    def _pass_on(self, lane: Hashable, size: int) -> None:
        with self._mutex:
            queue = self._lanes[lane]
            if not queue:
                del self._lanes[lane], self._begun[lane]
                return
            self._begun[lane] = time.monotonic()
            leader = queue[0]
            while queue and (size := size - len(queue[0].entries)) >= 0:
                leader.batch.append(queue.popleft())
            leader.wake.release()  # not after the mutex: unwoken it could give up, and none leads

    def _outcomes(self, entries: list[Entry]) -> list[Answer | Exception]:
        try:
            return [answer for answer, _ in zip(self._work(entries), entries, strict=True)]
        except Exception as error:
            half = len(entries) // 2
            log.warning("batch failed", size=len(entries), error=str(error))
            if not half or is_outage(error):
                return [error] * len(entries)
        return self._outcomes(entries[:half]) + self._outcomes(entries[half:])
