"""Hot reads: what a crowd asks for is answered from Redis, and the database is asked once.

Cache-aside with three promises. A write is seen at once: pages carry the stamp of the last write,
numbers carry a version and an older one never replaces a newer. A crowd costs one query: of many
readers who find nothing, or something old, one asks the database while the others wait or take the
old answer. And Redis is never needed: without it, or with nonsense in it, the database answers, for
a bounded number of readers at a time.

An entry is ``version|fresh until|seal|JSON``. The seal is a MAC over everything, the key included,
so that whatever this service did not write under that key is a miss.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import random
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction
from django_redis import get_redis_connection  # type: ignore[import-untyped]
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from common.errors import Unavailable

log = structlog.get_logger(__name__)

PREFIX = "flashsale:catalog:1:"
# After an error Redis is left alone for so long: its timeouts must not slow every request.
AWAY_SECONDS = 1.0
# Who asks the database may take so long before somebody else does.
LOCK_MS = 3_000
WAIT_SECONDS = 1.0
POLL_SECONDS = 0.02
# Readers of one process that may be in the database at once; the others wait, then get a 503.
DATABASE_READERS_MAX = 8
DATABASE_WAIT_SECONDS = 1.0

# ident → (version, data)
Loaded = Mapping[str, tuple[int, Any]]
Load = Callable[[list[str]], Loaded]

_ENTRY = re.compile(rb"(\d{1,19})\|(\d{1,15})\|([0-9a-f]{32})\|(.*)", re.DOTALL)
_STAMP = re.compile(rb"[0-9a-f]{32}")
_KEEP_NEWER = """
local kept = redis.pcall('GET', KEYS[1])
local version = type(kept) == 'string' and tonumber(string.match(kept, '^(%d+)|')) or -1
if version <= tonumber(ARGV[1]) then redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
"""
_UNLOCK = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end"

_database_readers = threading.BoundedSemaphore(DATABASE_READERS_MAX)
_away_until = float("-inf")


@dataclass(frozen=True)
class _Entry:
    data: Any
    fresh: bool


class Shelf:
    """A kind of cached thing, and how old it may get.

    Until ``fresh_seconds`` an entry is simply the answer. Until ``kept_seconds`` it still is one
    for everybody but the reader who renews it, and for all when the database is away. A stamped
    shelf can be emptied at once with ``forget``.
    """

    def __init__(
        self, name: str, *, fresh_seconds: float, kept_seconds: float, stamped: bool = False
    ) -> None:
        self.name = name
        self.fresh_ms = int(fresh_seconds * 1000)
        self.kept_ms = int(kept_seconds * 1000)
        self.stamped = stamped

    def read(self, idents: Sequence[str], load: Load) -> dict[str, Any]:
        """Return the data of each ident; ``load`` gets those from the database that are needed."""
        if not idents:
            return {}
        if time.monotonic() >= _away_until:
            try:
                return self._read(_redis(), list(idents), load)
            except RedisError as error:
                _note_away(error)
        return _data(_from_database(load, idents))

    def put(self, loaded: Loaded) -> None:
        """Keep entries unless newer ones are kept already."""
        if time.monotonic() < _away_until:
            return
        try:
            redis = _redis()
            self._keep(redis, self._prefix(redis), loaded)
        except RedisError as error:
            _note_away(error)

    def forget(self) -> None:
        """Make everything on the shelf unreachable, also what is being loaded at this moment."""
        try:
            _redis().set(self._stamp_key, uuid.uuid4().hex)
        except RedisError as error:
            # What stays grows old within fresh_seconds.
            log.warning("cache not invalidated", shelf=self.name, error=str(error))

    def forget_after_commit(self) -> None:
        """Forget once the transaction at work is committed; not at all if it is rolled back."""
        transaction.on_commit(self.forget, robust=True)

    def _read(self, redis: Redis, idents: list[str], load: Load) -> dict[str, Any]:
        prefix = self._prefix(redis)
        give_up_at = time.monotonic() + WAIT_SECONDS
        while True:
            found = self._found(redis, prefix, idents)
            missing = [ident for ident in idents if ident not in found]
            old = [ident for ident in idents if ident not in found or not found[ident].fresh]
            known = {ident: entry.data for ident, entry in found.items()}
            if not old:
                return known
            lock, token = f"{PREFIX}lock:{prefix}{min(old)}", uuid.uuid4().hex
            if redis.set(lock, token, nx=True, px=LOCK_MS):
                try:
                    return known | self._renewed(redis, prefix, old, load)
                finally:
                    _unlock(redis, lock, token)
            if not missing:
                return known
            if time.monotonic() > give_up_at:
                return known | _data(_from_database(load, missing))
            time.sleep(POLL_SECONDS)

    def _renewed(self, redis: Redis, prefix: str, idents: list[str], load: Load) -> dict[str, Any]:
        # Another reader may have been through here between the look and the lock.
        found = self._found(redis, prefix, idents)
        renewed = {ident: entry.data for ident, entry in found.items() if entry.fresh}
        old = [ident for ident in idents if ident not in renewed]
        if not old:
            return renewed
        try:
            loaded = _from_database(load, old)
        except (OperationalError, InterfaceError, Unavailable) as error:
            if any(ident not in found for ident in old):
                raise
            log.warning("old answers are served", shelf=self.name, error=str(error))
            return renewed
        try:
            self._keep(redis, prefix, loaded)
        except RedisError as error:
            _note_away(error)
        return renewed | _data(loaded)

    @property
    def _stamp_key(self) -> str:
        return f"{PREFIX}stamp:{self.name}"

    def _prefix(self, redis: Redis) -> str:
        return f"{self.name}:{self._stamp(redis)}:" if self.stamped else f"{self.name}:"

    def _stamp(self, redis: Redis) -> str:
        """Return the stamp of the last write; a new one when it was lost, never an earlier one."""
        known = _get(redis, self._stamp_key)
        if known is None or not _STAMP.fullmatch(known):
            redis.set(self._stamp_key, uuid.uuid4().hex, nx=known is None)
            known = _get(redis, self._stamp_key) or b"evicted"
        return known.decode()

    def _found(self, redis: Redis, prefix: str, idents: list[str]) -> dict[str, _Entry]:
        pipeline = redis.pipeline(transaction=False)
        for ident in idents:
            pipeline.get(PREFIX + prefix + ident)
        found, nonsense = {}, []
        for ident, raw in zip(idents, pipeline.execute(raise_on_error=False), strict=True):
            if raw is None:
                continue
            entry = self._parsed(PREFIX + prefix + ident, raw)
            if entry is None:
                nonsense.append(PREFIX + prefix + ident)
            else:
                found[ident] = entry
        if nonsense:
            log.warning("nonsense in the cache", keys=nonsense[:3], count=len(nonsense))
            redis.delete(*nonsense)
        return found

    def _keep(self, redis: Redis, prefix: str, loaded: Loaded) -> None:
        pipeline = redis.pipeline(transaction=False)
        for ident, (version, data) in loaded.items():
            key = PREFIX + prefix + ident
            # Jitter: what was loaded together must not grow old together.
            fresh_until = _now_ms() + int(self.fresh_ms * random.uniform(0.8, 1.0))  # noqa: S311
            body = json.dumps(data, separators=(",", ":")).encode()
            head = b"%d|%d|" % (version, fresh_until)
            value = head + _seal(key, head, body) + b"|" + body
            pipeline.eval(_KEEP_NEWER, 1, key, version, value, self.kept_ms)
        pipeline.execute()

    def _parsed(self, key: str, raw: Any) -> _Entry | None:
        match = _ENTRY.fullmatch(raw) if isinstance(raw, bytes) else None
        if match is None:
            return None
        version, fresh_until, seal, body = match.groups()
        if not hmac.compare_digest(seal, _seal(key, b"%s|%s|" % (version, fresh_until), body)):
            return None
        # A clock that is ahead elsewhere must not make an entry fresh for ever.
        fresh = 0 < int(fresh_until) - _now_ms() <= self.fresh_ms
        return _Entry(json.loads(body), fresh)


def _redis() -> Redis:
    return cast("Redis", get_redis_connection("default"))


def _get(redis: Redis, key: str) -> bytes | None:
    try:
        return cast("bytes | None", redis.get(key))
    except ResponseError:
        # Not a string: as good as any other nonsense.
        return b""


def _unlock(redis: Redis, lock: str, token: str) -> None:
    try:
        redis.eval(_UNLOCK, 1, lock, token)
    except RedisError as error:
        _note_away(error)


def _note_away(error: RedisError) -> None:
    global _away_until
    _away_until = time.monotonic() + AWAY_SECONDS
    log.warning("reading without the cache", error=str(error), seconds=AWAY_SECONDS)


def _from_database(load: Load, idents: Iterable[str]) -> Loaded:
    if not _database_readers.acquire(timeout=DATABASE_WAIT_SECONDS):
        raise Unavailable("catalog_busy", "Too many are reading at once; try again.")
    try:
        return load(list(idents))
    finally:
        _database_readers.release()


def _data(loaded: Loaded) -> dict[str, Any]:
    return {ident: data for ident, (_, data) in loaded.items()}


def _seal(key: str, head: bytes, body: bytes) -> bytes:
    message = b"%s\n%s%s" % (key.encode(), head, body)
    digest = hmac.digest(settings.SECRET_KEY.encode(), message, hashlib.sha256)
    return digest.hex()[:32].encode()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
