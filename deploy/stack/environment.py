"""The environment of the processes: what the caller has set wins, the rest is filled in here."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from typing import Any

from deploy.stack.errors import StackError
from deploy.stack.layout import SERVICES, Layout
from deploy.stack.venv import clean_environment

LOCAL_HOST = "127.0.0.1"
# Workers per service on the usual two cores. One process batches best where requests share a
# transaction; the gateway is asked about every request, and Python needs a process per core there.
# Inventory has more threads than order has to call it with: calls that wait for a ticket that
# stalls shall not keep the others out.
WEB_WORKERS = {"auth": 1, "catalog": 1, "inventory": 1, "order": 1, "gateway": 2}
WEB_THREADS = {"auth": 8, "catalog": 16, "inventory": 80, "order": 64, "gateway": 16}

# As many as an outbox has partitions: more would have nothing to send.
RELAYS_MAX = 8

# What a program needs of the machine, whoever starts it.
BASIC_VARIABLES = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "TMPDIR")


def basics() -> dict[str, str]:
    """Return those variables of this process that every program expects."""
    return {name: os.environ[name] for name in BASIC_VARIABLES if name in os.environ}


def uses_mysql(database: str, environment: Mapping[str, str]) -> bool:
    """Tell whether any service runs on MySQL or MariaDB, private or the caller's own."""
    return database == "mysql" or any(
        environment.get(f"{service.upper()}_DATABASE_URL", "").startswith("mysql")
        for service in SERVICES
    )


def uses_nats(environment: Mapping[str, str]) -> bool:
    """Tell whether events travel over NATS."""
    return environment.get("EVENT_TRANSPORT", "").partition("://")[0] in ("nats", "tls")


def more_relays(environment: Mapping[str, str]) -> int:
    """Return how many relays a service has beside the one among its loops."""
    text = environment.get("RELAYS") or "1"
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= RELAYS_MAX:
        raise StackError(f"RELAYS is a number from 1 to {RELAYS_MAX}, not {text!r}")
    return int(text) - 1


def shared_environment(
    layout: Layout,
    known: dict[str, Any],
    *,
    caller: Mapping[str, str],
    service_urls: Mapping[str, str],
    public_url: str,
    redis_urls: Mapping[str, str],
    database_urls: Mapping[str, str],
) -> dict[str, str]:
    """Return what all processes get; what the caller has set beats the defaults."""
    defaults = {
        "ALLOWED_HOSTS": f"{LOCAL_HOST},localhost",
        "COOKIE_SECURE": "false",
        "LIMIT_EXEMPT_IPS": LOCAL_HOST,
        "LOG_FORMAT": "console",
        "KEYS_DIR": str(layout.keys),
        "SANDBOX_WEBHOOK_SECRET": known["sandbox_webhook_secret"],
        "PYTHONUNBUFFERED": "1",
        **{f"{name.upper()}_SECRET_KEY": key for name, key in known["secret_keys"].items()},
        **redis_urls,
        **database_urls,
    }
    # Where the processes of this system are is not for the caller to say.
    own = {
        "FLASHSALE_VAR": str(layout.var),
        "PUBLIC_URL": caller.get("PUBLIC_URL") or public_url,
        **{f"{name.upper()}_URL": url for name, url in service_urls.items()},
    }
    return {**defaults, **clean_environment(caller), **own}


def web_environment(shared: Mapping[str, str], name: str, bind: str) -> dict[str, str]:
    """Return the environment of a service's gunicorn."""
    return {
        "WEB_WORKERS": str(WEB_WORKERS[name]),
        "WEB_THREADS": str(WEB_THREADS[name]),
        **shared,
        "WEB_BIND": bind,
    }


def for_later(environment: Mapping[str, str], database: str) -> dict[str, Any]:
    """Return what `manage` and `audit` need to meet the same databases, keys and services.

    What the caller's own environment holds anyway is not written to disk, but for addresses.
    """
    return {
        "database": database,
        "env": {
            name: value
            for name, value in environment.items()
            if os.environ.get(name) != value or name.endswith(("_URL", "EVENT_TRANSPORT"))
        },
    }


def fingerprint(environment: Mapping[str, str], database: str) -> str:
    """Return a short name for the set of databases in use."""
    urls = [environment.get(f"{service.upper()}_DATABASE_URL", "") for service in SERVICES]
    # A private server's socket may lie elsewhere the next time, without being another database.
    external = [] if database == "mysql" else [url for url in urls if url]
    digest = hashlib.sha256(" ".join(external).encode()).hexdigest()[:12]
    return f"{database}-{digest}" if external else database
