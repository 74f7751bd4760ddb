"""Callers and set-up of the inventory tests, one line each in the tests that use them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db import connection

from common.tokens import AccessToken
from services.inventory import deciding, reservations, reserving, stock
from tests.common.concurrency import meet_before
from tests.inventory.driver import Caller


@pytest.fixture
def order(service_token_for: Callable[[str], str]) -> Caller:
    """Return the order service calling inventory."""
    return Caller(service_token_for("order"))


@pytest.fixture
def admin(access_token: Callable[..., str]) -> Caller:
    """Return an admin calling inventory."""
    return Caller(access_token(role="admin", user_id=7, username="root"))


@pytest.fixture
def tickets() -> Callable[..., None]:
    """Return a maker of stock: ``tickets(5)`` puts 5 of ticket 1 on the shelf, ``tickets(5, 2)``
    each of tickets 1 and 2."""

    def make(*totals: int) -> None:
        for ticket_id, total in enumerate(totals, start=1):
            stock.initialise(ticket_id=ticket_id, total=total, actor="test")

    return make


@pytest.fixture
def alone(settings: object) -> None:
    """Let every request commit by itself, as requests of different processes do."""
    settings.GROUP_COMMIT_MAX_BATCH = 1  # type: ignore[attr-defined]


@pytest.fixture(params=["shared", "alone"])
def racing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a switch: threads that reserve meet at the last moment before.

    Once where requests of one process share a transaction, and once in front of transactions of
    their own, as those of several processes have.
    """
    if request.param == "alone":
        request.getfixturevalue("alone")

    def arm(parties: int = 2) -> None:
        module, point = {
            "shared": (reservations, "_submit"),
            "alone": (reserving, "in_transaction"),
        }[request.param]
        meet_before(monkeypatch, module, point, parties=parties)

    return arm


@pytest.fixture
def deciding_at_once(monkeypatch: pytest.MonkeyPatch, alone: None) -> Callable[..., None]:
    """Return a switch: threads that decide a reservation's fate meet at the last moment before.

    On MySQL that is inside the transaction, in front of the UPDATE that decides. SQLite has one
    writer at a time, so there it is in front of the transaction.
    """

    def arm(parties: int = 2) -> None:
        point = "_move" if connection.vendor == "mysql" else "in_transaction"
        meet_before(monkeypatch, deciding, point, parties=parties)

    return arm


def user_token(role: str = "user") -> str:
    """Return a fresh token of a person."""
    return str(AccessToken.issue(user_id=9, username="bob", role=role))
