"""Refresh tokens: one use each, and what happens to a family whose token is used twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from rest_framework.test import APIClient

from common.errors import Problem
from services.auth import sessions
from services.auth.models import LoginSession, RefreshToken
from tests.common.concurrency import times, together

pytestmark = pytest.mark.django_db
REFRESH, LOGOUT = "/api/auth/refresh", "/api/auth/logout"


def _refresh(token: str) -> Any:
    return APIClient().post(REFRESH, {"refresh": token})


def _refused(response: Any) -> bool:
    return (response.status_code, response.json().get("code")) == (401, "invalid_refresh_token")


@pytest.fixture
def token(person: Any, log_in: Any) -> str:
    """Return the refresh token of a fresh login."""
    person("ann")
    refresh: str = log_in().json()["refresh"]
    return refresh


def test_a_refresh_gives_a_new_pair_that_works(api: Any, token: str) -> None:
    pair = _refresh(token).json()
    assert set(pair) == {"access", "refresh", "token_type", "expires_in"}
    assert pair["refresh"] != token
    me = api.get("/api/auth/me", HTTP_AUTHORIZATION=f"Bearer {pair['access']}")
    assert me.json()["username"] == "ann"
    assert _refresh(pair["refresh"]).status_code == 200


def test_a_spent_token_ends_the_family_and_only_that(token: str, log_in: Any) -> None:
    other_login = log_in().json()["refresh"]
    successor = _refresh(token).json()["refresh"]
    assert _refused(_refresh(token))
    assert _refused(_refresh(successor))
    assert LoginSession.objects.get(end_reason="reuse").ended_at is not None
    assert _refresh(other_login).status_code == 200


def test_unknown_and_expired_tokens_are_refused_alike(token: str) -> None:
    RefreshToken.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    expired, unknown = _refresh(token).json(), _refresh("x" * 43).json()
    assert {**expired, "request_id": ""} == {**unknown, "request_id": ""}
    assert expired["code"] == "invalid_refresh_token"
    assert LoginSession.objects.get().ended_at is None


def test_an_access_token_is_no_refresh_token_nor_the_other_way_round(
    api: Any, person: Any, log_in: Any
) -> None:
    person("ann")
    pair = log_in().json()
    assert _refused(_refresh(pair["access"]))
    me = api.get("/api/auth/me", HTTP_AUTHORIZATION=f"Bearer {pair['refresh']}")
    assert (me.status_code, me.json()["code"]) == (401, "invalid_token")


def test_the_token_of_a_deleted_user_is_refused(token: str) -> None:
    LoginSession.objects.get().user.delete()
    assert _refused(_refresh(token))


def test_logout_ends_the_login_and_may_be_repeated(api: Any, token: str, log_in: Any) -> None:
    other_login = log_in().json()["refresh"]
    for _ in range(2):
        assert api.post(LOGOUT, {"refresh": token}).status_code == 204
    assert _refused(_refresh(token))
    assert _refresh(other_login).status_code == 200
    assert LoginSession.objects.get(end_reason="logout").ended_at is not None


def test_logout_with_a_spent_token_ends_the_login_too(api: Any, token: str) -> None:
    successor = _refresh(token).json()["refresh"]
    assert api.post(LOGOUT, {"refresh": token}).status_code == 204
    assert _refused(_refresh(successor))


def test_logout_with_an_unknown_token_tells_nothing(api: Any) -> None:
    assert api.post(LOGOUT, {"refresh": "x" * 43}).status_code == 204


def test_a_refresh_of_a_family_that_ends_meanwhile_gives_nothing(
    token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refresh has seen the family alive; it ends before the new token is stored."""
    expiry = sessions._expiry

    def too_late(now: datetime) -> datetime:
        LoginSession.objects.update(ended_at=timezone.now(), end_reason="logout")
        return expiry(now)

    monkeypatch.setattr(sessions, "_expiry", too_late)
    assert _refused(_refresh(token))
    assert RefreshToken.objects.count() == 1


def test_a_refresh_locks_the_login_before_it_adds_to_it(token: str) -> None:
    """The insert's shared lock first, and whoever ends the login meanwhile means a deadlock."""
    with CaptureQueriesContext(
        connection,
    ) as queries:
        _refresh(token)
    writes = [
        tuple(query["sql"].replace("`", '"').split('"')[:2])
        for query in queries
        if query["sql"].startswith(("UPDATE", "INSERT"))
    ]
    assert writes == [
        ("UPDATE ", "refresh_token"),
        ("UPDATE ", "login_session"),
        ("INSERT INTO ", "refresh_token"),
    ]


def test_two_tabs_that_refresh_at_once_stay_logged_in(token: str) -> None:
    """What /login/refresh allows: the later tab gets nothing, the earlier keeps what it got."""
    first = sessions.refresh(token=token, patience=sessions.BROWSER_PATIENCE)
    with pytest.raises(Problem, match="invalid_refresh_token"):
        sessions.refresh(token=token, patience=sessions.BROWSER_PATIENCE)
    assert _refresh(first.refresh).status_code == 200


def test_patience_with_tabs_ends_after_seconds(token: str) -> None:
    first = sessions.refresh(token=token, patience=sessions.BROWSER_PATIENCE)
    a_while_ago = timezone.now() - sessions.BROWSER_PATIENCE
    RefreshToken.objects.filter(used_at__isnull=False).update(used_at=a_while_ago)
    with pytest.raises(Problem, match="invalid_refresh_token"):
        sessions.refresh(token=token, patience=sessions.BROWSER_PATIENCE)
    assert _refused(_refresh(first.refresh))


@pytest.mark.django_db(transaction=True)
class TestAtOnce:
    def test_of_fifty_uses_of_one_token_one_wins(self, token: str) -> None:
        answers = together(*times(50, lambda: _refresh(token)))
        assert Counter(answer.status_code for answer in answers) == {200: 1, 401: 49}
        assert RefreshToken.objects.count() == 2
        # Fifty users of one token are forty-nine too many: the winner's login ends as well.
        winner = next(answer for answer in answers if answer.status_code == 200)
        assert _refused(_refresh(winner.json()["refresh"]))

    def test_of_fifty_tabs_of_one_browser_one_wins_and_stays(self, token: str) -> None:
        def tab() -> str | None:
            try:
                return sessions.refresh(token=token, patience=sessions.BROWSER_PATIENCE).refresh
            except Problem:
                return None

        won = [successor for successor in together(*times(50, tab)) if successor]
        assert len(won) == 1
        assert _refresh(won[0]).status_code == 200

    def test_after_a_logout_at_the_same_moment_no_token_is_left(self, token: str) -> None:
        def log_out() -> Any:
            return APIClient().post(LOGOUT, {"refresh": token})

        left, renewed = together(log_out, lambda: _refresh(token))
        assert left.status_code == 204
        successor = renewed.json().get("refresh", token)
        assert _refused(_refresh(successor))

    def test_logins_of_one_user_at_once_do_not_block_each_other(
        self, person: Any, log_in: Any
    ) -> None:
        person("ann")
        answers = together(*times(16, lambda: log_in().status_code))
        assert Counter(answers) == {200: 16}

    def test_a_commit_whose_answer_got_lost_is_no_reuse(
        self, token: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = sessions.in_transaction

        def commits_twice(work: Callable[[], Any]) -> Any:
            real(work)
            return real(work)

        monkeypatch.setattr(sessions, "in_transaction", commits_twice)
        successor = _refresh(token).json()["refresh"]
        monkeypatch.undo()
        assert _refresh(successor).status_code == 200

    def test_a_login_whose_commit_ran_twice_is_one_login(
        self, person: Any, log_in: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        real = sessions.in_transaction
        monkeypatch.setattr(sessions, "in_transaction", lambda work: (real(work), real(work))[1])
        person("ann")
        assert log_in().status_code == 200
        assert LoginSession.objects.count() == RefreshToken.objects.count() == 1
