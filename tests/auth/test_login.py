"""Login and `me`: what a password is worth, and what an attacker learns."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import pytest

from services.auth import accounts
from services.auth.models import LoginSession, RefreshToken, User
from tests.auth.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def _me(api: Any, access: str) -> Any:
    return api.get("/api/auth/me", HTTP_AUTHORIZATION=f"Bearer {access}")


def test_a_login_gives_a_pair_of_tokens_and_says_how_long_the_access_token_lives(
    person: Any, log_in: Any
) -> None:
    person()
    response = log_in()
    answer = response.json()
    assert response.status_code == 200
    assert set(answer) == {"access", "refresh", "token_type", "expires_in"}
    assert (answer["token_type"], answer["expires_in"]) == ("Bearer", 900)
    assert response["Cache-Control"] == "no-store"


def test_the_name_may_be_typed_in_any_case(person: Any, log_in: Any) -> None:
    person("Ann.Lee")
    assert log_in("ann.LEE").status_code == 200


def test_the_refresh_token_is_not_in_the_database(person: Any, log_in: Any) -> None:
    person()
    token = log_in().json()["refresh"]
    stored = RefreshToken.objects.get()
    assert token not in str(vars(stored))
    assert len(stored.hash) == 64


def test_unknown_wrong_and_deactivated_are_answered_alike(person: Any, log_in: Any) -> None:
    person("ann")
    gone = person("gone")
    accounts.deactivate(user_id=gone.pk)
    answers = [log_in("ann", "wrong-password"), log_in("nobody"), log_in("gone")]
    for response in answers:
        assert response.status_code == 401
        assert response["WWW-Authenticate"] == 'Bearer realm="flashsale"'
        assert response["Content-Type"] == "application/problem+json"
    bodies = [{**response.json(), "request_id": ""} for response in answers]
    assert bodies[0]["code"] == "invalid_credentials"
    assert bodies[0] == bodies[1] == bodies[2]


def test_unknown_and_known_names_take_the_same_time(person: Any, log_in: Any) -> None:
    """Time of this thread alone. Without a hash for unknown names the ratio would be about 10."""
    person("ann")

    def seconds(username: str) -> float:
        started = time.thread_time()
        assert log_in(username, "wrong-password").status_code == 401
        return time.thread_time() - started

    log_in("ann")
    pairs = [(seconds("ann"), seconds("nobody")) for _ in range(8)]
    known, unknown = (median(times) for times in zip(*pairs, strict=True))
    assert 0.4 < known / unknown < 2.5


def test_me_says_who_i_am(api: Any, person: Any, log_in: Any) -> None:
    user = person("ann")
    response = _me(api, log_in().json()["access"])
    assert response.status_code == 200
    assert response.json() == {
        "id": user.pk,
        "username": "ann",
        "email": "ann@example.com",
        "role": "user",
    }


def test_me_wants_a_person(api: Any, service_token_for: Any) -> None:
    assert api.get("/api/auth/me").json()["code"] == "not_authenticated"
    refused = _me(api, service_token_for("order"))
    assert (refused.status_code, refused.json()["code"]) == (403, "permission_denied")


def test_me_knows_that_an_account_is_gone_though_the_token_is_good(
    api: Any, person: Any, log_in: Any, access_token: Any
) -> None:
    user = person("ann")
    access = log_in().json()["access"]
    accounts.deactivate(user_id=user.pk)
    assert _me(api, access).status_code == 401
    unknown = _me(api, access_token(user_id=user.pk + 1))
    assert (unknown.status_code, unknown.json()["code"]) == (401, "invalid_token")


def test_a_deactivated_user_is_out_and_can_be_let_in_again(
    api: Any, person: Any, log_in: Any
) -> None:
    user = person("ann")
    token = log_in().json()["refresh"]
    accounts.deactivate(user_id=user.pk)
    assert log_in().status_code == 401
    assert api.post("/api/auth/refresh", {"refresh": token}).status_code == 401
    accounts.activate(user_id=user.pk)
    assert log_in().status_code == 200
    assert api.post("/api/auth/refresh", {"refresh": token}).status_code == 401


def test_another_password_ends_the_logins_made_with_the_old_one(
    api: Any, person: Any, log_in: Any
) -> None:
    user = person("ann")
    token = log_in().json()["refresh"]
    accounts.set_password(user_id=user.pk, password="another-good-one")
    assert api.post("/api/auth/refresh", {"refresh": token}).status_code == 401
    assert log_in("ann", PASSWORD).status_code == 401
    assert log_in("ann", "another-good-one").status_code == 200
    assert LoginSession.objects.filter(end_reason="password").count() == 1


def test_another_role_shows_in_the_next_tokens(api: Any, person: Any, log_in: Any) -> None:
    user = person("ann")
    token = log_in().json()["refresh"]
    accounts.change_role(user_id=user.pk, role="admin")
    access = api.post("/api/auth/refresh", {"refresh": token}).json()["access"]
    assert _me(api, access).json()["role"] == "admin"


def test_a_stale_bearer_token_does_not_keep_anybody_from_logging_in(
    person: Any, log_in: Any
) -> None:
    person("ann")
    assert log_in(HTTP_AUTHORIZATION="Bearer stale").status_code == 200


def test_a_hash_with_other_parameters_is_replaced_at_the_next_login(
    person: Any, log_in: Any
) -> None:
    from django.contrib.auth.hashers import Argon2PasswordHasher

    user = person("ann")
    old = Argon2PasswordHasher().encode(PASSWORD, "somesaltsomesaltsomesa")
    User.objects.filter(pk=user.pk).update(password=old)
    assert log_in().status_code == 200
    user.refresh_from_db()
    assert "$m=19456,t=2,p=1$" in user.password
    assert log_in().status_code == 200
