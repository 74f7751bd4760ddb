"""Files and ports of a system."""

from __future__ import annotations

import os
import shutil
import socket
import stat
from pathlib import Path

import pytest

from deploy.stack import credentials, ports
from deploy.stack.errors import StackError
from deploy.stack.layout import SOCKET_PATH_BYTES_MAX, Layout, read_json, write_json


def test_sockets_of_a_deep_folder_move_to_a_short_private_one(tmp_path):
    deep = Layout(tmp_path / ("d" * 100))
    deep.prepare()
    folder = deep.socket_folder()
    try:
        assert folder != deep.run
        assert len(os.fsencode(folder / "mysql.sock")) <= SOCKET_PATH_BYTES_MAX
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    finally:
        shutil.rmtree(folder)


def test_sockets_of_an_ordinary_folder_stay_in_it(layout):
    assert layout.socket_folder() == layout.run
    assert stat.S_IMODE(layout.run.stat().st_mode) == 0o700


def test_secrets_are_made_once_and_only_their_owner_can_read_them(layout):
    first = credentials.load_or_make(layout.secrets_json)
    assert credentials.load_or_make(layout.secrets_json) == first
    assert stat.S_IMODE(layout.secrets_json.stat().st_mode) == 0o600
    assert len(set(first["secret_keys"].values())) == 5


def test_deleting_data_leaves_what_is_not_ours(layout):
    (layout.var / "holiday.jpg").write_text("mine")
    (layout.db / "order.sqlite3").write_text("ours")
    credentials.load_or_make(layout.secrets_json)
    layout.delete_data()
    assert [path.name for path in layout.var.iterdir()] == ["holiday.jpg"]


def test_a_broken_state_file_counts_as_none(layout):
    layout.state_json.write_text('{"state": "runn')
    assert read_json(layout.state_json) == {}
    write_json(layout.state_json, {"state": "running"})
    assert read_json(layout.state_json) == {"state": "running"}


def test_free_ports_are_distinct_and_outside_the_range_of_outgoing_connections():
    found = ports.free_ports(20)
    assert len(set(found)) == 20
    lowest = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(found) < lowest


def test_a_used_port_is_told_in_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(StackError, match=f"port {port} is in use by another program"):
            ports.require_free(port)
    ports.require_free(port)
