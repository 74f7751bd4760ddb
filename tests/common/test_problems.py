"""Every error is a problem document (RFC 9457), wherever it is raised, and tells no secrets."""

from __future__ import annotations

import pytest
from django.test import Client

from tests.common.views_that_fail import FAILURES, SECRET

pytestmark = [pytest.mark.urls("tests.common.views_that_fail"), pytest.mark.django_db]

# failure → (status, code) in a DRF view
EXPECTED = {
    "problem": (409, "sold_out"),
    "not-found": (404, "order_not_found"),
    "unavailable": (503, "inventory_unavailable"),
    "limited": (429, "rate_limited"),
    "unauthenticated": (401, "invalid_credentials"),
    "invalid": (400, "validation_error"),
    "drf-not-authenticated": (401, "not_authenticated"),
    "drf-authentication-failed": (401, "invalid_token"),
    "drf-permission-denied": (403, "permission_denied"),
    "drf-not-found": (404, "not_found"),
    "drf-throttled": (429, "rate_limited"),
    "drf-parse-error": (400, "malformed_json"),
    "drf-unsupported": (415, "unsupported_media_type"),
    "http404": (404, "not_found"),
    "denied": (403, "permission_denied"),
    "suspicious": (400, "bad_request"),
    "database-away": (503, "database_unavailable"),
    "database-lost": (503, "database_unavailable"),
    "out-of-range": (400, "validation_error"),
    "forbidden": (409, "conflict"),
    "duplicate": (500, "internal_error"),
    "crash": (500, "internal_error"),
    "deep": (500, "internal_error"),
}
# What DRF alone knows how to say; a plain Django view does not raise these.
OF_DRF = {name for name in FAILURES if name.startswith("drf-")} | {"invalid", "out-of-range"}


@pytest.fixture
def client():
    return Client(raise_request_exception=False)


def assert_problem(response, status, code):
    body = response.json()
    assert (response.status_code, body["status"], body["code"]) == (status, status, code)
    assert response["Content-Type"] == "application/problem+json"
    assert body["type"] == f"urn:flashsale:problem:{code}"
    assert body["title"]
    assert body["detail"]
    assert body["request_id"] == response["X-Request-ID"]
    assert SECRET not in response.content.decode()
    return body


def test_the_table_is_complete():
    assert EXPECTED.keys() == FAILURES.keys()


@pytest.mark.parametrize("name", FAILURES)
def test_a_drf_view_answers_with_a_problem(client, name):
    response = client.get(f"/api/drf/{name}")
    # DRF says 403 where no authentication scheme is set, as in this view.
    status, code = EXPECTED[name]
    if name in ("drf-not-authenticated", "drf-authentication-failed"):
        status = 403
    assert_problem(response, status, code)


@pytest.mark.parametrize("name", sorted(FAILURES.keys() - OF_DRF))
def test_a_plain_view_answers_with_the_same_problem(client, name):
    assert_problem(client.get(f"/api/plain/{name}"), *EXPECTED[name])


@pytest.mark.parametrize("kind", ["drf", "plain"])
def test_what_a_problem_says_more_is_in_its_body(client, kind):
    body = assert_problem(client.get(f"/api/{kind}/problem"), 409, "sold_out")
    assert (body["ticket_id"], body["available"]) == (5, 0)


@pytest.mark.parametrize("kind", ["drf", "plain"])
@pytest.mark.parametrize(
    ("name", "seconds"),
    [("unavailable", "1"), ("limited", "7"), ("database-away", "1"), ("database-lost", "1")],
)
def test_what_may_work_later_says_when(client, kind, name, seconds):
    assert client.get(f"/api/{kind}/{name}")["Retry-After"] == seconds


@pytest.mark.parametrize("kind", ["drf", "plain"])
def test_a_401_says_how_to_do_better(client, kind):
    assert client.get(f"/api/{kind}/unauthenticated")["WWW-Authenticate"].startswith("Bearer")


def test_every_invalid_field_is_named_with_its_place(client):
    body = assert_problem(client.get("/api/drf/invalid"), 400, "validation_error")
    assert [(error["field"], error["code"]) for error in body["errors"]] == [
        ("name", "required"),
        ("items.1.number", "min_value"),
    ]
    assert "2 fields are" in body["detail"]


def test_an_unknown_url_is_a_problem(client):
    body = assert_problem(client.get("/api/nowhere"), 404, "not_found")
    assert "/api/nowhere" in body["detail"]


def test_a_very_long_unknown_url_is_a_problem(client):
    response = client.get("/api/" + "x" * 5_000)
    assert_problem(response, 404, "not_found")
    assert len(response.content) < 1_000


def test_another_method_is_a_problem(client):
    response = client.delete("/api/drf/crash")
    assert_problem(response, 405, "method_not_allowed")
    assert response["Allow"] == "GET, HEAD, OPTIONS"


def test_a_media_type_that_nobody_speaks_is_a_problem(client):
    response = client.get("/api/echo", HTTP_ACCEPT="image/png")
    assert_problem(response, 406, "not_acceptable")


def test_an_unknown_host_is_a_problem(client):
    assert_problem(client.get("/api/echo", HTTP_HOST="evil.example"), 400, "bad_request")


def test_a_view_that_forgets_to_say_who_may_call_it_is_closed(client, access_token):
    assert_problem(client.get("/api/closed"), 401, "not_authenticated")
    for role in ("user", "admin"):
        header = f"Bearer {access_token(role=role)}"
        response = client.get("/api/closed", HTTP_AUTHORIZATION=header)
        assert_problem(response, 403, "permission_denied")


def test_pages_for_people_stay_pages(client):
    response = client.get("/page/http404")
    assert (response.status_code, response["Content-Type"][:9]) == (404, "text/html")
    response = client.get("/api/drf/problem", HTTP_ACCEPT="text/html")
    assert (response.status_code, response["Content-Type"][:9]) == (409, "text/html")
    assert "sold_out" in response.content.decode()


@pytest.mark.parametrize("name", ["crash", "deep", "database-away"])
def test_a_browser_gets_no_secrets_either(client, name):
    response = client.get(f"/api/drf/{name}", HTTP_ACCEPT="text/html")
    assert response.status_code in (500, 503)
    assert SECRET not in response.content.decode()


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"x", "multipart/form-data", 400),
        (b"x", "multipart/form-data; boundary=", 400),
        (b"x", "multipart/form-data; boundary=\x80", 400),
        (b"--x\r\nbroken", "multipart/form-data; boundary=x", 415),
        (b"&".join(b"a%d=1" % n for n in range(2_000)), FORM, 400),
        (b"a=" + b"x" * 2**20, FORM, 413),
        (b"a=%ff%fe", FORM, 415),
        (b"a=1", f"{FORM}; charset=klingon", 415),
    ],
)
def test_a_form_sent_with_a_cookie_is_refused_and_not_a_crash(
    access_token, body, content_type, status
):
    """The CSRF check looks into a form before any parser of ours does."""
    client = Client(enforce_csrf_checks=True, raise_request_exception=False)
    client.cookies["flashsale_access"] = access_token()
    client.cookies["csrftoken"] = "x" * 32
    response = client.generic("POST", "/api/echo", body, content_type)
    assert response["Content-Type"] == "application/problem+json"
    assert response.status_code in (status, 403)
    assert response.status_code < 500
