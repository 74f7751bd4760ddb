"""Tokens: what is signed, and everything that a forger could try instead."""

from __future__ import annotations

import base64
import json
import time
from datetime import timedelta

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from rest_framework_simplejwt.exceptions import TokenError

from common import tokens
from common.keyring import add_key, thumbprint
from common.tokens import (
    CLOCK_LEEWAY,
    MAX_TOKEN_LENGTH,
    REQUIRED_CLAIMS,
    AccessToken,
    Principal,
    ServiceToken,
    key_ring,
    principal_from,
    service_token,
)


def claims_of_a_user(**changes):
    """Return the claims of a good access token, with changes; None takes a claim away."""
    claims = {**AccessToken.issue(user_id=5, username="ann", role="user").payload}
    claims |= {"iss": "auth", "aud": "flashsale", **changes}
    return {name: value for name, value in claims.items() if value is not None}


def claims_of_a_service(issuer="order", **changes):
    token = ServiceToken(issuer=issuer, audience="inventory")
    claims = {**token.payload, "sub": issuer, "iss": issuer, "aud": "inventory", **changes}
    return {name: value for name, value in claims.items() if value is not None}


def signed(claims, issuer="auth", **header):
    """Return a token over any claims, signed with an issuer's real key."""
    kid, key = key_ring().signing_key(issuer)
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": kid, **header})


def refused(raw):
    with pytest.raises(TokenError):
        principal_from(raw)
    return True


def part(value):
    """Return one part of a hand-made token."""
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def test_an_access_token_says_who_somebody_is():
    raw = str(AccessToken.issue(user_id=5, username="ann", role="admin"))

    assert principal_from(raw) == Principal("5", "ann", "admin")
    header, claims = (
        jwt.get_unverified_header(raw),
        jwt.decode(raw, options={"verify_signature": False}),
    )
    assert (header["alg"], header["kid"]) == ("RS256", key_ring().signing_key("auth")[0])
    assert claims["token_type"] == "access"
    assert claims["exp"] - claims["iat"] == 15 * 60
    assert set(REQUIRED_CLAIMS) <= claims.keys()


def test_a_service_token_says_which_service_calls():
    raw = signed(claims_of_a_service(), issuer="order")
    assert principal_from(raw) == Principal("order", "order", "service")


def test_our_own_service_token_is_good_for_one_audience_and_a_minute(settings):
    raw = service_token("catalog")
    claims = jwt.decode(raw, options={"verify_signature": False})
    assert (claims["iss"], claims["sub"], claims["aud"]) == ("inventory", "inventory", "catalog")
    assert claims["exp"] - claims["iat"] == 60
    assert refused(raw), "it is not for us"
    settings.SERVICE = "catalog"
    assert principal_from(raw).role == "service"


def test_a_service_token_is_reused_for_half_of_its_life(monkeypatch):
    monkeypatch.setattr(tokens, "_service_tokens", {})
    first = service_token("order")
    assert service_token("order") == first
    assert service_token("catalog") != first

    now = time.monotonic()
    monkeypatch.setattr(tokens.time, "monotonic", lambda: now + 31)
    assert service_token("order") != first


LONG_PAST = int(time.time() - CLOCK_LEEWAY.total_seconds()) - 1
BAD_USER_CLAIMS = {
    "expired": {"exp": LONG_PAST},
    "an exp that is no time": {"exp": "tomorrow"},
    "another audience": {"aud": "inventory"},
    "another audience among several": {"aud": ["a", "b"]},
    "another issuer": {"iss": "order"},
    "an unknown issuer": {"iss": "google"},
    "a refresh token": {"token_type": "refresh"},
    "a service token of auth": {"token_type": "service"},
    "no type": {"token_type": None},
    "no role": {"role": None},
    "a role that is none": {"role": "root"},
    "the role of a service": {"role": "service"},
    "a list of roles": {"role": ["admin"]},
    "a sub that is no text": {"sub": 5},
    **{f"no {claim}": {claim: None} for claim in REQUIRED_CLAIMS},
}


@pytest.mark.parametrize("flaw", BAD_USER_CLAIMS)
def test_a_users_token_with_a_flaw_is_refused_though_auth_signed_it(flaw):
    assert principal_from(signed(claims_of_a_user()))
    assert refused(signed(claims_of_a_user(**BAD_USER_CLAIMS[flaw])))


BAD_SERVICE_CLAIMS = {
    "expired": {"exp": LONG_PAST},
    "for another service": {"aud": "order"},
    "for users' audience": {"aud": "flashsale"},
    "speaking for another service": {"sub": "catalog"},
    "issued as another service": {"iss": "catalog", "sub": "catalog"},
    "issued as auth": {"iss": "auth"},
    "a user's type": {"token_type": "access"},
    **{f"no {claim}": {claim: None} for claim in REQUIRED_CLAIMS},
}


@pytest.mark.parametrize("flaw", BAD_SERVICE_CLAIMS)
def test_a_services_token_with_a_flaw_is_refused_though_it_signed_it(flaw):
    assert principal_from(signed(claims_of_a_service(), issuer="order"))
    assert refused(signed(claims_of_a_service(**BAD_SERVICE_CLAIMS[flaw]), issuer="order"))


@pytest.mark.parametrize("issuer", ["order", "catalog", "inventory", "gateway"])
def test_a_services_key_cannot_sign_a_persons_token(issuer):
    assert refused(signed(claims_of_a_user(role="admin"), issuer=issuer))
    assert refused(signed(claims_of_a_user(role="admin", iss=issuer), issuer=issuer))
    assert refused(signed(claims_of_a_user(aud="inventory", role="admin"), issuer=issuer))


def test_a_token_class_takes_its_issuers_key_and_no_other():
    """Also where a token is read without asking first whom it speaks for."""
    assert AccessToken(signed(claims_of_a_user()))
    with pytest.raises(TokenError):
        AccessToken(signed(claims_of_a_user(), issuer="order"))
    of_order = signed(claims_of_a_service(), issuer="order")
    forged = signed(claims_of_a_service(), issuer="catalog")
    assert ServiceToken(of_order, issuer="order", audience="inventory")
    with pytest.raises(TokenError):
        ServiceToken(forged, issuer="order", audience="inventory")


def test_auths_key_cannot_sign_a_services_token():
    assert refused(signed(claims_of_a_service(issuer="auth"), issuer="auth"))


def test_a_kid_of_one_issuer_does_not_lend_its_trust_to_the_key_of_another():
    auths_kid, _ = key_ring().signing_key("auth")
    orders_kid, _ = key_ring().signing_key("order")
    assert refused(signed(claims_of_a_user(), issuer="order", kid=auths_kid))
    assert refused(signed(claims_of_a_user(), issuer="auth", kid=orders_kid))


def test_a_key_of_somebody_else_opens_nothing(tmp_path, settings):
    ours = settings.KEYS_DIR
    add_key(tmp_path, "auth")
    settings.KEYS_DIR = tmp_path
    forged = signed(claims_of_a_user())
    settings.KEYS_DIR = ours
    kid, _ = key_ring().signing_key("auth")
    assert refused(forged)
    settings.KEYS_DIR = tmp_path
    forged = signed(claims_of_a_user(), kid=kid)
    settings.KEYS_DIR = ours
    assert refused(forged)


@pytest.mark.parametrize("kid", [None, 5, True, [], {}, "", "x", "../auth/x", "a" * 3_000, "\x00"])
def test_a_kid_that_names_no_key_is_refused(kid):
    header = {"alg": "RS256", "typ": "JWT"} | ({} if kid is None else {"kid": kid})
    raw = f"{part(header)}.{part(claims_of_a_user())}.{part(b'signature')}"
    assert refused(raw)


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "", "HS256", "RS384", "PS256", "ES256"]
)
def test_the_algorithm_is_not_the_tokens_choice(algorithm):
    kid, _ = key_ring().signing_key("auth")
    unsigned = f"{part({'alg': algorithm, 'kid': kid})}.{part(claims_of_a_user())}."
    assert refused(unsigned)
    assert refused(unsigned + part(b"x" * 256))


def test_the_public_key_does_not_work_as_a_shared_secret():
    import hashlib
    import hmac

    kid, private = key_ring().signing_key("auth")
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    content = f"{part({'alg': 'HS256', 'kid': kid})}.{part(claims_of_a_user(role='admin'))}"
    mac = hmac.new(public, content.encode(), hashlib.sha256).digest()
    assert refused(f"{content}.{part(mac)}")


def test_a_key_inside_the_token_is_not_looked_at(tmp_path):
    add_key(tmp_path, "auth")
    (pem,) = (tmp_path / "private" / "auth").glob("*.pem")
    key = serialization.load_pem_private_key(pem.read_bytes(), password=None)
    own = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    for header in ({"jwk": own}, {"jku": "http://127.0.0.1/jwks"}, {"x5u": "http://127.0.0.1/"}):
        headers = {**header, "kid": thumbprint(key.public_key())}
        assert refused(jwt.encode(claims_of_a_user(), key, algorithm="RS256", headers=headers))


def test_a_changed_token_is_refused():
    header, payload, signature = signed(claims_of_a_user()).split(".")
    assert refused(f"{header}.{part(claims_of_a_user(role='admin'))}.{signature}")
    assert refused(f"{header}.{payload}.{part(b'x' * 256)}")
    assert refused(f"{header}.{payload}.")
    assert refused(f"{header}.{payload}")


@pytest.mark.parametrize(
    "raw",
    [
        *["", ".", "..", "...", "a.b.c", "é.é.é", "\x00", " ", "null", "e30.e30.e30"],
        *[f"{part(value)}.e30.e30" for value in ([], "x", 1, None, b"\xff\xfe", b"{")],
        *["." * 4_000, "x" * 100_000, b"\xff", None, 5, ["a"]],
        pytest.param(f"{part(b'[' * 2_900)}.e30.e30", id="a header of brackets"),
        pytest.param(part(b'{"a":' * 590) + ".e30.e30", id="a header of objects"),
    ],
    ids=lambda raw: ascii(raw)[:25],
)
def test_rubbish_is_refused_and_never_a_crash(raw):
    assert refused(raw)


def test_an_oversized_token_is_refused_before_it_is_read():
    big = signed(claims_of_a_user(padding="x" * MAX_TOKEN_LENGTH))
    assert len(big) > MAX_TOKEN_LENGTH
    assert refused(big)
    assert principal_from(signed(claims_of_a_user(padding="x" * 1_000)))


def test_a_token_ends_when_it_says_but_for_the_clocks_leeway():
    def ending_in(lifetime):
        token = AccessToken.issue(user_id=5, username="ann", role="user")
        token.set_exp(lifetime=lifetime)
        return str(token)

    assert principal_from(ending_in(timedelta(seconds=5) - CLOCK_LEEWAY))
    raw = ending_in(timedelta(seconds=2) - CLOCK_LEEWAY)
    assert principal_from(raw)
    time.sleep(2.1)
    assert refused(raw)


@pytest.mark.parametrize("seconds", [2, 25])
def test_who_is_behind_the_signers_clock_believes_a_fresh_token(seconds):
    ahead = int(time.time()) + seconds
    assert principal_from(signed(claims_of_a_user(iat=ahead, exp=ahead + 900)))
    claims = claims_of_a_service(iat=ahead, exp=ahead + 60)
    assert principal_from(signed(claims, issuer="order"))


def test_a_principal_is_what_djangos_and_drfs_pages_expect_of_a_user():
    admin, user = Principal("5", "ann", "admin"), Principal("6", "bob", "user")
    assert (admin.pk, str(admin), admin.is_staff, user.is_staff) == ("5", "ann", True, False)
    assert admin.is_authenticated
    assert not admin.is_anonymous
