"""The base of the ``republish`` commands: a service says again what it knows of its tickets."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser


class RepublishCommand(BaseCommand):
    """Publishes the whole present state of tickets again, under new versions."""

    # Returns the version published, 0 if there is no such ticket.
    republish: Callable[[int], int]
    ticket_ids: Callable[[], Iterable[int]]
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("tickets", nargs="*", type=int, metavar="TICKET")
        parser.add_argument("--all", action="store_true", help="of every ticket")

    def handle(self, *args: Any, **options: Any) -> None:
        if bool(options["tickets"]) == options["all"]:
            raise CommandError("name tickets, or say --all")
        missing = []
        for ticket_id in type(self).ticket_ids() if options["all"] else options["tickets"]:
            version = type(self).republish(ticket_id)
            if version:
                self.stdout.write(f"ticket {ticket_id}: version {version}")
            else:
                missing.append(str(ticket_id))
        if missing:
            raise CommandError(f"unknown here: {', '.join(missing)}")
