"""One id per request: taken where well-formed, made where not, in every answer and log line."""

from __future__ import annotations

import re

import pytest
import structlog
from django.http import HttpResponse
from django.test import Client, RequestFactory

from common.request_id import RequestIdMiddleware, current_request_id
from tests.common.concurrency import together

MADE = re.compile(r"[0-9a-f]{32}")


def pass_through(given=None, view=None):
    """Send a request through the middleware; return (id in the view, id in the answer)."""
    seen = []

    def answer(request):
        seen.append(current_request_id())
        return view(request) if view else HttpResponse("fine")

    headers = {} if given is None else {"HTTP_X_REQUEST_ID": given}
    response = RequestIdMiddleware(answer)(RequestFactory().get("/", **headers))
    return seen[0], response["X-Request-ID"]


@pytest.mark.parametrize("given", ["a", "0190c7f0-0000-7000-8000-000000000001", "x" * 64, "_-"])
def test_a_well_formed_id_is_kept(given):
    assert pass_through(given) == (given, given)


@pytest.mark.parametrize(
    "given", [None, "", " ", "a b", "x" * 65, "é", "a\r\nb", "a;b", "<script>", "\x00", "a\n"]
)
def test_anything_else_is_replaced(given):
    inside, answered = pass_through(given)
    assert inside == answered
    assert MADE.fullmatch(answered)


def test_every_request_gets_an_id_of_its_own():
    assert len({pass_through()[1] for _ in range(100)}) == 100


def test_outside_of_a_request_there_is_none():
    pass_through("abc")
    assert current_request_id() == ""


def test_after_a_crash_there_is_none_either():
    def crash(request):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        pass_through("abc", crash)
    assert current_request_id() == ""


def test_threads_do_not_see_each_others_ids():
    assert together(*(lambda n=n: pass_through(f"id-{n}") for n in range(8))) == [
        (f"id-{n}", f"id-{n}") for n in range(8)
    ]


def test_log_lines_carry_the_id_and_nothing_of_the_request_before():
    structlog.contextvars.bind_contextvars(left_over="from before")
    bound = []
    pass_through(
        "abc",
        lambda request: bound.append(structlog.contextvars.get_contextvars()) or HttpResponse(),
    )
    assert bound == [{"request_id": "abc"}]


@pytest.mark.urls("tests.common.views_that_fail")
@pytest.mark.parametrize("path", ["/api/echo", "/api/nowhere", "/api/drf/crash", "/page/http404"])
def test_every_answer_names_the_request(path):
    response = Client(raise_request_exception=False).get(path, headers={"X-Request-ID": "abc"})
    assert response["X-Request-ID"] == "abc"
    if "json" in response["Content-Type"] and response.status_code >= 400:
        assert response.json()["request_id"] == "abc"
