"""Where a running system keeps its files, all of them under one folder (``var/``)."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("auth", "catalog", "inventory", "order")
# A unix socket's path must fit into sockaddr_un.sun_path (108 bytes with the final NUL).
SOCKET_PATH_BYTES_MAX = 107
LONGEST_SOCKET_NAME = "mysql.sock"


@dataclass(frozen=True)
class Layout:
    """The files of one system; ``Layout(folder)`` for a private one."""

    var: Path

    @classmethod
    def default(cls) -> Layout:
        """The folder named by FLASHSALE_VAR, else ``var`` beside manage_all.py."""
        return cls(Path(os.environ.get("FLASHSALE_VAR") or ROOT / "var").resolve())

    @property
    def lock(self) -> Path:
        return self.var / "stack.lock"

    @property
    def stack_json(self) -> Path:
        """Written once all is ready: addresses and logins."""
        return self.var / "stack.json"

    @property
    def state_json(self) -> Path:
        """Written at every change: processes and their states."""
        return self.var / "state.json"

    @property
    def environment_json(self) -> Path:
        """The environment of the processes, for `manage` and `audit`."""
        return self.var / "environment.json"

    @property
    def secrets_json(self) -> Path:
        return self.var / "secrets.json"

    @property
    def loaded_json(self) -> Path:
        """Which databases hold the demo sale already."""
        return self.var / "loaded.json"

    @property
    def logs(self) -> Path:
        return self.var / "logs"

    @property
    def db(self) -> Path:
        return self.var / "db"

    @property
    def keys(self) -> Path:
        return self.var / "keys"

    @property
    def redis(self) -> Path:
        return self.var / "redis"

    @property
    def mysql(self) -> Path:
        return self.var / "mysql"

    @property
    def nginx(self) -> Path:
        return self.var / "nginx"

    @property
    def static(self) -> Path:
        return self.var / "static"

    @property
    def run(self) -> Path:
        return self.var / "run"

    def prepare(self) -> None:
        """Make the folders; what holds secrets or sockets is closed to other users."""
        self.var.mkdir(parents=True, exist_ok=True)
        for folder in (self.logs, self.nginx, self.static):
            folder.mkdir(exist_ok=True)
        for folder in (self.db, self.redis, self.run):
            folder.mkdir(mode=0o700, exist_ok=True)

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def socket_folder(self) -> Path:
        """A folder (0700) whose sockets fit the path limit: ``run``, or a short temporary one."""
        if len(os.fsencode(self.run / LONGEST_SOCKET_NAME)) <= SOCKET_PATH_BYTES_MAX:
            return self.run
        return Path(tempfile.mkdtemp(prefix="flash-sale-", dir=_short_temporary_folder()))

    def delete_data(self) -> None:
        """Delete what a system makes, and nothing else that may lie in the folder."""
        for path in (self.logs, self.db, self.keys, self.redis, self.mysql, self.nginx):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.static, self.run):
            shutil.rmtree(path, ignore_errors=True)
        for path in (self.stack_json, self.state_json, self.environment_json):
            path.unlink(missing_ok=True)
        for path in (self.secrets_json, self.loaded_json, self.lock):
            path.unlink(missing_ok=True)


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in the file; empty when there is none."""
    try:
        data = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Write the object so that only its owner can read it and nobody reads half of it."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(data, file, indent=2)
        file.write("\n")
    temporary.replace(path)


def _short_temporary_folder() -> str | None:
    """The system's own when TMPDIR is a long path too."""
    room = SOCKET_PATH_BYTES_MAX - len(f"/flash-sale-12345678/{LONGEST_SOCKET_NAME}")
    return None if len(os.fsencode(tempfile.gettempdir())) <= room else "/tmp"  # noqa: S108
