"""Threads that meet: what happens at once in a test does so because nobody goes on alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from django.db import connections

PATIENCE_SECONDS = 30.0


def together(*calls: Callable[[], Any], patience_seconds: float = PATIENCE_SECONDS) -> list[Any]:
    """Run every call in a thread of its own, all let go at one moment; return their results.

    The first exception is raised here, so that no failure is lost in a thread.
    """
    start = threading.Barrier(len(calls))
    results: list[Any] = [None] * len(calls)
    errors: list[BaseException] = []

    def run(number: int, call: Callable[[], Any]) -> None:
        try:
            start.wait(PATIENCE_SECONDS)
            results[number] = call()
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=pair, daemon=True) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(patience_seconds)
        assert not thread.is_alive(), "a thread of the test hangs"
    if errors:
        raise errors[0]
    return results


def times(count: int, call: Callable[[], Any]) -> Iterable[Callable[[], Any]]:
    """Return the same call ``count`` times, for ``together(*times(50, …))``."""
    return [call] * count


class MeetingPoint:
    """Stops each thread at its first call of a function until ``parties`` threads stand there."""

    def __init__(self, parties: int) -> None:
        self._barrier = threading.Barrier(parties)
        self._seen = threading.local()

    def before(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return ``function`` with the meeting point in front of it."""

        def stopped(*args: Any, **kwargs: Any) -> Any:
            if not getattr(self._seen, "yes", False):
                self._seen.yes = True
                self._barrier.wait(PATIENCE_SECONDS)
            return function(*args, **kwargs)

        return stopped


def meet_before(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, *, parties: int = 2
) -> None:
    """Let ``parties`` threads stop in front of ``module.name`` before any of them runs it."""
    point = MeetingPoint(parties)
    monkeypatch.setattr(module, name, point.before(getattr(module, name)))
