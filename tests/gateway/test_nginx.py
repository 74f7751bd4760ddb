"""The rendered configuration, as text, and as nginx itself reads it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.nginx import DROPPED_HEADERS, Options, render
from gateway.routes import ROUTES
from tests.gateway.edge import free_port, nginx_program

UPSTREAMS = dict.fromkeys(("auth", "catalog", "inventory", "order", "gateway"), "127.0.0.1:1")


@pytest.fixture
def text(tmp_path: Path) -> str:
    return render(Options("127.0.0.1:0", tmp_path, tmp_path, UPSTREAMS, exempt_ips=["10.0.0.0/8"]))


def location(text: str, opening: str) -> str:
    """Return the block of one location."""
    start = text.index(f"        location {opening} {{\n")
    return text[start : text.index("\n        }\n", start)]


def test_every_route_has_its_location(text: str) -> None:
    for route in ROUTES:
        if route.is_exact:
            assert f"location = {route.path} {{" in text
        elif route.is_prefix:
            assert f"location ^~ {route.prefix} {{" in text
        else:
            assert f'location ~ "^{route.regex}$" {{' in text


def test_nothing_is_proxied_with_another_path(text: str) -> None:
    targets = set(re.findall(r"proxy_pass (\S+);", text))
    assert targets == {
        *(f"http://{name}" for name in UPSTREAMS),
        "http://gateway/internal/gateway/authorize",
    }


def test_what_needs_a_caller_asks_the_gateway(text: str) -> None:
    assert "auth_request /.authorize;" in location(text, "= /api/orders")
    assert "auth_request /.authorize;" in location(text, "^~ /admin/inventory/")
    # Anyone may read the catalog, so only writes are asked about.
    assert "auth_request /.authorize-writes;" in location(text, "= /api/catalog/events")
    assert "auth_request" not in location(text, "= /api/auth/login")
    assert "auth_request" not in location(text, '~ "^/api/payments/webhooks/[A-Za-z0-9_-]{1,64}$"')


def test_only_routes_without_writes_are_tried_again(text: str) -> None:
    assert "proxy_next_upstream error" in location(text, "= /api/auth/me")
    assert "proxy_next_upstream " not in location(text, "= /api/orders")
    assert "\n    proxy_next_upstream off;" in text


def test_the_timeouts_are_those_that_were_decided(text: str) -> None:
    for line in (
        "proxy_connect_timeout 1s;",
        "proxy_read_timeout 8s;",
        "client_max_body_size 256k;",
    ):
        assert line in text


def test_a_location_that_sets_headers_of_its_own_drops_identities_too(text: str) -> None:
    # nginx inherits proxy_set_header only where a location has none.
    blocks = re.split(r"\n        location ", text)[1:]
    with_own = [
        b for b in blocks if "proxy_set_header" in b and "pass_request_headers off" not in b
    ]
    assert with_own
    for block in with_own:
        for name in ("X-User-Id", "Remote-User", "X-Forwarded-Host"):
            assert f'proxy_set_header {name} "";' in block


def test_identity_headers_are_dropped(text: str) -> None:
    for name in DROPPED_HEADERS:
        assert f'proxy_set_header {name} "";' in text
    assert "underscores_in_headers off;" in text


def test_the_file_says_what_made_it(text: str) -> None:
    assert "python -m gateway.nginx" in text.partition("\n")[0]


def test_all_paths_are_inside_the_run_directory(text: str, tmp_path: Path) -> None:
    paths = re.findall(r"(?:_path|pid|_log) (/\S+?)[; ]", text)
    assert len(paths) >= 8
    assert all(path.startswith(str(tmp_path)) for path in paths)


def test_exempt_addresses_are_not_limited(text: str) -> None:
    assert "10.0.0.0/8 1;" in text


def test_the_command_writes_a_configuration_that_nginx_accepts(tmp_path: Path) -> None:
    config = tmp_path / "conf" / "nginx.conf"
    addresses = [f"--{name}={address}" for name, address in UPSTREAMS.items()]
    subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "gateway.nginx",
                "--output",
                config,
                "--listen",
                f"127.0.0.1:{free_port()}",
            ),
            *("--run-dir", tmp_path / "run", "--static", tmp_path, "--exempt-ip", "127.0.0.1"),
            *("--workers", "2", "--access-log", "off", "--error-log", "stderr", *addresses),
        ],
        check=True,
        # Without Django's settings: `up` renders before anything is configured.
        env={"PATH": ""},
        cwd=Path(__file__).parents[2],
    )
    checked = subprocess.run(
        [nginx_program(), "-e", "stderr", "-t", "-c", str(config)], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
    assert "[warn]" not in checked.stderr
