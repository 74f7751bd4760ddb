"""What must hold for every file of the repository, and for the ones beside the code."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deploy.stack.plan import TYPE_CHECKS
from tests.deploy.files import DEPLOY, ROOT

# In pieces, so that this file does not hold what it looks for.
REGISTRIES = (
    *("pypi" + ".org", "python" + "hosted.org", "npmjs" + ".org", "npmjs" + ".com"),
    *("yarnpkg" + ".com", "deb.debian" + ".org", "security.debian" + ".org"),
    *("archive.ubuntu" + ".com", "proxy.golang" + ".org", "crates" + ".io"),
)
INDEX_OPTIONS = (
    "--index" + "-url",
    "--extra-index" + "-url",
    "--find" + "-links",
    "--trusted" + "-host",
)
REQUIREMENTS = sorted((DEPLOY / "requirements").glob("*.txt"))
DECISIONS = sorted((DEPLOY / "decisions").glob("[0-9]*.md"))


def repository_files() -> list[Path]:
    """Return what git has or would add; without git, what lies here."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
        paths = [ROOT / name for name in listed.decode().split("\0") if name]
    except (OSError, subprocess.CalledProcessError):
        skipped = (".venv", "var", ".git")
        paths = [p for p in ROOT.rglob("*") if p.relative_to(ROOT).parts[0] not in skipped]
    return [path for path in paths if path.is_file()]


def test_no_file_names_a_package_registry() -> None:
    found = []
    for path in repository_files():
        content = path.read_bytes().lower()
        found += [f"{path.relative_to(ROOT)}: {r}" for r in REGISTRIES if r.encode() in content]
    assert not found


@pytest.mark.parametrize("path", REQUIREMENTS, ids=lambda path: path.name)
def test_every_locked_requirement_has_a_version_and_hashes_and_no_address(path: Path) -> None:
    text = re.sub(r"\\\n\s*", " ", path.read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.match(r"[a-z0-9._-]+(\[[a-z0-9,-]+\])?==[^ ]+ ", line), line[:80]
        assert "--hash=sha256:" in line, line[:80]
    assert not [option for option in INDEX_OPTIONS if option in text]
    assert "://" not in text


def test_all_requirement_files_agree_on_versions() -> None:
    versions: dict[str, set[str]] = {}
    for path in REQUIREMENTS:
        # With its marker: another Python may need another version.
        for name, version, marker in re.findall(
            r"^([a-z0-9._-]+)==([^ ;]+)([^\\\n]*)", path.read_text(), re.MULTILINE
        ):
            versions.setdefault(name + marker, set()).add(version)
    assert not {name: found for name, found in versions.items() if len(found) > 1}


def test_commit_hooks_use_the_locked_tools_of_this_machine() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    (repository,) = config["repos"]
    assert repository["repo"] == "local"
    assert all(hook["language"] == "system" for hook in repository["hooks"])
    assert all(".venv/bin/" in hook["entry"] for hook in repository["hooks"])
    commands = {hook["entry"].partition(".venv/bin/")[2] for hook in repository["hooks"]}
    assert {"ruff check --fix", "ruff format", "lint-imports"} <= commands
    for project, paths in TYPE_CHECKS.items():
        assert f"mypy --cache-dir .mypy_cache/{project} {' '.join(paths)}" in commands
    locked = (DEPLOY / "requirements" / "dev.txt").read_text()
    assert all(re.search(rf"^{tool}==", locked, re.M) for tool in ("ruff", "mypy", "import-linter"))


@pytest.mark.parametrize("path", DECISIONS, ids=lambda path: path.stem)
def test_a_decision_says_context_decision_and_consequences(path: Path) -> None:
    text = path.read_text()
    assert text.startswith(f"# {path.name[:4]} ")
    assert [text.count(f"**{part}.**") for part in ("Context", "Decision", "Consequences")] == [
        1
    ] * 3
    assert f"]({path.name})" in (DEPLOY / "decisions" / "README.md").read_text()


def test_links_between_documents_lead_somewhere() -> None:
    broken = []
    for path in repository_files():
        if path.suffix == ".md":
            for target in re.findall(r"\]\(([^)\s#]+)", path.read_text()):
                if "://" not in target and not (path.parent / target).exists():
                    broken.append(f"{path.relative_to(ROOT)} → {target}")
    assert not broken


def test_documents_name_files_that_exist() -> None:
    """Paths in backquotes, such as `deploy/compose/run.sh`."""
    top = {p.name for p in ROOT.iterdir() if p.is_dir() and not p.name.startswith(".")} - {"var"}
    missing = []
    for path in [*ROOT.glob("*.md"), *DEPLOY.rglob("*.md")]:
        for named in re.findall(r"`([A-Za-z_.]+/[A-Za-z0-9_./-]+)`", path.read_text()):
            generated = named == "deploy/.env"
            if named.split("/")[0] in top and not generated and not (ROOT / named).exists():
                missing.append(f"{path.relative_to(ROOT)}: {named}")
    assert not missing
