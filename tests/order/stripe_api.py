"""A local stand-in for api.stripe.com: Checkout Sessions and Refunds as Stripe documents them."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl

SESSIONS = "/v1/checkout/sessions"
REFUNDS = "/v1/refunds"
EXPIRES_SECONDS_MIN = 30 * 60


class StripeApi:
    """Keeps sessions and refunds by idempotency key as Stripe does; a context manager.

    ``fail(status, error)`` lets the next call be refused; ``hang(seconds)`` answers late.
    """

    def __init__(self) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.sessions: dict[str, dict[str, Any]] = {}
        self.refunds: list[dict[str, Any]] = []
        self._by_key: dict[str, dict[str, Any]] = {}
        self._failure: tuple[int, dict[str, Any]] | None = None
        self._hang_seconds = 0.0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def fail(self, status: int, **error: Any) -> None:
        self._failure = (status, {"error": {"message": "Refused.", **error}})

    def hang(self, seconds: float) -> None:
        self._hang_seconds = seconds

    def pay(self, session_id: str) -> None:
        """Be the buyer who pays on Stripe's page."""
        self.sessions[session_id] |= {
            "status": "complete",
            "payment_status": "paid",
            "payment_intent": f"pi_{session_id}",
        }

    def __enter__(self) -> StripeApi:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(
        self, method: str, path: str, headers: dict[str, str], form: dict[str, str]
    ) -> tuple[int, dict[str, Any]]:
        self.requests.append((f"{method} {path}", headers, form))
        time.sleep(self._hang_seconds)
        if self._failure is not None:
            failure, self._failure = self._failure, None
            return failure
        key = headers.get("idempotency-key", "")
        if method == "POST" and key in self._by_key:
            return 200, self._by_key[key]
        if (method, path) == ("POST", SESSIONS):
            if int(form["expires_at"]) < time.time() + EXPIRES_SECONDS_MIN:
                message = "`expires_at` must be at least 30 minutes from creation."
                error = {"type": "invalid_request_error", "param": "expires_at"}
                return 400, {"error": error | {"message": message}}
            return 200, self._remember(key, self._new_session(form))
        if (method, path) == ("POST", REFUNDS):
            self.refunds.append({"id": f"re_{len(self.refunds)}", "object": "refund"} | form)
            return 200, self._remember(key, self.refunds[-1])
        session = self.sessions[path.removeprefix(f"{SESSIONS}/").removesuffix("/expire")]
        if path.endswith("/expire"):
            if session["status"] != "open":
                message = 'Only Checkout Sessions with a status in ["open"] can be expired.'
                return 400, {"error": {"type": "invalid_request_error", "message": message}}
            session["status"] = "expired"
        return 200, session

    def _remember(self, key: str, answer: dict[str, Any]) -> dict[str, Any]:
        self._by_key[key] = dict(answer)
        return answer

    def _new_session(self, form: dict[str, str]) -> dict[str, Any]:
        number = len(self.sessions)
        lines = [name.split("[")[1].rstrip("]") for name in form if name.endswith("[unit_amount]")]
        total = sum(
            int(form[f"line_items[{line}][price_data][unit_amount]"])
            * int(form[f"line_items[{line}][quantity]"])
            for line in lines
        )
        session_id = f"cs_test_{number}"
        self.sessions[session_id] = {
            "id": session_id,
            "object": "checkout.session",
            "amount_total": total,
            "currency": form["line_items[0][price_data][currency]"],
            "expires_at": int(form["expires_at"]),
            "metadata": {"payment_id": form["metadata[payment_id]"]},
            "mode": "payment",
            "payment_intent": None,
            "payment_status": "unpaid",
            "status": "open",
            "url": f"https://checkout.stripe.com/c/pay/{session_id}",
        }
        return self.sessions[session_id]


def event(session: dict[str, Any], kind: str, event_id: str = "evt_1", **changes: Any) -> bytes:
    """Return the body of a webhook about a session."""
    return json.dumps(
        {
            "id": event_id,
            "object": "event",
            "api_version": "2025-03-31.basil",
            "created": int(time.time()),
            "livemode": False,
            "type": kind,
            "data": {"object": session | changes},
        }
    ).encode()


def signature(body: bytes, secret: str, *, age_seconds: int = 0) -> str:
    """Return the Stripe-Signature header as documented: HMAC-SHA256 of "<t>.<body>"."""
    sent_at = int(time.time()) - age_seconds
    mac = hmac.new(secret.encode(), f"{sent_at}.".encode() + body, hashlib.sha256)
    return f"t={sent_at},v1={mac.hexdigest()}"


def _handler(api: StripeApi) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = self.path.partition("?")[0]
            status, body = api.answer(
                self.command, path, headers, dict(parse_qsl(content.decode()))
            )
            sent = json.dumps(body).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(sent)))
                self.end_headers()
                self.wfile.write(sent)
            except BrokenPipeError:
                pass

        do_GET = do_POST = answer

    return Handler
