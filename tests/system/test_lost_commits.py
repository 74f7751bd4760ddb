"""The network to MariaDB fails while people buy: COMMITs are lost, done or not, and nobody can
know which; the database stands still; connections are cut.

Only order's and inventory's connections go through proxies. The seed is printed.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy.stack.layout import SERVICES
from deploy.stack.mysql_server import PrivateMySQL
from deploy.stack.plan import EMBEDDED_VARIABLE
from tests.system.client import within
from tests.system.conftest import private_system, shop_of
from tests.system.faults import FULL, seeded
from tests.system.mysql_proxy import Fate, MySQLProxy, pass_on
from tests.system.shop import Shop
from tests.system.storm import Storm, require_sold_exactly, under_load

pytestmark = pytest.mark.skipif(
    bool(os.environ.get(EMBEDDED_VARIABLE)), reason="--embedded: this machine needs no MariaDB"
)
PROXIED = ("order", "inventory")
UNITS = 5000
# One COMMIT in so many is lost.
LOST_EVERY = 12
LOST_MIN = 200 if FULL else 25
STORM_SECONDS_MAX = 120.0
PAUSE_SECONDS = 10.0


@dataclass(frozen=True)
class Network:
    """A system, and the ways from order and inventory to their databases."""

    shop: Shop
    proxies: dict[str, MySQLProxy]

    def lost(self) -> dict[str, dict[str, int]]:
        """Return service → fate → how many COMMITs met it."""
        return {
            name: {fate.value: proxy.fates[fate] for fate in Fate}
            for name, proxy in self.proxies.items()
        }


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="fs-sys-")))
        server = opened.enter_context(PrivateMySQL(folder / "mysql"))
        proxies = {
            name: opened.enter_context(MySQLProxy(server.socket, folder / f"{name}.sock"))
            for name in PROXIED
        }
        urls = {name: server.create_database(name) for name in SERVICES}
        for name, proxy in proxies.items():
            urls[name] = urls[name].replace(str(server.socket), str(proxy.socket))
        env = {f"{name.upper()}_DATABASE_URL": url for name, url in urls.items()}
        stack = opened.enter_context(private_system(**env))
        yield Network(shop_of(stack), proxies)


def losing(draw: random.Random) -> Callable[[], Fate]:
    """Lose one COMMIT in LOST_EVERY, before or after it was done."""

    def fate() -> Fate:
        if draw.randrange(LOST_EVERY):
            return Fate.PASSED_ON
        return draw.choice((Fate.LOST_UNDONE, Fate.LOST_DONE))

    return fate


def require_all_is_right(network: Network, storm: Storm) -> None:
    finals = storm.require_what_was_acknowledged()
    assert set(finals) <= {"CONFIRMED", "CANCELLED"}, finals
    require_sold_exactly(network.shop, storm.ticket, UNITS, finals["CONFIRMED"])
    network.shop.audit()
    print(f"orders acknowledged: {dict(finals)}, lost: 0")


def test_no_lost_commit_loses_an_order_or_sells_twice(network: Network) -> None:
    draw = seeded("lost COMMITs")
    ticket = network.shop.ticket(UNITS)
    with under_load(network.shop, ticket) as storm:
        for proxy in network.proxies.values():
            proxy.fate = losing(random.Random(draw.random()))
        for lost in (Fate.LOST_UNDONE, Fate.LOST_DONE):
            for proxy in network.proxies.values():
                read = lambda proxy=proxy, lost=lost: proxy.fates[lost]  # noqa: E731
                within(STORM_SECONDS_MAX, read, lambda count: count >= LOST_MIN)
        for proxy in network.proxies.values():
            proxy.fate = pass_on
    print(network.lost())
    require_all_is_right(network, storm)


def test_a_database_that_stands_still_under_load_loses_nothing(network: Network) -> None:
    ticket = network.shop.ticket(UNITS)
    with under_load(network.shop, ticket) as storm:
        with ExitStack() as paused:
            for proxy in network.proxies.values():
                paused.enter_context(proxy.paused())
            time.sleep(PAUSE_SECONDS)
        before = storm.answers
        within(30, lambda: storm.answers, lambda count: count > before + 20)
    require_all_is_right(network, storm)


def test_connections_that_are_cut_under_load_lose_nothing(network: Network) -> None:
    ticket = network.shop.ticket(UNITS)
    cut = 0
    with under_load(network.shop, ticket) as storm:
        for _ in range(10 if FULL else 3):
            for proxy in network.proxies.values():
                before = storm.answers
                cut += proxy.cut()
                within(30, lambda: storm.answers, lambda count, before=before: count > before + 5)
    print(f"connections cut: {cut}")
    assert cut > 10
    require_all_is_right(network, storm)
