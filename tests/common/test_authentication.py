"""Who is calling: the Bearer header, or the cookie of the login page with CSRF enforced."""

from __future__ import annotations

import pytest
from django.test import Client

pytestmark = [pytest.mark.urls("tests.common.views_that_fail"), pytest.mark.django_db]
ECHO = "/api/echo"


@pytest.fixture
def browser():
    """Return a browser of somebody who can be checked for CSRF."""
    return Client(enforce_csrf_checks=True)


def test_without_a_token_the_caller_is_anonymous(browser):
    assert browser.get(ECHO).json() == {"user": "anonymous", "role": "anyone"}


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_bearer_token_names_the_caller(browser, access_token, scheme):
    answer = browser.get(ECHO, HTTP_AUTHORIZATION=f"{scheme} {access_token(username='ann')}")
    assert answer.json() == {"user": "ann", "role": "user"}


def test_a_cookie_names_the_caller(browser, access_token):
    browser.cookies["flashsale_access"] = access_token(role="admin", username="root")
    assert browser.get(ECHO).json() == {"user": "root", "role": "admin"}


def test_a_header_outranks_the_cookie_and_a_bad_one_is_not_passed_over(browser, access_token):
    browser.cookies["flashsale_access"] = access_token(username="cookie")
    header = f"Bearer {access_token(username='header')}"
    assert browser.get(ECHO, HTTP_AUTHORIZATION=header).json()["user"] == "header"
    assert browser.get(ECHO, HTTP_AUTHORIZATION="Bearer x").status_code == 401


def test_a_stale_cookie_does_not_lock_a_browser_out_of_public_pages(browser):
    browser.cookies["flashsale_access"] = "stale"
    assert browser.get(ECHO).json()["role"] == "anyone"


def test_a_cookie_alone_cannot_write(browser, access_token):
    browser.cookies["flashsale_access"] = access_token()
    answer = browser.post(ECHO, {}, content_type="application/json")
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")


def test_a_cookie_with_the_csrf_token_can_write(browser, access_token):
    browser.cookies["flashsale_access"] = access_token()
    browser.cookies["csrftoken"] = token = "x" * 32
    answer = browser.post(ECHO, {}, content_type="application/json", HTTP_X_CSRFTOKEN=token)
    assert answer.json()["role"] == "user"


@pytest.mark.parametrize("token", ["", "y" * 32, "short", "é" * 32, "x" * 64])
def test_another_csrf_token_is_refused(browser, access_token, token):
    browser.cookies["flashsale_access"] = access_token()
    browser.cookies["csrftoken"] = "x" * 32
    answer = browser.post(ECHO, {}, content_type="application/json", HTTP_X_CSRFTOKEN=token)
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:9"])
def test_a_write_from_another_origin_is_refused(browser, access_token, origin):
    browser.cookies["flashsale_access"] = access_token()
    browser.cookies["csrftoken"] = token = "x" * 32
    answer = browser.post(
        ECHO, {}, content_type="application/json", HTTP_X_CSRFTOKEN=token, HTTP_ORIGIN=origin
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "csrf_failed")


def test_a_bearer_token_needs_no_csrf(browser, access_token):
    answer = browser.post(
        ECHO,
        {"a": 1},
        content_type="application/json",
        HTTP_AUTHORIZATION=f"Bearer {access_token()}",
    )
    assert answer.json() == {"data": {"a": 1}, "role": "user"}
