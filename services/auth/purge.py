"""Forgetting: refresh tokens and logins that nobody can use any more are deleted."""

from __future__ import annotations

from django.utils import timezone

from common.loops import Loop
from common.transactions import in_transaction
from services.auth.models import LoginSession, RefreshToken

# Bounds a transaction's locks.
BATCH_SIZE = 500


def purge_expired() -> int:
    """Delete one batch of expired tokens and of logins without a living token; return how many.

    Spent tokens stay until they expire, so that their use gives the thief away.
    """
    now = timezone.now()
    tokens = RefreshToken.objects.filter(expires_at__lt=now).order_by("expires_at")
    token_ids = list(tokens.values_list("pk", flat=True)[:BATCH_SIZE])
    sessions = LoginSession.objects.filter(expires_at__lt=now, tokens=None).order_by("expires_at")
    session_ids = list(sessions.values_list("pk", flat=True)[:BATCH_SIZE])

    def work() -> None:
        RefreshToken.objects.filter(pk__in=token_ids).delete()
        LoginSession.objects.filter(pk__in=session_ids).delete()

    if token_ids or session_ids:
        in_transaction(work)
    return len(token_ids) + len(session_ids)


purge_tokens = Loop("purge_tokens", purge_expired, interval_seconds=60)
