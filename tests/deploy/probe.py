"""Runs a container's command as far as it goes without its servers, and tells what it read.

    python -m tests.deploy.probe RESULT COMMAND...

gunicorn checks its configuration and loads the application; a management command is looked up, and
`check --deploy` runs in its place. RESULT gets the names of the environment variables that were
looked at, as JSON. The exit code is the command's.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

read: set[str] = set()
_environ: Any = type(os.environ)
_original = _environ.__getitem__


def _recording(self: Any, key: str) -> str:
    read.add(str(key))
    return str(_original(self, key))


def run(command: list[str]) -> None:
    """Run the command in this process."""
    if command[0] == "gunicorn":
        from gunicorn.app.wsgiapp import run as gunicorn

        sys.argv = ["gunicorn", "--check-config", *command[1:]]
        gunicorn()
    elif command[:2] == ["python", "-m"]:
        sys.argv = command[2:]
        runpy.run_module(command[2], run_name="__main__", alter_sys=True)
    else:
        _manage(command[1], command[2])


def _manage(script: str, name: str) -> None:
    sys.argv = [script, "check", "--deploy", "--fail-level", "WARNING"]
    try:
        runpy.run_path(script, run_name="__main__")
    finally:
        from django.core.management import get_commands

        if name not in get_commands():
            raise SystemExit(f"{script} has no command {name}")


if __name__ == "__main__":
    result = Path(sys.argv[1])
    _environ.__getitem__ = _recording
    try:
        run(sys.argv[2:])
    finally:
        result.write_text(json.dumps(sorted(read)))
