"""Leases: who may do what only one process should do at a time, without a lock that a crash could
leave behind.

A lease ends by the database's clock, so that a process whose own clock is wrong neither takes one
too early nor keeps one too long.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable

from django.db.models import BooleanField, ExpressionWrapper, F, Q
from django.db.models.lookups import GreaterThan

from common.clock import DatabaseTime
from common.events.models import Lease

MEMBER = "member"
# A member that was not heard of for so long is gone for good, and its line with it.
FORGET_SECONDS = 60.0


class Shares:
    """This process's fair share of a job that is cut into numbered parts.

    Every process that takes part has a line of its own beside the parts' lines, so that each sees
    how many there are and what its share is: it lets go of what is more, and takes what is free.
    """

    def __init__(self, job: str, parts: int, holder: str, seconds: float) -> None:
        self._names = {f"{job}/{number}": number for number in range(parts)}
        self._members = f"{job}/{MEMBER}/"
        self._name = self._members + holder[-(64 - len(self._members)) :]
        self._holder = holder
        self._seconds = seconds
        self._held: tuple[int, ...] = ()
        self._ends_at = self._renewed_at = float("-inf")

    def held(self) -> tuple[int, ...]:
        """Return the parts that are this process's now; looked after every third of a lease.

        By this process's own count of seconds a lease ends earlier than by the database's, because
        its count began before the lease was asked for.
        """
        now = time.monotonic()
        if now - self._renewed_at >= self._seconds / 3:
            self._held = tuple(sorted(self._renew()))
            self._renewed_at, self._ends_at = now, now + self._seconds
        return self._held if time.monotonic() < self._ends_at else ()

    def leave(self) -> None:
        """Let go of everything at once, for the others to take."""
        self._release(self._names)
        Lease.objects.filter(name=self._name).delete()
        self._held, self._ends_at, self._renewed_at = (), float("-inf"), float("-inf")

    def _renew(self) -> set[int]:
        self._keep([self._name], create=True)
        members, holders = self._look()
        own = {name for name in self._names if holders.get(name) == self._holder}
        share = _share(self._name, members, len(self._names))
        surplus = sorted(own)[share:]
        self._release(surplus)
        own.difference_update(surplus)
        if self._keep(own) != len(own):
            # Somebody took one over since the look: what is left shows in the next one.
            return set()
        for name in self._names:
            if len(own) >= share:
                break
            if name not in holders and self._take(name):
                own.add(name)
        return {self._names[name] for name in own}

    def _look(self) -> tuple[list[str], dict[str, str]]:
        """Return the members, and the holder of each part that is held (or is still our own)."""
        lives = ExpressionWrapper(
            GreaterThan(F("expires_at"), DatabaseTime()), output_field=BooleanField()
        )
        wanted = Q(name__in=self._names) | Q(name__startswith=self._members)
        rows = list(
            Lease.objects.filter(wanted)
            .annotate(lives=lives)
            .values_list("name", "holder", "lives")
        )
        held = {name: holder for name, holder, alive in rows if alive or holder == self._holder}
        members = [name for name, _, alive in rows if alive and name not in self._names]
        dead = [name for name, _, alive in rows if not alive and name not in self._names]
        if dead:
            gone = Q(name__in=dead, expires_at__lt=DatabaseTime(-FORGET_SECONDS))
            Lease.objects.filter(gone).delete()
        return members, held

    def _keep(self, names: Collection[str], *, create: bool = False) -> int:
        """Renew what is ours; return how many still were."""
        if not names:
            return 0
        until = DatabaseTime(self._seconds)
        own = Lease.objects.filter(name__in=names, holder=self._holder)
        kept = own.update(expires_at=until)
        if create and not kept:
            kept = sum(self._insert(name) for name in names)
        return kept

    def _take(self, name: str) -> bool:
        free = Lease.objects.filter(name=name, expires_at__lte=DatabaseTime())
        until = DatabaseTime(self._seconds)
        return bool(free.update(holder=self._holder, expires_at=until)) or self._insert(name)

    def _insert(self, name: str) -> bool:
        row = Lease(name=name, holder=self._holder, expires_at=DatabaseTime(self._seconds))
        Lease.objects.bulk_create([row], ignore_conflicts=True)
        return Lease.objects.filter(name=name, holder=self._holder).exists()

    def _release(self, names: Iterable[str]) -> None:
        own = Lease.objects.filter(name__in=list(names), holder=self._holder)
        own.update(holder="", expires_at=DatabaseTime())


def holders(job: str) -> dict[str, int]:
    """Return how many parts of a job each process holds now; 0 for one that stands by."""
    alive = Lease.objects.filter(name__startswith=f"{job}/", expires_at__gt=DatabaseTime())
    counts: dict[str, int] = {}
    for name, holder in alive.values_list("name", "holder"):
        counts[holder] = counts.get(holder, 0) + (f"/{MEMBER}/" not in name)
    return counts


def _share(name: str, members: Iterable[str], parts: int) -> int:
    """Return how many parts are this member's: all counts add up to all parts, and differ by one
    at most."""
    ranks = sorted({*members, name})
    whole, rest = divmod(parts, len(ranks))
    return whole + (ranks.index(name) < rest)
