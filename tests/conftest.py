"""Fixtures that the tests of every project share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.conf import settings
from django.core.cache import cache


@pytest.fixture
def api() -> Any:
    """Return a REST client that speaks JSON."""
    from rest_framework.test import APIClient

    return APIClient()


@pytest.fixture
def access_token() -> Callable[..., str]:
    """Return a maker of access tokens, signed with the key of the auth service."""
    from common.tokens import AccessToken

    def make(role: str = "user", user_id: int = 1, username: str = "ann") -> str:
        return str(AccessToken.issue(user_id=user_id, username=username, role=role))

    return make


@pytest.fixture
def service_token_for() -> Callable[[str], str]:
    """Return a maker of tokens that another service would show to the service under test."""
    from common.tokens import ServiceToken

    def make(issuer: str) -> str:
        token = ServiceToken(issuer=issuer, audience=settings.SERVICE)
        token["sub"] = issuer
        return str(token)

    return make


@pytest.fixture(autouse=True)
def clean_cache() -> None:
    """Start every test with an empty cache."""
    if settings.configured:
        cache.clear()
