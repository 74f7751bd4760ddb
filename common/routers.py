"""The base of every service's database router: own tables here, opted-in reads at the replica."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models, transaction

CONTRIB_LABELS = frozenset({"admin", "auth", "contenttypes"})
_replica_allowed: ContextVar[bool] = ContextVar("replica_allowed", default=False)


@contextmanager
def replica_reads() -> Iterator[None]:
    """Let queries inside the block be answered by a replica, a little behind, if there is one."""
    token = _replica_allowed.set(True)
    try:
        yield
    finally:
        _replica_allowed.reset(token)


class ServiceRouter:
    """Keeps one service's models and Django's own in its database and refuses all others.

    A subclass names ``app_labels``: the labels of the service's apps.
    """

    app_labels: frozenset[str] = frozenset()

    def _owns(self, app_label: str) -> bool:
        return app_label in self.app_labels or app_label in CONTRIB_LABELS

    def _require_own(self, model: type[models.Model]) -> None:
        label = model._meta.app_label
        if not self._owns(label):
            raise ImproperlyConfigured(
                f"{model.__name__} belongs to {label!r}; {type(self).__name__} serves "
                f"{sorted(self.app_labels)} and no service touches another's tables"
            )

    def db_for_read(self, model: type[models.Model], **hints: Any) -> str:
        """Return ``replica`` only for opted-in reads outside of any transaction."""
        self._require_own(model)
        wanted = _replica_allowed.get() and "replica" in settings.DATABASES
        if wanted and not transaction.get_connection("default").in_atomic_block:
            return "replica"
        return "default"

    def db_for_write(self, model: type[models.Model], **hints: Any) -> str:
        self._require_own(model)
        return "default"

    def allow_relation(self, obj1: models.Model, obj2: models.Model, **hints: Any) -> bool:
        return self._owns(obj1._meta.app_label) and self._owns(obj2._meta.app_label)

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool:
        return db == "default" and self._owns(app_label)
