"""The base of every service's ``audit`` command."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from common.databases import unhurried


class AuditCommand(BaseCommand):
    """Prints what ``audit()`` returns ({service, checks, facts}); exits 1 on a violation.

    With ``--json`` it prints the whole object and leaves the judgement to the caller.
    """

    audit: Callable[[], dict[str, Any]]
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="checks and facts as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        with unhurried():
            result = type(self).audit()
        if options["json"]:
            self.stdout.write(json.dumps(result))
            return
        for check in result["checks"]:
            mark = "ok  " if check["ok"] else "FAIL"
            self.stdout.write(f"{mark} {check['id']:4} {check['name']}")
            for violation in check["violations"]:
                self.stdout.write(f"          {violation}")
        if not all(check["ok"] for check in result["checks"]):
            raise CommandError("an invariant is broken")
