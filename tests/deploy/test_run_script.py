"""run.sh start, stop, reset: what they ask of Docker (which is not here: a stand-in notes it)."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.deploy import files

PREFIX = "compose --env-file ../.env --file compose.yaml"


class Host:
    """A copy of deploy/compose, and a `docker` that writes down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.deploy = folder / "deploy"
        shutil.copytree(files.DEPLOY / "compose", self.deploy / "compose")
        shutil.copy(files.DEPLOY / ".env.example", self.deploy)
        self.calls_file = folder / "calls"
        self.calls_file.touch()
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.docker(f'echo "$@" >> {self.calls_file}')

    def docker(self, script: str) -> None:
        program = self.programs / "docker"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def run(self, *arguments: str, answer: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.deploy / "compose" / "run.sh"), *arguments],
            env={**os.environ, "PATH": f"{self.programs}:{os.environ['PATH']}"},
            cwd="/",
            input=answer,
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def calls(self) -> list[str]:
        lines = self.calls_file.read_text().splitlines()
        assert all(line.startswith(PREFIX) for line in lines)
        return [line.removeprefix(PREFIX).strip() for line in lines]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_start_makes_the_env_file_builds_starts_and_waits(host: Host) -> None:
    result = host.run("start")
    assert result.returncode == 0, result.stderr
    assert "Ready: http://127.0.0.1:8000" in result.stdout
    assert (host.deploy / ".env").stat().st_mode & 0o777 == 0o600
    first, second = host.calls()
    assert first == "up --detach --build --remove-orphans"
    # New containers have new addresses; nginx looks them up on a reload.
    assert second.startswith("exec -T nginx")
    assert "reload" in second


def test_stripe_takes_the_file_along_that_lets_the_order_service_out(host: Host) -> None:
    host.run("start")
    env_file = host.deploy / ".env"
    text = env_file.read_text()
    env_file.write_text(text.replace("PAYMENT_PROVIDER=\n", "PAYMENT_PROVIDER=stripe\n"))
    host.calls_file.write_text("")

    host.run("start")

    assert host.calls()[0] == "--file stripe.yaml up --detach --build --remove-orphans"


def test_start_keeps_the_secrets_that_there_are(host: Host) -> None:
    host.run("start")
    before = (host.deploy / ".env").read_text()
    host.run("start")
    assert (host.deploy / ".env").read_text() == before


def test_start_fails_when_a_container_does(host: Host) -> None:
    host.docker("exit 3")
    result = host.run("start")
    assert result.returncode == 3
    assert "Ready" not in result.stdout


def test_stop_keeps_the_data(host: Host) -> None:
    assert host.run("stop").returncode == 0
    assert host.calls() == ["down --remove-orphans"]


@pytest.mark.parametrize("answer", ["", "no\n", "y\n"])
def test_reset_deletes_nothing_without_a_yes(host: Host, answer: str) -> None:
    result = host.run("reset", answer=answer)
    assert result.returncode == 1
    assert "nothing was deleted" in result.stderr
    assert host.calls() == []


@pytest.mark.parametrize(("arguments", "answer"), [(["--yes"], ""), ([], "yes\n")])
def test_reset_deletes_all_data(host: Host, arguments: list[str], answer: str) -> None:
    assert host.run("reset", *arguments, answer=answer).returncode == 0
    assert host.calls() == ["down --volumes --remove-orphans"]


def test_a_services_management_commands_can_be_reached(host: Host) -> None:
    host.run("manage", "auth", "create_user", "ann", "--role", "admin")
    host.run("manage", "gateway", "check")
    assert host.calls() == [
        "exec auth python services/auth/manage.py create_user ann --role admin",
        "exec gateway python gateway/manage.py check",
    ]


def test_a_new_key_is_made_by_the_job_that_may_write_keys(host: Host) -> None:
    host.run("rotate-key", "auth")
    assert host.calls() == [
        "run --rm --no-deps keys python -m deploy.container.make_keys --add auth"
    ]


@pytest.mark.parametrize("arguments", [[], ["destroy"], ["usage"]])
def test_anything_else_gets_help_and_touches_nothing(host: Host, arguments: list[str]) -> None:
    result = host.run(*arguments)
    assert result.returncode == 2
    assert "run.sh reset [--yes]" in result.stderr
    assert host.calls() == []
    assert not (host.deploy / ".env").exists()
