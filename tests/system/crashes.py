"""Where processes die, and what people do there: each failpoint of the code with its scenario.

A new failpoint gets a row in SCENARIOS: the course of a buyer (or an admin) that comes to it. If
none of them does, write one: here, in late_courses.py (money) or in repair_courses.py.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.client import HTTPException
from pathlib import Path

import redis

from common.ids import derived_token, derived_uuid
from tests.system.client import insist, new_key, within
from tests.system.faults import without
from tests.system.late_courses import (
    pay_after_cancelling,
    pay_another_amount,
    pay_before_it_is_known,
    pay_for_a_lost_hold,
    pay_later,
    pay_too_late,
    pay_when_no_units_are_to_be_had,
)
from tests.system.repair_courses import give_back_by_repair, let_go_by_repair
from tests.system.visits import CRASHING_SECONDS_MAX, Visit

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


def buy(visit: Visit) -> None:
    """Order and pay."""
    order = visit.order()
    if order:
        visit.told.add_answer(visit.buyer, order, visit.pay(order))


def cancel(visit: Visit) -> None:
    """Order and think better of it."""
    order = visit.order()
    if order:
        visit.cancel(order)


def pay_without_inventory(visit: Visit) -> None:
    """Three orders are paid while inventory is away; the sweeper has to finish them."""
    keys = {order: new_key() for order in (visit.order() for _ in range(3)) if order}
    with _inventory, without(visit.stack, "inventory"):
        for order, key in keys.items():
            # Who gets no answer asks again when inventory is back: others wait for it as well.
            with suppress(OSError, HTTPException):
                visit.buyer.pay(order, key=key)
    for order, key in keys.items():
        visit.told.add_answer(visit.buyer, order, visit.pay(order, key=key))


def tear(visit: Visit) -> None:
    """Holds of purchases that died before their orders; their buyer comes back much later."""
    me, admin = visit.me(), visit.shop.admin
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
        made = insist(
            partial(admin.post, "/api/inventory/reservations", hold), CRASHING_SECONDS_MAX
        )
        made.require(200, 201)
    for key, hold_id in holds.items():
        shown = partial(admin.get, f"/api/inventory/reservations/{hold_id}")
        read = partial(insist, shown, CRASHING_SECONDS_MAX)
        within(CRASHING_SECONDS_MAX, lambda read=read: read().require(200)["status"], "RELEASED")
        assert visit.order(key) is None, "what was given back is not sold under the same key"


def change_ticket(visit: Visit) -> None:
    """The catalog has news for order and inventory, and inventory has some for the catalog."""
    name = {"name": f"Seat {secrets.token_hex(4)}"}
    path = f"/api/catalog/tickets/{visit.ticket}"
    insist(lambda: visit.shop.admin.call("PATCH", path, name), CRASHING_SECONDS_MAX).require(200)
    buy(visit)


def empty_the_streams(visit: Visit) -> None:
    """The pipe forgets everything that it was told, while there is news."""
    streams = redis.Redis.from_url(visit.stack.env["STREAM_URL"])
    try:
        streams.flushdb()
    finally:
        streams.close()
    change_ticket(visit)


Scenario = Callable[[Visit], None]
# lane → failpoint → who comes to it. Lanes run beside each other, the points of one lane one after
# the other: processes that answer requests (one lane, or a call would meet too many deaths), their
# background loops, commands that a person runs, and what takes half a minute.
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
        "order.cancel.committed": cancel,
        "order.release.before": cancel,
        "order.release.answered": cancel,
        "order.sweep.claimed": pay_without_inventory,
        "order.pay.inserted": pay_before_it_is_known,
        "order.webhook.kept": pay_before_it_is_known,
        "order.pay.waiting": pay_later,
        "order.extend.answered": pay_later,
        "order.webhook.read": pay_later,
        "order.webhook.refused": pay_another_amount,
        "order.webhook.booked": pay_later,
        "order.late.before_reserve": pay_too_late,
        "order.late.reserved": pay_too_late,
        "order.late.before_commit": pay_too_late,
        "order.commit.renewed": pay_for_a_lost_hold,
        "order.commit.lost": pay_when_no_units_are_to_be_had,
        "order.refund.before": pay_after_cancelling,
        "order.refund.given": pay_after_cancelling,
    },
    "loops": {
        "relay.picked": change_ticket,
        "relay.sent": change_ticket,
        "relay.marked": change_ticket,
        "relay.unmarked": empty_the_streams,
        "consumer.received": change_ticket,
        "consumer.before_commit": change_ticket,
        "consumer.applied": change_ticket,
        "consumer.acknowledged": change_ticket,
    },
    "repairs": {
        "repair.before": let_go_by_repair,
        "repair.done": give_back_by_repair,
        "order.repair.expired": let_go_by_repair,
        "order.repair.owed": give_back_by_repair,
    },
    TORN: {
        "order.orphan.stood_in": tear,
    },
}
# These bring several orders along by themselves, and stop or start whole processes for them.
ALONE = frozenset({pay_without_inventory, let_go_by_repair, give_back_by_repair})
