"""Free TCP ports on the loopback address."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

from deploy.stack.errors import StackError

LOOPBACK = "127.0.0.1"
LOWEST_PORT = 12_000
EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
ATTEMPTS_MAX = 200


def free_ports(count: int) -> list[int]:
    """Return distinct free ports below the range from which the kernel serves outgoing connections.

    One from that range could be taken by any client while a dead server is being restarted.
    """
    highest = _ephemeral_start() - 1
    found: list[int] = []
    with contextlib.ExitStack() as held:
        for _ in range(ATTEMPTS_MAX):
            if len(found) == count:
                return found
            port = random.randint(LOWEST_PORT, highest)  # noqa: S311 - no secret
            listener = held.enter_context(socket.socket())
            try:
                listener.bind((LOOPBACK, port))
            except OSError:
                continue
            found.append(port)
    raise StackError(f"no {count} free ports between {LOWEST_PORT} and {highest}")


def require_free(port: int) -> None:
    """Raise StackError with the reason when nobody could listen on the port."""
    with socket.socket() as listener:
        # As nginx does: connections in TIME_WAIT do not keep the port.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((LOOPBACK, port))
            listener.listen(1)
        except PermissionError:
            raise StackError(f"port {port} needs root; choose one above 1023 with --port") from None
        except OSError:
            raise StackError(
                f"port {port} is in use by another program; choose another one with --port"
            ) from None


def _ephemeral_start() -> int:
    try:
        start = int(EPHEMERAL_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        start = 32_768
    return start if start > LOWEST_PORT + ATTEMPTS_MAX else 65_536
