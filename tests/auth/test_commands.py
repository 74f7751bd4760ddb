"""The commands of the auth service, as an operator runs them."""

from __future__ import annotations

import io
import json
import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.utils import timezone

from common.keyring import KeyRing, ensure_keys
from common.tokens import principal_from
from services.auth import purge
from services.auth.models import LoginSession, RefreshToken, User
from tests.auth.conftest import PASSWORD

pytestmark = pytest.mark.django_db


def _run(*arguments: str) -> str:
    out = io.StringIO()
    call_command(*arguments, stdout=out)
    return out.getvalue()


def _make_older(path: Path, *, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


class TestCreateUser:
    @pytest.fixture(autouse=True)
    def password(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("NEW_USER_PASSWORD", PASSWORD)

    def test_makes_an_admin_who_can_log_in(self, log_in: Any) -> None:
        out = _run("create_user", "root", "--email", "root@example.com", "--role", "admin")
        assert PASSWORD not in out
        assert principal_from(log_in("root").json()["access"]).role == "admin"

    def test_makes_a_user_unless_told_otherwise(self) -> None:
        _run("create_user", "ann", "--email", "ann@example.com")
        assert User.objects.get().role == "user"

    def test_again_sets_role_and_password_and_ends_old_logins(
        self, log_in: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _run("create_user", "root", "--email", "root@example.com")
        log_in("root")
        User.objects.update(is_active=False)
        monkeypatch.setenv("NEW_USER_PASSWORD", "another-good-one")
        _run("create_user", "ROOT", "--email", "root@example.com", "--role", "admin")
        assert log_in("root").status_code == 401
        assert principal_from(log_in("root", "another-good-one").json()["access"]).role == "admin"
        assert User.objects.count() == 1
        assert LoginSession.objects.filter(end_reason="password").count() == 1

    def test_again_with_the_same_password_leaves_logins_alone(self, api: Any, log_in: Any) -> None:
        for _ in range(2):
            _run("create_user", "root", "--email", "root@example.com", "--role", "admin")
            if not LoginSession.objects.exists():
                token = log_in("root").json()["refresh"]
        assert api.post("/api/auth/refresh", {"refresh": token}).status_code == 200

    @pytest.mark.parametrize(
        ("username", "email", "password", "text"),
        [
            ("a b", "x@example.com", PASSWORD, "letters"),
            ("ann", "nonsense", PASSWORD, "valid email"),
            ("ann", "x@example.com", "short", "too short"),
            ("ann", "BOB@example.com", PASSWORD, "account with that e-mail"),
        ],
    )
    def test_says_what_is_wrong(
        self,
        person: Any,
        monkeypatch: pytest.MonkeyPatch,
        username: str,
        email: str,
        password: str,
        text: str,
    ) -> None:
        person("bob")
        monkeypatch.setenv("NEW_USER_PASSWORD", password)
        with pytest.raises(CommandError, match=text):
            _run("create_user", username, "--email", email)
        assert User.objects.count() == 1


class TestIssueTokens:
    def test_prints_a_user_and_a_good_token_a_line(self, api: Any) -> None:
        lines = [
            json.loads(line)
            for line in _run("issue_tokens", "--prefix", "load", "--count", "3").splitlines()
        ]
        assert [line["username"] for line in lines] == ["load-00001", "load-00002", "load-00003"]
        for line in lines:
            assert set(line) == {"username", "id", "access"}
            principal = principal_from(line["access"])
            assert principal.id == str(line["id"])
            assert (principal.username, principal.role) == (line["username"], "user")
        me = api.get("/api/auth/me", HTTP_AUTHORIZATION=f"Bearer {lines[0]['access']}")
        assert me.json()["id"] == lines[0]["id"]

    def test_again_gives_new_tokens_for_the_same_users(self) -> None:
        first, second = (
            [json.loads(line) for line in _run("issue_tokens", "--prefix=p", count).splitlines()]
            for count in ("--count=2", "--count=3")
        )
        assert [line["id"] for line in second[:2]] == [line["id"] for line in first]
        assert User.objects.count() == 3

    def test_nobody_can_log_in_as_one_of_them(self, log_in: Any) -> None:
        _run("issue_tokens", "--prefix", "load", "--count", "1")
        stored = User.objects.get().password
        for guess in (stored, stored[1:], "!", "x"):
            assert log_in("load-00001", guess).status_code == 401

    def test_two_thousand_take_a_few_seconds(self) -> None:
        started = time.thread_time()
        assert _run("issue_tokens", "--prefix", "load", "--count", "2000").count("\n") == 2000
        assert time.thread_time() - started < 8

    @pytest.mark.parametrize("arguments", [("x" * 30, "1"), ("a b", "1"), ("p", "0"), ("p", "-1")])
    def test_refuses_what_gives_no_valid_users(self, arguments: tuple[str, str]) -> None:
        prefix, count = arguments
        with pytest.raises(CommandError):
            _run("issue_tokens", f"--prefix={prefix}", f"--count={count}")
        assert not User.objects.exists()

    def test_says_when_an_address_is_in_the_way(self, person: Any) -> None:
        user = person("eve")
        User.objects.filter(pk=user.pk).update(email="P-00001@issued.invalid")
        with pytest.raises(CommandError, match="p-00001"):
            _run("issue_tokens", "--prefix=p", "--count=1")


class TestRotateKeys:
    @pytest.mark.parametrize("issuer", ["auth", "order"])
    def test_adds_a_key_and_keeps_the_old_one(
        self, settings: Any, tmp_path: Path, issuer: str
    ) -> None:
        settings.KEYS_DIR = tmp_path
        ensure_keys(tmp_path, ["auth", "order"])
        old, _ = KeyRing(tmp_path).signing_key(issuer)
        _make_older(tmp_path / "private" / issuer / f"{old}.pem", seconds=4)
        out = _run("rotate_keys", *(("--issuer", issuer) if issuer != "auth" else ()))
        assert KeyRing(tmp_path).signing_key(issuer)[0] == old, "not everybody knows the new one"
        (added,) = {key.kid for key in KeyRing(tmp_path).public_keys(issuer)} - {old}
        _make_older(tmp_path / "private" / issuer / f"{added}.pem", seconds=3)
        new, _ = KeyRing(tmp_path).signing_key(issuer)
        assert new == added
        assert new in out
        assert {key.kid for key in KeyRing(tmp_path).public_keys(issuer)} == {old, new}

    def test_knows_its_issuers(self) -> None:
        with pytest.raises(CommandError, match="invalid choice"):
            _run("rotate_keys", "--issuer", "nobody")


class TestPurgeTokens:
    def test_deletes_what_has_expired_and_keeps_spent_ones_that_have_not(
        self, api: Any, person: Any, log_in: Any
    ) -> None:
        person("ann")
        spent = log_in().json()["refresh"]
        kept = api.post("/api/auth/refresh", {"refresh": spent}).json()["refresh"]
        log_in()
        RefreshToken.objects.filter(pk=RefreshToken.objects.latest("pk").pk).update(
            expires_at=timezone.now() - timedelta(days=1)
        )
        LoginSession.objects.filter(pk=LoginSession.objects.latest("created_at").pk).update(
            expires_at=timezone.now() - timedelta(days=1)
        )
        assert [purge.purge_expired() for _ in range(3)] == [1, 1, 0]
        assert (RefreshToken.objects.count(), LoginSession.objects.count()) == (2, 1)
        assert api.post("/api/auth/refresh", {"refresh": kept}).status_code == 200

    def test_does_bounded_work_at_a_time(
        self, person: Any, log_in: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(purge, "BATCH_SIZE", 2)
        person("ann")
        for _ in range(3):
            log_in()
        long_ago = timezone.now() - timedelta(days=1)
        RefreshToken.objects.update(expires_at=long_ago)
        LoginSession.objects.update(expires_at=long_ago)
        assert [purge.purge_expired() for _ in range(4)] == [2, 3, 1, 0]
        assert not LoginSession.objects.exists()

    def test_runs_once_as_a_command_and_is_one_of_the_loops(self, settings: Any) -> None:
        assert _run("purge_tokens", "--once") == "purge_tokens: 0\n"
        assert settings.LOOPS == ["services.auth.purge.purge_tokens"]
