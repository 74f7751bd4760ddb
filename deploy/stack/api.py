"""A small JSON client on the standard library, for readiness, the demo sale and the commands."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from deploy.stack.errors import StackError

TIMEOUT_SECONDS = 10.0
# Refused for now and without effect; after a lost answer only a repeatable call is made again.
BUSY = (429, 503)
BUSY_TRIES_MAX = 8


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    data: Any

    def require(self, *statuses: int) -> Any:
        """Return the data, or raise StackError when the status is none of these."""
        if self.status not in statuses:
            raise StackError(f"unexpected answer {self.status}: {str(self.data)[:300]}")
        return self.data


class Api:
    """Calls under one base URL, as the bearer of a token if one is given."""

    def __init__(self, base_url: str, token: str = "") -> None:
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._token = token

    @property
    def token(self) -> str:
        """The access token in use; empty before a login."""
        return self._token

    def login(self, username: str, password: str) -> Answer:
        """Log in; later calls carry the access token."""
        answer = self.call("POST", "/api/auth/login", {"username": username, "password": password})
        if answer.status == 200:
            self._token = answer.data["access"]
        return answer

    def get(self, path: str) -> Answer:
        return self.call("GET", path)

    def post(self, path: str, data: Any = None, key: str = "") -> Answer:
        return self.call("POST", path, {} if data is None else data, key)

    def put(self, path: str, data: Any) -> Answer:
        return self.call("PUT", path, data)

    def call(self, method: str, path: str, data: Any = None, key: str = "") -> Answer:
        """Make a call; one that meets a busy system is made again."""
        repeatable = method in ("GET", "PUT") or bool(key)
        for attempt in range(BUSY_TRIES_MAX):
            last_try = attempt == BUSY_TRIES_MAX - 1
            try:
                answer = self._once(method, path, data, key)
            except (OSError, http.client.HTTPException) as error:
                if last_try or not repeatable:
                    raise StackError(f"{method} {path}: {error}") from error
            else:
                if answer.status not in BUSY or last_try:
                    return answer
            time.sleep(min(2.0, 0.1 * 2**attempt))
        raise AssertionError("unreachable")

    def _once(self, method: str, path: str, data: Any, key: str) -> Answer:
        headers = {"Accept": "application/json"}
        if self._token:
            headers["Authorization"] = f"Bearer {self._token}"
        if key:
            headers["Idempotency-Key"] = key
        body = None
        if data is not None:
            headers["Content-Type"] = "application/json"
            body = json.dumps(data)
        connection = http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_SECONDS)
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        is_json = "json" in response.headers.get("Content-Type", "")
        return Answer(response.status, json.loads(content) if is_json and content else content)


def wait_ready(url: str, still_alive: Callable[[], None], timeout_seconds: float) -> None:
    """Wait until a GET of the URL answers 200; ``still_alive`` raises when waiting is in vain."""
    parts = urlsplit(url)
    deadline = time.monotonic() + timeout_seconds
    last = "no answer"
    while time.monotonic() < deadline:
        still_alive()
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5.0)
        try:
            connection.request("GET", parts.path or "/")
            response = connection.getresponse()
            last = f"{response.status} {response.read(300).decode(errors='replace')}"
            if response.status == 200:
                return
        except (OSError, http.client.HTTPException) as error:
            last = str(error)
        finally:
            connection.close()
        time.sleep(0.1)
    raise StackError(f"{url} was not ready within {timeout_seconds:.0f} s: {last}")
