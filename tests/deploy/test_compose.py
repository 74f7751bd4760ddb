"""The compose file describes the whole system, and each container may do no more than it must."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml

from tests.deploy import files
from tests.deploy.files import JOBS, LOOPS, MIGRATIONS, PYTHON, SERVICES, VALKEYS, WEB

Containers = dict[str, dict[str, Any]]
UNITS = {"m": 1, "mb": 1, "g": 1024, "gb": 1024}


def megabytes(size: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", size.lower()).groups()
    return int(number) * UNITS[unit]


def sources(container: dict[str, Any]) -> dict[str, str]:
    """Return what is mounted: source → target and mode."""
    return dict(volume.split(":", 1) for volume in container.get("volumes", []))


def test_every_process_of_the_system_has_a_container(containers: Containers) -> None:
    assert set(containers) == {*PYTHON, *VALKEYS, "mysql", "nginx"}


def test_every_container_has_limits_and_a_bounded_log(containers: Containers) -> None:
    for name, container in containers.items():
        limits = container["deploy"]["resources"]["limits"]
        assert float(limits["cpus"]) > 0, name
        assert megabytes(limits["memory"]) > 0, name
        assert limits["pids"] > 0, name
        assert set(container["logging"]["options"]) == {"max-size", "max-file"}, name


def test_jobs_run_once_and_all_others_are_restarted_and_watched(containers: Containers) -> None:
    for name, container in containers.items():
        check = container["healthcheck"]
        if name in JOBS:
            assert container["restart"] == "no", name
            assert check == {"disable": True}, name
        else:
            assert container["restart"] == "unless-stopped", name
            assert check["test"][0] in ("CMD", "CMD-SHELL"), name
            assert {"interval", "timeout", "retries", "start_period"} <= set(check), name


def test_only_nginx_publishes_a_port_and_by_default_to_this_machine(
    containers: Containers,
) -> None:
    published = {name: c["ports"] for name, c in containers.items() if "ports" in c}
    assert published == {"nginx": ["127.0.0.1:8000:8080"]}
    assert not any("expose" in c or c.get("network_mode") == "host" for c in containers.values())


def test_databases_have_no_way_out_and_nginx_none_to_them(env_file: dict[str, str]) -> None:
    whole = files.compose(env_file)
    closed = {
        name for name, options in whole["networks"].items() if (options or {}).get("internal")
    }
    containers = whole["services"]
    for name, container in containers.items():
        networks = set(container.get("networks", []))
        assert networks <= set(whole["networks"]), name
        assert networks or container.get("network_mode") == "none", name
        assert networks <= closed or name == "nginx", f"{name} has a way out"
    assert set(containers["mysql"]["networks"]).isdisjoint(containers["nginx"]["networks"])
    assert set(containers["mysql"]["networks"]).isdisjoint(containers["gateway"]["networks"])
    assert set(containers["cache"]["networks"]).isdisjoint(containers["nginx"]["networks"])


def test_no_container_can_gain_privileges(containers: Containers) -> None:
    for name, container in containers.items():
        assert "no-new-privileges:true" in container["security_opt"], name
        assert not {"privileged", "cap_add", "devices", "pid", "user"} & set(container), name
        assert "docker.sock" not in str(container), name
        if name in (*PYTHON, "nginx"):
            assert container["cap_drop"] == ["ALL"], name
            assert container["read_only"] is True, name
            assert container["tmpfs"], name


def test_images_are_pinned_and_named_after_the_version(containers: Containers) -> None:
    version = tomllib.loads((files.ROOT / "pyproject.toml").read_text())["project"]["version"]
    stages = files.dockerfile()
    for name, container in containers.items():
        image, _, tag = container["image"].rpartition(":")
        if "build" in container:
            assert image == f"flash-sale/{container['build']['target']}", name
            assert tag == version, name
            assert container["build"]["target"] in stages, name
            context = (files.COMPOSE.parent / container["build"]["context"]).resolve()
            assert (context / container["build"]["dockerfile"]).is_file(), name
        else:
            assert image.startswith("docker.io/"), name
            assert re.match(r"\d+\.\d+", tag), f"{name}: {tag} may be anything"


def test_mysql_flushes_at_every_commit_and_reads_committed(containers: Containers) -> None:
    options = containers["mysql"]["command"]
    assert "--innodb-flush-log-at-trx-commit=1" in options
    assert "--transaction-isolation=READ-COMMITTED" in options
    assert "--character-set-server=utf8mb4" in options
    assert "--require-secure-transport=ON" in options
    assert containers["mysql"]["image"].endswith("mysql:8.4")


def test_mysql_has_a_connection_for_every_thread_twice_over(containers: Containers) -> None:
    web = [containers[name]["environment"] for name in SERVICES]
    threads = sum(int(e["WEB_WORKERS"]) * int(e["WEB_THREADS"]) for e in web) + 5 * len(SERVICES)
    limit = next(o for o in containers["mysql"]["command"] if o.startswith("--max-connections="))
    assert int(limit.partition("=")[2]) >= 2 * threads


def test_the_cache_may_evict_and_the_streams_may_not(containers: Containers) -> None:
    def option(name: str, key: str) -> str:
        command: list[str] = containers[name]["command"]
        return command[command.index(f"--{key}") + 1]

    assert option("cache", "maxmemory-policy") == "allkeys-lru"
    assert option("streams", "maxmemory-policy") == "noeviction"
    assert option("streams", "appendonly") == "yes"
    assert sources(containers["streams"]) == {"streams-data": "/data"}
    for name in VALKEYS:
        limit = containers[name]["deploy"]["resources"]["limits"]["memory"]
        assert megabytes(option(name, "maxmemory")) < megabytes(limit)


def test_a_container_waits_for_what_it_needs(containers: Containers) -> None:
    for name, container in containers.items():
        for needed, how in container.get("depends_on", {}).items():
            expected = "completed_successfully" if needed in JOBS else "healthy"
            assert how["condition"] == f"service_{expected}", f"{name} → {needed}"
    for name in SERVICES:
        for process in (name, f"{name}-loops"):
            assert {"keys", f"{name}-migrate", *VALKEYS} <= set(containers[process]["depends_on"])
        assert set(containers[f"{name}-migrate"]["depends_on"]) == {"mysql"}
    assert set(containers["nginx"]["depends_on"]) == set(WEB)


def test_a_container_is_given_its_own_secrets_only(
    containers: Containers, env_file: dict[str, str]
) -> None:
    secrets = {k: v for k, v in env_file.items() if files.SECRET_NAME.search(k)}
    assert len(set(secrets.values())) == len(secrets) == 11
    for name, container in containers.items():
        environment = container.get("environment", {})
        holds = {k for k, v in secrets.items() if v in str(environment.values())}
        owner = name.partition("-")[0].upper()
        if name == "mysql":
            expected = {k for k in secrets if k.endswith("_PASSWORD")}
        elif name == "gateway":
            expected = {"GATEWAY_SECRET_KEY"}
        elif name in (*WEB, *LOOPS, *MIGRATIONS):
            expected = {f"{owner}_SECRET_KEY", f"{owner}_DB_PASSWORD"}
        else:
            expected = set()
        expected |= {"SANDBOX_WEBHOOK_SECRET"} if owner == "ORDER" else set()
        assert holds == expected, name
        assert not any(v in str(container.get("command")) for v in secrets.values()), name


def test_a_private_key_is_mounted_for_its_service_only_and_cannot_be_changed_there(
    containers: Containers, env_file: dict[str, str]
) -> None:
    volumes = files.compose(env_file)["volumes"]
    for name, container in containers.items():
        keys = {k: v for k, v in sources(container).items() if k.startswith("keys-")}
        assert set(keys) <= set(volumes), name
        if name == "keys":
            assert set(keys) == {"keys-public", *(f"keys-{issuer}" for issuer in WEB)}
            assert not any(target.endswith(":ro") for target in keys.values())
        elif name in (*WEB, *LOOPS):
            owner = name.removesuffix("-loops")
            assert keys == {
                "keys-public": "/keys/public:ro",
                f"keys-{owner}": f"/keys/private/{owner}:ro",
            }
        else:
            assert not keys, name


@pytest.mark.parametrize("name", ["PUBLIC_URL", "ALLOWED_HOSTS", "ORDER_SECRET_KEY"])
def test_a_missing_setting_stops_the_start(env_file: dict[str, str], name: str) -> None:
    with pytest.raises(files.Missing, match=name):
        files.compose({**env_file, name: ""})


def test_every_secret_is_demanded_and_every_name_of_the_env_file_is_used(
    env_file: dict[str, str],
) -> None:
    text = files.COMPOSE.read_text()
    used = set(re.findall(r"\$\{([A-Z_]+)", text))
    demanded = set(re.findall(r"\$\{([A-Z_]+):\?", text))
    assert used == set(env_file)
    assert {name for name in env_file if files.SECRET_NAME.search(name)} <= demanded


def test_with_stripe_the_order_service_alone_gets_a_way_out(containers: Containers) -> None:
    added = yaml.safe_load(files.COMPOSE.with_name("stripe.yaml").read_text())

    assert set(added["services"]) == {"order", "order-loops"}
    for name, changes in added["services"].items():
        assert changes == {"networks": [*containers[name]["networks"], "outside"]}
    assert added["networks"] == {"outside": None}
