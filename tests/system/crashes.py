"""Where processes die, and what people do there: each failpoint of the code with its scenario.

A new failpoint gets a row in SCENARIOS: the course of a buyer (or an admin) that comes to it. If
none of them does, write one below; it repeats every call until the answer is a definite one, and
notes in ``told`` how its orders may end.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common.ids import derived_token, derived_uuid
from deploy.stack.supervisor import Stack
from tests.system.client import Client, Reply, insist, new_key, within
from tests.system.faults import without
from tests.system.shop import Shop
from tests.system.storm import Acknowledged

# Processes die all the time, and each death may cost a payment its idempotency lock, 15 s: how long
# things take is measured when the faults have stopped.
CALL_SECONDS_MAX = 150.0
TORN_CRASHING_SECONDS_MAX = 180.0
# Whoever has stopped it starts it again before another one stops it.
_inventory = threading.Lock()


class Failpoints:
    """The folder through which processes are told where to die (common/failpoints.py)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def arm(self, point: str, hit: int) -> None:
        """Let the process die that comes to the point for the ``hit``-th time from now on."""
        (self.folder / f"{point}.hit").unlink(missing_ok=True)
        written = self.folder / f".{point}"
        written.write_text(str(hit))
        written.rename(self.folder / point)

    def was_hit(self, point: str) -> bool:
        return (self.folder / f"{point}.hit").exists()


@dataclass(frozen=True)
class Visit:
    """What one buyer's course through the shop needs."""

    stack: Stack
    shop: Shop
    ticket: int
    buyer: Client
    told: Acknowledged

    def order(self, key: str = "") -> str | None:
        """Order one unit; None when the purchase was torn and is refused for good."""
        key = key or new_key()
        reply = insist(lambda: self.buyer.order(self.ticket, key=key), CALL_SECONDS_MAX)
        if reply.status == 409:
            assert reply.code == "order_interrupted", reply
            return None
        return str(reply.require(201)["id"])

    def pay(self, order: str, method: str = "sandbox_ok") -> Reply:
        key = new_key()
        return insist(lambda: self.buyer.pay(order, method, key), CALL_SECONDS_MAX)

    def settle(self, payment: str) -> None:
        """Let the provider say that the money came, until the shop has taken notice."""
        path = f"/api/payments/sandbox/{payment}/settle"
        insist(lambda: self.buyer.post(path, {"outcome": "captured"}), CALL_SECONDS_MAX).require(
            200
        )

    def await_refund(self, payment: str) -> None:
        def status() -> str:
            shown = insist(lambda: self.buyer.get(f"/api/payments/{payment}"), CALL_SECONDS_MAX)
            return str(shown.require(200)["status"])

        within(CALL_SECONDS_MAX, status, "REFUNDED")


def buy(visit: Visit) -> None:
    """Order and pay."""
    order = visit.order()
    if order:
        visit.told.add_answer(visit.buyer, order, visit.pay(order))


def cancel(visit: Visit) -> None:
    """Order and think better of it."""
    order = visit.order()
    if order:
        answer = insist(lambda: visit.buyer.cancel(order), CALL_SECONDS_MAX)
        visit.told.add_answer(visit.buyer, order, answer)


def pay_later(visit: Visit) -> None:
    """Order; the money comes by webhook."""
    order = visit.order()
    payment = _pending_payment(visit, order)
    if order and payment:
        visit.settle(payment)
        visit.told.add(visit.buyer, order, "CONFIRMED", "EXPIRED")


def pay_after_cancelling(visit: Visit) -> None:
    """Order, begin to pay, cancel; then the money comes all the same, and goes back."""
    order = visit.order()
    payment = _pending_payment(visit, order)
    if order and payment:
        answer = insist(lambda: visit.buyer.cancel(order), CALL_SECONDS_MAX)
        visit.told.add_answer(visit.buyer, order, answer)
        visit.settle(payment)
        visit.await_refund(payment)


def pay_for_a_lost_hold(visit: Visit) -> None:
    """Order; the hold is given back behind the order's back; then pay, and get the money back."""
    order = visit.order()
    if not order:
        return
    admin = visit.shop.admin
    query = f"/api/inventory/reservations?order_id={order}"
    [hold] = insist(lambda: admin.get(query), CALL_SECONDS_MAX).require(200)["results"]
    release = f"/api/inventory/reservations/{hold['reservation_id']}/release"
    insist(lambda: admin.post(release), CALL_SECONDS_MAX).require(200)
    paid = visit.pay(order)
    visit.told.add(visit.buyer, order, "EXPIRED")
    if paid.status == 200:
        visit.await_refund(paid.json["payment"]["id"])


def pay_without_inventory(visit: Visit) -> None:
    """Three orders are paid while inventory is away; the sweeper has to finish them."""
    orders = [order for order in (visit.order() for _ in range(3)) if order]
    with _inventory, without(visit.stack, "inventory"):
        answers = [visit.pay(order) for order in orders]
    for order, answer in zip(orders, answers, strict=True):
        visit.told.add_answer(visit.buyer, order, answer)


def tear(visit: Visit) -> None:
    """Holds of purchases that died before their orders; their buyer comes back much later."""
    me = str(insist(lambda: visit.buyer.get("/api/auth/me")).require(200)["id"])
    admin = visit.shop.admin
    holds: dict[str, str] = {}
    for _ in range(5):
        key = f"torn-{secrets.token_hex(8)}"
        holds[key] = derived_token(me, key, str(visit.ticket))
        hold = {
            "reservation_id": holds[key],
            "ticket_id": visit.ticket,
            "quantity": 1,
            "order_id": str(derived_uuid(me, key)),
            "buyer_id": me,
        }
        made = insist(partial(admin.post, "/api/inventory/reservations", hold), CALL_SECONDS_MAX)
        made.require(200, 201)
    for key, hold_id in holds.items():
        shown = partial(admin.get, f"/api/inventory/reservations/{hold_id}")
        read = partial(insist, shown, CALL_SECONDS_MAX)
        # Sweepers die all the time here: the half minute counts when the faults have stopped.
        within(
            TORN_CRASHING_SECONDS_MAX, lambda read=read: read().require(200)["status"], "RELEASED"
        )
        assert visit.order(key) is None, "what was given back is not sold under the same key"


def change_ticket(visit: Visit) -> None:
    """The catalog has news for order and inventory, and inventory has some for the catalog."""
    name = {"name": f"Seat {secrets.token_hex(4)}"}
    path = f"/api/catalog/tickets/{visit.ticket}"
    insist(lambda: visit.shop.admin.call("PATCH", path, name), CALL_SECONDS_MAX).require(200)
    buy(visit)


def _pending_payment(visit: Visit, order: str | None) -> str | None:
    """Begin a payment whose money comes later; None where it was too late even for that."""
    if order is None:
        return None
    begun = visit.pay(order, "sandbox_later")
    if begun.status != 200:
        visit.told.add_answer(visit.buyer, order, begun)
        return None
    return str(begun.json["payment"]["id"])


Scenario = Callable[[Visit], None]
# lane → failpoint → who comes to it. Lanes run beside each other, the points of one lane one after
# the other: processes that answer requests, their background loops, and what takes half a minute.
TORN = "torn"
SCENARIOS: dict[str, dict[str, Scenario]] = {
    "requests": {
        "order.place.before_reserve": buy,
        "order.place.reserved": buy,
        "order.place.before_commit": buy,
        "order.place.committed": buy,
        "order.pay.begun": buy,
        "order.pay.charged": buy,
        "order.pay.before_commit": buy,
        "order.pay.captured": buy,
        "order.commit.answered": buy,
        "order.commit.confirmed": buy,
        "order.pay.before_answer": buy,
        "order.webhook.read": pay_later,
        "order.cancel.committed": cancel,
        "order.release.before": cancel,
        "order.release.answered": cancel,
        "order.commit.lost": pay_for_a_lost_hold,
        "order.refund.before": pay_after_cancelling,
        "order.refund.given": pay_after_cancelling,
        "order.sweep.claimed": pay_without_inventory,
    },
    "loops": {
        "relay.picked": change_ticket,
        "relay.sent": change_ticket,
        "relay.marked": change_ticket,
        "consumer.received": change_ticket,
        "consumer.before_commit": change_ticket,
        "consumer.applied": change_ticket,
        "consumer.acknowledged": change_ticket,
    },
    TORN: {
        "order.orphan.stood_in": tear,
    },
}
