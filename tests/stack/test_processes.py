"""Children: started, restarted when they die, stopped with all that they started."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable

import pytest

from deploy.stack.children import Children
from deploy.stack.errors import StackError
from deploy.stack.layout import Layout, write_json
from deploy.stack.leftovers import FolderLock, end_leftovers
from deploy.stack.processes import Child, process_start_ticks

SLEEPER = "import time; time.sleep(60)"
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
PARENT_OF_A_SLEEPER = f"""
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", {SLEEPER!r}]).pid, flush=True)
time.sleep(60)
"""


def python(layout: Layout, code: str, name: str = "child") -> Child:
    return Child(name, [sys.executable, "-c", code], dict(os.environ), layout.log(name))


def wait_until(condition: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def runs(pid: int) -> bool:
    return process_start_ticks(pid) is not None


@pytest.fixture
def children():
    made = Children(on_change=lambda: None)
    yield made
    made.stop_all()


def test_a_child_that_is_killed_is_started_again(layout, children):
    children.start(python(layout, SLEEPER), stage=0)
    children.watch()
    first = children.get("child").pid
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: children.get("child").pid not in (None, first))
    assert children.states()[0]["restarts"] == 1


def test_a_child_that_dies_at_once_is_restarted_with_growing_pauses(layout, children):
    children.start(python(layout, "raise SystemExit(3)"), stage=0)
    children.watch()
    time.sleep(2.5)
    # After 0.5 s and 1 s; without back-off it would have been a dozen times.
    assert 1 <= children.states()[0]["restarts"] <= 3
    assert children.states()[0]["state"] == "restarting"


def test_a_child_that_is_killed_on_purpose_may_be_restarted_without_growing_pauses(layout):
    children = Children(on_change=lambda: None, backoff_seconds_max=0.5)
    try:
        children.start(python(layout, "raise SystemExit(3)"), stage=0)
        children.watch()
        # With pauses that grow it would be half a minute.
        wait_until(lambda: children.states()[0]["restarts"] >= 5)
    finally:
        children.stop_all()


def test_a_child_that_was_stopped_stays_down_until_it_is_started(layout, children):
    children.start(python(layout, SLEEPER), stage=0)
    children.watch()
    children.stop_one("child")
    time.sleep(1.0)
    assert children.states()[0]["state"] == "stopped"
    children.start_one("child")
    assert children.states()[0]["state"] == "running"


def test_stopping_kills_a_child_that_does_not_listen(layout):
    child = python(layout, DEAF)
    child.start()
    time.sleep(0.3)
    started = time.monotonic()
    child.stop(grace_seconds=0.5)
    assert child.exit_code == -signal.SIGKILL
    assert time.monotonic() - started < 5


def test_stopping_reaches_a_paused_child(layout):
    child = python(layout, SLEEPER)
    pid = child.start()
    os.kill(pid, signal.SIGSTOP)
    child.stop(grace_seconds=5)
    assert child.exit_code == -signal.SIGTERM


def test_what_a_killed_child_started_ends_with_it(layout, children):
    children.start(python(layout, PARENT_OF_A_SLEEPER), stage=0)
    wait_until(lambda: layout.log("child").read_text().strip())
    grandchild = int(layout.log("child").read_text())
    children.watch()
    os.kill(children.get("child").pid, signal.SIGKILL)
    wait_until(lambda: not runs(grandchild))


def test_stages_stop_in_descending_order(layout):
    order = []

    class Noting(Child):
        def finish(self, grace_seconds=None):
            super().finish(grace_seconds)
            order.append(self.name)

    children = Children(on_change=lambda: None)
    for stage, name in enumerate(["database", "service", "proxy"]):
        argv = [sys.executable, "-c", SLEEPER]
        children.start(Noting(name, argv, dict(os.environ), layout.log(name)), stage)
    children.stop_all()
    assert order == ["proxy", "service", "database"]


def test_a_failing_task_is_told_with_its_log(layout, children):
    task = python(layout, "print('the reason'); raise SystemExit(4)", "migrate")
    with pytest.raises(StackError, match="migrate failed with exit code 4") as failure:
        children.run_task(task)
    assert "the reason" in failure.value.log.read_text()


def test_a_program_that_does_not_exist_is_told(layout):
    child = Child("ghost", ["/does/not/exist"], {}, layout.log("ghost"))
    with pytest.raises(StackError, match="ghost: cannot run /does/not/exist"):
        child.start()


def test_a_folder_has_one_holder(layout):
    first, second = FolderLock(layout.lock), FolderLock(layout.lock)
    first.acquire()
    assert second.holder() == os.getpid()
    with pytest.raises(StackError, match=f"already running .*process {os.getpid()}"):
        second.acquire()
    first.release()
    assert second.holder() is None
    second.acquire()
    second.release()


def test_what_a_killed_supervisor_left_is_ended_and_nobody_else(layout):
    ours, stranger = python(layout, SLEEPER, "ours"), python(layout, SLEEPER, "stranger")
    for child in (ours, stranger):
        child.start()
    processes = [
        {"name": "ours", "pid": ours.pid, "start_ticks": process_start_ticks(ours.pid)},
        # The same process id, but of a process that started at another time.
        {"name": "gone", "pid": stranger.pid, "start_ticks": 1},
        {"name": "down", "pid": None, "start_ticks": None},
    ]
    write_json(layout.state_json, {"processes": processes})
    # In the place of init, which would collect the dead child of a dead supervisor.
    threading.Thread(target=ours.wait, daemon=True).start()
    try:
        assert end_leftovers(layout) == ["ours"]
        assert ours.wait(5) == -signal.SIGTERM
        assert stranger.pid is not None
    finally:
        ours.stop()
        stranger.stop()
