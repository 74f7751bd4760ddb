"""No crash tears an order: real processes die at each step boundary, and all comes right again.

Which point has which scenario, and how to add one, is in tests/system/crashes.py.
"""

from __future__ import annotations

import ast
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from deploy.stack.layout import ROOT
from deploy.stack.plan import EMBEDDED_VARIABLE
from deploy.stack.supervisor import Stack
from tests.system.client import within
from tests.system.conftest import RESTART_AT_ONCE_SECONDS, private_system, shop_of
from tests.system.crashes import ALONE, SCENARIOS, TORN, Failpoints, Scenario
from tests.system.events import EventBooks
from tests.system.faults import FULL, SETTLED_SECONDS_MAX, TORN_SECONDS_MAX, seeded
from tests.system.shop import Shop
from tests.system.storm import Acknowledged, require_sold_exactly
from tests.system.visits import Visit

SOURCES = ("common", "services", "gateway")
HITS = (1, 2, 3)
# Relays and consumers die more often: what is proven of them is that nothing is applied twice.
LOOP_HITS = (1, 2, 3, 1, 2)
UNITS = 5000
# Somebody comes to the point as often as is wanted within this: a dead relay's lease counts in,
# and sweepers that die at other points before they get to this one.
REACHED_SECONDS_MAX = 180.0
AT_ONCE = 3


def failpoints_of_the_code() -> dict[str, list[str]]:
    """Return failpoint → where it stands; ``""`` gathers those whose name is not a literal."""
    found = defaultdict(list)
    for folder in SOURCES:
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call) and "failpoint" in ast.unparse(node.func):
                    literal = len(node.args) == 1 and isinstance(node.args[0], ast.Constant)
                    name = str(node.args[0].value) if literal else ""
                    found[name].append(f"{path.relative_to(ROOT)}:{node.lineno}")
    return found


def test_every_failpoint_of_the_code_has_a_scenario_and_the_reverse() -> None:
    code = failpoints_of_the_code()
    told = Counter(point for lane in SCENARIOS.values() for point in lane)
    problems = [
        *(f"{place}: write failpoint's name as a literal" for place in code.pop("", [])),
        *(
            f"{places[0]}: {point} has no scenario; give it a row in tests/system/crashes.py"
            for point, places in code.items()
            if point not in told
        ),
        *(
            f"{point} stands at {' and '.join(places)}; name each step boundary by itself"
            for point, places in code.items()
            if len(places) > 1
        ),
        *(
            f"{point} is in tests/system/crashes.py, but no code comes to it; remove its row"
            for point in told
            if point not in code
        ),
        *(f"{point} is in two lanes" for point, count in told.items() if count > 1),
    ]
    assert not problems, "\n".join(problems)


class Crashes:
    """One running system in which processes die at one point after the other."""

    def __init__(self, stack: Stack, points: Failpoints, draw: random.Random) -> None:
        self.stack = stack
        self.shop: Shop = shop_of(stack)
        self.points = points
        self.told = Acknowledged()
        self.crashes: Counter[str] = Counter()
        self.last_crash = time.monotonic()
        self._draw = draw
        self._ticket = self.shop.ticket(UNITS)
        self._courses: list[Future[None]] = []
        self._people = ThreadPoolExecutor(64)

    @property
    def ticket(self) -> int:
        return self._ticket

    def run(self, hits: Mapping[str, Sequence[int]]) -> None:
        """Go through all points, each for each hit of its lane; then wait for all on the way."""
        with self._people, ThreadPoolExecutor(len(SCENARIOS)) as lanes:
            cases = {lane: self._cases(lane, hits[lane]) for lane in SCENARIOS}
            running = [lanes.submit(self._run_lane, lane, cases[lane]) for lane in cases]
            for lane in running:
                lane.result()
            for course in self._courses:
                course.result()

    def _cases(self, lane: str, hits: Sequence[int]) -> list[tuple[str, Scenario, int]]:
        cases = [(point, go, hit) for point, go in SCENARIOS[lane].items() for hit in hits]
        self._draw.shuffle(cases)
        return cases

    def _run_lane(self, lane: str, cases: Sequence[tuple[str, Scenario, int]]) -> None:
        started = time.monotonic()
        coming: list[Future[None]] = []
        for point, scenario, hit in cases:
            # Who stands at a dead process goes on by himself; the next ones need not wait for him,
            # but where it takes half a minute to get to the point.
            coming = coming if lane == TORN else []
            at_once = 1 if scenario in ALONE else AT_ONCE
            self._crash_at(point, hit, coming, [scenario] * at_once)
        print(f"{lane}: {len(cases)} crashes in {time.monotonic() - started:.0f} s")

    def _crash_at(
        self, point: str, hit: int, coming: list[Future[None]], courses: Sequence[Scenario]
    ) -> None:
        """Bring people to the point until a process has died there."""
        self.points.arm(point, hit)
        deadline = time.monotonic() + REACHED_SECONDS_MAX
        while not self.points.was_hit(point):
            assert time.monotonic() < deadline, (
                f"nobody came to {point} {hit} times: {courses[0].__name__} in "
                "tests/system/crashes.py does not lead there"
            )
            if all(course.done() for course in coming):
                for course in coming:
                    course.result()
                coming[:] = [self._send(course) for course in courses]
            time.sleep(0.02)
        self.crashes[point] += 1
        self.last_crash = time.monotonic()

    def _send(self, scenario: Scenario) -> Future[None]:
        visit = Visit(self.stack, self.shop, self._ticket, self.shop.buyer(), self.told)
        course = self._people.submit(scenario, visit)
        self._courses.append(course)
        return course


@contextmanager
def crashes_everywhere(
    database: str, folder: Path, hits: Mapping[str, Sequence[int]]
) -> Iterator[Crashes]:
    """Let processes die at all points, and see that everybody has what he was told, and the money
    and the stock are where they belong."""
    draw = seeded(f"crashes on {database}")
    with private_system(
        database,
        backoff_seconds_max=RESTART_AT_ONCE_SECONDS,
        FAILPOINTS=str(folder),
        LATE_PAYMENT="rereserve",
    ) as stack:
        crashes = Crashes(stack, Failpoints(folder), draw)
        started = time.monotonic()
        crashes.run(hits)
        for lane, points in SCENARIOS.items():
            assert all(crashes.crashes[point] == len(hits[lane]) for point in points)
        finals = crashes.told.require(SETTLED_SECONDS_MAX)
        confirmed = finals["CONFIRMED"]
        require_sold_exactly(crashes.shop, crashes.ticket, UNITS, confirmed)
        left = partial(crashes.shop.shown, crashes.ticket)
        within(SETTLED_SECONDS_MAX, left, UNITS - confirmed)
        settled = time.monotonic()
        assert settled - crashes.last_crash < TORN_SECONDS_MAX
        crashes.shop.audit()
        print(
            f"{crashes.crashes.total()} crashes in {crashes.last_crash - started:.0f} s; settled "
            f"{settled - crashes.last_crash:.1f} s after the last; orders acknowledged: "
            f"{dict(finals)}, lost: 0"
        )
        assert set(finals) <= {"CONFIRMED", "CANCELLED", "EXPIRED"}
        assert confirmed > len(crashes.told) / 2, "most people got what they paid for"
        yield crashes


def test_no_crash_tears_an_order_and_every_event_is_applied_once(tmp_path: Path) -> None:
    loops = LOOP_HITS * 4 if FULL else LOOP_HITS
    hits = dict.fromkeys(SCENARIOS, HITS) | {"loops": loops}
    with crashes_everywhere("sqlite", tmp_path, hits) as crashes:
        print(dict(EventBooks(crashes.stack).require_exactly_once()))


@pytest.mark.skipif(
    bool(os.environ.get(EMBEDDED_VARIABLE)), reason="--embedded: this machine needs no MariaDB"
)
def test_no_crash_tears_an_order_on_mariadb(tmp_path: Path) -> None:
    once = HITS[:1]
    # What takes half a minute is proven above, where little else is different.
    sample = dict.fromkeys(SCENARIOS, once) | {TORN: ()}
    hits = dict.fromkeys(SCENARIOS, HITS) if FULL else sample
    with crashes_everywhere("mysql", tmp_path, hits):
        pass
