"""Liveness, readiness and metrics of a service, for nginx, containers and ``manage_all.py``."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from django.conf import settings
from django.core.cache import cache
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import URLPattern, path
from drf_spectacular.views import SpectacularJSONAPIView

from common.databases import database_answers, has_database
from common.metrics import metrics
from common.tokens import key_ring

log = structlog.get_logger(__name__)


def healthz(request: HttpRequest) -> HttpResponse:
    """Answer 200 as long as the process can answer at all."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> HttpResponse:
    """Answer 200 when every dependency does, else 503 with the one that is missing.

    A dead Redis does not make a service unready: it buys more slowly, but rightly.
    """
    checks = {"keys": _checked(_keys_present)}
    if has_database():
        checks["database"] = _checked(database_answers)
    ready = all(result == "ok" for result in checks.values())
    checks["cache"] = _checked(_cache_answers)
    return JsonResponse(
        {"status": "ok" if ready else "unavailable", "checks": checks}, status=200 if ready else 503
    )


def service_urls(service: str) -> list[URLPattern]:
    """Return what every service mounts: health, readiness, metrics and its OpenAPI schema."""
    return [
        path("healthz", healthz),
        path("readyz", readyz),
        path("metrics", metrics),
        path(f"internal/{service}/openapi.json", SpectacularJSONAPIView.as_view()),
    ]


def _checked(check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as error:
        log.warning("not ready", check=check.__name__, error=str(error))
        return f"{type(error).__name__}: {error}"


def _keys_present() -> str:
    return (
        "ok" if key_ring().public_keys("auth") else f"no public key of auth in {settings.KEYS_DIR}"
    )


def _cache_answers() -> str:
    cache.set("readyz", 1, 5)
    return "ok" if cache.get("readyz") == 1 else "no answer"
