"""``reconcile`` on a running system: broken by hand, named, repaired by its services."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.stack.audit import look
from deploy.stack.control import process_environment
from deploy.stack.reconcile import repair
from deploy.stack.repairs import plan
from deploy.stack.supervisor import Stack
from tests.system.client import Client, within
from tests.system.conftest import private_system, shop_of
from tests.system.shop import Shop, manage_all
from tests.system.tables import hex_of, sql

# Events are compared when they are older than 5 s.
COMPARED_AFTER_SECONDS = 6.0


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """A system of its own: what is broken here must not be found by other tests."""
    with private_system() as running:
        yield running


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Shop:
    return shop_of(stack)


def reconcile(shop: Shop, *options: str) -> tuple[int, dict[str, Any]]:
    """Run it on a system in which nothing is in flight."""
    result = manage_all(shop.layout, "reconcile", "--json", "--wait", "0", *options)
    assert result.stdout, result.stderr
    return result.returncode, json.loads(result.stdout)


def cancelled_after_a_decline(shop: Shop, ticket: int) -> tuple[str, str]:
    """Return (order, its declined payment)."""
    buyer = shop.buyer()
    order = buyer.order(ticket).require(201)["id"]
    payment = buyer.pay(order, "sandbox_decline").require(200)["payment"]["id"]
    buyer.cancel(order).require(200)
    return order, payment


LONG_AGO = "2020-01-01 00:00:00"
IN_LONG = "2040-01-01 00:00:00"


def test_several_things_are_broken_and_reconcile_mends_them(shop: Shop) -> None:
    layout, ticket = shop.layout, shop.ticket(20)
    kept, captured = cancelled_after_a_decline(shop, ticket)
    _, owed = cancelled_after_a_decline(shop, ticket)
    unsettled, _ = cancelled_after_a_decline(shop, ticket)
    buyer = shop.buyer()
    bought = buyer.order(ticket, quantity=2).require(201)["id"]
    buyer.pay(bought).require(200)
    lost = buyer.order(ticket).require(201)["id"]
    within(5, lambda: shop.shown(ticket), 17)
    time.sleep(COMPARED_AFTER_SECONDS)
    code, told = reconcile(shop)
    assert (code, told["ok"], told["to_repair"], told["for_a_person"]) == (0, True, [], [])

    [[hold]] = sql(
        layout, "order", "SELECT reservation_id FROM order_item WHERE order_id = ?", hex_of(lost)
    )
    release = f"/api/inventory/reservations/{hold}/release"
    shop.admin.post(release).require(200)
    paid = "UPDATE payment SET status = ?, due_at = NULL, updated_at = ? WHERE id = ?"
    sql(layout, "order", paid, "CAPTURED", LONG_AGO, hex_of(captured))
    sql(layout, "order", paid, "REFUND_DUE", LONG_AGO, hex_of(owed))
    sql(
        layout,
        "order",
        "UPDATE `order` SET settled_at = NULL, due_at = ?, updated_at = ? WHERE id = ?",
        *(IN_LONG, LONG_AGO, hex_of(unsettled)),
    )
    sql(layout, "order", "UPDATE ticket_offer SET price = 1 WHERE ticket_id = ?", ticket)
    sql(layout, "inventory", "UPDATE ticket_label SET label = 'x' WHERE ticket_id = ?", ticket)
    sql(layout, "inventory", "UPDATE buyer_hold SET quantity = 9 WHERE quantity = 2")
    within(5, lambda: shop.shown(ticket), 18)
    sql(layout, "catalog", "UPDATE availability SET available = 7 WHERE ticket_id = ?", ticket)
    sent = "SELECT id, payload FROM outbox_event WHERE type = 'stock.changed' ORDER BY seq LIMIT 2"
    [(parked, payload), (forgotten, _)] = sql(layout, "inventory", sent)
    sql(
        layout,
        "catalog",
        "UPDATE inbox_event SET status = 'PARKED', payload = ?, error = 'e' WHERE id = ?",
        *(payload, parked),
    )
    sql(layout, "catalog", "DELETE FROM inbox_event WHERE id = ?", forgotten)

    code, told = reconcile(shop)

    assert code == 1
    named = {(one["service"], one["repair"], one["id"]) for one in told["to_repair"]}
    assert named == {
        ("order", "expire_order", lost),
        ("order", "give_money_back", kept),
        ("order", "refund_payment", owed),
        ("order", "advance_order", unsettled),
        ("catalog", "republish_offer", str(ticket)),
        ("inventory", "recount_buyer", str(ticket)),
        ("inventory", "republish_stock", str(ticket)),
        ("catalog", "retry_event", str(uuid.UUID(parked))),
        ("inventory", "resend_event", str(uuid.UUID(forgotten))),
    }
    # Looking has changed nothing.
    assert buyer.status_of(lost) == "AWAITING_PAYMENT"

    code, told = reconcile(shop, "--repair")

    assert (code, told["ok"], told["to_repair"], told["for_a_person"]) == (0, True, [], [])
    assert {(one["service"], one["repair"], one["id"]) for one in told["repaired"]} == named
    assert all(one["ok"] for one in told["repaired"])
    assert buyer.status_of(lost) == "EXPIRED"
    assert shop.stock(ticket) == (18, 0, 2)
    within(5, lambda: shop.shown(ticket), 18)
    assert "is to be refunded" in (layout.logs / "order-repair.log").read_text()
    code, told = reconcile(shop, "--repair")
    assert (code, told["repaired"]) == (0, [])
    shop.audit()


def test_what_no_loop_has_finished_is_finished_by_a_repair(stack: Stack, shop: Shop) -> None:
    """With the loops of order and inventory stopped, nothing else brings the system in order."""
    layout, ticket = stack.layout, shop.ticket(20)
    buyer: Client = shop.buyer()
    paid, cancelled, overdue = (buyer.order(ticket).require(201)["id"] for _ in range(3))
    for name in ("order-loops", "inventory-loops"):
        stack.stop_child(name)
    stack.stop_child("inventory")
    buyer.pay(paid).require(200)
    buyer.cancel(cancelled).require(200)
    stack.start_child("inventory")
    torn, stray = str(uuid.uuid4()), f"stray-{uuid.uuid4().hex}"
    hold = {"ticket_id": ticket, "quantity": 2}
    reservations = "/api/inventory/reservations"
    body = {**hold, "reservation_id": f"torn-{torn}", "order_id": torn}
    shop.admin.post(reservations, body).require(201)
    body = {**hold, "reservation_id": stray, "order_id": paid}
    shop.admin.post(reservations, body).require(201)
    sql(
        layout,
        "inventory",
        "UPDATE reservation SET created_at = ? WHERE order_id = ?",
        *(LONG_AGO, hex_of(torn)),
    )
    late = "expires_at = ? WHERE {} = ?"
    sql(
        layout,
        "inventory",
        "UPDATE reservation SET " + late.format("order_id"),
        *(LONG_AGO, hex_of(overdue)),
    )
    sql(
        layout,
        "order",
        "UPDATE `order` SET updated_at = ?, " + late.format("id"),
        *(LONG_AGO, LONG_AGO, hex_of(overdue)),
    )

    with process_environment(layout) as env:
        planned, _ = plan(look(env))
        findings = {one.violation.finding for one in planned}
        done = repair(planned, env, layout)
        again, _ = plan(look(env))

    assert findings >= {
        *("order_unsettled", "held_though_over", "hold_overdue"),
        *("torn_purchase", "hold_of_no_item"),
    }
    assert [one for one in done if not one["ok"]] == []
    # What is left is what the loops have to deliver.
    assert {one.violation.finding for one in again} <= {
        *("event_not_applied", "stock_behind", "order_unsettled"),
    }
    assert shop.stock(ticket) == (19, 0, 1)
    states = [buyer.status_of(one) for one in (paid, cancelled, overdue)]
    assert states == ["CONFIRMED", "CANCELLED", "EXPIRED"]
    for name in ("inventory-loops", "order-loops"):
        stack.start_child(name)
    shop.audit()


def test_what_only_a_person_can_decide_is_told_with_advice_and_left_alone(shop: Shop) -> None:
    layout, ticket, buyer = shop.layout, shop.ticket(5), shop.buyer()
    order = buyer.order(ticket).require(201)["id"]
    buyer.pay(order).require(200)
    within(5, lambda: buyer.status_of(order), "CONFIRMED")
    change = "UPDATE reservation SET status = ? WHERE order_id = ?"
    sql(layout, "inventory", change, "RELEASED", hex_of(order))
    try:
        result = manage_all(layout, "reconcile", "--wait", "0")
    finally:
        sql(layout, "inventory", change, "COMMITTED", hex_of(order))

    assert result.returncode == 1
    assert f"order {order} is CONFIRMED, its reservation" in result.stdout
    assert "What --repair would do:" in result.stdout
    assert "recount_buyer" in result.stdout
    assert "The buyer has paid and has no units." in result.stdout
    assert "for a person to decide." in result.stdout.splitlines()[-1]
    assert buyer.status_of(order) == "CONFIRMED"
    shop.audit()
