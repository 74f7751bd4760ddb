"""The catalog as others call it: HTTP in, an Answer out. Safe to share by threads."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.test import Client

EVENTS = "/api/catalog/events"
TICKETS = "/api/catalog/tickets"
STARTS = "2027-06-01T19:00:00Z"
ENDS = "2027-06-01T23:00:00Z"


@dataclass(frozen=True)
class Answer:
    """What a caller sees."""

    status: int
    body: Any
    headers: dict[str, str]

    @property
    def code(self) -> str | None:
        """The problem's code, None when it is no problem."""
        return self.body.get("code") if isinstance(self.body, dict) else None

    @property
    def wrong_fields(self) -> set[str]:
        """The fields that a validation error names."""
        return {error["field"] for error in self.body.get("errors", [])}

    def expect(self, status: int) -> Any:
        """Return the body of an answer that has this status."""
        assert self.status == status, self.body
        return self.body


class Caller:
    """Somebody with a token (or without) and the calls that the catalog offers."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request; ``bytes`` are sent as they are, everything else as JSON."""
        raw = body if isinstance(body, bytes) else b"" if body is None else dumped(body)
        extra = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        if self.token:
            extra["HTTP_AUTHORIZATION"] = f"Bearer {self.token}"
        client = Client(raise_request_exception=False)
        response = client.generic(method, path, raw, "application/json", **extra)
        is_json = "json" in response.headers.get("Content-Type", "")
        parsed = response.json() if is_json else response.content
        return Answer(response.status_code, parsed, dict(response.headers))

    def list(self, **query: Any) -> Answer:
        return self.call("GET", f"{EVENTS}?{urlencode(query)}")

    def titles(self, **query: Any) -> list[str]:
        """Return the titles of a page of events."""
        return [event["title"] for event in self.list(**query).expect(200)["results"]]

    def event(self, event_id: int) -> Answer:
        return self.call("GET", f"{EVENTS}/{event_id}")

    def ticket(self, ticket_id: int) -> Answer:
        return self.call("GET", f"{TICKETS}/{ticket_id}")

    def availability(self, ticket_id: int) -> Answer:
        return self.call("GET", f"{TICKETS}/{ticket_id}/availability")

    def create_event(self, **fields: Any) -> Answer:
        body = {"title": "Jazz", "starts_at": STARTS, "ends_at": ENDS, **fields}
        return self.call("POST", EVENTS, body)

    def create_ticket(self, event_id: int, /, **fields: Any) -> Answer:
        body = {"name": "Stalls", "price": 2500, **fields}
        return self.call("POST", f"{EVENTS}/{event_id}/tickets", body)

    def patch_event(self, event_id: int, /, **fields: Any) -> Answer:
        return self.call("PATCH", f"{EVENTS}/{event_id}", fields)

    def patch_ticket(self, ticket_id: int, /, **fields: Any) -> Answer:
        return self.call("PATCH", f"{TICKETS}/{ticket_id}", fields)

    def move_event(self, event_id: int, call: str, **headers: str) -> Answer:
        return self.call("POST", f"{EVENTS}/{event_id}/{call}", **headers)

    def move_ticket(self, ticket_id: int, call: str, **headers: str) -> Answer:
        return self.call("POST", f"{TICKETS}/{ticket_id}/{call}", **headers)


def dumped(body: Any) -> bytes:
    """Return a body as JSON bytes, lone surrogates and all."""
    return json.dumps(body).encode()
