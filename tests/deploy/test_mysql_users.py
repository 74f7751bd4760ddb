"""The databases and users that the MySQL container makes: each service reaches its own only."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from deploy.stack.mysql_server import PrivateMySQL
from tests.deploy import files
from tests.deploy.files import SERVICES

CLIENT = shutil.which("mysql") or shutil.which("mariadb")
SCRIPT = files.DEPLOY / "compose" / "mysql" / "create_databases.sh"

pytestmark = pytest.mark.skipif(
    bool(os.environ.get("FLASHSALE_TEST_EMBEDDED"))
    or CLIENT is None
    or importlib.util.find_spec("MySQLdb") is None,
    reason="needs a MariaDB or MySQL server and mysqlclient",
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateMySQL]:
    """Run a private server, as empty as the one in the container is at first."""
    with PrivateMySQL(tmp_path_factory.mktemp("mysql")) as server:
        yield server


def client_command(server: PrivateMySQL) -> list[str]:
    """Return the command line of a client of the server."""
    return [str(CLIENT), "--no-defaults", f"--socket={server.socket}"]


def run_script(server: PrivateMySQL, environment: dict[str, str]) -> Any:
    """Run the script as the image does, next to its server."""
    root = json.loads((server.folder / "passwords.json").read_text())["root"]
    # Where `mysql` finds the server is for the image's settings to say, and here for this.
    client = server.folder / "bin" / "mysql"
    client.parent.mkdir(exist_ok=True)
    client.write_text(f'#!/bin/sh\nexec {" ".join(client_command(server))} "$@"\n')
    client.chmod(0o755)
    path = f"{client.parent}:{os.environ['PATH']}"
    return subprocess.run(
        [str(SCRIPT)],
        env={**environment, "PATH": path, "MYSQL_ROOT_PASSWORD": root},
        capture_output=True,
        text=True,
        check=False,
    )


def as_user(server: PrivateMySQL, name: str, password: str, statement: str) -> Any:
    """Run a statement as a service's user."""
    return subprocess.run(
        [*client_command(server), f"--user={name}", "-BN", "--execute", statement],
        env={"PATH": os.environ["PATH"], "MYSQL_PWD": password},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_image_can_run_it() -> None:
    # A script that is not executable would be read into the image's own, with its settings.
    assert os.access(SCRIPT, os.X_OK)


def test_a_password_that_breaks_out_of_its_quotes_is_refused(
    server: PrivateMySQL, containers: dict[str, dict[str, Any]]
) -> None:
    environment = {**containers["mysql"]["environment"], "AUTH_DB_PASSWORD": "x' OR '1234567890"}
    result = run_script(server, environment)
    assert result.returncode == 1
    assert "AUTH_DB_PASSWORD" in result.stderr
    assert not server.execute("SHOW DATABASES LIKE 'flashsale%'")


def test_each_service_reaches_its_own_database_and_no_other(
    server: PrivateMySQL, containers: dict[str, dict[str, Any]]
) -> None:
    environment = containers["mysql"]["environment"]
    result = run_script(server, environment)
    assert result.returncode == 0, result.stderr
    for name in SERVICES:
        password = environment[f"{name.upper()}_DB_PASSWORD"]
        own = as_user(
            server,
            name,
            password,
            f"USE flashsale_{name}; CREATE TABLE t (a INT); INSERT t VALUES (1);"
            "SELECT @@character_set_database",
        )
        assert own.stdout.strip() == "utf8mb4", own.stderr
        for other in SERVICES:
            if other != name:
                refused = as_user(server, name, password, f"SELECT 1 FROM flashsale_{other}.t")
                assert "denied" in refused.stderr
        # No user may make others, or see what they do.
        assert as_user(server, name, password, "CREATE DATABASE another").returncode != 0
        assert as_user(server, name, password, "SELECT 1 FROM mysql.user").returncode != 0
        # An underscore in a grant would stand for any character.
        assert as_user(server, name, password, f"CREATE DATABASE flashsaleX{name}").returncode != 0
