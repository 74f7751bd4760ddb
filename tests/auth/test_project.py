"""The auth service as a Django project: its schema, checks, migrations and boundaries."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.db import router

from services.auth.router import AuthRouter

pytestmark = pytest.mark.django_db
CALLS = {
    ("/api/auth/register", "post"): ("auth_register", {"201", "400", "409", "429", "503"}),
    ("/api/auth/login", "post"): ("auth_login", {"200", "400", "401", "429", "503"}),
    ("/api/auth/refresh", "post"): ("auth_refresh", {"200", "400", "401", "429", "503"}),
    ("/api/auth/logout", "post"): ("auth_logout", {"204", "400", "429", "503"}),
    ("/api/auth/me", "get"): ("auth_me", {"200", "401", "403", "429", "503"}),
    ("/api/auth/jwks.json", "get"): ("auth_jwks", {"200"}),
}


@pytest.fixture
def schema(api: Any) -> dict[str, Any]:
    response = api.get("/internal/auth/openapi.json")
    assert response.status_code == 200
    document: dict[str, Any] = response.json()
    return document


def test_the_schema_has_every_call_with_its_answers(schema: dict[str, Any]) -> None:
    found = {
        (path, method): (operation["operationId"], set(operation["responses"]))
        for path, item in schema["paths"].items()
        for method, operation in item.items()
    }
    assert found == CALLS


def test_the_schema_says_which_call_wants_a_login(schema: dict[str, Any]) -> None:
    wants = {
        path
        for path, item in schema["paths"].items()
        for operation in item.values()
        if {"bearer": []} in operation.get("security", [])
    }
    assert wants == {"/api/auth/me"}
    assert set(schema["components"]["securitySchemes"]) == {"bearer", "cookie"}


def test_errors_in_the_schema_are_problems_and_passwords_never_answered(
    schema: dict[str, Any],
) -> None:
    refusals = [
        answer["content"]
        for item in schema["paths"].values()
        for operation in item.values()
        for status, answer in operation["responses"].items()
        if status >= "400"
    ]
    assert refusals
    assert all(set(content) == {"application/problem+json"} for content in refusals)
    assert "password" not in schema["components"]["schemas"]["User"]["properties"]


def test_the_schema_is_made_without_a_warning() -> None:
    call_command("spectacular", "--validate", "--fail-on-warn", stdout=io.StringIO())


def test_check_deploy_is_clean(settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = True
    settings.SECURE_HSTS_SECONDS = 31_536_000
    settings.SECURE_HSTS_INCLUDE_SUBDOMAINS = settings.SECURE_HSTS_PRELOAD = True
    call_command("check", "--deploy", "--fail-level", "WARNING", "--database", "default")


def test_the_migrations_are_complete() -> None:
    call_command("makemigrations", "--check", "--dry-run", stdout=io.StringIO())


def test_the_router_serves_this_service_and_refuses_others() -> None:
    assert router.db_for_write(Group) == "default"
    assert not AuthRouter().allow_migrate("default", "order")
    order = SimpleNamespace(__name__="Order", _meta=SimpleNamespace(app_label="order"))
    with pytest.raises(ImproperlyConfigured, match="touches another's tables"):
        router.db_for_read(order)


def test_liveness_and_readiness(api: Any) -> None:
    assert api.get("/healthz").json() == {"status": "ok"}
    ready = api.get("/readyz")
    assert ready.status_code == 200
    assert ready.json()["checks"] == {"keys": "ok", "database": "ok", "cache": "ok"}
