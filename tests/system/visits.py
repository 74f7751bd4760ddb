"""One person's course through a shop whose processes die: every call is repeated until its answer
is a definite one, and ``told`` notes how the orders may end."""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from functools import partial
from typing import Any

from deploy.stack.supervisor import Stack
from tests.system.client import Client, Reply, insist, new_key, within
from tests.system.shop import Shop
from tests.system.storm import Acknowledged

# Every death that a call meets costs it the lease of its key, and what is left to a sweeper waits
# for one that lives: in time it has to be when the faults have stopped (test_failpoints.py).
CRASHING_SECONDS_MAX = 180.0
# A hold that nobody has made use of for so long may be given back (services/order/orphans.py).
UNCLAIMED_SECONDS = 30.0


@dataclass(frozen=True)
class Visit:
    """What one buyer's course through the shop needs."""

    stack: Stack
    shop: Shop
    ticket: int
    buyer: Client
    told: Acknowledged

    def me(self) -> str:
        return str(insist(lambda: self.buyer.get("/api/auth/me")).require(200)["id"])

    def order(self, key: str = "", quantity: int = 1) -> str | None:
        """Order; None when the purchase was torn and is refused for good."""
        order = partial(self.buyer.order, self.ticket, quantity=quantity, key=key or new_key())
        reply = insist(order, CRASHING_SECONDS_MAX)
        if reply.status == 409:
            assert reply.code == "order_interrupted", reply
            return None
        return str(reply.require(201)["id"])

    def pay(self, order: str, method: str = "sandbox_ok", key: str = "") -> Reply:
        key = key or new_key()
        return insist(lambda: self.buyer.pay(order, method, key), CRASHING_SECONDS_MAX)

    def cancel(self, order: str) -> None:
        """Cancel, and note what was answered."""
        answer = insist(lambda: self.buyer.cancel(order), CRASHING_SECONDS_MAX)
        self.told.add_answer(self.buyer, order, answer)

    def pending_payment(self, order: str | None) -> str | None:
        """Begin a payment whose money comes later; None where it was too late even for that."""
        if order is None:
            return None
        begun = self.pay(order, "sandbox_later")
        if begun.status != 200:
            self.told.add_answer(self.buyer, order, begun)
            return None
        return str(begun.json["payment"]["id"])

    def settle(self, payment: str) -> None:
        """Let the provider say that the money came, until the shop has taken notice."""
        path = f"/api/payments/sandbox/{payment}/settle"
        insist(
            lambda: self.buyer.post(path, {"outcome": "captured"}), CRASHING_SECONDS_MAX
        ).require(200)

    def tell_of_money(
        self, payment: str, amount: int, currency: str, nonce: str = "", status: int = 200
    ) -> None:
        """Deliver the provider's own webhook, whether or not the shop knows the payment yet."""
        notice = {
            "payment_id": payment,
            "outcome": "captured",
            "amount": amount,
            "currency": currency,
            "reference": f"sandbox_{payment}",
        }
        body = json.dumps(notice).encode()
        secret = self.stack.env["SANDBOX_WEBHOOK_SECRET"].encode()
        sent_at, nonce = int(time.time()), nonce or secrets.token_urlsafe(12)
        signed = f"{sent_at}.{nonce}.".encode() + body
        mac = hmac.new(secret, signed, hashlib.sha256).hexdigest()
        headers = {"Sandbox-Signature": f"t={sent_at},n={nonce},v1={mac}"}
        path = "/api/payments/webhooks/sandbox"
        deliver = partial(self.shop.visitor.post, path, body, headers=headers)
        insist(deliver, CRASHING_SECONDS_MAX).require(status)

    def lose_hold(self, order: str) -> None:
        """Give the order's hold back behind its back."""
        query = f"/api/inventory/reservations?order_id={order}"
        held = insist(lambda: self.shop.admin.get(query), CRASHING_SECONDS_MAX).require(200)
        [hold] = held["results"]
        release = f"/api/inventory/reservations/{hold['reservation_id']}/release"
        insist(lambda: self.shop.admin.post(release), CRASHING_SECONDS_MAX).require(200)

    def shown(self, order: str) -> dict[str, Any]:
        """Return the order as its buyer sees it."""
        read = partial(self.buyer.get, f"/api/orders/{order}")
        document: dict[str, Any] = insist(read, CRASHING_SECONDS_MAX).require(200)
        return document

    def await_status(self, order: str, *states: str) -> str:
        read = lambda: str(self.shown(order)["status"])  # noqa: E731
        return within(CRASHING_SECONDS_MAX, read, lambda status: status in states)

    def await_units(self, order: str, since: float) -> None:
        """Wait until money that came at ``since`` has got the order its lost units once more.

        Only where that took so long that they may have been given back as nobody's, the money may
        have been given back instead.
        """
        status = self.await_status(order, "CONFIRMED", "EXPIRED")
        taken = time.monotonic() - since
        assert status == "CONFIRMED" or taken > UNCLAIMED_SECONDS, f"refunded after {taken:.1f} s"
        self.told.add(self.buyer, order, status)

    def await_refund(self, payment: str) -> None:
        def status() -> str:
            shown = insist(lambda: self.buyer.get(f"/api/payments/{payment}"), CRASHING_SECONDS_MAX)
            return str(shown.require(200)["status"])

        within(CRASHING_SECONDS_MAX, status, "REFUNDED")
