"""A lean HTTP/1.1 client for many connections: what `demo` and `bench` press with."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 15.0
HEADER_END = b"\r\n\r\n"


@dataclass(frozen=True)
class Reply:
    """An answer; status 0 means that none came (lost connection or timeout)."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON; an empty object when it is something else."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def code(self) -> str:
        """The machine-readable code of a problem+json."""
        data = self.json()
        return str(data.get("code", "")) if isinstance(data, dict) else ""


NO_REPLY = Reply(0, {}, b"")


class Client:
    """One kept-alive connection, one request at a time; connects again when it was closed."""

    def __init__(self, base_url: str, token: str = "") -> None:
        parts = urlsplit(base_url)
        self._host, self._port = parts.hostname or "", parts.port or 80
        self._common = f"Host: {parts.netloc}\r\nAccept: application/json\r\n"
        if token:
            self._common += f"Authorization: Bearer {token}\r\n"
        self._exchange: _Exchange | None = None

    async def get(self, path: str) -> Reply:
        return await self.request("GET", path)

    async def post(self, path: str, data: Any, key: str = "") -> Reply:
        return await self.request("POST", path, json.dumps(data).encode(), key)

    async def request(self, method: str, path: str, body: bytes = b"", key: str = "") -> Reply:
        """Send a request and return its reply, or NO_REPLY."""
        head = f"{method} {path} HTTP/1.1\r\n{self._common}"
        if key:
            head += f"Idempotency-Key: {key}\r\n"
        if method != "GET":
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        try:
            async with asyncio.timeout(TIMEOUT_SECONDS):
                exchange = await self._connected()
                return await exchange.send(head.encode() + b"\r\n" + body)
        except (OSError, TimeoutError):
            self.close()
            return NO_REPLY

    def close(self) -> None:
        if self._exchange is not None:
            self._exchange.abort()
            self._exchange = None

    async def _connected(self) -> _Exchange:
        if self._exchange is None or self._exchange.closed:
            loop = asyncio.get_running_loop()
            _, self._exchange = await loop.create_connection(_Exchange, self._host, self._port)
        return self._exchange


class _Exchange(asyncio.Protocol):
    """Reads replies of a known or chunked length; no stream objects, which would cost more."""

    def __init__(self) -> None:
        self.closed = False
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._waiting: asyncio.Future[Reply] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        parsed = _parse(self._buffer)
        if parsed is not None:
            reply, self._buffer = parsed
            if reply.headers.get("connection", "").lower() == "close":
                self.abort()
            if self._waiting is not None and not self._waiting.done():
                self._waiting.set_result(reply)

    def connection_lost(self, error: Exception | None) -> None:
        self.closed = True
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(ConnectionError("closed before the reply"))

    def send(self, request: bytes) -> asyncio.Future[Reply]:
        self._waiting = asyncio.get_running_loop().create_future()
        assert self._transport is not None
        self._transport.write(request)
        return self._waiting

    def abort(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()


def _parse(data: bytes) -> tuple[Reply, bytes] | None:
    """Return the first reply and what follows it; None while it is incomplete."""
    end = data.find(HEADER_END)
    if end < 0:
        return None
    first, *lines = data[:end].decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    status = int(first.split(" ", 2)[1])
    rest = data[end + len(HEADER_END) :]
    if headers.get("transfer-encoding", "").lower() == "chunked":
        joined = _join_chunks(rest)
        if joined is None:
            return None
        return Reply(status, headers, joined[0]), joined[1]
    length = 0 if status in (204, 304) else int(headers.get("content-length", "0"))
    if len(rest) < length:
        return None
    return Reply(status, headers, rest[:length]), rest[length:]


def _join_chunks(data: bytes) -> tuple[bytes, bytes] | None:
    chunks = []
    while True:
        line, found, data = data.partition(b"\r\n")
        if not found:
            return None
        size = int(line.split(b";")[0], 16)
        if len(data) < size + 2:
            return None
        chunks.append(data[:size])
        data = data[size + 2 :]
        if size == 0:
            return b"".join(chunks), data
