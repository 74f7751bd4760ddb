"""Errors: raised where they are known, turned into problem+json (RFC 9457) in common.problems."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from django.http import HttpResponse
from rest_framework import exceptions

from common.request_id import current_request_id

CONTENT_TYPE = "application/problem+json"


class Problem(exceptions.APIException):
    """A refusal with an HTTP status, a machine-readable code and a sentence that helps.

    ``retry_after_seconds`` becomes the Retry-After header; ``extra`` members are added to the body
    (and ``request_id``, if given, stands for the request that was refused first).
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        retry_after_seconds: int | None = None,
        headers: Mapping[str, str] | None = None,
        **extra: Any,
    ) -> None:
        super().__init__(detail, code)
        self.status_code = status
        self.code = code
        self.text = detail
        self.wait = retry_after_seconds
        self.headers = dict(headers or {})
        if status == HTTPStatus.UNAUTHORIZED:
            # HTTP wants a 401 to say how to do better (RFC 9110).
            self.headers.setdefault("WWW-Authenticate", 'Bearer realm="flashsale"')
        self.extra = extra

    def body(self) -> dict[str, Any]:
        """Return the problem document."""
        return problem_body(self.status_code, self.code, self.text, **self.extra)

    def __str__(self) -> str:
        return f"{self.code}: {self.text}"


class NotFound(Problem):
    """404, also for what exists but is not the caller's."""

    def __init__(self, code: str = "not_found", detail: str = "There is no such thing.") -> None:
        super().__init__(404, code, detail)


class Unavailable(Problem):
    """503: nothing is wrong with the request, the same one may work in a moment."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(503, code, detail, retry_after_seconds=1)


def problem_body(status: int, code: str, detail: str, **extra: Any) -> dict[str, Any]:
    """Return the members of a problem document (RFC 9457) with this system's ``code``."""
    return {
        "type": f"urn:flashsale:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": current_request_id(),
        **extra,
    }


def problem_response(
    status: int, code: str, detail: str, *, retry_after_seconds: int | None = None, **extra: Any
) -> HttpResponse:
    """Return a problem as a plain Django response, for where DRF does not reach."""
    body = json.dumps(problem_body(status, code, detail, **extra))
    response = HttpResponse(body, status=status, content_type=CONTENT_TYPE)
    if retry_after_seconds is not None:
        response["Retry-After"] = str(retry_after_seconds)
    return response
