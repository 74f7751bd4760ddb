"""Group commit: requests of one process that wait at the same moment share one transaction.

Leader and followers, as databases do it for their own logs (Gawlick and Kinkade, IMS Fast Path,
1985): who finds a lane idle leads it, runs its own work, and makes the first of those who have
gathered meanwhile the next leader. No timer: an idle lane adds no wait. Lanes are independent.
"""

from __future__ import annotations

import threading
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

# Callers that may stand in one lane; a process has fewer threads, so this is a backstop.
QUEUE_MAX = 256
# Waiting for a turn, and then for its end: together longer than nginx waits (8 s).
WAIT_SECONDS_MAX = 5.0


class _Call(Generic[Entry, Answer]):
    """What one thread has submitted; ``wake`` is let go for an answer, or for a batch to lead."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.entries = entries
        self.outcomes: list[Answer | Exception] = []
        self.batch: list[_Call[Entry, Answer]] = []
        self.wake = threading.Lock()
        self.wake.acquire()


class GroupCommit(Generic[Entry, Answer]):
    """Runs ``work`` on batches of entries, one batch at a time in each lane.

    ``work`` takes entries in their order of arrival and returns an answer for each, all in one
    transaction that may be repeated by the ids it writes.
    """

    def __init__(self, work: Callable[[list[Entry]], Sequence[Answer]]) -> None:
        self._work = work
        # A lane is in here while somebody leads it; its queue is who waits behind.
        self._lanes: dict[Hashable, deque[_Call[Entry, Answer]]] = {}
        self._mutex = threading.Lock()

    def submit(self, lane: Hashable, entries: Sequence[Entry]) -> list[Answer | Exception]:
        """Have the entries worked on; return for each its answer, or the exception it met.

        An outage of the database concerns the whole batch, and what it did is then not known; any
        other exception only the entry that causes it. Raises Unavailable when too many wait, or
        for too long. What was not answered may be sent again.
        """
        size: int = settings.GROUP_COMMIT_MAX_BATCH
        if size == 1 or connection.in_atomic_block:
            # A caller's own transaction must not carry, or roll back, what others have sent.
            return [outcome for entry in entries for outcome in self._outcomes([entry])]
        outcomes: list[Answer | Exception] = []
        for start in range(0, len(entries), size):
            call: _Call[Entry, Answer] = _Call(entries[start : start + size])
            if self._leads(lane, call) or self._is_told_to_lead(lane, call):
                self._run(lane, call.batch, size)
            outcomes += call.outcomes
        return outcomes

    def _leads(self, lane: Hashable, call: _Call[Entry, Answer]) -> bool:
        with self._mutex:
            if lane not in self._lanes:
                self._lanes[lane] = deque()
                call.batch = [call]
            elif len(self._lanes[lane]) >= QUEUE_MAX:
                raise Unavailable("overloaded", "Too many wait for this already; try again.")
            else:
                self._lanes[lane].append(call)
        return bool(call.batch)

    def _is_told_to_lead(self, lane: Hashable, call: _Call[Entry, Answer]) -> bool:
        if not call.wake.acquire(timeout=WAIT_SECONDS_MAX):
            with self._mutex:
                if call in self._lanes.get(lane, ()):
                    self._lanes[lane].remove(call)
                    raise Unavailable("overloaded", "Too many were served before; try again.")
            if not call.wake.acquire(timeout=WAIT_SECONDS_MAX):
                raise Unavailable("database_unavailable", "No answer in time; try again.")
        return bool(call.batch)

    def _run(self, lane: Hashable, batch: list[_Call[Entry, Answer]], size: int) -> None:
        entries = [entry for call in batch for entry in call.entries]
        lost = Unavailable("database_unavailable", "The work was interrupted; try again.")
        outcomes: list[Answer | Exception] = [lost] * len(entries)
        try:
            outcomes = self._outcomes(entries)
        finally:
            # First the next leader, then the answers: the database shall not wait for either.
            self._pass_on(lane, size)
            told = iter(outcomes)
            for call in batch:
                call.outcomes = [next(told) for _ in call.entries]
                if call is not batch[0]:
                    call.wake.release()

    def _pass_on(self, lane: Hashable, size: int) -> None:
        with self._mutex:
            queue = self._lanes[lane]
            if not queue:
                del self._lanes[lane]
                return
            leader = queue[0]
            while queue and (size := size - len(queue[0].entries)) >= 0:
                leader.batch.append(queue.popleft())
        leader.wake.release()

    def _outcomes(self, entries: list[Entry]) -> list[Answer | Exception]:
        try:
            return list(self._work(entries))
        except Exception as error:
            if len(entries) == 1 or is_outage(error):
                return [error] * len(entries)
            log.warning("batch failed; halving it", size=len(entries), error=str(error))
        half = len(entries) // 2
        return self._outcomes(entries[:half]) + self._outcomes(entries[half:])
