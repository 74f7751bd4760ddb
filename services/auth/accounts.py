"""What happens to an account after registration: role, password, deactivation."""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser

from common.tokens import Principal
from common.transactions import in_transaction
from services.auth import sessions
from services.auth.models import LoginSession, Role, User


def find_active(principal: Principal) -> User | None:
    """Return the person behind a token as they are now; None when gone or deactivated."""
    if principal.role == "service":
        return None
    return User.objects.filter(pk=int(principal.id), is_active=True).first()


def load_admin(principal: Principal) -> User | AnonymousUser:
    """Return the active admin whom a token names, for Django's admin; else nobody.

    The token may be 15 minutes old: here the table decides.
    """
    user = find_active(principal)
    return user if user is not None and user.role == Role.ADMIN else AnonymousUser()


def change_role(*, user_id: int, role: str) -> None:
    """Give a user another role; it shows in their tokens from the next refresh on."""
    in_transaction(lambda: User.objects.filter(pk=user_id).update(role=role))


def activate(*, user_id: int) -> None:
    """Let a deactivated user log in again."""
    in_transaction(lambda: User.objects.filter(pk=user_id).update(is_active=True))


def deactivate(*, user_id: int) -> None:
    """Keep a user out: no login, and every login there is ends."""

    def work() -> None:
        User.objects.filter(pk=user_id).update(is_active=False)
        sessions.end_all(user_id=user_id, reason=LoginSession.End.DEACTIVATED)

    in_transaction(work)


def set_password(*, user_id: int, password: str) -> None:
    """Give a user another password; every login made with the old one ends."""
    hashed = User()
    hashed.set_password(password)

    def work() -> None:
        User.objects.filter(pk=user_id).update(password=hashed.password)
        sessions.end_all(user_id=user_id, reason=LoginSession.End.PASSWORD)

    in_transaction(work)
