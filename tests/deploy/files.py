"""What is in deploy/, read the way Docker would read it."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deploy.compose import make_env

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
COMPOSE = DEPLOY / "compose" / "compose.yaml"
SERVICES = ("auth", "catalog", "inventory", "order")
WEB = (*SERVICES, "gateway")
LOOPS = tuple(f"{name}-loops" for name in SERVICES)
MIGRATIONS = tuple(f"{name}-migrate" for name in SERVICES)
JOBS = (*MIGRATIONS, "keys")
PYTHON = (*WEB, *LOOPS, *JOBS)
VALKEYS = ("cache", "streams")
# What make_env.py makes up; Stripe's secrets are Stripe's to give.
SECRET_NAME = re.compile(r"^(?!STRIPE_).*_(SECRET_KEY|SECRET|PASSWORD)$")

_VARIABLE = re.compile(r"\$(?:(\$)|\{([A-Z_]+)(?:(:[-?])([^}]*))?\})")


class Missing(Exception):
    """A setting that the compose file demands is not there."""


def env_file(public_url: str = "https://tickets.example.org") -> dict[str, str]:
    """Return the names and values of a freshly made .env."""
    text = make_env.complete(make_env.EXAMPLE.read_text(), {}, public_url)
    return dict(line.split("=", 1) for line in text.splitlines() if re.match("[A-Z]", line))


def compose(environment: dict[str, str]) -> dict[str, Any]:
    """Return the compose file with its variables filled in; Missing where Docker would refuse."""
    return _filled_in(yaml.safe_load(COMPOSE.read_text()), environment)


def _filled_in(value: Any, environment: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled_in(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled_in(item, environment) for item in value]
    if not isinstance(value, str):
        return value

    def replace(match: re.Match[str]) -> str:
        dollar, name, operator, text = match.groups()
        if dollar:
            return "$"
        if environment.get(name):
            return environment[name]
        if operator != ":-":
            raise Missing(name)
        return str(text)

    return _VARIABLE.sub(replace, value)


@dataclass
class Stage:
    """One build stage of the Dockerfile: its base, and its instructions in order."""

    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.steps if name == instruction]

    def last(self, instruction: str) -> str:
        return self.all(instruction)[-1]

    def environment(self) -> dict[str, str]:
        words = [word for line in self.all("ENV") for word in shlex.split(line)]
        return dict(word.split("=", 1) for word in words)

    def copies(self) -> list[str]:
        """Return the sources that come from the build context."""
        lines = [line for line in self.all("COPY") if not line.startswith("--from")]
        return [source for line in lines for source in line.split()[:-1]]


def dockerfile() -> dict[str, Stage]:
    """Return the stages of the Dockerfile by name."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.MULTILINE)
    stages: dict[str, Stage] = {}
    for line in re.sub(r"\\\n\s*", " ", text).splitlines():
        instruction, _, arguments = line.partition(" ")
        if instruction == "FROM":
            base, _, name = arguments.partition(" AS ")
            current = stages[name] = Stage(base, name)
        elif instruction:
            current.steps.append((instruction, arguments))
    return stages


def exec_form(arguments: str) -> list[str]:
    """Return an instruction's JSON list; ValueError for the shell form."""
    words = json.loads(arguments)
    assert isinstance(words, list)
    return words


def is_ignored(path: str) -> bool:
    """Tell whether .dockerignore keeps a path from the builder: the last fitting pattern wins."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip().removeprefix("!")
        if not pattern or pattern.startswith("#"):
            continue
        regex = re.escape(pattern).replace(r"\*\*/", "(?:.*/)?").replace(r"\*", "[^/]*")
        if re.fullmatch(f"{regex}(?:/.*)?", path):
            ignored = not line.startswith("!")
    return ignored
