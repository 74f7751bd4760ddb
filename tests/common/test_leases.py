"""Leases: everybody's share is fair, a dead one's goes to the others, and no clock but the
database's decides."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone

from common.clock import DatabaseTime
from common.events.leases import Shares, holders
from common.events.models import Lease
from tests.common.concurrency import together

pytestmark = pytest.mark.django_db(transaction=True)
PARTS = 8
SHORT_SECONDS = 0.4


class Impatient(Shares):
    """Looks at the leases whenever it is asked, not every third of their time."""

    def held(self):
        self._renewed_at = float("-inf")
        return super().held()


def share(name, seconds=30.0):
    return Impatient("job", PARTS, name, seconds)


def settled(*shares):
    """Let each look until nobody has to give or take any more; return how many parts each has."""
    for _ in range(2):
        for one in shares:
            one.held()
    held = [one.held() for one in shares]
    parts = [part for parts in held for part in parts]
    assert sorted(parts) == list(range(PARTS)), "each part has one holder"
    return [len(parts) for parts in held]


def test_who_is_alone_has_everything():
    assert share("a").held() == tuple(range(PARTS))


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_shares_are_fair(count):
    counts = settled(*(share(f"s{number}") for number in range(count)))
    assert max(counts) - min(counts) <= 1


def test_more_processes_than_parts_stand_by():
    shares = [share(f"s{number}") for number in range(PARTS + 2)]
    assert sorted(settled(*shares)) == [0, 0, *[1] * PARTS]
    assert holders("job") == {f"s{number}": len(one.held()) for number, one in enumerate(shares)}


def test_a_newcomer_gets_its_share_from_those_who_have_more():
    first, second = share("first"), share("second")
    assert settled(first, second) == [4, 4]
    third = share("third")
    assert settled(first, second, third) == [3, 3, 2]


def test_a_dead_ones_parts_go_to_the_others_when_its_leases_end():
    dead, heir = share("dead", SHORT_SECONDS), share("heir", SHORT_SECONDS)
    settled(dead, heir)
    assert len(heir.held()) == 4
    deadline = time.monotonic() + 5
    while len(heir.held()) < PARTS:
        assert time.monotonic() < deadline
        time.sleep(SHORT_SECONDS / 4)
    assert holders("job") == {"heir": PARTS}


def test_who_leaves_is_not_waited_for():
    leaving, heir = share("leaving"), share("heir")
    settled(leaving, heir)
    leaving.leave()
    assert heir.held() == tuple(range(PARTS))


def test_who_is_late_to_renew_holds_nothing_until_it_has():
    one = Shares("job", PARTS, "late", SHORT_SECONDS)
    one.held()
    time.sleep(SHORT_SECONDS * 1.2)
    other = share("other")
    assert other.held() == tuple(range(PARTS))
    assert one.held() == (), "the other has not let go of its half yet"
    assert settled(Impatient("job", PARTS, "late", SHORT_SECONDS), other) == [4, 4]


def test_between_looks_nothing_is_asked_of_the_database(django_assert_num_queries):
    one = Shares("job", PARTS, "one", 30.0)
    one.held()
    with django_assert_num_queries(0):
        assert one.held() == tuple(range(PARTS))


def test_a_look_that_changes_nothing_costs_three_statements(django_assert_num_queries):
    one = share("one")
    one.held()
    with django_assert_num_queries(3):
        one.held()


@pytest.mark.parametrize("minutes", [5, -5])
def test_a_process_whose_clock_is_wrong_neither_robs_nor_is_robbed(minutes, monkeypatch):
    right, wrong = share("right"), share("wrong")
    now, at = timezone.now, time.time

    def held_by_the_wrong_one():
        with monkeypatch.context() as clock:
            clock.setattr(timezone, "now", lambda: now() + timedelta(minutes=minutes))
            clock.setattr(time, "time", lambda: at() + minutes * 60)
            return wrong.held()

    right.held()
    assert held_by_the_wrong_one() == ()
    for _ in range(4):
        assert len(right.held()) == 4
        assert len(held_by_the_wrong_one()) == 4
    assert set(right.held()).isdisjoint(held_by_the_wrong_one())


def test_what_is_wanted_by_many_at_once_goes_to_one_each():
    shares = [share(f"s{number}") for number in range(6)]

    def strive(one):
        for _ in range(6):
            one.held()

    together(*(lambda one=one: strive(one) for one in shares))

    assert sorted(settled(*shares)) == [1, 1, 1, 1, 2, 2]


def test_those_who_are_gone_for_good_are_forgotten():
    share("gone").held()
    Lease.objects.update(expires_at=timezone.now() - timedelta(minutes=5))
    share("here").held()
    assert not Lease.objects.filter(name__contains="gone").exists()


def test_the_databases_clock_is_in_utc_and_to_the_millisecond():
    lease = Lease.objects.create(name="x", expires_at=DatabaseTime(2.5))
    lease.refresh_from_db()
    left = (lease.expires_at - timezone.now()).total_seconds()
    assert 1.5 < left <= 2.6
    with connection.cursor() as cursor:
        if connection.vendor == "mysql":
            cursor.execute("SET time_zone = '+05:00'")
        try:
            assert Lease.objects.filter(expires_at__gt=DatabaseTime(1)).exists()
            assert not Lease.objects.filter(expires_at__gt=DatabaseTime(4)).exists()
        finally:
            if connection.vendor == "mysql":
                cursor.execute("SET time_zone = DEFAULT")
