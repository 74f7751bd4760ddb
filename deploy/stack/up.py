"""``up``: run the whole system in the foreground, or behind a supervisor of its own."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from deploy.stack import ports
from deploy.stack.errors import Interrupted, StackError
from deploy.stack.layout import ROOT, Layout, read_json
from deploy.stack.leftovers import FolderLock, end_leftovers
from deploy.stack.signals import ignore_stop_signals, raise_on_stop_signals
from deploy.stack.supervisor import Stack
from deploy.stack.terminal import end_progress, say, show_progress, table

# What the detached supervisor tells the command that waits for it.
PROGRESS, READY, FAILED = "progress", "ready", "failed"


def run(options: argparse.Namespace) -> int:
    """Start the system as the options say."""
    layout = Layout.default()
    layout.prepare()
    if options.report_to is not None:
        return _supervise_detached(options, layout)
    if options.detach:
        return _detach(options, layout)
    return _foreground(options, layout)


def _foreground(options: argparse.Namespace, layout: Layout) -> int:
    started = time.monotonic()

    def ready() -> None:
        _show_summary(layout, time.monotonic() - started)
        say("\nCtrl-C stops everything.")

    code = _supervise(
        options, layout, report=lambda text: show_progress(f"{text} ..."), ready=ready
    )
    say("Stopped. The data is kept; `manage_all.py reset` deletes it.")
    return code


def _supervise(
    options: argparse.Namespace,
    layout: Layout,
    *,
    report: Callable[[str], None],
    ready: Callable[[], None],
) -> int:
    """Run the system until a signal asks us to stop."""
    stack = Stack(
        layout.var,
        database=options.database,
        port=options.port,
        env=os.environ,
        demo=not options.no_demo,
        report=report,
    )
    raise_on_stop_signals()
    try:
        stack.start()
        end_progress()
        ready()
        with contextlib.suppress(Interrupted):
            while True:
                signal.pause()
        return 0
    finally:
        ignore_stop_signals()
        show_progress("Stopping ...")
        stack.stop()
        end_progress()


def _detach(options: argparse.Namespace, layout: Layout) -> int:
    """Start the supervisor in a session of its own; return once it is ready, or tell why not."""
    # Said here, so that the usual mistakes need no look into a log.
    lock = FolderLock(layout.lock)
    lock.acquire()
    end_leftovers(layout)
    lock.release()
    ports.require_free(options.port)
    started = time.monotonic()
    reader, writer = os.pipe()
    log = layout.log("supervisor")
    argv = [sys.executable, str(ROOT / "manage_all.py"), "up", "--report-to", str(writer)]
    argv += ["--database", options.database, "--port", str(options.port)]
    argv += ["--no-demo"] if options.no_demo else []
    with log.open("ab") as output:
        supervisor = subprocess.Popen(
            argv,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            pass_fds=[writer],
        )
    os.close(writer)
    try:
        raise_on_stop_signals()
        _follow(reader, layout)
    except Interrupted:
        supervisor.terminate()
        supervisor.wait()
        raise
    end_progress()
    _show_summary(layout, time.monotonic() - started)
    say("\nRunning in the background; `manage_all.py down` stops it.")
    return 0


def _follow(reader: int, layout: Layout) -> None:
    """Show the supervisor's progress until it is ready; StackError if it is not going to be."""
    with os.fdopen(reader) as lines:
        for line in lines:
            kind, _, text = line.rstrip("\n").partition(" ")
            if kind == READY:
                return
            if kind == FAILED:
                end_progress()
                path, _, message = text.partition(" ")
                raise StackError(
                    message, log=Layout(layout.var).logs / path if path != "-" else None
                )
            show_progress(f"{text} ...")
    end_progress()
    raise StackError("the supervisor ended without a word", log=layout.log("supervisor"))


def _supervise_detached(options: argparse.Namespace, layout: Layout) -> int:
    """Be the supervisor that `up --detach` started."""
    writer = os.fdopen(options.report_to, "w", buffering=1)

    def tell(kind: str, text: str = "") -> None:
        # Whoever waited may have gone away.
        with contextlib.suppress(OSError, ValueError):
            writer.write(f"{kind} {text}\n")

    def ready() -> None:
        tell(READY)
        writer.close()
        say(f"ready: {options.database}, port {options.port}")

    try:
        return _supervise(options, layout, report=lambda text: tell(PROGRESS, text), ready=ready)
    except StackError as error:
        message = str(error).replace("\n", " ")
        tell(FAILED, f"{error.log.name if error.log else '-'} {message}")
        raise


def _show_summary(layout: Layout, seconds: float) -> None:
    stack: dict[str, Any] = read_json(layout.stack_json)
    url = stack["url"]
    say(f"Flash Sale is running on {stack['database']}; ready after {seconds:.0f} s.\n")
    places = [
        ["Storefront", f"{url}/"],
        ["API, clickable", f"{url}/api/docs"],
        ["Admin: events", f"{url}/admin/catalog/"],
        ["Admin: stock", f"{url}/admin/inventory/"],
        ["Admin: orders", f"{url}/admin/order/"],
        ["Admin: users", f"{url}/admin/auth/"],
    ]
    say(table(["what", "where"], places))
    admin, buyers = stack["logins"]["admin"], stack["logins"]["buyers"]
    rows = [[admin["username"], admin["password"], "admin"]]
    rows += [[buyer["username"], buyer["password"], "buyer"] for buyer in buyers]
    say("\n" + table(["login", "password", "role"], rows))
