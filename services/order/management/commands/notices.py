"""What a person does about news of captured money that fits no payment: list it, note it is dealt
with."""

from __future__ import annotations

from typing import Any

import structlog
from django.core.management.base import BaseCommand, CommandError, CommandParser

from common.times import iso
from services.order import notices

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = "List or close news of captured money that was refused, or whose payment is not known."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        actions.add_parser("list", help="show what waits for a payment or a person")
        closing = actions.add_parser("close", help="note that the money has been dealt with")
        # In one word: a provider's id may begin with a dash, and would be taken for an option.
        closing.add_argument("notice", metavar="PROVIDER/ID", help="as `list` shows it")
        closing.add_argument("--reason", required=True, help="what was done; it is logged")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "list":
            self._list()
        else:
            provider, _, notice_id = options["notice"].partition("/")
            self._close(provider, notice_id, options["reason"].strip())

    def _list(self) -> None:
        rows = list(notices.money_unbooked())
        for row in rows:
            money = f"{row.amount} {row.currency} {row.outcome} for payment {row.payment_id}"
            state = row.refusal or "payment not known"
            since = f"since {iso(row.received_at)}"
            self.stdout.write(f"{row.provider}/{row.notice_id}  {money}  {since}  {state}")
        if not rows:
            self.stdout.write("No notice waits.")

    def _close(self, provider: str, notice_id: str, reason: str) -> None:
        if not reason:
            raise CommandError("a reason says something")
        if not notices.close(provider, notice_id):
            raise CommandError(f"no notice of {provider} waits under the id {notice_id}")
        log.warning("notice closed", provider=provider, notice_id=notice_id, reason=reason)
        self.stdout.write(f"{provider}/{notice_id}  closed")
