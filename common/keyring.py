"""Signing keys as files: who may sign as whom is decided by the folder a public key lies in.

``private/<issuer>/<kid>.pem`` is readable by its owner only; ``public/<issuer>/<kid>.pem`` is what
every service reads. The kid is the key's RFC 7638 thumbprint.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    generate_private_key,
)
from jwt.algorithms import RSAAlgorithm

log = structlog.get_logger(__name__)

ALGORITHM = "RS256"
KEY_BITS = 2048
# An unknown kid makes the ring look at the folder again, but not more often than this:
# forged kids must not cost a directory scan each.
RELOAD_INTERVAL_SECONDS = 1.0
# A new key signs only when every ring, however lately it has looked, finds its public half.
SETTLING_SECONDS = 2 * RELOAD_INTERVAL_SECONDS
# A key that was taken away is forgotten after this long at the latest.
REFRESH_INTERVAL_SECONDS = 60.0


@dataclass(frozen=True)
class PublicKey:
    """A key that verifies tokens of one issuer."""

    issuer: str
    kid: str
    key: RSAPublicKey


class KeyRing:
    """The public keys of all issuers, and the newest private key of those this process may be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._public: dict[str, PublicKey] = {}
        self._signing: dict[str, tuple[float, str, RSAPrivateKey]] = {}
        self._loaded_at = float("-inf")
        self._lock = threading.Lock()

    def find(self, kid: str) -> PublicKey | None:
        """Return the public key with that kid; a key added on disk is found within a second."""
        age_seconds = time.monotonic() - self._loaded_at
        if kid not in self._public or age_seconds > REFRESH_INTERVAL_SECONDS:
            self._reload()
        return self._public.get(kid)

    def public_keys(self, issuer: str) -> list[PublicKey]:
        """Return the issuer's public keys, by kid."""
        self._reload()
        return sorted(
            (key for key in self._public.values() if key.issuer == issuer), key=lambda k: k.kid
        )

    def signing_key(self, issuer: str) -> tuple[str, RSAPrivateKey]:
        """Return (kid, key) of the issuer's newest private key; FileNotFoundError without one.

        A newer key added on disk is taken up after two to three seconds: see SETTLING_SECONDS.
        """
        looked_at, kid, key = self._signing.get(issuer, (float("-inf"), "", None))
        now = time.monotonic()
        if key is None or now - looked_at > RELOAD_INTERVAL_SECONDS:
            newest = self._newest_private(issuer)
            if key is None or newest.stem != kid:
                loaded = serialization.load_pem_private_key(newest.read_bytes(), password=None)
                assert isinstance(loaded, RSAPrivateKey)
                kid, key = newest.stem, loaded
            self._signing[issuer] = (now, kid, key)
        return kid, key

    def _newest_private(self, issuer: str) -> Path:
        paths = list((self.folder / "private" / issuer).glob("*.pem"))
        if not paths:
            raise FileNotFoundError(
                f"no private key of {issuer!r} under {self.folder}; "
                "`manage_all.py up` makes one, or run the auth service's rotate_keys"
            )
        made_at = {path: path.stat().st_mtime for path in paths}
        settled = [path for path in paths if time.time() - made_at[path] >= SETTLING_SECONDS]
        if settled:
            return max(settled, key=made_at.__getitem__)
        # All new: the oldest of them is the likeliest to be known already.
        return min(paths, key=made_at.__getitem__)

    def _reload(self) -> None:
        with self._lock:
            # The moment before looking: what is added while this looks may be missed.
            now = time.monotonic()
            if now - self._loaded_at < RELOAD_INTERVAL_SECONDS:
                return
            found = {}
            for path in (self.folder / "public").glob("*/*.pem"):
                key = _public_key_in(path)
                if key is not None:
                    found[path.stem] = PublicKey(path.parent.name, path.stem, key)
            self._public = found
            self._loaded_at = now


def ensure_keys(folder: Path, issuers: Iterable[str]) -> list[str]:
    """Make a key for every issuer that has none; return the issuers that got one."""
    made = []
    for issuer in issuers:
        if not list((folder / "private" / issuer).glob("*.pem")):
            add_key(folder, issuer)
            made.append(issuer)
    return made


def add_key(folder: Path, issuer: str) -> str:
    """Make a new key pair; the public half is on disk before the private one. Return the kid."""
    private = generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    public = private.public_key()
    kid = thumbprint(public)
    public_pem = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    private_pem = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    _write(folder / "public" / issuer / f"{kid}.pem", public_pem, 0o644)
    _write(folder / "private" / issuer / f"{kid}.pem", private_pem, 0o600)
    return kid


def jwk(public: RSAPublicKey, kid: str) -> dict[str, Any]:
    """Return the key as a JSON Web Key (RFC 7517)."""
    return {
        **RSAAlgorithm.to_jwk(public, as_dict=True),
        "kid": kid,
        "use": "sig",
        "alg": ALGORITHM,
        "key_ops": ["verify"],
    }


def thumbprint(public: RSAPublicKey) -> str:
    """Return the RFC 7638 thumbprint, base64url without padding."""
    members = RSAAlgorithm.to_jwk(public, as_dict=True)
    canonical = json.dumps(
        {name: members[name] for name in ("e", "kty", "n")}, sort_keys=True, separators=(",", ":")
    )
    digest = hashlib.sha256(canonical.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _public_key_in(path: Path) -> RSAPublicKey | None:
    """Return the file's key; None for what is no RSA key, such as one that is still copied here."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        log.error("not a public key", path=str(path), error=str(error))
        return None
    return key if isinstance(key, RSAPublicKey) else None


def _write(path: Path, content: bytes, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temporary = path.with_suffix(".tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    # A reader sees the whole key or none.
    temporary.rename(path)
