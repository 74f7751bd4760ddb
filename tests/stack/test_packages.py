"""Programs that pip cannot bring: told in one line, or installed through apt by root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from deploy.stack import packages
from deploy.stack.errors import StackError

# Writes down how it was called; brings the program from the second call of `install` on.
APT_GET = """#!/bin/sh
echo "$@" >> "{folder}/calls"
case "$*" in
  *install*)
    [ -f "{folder}/updated" ] || exit 100
    touch "{folder}/bin/ticket-printer"; chmod +x "{folder}/bin/ticket-printer" ;;
  *update*) touch "{folder}/updated" ;;
esac
"""


@pytest.fixture
def machine(tmp_path, monkeypatch) -> Path:
    """A machine that lacks a program, and has an apt-get of ours."""
    (tmp_path / "bin").mkdir()
    apt_get = tmp_path / "bin" / "apt-get"
    apt_get.write_text(APT_GET.format(folder=tmp_path))
    apt_get.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    need = packages.Need(
        "a ticket printer", packages._programs("ticket-printer"), ("ticket-printer-core",)
    )
    monkeypatch.setitem(packages.NEEDS, "printing", (need,))
    return tmp_path


def test_root_installs_what_is_missing_with_fresh_package_lists(machine, monkeypatch, capsys):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    packages.require("printing")
    calls = (machine / "calls").read_text().splitlines()
    install = "--quiet install --yes --no-install-recommends ticket-printer-core"
    assert calls == [install, "--quiet update", install]
    said = capsys.readouterr().out
    assert said == (
        "A ticket printer is missing; installing through apt: ticket-printer-core ...\n"
    )
    packages.require("printing")
    assert len((machine / "calls").read_text().splitlines()) == 3


def test_others_are_told_the_command_in_one_line(machine, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(StackError) as failure:
        packages.require("printing")
    assert str(failure.value) == (
        "a ticket printer is missing; run as root: "
        "apt-get install --no-install-recommends ticket-printer-core"
    )
    assert not (machine / "calls").exists()


def test_without_apt_the_need_itself_is_named(machine, monkeypatch):
    (machine / "bin" / "apt-get").unlink()
    monkeypatch.setattr(packages, "find_program", lambda *names: None)
    with pytest.raises(StackError, match="a ticket printer is missing; install it and try again"):
        packages.require("printing")


def test_an_installation_that_fails_is_told(machine, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (machine / "bin" / "apt-get").write_text("#!/bin/sh\necho 'E: no network'; exit 100\n")
    with pytest.raises(StackError, match="ticket-printer-core failed: E: no network"):
        packages.require("printing")
