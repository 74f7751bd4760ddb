"""A private MariaDB or MySQL under one folder: reachable through its socket only.

    with PrivateMySQL(folder) as server:
        url = server.create_database("inventory")

Every database has a user of its own that can reach no other. The folder keeps the data and the
passwords; a server started on it again has both.
"""

from __future__ import annotations

import contextlib
import getpass
import importlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from deploy.stack import packages
from deploy.stack.errors import StackError
from deploy.stack.layout import SOCKET_PATH_BYTES_MAX, read_json, write_json
from deploy.stack.processes import Child

START_SECONDS_MAX = 60.0
SOCKET_NAME = "mysql.sock"
DATABASE_NAME = re.compile(r"[a-z][a-z0-9]{0,15}")

# What correctness asks for, then what keeps a second server on a developer's machine small.
OPTIONS = {
    "skip-networking": None,
    "innodb-flush-log-at-trx-commit": "1",
    "transaction-isolation": "READ-COMMITTED",
    "character-set-server": "utf8mb4",
    "innodb-lock-wait-timeout": "1",
    "max-connections": "400",
    "skip-log-bin": None,
    "skip-name-resolve": None,
    "innodb-buffer-pool-size": "256M",
    "performance-schema": "OFF",
}
# MySQL has no such guard against a client that stops in the middle of a write transaction.
MARIADB_OPTIONS = {"idle-write-transaction-timeout": "3", "collation-server": "utf8mb4_unicode_ci"}
MYSQL_OPTIONS = {"mysqlx": "OFF", "collation-server": "utf8mb4_0900_ai_ci"}


class PrivateMySQL:
    """The server of one folder; a context manager, or a child for somebody else to supervise."""

    def __init__(
        self, folder: Path, *, socket_folder: Path | None = None, log: Path | None = None
    ) -> None:
        self.folder = folder.absolute()
        self.log = log or self.folder / "mysql.log"
        self.socket = (socket_folder or self.folder) / SOCKET_NAME
        self._own_socket_folder: Path | None = None
        if len(os.fsencode(self.socket)) > SOCKET_PATH_BYTES_MAX:
            self._own_socket_folder = Path(tempfile.mkdtemp(prefix="flash-sale-"))
            self.socket = self._own_socket_folder / SOCKET_NAME
        self._data = self.folder / "data"
        self._passwords_file = self.folder / "passwords.json"
        self._child: Child | None = None

    def __enter__(self) -> Self:
        self.prepare()
        self._child = self.child()
        self._child.start()
        try:
            self.wait_ready(self._child)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        if self._child is not None:
            self._child.stop(grace_seconds=30)
        self.forget_socket()

    def prepare(self) -> None:
        """Find the programs (or install them) and initialise the data folder once."""
        packages.require("mysql")
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not read_json(self._passwords_file):
            # The password is written last: a folder without one was not finished.
            shutil.rmtree(self._data, ignore_errors=True)
            self._initialise()
            write_json(self._passwords_file, {"root": secrets.token_urlsafe(24)})

    def child(self) -> Child:
        """Return the server as a child process. Its first statement sets root's password."""
        init_file = self.folder / "init.sql"
        init_file.touch(mode=0o600)
        init_file.write_text(
            f"ALTER USER 'root'@'localhost' IDENTIFIED BY '{self._password('root')}';\n"
        )
        options = {
            **OPTIONS,
            **(MARIADB_OPTIONS if self.is_mariadb else MYSQL_OPTIONS),
            "datadir": str(self._data),
            "socket": str(self.socket),
            "pid-file": str(self.folder / "mysql.pid"),
            "init-file": str(init_file),
        }
        argv = [self._program, "--no-defaults", *_as_arguments(options), *_user_argument()]
        return Child("mysql", argv, dict(os.environ), self.log, grace_seconds=30)

    def wait_ready(self, child: Child) -> None:
        """Wait until root can log in; StackError when the server ends or takes too long."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            try:
                self._connect().close()
            except _driver().Error:
                if child.exit_code is not None:
                    raise StackError(
                        f"mysql ended with exit code {child.exit_code}", log=self.log
                    ) from None
                time.sleep(0.1)
            else:
                return
        raise StackError(f"mysql did not answer within {START_SECONDS_MAX:.0f} s", log=self.log)

    def create_database(self, name: str) -> str:
        """Make sure that database and user ``name`` exist; return the URL for Django's settings.

        The user may also create and drop ``test_<name>…``, where pytest works, and nothing else.
        """
        if not DATABASE_NAME.fullmatch(name):
            raise ValueError(f"a database name is 1 to 16 of a-z0-9, not {name!r}")
        password = self._password(name)
        user = f"'{name}'@'localhost'"
        self.execute(
            f"CREATE DATABASE IF NOT EXISTS `{name}`",
            f"CREATE USER IF NOT EXISTS {user} IDENTIFIED BY '{password}'",
            f"GRANT ALL ON `{name}`.* TO {user}",
            f"GRANT ALL ON `test\\_{name}%`.* TO {user}",
        )
        return f"mysql://{name}:{password}@/{name}?unix_socket={self.socket}"

    def execute(self, *statements: str) -> list[tuple[Any, ...]]:
        """Run statements as root; returns the rows of the last one."""
        with contextlib.closing(self._connect()) as connection:
            cursor = connection.cursor()
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())

    def forget_socket(self) -> None:
        """Remove the temporary folder of a socket whose usual path would have been too long."""
        if self._own_socket_folder is not None:
            shutil.rmtree(self._own_socket_folder, ignore_errors=True)

    @property
    def is_mariadb(self) -> bool:
        return packages.find_program("mariadbd") is not None

    @property
    def _program(self) -> str:
        return packages.find_program("mariadbd", "mysqld") or "mysqld"

    def _password(self, user: str) -> str:
        known = read_json(self._passwords_file)
        if user not in known:
            known[user] = secrets.token_urlsafe(24)
            write_json(self._passwords_file, known)
        return str(known[user])

    def _connect(self) -> Any:
        return _driver().connect(
            unix_socket=str(self.socket), user="root", password=self._password("root")
        )

    def _initialise(self) -> None:
        if self.is_mariadb:
            program = packages.find_program("mariadb-install-db", "mysql_install_db")
            # No test database, no anonymous user; root by password, not by being the same OS user
            # as the services are.
            extra = ["--skip-test-db", "--auth-root-authentication-method=normal"]
        else:
            program = self._program
            extra = ["--initialize-insecure"]
        argv = [str(program), "--no-defaults", f"--datadir={self._data}", *extra]
        with self.log.open("ab") as log:
            result = subprocess.run(
                [*argv, *_user_argument()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                check=False,
            )
        if result.returncode != 0:
            raise StackError("the MySQL data folder could not be initialised", log=self.log)


def _driver() -> Any:
    """mysqlclient, which only systems on MySQL have."""
    return importlib.import_module("MySQLdb")


def _as_arguments(options: Mapping[str, str | None]) -> list[str]:
    return [
        f"--{name}" if value is None else f"--{name}={value}" for name, value in options.items()
    ]


def _user_argument() -> list[str]:
    """As root the server wants to be told that it is meant; the socket folder is closed anyway."""
    return [f"--user={getpass.getuser()}"] if os.geteuid() == 0 else []
