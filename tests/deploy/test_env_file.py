"""deploy/.env: an example without secrets, and a script that fills them in."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.compose import make_env
from tests.deploy import files

SCRIPT = files.DEPLOY / "compose" / "make_env.py"
OPTIONAL = {
    *("PUBLISH", "HOLD_TTL_SECONDS", "HOLD_EXTENSION_SECONDS", "LOG_LEVEL", "LATE_PAYMENT"),
    *("PAYMENT_PROVIDER", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET", "EVENT_TRANSPORT"),
}


def make(output: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script as an operator would: with any Python, without the project's packages."""
    return subprocess.run(
        [sys.executable, "-I", "-S", str(SCRIPT), "--output", str(output), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_example_names_everything_and_holds_no_value() -> None:
    text = make_env.EXAMPLE.read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines
    assert all(line.endswith("=") for line in lines)


def test_the_script_fills_in_everything_that_must_not_be_empty(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    assert make(path).returncode == 0
    values = make_env.read(path)
    assert set(values) == set(files.env_file())
    assert {name for name, value in values.items() if not value} == OPTIONAL
    secrets = [value for name, value in values.items() if files.SECRET_NAME.search(name)]
    assert len(secrets) == len(set(secrets)) == 11
    assert all(len(secret) >= 50 for secret in secrets)
    # Django's check --deploy wants five different characters at least, a URL none of its own.
    assert all(secret.replace("-", "").replace("_", "").isalnum() for secret in secrets)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_two_deployments_share_no_secret() -> None:
    first, second = files.env_file(), files.env_file()
    assert not [n for n in first if files.SECRET_NAME.search(n) and first[n] == second[n]]


def test_a_second_run_changes_nothing_and_adds_what_is_new(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    make(path)
    before = path.read_text()
    make(path)
    assert path.read_text() == before
    kept = "".join(f"{line}\n" for line in before.splitlines() if "SANDBOX" not in line)
    path.write_text(kept + "MY_OWN=1\n")
    make(path)
    after = make_env.read(path)
    assert after.pop("MY_OWN") == "1"
    assert after["SANDBOX_WEBHOOK_SECRET"]
    for line in before.splitlines():
        name, separator, value = line.partition("=")
        if separator and name != "SANDBOX_WEBHOOK_SECRET" and not name.startswith("#"):
            assert after[name] == value


@pytest.mark.parametrize(
    ("url", "hosts", "secure"),
    [
        ("https://tickets.example.org", "tickets.example.org", "true"),
        ("https://tickets.example.org:8443/", "tickets.example.org", "true"),
        ("http://127.0.0.1:8000", "127.0.0.1,localhost", "false"),
    ],
)
def test_what_browsers_use_decides_hosts_and_cookies(url: str, hosts: str, secure: str) -> None:
    values = files.env_file(url)
    assert values["PUBLIC_URL"] == url.rstrip("/")
    assert (values["ALLOWED_HOSTS"], values["COOKIE_SECURE"]) == (hosts, secure)


def test_another_address_can_be_given_later(tmp_path: Path) -> None:
    path = tmp_path / ".env"
    make(path)
    before = make_env.read(path)
    make(path, "--public-url", "https://tickets.example.org")
    after = make_env.read(path)
    assert {name for name in after if after[name] != before[name]} == {
        "PUBLIC_URL",
        "ALLOWED_HOSTS",
        "COOKIE_SECURE",
    }


@pytest.mark.parametrize(
    "url", ["tickets.example.org", "ftp://a.example", "https://a.example/shop"]
)
def test_an_address_that_cannot_be_is_refused(tmp_path: Path, url: str) -> None:
    path = tmp_path / ".env"
    result = make(path, "--public-url", url)
    assert result.returncode == 2
    assert url in result.stderr
    assert not path.exists()
