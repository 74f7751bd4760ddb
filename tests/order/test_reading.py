"""Who may see which orders: one's own, or all of them as an admin; other people's are not there."""

from __future__ import annotations

import pytest

from tests.order.driver import ORDERS

pytestmark = pytest.mark.django_db


def test_other_peoples_orders_are_not_there(ann, bob, on_sale):
    order_id = ann.place({on_sale(2): 1}).body["id"]
    payment_id = ann.pay(order_id, "sandbox_later").body["payment"]["id"]

    answers = [
        bob.order(order_id),
        bob.pay(order_id),
        bob.cancel(order_id),
        bob.cancel(order_id, key="c"),
        bob.payment(payment_id),
        bob.settle(payment_id, "captured"),
    ]

    assert {answer.status for answer in answers} == {404}
    assert bob.call("GET", ORDERS).body["count"] == 0
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"


def test_an_admin_sees_all_orders_but_pays_and_cancels_none_of_them(ann, admin, on_sale):
    order_id = ann.place({on_sale(2): 1}).body["id"]

    assert admin.order(order_id).body["id"] == order_id
    assert admin.call("GET", ORDERS).body["count"] == 1
    assert admin.pay(order_id).status == 404
    assert admin.cancel(order_id).status == 404


def test_the_list_comes_in_pages_newest_first_and_by_status(ann, on_sale):
    ticket = on_sale(10)
    ids = [ann.place({ticket: 1}, key=f"k{n}").body["id"] for n in range(5)]
    ann.cancel(ids[2])

    page = ann.call("GET", f"{ORDERS}?page_size=2").body
    cancelled = ann.call("GET", f"{ORDERS}?status=CANCELLED").body
    waiting = ann.call("GET", f"{ORDERS}?status=AWAITING_PAYMENT").body

    assert (page["count"], page["previous"]) == (5, None)
    assert "page=2" in page["next"]
    assert [order["id"] for order in page["results"]] == [ids[4], ids[3]]
    assert [order["id"] for order in cancelled["results"]] == [ids[2]]
    assert waiting["count"] == 4


def test_a_list_takes_as_many_queries_for_one_order_as_for_ten(
    ann, on_sale, django_assert_num_queries
):
    ticket = on_sale(20)
    for n in range(10):
        ann.place({ticket: 1}, key=f"k{n}")

    with django_assert_num_queries(4):  # count, orders, items, payments
        ann.call("GET", ORDERS)


def test_the_browsable_api_shows_an_order_and_a_form_to_pay_it(ann, on_sale):
    order_id = ann.place({on_sale(2): 1}).body["id"]

    page = ann.call("GET", f"{ORDERS}/{order_id}", accept="text/html")
    form = ann.call("GET", f"{ORDERS}/{order_id}/pay", accept="text/html")
    orders = ann.call("GET", ORDERS, accept="text/html")

    assert (page.status, form.status, orders.status) == (200, 405, 200)
    assert order_id.encode() in page.body
    assert b"<form" in form.body
    assert b"<form" in orders.body


def test_the_schema_is_complete(client, recwarn):
    answer = client.get("/internal/order/openapi.json")

    paths = answer.json()["paths"]
    assert set(paths) == {
        "/api/orders",
        "/api/orders/{order_id}",
        "/api/orders/{order_id}/pay",
        "/api/orders/{order_id}/cancel",
        "/api/payments/{payment_id}",
        "/api/payments/sandbox/{payment_id}/settle",
        "/api/payments/webhooks/{provider}",
    }
    headers = {
        parameter["name"]: parameter["required"]
        for parameter in paths["/api/orders"]["post"]["parameters"]
        if parameter["in"] == "header"
    }
    assert headers == {"Idempotency-Key": True}
    assert {"201", "400", "409", "422", "503"} <= set(paths["/api/orders"]["post"]["responses"])
