"""A JetStream cluster of real servers on this machine, each of which can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import nats
import nats.errors
from nats.js import api
from nats.js.errors import NotFoundError

PROGRAM = Path(sys.executable).with_name("nats-server")
START_SECONDS_MAX = 30.0
ELECTION_SECONDS_MAX = 20.0
REPLICAS = 3


class Server:
    """One server with a data folder of its own."""

    def __init__(self, number: int, folder: Path, ports: list[int], routes: list[int]) -> None:
        self.name = f"n{number}"
        self.port, self.monitor, own_route = ports
        self._folder = folder / self.name
        urls = ",".join(f"nats://127.0.0.1:{port}" for port in routes)
        self._argv = [
            *(str(PROGRAM), "-a", "127.0.0.1", "-p", str(self.port), "-n", self.name),
            *("-js", "-sd", str(self._folder), "-m", str(self.monitor)),
            *("--cluster_name", "test", "--cluster", f"nats://127.0.0.1:{own_route}"),
            *("--routes", urls, "-l", str(folder / f"{self.name}.log")),
        ]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(self._argv)

    def kill(self) -> None:
        """End it as a power cut would (but for what the kernel has not written)."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def is_ready(self) -> bool:
        """Tell whether the server can serve its part of JetStream, by its own account."""
        address = f"http://127.0.0.1:{self.monitor}/healthz"
        try:
            with urllib.request.urlopen(address, timeout=1) as answer:
                return bool(json.load(answer)["status"] == "ok")
        except (OSError, ValueError):
            return False

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None


class Cluster:
    """Three servers, which keep a copy of every stream each."""

    def __init__(self, folder: Path, size: int = 3) -> None:
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.socket()) for _ in range(3 * size)]
            for one in sockets:
                one.bind(("127.0.0.1", 0))
            free = [one.getsockname()[1] for one in sockets]
        ports = [free[3 * number : 3 * number + 3] for number in range(size)]
        routes = [triple[2] for triple in ports]
        self.servers = [Server(n, folder, ports[n], routes) for n in range(size)]

    @property
    def url(self) -> str:
        return ",".join(f"nats://127.0.0.1:{server.port}" for server in self.servers)

    def start(self) -> None:
        for server in self.servers:
            server.start()
        self.wait_ready()

    def wait_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not all(server.is_ready() for server in self.servers):
            assert time.monotonic() < deadline, "the NATS cluster does not become ready"
            time.sleep(0.05)

    def wait_writable(self) -> None:
        """Wait until a stream with a copy on each server can be made and written to: a server says
        that it is ready before the others have let it have its part in elections."""
        asyncio.run(asyncio.wait_for(_write_somewhere(self.url), START_SECONDS_MAX))

    def connections_made(self) -> int:
        """Return how many connections clients have made, closed ones included."""
        total = 0
        for server in self.servers:
            address = f"http://127.0.0.1:{server.monitor}/varz"
            with urllib.request.urlopen(address, timeout=5) as answer:
                total += int(json.load(answer)["total_connections"])
        return total

    def leader(self, stream: str) -> Server:
        """Return the server that leads a stream, by its JetStream name, once one does."""
        deadline = time.monotonic() + ELECTION_SECONDS_MAX
        while not (found := self._leader(stream)):
            assert time.monotonic() < deadline, f"nobody leads {stream}"
            time.sleep(0.05)
        return found

    def _leader(self, stream: str) -> Server | None:
        for server in self.servers:
            address = f"http://127.0.0.1:{server.monitor}/jsz?streams=true&acc=$G"
            with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=1) as answer:
                accounts = json.load(answer).get("account_details", [])
                for detail in (d for one in accounts for d in one.get("stream_detail", [])):
                    leader = detail.get("cluster", {}).get("leader")
                    if detail["name"] == stream and leader:
                        return next(one for one in self.servers if one.name == leader)
        return None


async def _write_somewhere(url: str) -> None:
    name = f"probe{secrets.token_hex(4)}"
    client = await nats.connect(url.split(","), error_cb=_ignore)
    try:
        context = client.jetstream(timeout=1)
        stream = api.StreamConfig(name=name, subjects=[name], num_replicas=REPLICAS)
        for work in (
            lambda: context.add_stream(stream),
            lambda: context.publish(name, b"", timeout=1),
            lambda: context.delete_stream(name),
        ):
            await _insist(work)
    finally:
        await client.close()


async def _insist(work: Callable[[], Awaitable[object]]) -> None:
    """Repeat it until it works; who waits sets the limit."""
    while True:
        try:
            await work()
        except NotFoundError:
            # Deleted by a call whose answer was lost.
            return
        except (nats.errors.Error, TimeoutError, OSError):
            await asyncio.sleep(0.1)
        else:
            return


async def _ignore(error: Exception) -> None:
    """Servers come and go here."""


@contextlib.contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Start a cluster in the folder; at the end it is gone."""
    cluster = Cluster(folder)
    try:
        cluster.start()
        cluster.wait_writable()
        yield cluster
    finally:
        for server in cluster.servers:
            server.kill()
