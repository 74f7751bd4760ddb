"""Running an operation once per key: the answer is kept in the transaction of the effect."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import structlog
from django.db import IntegrityError
from django.utils import timezone

from common.errors import Problem
from common.idempotency.keys import key_reused
from common.idempotency.models import IdempotencyRecord
from common.ids import derived_token
from common.loops import Loop
from common.transactions import in_transaction

log = structlog.get_logger(__name__)

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


class _Superseded(Exception):
    """Another request took this operation over, or an earlier try of this one carried it out."""


class Execution:
    """The right to carry out an operation, until ``locked_until``."""

    def __init__(self, scope: str, locked_until: datetime) -> None:
        self.scope = scope
        self._mine = IdempotencyRecord.objects.filter(
            scope=scope, status=None, locked_until=locked_until
        )

    def finish(self, status: int, body: Any) -> Answer:
        """Keep the answer (final 2xx and 4xx only) and return it.

        Belongs inside the effect's transaction: where the right is lost (somebody waited too long
        for this process, or the COMMIT of a first try happened though it looked failed), it raises
        and takes the effect back. run_once() then answers from the record.
        """
        if not self._mine.update(status=status, body=body):
            raise _Superseded(self.scope)
        return Answer(status, body)

    def give_up(self) -> None:
        """Let the key be used again, unless an answer is kept or another one is at work."""
        self._mine.delete()


def run_once(
    work: Callable[[Execution], Answer], *, user_id: str, operation: str, key: str, fingerprint: str
) -> Answer:
    """Run ``work`` for the first request with this key and answer the others from its record.

    Raises 422 ``idempotency_key_reused`` for another fingerprint, and 409 ``request_in_progress``
    when the first one takes longer than a second. When ``work`` raises, or does not call
    ``finish``, nothing is kept and the same key may try again.
    """
    scope = derived_token(user_id, operation, key)
    claim = IdempotencyRecord(
        scope=scope, user_id=user_id, operation=operation, key=key, fingerprint=fingerprint
    )
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        execution = _take(claim)
        if execution is not None:
            try:
                return work(execution)
            except _Superseded:
                log.warning("operation superseded", operation=operation, scope=scope)
            finally:
                execution.give_up()
        kept = _kept_answer(scope, fingerprint)
        if kept is not None:
            return kept
        if time.monotonic() > deadline:
            raise Problem(
                409,
                "request_in_progress",
                "The first request with this key is still at work; try again in a second.",
                retry_after_seconds=1,
            )
        time.sleep(POLL_SECONDS)


def _take(claim: IdempotencyRecord) -> Execution | None:
    """Become the one who carries out the operation: first to write the row, or its heir."""
    now = timezone.now()
    claim.locked_until = now + timedelta(seconds=LOCK_SECONDS)
    try:
        in_transaction(lambda: claim.save(force_insert=True))
    except IntegrityError:
        if _is_mine(claim):
            return Execution(claim.scope, claim.locked_until)
        abandoned = IdempotencyRecord.objects.filter(
            scope=claim.scope, status=None, fingerprint=claim.fingerprint, locked_until__lt=now
        )
        if not abandoned.update(locked_until=claim.locked_until):
            return None
    return Execution(claim.scope, claim.locked_until)


def _is_mine(claim: IdempotencyRecord) -> bool:
    """Tell whether the row is this very claim: its COMMIT happened though the answer was lost."""
    return IdempotencyRecord.objects.filter(
        scope=claim.scope, status=None, locked_until=claim.locked_until
    ).exists()


def _kept_answer(scope: str, fingerprint: str) -> Answer | None:
    """Return the recorded answer, None while there is none; 422 for another fingerprint."""
    record = IdempotencyRecord.objects.filter(scope=scope).first()
    if record is None:
        return None
    if record.fingerprint != fingerprint:
        raise key_reused()
    if record.status is None:
        return None
    return Answer(record.status, record.body, replayed=True)


def purge_records(limit: int = 1000) -> int:
    """Delete records older than RETENTION; return how many went."""
    old = IdempotencyRecord.objects.filter(created_at__lt=timezone.now() - RETENTION)
    gone, _ = IdempotencyRecord.objects.filter(
        scope__in=list(old.values_list("scope", flat=True)[:limit])
    ).delete()
    return gone


forget_keys = Loop("forget_keys", purge_records, interval_seconds=60.0)
