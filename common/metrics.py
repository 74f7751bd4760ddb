"""What a service tells Prometheus: gathered anew at each scrape from whatever registered itself.

Gauges that are computed from the database or from Redis are the same whichever worker answers, so
nothing has to be kept or shared between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import structlog
from django.db import Error as DatabaseError
from django.http import HttpRequest, HttpResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from common.databases import database_answers, has_database

log = structlog.get_logger(__name__)

PREFIX = "flashsale"
Collect = Callable[[], Iterable[Metric]]
_collects: list[Collect] = []


def register(collect: Collect) -> None:
    """Have ``collect`` asked at every scrape; it is quick, and bears what it asks being away."""
    if collect not in _collects:
        _collects.append(collect)


def gauge(name: str, help_text: str, value: float) -> GaugeMetricFamily:
    """Return a gauge with one value."""
    return GaugeMetricFamily(f"{PREFIX}_{name}", help_text, value=value)


def gauges(
    name: str, help_text: str, labels: Iterable[str], rows: Iterable[tuple[Iterable[str], float]]
) -> GaugeMetricFamily:
    """Return a gauge with a value for each row of (values of the labels, value)."""
    family = GaugeMetricFamily(f"{PREFIX}_{name}", help_text, labels=list(labels))
    for values, value in rows:
        family.add_metric(list(values), value)
    return family


def metrics(request: HttpRequest) -> HttpResponse:
    """Answer a scrape. Internal: nginx routes nobody here."""
    registry = CollectorRegistry()
    registry.register(_Everything())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


class _Everything(Collector):
    def describe(self) -> Iterable[Metric]:
        """Nothing: else the registry would collect once more to learn the names."""
        return []

    def collect(self) -> Iterator[Metric]:
        if has_database():
            try:
                database_answers()
            except DatabaseError as error:
                log.warning("scraped without a database", error=str(error))
                yield gauge("database_up", "Whether the database answers.", 0)
            else:
                yield gauge("database_up", "Whether the database answers.", 1)
        for collect in _collects:
            yield from collect()
