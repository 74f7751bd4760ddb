"""Callers and set-up of the catalog tests, one line each in the tests that use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from services.catalog import hot_reads
from tests.catalog.driver import Caller
from tests.catalog.watching import Queries


@pytest.fixture(autouse=True)
def cache_is_back(clean_cache: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget that the cache was away in the test before."""
    monkeypatch.setattr(hot_reads, "_away_until", float("-inf"))


@pytest.fixture
def queries() -> Queries:
    """Return a counter of the queries that reads cost."""
    return Queries()


@pytest.fixture
def anyone() -> Caller:
    """Return somebody without a token."""
    return Caller()


@pytest.fixture
def admin(access_token: Callable[..., str]) -> Caller:
    """Return an admin."""
    return Caller(access_token(role="admin", user_id=7, username="root"))


@pytest.fixture
def user(access_token: Callable[..., str]) -> Caller:
    """Return a signed-in person."""
    return Caller(access_token())


@pytest.fixture
def order(service_token_for: Callable[[str], str]) -> Caller:
    """Return the order service."""
    return Caller(service_token_for("order"))


@pytest.fixture
def show(admin: Caller) -> Callable[..., dict[str, Any]]:
    """Return a maker of events: ``show("Jazz", status="DRAFT", tickets=2)``."""

    def make(
        title: str = "Jazz", *, status: str = "PUBLISHED", tickets: int = 1, **fields: Any
    ) -> dict[str, Any]:
        event_id = admin.create_event(title=title, **fields).expect(201)["id"]
        for number in range(tickets):
            admin.create_ticket(event_id, name=f"Row {number}").expect(201)
        for call in {"DRAFT": (), "PUBLISHED": ("publish",), "ENDED": ("publish", "end")}[status]:
            admin.move_event(event_id, call).expect(200)
        shown: dict[str, Any] = admin.event(event_id).expect(200)
        return shown

    return make
