"""The project itself: migrations are complete, production settings are clean, pages render."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.core.management import call_command
from rest_framework.test import APIClient

from services.inventory.states import INIT, REFUSALS, TRANSITIONS, Status
from tests.inventory.driver import BATCH, HOLDS, RESERVATIONS, STOCKS

MANAGE = Path(__file__).resolve().parents[2] / "services" / "inventory" / "manage.py"


def manage(*arguments, **environment):
    """Run manage.py in a process of its own; return (exit code, output)."""
    done = subprocess.run(
        [sys.executable, str(MANAGE), *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.django_db
def test_no_migration_is_missing():
    call_command("makemigrations", "--check", "--dry-run", verbosity=0)


def test_production_settings_pass_djangos_own_check():
    code, output = manage("check", "--deploy", "--fail-level", "WARNING", COOKIE_SECURE="true")
    assert code == 0, output


def test_without_a_secret_key_nothing_starts():
    code, output = manage("check", INVENTORY_SECRET_KEY="", DEBUG="false")
    assert code != 0
    assert "INVENTORY_SECRET_KEY is not set" in output


def test_the_transition_table_is_the_one_of_the_design():
    paths = {call: (step.source, step.target) for call, step in TRANSITIONS.items()}
    assert paths == {
        "reserve": (INIT, "RESERVED"),
        "refuse": (INIT, "FAILED"),
        "commit": ("RESERVED", "COMMITTED"),
        "release": ("RESERVED", "RELEASED"),
        "expire": ("RESERVED", "RELEASED"),
    }
    assert all(sum(step.effect.values()) == 0 for step in TRANSITIONS.values()), "units conserved"
    assert set(REFUSALS) == set(Status) - {Status.RESERVED}, "final states refuse"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("role", "path", "status"),
    [
        ("admin", f"{STOCKS}/1", 200),
        ("admin", f"{STOCKS}/9", 404),
        ("admin", f"{STOCKS}/1/adjust", 405),
        ("admin", RESERVATIONS, 200),
        ("admin", STOCKS, 200),
        ("admin", f"{STOCKS}/1/movements", 200),
        ("admin", f"{RESERVATIONS}/r", 200),
        ("admin", f"{RESERVATIONS}/r/commit", 405),
        ("user", f"{STOCKS}/1", 403),
        (None, f"{STOCKS}/1", 401),
        ("admin", BATCH, 403),
        ("admin", HOLDS, 403),
    ],
)
def test_every_endpoint_is_a_page_in_a_browser(order, tickets, access_token, role, path, status):
    tickets(10)
    order.reserve("r")
    client = APIClient()
    if role:
        client.cookies["flashsale_access"] = access_token(role=role, username="root")

    response = client.get(path, HTTP_ACCEPT="text/html,application/xhtml+xml")

    assert response.status_code == status
    assert response["Content-Type"].startswith("text/html")
    page = response.content.decode()
    assert "root" in page if role else "/login?next=" in page


@pytest.mark.django_db
def test_the_schema_names_every_public_call(api):
    schema = api.get("/internal/inventory/openapi.json").json()
    calls = {(verb, path) for path, verbs in schema["paths"].items() for verb in verbs}
    assert calls == {
        ("get", "/api/inventory/stocks"),
        ("get", "/api/inventory/stocks/{ticket_id}/movements"),
        ("get", "/api/inventory/reservations"),
        ("post", "/api/inventory/reservations/{reservation_id}/extend"),
        ("get", "/api/inventory/stocks/{ticket_id}"),
        ("put", "/api/inventory/stocks/{ticket_id}"),
        ("post", "/api/inventory/stocks/{ticket_id}/adjust"),
        ("post", "/api/inventory/reservations"),
        ("get", "/api/inventory/reservations/{reservation_id}"),
        ("post", "/api/inventory/reservations/{reservation_id}/commit"),
        ("post", "/api/inventory/reservations/{reservation_id}/release"),
    }
