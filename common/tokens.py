"""Tokens on top of simplejwt: RS256 with ``kid``, verified against the local key ring.

simplejwt writes no ``kid``, leaves ``aud`` unchecked by default and would fetch keys over the
network; the backend here does those three things differently and leaves the rest to it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, NamedTuple, cast

import jwt
from django.conf import settings
from rest_framework_simplejwt.backends import TokenBackend
from rest_framework_simplejwt.exceptions import TokenError
from rest_framework_simplejwt.tokens import Token

from common.keyring import ALGORITHM, KeyRing, PublicKey

USER_ISSUER = "auth"
USER_AUDIENCE = "flashsale"
SERVICE_TOKEN_LIFETIME = timedelta(seconds=60)
REQUIRED_CLAIMS = ["exp", "iat", "iss", "aud", "sub", "jti"]
MAX_TOKEN_LENGTH = 4096
# Machines' clocks differ: a token may be so much older than its exp says. Its iat is not checked at
# all, or who is two seconds behind would refuse every fresh token.
CLOCK_LEEWAY = timedelta(seconds=30)
_rings: dict[str, KeyRing] = {}


def key_ring() -> KeyRing:
    """Return the process's ring of the keys under settings.KEYS_DIR."""
    folder = settings.KEYS_DIR
    return _rings.setdefault(str(folder), KeyRing(folder))


class RingTokenBackend(TokenBackend):
    """simplejwt's backend with keys chosen by ``kid`` and with every claim required."""

    def __init__(self, issuer: str, audience: str) -> None:
        super().__init__(ALGORITHM, audience=audience, issuer=issuer, leeway=CLOCK_LEEWAY)

    def encode(self, payload: dict[str, Any]) -> str:
        kid, key = key_ring().signing_key(str(self.issuer))
        claims = {**payload, "aud": self.audience, "iss": self.issuer}
        return jwt.encode(claims, key, algorithm=ALGORITHM, headers={"kid": kid})

    def decode(self, token: Any, verify: bool = True) -> dict[str, Any]:
        public = _public_key(token)
        if public is None or public.issuer != self.issuer:
            raise TokenError("Token is invalid")
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                public.key,
                algorithms=[ALGORITHM],
                audience=self.audience,
                issuer=self.issuer,
                leeway=CLOCK_LEEWAY,
                options={"require": REQUIRED_CLAIMS, "verify_iat": False},
            )
        except jwt.InvalidTokenError as error:
            raise TokenError("Token is invalid or expired") from error
        return claims


class AccessToken(Token):
    """What a signed-in person carries: who they are and their role, for 15 minutes."""

    token_type = "access"  # noqa: S105
    lifetime = settings.ACCESS_TOKEN_LIFETIME

    def get_token_backend(self) -> TokenBackend:
        return RingTokenBackend(USER_ISSUER, USER_AUDIENCE)

    @classmethod
    def issue(cls, *, user_id: int, username: str, role: str) -> AccessToken:
        """Return a fresh token; only a process with auth's private key can sign it."""
        token = cls()
        token["sub"] = str(user_id)
        token["username"] = username
        token["role"] = role
        return token


class ServiceToken(Token):
    """What one service shows another: signed with its own key, good for one audience."""

    token_type = "service"  # noqa: S105
    lifetime = SERVICE_TOKEN_LIFETIME

    def __init__(
        self, token: Any = None, verify: bool = True, *, issuer: str, audience: str
    ) -> None:
        self._backend = RingTokenBackend(issuer, audience)
        super().__init__(token, verify)

    def get_token_backend(self) -> TokenBackend:
        return self._backend


@dataclass(frozen=True)
class Principal:
    """Who is calling. ``role`` is ``user``, ``admin`` or ``service``; ``id`` is the token's sub."""

    id: str
    username: str
    role: str
    is_authenticated: bool = True
    is_anonymous: bool = False
    is_active: bool = True

    @property
    def pk(self) -> str:
        return self.id

    @property
    def is_staff(self) -> bool:
        return self.role == "admin"

    def __str__(self) -> str:
        return self.username


class _Verified(NamedTuple):
    """A token whose signature was good: who it speaks for, whose key it was, until when."""

    principal: Principal
    kid: str
    issuer: str
    ends_at: float


# A signature does not change, so it is checked once for each token and not for each request: it is
# the dearest part of a small one. Whether the key is still trusted and the time not over is asked
# every time.
VERIFIED_MAX = 10_000
_verified: OrderedDict[tuple[str, str], _Verified] = OrderedDict()


def principal_from(raw: str) -> Principal:
    """Return who a token speaks for; TokenError when it is not worth anything here.

    The kid names the key, the key's folder names the issuer, and the issuer decides what kind of
    token it may be: a service's key can never sign a person's token.
    """
    known = _verified.get((settings.SERVICE, raw)) if isinstance(raw, str) else None
    if known is not None and time.time() < known.ends_at:
        public = key_ring().find(known.kid)
        if public is not None and public.issuer == known.issuer:
            return known.principal
    public = _public_key(raw)
    if public is None:
        raise TokenError("Token is invalid")
    principal, claims = _principal_and_claims(raw, public)
    if len(_verified) >= VERIFIED_MAX:
        _verified.popitem(last=False)
    ends_at = claims["exp"] + CLOCK_LEEWAY.total_seconds()
    _verified[settings.SERVICE, raw] = _Verified(principal, public.kid, public.issuer, ends_at)
    return principal


def _principal_and_claims(raw: str, public: PublicKey) -> tuple[Principal, dict[str, Any]]:
    if public.issuer == USER_ISSUER:
        claims = AccessToken(cast(Any, raw)).payload
        role = claims.get("role")
        if role not in ("user", "admin"):
            raise TokenError("Token has no known role")
        return Principal(str(claims["sub"]), str(claims.get("username", "")), role), claims
    claims = ServiceToken(raw, issuer=public.issuer, audience=settings.SERVICE).payload
    if claims["sub"] != public.issuer:
        raise TokenError("Token is invalid")
    return Principal(public.issuer, public.issuer, "service"), claims


_service_tokens: dict[tuple[str, str], tuple[float, str]] = {}
_service_tokens_lock = threading.Lock()


def service_token(audience: str) -> str:
    """Return a signed token of this service for another one; reused for half of its life."""
    key = (settings.SERVICE, audience)
    with _service_tokens_lock:
        made_at, raw = _service_tokens.get(key, (float("-inf"), ""))
        if time.monotonic() - made_at > SERVICE_TOKEN_LIFETIME.total_seconds() / 2:
            token = ServiceToken(issuer=settings.SERVICE, audience=audience)
            token["sub"] = settings.SERVICE
            raw = str(token)
            _service_tokens[key] = (time.monotonic(), raw)
        return raw


def _public_key(raw: Any) -> PublicKey | None:
    if not isinstance(raw, str | bytes) or len(raw) > MAX_TOKEN_LENGTH:
        return None
    try:
        kid = jwt.get_unverified_header(raw).get("kid")
    except jwt.InvalidTokenError:
        return None
    return key_ring().find(kid) if isinstance(kid, str) else None
