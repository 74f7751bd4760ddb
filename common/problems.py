"""The one place that turns errors into HTTP: problem+json (RFC 9457) for every caller."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

import structlog
from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.http import HttpRequest, HttpResponse
from django.http.multipartparser import MultiPartParserError
from drf_standardized_errors.formatter import ExceptionFormatter, flatten_errors
from drf_standardized_errors.handler import ExceptionHandler
from drf_standardized_errors.handler import exception_handler as standardized_handler
from rest_framework import exceptions
from rest_framework.response import Response

from common.database_errors import as_problem
from common.errors import CONTENT_TYPE, Problem, problem_body, problem_response

API_PREFIXES = ("/api/", "/internal/")
log = structlog.get_logger(__name__)

# DRF's codes that have a clearer name in this API.
_CODES = {
    "parse_error": "malformed_json",
    "authentication_failed": "invalid_token",
    "unsupported_media_type": "unsupported_media_type",
    "throttled": "rate_limited",
    "error": "internal_error",
}


class ProblemFormatter(ExceptionFormatter):
    """Writes problem+json instead of the library's own error envelope."""

    def run(self) -> dict[str, Any]:
        exc = self.exc
        if isinstance(exc, Problem):
            return exc.body()
        if isinstance(exc, exceptions.ValidationError):
            errors = [
                {
                    "field": error.attr or "non_field_errors",
                    "code": error.code,
                    "detail": error.detail,
                }
                for error in flatten_errors(exc.detail)
            ]
            count = len(errors)
            detail = f"{count} field{'s are' if count > 1 else ' is'} not valid; see errors."
            return problem_body(exc.status_code, "validation_error", detail, errors=errors)
        code = str(getattr(exc.detail, "code", exc.default_code))
        return problem_body(exc.status_code, _CODES.get(code, code), str(exc.detail))


class ProblemHandler(ExceptionHandler):
    """Turns every exception of a view into a problem; a database that is away becomes 503."""

    def convert_known_exceptions(self, exc: Exception) -> Exception:
        problem = as_problem(exc)
        if problem is not None:
            log.error("database error", exc_info=exc)
            return problem
        if isinstance(exc, RequestDataTooBig):
            return Problem(413, "body_too_large", "The body is too large.")
        if isinstance(exc, SuspiciousOperation | BadRequest | MultiPartParserError):
            return Problem(400, "bad_request", "The request is malformed.")
        return super().convert_known_exceptions(exc)

    def get_headers(self, exc: exceptions.APIException) -> dict[str, str]:
        headers: dict[str, str] = super().get_headers(exc)
        return {**headers, **exc.headers} if isinstance(exc, Problem) else headers

    def report_exception(self, exc: exceptions.APIException, response: Response) -> None:
        """Leave what a service says on purpose out of the error log and trackers, a 503 also."""
        if not isinstance(exc, Problem):
            super().report_exception(exc, response)

    def get_response(self, exc: exceptions.APIException, data: dict[str, Any]) -> Response:
        response: Response = super().get_response(exc, data)
        request = self.context.get("request")
        renderer = getattr(request, "accepted_renderer", None)
        # The browsable API shows the problem as a page; everybody else gets the media type.
        if renderer is None or renderer.format != "api":
            response.content_type = CONTENT_TYPE
        return response


exception_handler = standardized_handler


class ProblemMiddleware:
    """Answers errors outside of DRF's views (unknown URL, bad host, CSRF, crash) as problems."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        plain = response.get("Content-Type", "").startswith("text/html")
        if response.status_code < 400 or not plain or not request.path.startswith(API_PREFIXES):
            return response
        if "text/html" in request.headers.get("Accept", "") and hasattr(response, "data"):
            return response
        code = {400: "bad_request", 403: "permission_denied", 404: "not_found"}.get(
            response.status_code, "internal_error" if response.status_code >= 500 else "refused"
        )
        detail = {404: f"Nothing is served at {request.path[:200]}."}.get(
            response.status_code, HTTPStatus(response.status_code).description or "Refused."
        )
        return problem_response(response.status_code, code, detail)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Turn what a plain Django view or a middleware raises into the same answers."""
        problem = exception if isinstance(exception, Problem) else as_problem(exception)
        if problem is None:
            return None
        if problem is not exception:
            log.error("database error", exc_info=exception)
        response = problem_response(
            problem.status_code,
            problem.code,
            problem.text,
            retry_after_seconds=problem.wait,
            **problem.extra,
        )
        for name, value in problem.headers.items():
            response[name] = value
        return response
