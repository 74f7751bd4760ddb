"""A relay in a process of its own, which can be stopped and killed; also the program that it runs.

    python -m tests.common.relay_process LEASE_SECONDS [stop]

With ``stop`` it stops itself (SIGSTOP) once, between picking its first events and sending them.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS_MAX = 30.0


class RelayProcess:
    """Runs from ``with`` on; killed at its end."""

    def __init__(self, lease_seconds: float, *arguments: str) -> None:
        self._argv = [sys.executable, "-m", __name__, str(lease_seconds), *arguments]
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> RelayProcess:
        environment = {**os.environ, "INVENTORY_DATABASE_URL": _test_database_url()}
        self._process = subprocess.Popen(self._argv, cwd=ROOT, env=environment)
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)

    def terminate(self) -> None:
        """End it as an operator would, and wait until it has."""
        assert self._process is not None
        self._process.terminate()
        self._process.wait(20)

    def go_on(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def wait_until_stopped(self) -> None:
        deadline = time.monotonic() + START_SECONDS_MAX
        while Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            assert time.monotonic() < deadline, "the relay does not come to the point"
            time.sleep(0.02)


def _test_database_url() -> str:
    """Return the address of the database that this test runs in."""
    from django.db import connection

    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    address, _, options = os.environ["INVENTORY_DATABASE_URL"].partition("?")
    return f"{address.rpartition('/')[0]}/{name}?{options}"


def main(lease_seconds: float, *, stop: bool) -> None:
    import django

    django.setup()
    from common.events import relay
    from common.events.transport import connect
    from common.loops import Loop, run_until_signal

    relay.LEASE_SECONDS = lease_seconds
    pipe = connect()
    send = pipe.send

    def stop_then_send(*arguments: object, **more: object) -> str:
        pipe.send = send  # type: ignore[method-assign]
        # To this thread: sent to the process, it may reach another one first, and this one goes on.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
        return send(*arguments, **more)  # type: ignore[arg-type]

    if stop:
        pipe.send = stop_then_send  # type: ignore[method-assign]
    one = relay.Relay(pipe)
    run_until_signal([Loop("relay", one.step, 0.02, one.close)])


if __name__ == "__main__":
    main(float(sys.argv[1]), stop="stop" in sys.argv[2:])
