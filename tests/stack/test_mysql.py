"""The private MySQL: safe settings, one user per database, data that survives a kill."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from deploy.stack import packages
from deploy.stack.mysql_server import PrivateMySQL

if os.environ.get("FLASHSALE_TEST_EMBEDDED"):
    pytest.skip("--embedded has no MySQL", allow_module_level=True)
MySQLdb = pytest.importorskip("MySQLdb")
if packages.missing("mysql"):
    pytest.skip("no MariaDB or MySQL on this machine", allow_module_level=True)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with PrivateMySQL(tmp_path_factory.mktemp("mysql")) as running:
        yield running


def connect(url: str, database: str | None = None):
    parts = urlsplit(url)
    return MySQLdb.connect(
        user=parts.username,
        password=parts.password,
        unix_socket=parse_qs(parts.query)["unix_socket"][0],
        database=database or parts.path.strip("/"),
    )


def run(connection, statement: str):
    cursor = connection.cursor()
    cursor.execute(statement)
    return cursor.fetchall()


def test_each_user_has_a_database_of_its_own_and_no_other(server):
    order, inventory = server.create_database("order"), server.create_database("inventory")
    run(connect(inventory), "CREATE TABLE secret (n INT)")
    mine = connect(order)
    run(mine, "CREATE TABLE t (n INT)")
    with pytest.raises(MySQLdb.OperationalError, match="denied"):
        run(mine, "SELECT * FROM inventory.secret")
    with pytest.raises(MySQLdb.OperationalError, match="denied"):
        connect(order, "inventory")
    with pytest.raises(MySQLdb.OperationalError, match="denied"):
        run(
            mine,
            "SELECT * FROM mysql.global_priv" if server.is_mariadb else "SELECT * FROM mysql.user",
        )
    shown = {name for (name,) in run(mine, "SHOW DATABASES")}
    assert shown == {"order", "information_schema"}


def test_a_user_may_make_the_databases_that_its_tests_work_in(server):
    catalog = connect(server.create_database("catalog"))
    run(catalog, "CREATE DATABASE test_catalog")
    run(catalog, "CREATE DATABASE test_catalog_gw1")
    with pytest.raises(MySQLdb.OperationalError, match="denied"):
        run(catalog, "CREATE DATABASE test_auth")


def test_nobody_gets_in_without_a_password(server):
    for user in ("root", "", os.environ.get("USER", "root")):
        with pytest.raises(MySQLdb.OperationalError, match="denied"):
            MySQLdb.connect(unix_socket=str(server.socket), user=user)


def test_it_is_set_up_to_lose_nothing_and_to_wait_for_nobody(server):
    isolation = "tx_isolation" if server.is_mariadb else "transaction_isolation"
    wanted = {
        "innodb_flush_log_at_trx_commit": 1,
        "innodb_lock_wait_timeout": 1,
        "character_set_server": "utf8mb4",
        "skip_networking": 1,
        isolation: "READ-COMMITTED",
    }
    for name, value in wanted.items():
        assert server.execute(f"SELECT @@GLOBAL.{name}") == [(value,)], name


def test_committed_rows_survive_a_kill_and_passwords_stay_the_same(tmp_path: Path):
    first = PrivateMySQL(tmp_path)
    with first as server:
        url = server.create_database("order")
        connection = connect(url)
        run(connection, "CREATE TABLE t (n INT) ENGINE=InnoDB")
        run(connection, "INSERT INTO t VALUES (7)")
        connection.commit()
        pid = int((tmp_path / "mysql.pid").read_text())
        os.kill(pid, signal.SIGKILL)
    with PrivateMySQL(tmp_path) as server:
        again = server.create_database("order")
        assert again.split("?")[0] == url.split("?")[0]
        assert run(connect(again), "SELECT n FROM t") == ((7,),)


def test_a_folder_with_a_long_path_gets_its_socket_elsewhere(tmp_path: Path):
    with PrivateMySQL(tmp_path / ("d" * 90)) as server:
        socket = server.socket
        assert run(connect(server.create_database("order")), "SELECT 1") == ((1,),)
    assert not socket.parent.exists()


def test_a_server_that_cannot_start_is_told_with_its_log(tmp_path: Path):
    from deploy.stack.errors import StackError

    with PrivateMySQL(tmp_path):
        pass
    subprocess.run(["rm", "-rf", str(tmp_path / "data")], check=True)
    (tmp_path / "data").mkdir()
    with pytest.raises(StackError, match="mysql ended") as failure, PrivateMySQL(tmp_path):
        pass
    assert failure.value.log.read_text()


def test_only_plain_names_become_databases(server):
    with pytest.raises(ValueError, match="database name"):
        server.create_database("order`; DROP DATABASE inventory; --")
