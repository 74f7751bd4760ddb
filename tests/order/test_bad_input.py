"""Bad input gets a problem with a code, whatever it is, and never a 500."""

from __future__ import annotations

import json

import pytest
from rest_framework.test import APIClient

from services.order.models import Order, Payment
from tests.inventory.driver import Caller
from tests.order.driver import ORDERS, Buyer

pytestmark = pytest.mark.django_db

LINE = {"ticket_id": 1, "quantity": 1}
BAD_BODIES = [
    None,
    [],
    "text",
    7,
    {},
    {"items": None},
    {"items": {}},
    {"items": []},
    {"items": [None]},
    {"items": [[]]},
    {"items": [{}]},
    {"items": [{"ticket_id": 1}]},
    {"items": [{"quantity": 1}]},
    {"items": [LINE] * 21},
    {"items": [LINE], "status": "PAID"},
    {"items": [LINE], "user_id": "1"},
    {"items": [LINE], "total": 1},
    {"items": [LINE], "expires_at": "2099-01-01T00:00:00Z"},
    {"items": [LINE | {"price": 1}]},
    {"items": [LINE | {"unit_price": 0}]},
    {"items": [{"ticket_id": 1, "quantity": 6000}, {"ticket_id": 1, "quantity": 6000}]},
    *({"items": [LINE | {"quantity": bad}]} for bad in (0, -1, 10_001, 1.5, 1e300, "1", True)),
    *({"items": [LINE | {"quantity": bad}]} for bad in (None, [], {}, 10**400, "x" * 10_000)),
    *({"items": [LINE | {"ticket_id": bad}]} for bad in (0, -1, 10**18, 2**64, "1", False, 1.0)),
    *({"items": [LINE | {"ticket_id": bad}]} for bad in (None, "", "\u0000", "1; DROP TABLE")),
]
RAW_BODIES = [
    b"",
    b"{",
    b"\xff\xfe",
    b'{"items": NaN}',
    b'{"items": [], "items": []}',
    b'{"a":' * 5000 + b"1" + b"}" * 5000,
    b"[" * 100_000,
    b'{"items": [{"ticket_id": 1' + b"0" * 5000 + b', "quantity": 1}]}',
]
BAD_KEYS = ["", " ", "a b", "a" * 65, "ключ", "a/b", "a,b", "a\tb"]


def send_raw(buyer: Buyer, path: str, body: bytes, content_type: str = "application/json", **more):
    client = APIClient(raise_request_exception=False)
    client.credentials(HTTP_AUTHORIZATION=f"Bearer {buyer.token}", HTTP_IDEMPOTENCY_KEY="k")
    return client.generic("POST", path, body, content_type, **more)


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda body: json.dumps(body)[:60])
def test_a_bad_order_is_a_400(ann, body):
    answer = ann.send(ORDERS, body, "k")

    assert (answer.status, answer.code) == (400, "validation_error")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.body["errors"]
    assert not Order.objects.exists()


@pytest.mark.parametrize("body", RAW_BODIES, ids=lambda body: repr(body[:30]))
def test_a_body_that_is_no_json_is_a_400(ann, body):
    answer = send_raw(ann, ORDERS, body)

    assert answer.status_code == 400
    assert answer.json()["code"] in ("malformed_json", "validation_error")


def test_a_large_body_is_a_413_and_another_type_a_415(ann):
    assert send_raw(ann, ORDERS, b'"' + b"x" * 2**20 + b'"').status_code == 413
    assert send_raw(ann, ORDERS, b"items=1", "application/x-www-form-urlencoded").status_code == 415
    assert send_raw(ann, ORDERS, b"<a/>", "text/xml").status_code == 415


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_a_malformed_key_is_a_400(ann, on_sale, key):
    answer = ann.place({on_sale(1): 1}, key=key)

    assert (answer.status, answer.code) == (400, "idempotency_key_invalid")


def test_a_key_is_required_to_order_and_to_pay(ann, on_sale):
    ordered = ann.place({on_sale(1): 1}, key=None)
    order_id = ann.place({on_sale(1): 1}).body["id"]
    paid = ann.pay(order_id, key=None)

    assert (ordered.status, ordered.code) == (400, "idempotency_key_required")
    assert (paid.status, paid.code) == (400, "idempotency_key_required")
    assert not Payment.objects.exists()


@pytest.mark.parametrize(
    "body",
    [
        {"method": "gold"},
        {"method": None},
        {"method": 1},
        {"method": []},
        {"method": "x" * 100_000},
        {"method": "sandbox_ok", "amount": 1},
        {"status": "PAID"},
        [],
        "sandbox_ok",
    ],
    ids=lambda body: json.dumps(body)[:40],
)
def test_a_bad_payment_is_a_400(ann, on_sale, body):
    order_id = ann.place({on_sale(1): 1}).body["id"]

    answer = ann.send(f"{ORDERS}/{order_id}/pay", body, "p")

    assert (answer.status, answer.code) == (400, "validation_error")
    assert not Payment.objects.exists()


@pytest.mark.parametrize("outcome", ["pending", "refunded", "", None, 1, [], {}], ids=repr)
def test_a_bad_settlement_is_a_400(ann, on_sale, outcome):
    order_id = ann.place({on_sale(1): 1}).body["id"]
    payment_id = ann.pay(order_id, "sandbox_later").body["payment"]["id"]

    answer = ann.settle(payment_id, outcome)

    assert (answer.status, answer.code) == (400, "validation_error")


@pytest.mark.parametrize("order_id", ["1", "x", "0" * 36, "%00", "a" * 500, "..", "null"])
def test_an_order_id_that_is_none_is_a_404(ann, order_id):
    assert ann.order(order_id).status == 404
    assert ann.pay(order_id).status == 404
    assert ann.cancel(order_id).status == 404


def test_a_status_cannot_be_cancelled_into_place(ann, on_sale):
    order_id = ann.place({on_sale(1): 1}).body["id"]

    answer = ann.send(f"{ORDERS}/{order_id}/cancel", {"status": "CONFIRMED"}, None)

    assert (answer.status, answer.code) == (400, "validation_error")
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("status=NONSENSE", 400),
        ("page=0", 404),
        ("page=x", 404),
        ("page=99999999999999999999", 404),
        ("page_size=x", 200),
        ("page_size=-1", 200),
        ("user_id=2", 200),
    ],
)
def test_a_bad_query_is_never_a_500(ann, query, status):
    assert ann.call("GET", f"{ORDERS}?{query}").status == status


def test_nobody_orders_without_a_login(on_sale):
    body = {"items": [{"ticket_id": on_sale(1), "quantity": 1}]}

    for token in (None, "x", "a.b.c", "é"):
        answer = Caller(token).call("POST", ORDERS, body, idempotency_key="k")
        assert answer.status == 401, token


def test_a_service_token_is_no_buyer(on_sale, service_token_for):
    body = {"items": [{"ticket_id": on_sale(1), "quantity": 1}]}

    answer = Caller(service_token_for("catalog")).call("POST", ORDERS, body, idempotency_key="k")

    assert (answer.status, answer.code) == (403, "permission_denied")


def test_other_methods_are_a_405(ann, on_sale):
    order_id = ann.place({on_sale(1): 1}).body["id"]

    assert ann.call("DELETE", f"{ORDERS}/{order_id}").status == 405
    assert ann.call("PATCH", f"{ORDERS}/{order_id}", {"status": "PAID"}).status == 405
    assert ann.call("GET", f"{ORDERS}/{order_id}/pay").status == 405
