"""The answer to nginx's auth_request: tokens, cookies, limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import Client

from gateway.routes import BUYING

Headers = dict[str, str]


def ask(method: str, uri: str, headers: Headers | None = None, **more: Any) -> HttpResponse:
    """Ask as nginx does."""
    sent = {"X-Original-Method": method, "X-Original-URI": uri, "Host": "authorize.internal"}
    return Client(**more).get("/internal/gateway/authorize", headers=sent | (headers or {}))


def refusal(answer: HttpResponse) -> tuple[int, str]:
    return answer.status_code, answer["X-Refusal"]


def test_a_person_with_a_valid_token_may_order(bearer: Callable[..., Headers]) -> None:
    assert ask("POST", "/api/orders", bearer()).status_code == 204


def test_nobody_may_not(bearer: Callable[..., Headers]) -> None:
    assert refusal(ask("POST", "/api/orders")) == (401, "not_authenticated")


def test_only_an_admin_may_set_stock(bearer: Callable[..., Headers]) -> None:
    uri = "/api/inventory/stocks/1"
    assert refusal(ask("PUT", uri, bearer("user"))) == (403, "permission_denied")
    assert ask("PUT", uri, bearer("admin")).status_code == 204


def test_worthless_tokens_are_worth_nothing(worthless_tokens: dict[str, str]) -> None:
    for what, token in worthless_tokens.items():
        answer = ask("GET", "/api/orders", {"Authorization": f"Bearer {token}"})
        assert refusal(answer) == (401, "invalid_token"), what


def test_worthless_tokens_are_worth_nothing_in_the_cookie(worthless_tokens: dict[str, str]) -> None:
    for what, token in worthless_tokens.items():
        answer = ask("GET", "/admin/order/", {"Cookie": f"flashsale_access={token}"})
        assert refusal(answer) == (401, "not_authenticated"), what


def test_the_cookie_is_as_good_as_the_header(access_token: Callable[..., str]) -> None:
    cookie = {"Cookie": f"a=b; flashsale_access={access_token(role='admin')}"}
    assert ask("GET", "/admin/catalog/", cookie).status_code == 204


def test_a_bad_header_is_not_made_good_by_a_cookie(access_token: Callable[..., str]) -> None:
    headers = {"Authorization": "Bearer x", "Cookie": f"flashsale_access={access_token()}"}
    assert refusal(ask("GET", "/api/orders", headers)) == (401, "invalid_token")


@pytest.mark.parametrize("value", ["Basic YTpi", "Bearer", "Token x", "Bearer é", "Bearer a b"])
def test_other_uses_of_the_authorization_header_are_refused(value: str) -> None:
    answer = ask("GET", "/api/orders", {"Authorization": value})
    assert refusal(answer) == (401, "invalid_token")


def test_a_service_token_opens_only_the_service_it_was_made_for(
    service_bearer: Callable[[str, str], Headers],
) -> None:
    uri = "/api/inventory/reservations"
    assert ask("POST", uri, service_bearer("order", "inventory")).status_code == 204
    refused = ask("POST", uri, service_bearer("order", "catalog"))
    assert refusal(refused) == (401, "invalid_token")


def test_a_service_is_no_person(service_bearer: Callable[[str, str], Headers]) -> None:
    answer = ask("POST", "/api/orders", service_bearer("inventory", "order"))
    assert refusal(answer) == (403, "permission_denied")


def test_what_is_not_in_the_table_is_refused_even_for_an_admin(
    bearer: Callable[..., Headers],
) -> None:
    for uri in ("/internal/inventory/holds", "/api/orders/", "/api//orders", "/API/orders", ""):
        assert refusal(ask("GET", uri, bearer("admin"))) == (403, "not_routed")


def test_headers_that_claim_an_identity_change_nothing() -> None:
    claims = {"X-User-Id": "1", "X-Role": "admin", "Remote-User": "admin"}
    assert refusal(ask("PUT", "/api/inventory/stocks/1", claims)) == (401, "not_authenticated")


def test_a_browser_is_told_where_to_log_in_and_to_come_back() -> None:
    as_wsgi_reads_bytes = "/orders?a=1&b=é".encode().decode("latin-1")
    answer = ask("GET", as_wsgi_reads_bytes, {"Accept": "text/html,*/*"})
    assert answer["X-Login"] == "/login?next=/orders%3Fa%3D1%26b%3D%C3%A9"
    assert "X-Login" not in ask("GET", "/orders", {"Accept": "application/json"})


def test_a_person_who_calls_too_often_has_to_wait(bearer: Callable[..., Headers]) -> None:
    headers = bearer(user_id=71) | {"X-Real-IP": "127.0.0.2"}
    per_window = int(str(BUYING.by_user).partition("/")[0])
    # The window may end while we count, so it takes at most two of them.
    answers = [ask("POST", "/api/orders", headers) for _ in range(2 * per_window + 1)]
    limited = [answer for answer in answers if answer.status_code != 204]
    assert refusal(limited[0]) == (403, "rate_limited")
    assert 1 <= int(limited[0]["Retry-After"]) <= 60
    # Others, and the person's own reads, are not touched.
    assert ask("POST", "/api/orders", bearer(user_id=72)).status_code == 204
    assert ask("GET", "/api/orders", headers).status_code == 204


def test_exempt_addresses_are_not_counted(bearer: Callable[..., Headers], settings: Any) -> None:
    settings.LIMIT_EXEMPT_IPS = frozenset({"127.0.0.1"})
    headers = bearer(user_id=73) | {"X-Real-IP": "127.0.0.1"}
    assert {ask("POST", "/api/orders", headers).status_code for _ in range(130)} == {204}


def test_without_redis_buying_goes_on(bearer: Callable[..., Headers], settings: Any) -> None:
    dead = {**settings.CACHES["default"], "LOCATION": "unix:///nonexistent/redis.sock?db=0"}
    settings.CACHES = {"default": dead}
    headers = bearer() | {"X-Real-IP": "127.0.0.2"}
    assert ask("POST", "/api/orders", headers).status_code == 204
    assert ask("GET", "/api/orders", headers).status_code == 204
