"""Counting calls: the limit holds for parallel calls too, and a dead Redis is decided per limit."""

from __future__ import annotations

import time

import pytest
from django.test import RequestFactory

from common.rate_limits import client_ip, count_call
from tests.common.concurrency import times, together


def call(key="5", *, rate="3/h", group="buy", fail_open=True, increment=True):
    request = RequestFactory().post("/")
    return count_call(
        request, group=group, key=key, rate=rate, fail_open=fail_open, increment=increment
    )


def test_calls_beyond_the_limit_are_limited_and_told_when_to_come_back():
    usages = [call() for _ in range(5)]

    assert [usage.limited for usage in usages] == [False, False, False, True, True]
    assert [usage.remaining for usage in usages] == [2, 1, 0, 0, 0]
    assert {usage.limit for usage in usages} == {3}
    assert all(1 <= usage.retry_after_seconds <= 3600 for usage in usages)


def test_keys_and_groups_are_counted_apart():
    for _ in range(4):
        call()
    assert call().limited
    assert not call(key="6").limited
    assert not call(group="read").limited


def test_looking_does_not_count():
    call()
    for _ in range(5):
        usage = call(increment=False)
        assert (usage.limited, usage.remaining) == (False, 2)


def test_the_window_ends():
    usages = [call(rate="1/s") for _ in range(2)]
    if not usages[1].limited:  # the second one began between the two
        usages.append(call(rate="1/s"))
    assert usages[-1].limited
    time.sleep(1.1)
    assert not call(rate="1/s").limited


def test_parallel_calls_cannot_slip_through():
    usages = together(*times(20, lambda: call(rate="5/h")))
    assert sum(not usage.limited for usage in usages) == 5


@pytest.fixture
def dead_redis(settings):
    """Point the cache at a port where nobody listens."""
    settings.CACHES = {
        "default": {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}
    }


@pytest.mark.usefixtures("dead_redis")
@pytest.mark.parametrize("increment", [True, False])
@pytest.mark.parametrize("fail_open", [True, False])
def test_without_redis_a_limit_opens_or_closes_as_it_was_asked_to(fail_open, increment):
    started = time.monotonic()
    usage = call(fail_open=fail_open, increment=increment)
    assert usage.limited is not fail_open
    assert usage.retry_after_seconds >= 1
    assert time.monotonic() - started < 2, "and says so at once"


def test_a_limit_works_again_when_redis_does(settings):
    alive = settings.CACHES
    settings.CACHES = {"default": {**alive["default"], "LOCATION": "redis://127.0.0.1:1/0"}}
    assert call(fail_open=False).limited
    settings.CACHES = alive
    assert not call(fail_open=False).limited


def test_the_address_is_the_one_that_nginx_saw():
    factory = RequestFactory(REMOTE_ADDR="127.0.0.1")
    assert client_ip(factory.get("/", HTTP_X_REAL_IP="203.0.113.7")) == "203.0.113.7"
    assert client_ip(factory.get("/")) == "127.0.0.1"
    forged = factory.get("/", HTTP_X_FORWARDED_FOR="198.51.100.1", HTTP_X_REAL_IP="203.0.113.7")
    assert client_ip(forged) == "203.0.113.7"
