"""The browsable API: a person with a browser gets a page with a form, not an error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize(
    "path",
    [
        "/api/inventory/stocks/1",
        "/api/inventory/stocks/1/adjust",
        "/api/inventory/reservations",
        "/api/inventory/reservations/r1",
        "/api/inventory/reservations/r1/commit",
    ],
)
def test_every_address_is_a_page_for_an_admin_with_a_browser(
    api: Any, access_token: Callable[..., str], path: str
) -> None:
    api.cookies["flashsale_access"] = access_token(role="admin")
    answer = api.get(path, HTTP_ACCEPT="text/html")
    assert answer.status_code in (200, 404, 405)
    assert "text/html" in answer["Content-Type"]
    assert "Log out" in answer.content.decode()
