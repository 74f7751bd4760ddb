#!/usr/bin/env python3
"""Makes deploy/.env from deploy/.env.example, with random secrets; needs Python alone.

    python3 deploy/compose/make_env.py --public-url https://tickets.example.org

A value that is there already is kept, so that it can be run again after an update of the example;
only an explicit --public-url changes what depends on it.
"""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

DEPLOY = Path(__file__).resolve().parents[1]
EXAMPLE = DEPLOY / ".env.example"
DEFAULT_PUBLIC_URL = "http://127.0.0.1:8000"
# 48 random bytes make 64 characters, all of them fit for a URL.
SECRET_BYTES = 48
# Stripe's are Stripe's to give.
_SECRET = re.compile(r"(?!STRIPE_)[A-Z_]+_(SECRET_KEY|SECRET|PASSWORD)")
_LINE = re.compile(r"([A-Z_]+)=(.*)")
_LOCAL = ("127.0.0.1", "localhost")


def complete(example: str, known: dict[str, str], public_url: str | None = None) -> str:
    """Return the example with every value that must not be empty filled in."""
    wanted = from_url(public_url or known.get("PUBLIC_URL") or DEFAULT_PUBLIC_URL)
    fresh = {name for name in wanted if public_url or not known.get(name)}
    values = {**known, **{name: wanted[name] for name in fresh}}
    lines = []
    for line in example.splitlines():
        match = _LINE.fullmatch(line)
        if match:
            name = match[1]
            value = values.pop(name, "")
            if not value and _SECRET.fullmatch(name):
                value = secrets.token_urlsafe(SECRET_BYTES)
            line = f"{name}={value}"
        lines.append(line)
    # Names that the example does not have are somebody's own.
    lines += [f"{name}={value}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def from_url(public_url: str) -> dict[str, str]:
    """Return the settings that follow from what browsers use; ValueError if it is no such URL."""
    parts = urlsplit(public_url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/"):
        raise ValueError(f"not scheme://host[:port]: {public_url}")
    local = parts.hostname in _LOCAL
    return {
        "PUBLIC_URL": f"{parts.scheme}://{parts.netloc}",
        "ALLOWED_HOSTS": ",".join(_LOCAL) if local else parts.hostname,
        "COOKIE_SECURE": "true" if parts.scheme == "https" else "false",
    }


def read(path: Path) -> dict[str, str]:
    """Return the names and values of an env file; empty when there is none."""
    text = path.read_text() if path.exists() else ""
    matches = (_LINE.fullmatch(line) for line in text.splitlines())
    return {match[1]: match[2] for match in matches if match}


def write(path: Path, text: str) -> None:
    """Replace the file as a whole; only its owner can read it."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the file that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--public-url", help=f"what browsers use ({DEFAULT_PUBLIC_URL})")
    parser.add_argument("--output", type=Path, default=DEPLOY / ".env")
    options = parser.parse_args(argv)
    try:
        text = complete(EXAMPLE.read_text(), read(options.output), options.public_url)
    except ValueError as error:
        parser.error(str(error))
    write(options.output, text)
    sys.stdout.write(f"wrote {options.output}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
