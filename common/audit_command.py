"""The base of every service's ``audit`` command."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from common.auditing import SHOWN_MAX
from common.databases import unhurried
from common.events.audit import Window, event_ids, window_at


class AuditCommand(BaseCommand):
    """Prints what ``audit(window)`` returns ({service, checks, facts}); exits 1 on a violation.

    With ``--json`` it prints the whole object and leaves the judgement to the caller.
    """

    audit: Callable[[Window], dict[str, Any]]
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="checks and facts as JSON")
        parser.add_argument(
            "--at",
            type=float,
            metavar="UNIX_TIME",
            help="compare the events that were known at this moment (default: now)",
        )
        parser.add_argument(
            "--event-ids",
            type=json.loads,
            metavar="JSON",
            help="instead of the audit, the ids of events in these buckets: {type: [bucket, …]}",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        at = options["at"]
        window = window_at(None if at is None else datetime.fromtimestamp(at, UTC))
        with unhurried():
            if options["event_ids"] is not None:
                self.stdout.write(json.dumps(event_ids(window, options["event_ids"])))
                return
            result = type(self).audit(window)
        if options["json"]:
            self.stdout.write(json.dumps(result))
            return
        for check in result["checks"]:
            mark = "ok  " if check["ok"] else f"FAIL ({check['count']})"
            self.stdout.write(f"{mark} {check['id']:4} {check['name']}")
            for violation in check["violations"][:SHOWN_MAX]:
                self.stdout.write(f"          {violation['text']}")
        if not all(check["ok"] for check in result["checks"]):
            raise CommandError("an invariant is broken")
