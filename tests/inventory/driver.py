"""The inventory service as others call it: HTTP in, an Answer out. Safe to share by threads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rest_framework.test import APIClient

RESERVATIONS = "/api/inventory/reservations"
STOCKS = "/api/inventory/stocks"
BATCH = "/internal/inventory/reservations:batch"
HOLDS = "/internal/inventory/holds"


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


class Caller:
    """Somebody with a token (or without) and the calls that the service offers."""

    def __init__(self, token: str | None = None) -> None:
        self.token = token

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send one request; header names are written with underscores."""
        client = APIClient(raise_request_exception=False)
        if self.token:
            client.credentials(HTTP_AUTHORIZATION=f"Bearer {self.token}")
        extra = {f"HTTP_{name.upper()}": value for name, value in headers.items()}
        response = client.generic(
            method, path, client._encode_data(body)[0], "application/json", **extra
        )
        is_json = "json" in response.headers.get("Content-Type", "")
        parsed = response.json() if is_json else response.content
        return Answer(response.status_code, parsed, dict(response.headers))

    def reserve(
        self, reservation_id: str, ticket_id: int = 1, quantity: int = 1, **more: Any
    ) -> Answer:
        return self.call("POST", RESERVATIONS, entry(reservation_id, ticket_id, quantity, **more))

    def commit(self, reservation_id: str) -> Answer:
        return self.call("POST", f"{RESERVATIONS}/{reservation_id}/commit")

    def release(self, reservation_id: str) -> Answer:
        return self.call("POST", f"{RESERVATIONS}/{reservation_id}/release")

    def reservation(self, reservation_id: str) -> Answer:
        return self.call("GET", f"{RESERVATIONS}/{reservation_id}")

    def stock(self, ticket_id: int = 1) -> Answer:
        return self.call("GET", f"{STOCKS}/{ticket_id}")

    def set_stock(self, ticket_id: int, total: Any) -> Answer:
        return self.call("PUT", f"{STOCKS}/{ticket_id}", {"total": total})

    def adjust(self, ticket_id: int, delta: Any, key: str | None = None) -> Answer:
        headers = {"idempotency_key": key} if key is not None else {}
        return self.call("POST", f"{STOCKS}/{ticket_id}/adjust", {"delta": delta}, **headers)

    def batch(self, *groups: dict[str, Any]) -> Answer:
        return self.call("POST", BATCH, {"groups": list(groups)})

    def holds(self, **query: Any) -> Answer:
        from urllib.parse import urlencode

        return self.call("GET", f"{HOLDS}?{urlencode(query)}")


def entry(
    reservation_id: str, ticket_id: int = 1, quantity: int = 1, **more: Any
) -> dict[str, Any]:
    """Return one reserve body, or one entry of a reserve group."""
    return {
        "reservation_id": reservation_id,
        "ticket_id": ticket_id,
        "quantity": quantity,
        **more,
    }


def reserve_group(*entries: dict[str, Any]) -> dict[str, Any]:
    """Return a batch's group that reserves."""
    return {"call": "reserve", "entries": list(entries)}


def decide_group(call: str, *reservation_ids: str) -> dict[str, Any]:
    """Return a batch's group that commits or releases."""
    return {"call": call, "entries": [{"reservation_id": one} for one in reservation_ids]}
