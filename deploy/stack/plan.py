"""What ``test`` runs: lint, types, contracts, and a pytest process per project and database.

A project's settings come from its environment, so that each one needs a process of its own; the
plugin tests/environment.py gives every process its secrets, keys, folder and Redis.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from deploy.stack import environment
from deploy.stack.errors import StackError
from deploy.stack.layout import ROOT

COUNTS = ("passed", "failed", "skipped")
# Read by the tests: which versions of them to run, and what the machine is not meant to have.
FULL_VARIABLE, EMBEDDED_VARIABLE = "FLASHSALE_TEST_FULL", "FLASHSALE_TEST_EMBEDDED"
# Beside PATH and the like: how pip reaches its index, which virtual environment is in use, and
# what a person wants of pytest. Nothing else of the caller's may change what the tests see.
KEPT_PREFIXES = (
    *("PIP_", "UV_", "SSL_", "REQUESTS_", "PYTEST_", "HYPOTHESIS_", "CI"),
    *("FLASHSALE_VENV", "FLASHSALE_SEED", "FLASHSALE_SCREENSHOTS"),
)

# What each Django project's type check covers: its models only have types under its settings.
TYPE_CHECKS = {
    "services.auth": ("services/auth",),
    "services.catalog": ("services/catalog",),
    "services.inventory": ("common", "services/inventory"),
    "services.order": ("services/order",),
    "gateway": ("gateway", "deploy", "manage_all.py"),
}


@dataclass(frozen=True)
class Project:
    """A folder of tests. ``service``: whose database it works in, where it also runs on MariaDB.

    ``alone``: it starts whole systems, and wants the machine for itself.
    """

    name: str
    service: str = ""
    alone: bool = False

    @property
    def folder(self) -> str:
        return f"tests/{self.name}"


# The long ones first, so that two at a time end together.
PROJECTS = (
    Project("inventory", service="inventory"),
    Project("order", service="order"),
    Project("stack"),
    Project("catalog", service="catalog"),
    Project("auth", service="auth"),
    Project("common", service="inventory"),
    Project("deploy"),
    Project("gateway"),
    Project("system", alone=True),
)


@dataclass
class Step:
    """One process to run, and what came of it. ``report`` is where pytest writes its counts."""

    name: str
    argv: list[str]
    env: dict[str, str]
    log: Path
    report: Path | None = None
    alone: bool = False
    seconds: float = 0.0
    failed: bool = False
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS, 0))


def choose(paths: Sequence[str]) -> dict[Project, list[str]]:
    """Return the projects to run, each with its paths; StackError for a wrong path."""
    if not paths:
        return {p: [p.folder] for p in PROJECTS if (ROOT / p.folder).is_dir()}
    chosen: dict[Project, list[str]] = {}
    for path in paths:
        file, separator, node = path.partition("::")
        absolute = Path(file).resolve()
        if not absolute.exists() or not absolute.is_relative_to(ROOT):
            raise StackError(f"there is no {file} in this project")
        relative = absolute.relative_to(ROOT)
        below = [p for p in PROJECTS if relative.is_relative_to(p.folder)]
        whole = [p for p in PROJECTS if Path(p.folder).is_relative_to(relative)]
        if not below and not whole:
            raise StackError(f"{file} belongs to no test project (tests/<project>/...)")
        for project in below:
            chosen.setdefault(project, []).append(f"{relative}{separator}{node}")
        for project in whole:
            chosen[project] = [project.folder]
    return chosen


def base_environment(*, full: bool, embedded: bool) -> dict[str, str]:
    """Return what every step gets."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if name.startswith(KEPT_PREFIXES) or name.lower().endswith("_proxy")
    }
    flags = {FULL_VARIABLE: full, EMBEDDED_VARIABLE: embedded}
    return {**environment.basics(), **kept, **{name: "1" for name in flags if flags[name]}}


def checks(folder: Path, env: Mapping[str, str]) -> list[Step]:
    """Return the steps that run no test."""
    python = [sys.executable, "-m"]
    commands = {
        "ruff check": [*python, "ruff", "check", "."],
        "ruff format": [*python, "ruff", "format", "--check", "."],
        "import contracts": [str(Path(sys.executable).parent / "lint-imports")],
    }
    steps = [
        Step(name, argv, dict(env), folder / f"{name.replace(' ', '-')}.log")
        for name, argv in commands.items()
    ]
    for project, paths in TYPE_CHECKS.items():
        # A cache each: under other settings everything would have to be checked again.
        argv = [*python, "mypy", "--cache-dir", f".mypy_cache/{project}", *paths]
        own = {"DJANGO_SETTINGS_MODULE": f"{project}.settings", "DEBUG": "true"}
        steps.append(Step(f"mypy {project}", argv, {**env, **own}, folder / f"mypy-{project}.log"))
    return steps


def tests(
    chosen: Mapping[Project, list[str]],
    folder: Path,
    env: Mapping[str, str],
    database_urls: Mapping[str, str],
) -> list[Step]:
    """Return a pytest step per project, and a second one where it has a URL on MariaDB."""
    steps = []
    for project, paths in chosen.items():
        steps.append(_pytest(project, paths, folder, env))
        if url := database_urls.get(project.name):
            variable = f"{project.service.upper()}_DATABASE_URL"
            steps.append(_pytest(project, paths, folder, {**env, variable: url}, " on MariaDB"))
    return steps


def _pytest(
    project: Project, paths: list[str], folder: Path, env: Mapping[str, str], suffix: str = ""
) -> Step:
    name = f"{project.folder}{suffix}"
    stem = name.replace("/", "-").replace(" ", "-")
    report = folder / f"{stem}.xml"
    argv = [sys.executable, "-m", "pytest", *paths, f"--junitxml={report}"]
    # Several at once would write the same cache.
    argv += ["-o", f"cache_dir={folder / f'{stem}.cache'}"]
    return Step(name, argv, dict(env), folder / f"{stem}.log", report, project.alone)
