"""Fixtures: whole private systems, each in a folder of its own, stopped and removed at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from deploy.stack.children import BACKOFF_SECONDS_MAX
from deploy.stack.packages import find_program
from deploy.stack.supervisor import Stack
from tests.system.browser import ARGUMENTS, DESKTOP, PHONE, Window
from tests.system.shop import Shop

if TYPE_CHECKING:
    from playwright.sync_api import Browser


# For systems whose processes are killed all the time: each starts again at once.
RESTART_AT_ONCE_SECONDS = 0.5


@contextmanager
def private_system(
    database: str = "sqlite", *, backoff_seconds_max: float = BACKOFF_SECONDS_MAX, **env: str
) -> Iterator[Stack]:
    """Run a system. Its folder has a short path: pytest's own are too long for sockets."""
    with (
        tempfile.TemporaryDirectory(prefix="fs-sys-") as folder,
        Stack(
            Path(folder), database=database, env=env, backoff_seconds_max=backoff_seconds_max
        ) as stack,
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


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """Debian's browser, driven by playwright."""
    program = find_program("chromium")
    if program is None:
        pytest.skip("no chromium on this machine (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(ARGUMENTS))
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("screenshots")


@pytest.fixture
def window(chromium: Browser, shop: Shop, screenshots: Path) -> Iterator[Window]:
    """Somebody's browser; at the end the page must have had nothing to complain about."""
    opened = Window(chromium, shop, DESKTOP, screenshots)
    yield opened
    opened.close()


@pytest.fixture
def phone(chromium: Browser, shop: Shop, screenshots: Path) -> Iterator[Window]:
    opened = Window(chromium, shop, PHONE, screenshots)
    yield opened
    opened.close()
