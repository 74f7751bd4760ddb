"""Where the reference design breaks its own promises: each shown to be right, from outside.

All thirteen are shown here through nginx, on the running system. Closer to the cause, with threads
stopped at the decisive moment, and on both databases:

 1, 2, 4, 5  tests/inventory/test_state_table.py, test_concurrency.py
 3           tests/inventory/test_groups.py, test_state_table.py
 6           tests/order/test_placing.py
 7           tests/inventory/test_expiry.py, tests/order/test_cancelling.py, test_faults.py;
             a whole order that is not paid: tests/system/test_commands.py
 8           tests/order/test_placing.py, tests/inventory/test_limits.py
 9, 10       tests/gateway/test_edge.py, test_limits.py; tests/catalog/test_permissions.py
 11          tests/common (outbox, relay, inbox), tests/system/test_faults.py
 12          tests/inventory/test_groups.py, tests/order/test_paying.py
 13          tests/inventory/test_stock_api.py
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from common.ids import derived_token
from deploy.stack.supervisor import Stack
from tests.system.client import Client, Reply, new_key, within
from tests.system.shop import Shop, at_once, outcome, soon

RESERVATIONS = "/api/inventory/reservations"


def reserve(shop: Shop, ticket: int, quantity: int = 1, **more: Any) -> Reply:
    body = {"reservation_id": new_key(), "ticket_id": ticket, "quantity": quantity, **more}
    return shop.admin.post(RESERVATIONS, body)


def decide(shop: Shop, reservation: str, call: str) -> Reply:
    return shop.admin.post(f"{RESERVATIONS}/{reservation}/{call}")


def test_promise_1_a_commit_of_what_was_released_or_failed_is_refused(shop: Shop) -> None:
    ticket = shop.ticket(1)
    released = reserve(shop, ticket).require(201)["reservation_id"]
    decide(shop, released, "release").require(200)
    failed = new_key()
    assert reserve(shop, ticket, 2, reservation_id=failed).code == "insufficient_stock"
    assert outcome(decide(shop, released, "commit")) == "409 reservation_already_released"
    assert outcome(decide(shop, failed, "commit")) == "409 reservation_failed"
    assert shop.stock(ticket) == (1, 0, 0)


@pytest.mark.parametrize("calls", [("release", "release"), ("release", "commit")])
def test_promise_2_decisions_at_the_same_moment_move_the_stock_once(
    shop: Shop, calls: tuple[str, str]
) -> None:
    ticket = shop.ticket(8)
    held = [reserve(shop, ticket).require(201)["reservation_id"] for _ in range(8)]
    at_once([lambda h=h, c=c: decide(shop, h, c) for h in held for c in calls])
    states = Counter(shop.admin.get(f"{RESERVATIONS}/{h}").json["status"] for h in held)
    assert shop.stock(ticket) == (states["RELEASED"], 0, states["COMMITTED"])
    assert sum(states.values()) == 8


def test_promise_3_a_refused_reservation_stays_on_record(shop: Shop) -> None:
    ticket, reservation = shop.ticket(1), new_key()
    assert reserve(shop, ticket, 2, reservation_id=reservation).status == 409
    kept = shop.admin.get(f"{RESERVATIONS}/{reservation}").require(200)
    assert kept["status"] == "FAILED"
    assert [(step["from"], step["to"]) for step in kept["transitions"]] == [("INIT", "FAILED")]


def test_promise_4_one_id_many_times_at_once_is_answered_never_a_500(shop: Shop) -> None:
    ticket, reservation = shop.ticket(5), new_key()
    replies = at_once([lambda: reserve(shop, ticket, reservation_id=reservation)] * 12)
    assert Counter(reply.status for reply in replies) == {201: 1, 200: 11}
    assert shop.stock(ticket) == (4, 1, 0)


def test_promise_5_one_id_with_another_content_is_refused(shop: Shop) -> None:
    event = shop.event()
    ticket, other = shop.ticket(5, event=event), shop.ticket(5, event=event)
    reservation = reserve(shop, ticket).require(201)["reservation_id"]
    for changed in (
        reserve(shop, ticket, 2, reservation_id=reservation),
        reserve(shop, other, 1, reservation_id=reservation),
    ):
        assert outcome(changed) == "422 reservation_mismatch"
    assert (shop.stock(ticket), shop.stock(other)) == ((4, 1, 0), (5, 0, 0))


def test_promise_6_two_people_with_the_same_key_have_two_orders(shop: Shop) -> None:
    ticket, key = shop.ticket(5), new_key()
    orders = [buyer.order(ticket, key=key).require(201) for buyer in (shop.buyer(), shop.buyer())]
    assert orders[0]["id"] != orders[1]["id"]
    assert shop.stock(ticket) == (3, 2, 0)


def test_promise_7_a_hold_that_nobody_finishes_comes_back(shop: Shop) -> None:
    ticket = shop.ticket(3)
    hold = reserve(shop, ticket, 3, ttl_seconds=1).require(201)
    assert hold["expires_at"]
    assert shop.stock(ticket) == (0, 3, 0)
    within(10, lambda: shop.stock(ticket), (3, 0, 0))
    within(2, lambda: shop.shown(ticket), 3)
    assert outcome(decide(shop, hold["reservation_id"], "commit")) == "409 reservation_expired"
    # One without a stated end has one all the same.
    assert reserve(shop, ticket).require(201)["expires_at"]


def test_promise_8_two_orders_at_once_cannot_defeat_the_limit_per_person(shop: Shop) -> None:
    ticket, buyer = shop.ticket(20, per_user_limit=2), shop.buyer()
    replies = at_once([lambda: buyer.order(ticket, quantity=2)] * 4)
    assert Counter(map(outcome, replies)) == {"201": 1, "409 limit_exceeded": 3}
    assert shop.stock(ticket) == (18, 2, 0)
    assert outcome(shop.buyer().order(ticket, quantity=2)) == "201"


def test_promise_8_limit_per_order_window_and_states_are_enforced_at_the_till(shop: Shop) -> None:
    buyer = shop.buyer()
    closed = {
        "limit_exceeded": shop.ticket(5, per_order_limit=1),
        "sale_not_open": shop.ticket(
            5, sale_ends_at=soon(seconds=-1), sale_starts_at=soon(days=-1)
        ),
    }
    for code, ticket in closed.items():
        assert outcome(buyer.order(ticket, quantity=2)) == f"409 {code}"
    off_shelf = shop.ticket(5, public=False)
    assert outcome(buyer.order(off_shelf)) in ("409 sale_not_open", "404 ticket_not_found")
    for ticket in (*closed.values(), off_shelf):
        assert shop.stock(ticket) == (5, 0, 0)
    event = shop.event()
    ended = shop.ticket(50, event=event)
    shop.admin.post(f"/api/catalog/events/{event}/end").require(200)
    # The order service hears of it by event; from then on nothing is sold.
    within(2, lambda: outcome(buyer.order(ended)), "409 sale_not_open")
    left = shop.stock(ended)
    assert outcome(shop.buyer().order(ended)) == "409 sale_not_open"
    assert shop.stock(ended) == left


def test_promise_9_admin_only_means_admin_only(shop: Shop) -> None:
    ticket, event = shop.ticket(5), shop.event()
    calls: tuple[tuple[str, str, Any], ...] = (
        ("PUT", f"/api/inventory/stocks/{ticket}", {"total": 9}),
        ("GET", f"/api/inventory/stocks/{ticket}", None),
        ("POST", f"/api/inventory/stocks/{ticket}/adjust", {"delta": 9}),
        ("POST", RESERVATIONS, {"reservation_id": "r", "ticket_id": ticket, "quantity": 1}),
        ("POST", "/api/catalog/events", {"title": "x"}),
        ("PATCH", f"/api/catalog/events/{event}", {"title": "x"}),
        ("POST", f"/api/catalog/events/{event}/publish", None),
        ("POST", f"/api/catalog/events/{event}/tickets", {"name": "x"}),
        ("PATCH", f"/api/catalog/tickets/{ticket}", {"price": 0}),
        ("POST", f"/api/catalog/tickets/{ticket}/off-shelf", None),
    )
    buyer = shop.buyer()
    for method, path, body in calls:
        assert outcome(shop.visitor.call(method, path, body)) == "401 not_authenticated"
        assert outcome(buyer.call(method, path, body)) == "403 permission_denied"
    assert shop.stock(ticket) == (5, 0, 0)


def test_promise_9_headers_are_nobodys_identity(shop: Shop) -> None:
    owner, stranger = shop.buyer(), shop.buyer()
    order = owner.order(shop.ticket(1)).require(201)["id"]
    admin_id, owner_id = (
        str(who.get("/api/auth/me").require(200)["id"]) for who in (shop.admin, owner)
    )
    names = ("X-User-Id", "X-User_Id", "X_User_Id", "x-user-id", "X-Auth-User", "Remote-User")
    for name in names:
        for claimed in (admin_id, owner_id):
            claim = {name: claimed, "X-User-Role": "admin", "X-Role": "admin", "X-Is-Admin": "1"}
            seen = stranger.get(f"/api/orders/{order}", headers=claim)
            assert (seen.status, seen.code) == (404, "order_not_found")
            nobody = shop.visitor.get("/api/orders", headers=claim)
            assert (nobody.status, nobody.code) == (401, "not_authenticated")
            assert stranger.post("/api/catalog/events", {}, headers=claim).status == 403
    me = stranger.get("/api/auth/me", headers={"X-User-Id": admin_id}).require(200)
    assert str(me["id"]) not in (admin_id, owner_id)


def test_promise_9_a_forged_forwarded_for_neither_lifts_nor_shifts_a_limit(shop: Shop) -> None:
    stranger = Client(shop.url, source="127.0.0.3")
    claims = [f"10.2.0.{n}" for n in range(40)] + ["127.0.0.1"] * 10
    answers = [
        stranger.post("/api/auth/login", {}, headers={"X-Forwarded-For": claim, "X-Real-IP": claim})
        for claim in claims
    ]
    assert answers[-1].status == 429
    # The address that it claimed to be is not made to pay for it, nor is a neighbour.
    assert shop.visitor.post("/api/auth/login", {}).status == 400
    assert Client(shop.url, source="127.0.0.4").post("/api/auth/login", {}).status == 400


def test_promise_10_the_path_that_the_docs_name_is_the_one_that_works(shop: Shop) -> None:
    login = {"username": "admin", "password": shop.admin_password}
    assert shop.visitor.post("/api/auth/login", login).status == 200
    for path in ("/auth/login", "/auth/auth/login", "/api/auth/auth/login", "/login/login"):
        assert outcome(shop.visitor.post(path, login)) == "404 not_found"


def test_promise_11_no_order_waits_for_an_event_and_late_events_are_applied(
    stack: Stack, shop: Shop
) -> None:
    ticket, buyer = shop.ticket(5), shop.buyer()
    within(2, lambda: shop.shown(ticket), 5)
    for consumer in ("catalog-loops", "order-loops"):
        stack.stop_child(consumer)
    try:
        order = buyer.order(ticket).require(201)["id"]
        buyer.pay(order).require(200)
        within(2, lambda: buyer.status_of(order), "CONFIRMED")
    finally:
        for consumer in ("catalog-loops", "order-loops"):
            stack.start_child(consumer)
    within(15, lambda: shop.shown(ticket), 4)


def test_promise_12_an_order_whose_second_item_cannot_be_sold_sells_no_first(shop: Shop) -> None:
    event = shop.event()
    tickets = [shop.ticket(5, event=event) for _ in range(3)]
    buyer, key = shop.buyer(), new_key()
    order = buyer.order(*tickets, key=key).require(201)["id"]
    user = str(buyer.get("/api/auth/me").require(200)["id"])
    decide(shop, derived_token(user, key, str(tickets[1])), "release").require(200)
    buyer.pay(order)
    # The money goes back, and with it everything that was held.
    within(15, lambda: buyer.status_of(order), lambda status: status in ("EXPIRED", "CANCELLED"))
    payments = f"/api/orders/{order}"
    within(10, lambda: [p["status"] for p in buyer.get(payments).json["payments"]], ["REFUNDED"])
    within(10, lambda: [shop.stock(ticket) for ticket in tickets], [(5, 0, 0)] * 3)


def test_promise_13_stock_can_be_added_taken_back_and_read(shop: Shop) -> None:
    ticket = shop.ticket(1)
    adjust = f"/api/inventory/stocks/{ticket}/adjust"
    shop.buyer().order(ticket).require(201)
    assert outcome(shop.buyer().order(ticket)) == "409 sold_out"
    assert shop.admin.post(adjust, {"delta": 2}).require(200)["available"] == 2
    assert outcome(shop.buyer().order(ticket)) == "201"
    assert outcome(shop.admin.post(adjust, {"delta": -2})) == "409 insufficient_stock"
    assert shop.admin.post(adjust, {"delta": -1}).require(200)["total"] == 2
    assert shop.stock(ticket) == (0, 2, 0)
