"""Answering a request from what run_once() returned, the first time and every time after."""

from __future__ import annotations

from typing import Any

from rest_framework.response import Response

from common.errors import Problem
from common.idempotency.records import Answer

REPLAYED = "Idempotent-Replayed"
# Members that Problem makes itself from the others.
_DERIVED = frozenset({"type", "title", "status", "code", "detail"})


def respond(answer: Answer) -> Response:
    """Return the response to an answer; a kept refusal is raised as the problem that it was."""
    headers = replay_headers(answer.replayed)
    if answer.status >= 400:
        body: dict[str, Any] = answer.body
        extra = {name: value for name, value in body.items() if name not in _DERIVED}
        raise Problem(answer.status, body["code"], body["detail"], headers=headers, **extra)
    return Response(answer.body, status=answer.status, headers=headers)


def replay_headers(replayed: bool) -> dict[str, str]:
    """Return the header that tells a replay from a first answer."""
    return {REPLAYED: "true"} if replayed else {}
