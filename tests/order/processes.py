"""Other services as real processes, for the tests of the one that calls them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import urllib3

ROOT = Path(__file__).resolve().parents[2]
READY_SECONDS_MAX = 30.0
STARTS_MAX = 3


class ServiceProcess:
    """One service under gunicorn on a free port, with a database of its own; a context manager."""

    def __init__(self, name: str, **environment: str) -> None:
        self.name = name
        self._folder = tempfile.TemporaryDirectory(prefix=f"flashsale-{name}-")
        self.url = ""
        inherited = {k: v for k, v in os.environ.items() if k != "DJANGO_SETTINGS_MODULE"}
        self.environment = {
            **inherited,
            # Its database is not what is tested here.
            f"{name.upper()}_DATABASE_URL": f"sqlite:///{self._folder.name}/{name}.sqlite3",
            "WEB_WORKERS": "1",
            "WEB_THREADS": "16",
            **environment,
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> ServiceProcess:
        self.manage("migrate", "-v0")
        application = f"services.{self.name}.wsgi:application"
        config = ["-c", "deploy/gunicorn.conf.py"]
        for _ in range(STARTS_MAX):
            port = _free_port()
            self.url = f"http://127.0.0.1:{port}"
            self.environment["WEB_BIND"] = f"127.0.0.1:{port}"
            self._start([sys.executable, "-m", "gunicorn", *config, application])
            if self._is_ready():
                return self
            # Somebody else has taken the port since it was found free.
            self._processes.pop().wait()
        raise AssertionError(f"{self.name} did not start")

    def __exit__(self, *exc_info: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(20)
        self._folder.cleanup()

    def manage(self, *arguments: str) -> str:
        """Run a management command to its end and return what it printed."""
        result = subprocess.run(
            [sys.executable, f"services/{self.name}/manage.py", *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def start_loops(self) -> None:
        """Run the service's background loops until the end."""
        self._start([sys.executable, f"services/{self.name}/manage.py", "run_loops"])

    def _start(self, argv: list[str]) -> None:
        self._processes.append(subprocess.Popen(argv, cwd=ROOT, env=self.environment))

    def _is_ready(self) -> bool:
        """Wait until the service answers; False when it has ended."""
        deadline = time.monotonic() + READY_SECONDS_MAX
        while self._processes[-1].poll() is None:
            assert time.monotonic() < deadline, f"{self.name} is not ready in {READY_SECONDS_MAX} s"
            try:
                answer = urllib3.request("GET", f"{self.url}/readyz", retries=False, timeout=2)
                if answer.status == 200:
                    return self._processes[-1].poll() is None
            except urllib3.exceptions.HTTPError:
                pass
            time.sleep(0.05)
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
