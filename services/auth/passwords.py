"""Passwords: how they are hashed, and which ones are taken."""

from __future__ import annotations

from django.contrib.auth import password_validation
from django.contrib.auth.hashers import Argon2PasswordHasher
from django.core.exceptions import ValidationError

from services.auth.models import User

PASSWORD_LENGTH_MIN = 8
# Hashing a password of 1 MB would be a cheap way to keep the service busy.
PASSWORD_LENGTH_MAX = 128


class Argon2id(Argon2PasswordHasher):
    """Argon2id as OWASP advises: 19 MiB, 2 passes, 1 lane (32 ms; Django's default is 100 MiB)."""

    time_cost = 2
    memory_cost = 19 * 1024
    parallelism = 1


class MaximumLengthValidator:
    """Refuses passwords of more than 128 characters."""

    def validate(self, password: str, user: User | None = None) -> None:
        if len(password) > PASSWORD_LENGTH_MAX:
            raise ValidationError(self.get_help_text(), code="password_too_long")

    def get_help_text(self) -> str:
        return f"Your password must contain at most {PASSWORD_LENGTH_MAX} characters."


def require_good(password: str, *, username: str, email: str) -> None:
    """Raise Django's ValidationError when the password breaks a rule for this person."""
    password_validation.validate_password(password, User(username=username, email=email))
