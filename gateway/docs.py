"""The API's documentation: the merged schema, and Swagger UI from local files."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
import urllib3
from django.conf import settings
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe
from urllib3.exceptions import HTTPError

from common.errors import Unavailable
from gateway.openapi import merge
from gateway.routes import SERVICES

CACHE_SECONDS = 60.0
CACHE_SECONDS_INCOMPLETE = 5.0
# How long a request may wait for the very first schema of this process.
FIRST_FETCH_SECONDS = 1.0
# A service builds its schema on the first request, which takes a moment.
TIMEOUT = urllib3.Timeout(connect=0.5, read=4.0)

log = structlog.get_logger(__name__)
_pool = urllib3.PoolManager(num_pools=len(SERVICES), retries=False, timeout=TIMEOUT)


@require_safe
@ensure_csrf_cookie
def swagger(request: HttpRequest) -> HttpResponse:
    """Show Swagger UI; "try it out" works with the cookie or with a pasted token."""
    return render(request, "storefront/docs.html")


@require_safe
def openapi(request: HttpRequest) -> HttpResponse:
    """Answer with the one schema of all services."""
    return JsonResponse(_merged.get())


class _MergedSchema:
    """The merged schema, fetched again after a minute by one thread.

    The others go on with the old one: this process also decides who may buy, and a service that
    hangs must not take its threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._schema: dict[str, Any] = {}
        self._good_until = float("-inf")

    def get(self) -> dict[str, Any]:
        if not self._lock.acquire(timeout=0 if self._schema else FIRST_FETCH_SECONDS):
            if not self._schema:
                raise Unavailable("service_unavailable", "The API's description is being made.")
            return self._schema
        try:
            if time.monotonic() >= self._good_until:
                found = _fetch_all()
                complete = len(found) == len(SERVICES)
                self._schema = merge(found)
                self._good_until = time.monotonic() + (
                    CACHE_SECONDS if complete else CACHE_SECONDS_INCOMPLETE
                )
            return self._schema
        finally:
            self._lock.release()


_merged = _MergedSchema()


def _fetch_all() -> dict[str, dict[str, Any]]:
    with ThreadPoolExecutor(max_workers=len(SERVICES)) as executor:
        schemas = executor.map(_fetch, SERVICES)
        return {name: schema for name, schema in zip(SERVICES, schemas, strict=True) if schema}


def _fetch(service: str) -> dict[str, Any] | None:
    base = getattr(settings, f"{service.upper()}_URL")
    try:
        response = _pool.request(
            "GET",
            f"{base}/internal/{service}/openapi.json",
            headers={"Accept": "application/vnd.oai.openapi+json, application/json"},
        )
        if response.status != 200:
            raise ValueError(f"status {response.status}")
        schema: dict[str, Any] = json.loads(response.data)
        return schema
    except (HTTPError, ValueError) as error:
        log.warning("no schema", service=service, error=str(error))
        return None
