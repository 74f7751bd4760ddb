"""Registration: who gets an account, and who does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from django.db import IntegrityError
from rest_framework.test import APIClient

from services.auth import registration
from services.auth.models import User
from tests.auth.conftest import PASSWORD
from tests.common.concurrency import meet_before, together

pytestmark = pytest.mark.django_db
REGISTER = "/api/auth/register"


def _body(username: str = "ann", email: str | None = None, **more: Any) -> dict[str, Any]:
    return {
        "username": username,
        "email": email or f"{username}@example.com",
        "password": PASSWORD,
        **more,
    }


def test_a_new_user_is_answered_without_their_password(api: Any) -> None:
    response = api.post(REGISTER, _body("Ann.Lee"))
    user = User.objects.get()
    assert response.status_code == 201
    assert response.json() == {
        "id": user.pk,
        "username": "Ann.Lee",
        "email": "Ann.Lee@example.com",
        "role": "user",
    }
    assert response["Cache-Control"] == "no-store"


def test_the_password_is_kept_as_argon2id_with_19_mib_two_passes_one_lane(api: Any) -> None:
    api.post(REGISTER, _body())
    assert User.objects.get().password.startswith("argon2$argon2id$v=19$m=19456,t=2,p=1$")


@pytest.mark.parametrize(
    ("username", "email", "code"),
    [
        ("ann", "other@example.com", "username_taken"),
        ("ANN", "other@example.com", "username_taken"),
        ("bob", "ann@example.com", "email_taken"),
        ("bob", "Ann@EXAMPLE.com", "email_taken"),
        ("Ann", "ANN@example.com", "username_taken"),
    ],
)
def test_names_and_addresses_are_unique_in_any_case(
    api: Any, person: Any, username: str, email: str, code: str
) -> None:
    person("ann")
    response = api.post(REGISTER, _body(username, email))
    assert (response.status_code, response.json()["code"]) == (409, code)
    assert User.objects.count() == 1


@pytest.mark.parametrize(
    ("username", "email"), [("ANN", "b@example.com"), ("bob", "ANN@example.com")]
)
def test_the_database_itself_refuses_doubles_in_another_case(
    person: Any, username: str, email: str
) -> None:
    person("ann")
    with pytest.raises(IntegrityError):
        User.objects.create_user(username, email, None)


@pytest.mark.parametrize(
    "claim",
    [{"role": "admin"}, {"is_staff": True, "is_superuser": True}, {"id": 1, "is_active": 0}],
)
def test_nobody_becomes_admin_by_registering(api: Any, log_in: Any, claim: dict[str, Any]) -> None:
    response = api.post(REGISTER, _body("eve", **claim))
    assert response.json()["role"] == "user"
    access = log_in("eve").json()["access"]
    me = api.get("/api/auth/me", HTTP_AUTHORIZATION=f"Bearer {access}")
    assert me.json()["role"] == "user"


@pytest.mark.parametrize(
    ("password", "code"),
    [
        ("short-1", "min_length"),
        ("x" * 129, "max_length"),
        ("password1", "password_too_common"),
        ("7391826450", "password_entirely_numeric"),
        ("mallory99", "password_too_similar"),
    ],
)
def test_weak_passwords_are_refused_with_the_reason(api: Any, password: str, code: str) -> None:
    response = api.post(REGISTER, _body("mallory99", password=password))
    errors = response.json()["errors"]
    assert response.status_code == 400
    assert {"field": "password", "code": code} in [
        {"field": error["field"], "code": error["code"]} for error in errors
    ]


def test_a_password_may_be_any_unicode_and_is_never_trimmed(api: Any, log_in: Any) -> None:
    password = "  žluťoučký kůň 🐎 "
    assert api.post(REGISTER, _body(password=password)).status_code == 201
    assert log_in("ann", password).status_code == 200
    assert log_in("ann", password.strip()).status_code == 401


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    ("names", "addresses", "code"),
    [
        (("ann", "Ann"), ("a@example.com", "b@example.com"), "username_taken"),
        (("ann", "bob"), ("a@example.com", "A@example.com"), "email_taken"),
        (("ann", "ann"), ("a@example.com", "a@example.com"), "username_taken"),
    ],
)
def test_two_at_once_with_one_name_or_address_are_one_user_and_one_409(
    monkeypatch: pytest.MonkeyPatch,
    names: tuple[str, str],
    addresses: tuple[str, str],
    code: str,
) -> None:
    # Both have looked and found the name free before either inserts.
    meet_before(monkeypatch, registration, "in_transaction")

    def register(name: str, address: str) -> tuple[int, str]:
        response = APIClient().post(REGISTER, _body(name, address))
        return response.status_code, response.json().get("code", "")

    calls = [partial(register, *who) for who in zip(names, addresses, strict=True)]
    assert sorted(together(*calls)) == [(201, ""), (409, code)]
    assert User.objects.count() == 1


@pytest.mark.django_db(transaction=True)
def test_a_crowd_that_wants_one_name_gets_one_user_and_409s() -> None:
    def register(number: int) -> int:
        return APIClient().post(REGISTER, _body("ann", f"ann{number}@example.com")).status_code

    answers = Counter(together(*(partial(register, number) for number in range(20))))
    assert answers == {201: 1, 409: 19}


@pytest.mark.django_db(transaction=True)
def test_a_commit_whose_answer_got_lost_is_no_conflict_with_oneself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def commits_twice(work: Callable[[], Any]) -> Any:
        work()
        return work()

    monkeypatch.setattr(registration, "in_transaction", commits_twice)
    user = registration.register(username="ann", email="a@example.com", password=PASSWORD)
    assert User.objects.get().pk == user.pk
