"""The command line on a real system: it starts, says what it is, keeps the data, leaves nothing.

Orders must be paid within HOLD_SECONDS here, which also shows that `up` passes its environment on.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploy.stack.layout import SERVICES, Layout
from deploy.stack.ports import free_ports
from tests.system.client import Client, new_key, within
from tests.system.shop import PASSWORD, Shop, manage_all

HOLD_SECONDS = 5
UP_SECONDS_MAX = 110
PROCESSES = {
    *("redis", "nginx", "gateway", *SERVICES),
    *(f"{service}-loops" for service in SERVICES),
}


def processes_of(layout: Layout) -> list[str]:
    """Return the command lines of all processes that name the folder."""
    listed = subprocess.run(
        ["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True
    )
    return [line for line in listed.stdout.splitlines() if str(layout.var) in line]


def up(layout: Layout, port: int, *options: str) -> subprocess.CompletedProcess[str]:
    return manage_all(
        layout,
        *("up", "--detach", "--port", str(port), *options),
        timeout=UP_SECONDS_MAX,
        HOLD_TTL_SECONDS=str(HOLD_SECONDS),
    )


def shop_in(layout: Layout) -> Shop:
    stack = json.loads(layout.stack_json.read_text())
    return Shop(stack["url"], layout, stack["logins"]["admin"]["password"])


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    """A folder with a short path, and nothing left running in it."""
    with tempfile.TemporaryDirectory(prefix="fs-sys-") as folder:
        made = Layout(Path(folder))
        yield made
        manage_all(made, "reset", "--yes")
        assert processes_of(made) == []


@pytest.fixture(scope="module")
def port() -> int:
    return free_ports(1)[0]


@pytest.fixture(scope="module")
def running(layout: Layout, port: int) -> Layout:
    """The system, started by `up --detach`, with the demo sale."""
    started = up(layout, port)
    assert started.returncode == 0, started.stdout + started.stderr
    logins = json.loads(layout.stack_json.read_text())["logins"]
    for shown in (f"http://127.0.0.1:{port}/", "/admin/inventory/", logins["admin"]["password"]):
        assert shown in started.stdout
    return layout


@pytest.fixture
def shop(running: Layout) -> Shop:
    return shop_in(running)


def test_status_names_every_process(running: Layout, port: int) -> None:
    result = manage_all(running, "status", "--json")
    assert result.returncode == 0
    status: dict[str, Any] = json.loads(result.stdout)
    assert (status["state"], status["url"]) == ("running", f"http://127.0.0.1:{port}")
    assert {process["name"] for process in status["processes"]} == PROCESSES
    assert {process["state"] for process in status["processes"]} == {"running"}
    assert all(process["restarts"] == 0 for process in status["processes"])


def test_secrets_are_readable_by_their_owner_only(running: Layout) -> None:
    private = [running.stack_json, running.secrets_json, running.environment_json]
    private += list((running.keys / "private").rglob("*.pem"))
    assert len(private) == 3 + 5
    assert {path.stat().st_mode & 0o077 for path in private} == {0}


def test_the_demo_sale_is_on_sale(shop: Shop) -> None:
    page = shop.visitor.get("/api/catalog/events").require(200)
    assert page["count"] == 2
    tickets = [ticket for event in page["results"] for ticket in event["tickets"]]
    assert len(tickets) == 6
    within(5, lambda: shop.shown(tickets[0]["id"]), lambda available: available > 0)


def test_the_demo_buyers_can_log_in(running: Layout, shop: Shop) -> None:
    for buyer in json.loads(running.stack_json.read_text())["logins"]["buyers"]:
        Client(shop.url, shop.log_in(**buyer)).get("/api/orders").require(200)


def test_an_unpaid_order_expires_and_gives_its_stock_back(shop: Shop) -> None:
    ticket, buyer = shop.ticket(2), shop.buyer()
    key = new_key()
    order = buyer.order(ticket, quantity=2, key=key).require(201)["id"]
    assert shop.buyer().order(ticket).code == "sold_out"
    within(HOLD_SECONDS + 10, lambda: buyer.status_of(order), "EXPIRED")
    within(2, lambda: shop.stock(ticket), (2, 0, 0))
    within(2, lambda: shop.shown(ticket), 2)
    late = buyer.pay(order)
    assert (late.status, late.code) == (409, "order_expired")
    # The key still stands for that order; buying again takes a new one.
    assert buyer.order(ticket, quantity=2, key=key).json["id"] == order
    assert buyer.order(ticket, quantity=2).status == 201


def test_money_that_comes_after_expiry_is_given_back(shop: Shop) -> None:
    ticket, buyer = shop.ticket(1), shop.buyer()
    order = buyer.order(ticket).require(201)["id"]
    payment = buyer.pay(order, "sandbox_later").require(200)["payment"]["id"]
    within(HOLD_SECONDS + 10, lambda: buyer.status_of(order), "EXPIRED")
    buyer.post(f"/api/payments/sandbox/{payment}/settle", {"outcome": "captured"}).require(200)
    shown = f"/api/payments/{payment}"
    within(10, lambda: buyer.get(shown).require(200)["status"], "REFUNDED")
    assert (buyer.status_of(order), shop.stock(ticket)) == ("EXPIRED", (1, 0, 0))


def test_a_second_up_is_told_so_in_one_line_and_harms_nothing(
    running: Layout, port: int, shop: Shop
) -> None:
    second = up(running, free_ports(1)[0])
    assert second.returncode == 1
    [line] = second.stderr.strip().splitlines()
    assert "already running" in line
    with tempfile.TemporaryDirectory(prefix="fs-sys-") as folder:
        elsewhere = Layout(Path(folder))
        same_port = up(elsewhere, port)
        assert same_port.returncode == 1
        [line] = same_port.stderr.strip().splitlines()
        assert f"port {port} is in use" in line
        assert processes_of(elsewhere) == []
    assert shop.visitor.get("/readyz").status == 200


def test_a_missing_program_is_told_in_one_line_and_leaves_nothing_running(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="fs-sys-") as folder:
        layout = Layout(Path(folder))
        options = ("--port", str(free_ports(1)[0]), "--database", "mysql")
        # Without apt it cannot be installed either.
        failed = manage_all(layout, "up", "--detach", *options, PATH=str(tmp_path))
        assert failed.returncode == 1
        [line] = failed.stderr.strip().splitlines()
        assert line.startswith("manage_all: ")
        assert "missing; install it and try again" in line
        assert processes_of(layout) == []


def test_the_audit_is_clean(shop: Shop) -> None:
    shop.audit()


def test_down_then_up_keeps_the_data(running: Layout, port: int, shop: Shop) -> None:
    ticket, name = shop.ticket(5), shop.register()
    somebody = Client(shop.url, shop.log_in(name, PASSWORD))
    order = somebody.order(ticket, quantity=2).require(201)["id"]
    somebody.pay(order).require(200)
    within(5, lambda: somebody.status_of(order), "CONFIRMED")

    assert manage_all(running, "down").returncode == 0
    assert processes_of(running) == []
    stopped = manage_all(running, "status", "--json")
    assert (stopped.returncode, json.loads(stopped.stdout)["state"]) == (1, "stopped")
    assert not running.stack_json.exists()

    again = up(running, port)
    assert again.returncode == 0, again.stderr
    after = shop_in(running)
    assert after.admin_password == shop.admin_password
    # Not even a login is lost: the token from before still works.
    assert somebody.status_of(order) == "CONFIRMED"
    assert after.log_in(name, PASSWORD)
    assert after.stock(ticket) == (3, 0, 2)
    assert after.shown(ticket) == 3
    assert after.visitor.get("/api/catalog/events?page_size=100").json["count"] >= 3


def test_reset_stops_everything_and_deletes_all_data(running: Layout) -> None:
    result = manage_all(running, "reset", "--yes")
    assert result.returncode == 0
    assert processes_of(running) == []
    assert list(running.var.rglob("*.sqlite3*")) == []
    assert list(running.var.rglob("*.pem")) == []
    assert not running.secrets_json.exists()
