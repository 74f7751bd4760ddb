"""Each container's command works with exactly the environment that the compose file gives it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import environ
import pytest

from tests.deploy import files
from tests.deploy.files import LOOPS, MIGRATIONS, PYTHON, SERVICES, WEB

Containers = dict[str, dict[str, Any]]
# Looked at by the code, but nothing that an operator of these containers has to say.
NOT_SET_HERE = re.compile(r"[A-Z]+_REPLICA_URL|LIMIT_EXEMPT_IPS|[A-Z_]*_CACHE_URL")


@dataclass
class Run:
    """What came of a container's command."""

    code: int
    output: str
    read: set[str]


def run_container(
    name: str, container: dict[str, Any], folder: Path, changes: dict[str, str] | None = None
) -> Run:
    """Run the command with the image's and the container's environment, and nothing else."""
    image = files.dockerfile()["app"].environment()
    environment = {
        **image,
        **container.get("environment", {}),
        **(changes or {}),
        "PATH": os.environ["PATH"],
        "KEYS_DIR": str(folder / "keys"),
        "FLASHSALE_VAR": str(folder),
    }
    # No MySQL here: the URL itself is tested below.
    for variable in [name for name in environment if name.endswith("_DATABASE_URL")]:
        environment[variable] = f"sqlite:///{folder / 'test.sqlite3'}"
    result = folder / "read.json"
    process = subprocess.run(
        [sys.executable, "-m", "tests.deploy.probe", str(result), *container["command"]],
        cwd=files.ROOT,
        env={key: value for key, value in environment.items() if value != ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    read = set(json.loads(result.read_text())) if result.exists() else set()
    return Run(process.returncode, process.stdout + process.stderr, read)


@pytest.mark.parametrize("name", PYTHON)
def test_the_command_runs_is_clean_in_production_and_reads_what_it_is_given(
    containers: Containers, tmp_path: Path, name: str
) -> None:
    container = containers[name]
    run = run_container(name, container, tmp_path)
    assert run.code == 0, run.output
    if name in (*LOOPS, *MIGRATIONS):
        assert "no issues" in run.output
    # The health check is another process of the container.
    given = set(container.get("environment", {})) - {"HEALTHCHECK"}
    assert given <= run.read
    asked = {v for v in run.read if re.search(r"_URL$|_SECRET(_KEY)?$|_HOSTS$", v)}
    missing = {v for v in asked - given if not NOT_SET_HERE.fullmatch(v)}
    assert not missing, "read, but not passed: the default would be used"


@pytest.mark.parametrize("name", WEB)
def test_nothing_starts_without_its_secret_key(
    containers: Containers, tmp_path: Path, name: str
) -> None:
    variable = f"{name.upper()}_SECRET_KEY"
    run = run_container(name, containers[name], tmp_path, {variable: ""})
    assert run.code != 0
    assert variable in run.output


def test_orders_do_not_start_without_the_secret_of_the_payment_webhook(
    containers: Containers, tmp_path: Path
) -> None:
    run = run_container("order", containers["order"], tmp_path, {"SANDBOX_WEBHOOK_SECRET": ""})
    assert run.code != 0
    assert "SANDBOX_WEBHOOK_SECRET" in run.output


def test_the_gateway_is_clean_in_production_too(containers: Containers, tmp_path: Path) -> None:
    check = {**containers["gateway"], "command": ["python", "gateway/manage.py", "check"]}
    run = run_container("gateway", check, tmp_path)
    assert (run.code, "no issues" in run.output) == (0, True), run.output


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_reaches_its_own_database_over_tls(containers: Containers, name: str) -> None:
    for process in (name, f"{name}-loops", f"{name}-migrate"):
        environment = containers[process]["environment"]
        config = environ.Env.db_url_config(environment[f"{name.upper()}_DATABASE_URL"])
        assert config["ENGINE"] == "django.db.backends.mysql"
        assert (config["HOST"], config["PORT"]) == ("mysql", 3306)
        assert (config["NAME"], config["USER"]) == (f"flashsale_{name}", name)
        assert config["OPTIONS"] == {"ssl_mode": "REQUIRED"}
        assert (
            config["PASSWORD"] == containers["mysql"]["environment"][f"{name.upper()}_DB_PASSWORD"]
        )


def test_services_find_each_other_under_the_names_of_their_containers(
    containers: Containers,
) -> None:
    for process in (*WEB, *LOOPS):
        environment = containers[process]["environment"]
        for name in SERVICES:
            assert environment[f"{name.upper()}_URL"] == f"http://{name}:8000"
            assert "web" in containers[name]["networks"]
        assert environment["CACHE_URL"] == "redis://cache:6379/0"
        assert environment["STREAM_URL"] == "redis://streams:6379/0"
    for name in SERVICES:
        # By browsers, by the health check, by other services.
        hosts = containers[name]["environment"]["ALLOWED_HOSTS"].split(",")
        assert {"tickets.example.org", "127.0.0.1", name} == set(hosts)


def test_the_key_job_makes_a_key_for_everyone_once(containers: Containers, tmp_path: Path) -> None:
    assert (
        "auth, catalog, inventory, order, gateway"
        in run_container("keys", containers["keys"], tmp_path).output
    )
    before = sorted((tmp_path / "keys").rglob("*.pem"))
    assert len(before) == 2 * len(WEB)
    assert "none needed" in run_container("keys", containers["keys"], tmp_path).output
    assert sorted((tmp_path / "keys").rglob("*.pem")) == before
    another = {"command": [*containers["keys"]["command"], "--add", "auth"]}
    assert "new keys: auth" in run_container("keys", another, tmp_path).output
    assert len(list((tmp_path / "keys" / "private" / "auth").glob("*.pem"))) == 2
