"""A real browser, as a person uses it; it notes whatever the page complains about."""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from tests.system.client import new_key
from tests.system.shop import PASSWORD, Shop

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

ARGUMENTS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
DESKTOP = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}
WAIT_MS = 10_000
# A refusal of the API is no mistake of the page; a missing file or a broken service is one.
EXPECTED = re.compile(r"Failed to load resource: .* status of (400|401|403|409|422)\b")
# Set by a person who wants to look at the pages.
SCREENSHOTS_VARIABLE = "FLASHSALE_SCREENSHOTS"


class Window:
    """One browser window with cookies of its own."""

    def __init__(self, browser: Browser, shop: Shop, size: dict[str, int], folder: Path) -> None:
        self.shop = shop
        self.complaints: list[str] = []
        self._folder = Path(os.environ.get(SCREENSHOTS_VARIABLE) or folder)
        self._size = "phone" if size is PHONE else "desktop"
        self.context = browser.new_context(
            viewport=size,  # type: ignore[arg-type]
            locale="en-GB",
            timezone_id="UTC",
            base_url=shop.url,
        )
        self.context.set_default_timeout(WAIT_MS)
        self.page: Page = self.context.new_page()
        self.page.on("console", self._note)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))

    def goto(self, path: str) -> Page:
        self.page.goto(path)
        return self.page

    def register(self, path: str = "/register") -> str:
        """Make an account on the page that the window shows, or on ``path``."""
        if "/register" not in self.page.url:
            self.goto(path)
        name = f"visitor-{secrets.token_hex(4)}"
        self.page.fill("[name=username]", name)
        self.page.fill("[name=email]", f"{name}@example.com")
        self.page.fill("[name=password]", PASSWORD)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda url: "/register" not in url)
        return name

    def log_in(self, username: str, password: str) -> None:
        """Fill in the login form that the window shows."""
        self.page.wait_for_url("**/login?**")
        self.page.fill("[name=username]", username)
        self.page.fill("[name=password]", password)
        self.page.click("button[type=submit]")
        self.page.wait_for_url(lambda url: "/login" not in url)

    def is_nobody(self) -> bool:
        return not any(c["name"] == "flashsale_access" for c in self.context.cookies())

    def look(self, name: str) -> None:
        """Take a picture, and require that the page has its style and fits the window."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=self._folder / f"{self._size}-{name}.png")
        layout = self.page.evaluate(
            """() => ({
                over: document.documentElement.scrollWidth - window.innerWidth,
                font: getComputedStyle(document.querySelector("h1, h2, a, button")).fontFamily,
            })"""
        )
        assert layout["over"] <= 0, f"{name}: {layout['over']} px wider than the window"
        assert "Times" not in layout["font"], f"{name}: no style sheet"

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not EXPECTED.search(message.text):
            self.complaints.append(f"{message.text} ({self.page.url})")


def buy_all(shop: Shop, ticket: int, quantity: int) -> None:
    """Let somebody else take so many."""
    shop.buyer().order(ticket, quantity=quantity, key=new_key()).require(201)
