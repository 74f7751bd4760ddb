"""Fixtures: whole private systems, each in a folder of its own, stopped and removed at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.stack import supervisor
from deploy.stack.supervisor import Stack
from tests.system.shop import Shop


@contextmanager
def private_system(database: str = "sqlite", **env: str) -> Iterator[Stack]:
    """Run a system. Its folder has a short path: pytest's own are too long for sockets."""
    with (
        tempfile.TemporaryDirectory(prefix="fs-") as folder,
        supervisor.Stack(Path(folder), database=database, env=env) as stack,
    ):
        yield stack


def shop_of(stack: Stack) -> Shop:
    return Shop(stack.url, stack.layout, stack.logins["admin"]["password"])


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The system on SQLite that most tests share."""
    with private_system() as running:
        yield running


@pytest.fixture(scope="session")
def shop(stack: Stack) -> Shop:
    return shop_of(stack)
