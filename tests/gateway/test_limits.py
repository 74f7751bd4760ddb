"""Limits by address, in nginx, and by user, in the gateway, as a caller meets them."""

from __future__ import annotations

from collections.abc import Callable

from gateway.routes import BUYING, SIGN_IN
from tests.gateway.edge import LIMITED_ADDRESS, Edge

Headers = dict[str, str]


def test_login_attempts_of_one_address_are_limited(edge: Edge) -> None:
    attempts = SIGN_IN.burst + 10
    answers = [
        edge.call("POST", "/api/auth/login", body=b"{}", source="127.0.0.3")
        for _ in range(attempts)
    ]
    limited = [answer for answer in answers if answer.status == 429]
    assert limited
    assert limited[0].code == "rate_limited"
    assert limited[0].headers["retry-after"] == "1"
    # The form counts as well, looking at it does not, and another address is not touched.
    assert edge.call("POST", "/login", body=b"", source="127.0.0.3").status == 429
    assert edge.call("GET", "/login", source="127.0.0.3").status == 200
    assert edge.call("POST", "/api/auth/login", body=b"{}", source="127.0.0.4").status == 200


def test_a_forged_address_does_not_help(edge: Edge) -> None:
    answers = [
        edge.call(
            "POST",
            "/api/auth/register",
            {"X-Forwarded-For": f"10.0.0.{n}", "X-Real-IP": f"10.0.0.{n}"},
            b"{}",
            source="127.0.0.5",
        )
        for n in range(SIGN_IN.burst + 10)
    ]
    assert 429 in {answer.status for answer in answers}


def test_an_exempt_address_is_not_limited(edge: Edge) -> None:
    answers = [edge.call("POST", "/api/auth/login", body=b"{}") for _ in range(SIGN_IN.burst + 10)]
    assert {answer.status for answer in answers} == {200}


def test_the_gateways_limit_by_user_arrives_as_429(
    edge: Edge, bearer: Callable[..., Headers]
) -> None:
    headers = bearer(user_id=4711)
    per_window = int(str(BUYING.by_user).partition("/")[0])
    # Through one address after another, so that the limits by address stay out of it.
    answers = [
        edge.call("POST", "/api/orders", headers, b"{}", source=f"127.0.1.{n % 100 + 1}")
        for n in range(2 * per_window + 1)
    ]
    limited = next(answer for answer in answers if answer.status != 200)
    assert (limited.status, limited.code) == (429, "rate_limited")
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    other = edge.call("POST", "/api/orders", bearer(user_id=4712), b"{}", source=LIMITED_ADDRESS)
    assert other.status == 200
