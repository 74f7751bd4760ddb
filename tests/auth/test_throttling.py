"""Guessing passwords is slow, and nobody else pays for it."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from rest_framework.test import APIClient

from services.auth.throttling import ACCOUNT_FAILURES, ADDRESS_FAILURES
from tests.common.concurrency import times, together

pytestmark = pytest.mark.django_db
PER_ACCOUNT = int(ACCOUNT_FAILURES.partition("/")[0])
PER_ADDRESS = int(ADDRESS_FAILURES.partition("/")[0])
WRONG = "wrong-password"


@pytest.fixture(autouse=True)
def one_window(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop the limiter's clock, so that no window ends in the middle of a test."""
    from django_ratelimit import core

    now = core.time.time()
    monkeypatch.setattr(core.time, "time", lambda: now)


@pytest.fixture
def cheap_hashes(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


def _fail(log_in: Any, count: int, name: str = "ann", **headers: Any) -> None:
    for _ in range(count):
        assert log_in(name, WRONG, **headers).status_code == 401


def test_an_account_takes_ten_failures_then_not_even_the_right_password(
    person: Any, log_in: Any
) -> None:
    person("ann")
    _fail(log_in, PER_ACCOUNT)
    response = log_in("ann")
    assert (response.status_code, response.json()["code"]) == (429, "rate_limited")
    assert 1 <= int(response["Retry-After"]) <= 300


def test_the_failures_of_one_account_are_not_anothers(person: Any, log_in: Any) -> None:
    person("ann")
    person("bob")
    _fail(log_in, PER_ACCOUNT)
    assert log_in("bob").status_code == 200


def test_an_account_is_counted_from_all_addresses_and_in_any_case(person: Any, log_in: Any) -> None:
    person("ann")
    for number in range(PER_ACCOUNT):
        name = "ANN" if number % 2 else "ann"
        assert log_in(name, WRONG, HTTP_X_REAL_IP=f"10.0.0.{number}").status_code == 401
    assert log_in("Ann", HTTP_X_REAL_IP="10.0.1.1").status_code == 429


def test_an_unknown_name_is_limited_like_a_known_one(log_in: Any) -> None:
    _fail(log_in, PER_ACCOUNT, "nobody")
    assert log_in("nobody", WRONG).status_code == 429


def test_a_success_costs_nothing(person: Any, log_in: Any) -> None:
    person("ann")
    _fail(log_in, PER_ACCOUNT - 1)
    for _ in range(PER_ACCOUNT + 1):
        assert log_in("ann").status_code == 200


def test_an_address_that_tries_many_names_is_stopped_and_others_are_not(
    cheap_hashes: None, person: Any, log_in: Any
) -> None:
    person("ann")
    for number in range(PER_ADDRESS):
        _fail(log_in, 1, f"name{number}", HTTP_X_REAL_IP="10.0.0.1")
    assert log_in("ann", HTTP_X_REAL_IP="10.0.0.1").status_code == 429
    assert log_in("ann", HTTP_X_REAL_IP="10.0.0.2").status_code == 200


def test_an_ipv6_subscriber_is_one_address(cheap_hashes: None, person: Any, log_in: Any) -> None:
    person("ann")
    for number in range(PER_ADDRESS):
        _fail(log_in, 1, f"name{number}", HTTP_X_REAL_IP=f"2001:db8:1:2::{number:x}")
    assert log_in("ann", HTTP_X_REAL_IP="2001:db8:1:2:ffff::1").status_code == 429
    assert log_in("ann", HTTP_X_REAL_IP="2001:db8:1:3::1").status_code == 200


def test_an_exempt_address_is_not_limited_but_the_account_is(
    cheap_hashes: None, settings: Any, person: Any, log_in: Any
) -> None:
    settings.LIMIT_EXEMPT_IPS = frozenset({"10.0.0.1"})
    person("ann")
    for number in range(PER_ADDRESS + 1):
        _fail(log_in, 1, f"name{number}", HTTP_X_REAL_IP="10.0.0.1")
    _fail(log_in, PER_ACCOUNT, "ann", HTTP_X_REAL_IP="10.0.0.1")
    assert log_in("ann", HTTP_X_REAL_IP="10.0.0.1").status_code == 429


@pytest.mark.django_db(transaction=True)
def test_of_many_wrong_guesses_at_once_no_more_are_answered_than_one_after_another(
    person: Any,
) -> None:
    person("ann")

    def guess() -> int:
        body = {"username": "ann", "password": WRONG}
        return APIClient().post("/api/auth/login", body).status_code

    answers = Counter(together(*times(30, guess)))
    assert answers == {401: PER_ACCOUNT, 429: 30 - PER_ACCOUNT}


@pytest.mark.parametrize("exempt", [True, False])
def test_without_redis_nobody_logs_in_and_nothing_crashes(
    settings: Any, person: Any, log_in: Any, exempt: bool
) -> None:
    person("ann")
    dead = {**settings.CACHES["default"], "LOCATION": "unix:///nowhere/redis.sock?db=0"}
    settings.CACHES = {"default": dead}
    settings.LIMIT_EXEMPT_IPS = frozenset({"127.0.0.1"} if exempt else ())
    for password in ("correct-horse-battery", WRONG):
        response = log_in("ann", password)
        assert (response.status_code, response.json()["code"]) == (503, "login_unavailable")
        assert response["Retry-After"] == "1"


def test_without_redis_registration_refresh_and_logout_go_on(
    settings: Any, api: Any, person: Any, log_in: Any
) -> None:
    person("ann")
    token = log_in().json()["refresh"]
    dead = {**settings.CACHES["default"], "LOCATION": "unix:///nowhere/redis.sock?db=0"}
    settings.CACHES = {"default": dead}
    body = {"username": "bob", "email": "b@example.com", "password": "correct-horse-battery"}
    assert api.post("/api/auth/register", body).status_code == 201
    renewed = api.post("/api/auth/refresh", {"refresh": token})
    assert renewed.status_code == 200
    assert api.post("/api/auth/logout", {"refresh": renewed.json()["refresh"]}).status_code == 204
