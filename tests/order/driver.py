"""The order service as buyers see it, and inventory as an accountant would look at it."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import urllib3
from django.utils import timezone
from rest_framework.test import APIClient

from common.events.inbox import apply_event
from common.events.models import OutboxEvent
from common.ids import derived_token, derived_uuid, uuid7
from common.tokens import AccessToken, ServiceToken
from services.order.audit import audit
from services.order.models import Order, Payment
from services.order.providers import sandbox
from tests.inventory.driver import Answer, Caller

ORDERS = "/api/orders"
# Inventory's database outlives a test: no two tests may speak of the same ticket or buyer.
_numbers = itertools.count(100_001)


class Buyer(Caller):
    """A person with an account of their own."""

    def __init__(self, role: str = "user") -> None:
        self.user_id = next(_numbers)
        name = f"buyer-{self.user_id}"
        token = AccessToken.issue(user_id=self.user_id, username=name, role=role)
        super().__init__(str(token))

    def place(self, items: Any, key: str | None = "k") -> Answer:
        """Order ``{ticket: quantity}``, or send ``items`` as they are."""
        if isinstance(items, dict):
            items = [{"ticket_id": ticket, "quantity": n} for ticket, n in items.items()]
        return self.send(ORDERS, {"items": items}, key)

    def pay(self, order_id: str, method: str | None = None, key: str | None = "p") -> Answer:
        return self.send(f"{ORDERS}/{order_id}/pay", {"method": method} if method else {}, key)

    def cancel(self, order_id: str, key: str | None = None) -> Answer:
        return self.send(f"{ORDERS}/{order_id}/cancel", {}, key)

    def settle(self, payment_id: str, outcome: str, **play: str) -> Answer:
        path = f"/api/payments/sandbox/{payment_id}/settle"
        return self.call("POST", path, {"outcome": outcome} | play)

    def order(self, order_id: str) -> Answer:
        return self.call("GET", f"{ORDERS}/{order_id}")

    def payment(self, payment_id: str) -> Answer:
        return self.call("GET", f"/api/payments/{payment_id}")

    def send(self, path: str, body: Any, key: str | None) -> Answer:
        headers = {} if key is None else {"idempotency_key": key}
        return self.call("POST", path, body, **headers)


@dataclass(frozen=True)
class Inventory:
    """The real inventory, asked by its own API."""

    url: str

    def set_stock(self, ticket_id: int, total: int) -> None:
        answer = self._call("PUT", f"/api/inventory/stocks/{ticket_id}", {"total": total})
        assert answer.status in (200, 201), answer

    def stock(self, ticket_id: int) -> tuple[int, int, int]:
        """Return (available, reserved, sold)."""
        body = self._call("GET", f"/api/inventory/stocks/{ticket_id}").body
        return body["available"], body["reserved"], body["sold"]

    def release(self, reservation_id: str) -> None:
        """Give a hold back behind the order service's back, as an expiry would."""
        assert self.try_release(reservation_id)

    def try_release(self, reservation_id: str) -> bool:
        path = f"/api/inventory/reservations/{reservation_id}/release"
        return self._call("POST", path, {}).status == 200

    def statuses(self, order_id: str) -> list[str]:
        """Return what has become of an order's holds, tickets ascending."""
        found = []
        for item in Order.objects.get(pk=order_id).items.order_by("ticket_id"):
            path = f"/api/inventory/reservations/{item.reservation_id}"
            found.append(self._call("GET", path).body.get("status"))
        return found

    def holds(self) -> list[dict[str, Any]]:
        """Return everything that is held for orders."""
        soon = (timezone.now() + timedelta(minutes=1)).isoformat().replace("+00:00", "Z")
        path = f"/internal/inventory/holds?created_before={soon}"
        holds: list[dict[str, Any]] = self._call("GET", path).body["holds"]
        return holds

    def batch(self, call: str, *entries: dict[str, Any]) -> Any:
        body = {"groups": [{"call": call, "entries": list(entries)}]}
        return self._call("POST", "/internal/inventory/reservations:batch", body).body["groups"][0]

    def _call(self, method: str, path: str, body: Any = None) -> Answer:
        headers = {
            "Authorization": f"Bearer {self._token(path)}",
            "Content-Type": "application/json",
        }
        sent = None if body is None else json.dumps(body).encode()
        answer = urllib3.request(method, self.url + path, body=sent, headers=headers, timeout=5)
        return Answer(answer.status, json.loads(answer.data), dict(answer.headers))

    def _token(self, path: str) -> str:
        if path.startswith("/api/"):
            return str(AccessToken.issue(user_id=1, username="root", role="admin"))
        token = ServiceToken(issuer="order", audience="inventory")
        token["sub"] = "order"
        return str(token)


def offer(ticket_id: int, version: int = 1, **changes: Any) -> dict[str, Any]:
    """Return what the catalog says of a ticket that is on sale for 25.00 EUR."""
    now = timezone.now()
    return {
        "ticket_id": ticket_id,
        "version": version,
        "event_id": 1,
        "event_title": "Night of Stars",
        "event_status": "PUBLISHED",
        "event_starts_at": (now + timedelta(days=30)).isoformat(),
        "event_ends_at": (now + timedelta(days=30, hours=3)).isoformat(),
        "name": f"Ticket {ticket_id}",
        "price": 2500,
        "currency": "EUR",
        "per_order_limit": 10,
        "per_user_limit": None,
        "sale_starts_at": (now - timedelta(hours=1)).isoformat(),
        "sale_ends_at": None,
        "status": "ON_SALE",
    } | changes


def hear(emitter: str, event_type: str, data: dict[str, Any], event_id: Any = None) -> bool:
    """Deliver an event to the order service; False when it was applied before."""
    return apply_event(
        {
            "id": str(event_id or uuid7()),
            "source": f"/flashsale/{emitter}",
            "type": event_type,
            "data": data,
        }
    )


def deliver(body: bytes, signature: str | None = None, provider: str = "sandbox") -> Any:
    """Send a webhook; signed as the sandbox does unless a signature is given."""
    return APIClient(raise_request_exception=False).generic(
        "POST",
        f"/api/payments/webhooks/{provider}",
        body,
        "application/json",
        HTTP_SANDBOX_SIGNATURE=sandbox.sign(body) if signature is None else signature,
    )


def expired(order_id: str, number: int = 0) -> dict[str, Any]:
    """Return the data of the event that says one of an order's holds has run out."""
    item = Order.objects.get(pk=order_id).items.order_by("ticket_id")[number]
    return {
        "reservation_id": item.pk,
        "order_id": order_id,
        "ticket_id": item.ticket_id,
        "quantity": item.quantity,
    }


def order_events() -> list[str]:
    """Return the types of all events that were published, in their order."""
    return list(OutboxEvent.objects.order_by("seq").values_list("type", flat=True))


def new_ticket_id() -> int:
    return next(_numbers)


def reservation_ids(order_id: str) -> list[str]:
    """Return the ids of an order's holds, tickets ascending."""
    items = Order.objects.get(pk=order_id).items.order_by("ticket_id")
    return list(items.values_list("pk", flat=True))


def hold(
    inventory: Inventory, buyer: Buyer, ticket_id: int, quantity: int = 1, key: str = "k"
) -> str:
    """Hold units as a request would that dies before it inserts its order; return the order id."""
    user = str(buyer.user_id)
    order_id = str(derived_uuid(user, key))
    entry = {
        "reservation_id": derived_token(user, key, str(ticket_id)),
        "ticket_id": ticket_id,
        "quantity": quantity,
        "order_id": order_id,
        "buyer_id": user,
    }
    assert inventory.batch("reserve", entry)["ok"]
    return order_id


def make_due() -> None:
    """Let the time have come for the sweeper to look after everything that is unfinished."""
    past = timezone.now() - timedelta(seconds=1)
    Order.objects.filter(settled_at=None).exclude(status="AWAITING_PAYMENT").update(due_at=past)
    Payment.objects.exclude(due_at=None).update(due_at=past)


def make_overdue(order_id: str, by_seconds: float = 6) -> None:
    """Let the time to pay an order have run out."""
    past = timezone.now() - timedelta(seconds=by_seconds)
    Order.objects.filter(pk=order_id).update(expires_at=past, extended_until=None, due_at=past)


def violations() -> list[str]:
    """Return everything that the audit finds wrong; an empty list is what a test hopes for."""
    return [found["text"] for check in audit()["checks"] for found in check["violations"]]
