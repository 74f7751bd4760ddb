"""The answers that nginx gives itself: problem+json for programs, a small page for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class NginxProblem:
    """What is answered to one of nginx's own statuses."""

    name: str
    status: int
    title: str
    code: str
    detail: str
    headers: tuple[str, ...] = ()
    # Before the request line is understood there is no address yet, which a named location needs.
    early: bool = False

    def target(self) -> str:
        """Return where error_page sends the request."""
        return f"/.problem/{self.name}_" if self.early else f"@{self.name}_"


_RETRY_SOON = ('add_header Retry-After "1" always;',)
BAD_REQUEST = NginxProblem(
    "bad_request", 400, "Bad Request", "bad_request", "This is not valid HTTP.", early=True
)
UNAUTHORIZED = NginxProblem(
    "unauthorized",
    401,
    "Unauthorized",
    "$refusal_code_401",
    "Log in, or send a valid access token.",
    ("add_header WWW-Authenticate 'Bearer realm=\"flashsale\"' always;",),
)
FORBIDDEN = NginxProblem(
    "forbidden", 403, "Forbidden", "permission_denied", "Your account may not do this."
)
NOT_FOUND = NginxProblem(
    "not_found", 404, "Not Found", "not_found", "Nothing is served at this address."
)
NOT_ALLOWED = NginxProblem(
    "not_allowed",
    405,
    "Method Not Allowed",
    "method_not_allowed",
    "This address does not know that method.",
    ('add_header Allow "$allow" always;',),
)
TOO_LARGE = NginxProblem(
    "too_large", 413, "Content Too Large", "body_too_large", "The body is over 256 KiB."
)
URI_TOO_LONG = NginxProblem(
    "uri_too_long", 414, "URI Too Long", "uri_too_long", "The address is too long.", early=True
)
TOO_MANY = NginxProblem(
    "too_many",
    429,
    "Too Many Requests",
    "rate_limited",
    "That was too often; wait a moment and try again.",
    _RETRY_SOON,
)
HEADERS_TOO_LARGE = NginxProblem(
    "headers_too_large",
    431,
    "Request Header Fields Too Large",
    "headers_too_large",
    "The headers are too large.",
)
UNAVAILABLE = NginxProblem(
    "unavailable",
    503,
    "Service Unavailable",
    "service_unavailable",
    "This part of the system does not answer; try again in a moment.",
    _RETRY_SOON,
)
# nginx's status → what is answered. 494 is its name for headers over its buffers; a 500 of its own
# is an auth_request that nobody answered.
PROBLEMS: dict[tuple[int, ...], NginxProblem] = {
    (400,): BAD_REQUEST,
    (401,): UNAUTHORIZED,
    (403,): FORBIDDEN,
    (404,): NOT_FOUND,
    (405,): NOT_ALLOWED,
    (413,): TOO_LARGE,
    (414,): URI_TOO_LONG,
    (429,): TOO_MANY,
    (494,): HEADERS_TOO_LARGE,
    (500, 502, 503, 504): UNAVAILABLE,
}


def error_pages() -> Iterable[str]:
    """Return the error_page lines: nginx's status to the location that answers it."""
    for statuses, problem in PROBLEMS.items():
        codes = " ".join(map(str, statuses))
        yield f"error_page {codes} = {problem.target()}$problem_format;"


def problem_locations(headers: Sequence[str]) -> Iterable[list[str]]:
    """Return the locations that the error_page lines name, each with all ``headers``."""
    for problem in PROBLEMS.values():
        for page in (False, True):
            yield _location(problem, page, headers)


def _location(problem: NginxProblem, page: bool, headers: Sequence[str]) -> list[str]:
    name = problem.target() + ("page" if page else "json")
    lines = ["internal;"] if problem.early else []
    # An empty map: otherwise the extension of the requested address would choose the type.
    lines += [
        "types { }",
        f"default_type {'text/html' if page else 'application/problem+json'};",
        *headers,
        'add_header Vary "Accept" always;',
        'add_header Cache-Control "no-store" always;',
        *problem.headers,
    ]
    if problem is UNAUTHORIZED and page:
        lines += ["if ($login_url) {", "    return 302 $login_url;", "}"]
    if problem is FORBIDDEN:
        # auth_request passes on no 429, so the gateway says it in a header of its 403.
        lines += [
            'add_header Retry-After "$retry_after" always;',
            "if ($refusal = rate_limited) {",
            f"    {_return(TOO_MANY, page)}",
            "}",
        ]
    lines.append(_return(problem, page))
    opening = "location = " if problem.early else "location "
    return [f"{opening}{name} {{", *(f"    {line}" for line in lines), "}"]


def _return(problem: NginxProblem, page: bool) -> str:
    body = _page(problem) if page else _json(problem)
    return f"return {problem.status} '{body}';"


def _json(problem: NginxProblem) -> str:
    return json.dumps(
        {
            "type": f"urn:flashsale:problem:{problem.code}",
            "title": problem.title,
            "status": problem.status,
            "detail": problem.detail,
            "code": problem.code,
            "request_id": "$request_id",
        }
    )


_WAYS_ON = {
    401: '<a class="button" href="/login">Log in</a>',
    403: '<a class="button" href="/">To the events</a> '
    '<a class="button button-quiet" href="/login">Log in as someone else</a>',
}


def _page(problem: NginxProblem) -> str:
    way_on = _WAYS_ON.get(problem.status, '<a class="button" href="/">To the events</a>')
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(problem.title)} · Flash Sale</title>"
        '<link rel="icon" href="/static/storefront/favicon.svg">'
        '<link rel="stylesheet" href="/static/storefront/style.css"></head>'
        '<body><main class="page page-narrow"><div class="card notice-page">'
        f'<p class="notice-status">{problem.status}</p><h1>{escape(problem.title)}</h1>'
        f"<p>{escape(problem.detail)}</p><p>{way_on}</p>"
        '<p class="muted small">Request $request_id</p></div></main></body></html>'
    )
