"""Prints a token by which this service shows another who it is."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from common.tokens import SERVICE_TOKEN_LIFETIME, service_token


class Command(BaseCommand):
    help = (
        "Print a token of this service for another one, to try an internal call by hand with curl. "
        f"It is good for {SERVICE_TOKEN_LIFETIME.total_seconds():.0f} seconds."
    )
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("audience", help="the service that is called, for example inventory")

    def handle(self, *args: Any, **options: Any) -> None:
        self.stdout.write(service_token(options["audience"]))
