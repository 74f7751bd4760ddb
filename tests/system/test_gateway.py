"""The edge of the real system: what is let in, what is refused, and how that is said."""

from __future__ import annotations

import http.client
import json
import socket
from urllib.parse import urlsplit

import pytest

from tests.system.client import LIMITED_ADDRESS, Client
from tests.system.shop import Shop, outcome

UNROUTED = (
    "/auth/login",
    "/auth/auth/login",
    "/api/auth/auth/login",
    "/nothing/here",
    "/api",
    "/api/orders/",
    "/admin/",
    "/metrics",
    "/.env",
    "/internal/inventory/holds",
    "/internal/inventory/reservations:batch",
    "/internal/catalog/tickets/1/offer",
    "/internal/order/openapi.json",
    "/internal/gateway/authorize",
    "/api/../internal/inventory/holds",
    "//internal/inventory/holds",
)


@pytest.mark.parametrize("path", UNROUTED)
def test_what_is_not_in_the_route_table_is_a_404_problem_even_for_an_admin(
    shop: Shop, path: str
) -> None:
    for method in ("GET", "POST"):
        reply = shop.admin.call(method, path, b"{}" if method == "POST" else None)
        assert (reply.status, reply.code) == (404, "not_found")


def test_internal_endpoints_are_routed_to_nobody_but_exist(stack, shop: Shop) -> None:
    path = "/internal/inventory/openapi.json"
    assert Client(stack.service_url("inventory")).get(path).status == 200
    assert shop.visitor.get(path).status == 404
    # Also beside nginx they want a service's token: an admin's is not enough.
    direct = Client(stack.service_url("inventory"), shop.admin.token)
    assert direct.get("/internal/inventory/holds").status in (401, 403)


def test_every_service_verifies_the_token_itself(stack, shop: Shop) -> None:
    buyer = shop.buyer()
    broken = buyer.token[:-8] + "AAAAAAAA"
    for service, path in (("order", "/api/orders"), ("auth", "/api/auth/me")):
        direct = stack.service_url(service)
        assert Client(direct, buyer.token).get(path).status == 200
        assert Client(direct, broken).get(path).status == 401
        # What nginx would never let through is worth nothing here either.
        assert Client(direct).get(path, headers={"X-User-Id": "1"}).status == 401


def test_trace_and_unknown_methods_are_refused(shop: Shop) -> None:
    for method in ("TRACE", "PROPFIND", "DELETE"):
        reply = shop.admin.call(method, "/api/orders")
        assert (reply.status, reply.code) == (405, "method_not_allowed")


def test_a_body_of_a_megabyte_is_a_413_problem(shop: Shop) -> None:
    body = json.dumps({"items": "x" * 1_000_000}).encode()
    for client, path in (
        (shop.buyer(), "/api/orders"),
        (shop.visitor, "/api/auth/login"),
        (shop.visitor, "/api/payments/webhooks/sandbox"),
    ):
        reply = client.post(path, body, key="k")
        assert (reply.status, reply.code) == (413, "body_too_large")


def test_broken_http_gets_a_problem_too(shop: Shop) -> None:
    parts = urlsplit(shop.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as raw:
        raw.sendall(b"GET /api/orders HTTP/1.1\r\n\r\n")
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(body)["code"] == "bad_request"


def test_a_flood_of_logins_or_registrations_is_a_429_whatever_address_it_claims(
    shop: Shop,
) -> None:
    stranger = Client(shop.url, source=LIMITED_ADDRESS)
    for path in ("/api/auth/login", "/api/auth/register"):
        replies = [
            stranger.post(
                path, {}, headers={"X-Forwarded-For": f"10.1.0.{n}", "X-Real-IP": f"10.1.0.{n}"}
            )
            for n in range(60)
        ]
        limited = [reply for reply in replies if reply.status == 429]
        assert limited, [reply.status for reply in replies]
        assert limited[0].code == "rate_limited"
        assert int(limited[0].headers["retry-after"]) >= 1
        assert {reply.status for reply in replies} <= {400, 429}
    # The shop does not suffer from it, from there or from anywhere else.
    assert stranger.get("/api/catalog/events").status == 200
    assert shop.visitor.post("/api/auth/login", {}).status == 400
    assert Client(shop.url, shop.buyer().token, LIMITED_ADDRESS).get("/api/orders").status == 200


def test_guessing_one_password_ends_soon_from_wherever(shop: Shop) -> None:
    name = shop.register()
    guess = {"username": name, "password": "wrong guess 1"}
    answers = [outcome(shop.visitor.post("/api/auth/login", guess)) for _ in range(14)]
    assert answers[0] == "401 invalid_credentials"
    assert answers[-1] == "429 rate_limited"


def test_people_are_sent_to_the_login_and_programs_told(shop: Shop) -> None:
    person = {"Accept": "text/html"}
    sent = shop.visitor.get("/orders", headers=person)
    assert (sent.status, sent.headers["location"]) == (302, "/login?next=/orders")
    told = shop.visitor.get("/api/orders")
    assert (told.status, told.code) == (401, "not_authenticated")
    lost = shop.visitor.get("/nothing/here", headers=person)
    assert (lost.status, lost.headers["content-type"]) == (404, "text/html; charset=utf-8")


def test_answers_carry_the_security_headers_once(shop: Shop) -> None:
    parts = urlsplit(shop.url)
    for path in ("/", "/login", "/api/catalog/events", "/api/orders", "/nothing"):
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        connection.request("GET", path)
        response = connection.getresponse()
        names = [name.lower() for name, _ in response.getheaders()]
        for name in ("x-content-type-options", "content-security-policy", "x-request-id"):
            assert names.count(name) == 1, (path, name)
        assert "server" not in names or "/" not in (response.headers["Server"] or "")
        connection.close()
