"""A proxy in front of MariaDB that loses COMMITs, stands still and cuts connections when told so.

It knows just enough of the protocol: a packet is three bytes of length, one of sequence, and the
payload; a command begins with sequence 0, and payload ``03 COMMIT`` is the COMMIT.
"""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Self

HEADER_BYTES = 4
COM_QUERY = 0x03
OK_PACKET = 0x00
CHUNK_BYTES = 65_536


class Fate(enum.Enum):
    """What becomes of a COMMIT."""

    PASSED_ON = "passed on"
    # The connection ends before the server hears of it: the client cannot know, it was not done.
    LOST_UNDONE = "lost before it was done"
    # The connection ends after the server's OK: the client cannot know, it was done.
    LOST_DONE = "lost after it was done"


def pass_on() -> Fate:
    """Let every COMMIT through."""
    return Fate.PASSED_ON


class MySQLProxy:
    """Listens on a socket of its own and passes on to the server's; a context manager.

    ``fate`` is asked at each COMMIT; ``fates`` counts what happened.
    """

    def __init__(self, server: Path, listen_at: Path) -> None:
        self.socket = listen_at
        self.fate: Callable[[], Fate] = pass_on
        self.fates: Counter[Fate] = Counter()
        self._server = server
        self._links: set[_Link] = set()
        self._lock = threading.Lock()
        self._flowing = threading.Event()
        self._flowing.set()
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        self._listener.bind(str(self.socket))
        self._listener.listen(512)
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):
            # Closing alone would not wake the thread that waits in accept().
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flowing.set()
        self.cut()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pass nothing on for a while, in either direction; what was sent arrives afterwards."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    def cut(self) -> int:
        """End all connections at once; returns how many there were."""
        with self._lock:
            links = list(self._links)
        for link in links:
            link.end()
        return len(links)

    def count(self, fate: Fate) -> None:
        with self._lock:
            self.fates[fate] += 1

    def wait_while_paused(self) -> None:
        self._flowing.wait()

    def forget(self, link: _Link) -> None:
        with self._lock:
            self._links.discard(link)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(str(self._server))
            except OSError:
                client.close()
                server.close()
                continue
            link = _Link(self, client, server)
            with self._lock:
                self._links.add(link)
            link.start()


class _Link:
    """One connection: a thread for what the client says, and one for what the server says."""

    def __init__(self, proxy: MySQLProxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._swallow_answer = False

    def start(self) -> None:
        for work in (self._client_speaks, self._server_speaks):
            threading.Thread(target=self._until_the_end, args=(work,), daemon=True).start()

    def end(self) -> None:
        for one in (self._client, self._server):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _until_the_end(self, work: Callable[[], None]) -> None:
        with contextlib.suppress(OSError):
            work()
        self.end()
        self._proxy.forget(self)

    def _client_speaks(self) -> None:
        with self._client, self._client.makefile("rb") as said:
            while packet := _read_packet(said):
                self._proxy.wait_while_paused()
                if _is_commit(packet):
                    fate = self._proxy.fate()
                    if fate is Fate.LOST_UNDONE:
                        self._proxy.count(fate)
                        return
                    # Before the server hears of it, so that the other thread knows in time.
                    self._swallow_answer = fate is Fate.LOST_DONE
                    if fate is Fate.PASSED_ON:
                        self._proxy.count(fate)
                self._server.sendall(packet)

    def _server_speaks(self) -> None:
        with self._server, self._server.makefile("rb") as said:
            while chunk := said.read1(CHUNK_BYTES):
                self._proxy.wait_while_paused()
                if self._swallow_answer:
                    self._swallow_answer = False
                    chunk += _rest_of_packet(said, chunk)
                    if chunk[HEADER_BYTES] == OK_PACKET:
                        self._proxy.count(Fate.LOST_DONE)
                        return
                self._client.sendall(chunk)


def _read_packet(stream: BinaryIO) -> bytes:
    """Return the next whole packet with its header; nothing when the stream is over."""
    header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return b""
    return header + stream.read(int.from_bytes(header[:3], "little"))


def _rest_of_packet(stream: BinaryIO, begun: bytes) -> bytes:
    rest = stream.read(max(0, HEADER_BYTES - len(begun)))
    length = HEADER_BYTES + int.from_bytes((begun + rest)[:3], "little")
    return rest + stream.read(max(0, length - len(begun) - len(rest)))


def _is_commit(packet: bytes) -> bool:
    is_command = packet[3] == 0 and packet[HEADER_BYTES : HEADER_BYTES + 1] == bytes([COM_QUERY])
    return is_command and packet[HEADER_BYTES + 1 :].strip(b" ;\0").upper() == b"COMMIT"
