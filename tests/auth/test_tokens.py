"""Access tokens: what is in them, and which forgeries are not believed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from django.conf import settings
from jwt.algorithms import RSAAlgorithm

from common.keyring import KeyRing, add_key, thumbprint
from common.tokens import AccessToken, ServiceToken, key_ring

pytestmark = pytest.mark.django_db
ME, JWKS = "/api/auth/me", "/api/auth/jwks.json"


@pytest.fixture
def claims(person: Any) -> dict[str, Any]:
    """Return good claims of a user who exists."""
    user = person("ann")
    token = AccessToken.issue(user_id=user.pk, username="ann", role="user")
    return {**token.payload, "iss": "auth", "aud": "flashsale"}


def _status(api: Any, raw: str) -> tuple[int, str]:
    response = api.get(ME, HTTP_AUTHORIZATION=f"Bearer {raw}")
    return response.status_code, response.json().get("code", "")


def _signed(claims: dict[str, Any], issuer: str = "auth", **headers: Any) -> str:
    kid, key = key_ring().signing_key(issuer)
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": kid, **headers})


REFUSED = (401, "invalid_token")


def test_a_login_signs_with_rs256_and_names_its_key(api: Any, person: Any, log_in: Any) -> None:
    user = person("ann")
    raw = log_in().json()["access"]
    header = jwt.get_unverified_header(raw)
    known = {key["kid"]: key for key in api.get(JWKS).json()["keys"]}
    assert header["alg"] == "RS256"
    public: Any = RSAAlgorithm.from_jwk(known[header["kid"]])
    claims = jwt.decode(raw, public, ["RS256"], audience="flashsale", issuer="auth")
    assert set(claims) == {
        *("iss", "aud", "sub", "jti", "iat", "exp", "token_type", "username", "role")
    }
    assert claims["sub"] == str(user.pk)
    assert (claims["username"], claims["role"]) == ("ann", "user")
    assert claims["token_type"] == "access"
    assert claims["exp"] - claims["iat"] == 900


def test_jwks_shows_auths_public_keys_and_nothing_else(api: Any) -> None:
    response = api.get(JWKS)
    keys = response.json()["keys"]
    assert [key["kid"] for key in keys] == [key.kid for key in key_ring().public_keys("auth")]
    for key in keys:
        assert set(key) == {"kty", "n", "e", "kid", "use", "alg", "key_ops"}
        public: Any = RSAAlgorithm.from_jwk(key)
        assert key["kid"] == thumbprint(public)
    assert "max-age" in response["Cache-Control"]


def test_a_well_made_token_is_believed(api: Any, claims: dict[str, Any]) -> None:
    assert _status(api, _signed(claims)) == (200, "")


def test_alg_none_is_not_believed(api: Any, claims: dict[str, Any]) -> None:
    kid, _ = key_ring().signing_key("auth")
    forged = jwt.encode(claims, None, algorithm="none", headers={"kid": kid})
    assert _status(api, forged) == REFUSED


def test_the_public_key_is_no_hmac_secret(api: Any, claims: dict[str, Any]) -> None:
    import base64
    import hashlib
    import hmac
    import json

    kid, key = key_ring().signing_key("auth")
    pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    parts = [{"alg": "HS256", "typ": "JWT", "kid": kid}, claims]
    text = b".".join(
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts
    )
    mac = hmac.new(pem, text, hashlib.sha256).digest()
    forged = text + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")
    assert _status(api, forged.decode()) == REFUSED


def test_a_key_that_nobody_knows_is_not_believed(api: Any, claims: dict[str, Any]) -> None:
    stranger = generate_private_key(public_exponent=65537, key_size=2048)
    own_kid = thumbprint(stranger.public_key())
    for kid in (own_kid, key_ring().signing_key("auth")[0], "../public/auth/x"):
        forged = jwt.encode(claims, stranger, algorithm="RS256", headers={"kid": kid})
        assert _status(api, forged) == REFUSED


@pytest.mark.parametrize("headers", [{}, {"kid": ""}, {"jku": "https://evil.example/"}])
def test_only_a_kid_of_the_key_ring_counts(
    api: Any, claims: dict[str, Any], headers: dict[str, Any]
) -> None:
    _, key = key_ring().signing_key("auth")
    assert _status(api, jwt.encode(claims, key, algorithm="RS256", headers=headers)) == REFUSED


@pytest.mark.parametrize(
    "change",
    [
        {"aud": "inventory"},
        {"aud": None},
        {"iss": "order"},
        {"exp": 1_700_000_000},
        {"token_type": "refresh"},
        {"token_type": "service"},
        {"role": "root"},
        {"role": "service"},
        {"nbf": 4_000_000_000},
    ],
    ids=str,
)
def test_a_token_with_another_claim_is_not_believed(
    api: Any, claims: dict[str, Any], change: dict[str, Any]
) -> None:
    assert _status(api, _signed({**claims, **change})) == REFUSED


@pytest.mark.parametrize(
    "missing", ["exp", "iat", "iss", "aud", "sub", "jti", "token_type", "role"]
)
def test_a_token_without_a_claim_is_not_believed(
    api: Any, claims: dict[str, Any], missing: str
) -> None:
    del claims[missing]
    assert _status(api, _signed(claims)) == REFUSED


def test_a_services_key_cannot_sign_for_a_person(api: Any, claims: dict[str, Any]) -> None:
    assert _status(api, _signed({**claims, "role": "admin"}, issuer="order")) == REFUSED
    assert _status(api, _signed({**claims, "iss": "order"}, issuer="order")) == REFUSED


def test_a_service_token_for_somebody_else_is_worth_nothing_here(api: Any) -> None:
    token = ServiceToken(issuer="order", audience="inventory")
    token["sub"] = "order"
    assert _status(api, str(token)) == REFUSED


@pytest.mark.parametrize("raw", ["", "a", "a.b.c", "e30.e30.", "." * 5000, "é", "Bearer x"])
def test_garbage_is_401_never_500(api: Any, raw: str) -> None:
    assert _status(api, raw) == REFUSED


def test_a_new_key_signs_within_seconds_and_the_old_ones_still_verify(tmp_path: Path) -> None:
    old = add_key(tmp_path, "auth")
    ring = KeyRing(tmp_path)
    assert ring.signing_key("auth")[0] == old
    new = add_key(tmp_path, "auth")
    deadline = time.monotonic() + 5
    while ring.signing_key("auth")[0] != new:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert {key.kid for key in ring.public_keys("auth")} == {old, new}


def test_private_keys_are_readable_by_their_owner_only() -> None:
    for path in (settings.KEYS_DIR / "private").glob("*/*.pem"):
        assert path.stat().st_mode & 0o077 == 0
