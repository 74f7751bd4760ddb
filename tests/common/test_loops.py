"""Background loops: they rest when there is nothing, back off when it fails, and stop when told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from io import StringIO
from pathlib import Path

import pytest
from django.conf import settings as django_settings
from django.core.management import call_command
from django.utils.module_loading import import_string

from common import loops
from common.loops import BACKOFF_SECONDS_MAX, Loop, run_loop

ROOT = Path(__file__).resolve().parents[2]


class Stop(threading.Event):
    """A stop signal that notes how long the loop wanted to rest, and ends it after some rests."""

    def __init__(self, rests):
        super().__init__()
        self.rests, self.pauses = rests, []

    def wait(self, timeout=None):
        self.pauses.append(timeout)
        if len(self.pauses) == self.rests:
            self.set()
        return self.is_set()


def run(step, rests):
    """Run a loop for some rests; return how long they were meant to be."""
    stop = Stop(rests)
    run_loop(Loop("test", step, interval_seconds=0.5), stop)
    return stop.pauses


def test_a_loop_that_finds_work_goes_on_and_one_that_finds_none_rests():
    found = iter([3, 1, 0, 0, 2])
    assert run(lambda: next(found), 5) == [0, 0, 0.5, 0.5, 0]


def test_a_failing_step_is_tried_again_later_and_later():
    def fail():
        raise RuntimeError("always")

    pauses = run(fail, 9)
    assert pauses[:4] == [0.2, 0.4, 0.8, 1.6]
    assert pauses[-1] == BACKOFF_SECONDS_MAX == max(pauses)


def test_a_step_that_works_again_ends_the_backing_off():
    outcomes = iter([RuntimeError(), RuntimeError(), 0, RuntimeError()])

    def step():
        outcome = next(outcomes)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    assert run(step, 4) == [0.2, 0.4, 0.5, 0.2]


def test_a_loop_stops_at_once_though_it_rests():
    stop = threading.Event()
    thread = threading.Thread(target=run_loop, args=(Loop("test", lambda: 0, 60.0), stop))
    thread.start()
    time.sleep(0.1)
    stop.set()
    thread.join(5)
    assert not thread.is_alive()


def test_a_step_at_work_is_finished_before_the_loop_ends():
    stop, steps = threading.Event(), []

    def step():
        stop.set()
        time.sleep(0.1)
        steps.append("finished")
        return 1

    run_loop(Loop("test", step, 0.1), stop)
    assert steps == ["finished"]


PROCESS = """
import os
import time
import django
django.setup()
from common.loops import Loop, run_until_signal

def say(word):
    os.write(1, word + b"\\n")  # in one piece, though threads write at once

def busy():
    say(b"busy")
    time.sleep(0.5)
    say(b"finished")
    return 1

def failing():
    say(b"failing")
    raise RuntimeError("always")

run_until_signal([Loop("failing", failing, 0.1), Loop("busy", busy, 0.1), Loop("idle", int, 60)])
say(b"stopped")
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_process_of_loops_lets_its_steps_finish_and_ends_with_0(number):
    process = subprocess.Popen(
        [sys.executable, "-c", PROCESS],
        cwd=ROOT,
        env=os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert {process.stdout.readline() for _ in range(2)} == {"failing\n", "busy\n"}
        process.send_signal(number)
        rest, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    lines = [line for line in rest.split() if line != "failing"]
    assert process.returncode == 0, errors
    assert lines[0] == "finished"
    assert lines[-1] == "stopped"
    assert lines.count("busy") == lines.count("finished") - 1
    assert "RuntimeError: always" in errors, "one loop that fails is logged and stops no other"


@pytest.mark.parametrize("path", django_settings.LOOPS)
def test_every_loop_of_the_settings_is_one(path):
    loop = import_string(path)
    assert isinstance(loop, Loop)
    assert loop.name == path.rpartition(".")[2]
    assert loop.interval_seconds > 0


def test_a_command_of_one_loop_can_do_one_step(monkeypatch):
    from services.inventory import expiry

    monkeypatch.setattr(expiry, "expire_holds", Loop("expire_holds", lambda: 3, 1.0))
    output = StringIO()
    call_command("expire_holds", "--once", stdout=output)
    assert output.getvalue() == "expire_holds: 3\n"


def test_without_once_the_command_runs_until_it_is_told(monkeypatch):
    ran = []
    monkeypatch.setattr(loops, "run_until_signal", ran.append)
    call_command("expire_holds")
    assert [loop.name for loop in ran[0]] == ["expire_holds"]
