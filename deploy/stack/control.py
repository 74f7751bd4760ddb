"""``down``, ``status``, ``logs``, ``reset`` (all without virtual environment) and ``manage``."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deploy.stack import venv
from deploy.stack.errors import StackError
from deploy.stack.layout import SERVICES, Layout, read_json
from deploy.stack.leftovers import FolderLock, end_leftovers, leftovers
from deploy.stack.terminal import say, table, tail

# Requests in flight, then each stage, then a database that flushes.
DOWN_SECONDS_MAX = 60.0
FOLLOW_INTERVAL_SECONDS = 0.3
KILLED = "It is not running, but its supervisor was killed and left: {}. `down` ends them."


def down(options: argparse.Namespace) -> int:
    """Stop the system of the folder, however it was started."""
    layout = Layout.default()
    if stop(layout):
        say("Stopped. The data is kept; `manage_all.py reset` deletes it.")
    else:
        say("It is not running.")
    return 0


def stop(layout: Layout) -> bool:
    """Stop a running system and what a killed one left; False when there was nothing."""
    lock = FolderLock(layout.lock)
    holder = lock.holder()
    if holder is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder, signal.SIGTERM)
        deadline = time.monotonic() + DOWN_SECONDS_MAX
        while lock.holder() == holder and time.monotonic() < deadline:
            time.sleep(0.1)
        if lock.holder() == holder:
            with contextlib.suppress(ProcessLookupError):
                os.kill(holder, signal.SIGKILL)
            time.sleep(0.2)
    ended = end_leftovers(layout)
    layout.stack_json.unlink(missing_ok=True)
    return holder is not None or bool(ended)


def status(options: argparse.Namespace) -> int:
    """Print the state of each process."""
    layout = Layout.default()
    current = current_state(layout)
    if options.json:
        say(json.dumps(current, indent=2))
    elif current["state"] == "stopped":
        left = leftovers(layout)
        say("It is not running." if not left else KILLED.format(", ".join(left)))
    else:
        say(f"{current['state']} · {current['url']} · {current['database']}\n")
        rows = [
            [
                process["name"],
                process["state"],
                str(process["pid"] or "-"),
                _duration(process["uptime_seconds"]),
                str(process["restarts"]),
            ]
            for process in current["processes"]
        ]
        say(table(["process", "state", "pid", "uptime", "restarts"], rows))
    return 0 if current["state"] == "running" else 1


def current_state(layout: Layout) -> dict[str, Any]:
    """Return the state of the system and its processes as the supervisor last wrote it."""
    written = read_json(layout.state_json)
    if FolderLock(layout.lock).holder() is None or not written:
        return {"state": "stopped", "url": None, "database": None, "processes": []}
    now = time.time()
    processes = [
        {
            "name": process["name"],
            "state": process["state"],
            "pid": process["pid"],
            "uptime_seconds": round(now - process["started_at"]) if process["started_at"] else None,
            "restarts": process["restarts"],
        }
        for process in written["processes"]
    ]
    return {**written, "processes": processes}


def logs(options: argparse.Namespace) -> int:
    """Print the last lines of the logs, and with --follow the new ones."""
    layout = Layout.default()
    paths = _log_files(layout, options.service)
    width = max(len(path.stem) for path in paths)
    for path in paths:
        for line in tail(path, options.lines):
            say(_labelled(path, line, width, len(paths)))
    if options.follow:
        for path, line in _new_lines(layout, options.service, paths):
            say(_labelled(path, line, width, len(paths)))
    return 0


def reset(options: argparse.Namespace) -> int:
    """Stop the system and delete its data, after asking."""
    layout = Layout.default()
    if not options.yes:
        question = f"Delete all data under {layout.var} (databases, orders, keys, logins)? [y/N] "
        try:
            answer = input(question)
        except EOFError:
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            say("Nothing was deleted.")
            return 1
    if layout.var.is_dir():
        stop(layout)
        lock = FolderLock(layout.lock)
        lock.acquire()
        layout.delete_data()
        lock.release()
    say(f"Deleted all data under {layout.var}.")
    return 0


def manage(options: argparse.Namespace) -> int:
    """Run a service's manage.py in the environment that it has under `up`."""
    layout = Layout.default()
    from deploy.stack.supervisor import manage_argv

    argv = manage_argv(options.service, *options.arguments)
    with process_environment(layout) as env:
        return subprocess.run(argv, env=env, check=False).returncode


@contextlib.contextmanager
def process_environment(layout: Layout) -> Iterator[dict[str, str]]:
    """Yield the environment of the processes; runs the private MySQL for it if it is stopped."""
    from deploy.stack import credentials, environment
    from deploy.stack.mysql_server import PrivateMySQL

    saved = read_json(layout.environment_json)
    running = FolderLock(layout.lock).holder() is not None
    if not saved:
        from common.keyring import ensure_keys

        layout.prepare()
        env = environment.shared_environment(
            layout,
            credentials.load_or_make(layout.secrets_json),
            caller=os.environ,
            service_urls={},
            public_url="http://127.0.0.1:8000",
            redis_urls={},
            database_urls={},
        )
        ensure_keys(Path(env["KEYS_DIR"]), (*SERVICES, "gateway"))
        yield env
        return
    env = {**venv.clean_environment(os.environ), **saved["env"]}
    if running or saved["database"] != "mysql":
        yield env
        return
    with PrivateMySQL(layout.mysql, log=layout.log("mysql")) as server:
        yield env | {
            f"{name.upper()}_DATABASE_URL": server.create_database(name) for name in SERVICES
        }


def _log_files(layout: Layout, service: str | None) -> list[Path]:
    every = sorted(layout.logs.glob("*.log"))
    chosen = [
        path
        for path in every
        if service is None or path.stem == service or path.stem.startswith(f"{service}-")
    ]
    if not chosen:
        known = ", ".join(path.stem for path in every) or "none yet"
        raise StackError(f"no log of {service or 'anything'}; there are: {known}")
    return chosen


def _new_lines(
    layout: Layout, service: str | None, known: list[Path]
) -> Iterator[tuple[Path, str]]:
    """Yield lines as they are written, also of logs that appear later; ends with Ctrl-C."""
    positions = {path: path.stat().st_size for path in known}
    while True:
        for path in _log_files(layout, service):
            start = positions.get(path, 0)
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                # A shorter file was put aside and begun anew.
                file.seek(start if start <= size else 0)
                content, _, _ = file.read().rpartition(b"\n")
                consumed = len(content) + 1 if content else 0
                positions[path] = (start if start <= size else 0) + consumed
            for line in content.decode(errors="replace").splitlines():
                yield path, line
        time.sleep(FOLLOW_INTERVAL_SECONDS)


def _labelled(path: Path, line: str, width: int, count: int) -> str:
    return line if count == 1 else f"{path.stem.ljust(width)} | {line}"


def _duration(seconds: int | None) -> str:
    if seconds is None:
        return "-"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
