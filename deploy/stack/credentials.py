"""Secrets that ``up`` makes once and keeps in ``secrets.json``, readable by their owner only."""

from __future__ import annotations

import secrets
import string
from pathlib import Path
from typing import Any

from deploy.stack.layout import SERVICES, read_json, write_json

KEY_BYTES = 48
PASSWORD_LENGTH = 16
ADMIN = "admin"
BUYERS = ("alice", "bob")


def load_or_make(path: Path) -> dict[str, Any]:
    """Return the secrets in the file, with those added that were missing."""
    known = read_json(path)
    keys = known.get("secret_keys", {})
    logins = known.get("logins", {})
    complete = {
        "secret_keys": {
            name: keys.get(name) or secrets.token_urlsafe(KEY_BYTES)
            for name in (*SERVICES, "gateway")
        },
        "sandbox_webhook_secret": known.get("sandbox_webhook_secret") or secrets.token_hex(32),
        "logins": {name: logins.get(name) or _password() for name in (ADMIN, *BUYERS)},
    }
    if complete != known:
        write_json(path, complete)
    return complete


def _password() -> str:
    # Letters and digits only: a person copies it, and a shell must not read a leading "-" as more.
    return "".join(
        secrets.choice(string.ascii_letters + string.digits) for _ in range(PASSWORD_LENGTH)
    )


def logins(known: dict[str, Any]) -> dict[str, Any]:
    """Return the logins as ``stack.json`` shows them."""
    entries = [{"username": name, "password": known["logins"][name]} for name in (ADMIN, *BUYERS)]
    return {"admin": entries[0], "buyers": entries[1:]}
