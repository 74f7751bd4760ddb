"""Fixtures of the gateway's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from gateway.routes import SERVICES
from tests.gateway.edge import EchoServer, Edge, free_port, serve_gateway, start_edge, stop_edge


@pytest.fixture(scope="session")
def echo_services() -> Iterator[dict[str, EchoServer]]:
    servers = {name: EchoServer(name) for name in SERVICES}
    yield servers
    for server in servers.values():
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="session")
def _edge(
    echo_services: dict[str, EchoServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    server, address = serve_gateway()
    edge = start_edge(tmp_path_factory.mktemp("edge"), echo_services, address)
    yield edge
    stop_edge(edge)
    server.shutdown()
    server.server_close()


@pytest.fixture
def edge(_edge: Edge) -> Edge:
    """Return nginx in front of the real gateway and of echoing services."""
    _edge.seen()
    return _edge


@pytest.fixture(scope="session")
def edge_without_gateway(
    echo_services: dict[str, EchoServer], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Edge]:
    """Return nginx whose gateway is down."""
    edge = start_edge(
        tmp_path_factory.mktemp("edge-alone"), echo_services, f"127.0.0.1:{free_port()}"
    )
    yield edge
    stop_edge(edge)


@pytest.fixture
def bearer(access_token: Callable[..., str]) -> Callable[..., dict[str, str]]:
    """Return a maker of Authorization headers for a person."""

    def make(role: str = "user", **more: Any) -> dict[str, str]:
        return {"Authorization": f"Bearer {access_token(role=role, **more)}"}

    return make


@pytest.fixture
def service_bearer() -> Callable[[str, str], dict[str, str]]:
    """Return a maker of Authorization headers that one service shows another."""
    from common.tokens import ServiceToken

    def make(issuer: str, audience: str) -> dict[str, str]:
        token = ServiceToken(issuer=issuer, audience=audience)
        token["sub"] = issuer
        return {"Authorization": f"Bearer {token}"}

    return make


@pytest.fixture
def worthless_tokens() -> dict[str, str]:
    """Return tokens that claim to be an admin's and must be worth nothing, by what is wrong."""
    import jwt
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

    from common.tokens import AccessToken, ServiceToken, key_ring

    good = AccessToken.issue(user_id=1, username="eve", role="admin")
    claims = {**good.payload, "iss": "auth", "aud": "flashsale"}
    kid, key = key_ring().signing_key("auth")
    header = {"kid": kid}
    public_pem = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )

    def signed(**changes: Any) -> str:
        return jwt.encode({**claims, **changes}, key, "RS256", header)

    expired = AccessToken.issue(user_id=1, username="eve", role="admin")
    expired.set_exp(lifetime=timedelta(minutes=-1))
    other_key = generate_private_key(public_exponent=65537, key_size=2048)
    order_kid, order_key = key_ring().signing_key("order")
    unsigned = jwt.encode(claims, None, "none", header)
    return {
        "nothing": "",
        "not a token": "abc.def.ghi",
        "alg none": unsigned,
        "alg none without kid": jwt.encode(claims, None, "none"),
        # PyJWT refuses to make this one from a PEM, so the key's bytes are hidden from it.
        "HMAC with the public key": _hmac_token(claims, header, public_pem),
        "another key under our kid": jwt.encode(claims, other_key, "RS256", header),
        "signed by another service": jwt.encode(claims, order_key, "RS256", {"kid": order_kid}),
        "signature cut off": str(good).rpartition(".")[0] + ".",
        "claims exchanged": _with_other_claims(str(good), {**claims, "sub": "2"}),
        "expired": str(expired),
        "other audience": signed(aud="somebody"),
        "other issuer": signed(iss="order"),
        "refresh token": signed(token_type="refresh"),
        "unknown role": signed(role="root"),
        "no expiry": jwt.encode(
            {k: v for k, v in claims.items() if k != "exp"}, key, "RS256", header
        ),
        "service token for nobody": str(ServiceToken(issuer="order", audience="nobody")),
        "unknown kid": jwt.encode(claims, key, "RS256", {"kid": "../../private/auth/x"}),
        "very long": "a" * 6000,
    }


def _hmac_token(claims: dict[str, Any], header: dict[str, str], secret: bytes) -> str:
    import base64
    import hashlib
    import hmac
    import json

    def encode(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    head = encode(json.dumps({**header, "alg": "HS256", "typ": "JWT"}).encode())
    signed = f"{head}.{encode(json.dumps(claims).encode())}"
    return f"{signed}.{encode(hmac.new(secret, signed.encode(), hashlib.sha256).digest())}"


def _with_other_claims(token: str, claims: dict[str, Any]) -> str:
    import base64
    import json

    head, _, signature = token.split(".")
    body = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    return f"{head}.{body}.{signature}"
