"""A person's or a program's view of the system: plain HTTP through nginx, one call at a time."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

T = TypeVar("T")
EXEMPT_ADDRESS = "127.0.0.1"
# nginx limits this one as it does any stranger's.
LIMITED_ADDRESS = "127.0.0.2"
TIMEOUT_SECONDS = 15.0


@dataclass(frozen=True)
class Reply:
    """An answer; status 0 means that none came."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem document; fails when the answer is not one."""
        assert self.headers["content-type"].startswith("application/problem+json"), self
        assert self.json["status"] == self.status, self
        return str(self.json["code"])

    def require(self, *statuses: int) -> Any:
        """Return the body when the status is one of these."""
        assert self.status in statuses, self
        return self.json if self.body else None


NO_REPLY = Reply(0, {}, b"")


@dataclass(frozen=True)
class Client:
    """Calls to one system as the bearer of a token; safe to share between threads."""

    url: str
    token: str = ""
    source: str = EXEMPT_ADDRESS

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Make one call; a body that is not bytes is sent as JSON."""
        sent = {"Accept": "application/json", **(headers or {})}
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if key:
            sent["Idempotency-Key"] = key
        if body is not None:
            sent.setdefault("Content-Type", "application/json")
            body = body if isinstance(body, bytes) else json.dumps(body)
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, TIMEOUT_SECONDS, source_address=(self.source, 0)
        )
        try:
            connection.request(method, path, body, sent)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        return Reply(response.status, {k.lower(): v for k, v in response.getheaders()}, content)

    def get(self, path: str, **options: Any) -> Reply:
        return self.call("GET", path, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> Reply:
        return self.call("POST", path, body, **options)

    def put(self, path: str, body: Any, **options: Any) -> Reply:
        return self.call("PUT", path, body, **options)

    def order(self, *tickets: int, quantity: int = 1, key: str = "") -> Reply:
        """Order so many of each ticket, under a new key unless one is given."""
        items = [{"ticket_id": ticket, "quantity": quantity} for ticket in tickets]
        return self.post("/api/orders", {"items": items}, key=key or new_key())

    def pay(self, order_id: str, method: str = "sandbox_ok", key: str = "") -> Reply:
        return self.post(f"/api/orders/{order_id}/pay", {"method": method}, key=key or new_key())

    def cancel(self, order_id: str) -> Reply:
        return self.post(f"/api/orders/{order_id}/cancel")

    def status_of(self, order_id: str) -> str:
        """Return the state that the order is in now."""
        return str(self.get(f"/api/orders/{order_id}").require(200)["status"])


def new_key() -> str:
    return uuid.uuid4().hex


def insist(call: Callable[[], Reply], seconds: float = 40.0) -> Reply:
    """Repeat a call, as a client with an idempotency key may, until its answer is a definite one.

    No answer, 5xx and "too many" say nothing about the effect.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            reply = call()
        except (OSError, http.client.HTTPException):
            reply = NO_REPLY
        undecided = (
            reply.status in (0, 429)
            or reply.status >= 500
            or (reply.status == 409 and reply.code == "request_in_progress")
        )
        if not undecided:
            return reply
        assert time.monotonic() < deadline, f"no definite answer within {seconds} s: {reply}"
        time.sleep(0.2)


def within(seconds: float, read: Callable[[], T], wanted: Callable[[T], bool] | T) -> T:
    """Read until the value is the wanted one; fails with the last value when time is up."""
    deadline = time.monotonic() + seconds
    while True:
        value = read()
        fits = wanted(value) if callable(wanted) else value == wanted
        if fits:
            return value
        assert time.monotonic() < deadline, f"after {seconds} s it is still {value!r}"
        time.sleep(0.05)
