"""Measuring a workload: how many per second, how long each took, what went wrong."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from deploy.stack import crowd
from deploy.stack.errors import StackError
from deploy.stack.load import Client, Reply
from deploy.stack.terminal import table

CONNECTIONS = 64
WARM_UP_SECONDS = 1.0
# Refusals of a server that has more to do than it can: they cost throughput, and nothing is wrong.
SHED = frozenset({"overloaded"})

Request = Callable[[Client], Awaitable[list[Reply]]]


@dataclass(frozen=True)
class Workload:
    """What each connection repeats. ``units``: how much one right answer counts."""

    name: str
    request: Request
    tokens: Sequence[str] = ()
    connections: int = CONNECTIONS
    expected: frozenset[int] = frozenset({200, 201})
    units: int = 1


@dataclass
class Figure:
    """One line of the table. An error is any answer but the expected ones."""

    name: str
    per_second: float = 0.0
    ratio: float = 0.0
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    p99_ms: float = 0.0
    errors: dict[str, int] = field(default_factory=dict)

    @property
    def has_wrong_answers(self) -> bool:
        """Whether an error is more than being asked to come again in a moment."""
        return bool(self.errors.keys() - SHED)


def measure(url: str, workload: Workload, seconds: float) -> Figure:
    """Keep all connections busy for the time and count what was answered rightly within it."""
    return asyncio.run(_measure(url, workload, seconds))


async def _measure(url: str, workload: Workload, seconds: float) -> Figure:
    begin = time.monotonic() + WARM_UP_SECONDS
    end = begin + seconds
    durations: list[float] = []
    errors: Counter[str] = Counter()
    tokens = workload.tokens

    async def keep_busy(number: int) -> None:
        client = Client(url, tokens[number % len(tokens)] if tokens else "")
        while (started := time.monotonic()) < end:
            replies = await workload.request(client)
            finished = time.monotonic()
            wrong = [reply for reply in replies if reply.status not in workload.expected]
            if wrong:
                errors[wrong[0].code or str(wrong[0].status)] += 1
                await asyncio.sleep(0.05)
            elif begin <= finished <= end:
                durations.append(finished - started)
        client.close()

    await asyncio.gather(*(keep_busy(number) for number in range(workload.connections)))
    if not durations and not errors:
        raise StackError(f"{workload.name}: no answer at all")
    p50, p95, p99 = (
        round(crowd.percentile(durations, share) * 1000, 1) for share in (0.5, 0.95, 0.99)
    )
    per_second = round(len(durations) * workload.units / seconds, 1)
    return Figure(workload.name, per_second, 0.0, p50, p95, p99, dict(errors))


def table_of(figures: Sequence[Figure], baseline: str) -> str:
    """Return the figures as a table; ``baseline`` says what the ratio is to."""
    rows: list[list[Any]] = [
        [
            figure.name,
            f"{figure.per_second:,.0f}",
            f"{figure.ratio:.4f}",
            f"{figure.p50_ms:.1f}",
            f"{figure.p95_ms:.1f}",
            f"{figure.p99_ms:.1f}",
            ", ".join(f"{count} {code}" for code, count in figure.errors.items()) or "-",
        ]
        for figure in figures
    ]
    return table(["what", "per second", baseline, "p50 ms", "p95 ms", "p99 ms", "errors"], rows)
