"""The command line: mistakes are told in one line, and nothing is left running."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys

import pytest

from deploy.stack import demo, plan, testing
from deploy.stack.control import current_state
from deploy.stack.errors import StackError
from deploy.stack.layout import read_json, write_json
from deploy.stack.leftovers import FolderLock
from deploy.stack.load import Client, _parse


def processes_of(layout) -> str:
    """Return the command lines of all processes that name the private folder."""
    listed = subprocess.run(
        ["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True
    )
    return "\n".join(line for line in listed.stdout.splitlines() if str(layout.var) in line)


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_up_on_a_used_port_says_so_in_one_line_and_leaves_nothing_running(
    manage_all, layout, detach
):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        result = manage_all("up", "--port", port, *detach)
    assert result.returncode == 1
    message = (
        f"manage_all: port {port} is in use by another program; choose another one with --port"
    )
    assert result.stderr.strip() == message
    assert "Traceback" not in result.stdout
    assert processes_of(layout) == ""
    assert current_state(layout)["state"] == "stopped"


@pytest.mark.parametrize("detach", [[], ["--detach"]])
def test_a_second_up_names_the_first_and_leaves_it_alone(manage_all, layout, detach):
    first = FolderLock(layout.lock)
    first.acquire()
    state = {"state": "running", "processes": []}
    write_json(layout.state_json, state)
    write_json(layout.stack_json, {"url": "http://127.0.0.1:8000"})
    try:
        result = manage_all("up", "--port", "18999", *detach)
        assert read_json(layout.state_json) == state
        assert layout.stack_json.exists()
    finally:
        first.release()
    assert result.returncode == 1
    assert result.stderr.startswith(f"manage_all: already running from {layout.var}")
    assert len(result.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [["up", "--port", "0"], ["up", "--port", "x"], ["up", "--database", "oracle"], ["dance"], []],
)
def test_wrong_usage_exits_with_2(manage_all, arguments):
    assert manage_all(*arguments).returncode == 2


def test_commands_that_need_a_running_system_say_so(manage_all):
    for command in ("demo", "down", "status", "logs"):
        result = manage_all(command)
        assert "not running" in result.stdout + result.stderr or "no log" in result.stderr


def test_status_of_nothing_is_stopped_also_as_json(manage_all):
    result = manage_all("status", "--json")
    assert result.returncode == 1
    assert '"state": "stopped"' in result.stdout


def test_reset_asks_and_deletes_nothing_without_an_answer(manage_all, layout):
    (layout.db / "order.sqlite3").write_text("data")
    assert manage_all("reset").returncode == 1
    assert (layout.db / "order.sqlite3").exists()
    assert manage_all("reset", "--yes").returncode == 0
    assert not layout.db.exists()


def test_a_missing_program_is_told_in_one_line(manage_all, layout, tmp_path):
    (tmp_path / "valkey-server").write_text("#!/bin/sh\necho no such library >&2\nexit 127\n")
    (tmp_path / "valkey-server").chmod(0o755)
    result = manage_all("up", "--port", "18998", PATH=f"{tmp_path}:/usr/bin:/bin")
    assert result.returncode == 1
    *log, last = result.stderr.strip().splitlines()
    assert last == "manage_all: redis ended with exit code 127"
    assert any("no such library" in line for line in log)
    assert processes_of(layout) == ""


def test_an_old_python_is_told_in_one_line(tmp_path):
    code = (
        "import sys, runpy; sys.version_info = (3, 10, 0); sys.version = '3.10.0 (old)';"
        "runpy.run_path('manage_all.py', run_name='__main__')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert result.returncode == 1
    assert result.stderr == "manage_all: Python 3.11 or newer is needed, this is 3.10.0\n"


def test_a_path_chooses_its_project_and_is_handed_to_pytest():
    chosen = plan.choose(["tests/inventory/__init__.py::test_x", "tests/stack"])
    by_name = {project.name: paths for project, paths in chosen.items()}
    assert by_name == {
        "inventory": ["tests/inventory/__init__.py::test_x"],
        "stack": ["tests/stack"],
    }
    assert len(plan.choose(["tests"])) > 5
    for wrong in ("tests/nothing_here", "services/order", "/etc"):
        with pytest.raises(StackError):
            plan.choose([wrong])


def test_results_are_counted_from_the_report(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>'
    )
    assert testing.count_results(report) == {"passed": 3, "failed": 3, "skipped": 3}
    report.write_text("<half")
    assert testing.count_results(report)["failed"] == 1


def rush(**seen) -> demo.Rush:
    return demo.Rush("http://127.0.0.1:1", 1, stock=10, buyers=100, **seen)


def test_the_verdict_on_a_sale():
    assert demo.verdict(rush(paid=10), {"sold": 10}) == ""
    assert "OVERSOLD" in demo.verdict(rush(paid=11), {"sold": 11})
    assert "WRONG" in demo.verdict(rush(paid=9), {"sold": 10})
    assert "UNSOLD" in demo.verdict(rush(paid=9), {"sold": 9})
    few = demo.Rush("http://127.0.0.1:1", 1, stock=10, buyers=6, paid=5, cancelled=1)
    assert demo.verdict(few, {"sold": 5}) == ""


def test_replies_are_read_whole_whatever_way_they_come():
    whole = b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1"
    reply, rest = _parse(whole)
    assert (reply.status, reply.body, rest) == (201, b"{}", b"HTTP/1.1")
    assert _parse(whole[:40]) is None
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    assert _parse(chunked)[0].body == b"abcde"
    assert all(_parse(chunked[:n]) is None for n in range(len(chunked)))


def test_a_server_that_is_not_there_is_no_reply():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        reply = asyncio.run(Client(f"http://127.0.0.1:{unused.getsockname()[1]}").get("/"))
    assert reply.status == 0
