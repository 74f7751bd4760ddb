"""A running system as the tests see it: its admin, its buyers, and tickets to fight for."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar

from deploy.stack.environment import basics
from deploy.stack.layout import ROOT, Layout
from tests.system.client import EXEMPT_ADDRESS, Client, Reply

T = TypeVar("T")
BUYERS_AT_ONCE = 150
AUDIT_SECONDS_MAX = 90.0
PASSWORD = "correct horse battery 1"


def soon(**distance: float) -> str:
    """Return the moment that far from now (``days=-1`` lies in the past)."""
    return (datetime.now(UTC) + timedelta(**distance)).isoformat()


@dataclass
class Shop:
    """One running system, from outside."""

    url: str
    layout: Layout
    admin_password: str
    _buyers: list[Client] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def admin(self) -> Client:
        return Client(self.url, self.log_in("admin", self.admin_password))

    @property
    def visitor(self) -> Client:
        """Somebody without a login."""
        return Client(self.url)

    def log_in(self, username: str, password: str) -> str:
        """Return an access token."""
        login = {"username": username, "password": password}
        return str(self.visitor.post("/api/auth/login", login).require(200)["access"])

    def register(self) -> str:
        """Register somebody new with PASSWORD; returns the name."""
        name = f"person-{secrets.token_hex(4)}"
        person = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
        self.visitor.post("/api/auth/register", person).require(201)
        return name

    def buyer(self, source: str = EXEMPT_ADDRESS) -> Client:
        """Return somebody who has never bought here; made in bulk, as hashing passwords is slow."""
        with self._lock:
            if not self._buyers:
                self._buyers = self.crowd(BUYERS_AT_ONCE)
            return Client(self.url, self._buyers.pop().token, source)

    def crowd(self, count: int) -> list[Client]:
        """Return so many new users, who have tokens but no passwords."""
        options = ("--prefix", f"crowd-{secrets.token_hex(4)}", "--count", str(count))
        made = manage_all(self.layout, "manage", "auth", "issue_tokens", *options)
        lines = [line for line in made.stdout.splitlines() if line.startswith("{")]
        assert len(lines) == count, made.stderr
        return [Client(self.url, json.loads(line)["access"]) for line in lines]

    def event(self, **details: Any) -> int:
        """Create a draft event."""
        event = {
            "title": f"Concert {secrets.token_hex(3)}",
            "starts_at": soon(days=30),
            "ends_at": soon(days=31),
            **details,
        }
        return int(self.admin.post("/api/catalog/events", event).require(201)["id"])

    def ticket(
        self, stock: int | None, *, event: int = 0, public: bool = True, **details: Any
    ) -> int:
        """Put a ticket on sale with that stock; returns its id."""
        event = event or self.event()
        ticket = {
            "name": f"Seat {secrets.token_hex(2)}",
            "price": 2500,
            "currency": "EUR",
            "per_order_limit": 10,
            "per_user_limit": 10,
            "sale_starts_at": soon(hours=-1),
            "sale_ends_at": soon(days=10),
            **details,
        }
        path = f"/api/catalog/events/{event}/tickets"
        ticket_id = int(self.admin.post(path, ticket).require(201)["id"])
        if stock is not None:
            self.admin.put(f"/api/inventory/stocks/{ticket_id}", {"total": stock}).require(201)
        if public:
            self.admin.post(f"/api/catalog/tickets/{ticket_id}/on-sale").require(200)
            if self.admin.get(f"/api/catalog/events/{event}").require(200)["status"] == "DRAFT":
                self.admin.post(f"/api/catalog/events/{event}/publish").require(200)
        return ticket_id

    def stock(self, ticket_id: int) -> tuple[int, int, int]:
        """Return (available, reserved, sold) as inventory has them."""
        row = self.admin.get(f"/api/inventory/stocks/{ticket_id}").require(200)
        assert row["available"] + row["reserved"] + row["sold"] == row["total"], row
        return row["available"], row["reserved"], row["sold"]

    def shown(self, ticket_id: int) -> int:
        """Return what the catalog shows as available."""
        path = f"/api/catalog/tickets/{ticket_id}/availability"
        return int(self.visitor.get(path).require(200)["available"])

    def audit(self) -> dict[str, Any]:
        """Run ``manage_all.py audit --json``; fails when an invariant does not hold."""
        result = manage_all(self.layout, "audit", "--json", timeout=AUDIT_SECONDS_MAX)
        report: dict[str, Any] = json.loads(result.stdout)
        broken = [check for check in report["checks"] if not check["ok"]]
        assert report["ok"], broken
        assert result.returncode == 0
        return report


def manage_all(
    layout: Layout, *arguments: str, timeout: float = 120, **extra: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line for a folder, in the Python environment that this test runs in."""
    pip = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    return subprocess.run(
        [sys.executable, str(ROOT / "manage_all.py"), *arguments],
        env={
            **basics(),
            **pip,
            "FLASHSALE_VAR": str(layout.var),
            "FLASHSALE_VENV": os.environ.get("FLASHSALE_VENV", sys.prefix),
            **extra,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def at_once(works: Sequence[Callable[[], T]]) -> list[T]:
    """Run all works in threads that start at the same moment; returns their results in order."""
    barrier = threading.Barrier(len(works))

    def start(work: Callable[[], T]) -> T:
        barrier.wait(30)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(start, works))


def outcome(reply: Reply) -> str:
    """Return ``201`` or ``409 sold_out``: what a tally of many answers is made of."""
    return f"{reply.status} {reply.code}" if reply.status >= 400 else str(reply.status)
