"""The commands of ``manage_all.py``: arguments in, one function called, an exit code out."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from deploy.stack import control, environment, venv
from deploy.stack.errors import Interrupted, StackError
from deploy.stack.layout import ROOT, SERVICES, Layout, read_json
from deploy.stack.terminal import complain, tail

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
PORT_DEFAULT = 8000
# What was interrupted is finished by then (invariant I10).
SETTLE_SECONDS_MAX = 30
EPILOG = """\
Everything that running makes lies under var/ (or the folder in FLASHSALE_VAR). Settings come from
the environment and are passed on to every process, for example:

  HOLD_TTL_SECONDS=60 python3 manage_all.py up
  ORDER_DATABASE_URL=mysql://user:password@host:3306/orders python3 manage_all.py up
"""


def main(arguments: Sequence[str]) -> int:
    """Run one command; a failure is told in one line, below the end of the log that explains it."""
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help()
        return EXIT_USAGE
    try:
        _enter_virtual_environment(options, arguments)
        code: int = options.run(options)
    except StackError as error:
        if error.log is not None:
            for line in tail(error.log):
                complain(f"    {line}")
            complain(f"    (from {error.log})")
        complain(f"manage_all: {error}")
        return EXIT_FAILED
    except (KeyboardInterrupt, Interrupted):
        return EXIT_INTERRUPTED
    return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; each names its function and its requirement sets."""
    parser = argparse.ArgumentParser(
        prog="manage_all.py",
        description="Flash Sale: runs, checks and tests the whole system with one command line.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _add_up(commands)
    _add_control(commands)
    _add_sale(commands)
    _add_development(commands)
    return parser


def port_number(text: str) -> int:
    """Parse a TCP port."""
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError(f"a port is a number from 1 to 65535, not {text!r}")
    return int(text)


def positive(text: str) -> int:
    """Parse a number above zero."""
    if not text.isascii() or not text.isdigit() or not int(text):
        raise argparse.ArgumentTypeError(f"a number above 0 is wanted, not {text!r}")
    return int(text)


def seconds(text: str) -> int:
    """Parse a number of seconds, none included."""
    return 0 if text == "0" else positive(text)


def _add_up(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    up = _command(
        commands,
        "up",
        "start everything; Ctrl-C stops it",
        "Makes the virtual environment, keys, databases and the demo sale where they are missing, "
        "starts all processes, waits until they are ready and prints addresses and logins.",
        _lazily("up", "run"),
        sets=("local",),
    )
    up.add_argument(
        "--database",
        choices=("sqlite", "mysql"),
        default="sqlite",
        help="sqlite: a file per service (default); mysql: a private MariaDB or MySQL under var/, "
        "installed through apt when missing and root",
    )
    up.add_argument(
        "--port",
        type=port_number,
        default=PORT_DEFAULT,
        help="where nginx listens on 127.0.0.1 (default: %(default)s)",
    )
    up.add_argument("--detach", action="store_true", help="return once all is ready")
    up.add_argument("--no-demo", action="store_true", help="do not load the demo sale")
    up.add_argument("--report-to", type=int, help=argparse.SUPPRESS)


def _add_control(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    _command(commands, "down", "stop everything; the data stays", "", control.down)
    status = _command(
        commands,
        "status",
        "show the state of each process",
        "Exit code 0 when the system is running, 1 when not.",
        control.status,
    )
    status.add_argument("--json", action="store_true", help="as one JSON object")
    logs = _command(commands, "logs", "show the logs", "", control.logs)
    logs.add_argument("service", nargs="?", help="a process or service; all of them without")
    logs.add_argument("-f", "--follow", action="store_true", help="go on with new lines")
    logs.add_argument(
        "-n", "--lines", type=positive, default=20, help="last lines of each (default: %(default)s)"
    )
    reset = _command(
        commands,
        "reset",
        "delete all data",
        "Stops the system, then deletes its data.",
        control.reset,
    )
    reset.add_argument("--yes", action="store_true", help="do not ask")


def _add_sale(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = _command(
        commands,
        "demo",
        "play a flash sale against the running system",
        "All buyers rush at a fresh ticket through nginx; ends with the audit. The exit code is 1 "
        "when an invariant is broken or not exactly the stock was sold.",
        _lazily("demo", "run"),
        sets=("local",),
    )
    demo.add_argument("--buyers", type=positive, default=500, help="default: %(default)s")
    demo.add_argument("--stock", type=positive, default=50, help="default: %(default)s")
    audit = _command(
        commands,
        "audit",
        "check the invariants across all services",
        "Waits up to 30 s for work in flight to settle. The exit code says whether all hold.",
        _lazily("audit", "run"),
        sets=("local",),
    )
    audit.add_argument("--json", action="store_true", help="as one JSON object")
    reconcile = _command(
        commands,
        "reconcile",
        "say what can be repaired of that which the audit finds, and repair it",
        "Looks as `audit` does. Without --repair it only says what it would do. What cannot be "
        "repaired safely is named with what a person should look at. The exit code is 0 when "
        "nothing is wrong (any more), else 1.",
        _lazily("reconcile", "run"),
        sets=("local",),
    )
    reconcile.add_argument(
        "--repair",
        action="store_true",
        help="do it: each repair by its service, conditionally, and logged; then look again",
    )
    reconcile.add_argument("--json", action="store_true", help="as one JSON object")
    reconcile.add_argument(
        "--wait",
        type=seconds,
        metavar="SECONDS",
        default=SETTLE_SECONDS_MAX,
        help="how long work in flight may take to settle before something counts as found "
        "(default: %(default)s)",
    )
    bench = _command(
        commands,
        "bench",
        "measure how fast it is",
        "Measures the running system, or a private one if none runs; all figures from one run.",
        _lazily("bench", "run"),
        sets=("local",),
    )
    bench.add_argument("--json", action="store_true", help="as one JSON object")
    one_service = bench.add_mutually_exclusive_group()
    one_service.add_argument(
        "--orders",
        action="store_true",
        help="orders on one hot ticket straight at the order service, with and without group "
        "commit, on private systems with MariaDB",
    )
    one_service.add_argument(
        "--inventory",
        action="store_true",
        help="reservations on one hot ticket, with and without group commit, on private systems "
        "with MariaDB (installed through apt when missing and root) and SQLite",
    )
    bench.add_argument("--quick", action="store_true", help="shorter and less exact")


def _add_development(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    test = _command(
        commands,
        "test",
        "run all checks and tests",
        "Lint, types, import contracts and every test, one pytest process per Django project. As "
        "root installs what the machine lacks (MariaDB, Chromium, a C compiler) through apt.",
        _lazily("testing", "run"),
        sets=("dev",),
    )
    test.add_argument(
        "paths", nargs="*", metavar="PATH", help="only these tests; no lint, no types"
    )
    test.add_argument(
        "--embedded", action="store_true", help="without MariaDB and browser: nothing to install"
    )
    test.add_argument("--full", action="store_true", help="the long versions of the storms")
    manage = _command(
        commands,
        "manage",
        "run a service's Django manage.py",
        "For example: manage_all.py manage inventory audit --json",
        _lazily("control", "manage"),
        sets=("local",),
    )
    manage.add_argument("service", choices=(*SERVICES, "gateway"))
    manage.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENTS")


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    details: str,
    run: Callable[[argparse.Namespace], int],
    sets: Sequence[str] = (),
) -> argparse.ArgumentParser:
    """Add a command; ``sets`` are the requirements it needs, none for the standard library."""
    parser = commands.add_parser(
        name, help=summary, description=f"{summary[0].upper()}{summary[1:]}. {details}".strip()
    )
    parser.set_defaults(run=run, sets=sets)
    return parser


def _lazily(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """Import the command's module only when it runs: it may need the virtual environment."""

    def run(options: argparse.Namespace) -> int:
        import importlib

        command = getattr(importlib.import_module(f"deploy.stack.{module}"), function)
        code: int = command(options)
        return code

    return run


def _enter_virtual_environment(options: argparse.Namespace, arguments: Sequence[str]) -> None:
    """Make the environment that the command needs and run again in it."""
    sets = list(options.sets)
    if not sets:
        return
    layout = Layout.default()
    if _needs_mysqlclient(options, layout):
        sets.append("mysql")
    if _needs_nats(options, layout):
        sets.append("nats")
    python = venv.ensure(sets, layout)
    if not venv.is_running(python):
        sys.stdout.flush()
        command = [str(python), str(ROOT / "manage_all.py"), *arguments]
        os.execve(command[0], command, venv.clean_environment(os.environ))  # noqa: S606


def _needs_mysqlclient(options: argparse.Namespace, layout: Layout) -> bool:
    if options.command == "test":
        return not options.embedded
    if options.command == "bench" and (options.inventory or options.orders):
        return True
    if options.command == "up":
        return environment.uses_mysql(options.database, os.environ)
    saved = read_json(layout.environment_json)
    return environment.uses_mysql(saved.get("database", ""), {**os.environ, **saved.get("env", {})})


def _needs_nats(options: argparse.Namespace, layout: Layout) -> bool:
    if options.command == "up":
        return environment.uses_nats(os.environ)
    saved = read_json(layout.environment_json)
    return environment.uses_nats({**saved.get("env", {}), **os.environ})
