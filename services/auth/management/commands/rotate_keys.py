"""Adds a signing key; tokens signed with the older ones stay good until they expire."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandParser

from common.keyring import add_key
from common.tokens import USER_ISSUER

ISSUERS = (USER_ISSUER, "gateway", "catalog", "inventory", "order")


class Command(BaseCommand):
    help = (
        "Make a new signing key for one issuer. Running processes sign with it after two to three "
        "seconds, when all of them can verify it. The public half of an old key may be deleted 16 "
        "minutes later, when its last tokens have expired."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--issuer", choices=ISSUERS, default=USER_ISSUER)

    def handle(self, *args: Any, **options: Any) -> None:
        kid = add_key(settings.KEYS_DIR, options["issuer"])
        self.stdout.write(f"{options['issuer']} signs with key {kid} in three seconds")
