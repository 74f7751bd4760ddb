"""Set-up of the order tests: a real inventory, something on sale, and people who want it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from services.order import orphans, sold_out
from services.order.models import Payment
from tests.order.driver import Buyer, Inventory, hear, new_ticket_id, offer
from tests.order.faults import FaultyRoad
from tests.order.processes import ServiceProcess

# Nobody listens there.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="session")
def inventory_process() -> Iterator[ServiceProcess]:
    """Run the real inventory for all tests."""
    with ServiceProcess("inventory") as process:
        yield process


@pytest.fixture(scope="session")
def catalog_process() -> Iterator[ServiceProcess]:
    """Run the real catalog for the tests that read offers through."""
    with ServiceProcess("catalog") as process:
        yield process


@pytest.fixture(autouse=True)
def inventory(inventory_process: ServiceProcess, settings: Any) -> Iterator[Inventory]:
    """Return the real inventory; after the test nothing is held there any more."""
    settings.INVENTORY_URL = inventory_process.url
    settings.CATALOG_URL = NOWHERE
    inventory = Inventory(inventory_process.url)
    yield inventory
    for hold in inventory.holds():
        inventory.release(hold["reservation_id"])


@pytest.fixture
def road(inventory: Inventory, settings: Any) -> Iterator[FaultyRoad]:
    """Return a road to inventory on which a test can plan faults."""
    with FaultyRoad(inventory.url) as road:
        settings.INVENTORY_URL = road.url
        yield road


@pytest.fixture
def on_sale(inventory: Inventory) -> Callable[..., int]:
    """Return a maker of tickets: ``on_sale(5, price=100)`` puts 5 units on sale and returns the
    ticket's id."""

    def make(stock: int | None = 10, **changes: Any) -> int:
        ticket_id = new_ticket_id()
        hear("catalog", "ticket.changed", offer(ticket_id, **changes))
        if stock is not None:
            inventory.set_stock(ticket_id, stock)
        return ticket_id

    return make


@pytest.fixture(autouse=True)
def no_memory_of_sold_out_tickets() -> None:
    """Start without the sold-out flags that an earlier test of this process has raised."""
    sold_out.forget_all()


@pytest.fixture
def ann() -> Buyer:
    return Buyer()


@pytest.fixture
def bob() -> Buyer:
    return Buyer()


@pytest.fixture
def admin() -> Buyer:
    return Buyer(role="admin")


@pytest.fixture
def order_id(ann: Buyer, on_sale: Callable[..., int]) -> str:
    """Return an order of Ann's that awaits its payment of 50.00 EUR."""
    return str(ann.place({on_sale(10): 2}).body["id"])


@pytest.fixture
def pending(ann: Buyer, order_id: str) -> Payment:
    """Return a payment that is to be settled later."""
    return Payment.objects.get(pk=ann.pay(order_id, "sandbox_later").body["payment"]["id"])


@pytest.fixture
def webhooks(live_server: Any, settings: Any) -> str:
    """Serve the order service over HTTP, where the sandbox delivers; return its address."""
    settings.ORDER_URL = live_server.url
    return str(live_server.url)


class Crash(BaseException):
    """The worker dies at this point."""


@pytest.fixture
def crash_at(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a switch: ``crash_at(module, "name")`` lets the worker die in that function, once."""

    def arm(module: Any, name: str, *, after: bool = False) -> None:
        function = getattr(module, name)

        def dies(*args: Any, **kwargs: Any) -> None:
            monkeypatch.setattr(module, name, function)
            if after:
                function(*args, **kwargs)
            raise Crash

        monkeypatch.setattr(module, name, dies)

    return arm


@pytest.fixture
def suspect_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let holds be looked at that were made a moment ago."""
    monkeypatch.setattr(orphans, "SUSPECT_AFTER", timedelta(seconds=-60))
