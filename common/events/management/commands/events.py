"""What a person does about parked events: look at them, try them again, give one up."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError, CommandParser

from common.events import parked
from common.events.models import InboxEvent
from common.times import iso


def event_id(text: str) -> UUID:
    """Parse an event's id."""
    try:
        return UUID(text)
    except ValueError:
        raise ArgumentTypeError(f"an event's id is a UUID, not {text!r}") from None


def reason(text: str) -> str:
    """Parse the reason that is kept with a discarded event."""
    if not text.strip():
        raise ArgumentTypeError("a reason says something")
    return text.strip()


class Command(BaseCommand):
    help = "List, retry or discard parked events: those that failed too often to be tried further."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        listing = actions.add_parser("list", help="show what is parked: id, type, since, error")
        listing.add_argument("--json", action="store_true", help="as JSON, with the events")
        again = actions.add_parser(
            "retry", help="apply parked events now; the exit code is 1 if one of them fails"
        )
        which = again.add_mutually_exclusive_group(required=True)
        which.add_argument("ids", nargs="*", type=event_id, metavar="ID", default=[])
        which.add_argument("--all", action="store_true", help="all of them, oldest first")
        up = actions.add_parser("discard", help="give a parked event up; it is never applied")
        up.add_argument("id", type=event_id, metavar="ID")
        up.add_argument(
            "--reason", type=reason, required=True, help="why; it is kept with the event"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "list":
            self._list(as_json=options["json"])
        elif options["action"] == "retry":
            self._retry(None if options["all"] else options["ids"])
        elif parked.discard(options["id"], options["reason"]):
            self.stdout.write(f"{options['id']}  discarded")
        else:
            raise CommandError(f"no parked event has the id {options['id']}")

    def _list(self, *, as_json: bool) -> None:
        rows = list(parked.parked_events())
        if as_json:
            self.stdout.write(json.dumps([_as_json(row) for row in rows], indent=2))
        elif not rows:
            self.stdout.write("No event is parked.")
        for row in rows if not as_json else ():
            first_line = (row.error.splitlines() or [""])[0]
            self.stdout.write(f"{row.pk}  {row.type}  since {iso(row.received_at)}  {first_line}")

    def _retry(self, ids: list[UUID] | None) -> None:
        rows = {row.pk: row for row in parked.parked_events()}
        failed = 0
        for pk in rows if ids is None else dict.fromkeys(ids):
            row = rows.get(pk)
            problem = "it is not parked" if row is None else parked.retry(row)
            kind = row.type if row else "-"
            self.stdout.write(f"{pk}  {kind}  {f'failed: {problem}' if problem else 'applied'}")
            failed += bool(problem)
        if failed:
            raise CommandError(f"{failed} could not be applied")
        if not rows and ids is None:
            self.stdout.write("No event is parked.")


def _as_json(row: InboxEvent) -> dict[str, Any]:
    return {
        "id": str(row.pk),
        "type": row.type,
        "since": iso(row.received_at),
        "error": row.error,
        "event": row.payload,
    }
