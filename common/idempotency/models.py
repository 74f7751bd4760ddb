"""The table of idempotency keys and the answers they got."""

from __future__ import annotations

from typing import ClassVar

from django.db import models


class IdempotencyRecord(models.Model):
    """One use of a key. ``scope`` hashes (user, operation, key): no collation can merge two."""

    scope = models.CharField(max_length=64, primary_key=True)
    user_id = models.CharField(max_length=64)
    operation = models.CharField(max_length=128)
    key = models.CharField(max_length=64)
    fingerprint = models.CharField(max_length=64)
    # Null while the first request is still at work.
    status = models.PositiveSmallIntegerField(null=True)
    body = models.JSONField(null=True)
    # A worker that died leaves a record without an answer; after this it may be taken over.
    locked_until = models.DateTimeField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        db_table = "idempotency_record"
        indexes: ClassVar = [models.Index(fields=["created_at"], name="idempotency_created")]

    def __str__(self) -> str:
        return f"{self.operation} {self.key} of {self.user_id}"
