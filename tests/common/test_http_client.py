"""Calls between services, against real sockets: every way to fail becomes Unavailable, in time."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory

from common import http_client
from common.errors import Unavailable
from common.http_client import call_service
from common.request_id import RequestIdMiddleware
from common.tokens import principal_from
from tests.common.concurrency import times, together


class Answering(BaseHTTPRequestHandler):
    """Answers with what it was sent; ``/status/<n>`` with that status, ``/raw`` with no JSON."""

    protocol_version = "HTTP/1.1"
    connections: set[Any] = set()

    def _answer(self) -> None:
        self.connections.add(self.client_address)
        length = int(self.headers.get("Content-Length") or 0)
        received = {
            "method": self.command,
            "path": self.path,
            "headers": dict(self.headers),
            "body": self.rfile.read(length).decode(),
        }
        status = int(self.path.rpartition("/")[2]) if "/status/" in self.path else 200
        body = b"<html>" if self.path == "/raw" else json.dumps(received).encode()
        if status == 204:
            body = b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *_: Any) -> None:
        pass


class Server(ThreadingHTTPServer):
    request_queue_size = 64
    daemon_threads = True


@pytest.fixture
def order_service(settings: Any) -> Iterator[ThreadingHTTPServer]:
    """Run a tiny order service that answers."""
    server = Server(("127.0.0.1", 0), Answering)
    Answering.connections = set()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings.ORDER_URL = f"http://127.0.0.1:{server.server_port}"
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def serve(settings: Any) -> Iterator[Callable[..., None]]:
    """Return what runs an order service that treats each connection as it is told."""
    listener = socket.create_server(("127.0.0.1", 0))
    settings.ORDER_URL = f"http://127.0.0.1:{listener.getsockname()[1]}"
    open_sockets = [listener]

    def start(treat: Callable[[socket.socket], None]) -> None:
        def loop() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                open_sockets.append(client)
                client.recv(65_536)
                treat(client)

        threading.Thread(target=loop, daemon=True).start()

    yield start
    for one in open_sockets:
        one.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_client, "READ_TIMEOUT_SECONDS", 0.3)


def unavailable() -> Unavailable:
    """Call and expect to be told that order is unavailable."""
    with pytest.raises(Unavailable) as refusal:
        call_service("order", "POST", "/internal/order/x", {"a": 1})
    assert (refusal.value.status_code, refusal.value.code) == (503, "order_unavailable")
    assert refusal.value.wait == 1, "Retry-After"
    return refusal.value


def test_a_call_carries_body_token_and_request_id(order_service, settings):
    told = []

    def view(request):
        told.append(call_service("order", "POST", "/internal/order/x", {"é": [1, None]}))
        return HttpResponse()

    RequestIdMiddleware(view)(RequestFactory().get("/", headers={"X-Request-ID": "req-7"}))

    ((status, received),) = told
    assert (status, received["method"], received["path"]) == (200, "POST", "/internal/order/x")
    assert json.loads(received["body"]) == {"é": [1, None]}
    headers = received["headers"]
    assert headers["Content-Type"] == "application/json"
    assert headers["X-Request-ID"] == "req-7"
    settings.SERVICE = "order"
    caller = principal_from(headers["Authorization"].removeprefix("Bearer "))
    assert (caller.id, caller.role) == ("inventory", "service")


def test_a_query_is_encoded(order_service):
    query = {"created_before": "2026-01-01T00:00:00+00:00", "after": "a|b&c"}
    _, received = call_service("order", "GET", "/internal/order/holds", query=query)
    assert received["path"] == (
        "/internal/order/holds?created_before=2026-01-01T00%3A00%3A00%2B00%3A00&after=a%7Cb%26c"
    )


@pytest.mark.parametrize("status", [200, 201, 400, 404, 409, 422])
def test_answers_and_refusals_are_the_callers_to_read(order_service, status):
    assert call_service("order", "POST", f"/status/{status}", {})[0] == status


def test_an_answer_without_a_body_is_none(order_service):
    assert call_service("order", "POST", "/status/204", {}) == (204, None)


@pytest.mark.parametrize("status", [302, 307])
def test_a_redirect_is_not_followed(order_service, status):
    assert call_service("order", "GET", f"/status/{status}")[0] == status


def test_connections_are_used_again(order_service):
    for _ in range(5):
        call_service("order", "GET", "/x")
    assert len(Answering.connections) == 1


def test_many_threads_can_call_at_once(order_service):
    answers = together(*times(20, lambda: call_service("order", "GET", "/x")))
    assert {status for status, _ in answers} == {200}


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_trouble_of_the_other_service_is_unavailable(order_service, status):
    with pytest.raises(Unavailable) as refusal:
        call_service("order", "POST", f"/status/{status}", {})
    assert refusal.value.code == "order_unavailable"


def test_an_answer_that_is_no_json_is_unavailable(order_service):
    with pytest.raises(Unavailable):
        call_service("order", "GET", "/raw")


def test_nobody_listening_is_unavailable_at_once(settings):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings.ORDER_URL = f"http://127.0.0.1:{listener.getsockname()[1]}"
    started = time.monotonic()
    unavailable()
    assert time.monotonic() - started < 1


@pytest.mark.usefixtures("impatient")
def test_an_answer_that_does_not_come_is_unavailable_in_time(serve):
    serve(lambda client: None)
    started = time.monotonic()
    unavailable()
    assert 0.25 < time.monotonic() - started < 2


@pytest.mark.usefixtures("impatient")
def test_half_an_answer_is_unavailable(serve):
    serve(lambda client: client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"))
    unavailable()


@pytest.mark.parametrize(
    "answer",
    [b"", b"rubbish\r\n\r\n", b"HTTP/1.1 ", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"],
)
def test_a_connection_that_is_cut_is_unavailable(serve, answer):
    def cut(client):
        client.sendall(answer)
        client.close()

    serve(cut)
    unavailable()


def test_nothing_is_sent_twice(serve):
    """A repeat is the caller's decision: it alone knows whether the command may be repeated."""
    received = []

    def cut(client):
        received.append(1)
        client.close()

    serve(cut)
    unavailable()
    assert len(received) == 1


def test_a_connection_that_died_while_idle_is_replaced(order_service):
    call_service("order", "GET", "/x")
    port = order_service.server_port
    order_service.shutdown()
    order_service.server_close()
    successor = Server(("127.0.0.1", port), Answering)
    threading.Thread(target=successor.serve_forever, daemon=True).start()
    try:
        for _ in range(3):
            status = _status_or_unavailable()
            if status == 200:
                break
        assert status == 200
    finally:
        successor.shutdown()
        successor.server_close()


def _status_or_unavailable() -> int:
    try:
        return call_service("order", "GET", "/x")[0]
    except Unavailable:
        return 503
