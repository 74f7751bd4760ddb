"""Programs that pip cannot bring: found on PATH, or installed through apt where we are root."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.terminal import say


@dataclass(frozen=True)
class Need:
    """Something the machine must have: how to see that it is there, and the packages it is in."""

    what: str
    present: Callable[[], bool]
    packages: tuple[str, ...]


def find_program(*names: str) -> str | None:
    """Return the first of the programs that exists; /usr/sbin counts also for ordinary users."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin"])
    return next((found for name in names if (found := shutil.which(name, path=path))), None)


def _programs(*names: str) -> Callable[[], bool]:
    return lambda: all(find_program(name) for name in names)


def _mysql_server() -> bool:
    if find_program("mariadbd"):
        return find_program("mariadb-install-db", "mysql_install_db") is not None
    return find_program("mysqld") is not None


def _mysql_headers() -> bool:
    return find_program("mariadb_config", "mysql_config") is not None


def _python_headers() -> bool:
    return (Path(sysconfig.get_path("include")) / "Python.h").exists()


PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
NEEDS: dict[str, tuple[Need, ...]] = {
    "venv": (
        Need(
            "Python's venv module",
            lambda: importlib.util.find_spec("ensurepip") is not None,
            (f"{PYTHON}-venv",),
        ),
    ),
    "mysql": (
        Need(
            "a MariaDB or MySQL server",
            _mysql_server,
            ("mariadb-server-core", "mariadb-client-core"),
        ),
    ),
    "mysql-build": (
        Need("a C compiler", _programs("gcc"), ("gcc", "libc6-dev")),
        Need("pkg-config", _programs("pkg-config"), ("pkg-config",)),
        Need("MariaDB's client library", _mysql_headers, ("libmariadb-dev",)),
        Need("Python's C headers", _python_headers, (f"{PYTHON}-dev",)),
    ),
    "browser": (Need("Chromium", _programs("chromium"), ("chromium",)),),
}


def missing(*groups: str) -> list[Need]:
    """Return what the machine lacks of the groups."""
    return [need for group in groups for need in NEEDS[group] if not need.present()]


def require(*groups: str) -> None:
    """Make sure that all of the groups is there; install what lacks as root, else say how."""
    lacking = missing(*groups)
    if not lacking:
        return
    wanted = [package for need in lacking for package in need.packages]
    what = " and ".join(need.what for need in lacking)
    command = f"apt-get install --no-install-recommends {' '.join(wanted)}"
    if find_program("apt-get") is None:
        raise StackError(f"{what} is missing; install it and try again (Debian: {command})")
    if os.geteuid() != 0:
        raise StackError(f"{what} is missing; run as root: {command}")
    say(f"{what[0].upper()}{what[1:]} is missing; installing through apt: {' '.join(wanted)} ...")
    _install(wanted)
    still = missing(*groups)
    if still:
        raise StackError(f"{still[0].what} is still missing after: {command}")


def _install(wanted: Iterable[str]) -> None:
    install = ["install", "--yes", "--no-install-recommends", *wanted]
    # Package lists may be absent (fresh container) or old: fetch them and try once more.
    if _apt_get(*install).returncode == 0:
        return
    _apt_get("update")
    result = _apt_get(*install)
    if result.returncode != 0:
        reason = (result.stdout.strip().splitlines() or ["no output"])[-1]
        raise StackError(f"apt-get install {' '.join(wanted)} failed: {reason}")


def _apt_get(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [find_program("apt-get") or "apt-get", "--quiet", *arguments],
        env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
