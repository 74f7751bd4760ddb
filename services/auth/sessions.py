"""Logins: from a password to tokens, from one refresh token to the next, and to the end.

A refresh token is 256 random bits; the table has its hash. It is good for one use. Whoever uses it
again shows that two parties have it, so the whole family (the login it came from) ends. A token is
worth something only while its family goes on: ending a family ends also what a refresh at the same
moment is just adding to it.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.contrib.auth.hashers import make_password
from django.utils import timezone

from common.errors import Problem
from common.tokens import AccessToken
from common.transactions import in_transaction
from services.auth.models import LoginSession, RefreshToken, User
from services.auth.throttling import LoginAttempt

log = structlog.get_logger(__name__)

# Two tabs of one browser may refresh at once. The later one gets nothing, but for so long after
# the first it is no reason to end the login of both.
BROWSER_PATIENCE = timedelta(seconds=10)
NO_PATIENCE = timedelta(0)


@dataclass(frozen=True)
class TokenPair:
    """What a login or a refresh gives: a signed access token and an opaque refresh token."""

    access: str
    refresh: str
    session_id: uuid.UUID
    user: User
    token_type: str = "Bearer"  # noqa: S105

    @property
    def expires_in(self) -> int:
        """Return the seconds that the access token lives."""
        return int(settings.ACCESS_TOKEN_LIFETIME.total_seconds())


def log_in(*, username: str, password: str, attempt: LoginAttempt) -> TokenPair:
    """Check a password and open a session; 401 ``invalid_credentials``, 429 ``rate_limited``."""
    attempt.require_allowed()
    user = _authenticate(username, password)
    pair = open_session(user) if user else None
    if pair is None:
        attempt.failed()
        raise Problem(401, "invalid_credentials", "The username or the password is wrong.")
    return pair


def open_session(user: User) -> TokenPair | None:
    """Start a login; None when meanwhile the user was deactivated or got another password."""
    session_id, token = uuid.uuid4(), _new_token()

    def work() -> bool:
        now = timezone.now()
        # First the user's row: the inserts lock it too, and two logins must not lock crosswise.
        unchanged = User.objects.filter(pk=user.pk, is_active=True, password=user.password)
        if not unchanged.update(last_login=now):
            return False
        # After a lost answer to COMMIT this may run for the second time.
        if not LoginSession.objects.filter(pk=session_id).exists():
            LoginSession.objects.create(id=session_id, user=user, expires_at=_expiry(now))
            _store(token, session_id, now)
        return True

    return _pair(user, token, session_id) if in_transaction(work) else None


def refresh(*, token: str, patience: timedelta = NO_PATIENCE) -> TokenPair:
    """Spend a refresh token for a new pair; 401 ``invalid_refresh_token``.

    A spent one ends its family, unless it was spent within ``patience``.
    """
    successor = _new_token()
    session = in_transaction(lambda: _rotate(token, successor, patience))
    if session is None:
        raise Problem(
            401, "invalid_refresh_token", "The refresh token is unknown, expired or spent."
        )
    return _pair(session.user, successor, session.pk)


def log_out(*, token: str) -> None:
    """End the login that a refresh token, spent or not, belongs to; an unknown one is no error."""
    known = RefreshToken.objects.filter(hash=_hash(token)).first()
    if known is not None:
        end(session_id=known.family_id, reason=LoginSession.End.LOGOUT)


def end(*, session_id: uuid.UUID, reason: str) -> None:
    """End one login: none of its refresh tokens is worth anything from now on."""
    going_on = LoginSession.objects.filter(pk=session_id, ended_at=None)
    in_transaction(lambda: going_on.update(ended_at=timezone.now(), end_reason=reason))


def end_all(*, user_id: int, reason: str) -> None:
    """End all logins of a user."""
    going_on = LoginSession.objects.filter(user_id=user_id, ended_at=None)
    in_transaction(lambda: going_on.update(ended_at=timezone.now(), end_reason=reason))


def _authenticate(username: str, password: str) -> User | None:
    user = User.objects.filter(username_key=username.lower()).first()
    if user is None:
        # Takes as long as checking: the time must not tell which names exist.
        make_password(password)
        return None
    return user if user.check_password(password) and user.is_active else None


def _rotate(token: str, successor: str, patience: timedelta) -> LoginSession | None:
    """Spend ``token`` and store ``successor``; return the session, None when nothing came of it."""
    now = timezone.now()
    digest = _hash(token)
    fresh = RefreshToken.objects.filter(hash=digest, used_at=None, expires_at__gt=now)
    # The one statement that decides: of any number at once, one finds the token unused.
    won = fresh.update(used_at=now) == 1
    row = RefreshToken.objects.select_related("family__user").filter(hash=digest).first()
    if row is None or row.used_at is None:
        return None
    session = row.family
    if won:
        # First the session's row: the insert locks it too, but shared, and whoever ends the login
        # at the same moment would lock crosswise.
        going_on = LoginSession.objects.filter(pk=session.pk, ended_at=None)
        if not session.user.is_active or not going_on.update(expires_at=_expiry(now)):
            return None
        _store(successor, session.pk, now)
        return session
    if session.ended_at is not None:
        return None
    if RefreshToken.objects.filter(hash=_hash(successor)).exists():
        # It was this very call that won, and only the answer to its COMMIT got lost.
        return session
    if now - row.used_at >= patience:
        end(session_id=session.pk, reason=LoginSession.End.REUSE)
        log.warning("spent refresh token used again", user_id=session.user_id)
    return None


def _store(token: str, session_id: uuid.UUID, now: datetime) -> None:
    RefreshToken.objects.create(hash=_hash(token), family_id=session_id, expires_at=_expiry(now))


def _expiry(now: datetime) -> datetime:
    lifetime: timedelta = settings.REFRESH_TOKEN_LIFETIME
    return now + lifetime


def _pair(user: User, token: str, session_id: uuid.UUID) -> TokenPair:
    access = AccessToken.issue(user_id=user.pk, username=user.username, role=user.role)
    return TokenPair(str(access), token, session_id, user)


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def _hash(token: str) -> str:
    # Fast on purpose: 256 random bits cannot be guessed, however fast.
    return hashlib.sha256(token.encode()).hexdigest()
