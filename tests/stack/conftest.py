"""Fixtures for the tests of deploy.stack: small private folders and the command line."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deploy.stack.environment import basics
from deploy.stack.layout import ROOT, Layout

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def layout() -> Iterator[Layout]:
    """A folder with a short path: pytest's own are too long for sockets."""
    with tempfile.TemporaryDirectory(prefix="fs-") as folder:
        made = Layout(Path(folder))
        made.prepare()
        yield made


@pytest.fixture
def manage_all(layout: Layout) -> Command:
    """Run manage_all.py for the private folder, in the environment that this test runs in."""

    def run(*arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(ROOT / "manage_all.py"), *arguments],
            env={**command_environment(layout), **extra},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


def command_environment(layout: Layout) -> dict[str, str]:
    """What a person's shell would have, with the private folder."""
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return {
        **basics(),
        **pip,
        "FLASHSALE_VAR": str(layout.var),
        # The one in use: these tests are about the system, not about installing it again.
        "FLASHSALE_VENV": sys.prefix,
    }
