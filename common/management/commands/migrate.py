"""Django's migrate, with the time that a large table takes."""

from __future__ import annotations

from typing import Any

from django.core.management.commands.migrate import Command as DjangosCommand

from common.databases import unhurried


class Command(DjangosCommand):
    def handle(self, *args: Any, **options: Any) -> None:
        with unhurried():
            super().handle(*args, **options)
