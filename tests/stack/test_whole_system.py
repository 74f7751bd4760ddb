"""The commands on a whole running system: `up`, its end by force, `demo`, `audit`, `bench`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.stack import ports
from deploy.stack.api import Api
from deploy.stack.control import current_state, stop
from deploy.stack.layout import ROOT, Layout, read_json
from deploy.stack.leftovers import FolderLock, leftovers
from tests.stack.conftest import command_environment


def manage_all(layout: Layout, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "manage_all.py"), *arguments],
        env=command_environment(layout),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def port() -> str:
    return str(ports.free_ports(1)[0])


@pytest.fixture(scope="module")
def running(port: str) -> Iterator[Layout]:
    """A system that was started by `up --detach`, with the demo sale."""
    with tempfile.TemporaryDirectory(prefix="fs-") as folder:
        layout = Layout(Path(folder))
        result = manage_all(layout, "up", "--detach", "--port", port)
        try:
            assert result.returncode == 0, result.stderr
            yield layout
        finally:
            stop(layout)


def events(port: str) -> list[str]:
    listed = Api(f"http://127.0.0.1:{port}").get("/api/catalog/events").require(200)
    return [event["title"] for event in listed["results"]]


def test_a_killed_supervisor_is_noticed_and_the_next_up_takes_over_with_the_data(running, port):
    before = events(port)
    passwords = read_json(running.stack_json)["logins"]
    os.kill(FolderLock(running.lock).holder(), signal.SIGKILL)
    time.sleep(0.3)
    assert "its supervisor was killed and left: redis" in manage_all(running, "status").stdout
    orphans = leftovers(running)
    assert len(orphans) == 11

    result = manage_all(running, "up", "--detach", "--port", port)
    assert result.returncode == 0, result.stderr
    assert not set(orphans.values()) & set(leftovers(running).values())
    assert events(port) == before
    assert len(before) == 2
    assert read_json(running.stack_json)["logins"] == passwords


def test_a_killed_service_gets_its_new_process_id_into_the_stack_file(running):
    killed = read_json(running.stack_json)["services"]["catalog"]["pid"]
    os.kill(killed, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while read_json(running.stack_json)["services"]["catalog"]["pid"] in (killed, None):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_demo_sells_exactly_its_stock_and_ends_with_a_clean_audit(running):
    result = manage_all(running, "demo", "--buyers", "80", "--stock", "10")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "All invariants hold" in result.stdout
    assert "Sold exactly 10 of 10 tickets." in result.stdout


def test_the_audit_tells_of_a_sale_that_inventory_does_not_know(running):
    database = running.db / "order.sqlite3"
    assert json.loads(manage_all(running, "audit", "--json").stdout)["ok"] is True
    subprocess.run(
        [sys.executable, "-c", TAMPER, str(database)], check=True, capture_output=True, timeout=30
    )
    # Its own service notices, and so does the comparison of the services.
    result = manage_all(running, "manage", "order", "audit", "--json")
    assert not all(check["ok"] for check in json.loads(result.stdout)["checks"])


# A confirmed order becomes more expensive than what was paid for it.
TAMPER = """
import sqlite3, sys
with sqlite3.connect(sys.argv[1], timeout=20) as database:
    found = database.execute("SELECT id FROM 'order' WHERE status = 'CONFIRMED' LIMIT 1").fetchone()
    database.execute("UPDATE 'order' SET total = total + 1 WHERE id = ?", found)
"""


def test_bench_measures_the_running_system(running):
    result = manage_all(running, "bench", "--quick", "--json")
    figures = {figure["name"]: figure for figure in json.loads(result.stdout)["figures"]}
    assert result.returncode == 0, figures
    assert figures["static file (nginx alone)"]["ratio"] == 1
    assert figures["orders, one hot ticket"]["per_second"] > 0


def test_logs_and_status_of_the_running_system(running, port):
    assert "loops running" in manage_all(running, "logs", "order").stdout
    state = json.loads(manage_all(running, "status", "--json").stdout)
    assert state["url"] == f"http://127.0.0.1:{port}"
    assert {process["state"] for process in state["processes"]} == {"running"}


def test_ctrl_c_stops_everything_also_in_the_middle_of_a_start(layout):
    argv = [sys.executable, str(ROOT / "manage_all.py"), "up", "--no-demo", "--port"]
    for wait_for in ("starting", "running"):
        supervisor = subprocess.Popen(
            [*argv, str(ports.free_ports(1)[0])],
            env=command_environment(layout),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        deadline = time.monotonic() + 60
        while current_state(layout)["state"] != wait_for or not leftovers(layout):
            assert supervisor.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        supervisor.send_signal(signal.SIGINT)
        output, _ = supervisor.communicate(timeout=60)
        assert "Traceback" not in output
        assert supervisor.returncode == (0 if wait_for == "running" else 130)
        assert leftovers(layout) == {}
        assert current_state(layout)["state"] == "stopped"
