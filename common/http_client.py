"""Calls from one service to another: pooled connections, signed tokens, bounded waits."""

from __future__ import annotations

import json
from typing import Any

import urllib3
from django.conf import settings
from urllib3.exceptions import HTTPError

from common.errors import Unavailable
from common.request_id import HEADER, current_request_id
from common.tokens import service_token

CONNECT_TIMEOUT_SECONDS = 0.5
# Longer than a service may take to say what is wrong: see the ladder in common.databases.
READ_TIMEOUT_SECONDS = 3.5
POOL_SIZE = 32

_pool = urllib3.PoolManager(num_pools=8, maxsize=POOL_SIZE, block=False, retries=False)


def call_service(
    service: str, method: str, path: str, body: Any = None, *, query: dict[str, Any] | None = None
) -> tuple[int, Any]:
    """Call another service and return (status, parsed JSON body or None).

    Raises Unavailable when it cannot be reached in time or answers with 5xx. What a lost answer
    did is then unknown, so every command sent this way must be idempotent.
    """
    base = getattr(settings, f"{service.upper()}_URL")
    headers = {
        "Authorization": f"Bearer {service_token(service)}",
        "Accept": "application/json",
        HEADER: current_request_id(),
    }
    content = None
    if body is not None:
        headers["Content-Type"] = "application/json"
        content = json.dumps(body, separators=(",", ":")).encode()
    try:
        response = _pool.request(
            method,
            base + path,
            body=content,
            fields=query,
            headers=headers,
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=READ_TIMEOUT_SECONDS),
        )
    except HTTPError as error:
        raise Unavailable(
            f"{service}_unavailable", f"The {service} service did not answer; try again."
        ) from error
    if response.status >= 500:
        raise Unavailable(
            f"{service}_unavailable", f"The {service} service is in trouble; try again."
        )
    try:
        return response.status, json.loads(response.data) if response.data else None
    except ValueError as error:
        raise Unavailable(
            f"{service}_unavailable", f"The {service} service answered nonsense; try again."
        ) from error
