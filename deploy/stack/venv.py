"""The virtual environment ``.venv``: made once, filled from the locked requirements, kept in step.

A marker inside it remembers the hash of every lock file that was installed, so that a second run
installs nothing and a changed lock installs again.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from deploy.stack import packages
from deploy.stack.errors import StackError
from deploy.stack.layout import ROOT, Layout, read_json, write_json
from deploy.stack.terminal import end_progress, say, show_progress

REQUIREMENTS = ROOT / "deploy" / "requirements"
# What a caller may have set for another Python; it must not reach ours, nor pip.
FOREIGN_VARIABLES = frozenset(
    (
        *("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONUSERBASE", "PYTHONSAFEPATH"),
        *("PYTHONPLATLIBDIR", "__PYVENV_LAUNCHER__", "DJANGO_SETTINGS_MODULE"),
        *("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PIP_CONSTRAINT"),
        *("PIP_NO_DEPS", "PIP_REQUIREMENT", "PIP_DRY_RUN"),
    )
)
# Set → sets that it contains as well.
INCLUDES = {"local": (), "mysql": (), "nats": (), "dev": ("local", "nats")}


def folder() -> Path:
    """``.venv`` beside manage_all.py, or FLASHSALE_VENV."""
    return Path(os.environ.get("FLASHSALE_VENV") or ROOT / ".venv").absolute()


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without what would make our Python load somebody else's modules."""
    return {name: value for name, value in environment.items() if name not in FOREIGN_VARIABLES}


def ensure(sets: list[str], layout: Layout) -> Path:
    """Make the environment and install the requirement sets where they are missing or changed.

    Returns the environment's Python.
    """
    venv = folder()
    with _one_at_a_time():
        if not _usable(venv):
            _create(venv, layout)
        for name in sets:
            if read_json(_marker(venv)).get(name) != lock_hash(name):
                _install(venv, name, layout)
    return venv / "bin" / "python"


def is_running(python: Path) -> bool:
    """Tell whether this process is the environment's Python already."""
    return Path(sys.prefix).resolve() == python.parent.parent.resolve()


def lock_hash(name: str) -> str:
    """Return the hash of a requirement set's lock file."""
    return hashlib.sha256((REQUIREMENTS / f"{name}.txt").read_bytes()).hexdigest()


def _marker(venv: Path) -> Path:
    return venv / "flash-sale.json"


def _identity(venv: Path) -> dict[str, object]:
    """What makes an environment unusable when it changes: its own place and the Python it is of.

    A copied folder holds scripts that point to the old place.
    """
    return {"folder": str(venv), "python": sys.version.split()[0]}


def _usable(venv: Path) -> bool:
    marker = read_json(_marker(venv))
    identity = _identity(venv)
    return (
        all(marker.get(key) == value for key, value in identity.items())
        and (venv / "bin" / "python").exists()
    )


def _create(venv: Path, layout: Layout) -> None:
    """Make the environment; one that somebody else made is filled, never emptied."""
    ours = bool(read_json(_marker(venv)).get("made")) or not _has_content(venv)
    if ours:
        packages.require("venv")
        say(f"Making the virtual environment {venv} ...")
        base = getattr(sys, "_base_executable", sys.executable)
        _run([base, "-I", "-m", "venv", "--clear", str(venv)], "making the environment", layout)
    elif not (venv / "bin" / "python").exists():
        raise StackError(f"{venv} is no virtual environment; remove it or set FLASHSALE_VENV")
    write_json(_marker(venv), {**_identity(venv), "made": ours})


def _has_content(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())


def _install(venv: Path, name: str, layout: Layout) -> None:
    path = REQUIREMENTS / f"{name}.txt"
    count = sum("==" in line for line in path.read_text().splitlines())
    if name == "mysql":
        # The only one without wheels; all others are installed without a compiler.
        packages.require("mysql-build")
        options = []
    else:
        options = ["--only-binary", ":all:"]
    pip = [str(venv / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    command = [*pip, "install", "--require-hashes", *options, "-r", str(path)]
    started = time.monotonic()
    _run(command, f"Installing {count} locked packages ({name}.txt)", layout, log="pip")
    say(f"Installed {count} locked packages ({name}.txt) in {time.monotonic() - started:.0f} s.")
    marker = read_json(_marker(venv))
    for installed in (name, *INCLUDES[name]):
        marker[installed] = lock_hash(installed)
    write_json(_marker(venv), marker)


def _run(command: list[str], what: str, layout: Layout, log: str = "venv") -> None:
    """Run quietly with a progress line; what it says goes to a log and is shown if it fails."""
    layout.logs.mkdir(parents=True, exist_ok=True)
    path = layout.log(log)
    started = time.monotonic()
    with path.open("ab") as file:
        process = subprocess.Popen(
            command,
            env=clean_environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
        try:
            while process.poll() is None:
                show_progress(f"{what} ... {time.monotonic() - started:.0f} s")
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
        finally:
            end_progress()
            if process.poll() is None:
                process.terminate()
                process.wait()
    if process.returncode != 0:
        raise StackError(f"{what} failed with exit code {process.returncode}", log=path)


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Let a second command wait until the first has installed."""
    descriptor = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
