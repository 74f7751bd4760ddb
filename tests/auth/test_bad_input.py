"""Bad input gets a problem document with a code, never a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rest_framework.test import APIClient

from services.auth.models import User
from tests.auth.conftest import PASSWORD

pytestmark = pytest.mark.django_db
GOOD: dict[str, dict[str, Any]] = {
    "register": {"username": "ann", "email": "ann@example.com", "password": PASSWORD},
    "login": {"username": "ann", "password": PASSWORD},
    "refresh": {"refresh": "x" * 43},
    "logout": {"refresh": "x" * 43},
}
FIELDS = [(call, field) for call, body in GOOD.items() for field in body]
NOT_STRINGS = [None, 1, 1.5, 10**400, True, [], ["ann"], {}, {"a": 1}]
# Long, empty, invisible, or not what a database or a terminal would like to see.
ODD_STRINGS = ["", "a\x00b", "\ud800", "x" * 1_000, "x" * 200_000, "\u202e\u0000", "\x1b[31m"]


def _post(call: str, body: Any) -> Any:
    return APIClient().post(f"/api/auth/{call}", body)


def _raw(call: str, body: bytes, content_type: str = "application/json") -> Any:
    return APIClient().generic("POST", f"/api/auth/{call}", body, content_type=content_type)


def _is_problem(response: Any, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.content[:300]
    assert response["Content-Type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert {"type", "title", "status", "detail", "code", "request_id"} <= set(problem)
    assert (problem["status"], problem["code"]) == (status, code)
    return problem


@pytest.mark.parametrize(("call", "field"), FIELDS)
@pytest.mark.parametrize("value", NOT_STRINGS, ids=lambda value: str(value)[:20])
def test_what_is_not_a_string_names_the_field(call: str, field: str, value: Any) -> None:
    problem = _is_problem(_post(call, {**GOOD[call], field: value}), 400, "validation_error")
    assert problem["errors"][0]["field"] == field


@pytest.mark.parametrize(("call", "field"), FIELDS)
def test_a_missing_field_is_named(call: str, field: str) -> None:
    body = {name: value for name, value in GOOD[call].items() if name != field}
    problem = _is_problem(_post(call, body), 400, "validation_error")
    assert [(error["field"], error["code"]) for error in problem["errors"]] == [(field, "required")]


@pytest.mark.parametrize(("call", "field"), FIELDS)
@pytest.mark.parametrize("value", ODD_STRINGS, ids=lambda value: ascii(value)[:20])
def test_odd_strings_are_refused_or_simply_wrong(call: str, field: str, value: str) -> None:
    response = _raw(call, json.dumps({**GOOD[call], field: value}).encode())
    assert response.status_code in {400, 401, 204} or (call, field) == ("register", "password")
    assert response.status_code < 500
    if response.status_code >= 400:
        assert response["Content-Type"] == "application/problem+json"
    assert "\x00" not in "".join(User.objects.values_list("username", flat=True))


@pytest.mark.parametrize(
    "username",
    ["ab", "a" * 33, "a b", "ann\n", " ann", "änn", "ann@x", "a/b", "ann\u200b", "аnn", "<b>x"],
)
def test_a_username_is_3_to_32_of_a_few_characters(username: str) -> None:
    problem = _is_problem(
        _post("register", {**GOOD["register"], "username": username}), 400, "validation_error"
    )
    assert problem["errors"][0]["field"] == "username"


@pytest.mark.parametrize("username", ["a.b", "a-b_c", "...", "A" * 32, "007"])
def test_such_usernames_are_fine(username: str) -> None:
    assert _post("register", {**GOOD["register"], "username": username}).status_code == 201


@pytest.mark.parametrize(
    "email",
    [
        *("ann", "ann@", "@x.org", "a b@x.org", "ann@x.org\n", "änn@x.org", "ann@exämple.org"),
        *("a@b", f"{'x' * 250}@x.org", '"a\x01b"@x.org'),
    ],
)
def test_an_email_address_is_one(email: str) -> None:
    problem = _is_problem(
        _post("register", {**GOOD["register"], "email": email}), 400, "validation_error"
    )
    assert problem["errors"][0]["field"] == "email"


@pytest.mark.parametrize("call", GOOD)
@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"nonsense", b"\xff\xfe", b'{"username": "\xc3\x28"}', b'{"a": NaN}', b"\x00"),
        *(b'{"refresh": "a", "refresh": "b"}', b"[" * 200_000),
        b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    ],
    ids=lambda body: repr(body[:12]),
)
def test_what_is_not_json_is_malformed(call: str, body: bytes) -> None:
    response = _raw(call, body)
    code = response.json()["code"]
    # An empty body is one without the fields.
    _is_problem(response, 400, "validation_error" if body == b"" else "malformed_json")
    assert code in {"validation_error", "malformed_json"}


@pytest.mark.parametrize("call", GOOD)
@pytest.mark.parametrize("body", [[], [1], "text", 1, None, True])
def test_json_that_is_no_object_is_not_valid(call: str, body: Any) -> None:
    _is_problem(_raw(call, json.dumps(body).encode()), 400, "validation_error")


@pytest.mark.parametrize("call", GOOD)
def test_a_body_of_1_mb_is_too_large(call: str) -> None:
    body = json.dumps({**GOOD[call], "padding": "x" * 1_000_000}).encode()
    _is_problem(_raw(call, body), 413, "body_too_large")


@pytest.mark.parametrize("call", GOOD)
@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "é"],
)
def test_only_json_is_read(call: str, content_type: str) -> None:
    _is_problem(_raw(call, b"a=b", content_type), 415, "unsupported_media_type")


@pytest.mark.parametrize("call", GOOD)
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
def test_other_methods_are_not_allowed(call: str, method: str) -> None:
    response = APIClient().generic(method, f"/api/auth/{call}")
    _is_problem(response, 405, "method_not_allowed")


def test_an_unknown_address_is_a_problem_too() -> None:
    _is_problem(APIClient().get("/api/auth/nothing"), 404, "not_found")


@pytest.mark.parametrize(
    "header", ["Basic YTpi", "Bearer", "Bearer ", "bearer\tx", "é", "x" * 9000]
)
def test_a_malformed_authorization_header_is_401(header: str) -> None:
    response = APIClient().get("/api/auth/me", HTTP_AUTHORIZATION=header)
    problem = _is_problem(response, 401, "invalid_token")
    assert problem["detail"]
    assert response["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("address", ["", "not an address", "::ffff:1.2.3.4", "1.2.3.4, 5.6.7.8"])
def test_a_strange_client_address_does_no_harm(address: str) -> None:
    response = APIClient().post("/api/auth/login", GOOD["login"], HTTP_X_REAL_IP=address)
    _is_problem(response, 401, "invalid_credentials")
