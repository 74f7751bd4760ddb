"""An Idempotency-Key is honoured on every POST of the catalog where one is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rest_framework.request import Request
from rest_framework.response import Response

from common.errors import Problem
from common.idempotency.keys import fingerprint, idempotency_key
from common.idempotency.records import Answer, Execution, run_once
from common.idempotency.responses import respond
from common.ids import uuid7
from common.transactions import in_transaction


def answer_once(request: Request, status: int, work: Callable[[], Any]) -> Response:
    """Answer with what ``work`` returns; a repeated key gets the first answer again.

    The answer is kept in the transaction of the effect; a refusal has no effect, and is kept too.
    """
    body = request.data
    # A key of our own where the caller sends none: if the answer to a COMMIT is lost, the repeated
    # transaction must not make a second one.
    key = idempotency_key(request, required=False) or uuid7().hex

    def run(execution: Execution) -> Answer:
        try:
            return in_transaction(lambda: execution.finish(status, work()))
        except Problem as refusal:
            if refusal.status_code >= 500:
                raise
            return execution.finish(refusal.status_code, refusal.body())

    return respond(
        run_once(
            run,
            user_id=str(request.user.pk),
            operation=f"POST {request.path}",
            key=key,
            fingerprint=fingerprint("POST", request.path, body),
        )
    )
