"""A stand-in between order and inventory that loses answers, hangs or refuses, when told to."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import urllib3

from common import http_client

# Longer than the caller waits.
HANG_SECONDS = http_client.READ_TIMEOUT_SECONDS + 1.0


class FaultyRoad:
    """Passes calls on to the real service, but for those that a test has planned a fault for.

    ``plan("lose", "refuse", "pass")`` decides about the next three calls: ``lose`` does the work
    and drops the answer, ``refuse`` answers 500 without doing it, ``hang`` does it and answers too
    late, ``garble`` does it and answers no JSON, ``down`` drops the call. ``before`` is called with
    every call's body before it goes on.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.calls: list[bytes] = []
        self.before: Callable[[bytes], None] = lambda body: None
        self.always = "pass"
        self._planned: list[str] = []
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def plan(self, *faults: str) -> None:
        self._planned = list(faults)

    def next_fault(self) -> str:
        with self._lock:
            return self._planned.pop(0) if self._planned else self.always

    def __enter__(self) -> FaultyRoad:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def _handler(road: FaultyRoad) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            road.calls.append(body)
            fault = road.next_fault()
            road.before(body)
            if fault == "down":
                self.close_connection = True
                return
            if fault == "refuse":
                self._answer(500, b"{}")
                return
            headers = {
                name: value
                for name, value in self.headers.items()
                if name.lower() not in ("host", "connection", "content-length")
            }
            answer = urllib3.request(
                self.command, road.target + self.path, body=body or None, headers=headers, timeout=5
            )
            if fault == "lose":
                self.close_connection = True
                return
            if fault == "garble":
                self._answer(200, b"<html>")
                return
            if fault == "hang":
                time.sleep(HANG_SECONDS)
            self._answer(answer.status, answer.data)

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = pass_on

    return Handler
