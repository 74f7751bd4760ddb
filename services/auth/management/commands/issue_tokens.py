"""Makes many users and prints an access token for each: the crowd of a demo or a benchmark."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from django.contrib.auth.hashers import make_password
from django.core.management.base import BaseCommand, CommandError, CommandParser

from common.tokens import AccessToken
from common.transactions import in_transaction
from services.auth.models import USERNAME_PATTERN, User

BATCH_SIZE = 500
COUNT_MAX = 100_000
# Nobody can own an address in this domain (RFC 2606).
EMAIL_DOMAIN = "issued.invalid"


class Command(BaseCommand):
    help = (
        "Create users PREFIX-00001, PREFIX-00002 … as far as they are missing, and print one JSON "
        "line for each: username, id, access. They have no password: the token is all they have."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--prefix", required=True)
        parser.add_argument("--count", type=int, required=True)

    def handle(self, *args: Any, **options: Any) -> None:
        prefix, count = options["prefix"], options["count"]
        if not 1 <= count <= COUNT_MAX:
            raise CommandError(f"--count must be 1 to {COUNT_MAX}")
        names = [f"{prefix}-{number:05d}" for number in range(1, count + 1)]
        if not re.fullmatch(USERNAME_PATTERN, names[-1]):
            raise CommandError("--prefix must leave a valid username: A-Z a-z 0-9 _ . - up to 32")
        no_password = make_password(None)
        for start in range(0, count, BATCH_SIZE):
            for user in _users(names[start : start + BATCH_SIZE], no_password):
                access = AccessToken.issue(user_id=user.pk, username=user.username, role=user.role)
                line = {"username": user.username, "id": user.pk, "access": str(access)}
                self.stdout.write(json.dumps(line))


def _users(names: list[str], no_password: str) -> Iterator[User]:
    """Return the users with these names, in their order; those that are missing are made."""
    made = [
        User(username=name, email=f"{name}@{EMAIL_DOMAIN}", password=no_password) for name in names
    ]
    in_transaction(lambda: User.objects.bulk_create(made, ignore_conflicts=True))
    found = {user.username: user for user in User.objects.filter(username__in=names)}
    missing = [name for name in names if name not in found]
    if missing:
        raise CommandError(f"{missing[0]} cannot be made: its name or address is taken")
    return (found[name] for name in names)
