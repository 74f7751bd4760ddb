"""Auth's tables. Who may write them: registration.py and accounts.py users, sessions.py logins and
refresh tokens, purge.py deletes what has expired; nobody else."""

from __future__ import annotations

import uuid
from typing import Any, ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.core.validators import RegexValidator
from django.db import models
from django.db.models.functions import Lower

from common.fields import ExactCharField

USERNAME_LENGTH_MIN = 3
USERNAME_LENGTH_MAX = 32
USERNAME_PATTERN = rf"^[A-Za-z0-9_.-]{{{USERNAME_LENGTH_MIN},{USERNAME_LENGTH_MAX}}}\Z"
USERNAME_HELP = (
    f"{USERNAME_LENGTH_MIN} to {USERNAME_LENGTH_MAX} letters (A-Z), digits, dots, hyphens and "
    "underscores."
)
EMAIL_LENGTH_MAX = 254
# Browsers send international domains as xn--…; here all databases agree on what lower case is.
validate_email_characters = RegexValidator(
    r"^[!-~]*\Z", "Enter an e-mail address in ASCII characters, without spaces."
)


class Role(models.TextChoices):
    """What a person may do; nothing else decides about it."""

    USER = "user"
    ADMIN = "admin"


class UserManager(BaseUserManager["User"]):
    """Makes users with a hashed password; registration.py gives the errors their names."""

    def create_user(
        self, username: str, email: str, password: str | None = None, role: str = Role.USER
    ) -> User:
        """Insert a user; IntegrityError when the name or the address is taken."""
        user = self.model(username=username, email=email, role=role)
        user.set_password(password)
        user.save(force_insert=True)
        return user

    def create_superuser(self, username: str, email: str, password: str | None = None) -> User:
        """What Django's own ``createsuperuser`` calls."""
        return self.create_user(username, email, password, Role.ADMIN)


class User(AbstractBaseUser):
    """A person who can log in.

    Names and addresses are unique in any case. The database itself derives the columns that say
    so, because a unique index on an expression is not to be had on MariaDB.
    """

    username = ExactCharField(
        max_length=USERNAME_LENGTH_MAX,
        unique=True,
        validators=[RegexValidator(USERNAME_PATTERN, USERNAME_HELP)],
        help_text=USERNAME_HELP,
    )
    username_key = models.GeneratedField(
        expression=Lower("username"),
        output_field=ExactCharField(max_length=USERNAME_LENGTH_MAX),
        max_length=USERNAME_LENGTH_MAX,
        db_persist=True,
        unique=True,
    )
    email = models.EmailField(max_length=EMAIL_LENGTH_MAX, validators=[validate_email_characters])
    email_key = models.GeneratedField(
        expression=Lower("email"),
        output_field=ExactCharField(max_length=EMAIL_LENGTH_MAX),
        max_length=EMAIL_LENGTH_MAX,
        db_persist=True,
        unique=True,
    )
    role = models.CharField(max_length=5, choices=Role.choices, default=Role.USER)
    is_active = models.BooleanField(
        "active", default=True, help_text="Switch this off instead of deleting a user."
    )
    created_at = models.DateTimeField("registered", auto_now_add=True)

    objects = UserManager()

    USERNAME_FIELD = "username"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS = ["email"]

    class Meta:
        db_table = "accounts_user"
        ordering = ("username",)

    def __str__(self) -> str:
        return str(self.username)

    @property
    def is_staff(self) -> bool:
        return self.role == Role.ADMIN

    @property
    def is_superuser(self) -> bool:
        return self.role == Role.ADMIN

    # What Django's admin asks: an active admin may do everything, nobody else anything.
    def has_perm(self, perm: str, obj: Any = None) -> bool:
        return self.is_active and self.is_superuser

    def has_perms(self, perms: Any, obj: Any = None) -> bool:
        return self.is_active and self.is_superuser

    def has_module_perms(self, app_label: str) -> bool:
        return self.is_active and self.is_superuser


class LoginSession(models.Model):
    """One login and all that was refreshed from it: the family of its refresh tokens."""

    class End(models.TextChoices):
        LOGOUT = "logout"
        REUSE = "reuse", "a spent token was used again"
        PASSWORD = "password", "password changed"
        DEACTIVATED = "deactivated"

    # Random, not time-ordered: it is what a browser shows to end its own login.
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="sessions")
    created_at = models.DateTimeField("logged in", auto_now_add=True)
    # When the newest of its tokens expires.
    expires_at = models.DateTimeField()
    ended_at = models.DateTimeField("ended", null=True)
    end_reason = models.CharField(max_length=11, choices=End.choices, blank=True, default="")

    class Meta:
        db_table = "login_session"
        verbose_name = "login"
        ordering = ("-created_at",)
        indexes: ClassVar = [models.Index(fields=["expires_at"], name="login_session_expiry")]

    def __str__(self) -> str:
        return f"login of user {self.user_id}"


class RefreshToken(models.Model):
    """A refresh token, known by its SHA-256 only, and when it was spent."""

    hash = ExactCharField(max_length=64, unique=True)
    family = models.ForeignKey(LoginSession, on_delete=models.CASCADE, related_name="tokens")
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField("expires")
    used_at = models.DateTimeField("used", null=True)

    class Meta:
        db_table = "refresh_token"
        ordering = ("-id",)
        indexes: ClassVar = [models.Index(fields=["expires_at"], name="refresh_token_expiry")]

    def __str__(self) -> str:
        return f"refresh token #{self.pk}"
