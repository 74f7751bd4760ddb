"""Runs all background loops of a service (settings.LOOPS) in one process."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand
from django.utils.module_loading import import_string

from common.loops import run_until_signal


class Command(BaseCommand):
    help = "Run all background loops of this service until SIGTERM or Ctrl-C."
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        run_until_signal([import_string(path) for path in settings.LOOPS])
