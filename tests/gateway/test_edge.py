"""Real requests through a real nginx: what reaches a service, and what is answered instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.nginx import DROPPED_HEADERS
from tests.gateway.edge import Edge, start_edge, stop_edge

Headers = dict[str, str]
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


# --- routing ---


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/api/auth/jwks.json", "auth"),
        ("/login?next=/orders", "auth"),
        ("/api/catalog/events?search=a%20b&page=2", "catalog"),
        ("/api/catalog/events/12", "catalog"),
        ("/api/catalog/tickets/7", "catalog"),
    ],
)
def test_a_path_reaches_its_service_as_it_was_sent(edge: Edge, path: str, service: str) -> None:
    answer = edge.call("GET", path)
    assert (answer.status, answer.json["service"], answer.json["path"]) == (200, service, path)


def test_a_working_path_does_not_lose_its_prefix(edge: Edge) -> None:
    """The reference stripped a prefix that the services keep: /auth/auth/login worked."""
    assert edge.call("POST", "/api/auth/login", body=b"{}").json["path"] == "/api/auth/login"
    for path in ("/auth/login", "/auth/auth/login", "/api/auth/auth/login", "/api/login"):
        assert edge.call("POST", path, body=b"{}").code == "not_found"
    assert edge.seen() == ["POST /api/auth/login"]


def test_what_is_not_listed_is_not_found_and_reaches_nobody(
    edge: Edge, bearer: Callable[..., Headers]
) -> None:
    for path in (
        *("/nope", "/api", "/api/", "/admin/", "/metrics", "/.env", "/.git/config"),
        *("/internal/inventory/holds", "/internal/inventory/reservations:batch"),
        *("/internal/gateway/authorize", "/.authorize", "/.authorize-writes"),
        *("/.problem/bad_request_json", "/static", "/static/", "/static/storefront"),
        *("/static/../secret.txt", "/static/..%2fsecret.txt", "/static../secret.txt"),
    ):
        answer = edge.call("GET", path, bearer("admin"))
        assert (answer.status, answer.code) == (404, "not_found"), path
    assert edge.seen() == []


@pytest.mark.parametrize(
    "path",
    [
        "//api/orders",
        "/api//orders",
        "/api/./orders",
        "/api/catalog/../orders",
        "/api/catalog/events/../../inventory/stocks/1",
        "/api/catalog/events/%2e%2e/%2e%2e/inventory/stocks/1",
        "/api/catalog/events/..%2f..%2finventory/stocks/1",
        "/api/catalog/events/1%2f..%2f..%2f..%2finventory%2fstocks%2f1",
        "/admin/catalog/../inventory/",
        "/admin/catalog/%2e%2e/inventory/",
        "/api/%6frders",
        "/api%2forders",
        "/api/orders%00",
        "/api/orders%0a",
        "/api/orders%20",
        "/api/orders/",
        "/api/orders;a=1",
        "/api/orders%3fa=1",
        "/api\\orders",
        "/API/ORDERS",
        "/Api/orders",
        "/api/catalog/events/%EF%BC%91",
        "/api/catalog/events/1\xff",
        "/api/catalog/events/abc",
        "/api/catalog/events/99999999999999999999",
    ],
)
def test_path_tricks_reach_nobody(edge: Edge, path: str, bearer: Callable[..., Headers]) -> None:
    token = bearer("admin")["Authorization"].encode()
    raw = edge.raw(
        b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: %s\r\n\r\n"
        % (path.encode("latin-1"), token)
    )
    head, _, body = raw.partition(b"\r\n\r\n")
    status = int(head.split()[1])
    assert status in (400, 404)
    assert json.loads(body)["code"] == {400: "bad_request", 404: "not_found"}[status]
    assert edge.seen() == []


def test_an_absolute_address_is_routed_by_its_path(edge: Edge) -> None:
    for target in (b"http://evil.example/internal/order/x", b"http://evil.example//api/orders"):
        raw = edge.raw(b"GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n" % target)
        assert raw.startswith(b"HTTP/1.1 404")
    assert edge.seen() == []


def test_methods(edge: Edge, bearer: Callable[..., Headers]) -> None:
    for method in ("TRACE", "DELETE", "PROPFIND", "GETS"):
        answer = edge.call(method, "/api/orders", bearer("admin"))
        assert (answer.status, answer.code) == (405, "method_not_allowed"), method
    assert edge.call("PUT", "/api/orders", bearer()).headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert edge.seen() == []
    # The service says itself that it knows no GET: in a browser that page has the form.
    assert edge.call("GET", "/api/auth/login").json["method"] == "GET"


# --- who may ---


def test_reading_the_catalog_needs_nobody_writing_it_an_admin(
    edge: Edge, bearer: Callable[..., Headers]
) -> None:
    path = "/api/catalog/events"
    assert edge.call("GET", path).status == 200
    assert edge.call("GET", path, {"Authorization": "Bearer junk"}).status == 200
    assert edge.call("POST", path, body=b"{}").code == "not_authenticated"
    assert edge.call("POST", path, bearer("user"), b"{}").code == "permission_denied"
    assert edge.call("POST", path, bearer("admin"), b"{}").status == 200
    assert edge.seen() == ["GET " + path, "GET " + path, "POST " + path]


def test_refusals_are_problems_that_say_why(edge: Edge, bearer: Callable[..., Headers]) -> None:
    nobody = edge.call("POST", "/api/orders", body=b"{}")
    assert (nobody.status, nobody.code) == (401, "not_authenticated")
    assert nobody.headers["www-authenticate"].startswith("Bearer")
    junk = edge.call("POST", "/api/orders", {"Authorization": "Bearer junk"}, b"{}")
    assert (junk.status, junk.code) == (401, "invalid_token")
    user = edge.call("PUT", "/api/inventory/stocks/1", bearer("user"), b"{}")
    assert (user.status, user.code) == (403, "permission_denied")
    assert edge.seen() == []


def test_worthless_tokens_reach_nobody(edge: Edge, worthless_tokens: dict[str, str]) -> None:
    for what, token in worthless_tokens.items():
        answer = edge.call("GET", "/api/orders", {"Authorization": f"Bearer {token}"})
        assert answer.status == 401, what
    assert edge.seen() == []


def test_a_browser_without_login_is_sent_to_the_login_page(
    edge: Edge, bearer: Callable[..., Headers]
) -> None:
    for path in ("/orders", "/api/orders", "/admin/inventory/inventory/stock/"):
        answer = edge.call("GET", path + "?a=1&b=2", HTML)
        assert answer.status == 302
        assert answer.headers["location"] == f"/login?next={path}%3Fa%3D1%26b%3D2"
    refused = edge.call("GET", "/admin/inventory/", HTML | bearer("user"))
    assert (refused.status, refused.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert edge.seen() == []


def test_a_webhook_is_left_to_the_service_that_knows_the_signature(edge: Edge) -> None:
    answer = edge.call("POST", "/api/payments/webhooks/sandbox", {"X-Signature": "s"}, b"{}")
    assert answer.json["headers"]["x-signature"] == "s"


def test_when_the_gateway_is_down_nothing_passes(
    edge_without_gateway: Edge, bearer: Callable[..., Headers]
) -> None:
    edge = edge_without_gateway
    edge.seen()
    for method, path in (
        *(("POST", "/api/orders"), ("GET", "/api/orders"), ("GET", "/admin/order/")),
        *(("POST", "/api/catalog/events"), ("PUT", "/api/inventory/stocks/1"), ("GET", "/")),
    ):
        answer = edge.call(method, path, bearer("admin"))
        assert (answer.status, answer.code) == (503, "service_unavailable"), (method, path)
        assert answer.headers["retry-after"] == "1"
    assert edge.seen() == []
    # What needs no decision still works.
    assert edge.call("GET", "/api/catalog/events").status == 200
    assert edge.call("POST", "/api/auth/login", body=b"{}").status == 200


# --- what a service gets to see ---


def test_claims_of_an_identity_do_not_arrive(edge: Edge, bearer: Callable[..., Headers]) -> None:
    headers = dict.fromkeys(DROPPED_HEADERS, "evil")
    headers |= {name.replace("-", "_"): "evil" for name in DROPPED_HEADERS}
    headers |= {name.upper().replace("-", "_", 1): "evil" for name in DROPPED_HEADERS}
    headers |= {"X-Real-IP": "1.1.1.1", "X-Forwarded-For": "1.1.1.1, 2.2.2.2", "X-Request-ID": "e"}
    headers |= {"X_Real_IP": "1.1.1.1", "X-Forwarded-Proto": "https", "X.User.Id": "evil"}
    answers = [
        edge.call("POST", "/api/orders", headers | bearer(), b"{}"),
        edge.call("GET", "/api/catalog/tickets/5001/availability", headers),
        edge.call("GET", "/api/catalog/events", headers),
    ]
    for answer in answers:
        arrived = answer.json["headers"]
        assert "evil" not in arrived.values()
        assert arrived["x-real-ip"] == arrived["x-forwarded-for"] == "127.0.0.1"
        assert arrived["x-forwarded-proto"] == "http"
        assert arrived["x-request-id"] == answer.headers["x-request-id"]
        assert len(arrived["x-request-id"]) == 32


def test_spoofed_originals_do_not_change_what_is_decided(edge: Edge) -> None:
    headers = {"X-Original-URI": "/", "X-Original-Method": "GET", "X-HTTP-Method-Override": "GET"}
    assert edge.call("POST", "/api/orders", headers, b"{}").status == 401
    assert edge.seen() == []


def test_the_answer_carries_each_security_header_once(edge: Edge) -> None:
    answer = edge.call("GET", "/api/catalog/events")
    assert answer.headers["x-frame-options"] == "DENY"  # the service said ALLOWALL
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "'unsafe-inline'" not in edge.call("GET", "/").headers["content-security-policy"]


# --- bad input, and services that fail ---


def test_a_large_body_is_refused_before_anybody_reads_it(
    edge: Edge, bearer: Callable[..., Headers]
) -> None:
    answer = edge.call("POST", "/api/orders", bearer(), b"x" * 1_000_000)
    assert (answer.status, answer.code) == (413, "body_too_large")
    assert edge.seen() == []
    assert edge.call("POST", "/api/orders", bearer(), b"x" * 200_000).json["body_bytes"] == 200_000


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "bad_request"),
        (b"GET /%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        (b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400, "bad_request"),
        (b"GET /?" + b"a" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri_too_long"),
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414, "uri_too_long"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"a" * 9000 + b"\r\n\r\n", 431, "headers_too_large"),
    ],
)
def test_bad_http_gets_a_problem_too(
    edge: Edge, request_bytes: bytes, status: int, code: str
) -> None:
    closing = request_bytes.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    head, _, body = edge.raw(closing).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d" % status)
    assert b"Content-Type: application/problem+json" in head
    assert json.loads(body)["code"] == code


def test_a_request_that_got_lost_is_answered_503_and_not_repeated(
    edge: Edge, bearer: Callable[..., Headers]
) -> None:
    answer = edge.call("POST", "/api/orders?hang-up", bearer(), b"{}")
    assert (answer.status, answer.code) == (503, "service_unavailable")
    assert answer.headers["retry-after"] == "1"
    assert edge.seen() == ["POST /api/orders?hang-up"]


def test_a_queue_that_is_full_refuses_at_once(
    edge: Edge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.nginx.CONNECTIONS_MAX", 2)
    small = start_edge(tmp_path, edge.services, "127.0.0.1:1")
    try:
        with ThreadPoolExecutor(5) as crowd:
            answers = list(
                crowd.map(lambda _: small.call("GET", "/api/catalog/events?slow"), range(5))
            )
    finally:
        stop_edge(small)
    assert sorted(answer.status for answer in answers) == [200, 200, 503, 503, 503]
    refused = next(answer for answer in answers if answer.status == 503)
    assert (refused.code, refused.headers["retry-after"]) == ("service_unavailable", "1")


def test_a_services_own_refusal_is_left_as_it_is(edge: Edge) -> None:
    assert edge.call("GET", "/api/catalog/events?teapot").status == 418


def test_people_get_pages_and_programs_get_problems(edge: Edge) -> None:
    page = edge.call("GET", "/nope", HTML)
    assert (page.status, page.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert b"style.css" in page.body
    assert edge.call("GET", "/nope.css", {"Accept": "*/*"}).code == "not_found"


# --- files and copies ---


def test_static_files_have_their_type_and_time_to_live(edge: Edge) -> None:
    style = edge.call("GET", "/static/storefront/style.css", {"Accept-Encoding": "gzip"})
    assert style.headers["content-type"] == "text/css"
    assert style.headers["cache-control"] == "public, max-age=300"
    assert style.headers["content-encoding"] == "gzip"
    hashed = edge.call("GET", "/static/app.0123456789ab.js")
    assert hashed.headers["cache-control"].endswith("immutable")
    assert edge.call("POST", "/static/storefront/style.css").code == "method_not_allowed"


def test_availability_is_asked_once_a_second_however_many_look(
    edge: Edge, bearer: Callable[..., Headers]
) -> None:
    path = "/api/catalog/tickets/6001/availability"
    answers = [edge.call("GET", path, bearer(user_id=n) | {"Cookie": f"c={n}"}) for n in range(20)]
    assert {answer.status for answer in answers} == {200}
    # Twenty requests may straddle the end of a second, but not two of them.
    assert len(edge.seen()) <= 2
    for answer in answers:
        assert not {"cookie", "authorization"} & answer.json["headers"].keys()
        assert "set-cookie" not in answer.headers


def test_copies_are_not_made_of_pages(edge: Edge) -> None:
    path = "/api/catalog/tickets/6002/availability"
    edge.call("GET", path, HTML)
    edge.call("GET", path, HTML)
    assert len(edge.seen()) == 2
