"""Faults made on purpose in a running system, and what an answer must look like meanwhile."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.stack.plan import FULL_VARIABLE
from deploy.stack.supervisor import Stack
from tests.system.client import Reply

FULL = bool(os.environ.get(FULL_VARIABLE))
# What the promises say: settled after the last fault, and a torn purchase resolved.
SETTLED_SECONDS_MAX = 30.0
TORN_SECONDS_MAX = 60.0


def seeded(what: str) -> random.Random:
    """Return the draw of a test; FLASHSALE_SEED=… draws the same again."""
    seed = os.environ.get("FLASHSALE_SEED") or str(random.SystemRandom().randrange(10**9))
    print(f"\n{what}: FLASHSALE_SEED={seed}")
    return random.Random(seed)


@contextmanager
def without(stack: Stack, *names: str) -> Iterator[None]:
    """Stop these processes for a while."""
    for name in names:
        stack.stop_child(name)
    try:
        yield
    finally:
        for name in names:
            stack.start_child(name)


@contextmanager
def paused(stack: Stack, name: str) -> Iterator[None]:
    """Let a process with all its workers stand still for a while, as a stalled machine would."""
    group = stack.child(name).pid or 0
    os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(group, signal.SIGCONT)


def kill(stack: Stack, name: str) -> None:
    """Kill a process with all its workers, as a machine that runs out of memory may."""
    os.killpg(stack.child(name).pid or 0, signal.SIGKILL)


def workers(stack: Stack, name: str) -> list[int]:
    """Return the process ids of a gunicorn's workers; none while it is down."""
    arbiter = stack.child(name).pid
    try:
        children = Path(f"/proc/{arbiter}/task/{arbiter}/children").read_text()
    except OSError:
        return []
    return [int(pid) for pid in children.split()]


def kill_a_worker(stack: Stack, name: str) -> None:
    """Kill one worker; its gunicorn and the other workers stay."""
    os.kill(workers(stack, name)[0], signal.SIGKILL)


def require_down(reply: Reply) -> None:
    assert reply.status == 503, reply
    assert reply.code.endswith(("_unavailable", "_not_delivered")), reply
    assert int(reply.headers["retry-after"]) >= 1
