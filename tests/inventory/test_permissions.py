"""Who may call what: every endpoint × nobody, a user, an admin, other services."""

from __future__ import annotations

from datetime import timedelta

import jwt
import pytest

from common.keyring import add_key
from common.tokens import AccessToken, ServiceToken, key_ring
from tests.inventory.driver import BATCH, HOLDS, RESERVATIONS, STOCKS, Caller, entry, reserve_group

pytestmark = pytest.mark.django_db

ADMIN, SERVICE = {"admin"}, {"service"}
BOTH = ADMIN | SERVICE
# (method, path) → body and the roles that may call
ENDPOINTS = {
    ("GET", f"{STOCKS}/1"): (None, BOTH),
    ("PUT", f"{STOCKS}/1"): ({"total": 5}, ADMIN),
    ("POST", f"{STOCKS}/1/adjust"): ({"delta": 1}, ADMIN),
    ("POST", RESERVATIONS): (entry("new"), BOTH),
    ("GET", f"{RESERVATIONS}/r"): (None, BOTH),
    ("POST", f"{RESERVATIONS}/r/commit"): (None, BOTH),
    ("POST", f"{RESERVATIONS}/r/release"): (None, BOTH),
    ("POST", BATCH): ({"groups": [reserve_group(entry("new"))]}, SERVICE),
    ("GET", f"{HOLDS}?created_before=2026-01-01T00:00:00Z"): (None, SERVICE),
}
EVERYBODY = ("nobody", "user", "admin", "service", "other service")


@pytest.fixture(autouse=True)
def something_to_call(tickets, order):
    tickets(10)
    order.reserve("r")
    order.release("r")


def token_of(who):
    """Return a good token of somebody."""
    if who in ("user", "admin"):
        return str(AccessToken.issue(user_id=9, username="bob", role=who))
    issuer = "order" if who == "service" else "gateway"
    token = ServiceToken(issuer=issuer, audience="inventory")
    token["sub"] = issuer
    return str(token)


@pytest.mark.parametrize("who", EVERYBODY)
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=" ".join)
def test_only_those_named_may_call(who, endpoint, order):
    body, allowed = ENDPOINTS[endpoint]
    before = order.stock().body

    answer = Caller(None if who == "nobody" else token_of(who)).call(*endpoint, body)

    if who == "nobody":
        assert (answer.status, answer.code) == (401, "not_authenticated")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    elif who.rpartition(" ")[2] not in allowed:
        assert (answer.status, answer.code) == (403, "permission_denied")
    else:
        assert answer.status in (200, 201) or answer.code == "reservation_already_released"
        return
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert order.stock().body == before, "a refused call has no effect"
    assert order.reservation("new").status == 404


def service_token(issuer="order", audience="inventory", subject=None, lifetime=None, **claims):
    token = ServiceToken(issuer=issuer, audience=audience)
    token["sub"] = subject or issuer
    if lifetime is not None:
        token.set_exp(lifetime=lifetime)
    for name, value in claims.items():
        token[name] = value
    return str(token)


def user_token_signed_by(issuer):
    """Return what a stolen key of a service could be used for: an admin's token made with it."""
    claims = AccessToken.issue(user_id=9, username="bob", role="admin").payload
    kid, key = key_ring().signing_key(issuer)
    claims = {**claims, "iss": "auth", "aud": "flashsale"}
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": kid})


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(lambda: service_token(audience="order"), id="for another service"),
        pytest.param(lambda: service_token(audience="flashsale"), id="for users' audience"),
        pytest.param(lambda: service_token(subject="catalog"), id="speaking for another service"),
        pytest.param(lambda: service_token(lifetime=timedelta(minutes=-1)), id="expired"),
        pytest.param(lambda: service_token(token_type="access"), id="of the wrong type"),
        pytest.param(lambda: service_token(issuer="auth"), id="of auth as a service"),
        pytest.param(lambda: user_token_signed_by("order"), id="of an admin, signed by order"),
        pytest.param(lambda: "rubbish", id="rubbish"),
        pytest.param(lambda: "e30.e30.e30", id="empty parts"),
    ],
)
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=" ".join)
def test_a_token_that_is_not_meant_for_this_opens_nothing(token, endpoint):
    answer = Caller(token()).call(*endpoint, ENDPOINTS[endpoint][0])
    assert (answer.status, answer.code) == (401, "invalid_token")


@pytest.mark.parametrize(
    "headers",
    [
        {"x_user_id": "7"},
        {"x_user_role": "admin"},
        {"x_forwarded_user": "root"},
        {"x_authenticated": "true"},
        {"remote_user": "root"},
    ],
    ids=lambda headers: next(iter(headers)),
)
@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=" ".join)
def test_who_somebody_is_cannot_be_said_in_a_header(headers, endpoint):
    answer = Caller().call(*endpoint, ENDPOINTS[endpoint][0], **headers)
    assert answer.status == 401


def test_a_key_that_is_not_in_the_ring_opens_nothing(tmp_path, settings):
    ours = settings.KEYS_DIR
    add_key(tmp_path, "order")
    settings.KEYS_DIR = tmp_path
    forged = service_token()
    settings.KEYS_DIR = ours

    answer = Caller(forged).call("GET", f"{STOCKS}/1")
    assert (answer.status, answer.code) == (401, "invalid_token")


@pytest.mark.parametrize("path", ["healthz", "readyz", "internal/inventory/openapi.json"])
def test_health_and_schema_are_open(path):
    assert Caller().call("GET", f"/{path}").status == 200
