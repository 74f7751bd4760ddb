"""Identifiers: time-ordered UUIDs, and ids derived from what a client sent."""

from __future__ import annotations

import hashlib
import os
import time
import uuid

# Namespace of ids derived from (user, idempotency key); changing it would forget every key.
NAMESPACE = uuid.UUID("6f2cbd0e-3f4e-5f0c-9f39-0d8c1c6f3a11")


def uuid7() -> uuid.UUID:
    """Return a UUIDv7 (RFC 9562): 48 bits of milliseconds, the rest random."""
    value = time.time_ns() // 1_000_000 << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    value = value & ~(0x3 << 62) | 0x2 << 62
    return uuid.UUID(int=value)


def derived_uuid(*parts: str) -> uuid.UUID:
    """Return the same UUIDv5 for the same parts, on every process and machine."""
    return uuid.uuid5(NAMESPACE, _joined(parts))


def derived_token(*parts: str) -> str:
    """Return 40 hex digits derived from the parts; fits ids of ``A-Za-z0-9_-`` up to 64 long."""
    return hashlib.sha256(_joined(parts).encode()).hexdigest()[:40]


def _joined(parts: tuple[str, ...]) -> str:
    # Lengths in front make ("ab", "c") and ("a", "bc") different.
    return "".join(f"{len(part)}:{part}" for part in parts)
