"""Leases: one process at a time, without a lock that a crash could leave behind."""

from __future__ import annotations

from datetime import timedelta

from django.db.models import Q
from django.utils import timezone

from common.events.models import Lease


def hold_lease(name: str, holder: str, seconds: float) -> bool:
    """Take or renew the lease for ``seconds``; False when somebody else holds it."""
    now = timezone.now()
    until = now + timedelta(seconds=seconds)
    free_or_own = Q(holder=holder) | Q(expires_at__lt=now)
    if Lease.objects.filter(free_or_own, name=name).update(holder=holder, expires_at=until):
        return True
    created = Lease(name=name, holder=holder, expires_at=until)
    Lease.objects.bulk_create([created], ignore_conflicts=True)
    return Lease.objects.filter(name=name, holder=holder).exists()
