"""Reading an Idempotency-Key and the fingerprint of what it was sent with."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from django.http import HttpRequest
from rest_framework.request import Request

from common.errors import Problem

HEADER = "Idempotency-Key"
WELL_FORMED = re.compile(r"[A-Za-z0-9_-]{1,64}")


def idempotency_key(request: HttpRequest | Request, *, required: bool) -> str | None:
    """Return the request's key; 400 when it is malformed, or missing though required."""
    key = request.headers.get(HEADER)
    if key is None:
        if not required:
            return None
        raise Problem(
            400,
            "idempotency_key_required",
            "Send an Idempotency-Key header, new for every purchase and the same for its retries.",
        )
    if not WELL_FORMED.fullmatch(key):
        raise Problem(
            400,
            "idempotency_key_invalid",
            "An Idempotency-Key is 1 to 64 characters of A-Z, a-z, 0-9, _ and -.",
        )
    return key


def fingerprint(method: str, route: str, body: Any) -> str:
    """Return the SHA-256 of method, route and canonical body (members sorted, no white space)."""
    canonical = json.dumps(body, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(f"{method} {route}\n{canonical}".encode()).hexdigest()


def key_reused() -> Problem:
    """Return the refusal for a key that was sent before with something else."""
    return Problem(
        422,
        "idempotency_key_reused",
        "This Idempotency-Key was used before with another body; use a new key.",
    )
