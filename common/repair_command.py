"""The base of every service's ``repair`` command."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from common.databases import unhurried
from common.repairing import Repair, repair_all

ITEMS_MAX = 10_000


class RepairCommand(BaseCommand):
    """Reads a JSON list of repairs, prints it with what came of each; exits 1 if one failed."""

    repairs: Mapping[str, Repair]
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            items = json.load(sys.stdin)
        except ValueError as error:
            raise CommandError(f"standard input is no JSON: {error}") from None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise CommandError('a JSON list is wanted: [{"repair": …, "id": …, "why": …}, …]')
        if len(items) > ITEMS_MAX:
            raise CommandError(f"at most {ITEMS_MAX} repairs at a time, these are {len(items)}")
        with unhurried():
            results = repair_all(items, self.repairs)
        self.stdout.write(json.dumps(results))
        if not all(result["ok"] for result in results):
            raise CommandError("not everything could be repaired")
