"""Keys as files: who may read them, how a new one is found, and what their names mean."""

from __future__ import annotations

import json
import os
import stat
import time

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from common import keyring
from common.keyring import (
    RELOAD_INTERVAL_SECONDS,
    SETTLING_SECONDS,
    KeyRing,
    add_key,
    ensure_keys,
    jwk,
    thumbprint,
)
from tests.common.concurrency import together


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def make_older(folder, kid, *, seconds):
    then = time.time() - seconds
    os.utime(folder / "private" / "auth" / f"{kid}.pem", (then, then))


def test_every_issuer_gets_a_key_once(tmp_path):
    assert ensure_keys(tmp_path, ["auth", "order"]) == ["auth", "order"]
    assert ensure_keys(tmp_path, ["auth", "order", "catalog"]) == ["catalog"]
    for half in ("private", "public"):
        assert len(list((tmp_path / half).glob("*/*.pem"))) == 3


def test_private_keys_are_their_owners_alone(tmp_path):
    kid = add_key(tmp_path, "auth")
    assert mode(tmp_path / "private" / "auth" / f"{kid}.pem") == 0o600
    assert mode(tmp_path / "private" / "auth") == 0o700
    assert mode(tmp_path / "public" / "auth" / f"{kid}.pem") == 0o644
    assert not list(tmp_path.rglob("*.tmp")), "nothing half-written is left"


def test_a_private_key_cannot_be_read_by_others_at_any_moment(tmp_path, monkeypatch):
    modes = []
    fdopen = keyring.os.fdopen

    def watch(descriptor, *args):
        modes.append(stat.S_IMODE(keyring.os.fstat(descriptor).st_mode))
        return fdopen(descriptor, *args)

    monkeypatch.setattr(keyring.os, "fdopen", watch)
    add_key(tmp_path, "auth")
    assert modes == [0o644, 0o600], "public first, and the private one never wider"


def test_the_kid_is_the_thumbprint_of_rfc_7638(tmp_path):
    kid = add_key(tmp_path, "auth")
    pem = (tmp_path / "private" / "auth" / f"{kid}.pem").read_bytes()
    public = load_pem_private_key(pem, password=None).public_key()
    assert thumbprint(public) == kid
    document = jwk(public, kid)
    assert (document["kty"], document["alg"], document["use"]) == ("RSA", "RS256", "sig")
    assert document["kid"] == kid
    assert not {"d", "p", "q"} & document.keys(), "nothing private"
    json.dumps(document)


def test_the_thumbprint_of_the_rfcs_own_example():
    from jwt.algorithms import RSAAlgorithm

    example = {
        "kty": "RSA",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxu"
        "hDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN"
        "5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5"
        "hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBni"
        "Iqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
        "e": "AQAB",
    }
    key = RSAAlgorithm.from_jwk(json.dumps(example))
    assert thumbprint(key) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


def test_the_folder_says_whose_a_key_is(tmp_path):
    auth, order = add_key(tmp_path, "auth"), add_key(tmp_path, "order")
    ring = KeyRing(tmp_path)
    assert (ring.find(auth).issuer, ring.find(order).issuer) == ("auth", "order")
    assert ring.find("unknown") is None
    assert [key.kid for key in ring.public_keys("auth")] == [auth]
    assert ring.public_keys("nobody") == []


def test_a_new_key_is_found_within_a_second(tmp_path):
    add_key(tmp_path, "auth")
    ring = KeyRing(tmp_path)
    assert ring.find("unknown") is None, "the ring has just looked"
    new = add_key(tmp_path, "auth")

    deadline = time.monotonic() + 1.0 + 0.5
    while ring.find(new) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert len(ring.public_keys("auth")) == 2


def test_a_new_key_signs_within_three_seconds_and_never_before_every_ring_knows_it(tmp_path):
    """The verifying rings are asked for forged kids all the time: that must not blind them."""
    old = add_key(tmp_path, "auth")
    make_older(tmp_path, old, seconds=60)
    signer, verifier = KeyRing(tmp_path), KeyRing(tmp_path)
    assert signer.signing_key("auth")[0] == old
    # The verifier has looked later than the signer, so it looks again later, too.
    time.sleep(RELOAD_INTERVAL_SECONDS / 2)
    assert verifier.find("forged") is None
    new = add_key(tmp_path, "auth")

    deadline = time.monotonic() + 3.0 + 0.5
    while (kid := signer.signing_key("auth")[0]) != new:
        assert time.monotonic() < deadline
        assert verifier.find("forged") is None
        time.sleep(0.02)
    assert verifier.find(kid), "at the first moment"
    assert verifier.find(old), "what the old one has signed is still good"


def test_a_process_that_starts_leaves_a_key_aside_that_not_every_ring_knows(tmp_path):
    old = add_key(tmp_path, "auth")
    make_older(tmp_path, old, seconds=60)
    new = add_key(tmp_path, "auth")
    assert KeyRing(tmp_path).signing_key("auth")[0] == old
    make_older(tmp_path, new, seconds=SETTLING_SECONDS)
    assert KeyRing(tmp_path).signing_key("auth")[0] == new


def test_where_all_keys_are_new_the_oldest_signs(tmp_path):
    first, second = add_key(tmp_path, "auth"), add_key(tmp_path, "auth")
    make_older(tmp_path, first, seconds=SETTLING_SECONDS / 2)
    assert KeyRing(tmp_path).signing_key("auth")[0] == first
    (tmp_path / "private" / "auth" / f"{first}.pem").unlink()
    assert KeyRing(tmp_path).signing_key("auth")[0] == second


def test_a_key_added_while_a_ring_looks_is_found_a_second_after_the_look_began(
    tmp_path, monkeypatch
):
    add_key(tmp_path, "auth")
    ring = KeyRing(tmp_path)
    read, added = keyring._public_key_in, []

    def slow(path):
        if not added:
            added.append(add_key(tmp_path, "order"))
            time.sleep(1.0)
        return read(path)

    monkeypatch.setattr(keyring, "_public_key_in", slow)
    ring.find("forged")
    assert ring.find(added[0])


def test_a_key_that_was_taken_away_is_not_found_for_ever(tmp_path, monkeypatch):
    revoked, kept = add_key(tmp_path, "auth"), add_key(tmp_path, "auth")
    ring = KeyRing(tmp_path)
    assert ring.find(revoked)
    (tmp_path / "public" / "auth" / f"{revoked}.pem").unlink()

    now = time.monotonic()
    monkeypatch.setattr(keyring.time, "monotonic", lambda: now + 120)
    assert ring.find(revoked) is None
    assert ring.find(kept)


def test_forged_kids_do_not_cost_a_look_at_the_folder_each(tmp_path, monkeypatch):
    add_key(tmp_path, "auth")
    ring = KeyRing(tmp_path)
    loads = []
    load = keyring.serialization.load_pem_public_key
    monkeypatch.setattr(
        keyring.serialization, "load_pem_public_key", lambda pem: loads.append(1) or load(pem)
    )
    for n in range(1_000):
        assert ring.find(f"forged-{n}") is None
    assert len(loads) <= 3


def test_threads_that_look_at_once_all_find(tmp_path):
    kids = [add_key(tmp_path, "auth") for _ in range(2)]
    ring = KeyRing(tmp_path)
    found = together(*(lambda kid=kid: ring.find(kid) for kid in kids * 8))
    assert all(found)


def test_a_file_that_is_no_key_does_not_spoil_the_others(tmp_path):
    good = add_key(tmp_path, "auth")
    (tmp_path / "public" / "auth" / "rubbish.pem").write_text("not a key")
    ring = KeyRing(tmp_path)
    assert ring.find(good)
    assert ring.find("rubbish") is None


def test_without_a_private_key_the_message_says_what_to_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manage_all\.py up"):
        KeyRing(tmp_path).signing_key("auth")
