"""Failpoints: nothing unless switched on; then exactly one death, at the chosen hit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOOP = """
import sys
from common.failpoints import failpoint
for number in range(5):
    print(number, flush=True)
    failpoint("here")
"""
# One thread at each of eight points, at the same moment.
CROWD = """
import sys, threading
from common.failpoints import failpoint
sys.setswitchinterval(1e-6)
start = threading.Barrier(8)
def come(number):
    start.wait()
    failpoint(f"point{number}")
threads = [threading.Thread(target=come, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def run(folder: Path | None, program: str = LOOP) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "FAILPOINTS"}
    if folder is not None:
        env["FAILPOINTS"] = str(folder)
    return subprocess.run(
        [sys.executable, "-c", program], env=env, capture_output=True, text=True, check=False
    )


def test_a_failpoint_does_nothing_unless_it_is_switched_on(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("1")
    assert run(None).returncode == 0
    (tmp_path / "here").rename(tmp_path / "elsewhere")
    assert run(tmp_path).returncode == 0


def test_the_process_dies_at_the_chosen_hit_and_only_once(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("3")
    died = run(tmp_path)
    assert (died.returncode, died.stdout.split()) == (-9, ["0", "1", "2"])
    assert (tmp_path / "here.hit").exists()
    assert run(tmp_path).returncode == 0


def test_processes_that_share_the_folder_count_together(tmp_path: Path) -> None:
    (tmp_path / "here").write_text("7")
    assert run(tmp_path).returncode == 0
    assert run(tmp_path).stdout.split() == ["0", "1"]


def test_a_count_survives_that_its_process_dies_at_another_point_meanwhile(tmp_path: Path) -> None:
    """Either somebody has died at a point, or it is armed for the next one who comes."""
    points = [f"point{number}" for number in range(8)]
    for _ in range(3):
        for point in points:
            (tmp_path / f"{point}.hit").unlink(missing_ok=True)
            (tmp_path / point).write_text("1")
        for _ in points:
            if not all((tmp_path / f"{point}.hit").exists() for point in points):
                assert run(tmp_path, CROWD).returncode == -9
        assert run(tmp_path, CROWD).returncode == 0
        assert sorted(path.name for path in tmp_path.iterdir()) == [f"{p}.hit" for p in points]
