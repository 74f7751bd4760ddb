"""The storefront's shells: who is shown what, and nothing that the content policy would block."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from django.test import Client

import gateway

PAGES = ["/", "/events/1", "/orders", "/orders/0190-ab", "/pay/0190-ab"]
STATIC = Path(gateway.__file__).parent / "static" / "storefront"


@pytest.mark.parametrize("path", PAGES)
def test_a_page_has_no_inline_code_and_sets_the_csrf_cookie(path: str) -> None:
    answer = Client().get(path)
    page = answer.content.decode()
    assert answer.status_code == 200
    assert "csrftoken" in answer.cookies
    assert not re.search(r"<script(?![^>]* src=)|<style|\sstyle=|\son\w+=|javascript:", page)
    assert not re.search(r"""(?:src|href)=["'](?:https?:)?//""", page)
    assert answer["Cache-Control"] == "private, no-cache"


@pytest.mark.parametrize("path", PAGES)
def test_every_file_that_a_page_names_exists(path: str) -> None:
    page = Client().get(path).content.decode()
    names = re.findall(r'="/static/storefront/([\w.-]+)"', page)
    assert len(names) >= 3
    assert all((STATIC / name).is_file() for name in names)


def test_every_import_of_a_script_exists() -> None:
    for script in STATIC.glob("*.js"):
        for name in re.findall(r'from "\./([\w.]+)"|import "\./([\w.]+)"', script.read_text()):
            assert (STATIC / (name[0] or name[1])).is_file(), script.name


def test_scripts_never_write_markup() -> None:
    for script in STATIC.glob("*.js"):
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(", script.read_text()
        ), script.name


def test_a_visitor_is_offered_to_log_in() -> None:
    page = Client().get("/events/1").content.decode()
    assert 'href="/login?next=/events/1"' in page
    assert "My orders" not in page


def test_a_person_sees_their_name_and_no_administration(
    access_token: Callable[..., str],
) -> None:
    page = Client(headers={"Cookie": f"flashsale_access={access_token()}"}).get("/")
    assert "ann" in page.content.decode()
    assert "/admin/" not in page.content.decode()


def test_an_admin_is_led_to_every_services_administration(
    access_token: Callable[..., str],
) -> None:
    page = Client(headers={"Cookie": f"flashsale_access={access_token(role='admin')}"}).get("/")
    for service in ("auth", "catalog", "inventory", "order"):
        assert f'href="/admin/{service}/"' in page.content.decode()


def test_a_name_is_text_never_markup(access_token: Callable[..., str]) -> None:
    token = access_token(username="<b>ann</b>")
    page = Client(headers={"Cookie": f"flashsale_access={token}"}).get("/")
    assert "&lt;b&gt;ann" in page.content.decode()


def test_pages_are_for_reading() -> None:
    assert Client().post("/").status_code == 405


def test_health() -> None:
    assert Client().get("/healthz").json() == {"status": "ok"}
    ready = Client().get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["keys"]) == (200, "ok")
