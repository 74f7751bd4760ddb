"""The virtual environment: made once, installed again only when a lock changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.stack import venv
from deploy.stack.errors import StackError
from deploy.stack.layout import ROOT, read_json, write_json


@pytest.fixture
def locks(tmp_path, monkeypatch) -> Path:
    """A folder of lock files in the place of the real ones, and a virtual environment beside it."""
    folder = tmp_path / "requirements"
    folder.mkdir()
    for name in venv.INCLUDES:
        (folder / f"{name}.txt").write_text("# nothing\n")
    monkeypatch.setattr(venv, "REQUIREMENTS", folder)
    monkeypatch.setenv("FLASHSALE_VENV", str(tmp_path / "venv"))
    return folder


def test_a_second_run_installs_nothing_and_a_changed_lock_installs_again(
    locks, layout, monkeypatch
):
    ran = []
    real = venv._run
    monkeypatch.setattr(venv, "_run", lambda *a, **k: (ran.append(a[1]), real(*a, **k)))
    python = venv.ensure(["local"], layout)
    assert subprocess.run([python, "-c", "import sys"], check=False).returncode == 0
    assert len(ran) == 2  # made, and filled
    venv.ensure(["local"], layout)
    assert len(ran) == 2
    (locks / "local.txt").write_text("# something else\n")
    venv.ensure(["local"], layout)
    assert len(ran) == 3
    # The developer's set holds the base set: it is not installed twice.
    venv.ensure(["dev"], layout)
    (locks / "local.txt").write_text("# something else\n")
    venv.ensure(["local"], layout)
    assert len(ran) == 4


def test_an_environment_that_was_copied_to_another_place_is_made_anew(
    locks, layout, tmp_path, monkeypatch
):
    venv.ensure(["local"], layout)
    shutil.copytree(tmp_path / "venv", tmp_path / "copy", symlinks=True)
    monkeypatch.setenv("FLASHSALE_VENV", str(tmp_path / "copy"))
    venv.ensure(["local"], layout)
    assert read_json(tmp_path / "copy" / "flash-sale.json")["folder"] == str(tmp_path / "copy")


def test_what_somebody_else_made_is_never_emptied(locks, layout, tmp_path):
    subprocess.run(["python3", "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    (tmp_path / "venv" / "theirs.txt").write_text("precious")
    with pytest.raises(StackError, match="failed"):  # without pip nothing can be installed
        venv.ensure(["local"], layout)
    assert (tmp_path / "venv" / "theirs.txt").exists()
    # Nor later, when it has become unusable in the meantime.
    write_json(venv.folder() / "flash-sale.json", {"python": "2.7.18", "made": False})
    with pytest.raises(StackError, match="failed"):
        venv.ensure(["local"], layout)
    assert (tmp_path / "venv" / "theirs.txt").exists()
    shutil.rmtree(tmp_path / "venv")
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "holiday.jpg").write_text("precious")
    with pytest.raises(StackError, match="is no virtual environment"):
        venv.ensure(["local"], layout)
    assert (tmp_path / "venv" / "holiday.jpg").exists()


def test_a_package_without_the_locked_hash_is_refused_with_pips_words(locks, layout):
    (locks / "local.txt").write_text("urllib3==2.8.0\n")
    with pytest.raises(StackError, match=r"local.txt.* failed") as failure:
        venv.ensure(["local"], layout)
    assert "hash" in failure.value.log.read_text().lower()
    assert "local" not in read_json(venv.folder() / "flash-sale.json")


def test_the_callers_python_settings_do_not_reach_ours():
    clean = venv.clean_environment({"PYTHONPATH": "/evil", "PIP_USER": "1", "HOME": "/root"})
    assert clean == {"HOME": "/root"}


def test_every_locked_requirement_has_a_hash_and_the_same_version_everywhere():
    versions: dict[str, set[str]] = {}
    for path in (ROOT / "deploy" / "requirements").glob("*.txt"):
        text = path.read_text().replace("\\\n", " ")
        for line in text.splitlines():
            if "==" in line:
                assert "--hash=sha256:" in line, f"{path.name}: {line}"
                name, _, version = line.split(" --hash")[0].partition("==")
                marker = version.partition(";")[2].strip()
                versions.setdefault(f"{name};{marker}", set()).add(version.split(";")[0].strip())
        assert "://" not in text, path.name
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_help_needs_no_virtual_environment(tmp_path):
    result = subprocess.run(
        ["/usr/bin/env", "python3", str(ROOT / "manage_all.py"), "--help"],
        env={"PATH": os.environ["PATH"], "FLASHSALE_VENV": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0
    assert "up" in result.stdout
    assert not (tmp_path / "none").exists()
