"""Registration: a new user, or the news that the name or the address is taken."""

from __future__ import annotations

from django.db import IntegrityError

from common.errors import Problem, Unavailable
from common.transactions import in_transaction
from services.auth.models import Role, User


def register(*, username: str, email: str, password: str, role: str = Role.USER) -> User:
    """Create a user; 409 ``username_taken`` or ``email_taken``.

    What comes in is validated already. Only operators pass a role.
    """
    # Looked up first only to save the hash; the unique columns decide.
    refusal = _taken(username, email)
    if refusal:
        raise refusal
    user = User(username=username, email=email, role=role)
    user.set_password(password)
    try:
        in_transaction(lambda: user.save(force_insert=True))
    except IntegrityError:
        # After a lost answer to COMMIT it is this very user that is there: the salt shows it.
        own = User.objects.filter(username_key=username.lower(), password=user.password).first()
        if own is not None:
            return own
        # Whoever was in the way may be gone again; then the next try works.
        again = Unavailable("registration_unavailable", "That did not work; try again.")
        raise _taken(username, email) or again from None
    return user


def username_taken(username: str) -> bool:
    """Tell whether somebody has this name, in whatever case."""
    return User.objects.filter(username_key=username.lower()).exists()


def email_taken(email: str) -> bool:
    """Tell whether somebody has this address, in whatever case."""
    return User.objects.filter(email_key=email.lower()).exists()


def _taken(username: str, email: str) -> Problem | None:
    if username_taken(username):
        return Problem(409, "username_taken", "That username is taken.")
    if email_taken(email):
        return Problem(409, "email_taken", "There is an account with that e-mail address.")
    return None
