"""Makes a user who can log in, an admin for instance; the API can make no admins."""

from __future__ import annotations

import getpass
import os
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError, CommandParser

from common.errors import Problem
from services.auth import accounts, registration
from services.auth.models import Role, User
from services.auth.passwords import require_good

PASSWORD_VARIABLE = "NEW_USER_PASSWORD"  # noqa: S105


class Command(BaseCommand):
    help = (
        "Create a user, or give an existing one this role and password and make it active. "
        f"The password is read from {PASSWORD_VARIABLE} or asked for."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--email", required=True)
        parser.add_argument("--role", choices=Role.values, default=Role.USER.value)

    def handle(self, *args: Any, **options: Any) -> None:
        username, email, role = options["username"], options["email"], options["role"]
        password = os.environ.get(PASSWORD_VARIABLE) or getpass.getpass()
        _require_valid(username, email, password)
        user = User.objects.filter(username_key=username.lower()).first()
        if user is None:
            _create(username, email, password, role)
            self.stdout.write(f"created {role} {username}")
            return
        if not user.check_password(password):
            accounts.set_password(user_id=user.pk, password=password)
        accounts.change_role(user_id=user.pk, role=role)
        accounts.activate(user_id=user.pk)
        self.stdout.write(f"{user.username} exists; role {role} and password are set")


def _require_valid(username: str, email: str, password: str) -> None:
    user = User(username=username, email=email)
    try:
        user.clean_fields(exclude=("password",))
        require_good(password, username=username, email=email)
    except ValidationError as error:
        raise CommandError(" ".join(error.messages)) from error


def _create(username: str, email: str, password: str, role: str) -> None:
    try:
        registration.register(username=username, email=email, password=password, role=role)
    except Problem as problem:
        raise CommandError(problem.text) from problem
