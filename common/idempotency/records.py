"""Running an operation once per key: the answer is kept in the transaction of the effect."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.db import IntegrityError
from django.utils import timezone

from common.errors import Problem
from common.idempotency.keys import key_reused
from common.idempotency.models import IdempotencyRecord
from common.ids import derived_token
from common.transactions import in_transaction

# How long the answer to a key is kept.
RETENTION = timedelta(hours=48)
# Longer than any request may run (gunicorn's timeout is 10 s).
LOCK_SECONDS = 15
WAIT_SECONDS = 1.0
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Answer:
    """What an operation answers; ``replayed`` when it comes from the record."""

    status: int
    body: Any
    replayed: bool = False


class Execution:
    """The right to carry out an operation; ``finish`` belongs inside the effect's transaction."""

    def __init__(self, scope: str) -> None:
        self.scope = scope

    def finish(self, status: int, body: Any) -> Answer:
        """Keep the answer (final 2xx and 4xx only) and return it."""
        IdempotencyRecord.objects.filter(scope=self.scope).update(status=status, body=body)
        return Answer(status, body)


def run_once(
    work: Callable[[Execution], Answer], *, user_id: str, operation: str, key: str, fingerprint: str
) -> Answer:
    """Run ``work`` for the first request with this key and answer the others from its record.

    Raises 422 ``idempotency_key_reused`` for another fingerprint, and 409 ``request_in_progress``
    when the first one takes longer than a second. When ``work`` raises, or does not call
    ``finish``, nothing is kept and the same key may try again.
    """
    execution = Execution(derived_token(user_id, operation, key))
    deadline = time.monotonic() + WAIT_SECONDS
    while not _take(execution.scope, user_id, operation, key, fingerprint):
        record = IdempotencyRecord.objects.filter(scope=execution.scope).first()
        if record is None:
            continue
        if record.fingerprint != fingerprint:
            raise key_reused()
        if record.status is not None:
            return Answer(record.status, record.body, replayed=True)
        if time.monotonic() > deadline:
            raise Problem(
                409,
                "request_in_progress",
                "The first request with this key is still at work; try again in a second.",
                retry_after_seconds=1,
            )
        time.sleep(POLL_SECONDS)
    try:
        return work(execution)
    finally:
        IdempotencyRecord.objects.filter(scope=execution.scope, status=None).delete()


def _take(scope: str, user_id: str, operation: str, key: str, fingerprint: str) -> bool:
    """Become the one who carries out the operation: first to write the row, or its heir."""
    now = timezone.now()
    until = now + timedelta(seconds=LOCK_SECONDS)
    record = IdempotencyRecord(
        scope=scope,
        user_id=user_id,
        operation=operation,
        key=key,
        fingerprint=fingerprint,
        locked_until=until,
    )
    try:
        in_transaction(lambda: record.save(force_insert=True))
    except IntegrityError:
        heir = IdempotencyRecord.objects.filter(
            scope=scope, status=None, fingerprint=fingerprint, locked_until__lt=now
        )
        return bool(heir.update(locked_until=until))
    return True


def purge_records(limit: int = 1000) -> int:
    """Delete records older than RETENTION; return how many went."""
    old = IdempotencyRecord.objects.filter(created_at__lt=timezone.now() - RETENTION)
    gone, _ = IdempotencyRecord.objects.filter(
        scope__in=list(old.values_list("scope", flat=True)[:limit])
    ).delete()
    return gone
