"""What can be done about each finding of the audit: by a service, safely; or only by a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from common.auditing import Violation
from deploy.stack.audit import Check


class Repair(NamedTuple):
    """A repair that a service has (services/*/repairing.py).

    ``service`` is empty where the finding names it; ``wants`` is what of the finding's details the
    repair is told.
    """

    service: str
    name: str
    does: str
    wants: tuple[str, ...] = ()


_FIT = Repair("order", "fit_hold", "fits the hold to its order", ("order_id",))
_ADVANCE = Repair("order", "advance_order", "does the order's next step")
_REFUND = Repair("order", "refund_payment", "gives the money back")
_REPUBLISH_OFFER = Repair("catalog", "republish_offer", "publishes the offer again", ("above",))

# finding → its repair. Each may be asked for twice or too late: the row's state decides.
REPAIRS: Mapping[str, Repair] = {
    "torn_purchase": _FIT,
    "held_though_over": _FIT,
    "hold_of_no_item": _FIT,
    "sale_not_committed": _FIT,
    "hold_lost": Repair("order", "expire_order", "lets the order go, for its hold is lost"),
    "order_unsettled": _ADVANCE,
    "money_kept": Repair("order", "give_money_back", "gives back what was captured"),
    "refund_due": _REFUND,
    "hold_overdue": Repair("inventory", "expire_hold", "gives the hold back"),
    "buyer_miscounted": Repair(
        "inventory", "recount_buyer", "counts the buyer's units anew", ("buyer_id",)
    ),
    "stock_behind": Repair(
        "inventory", "republish_stock", "publishes the counters again", ("above",)
    ),
    "offer_behind": _REPUBLISH_OFFER,
    "label_behind": _REPUBLISH_OFFER,
    "event_parked": Repair("", "retry_event", "tries the event again"),
    "event_not_applied": Repair("", "resend_event", "sends the event again"),
}

_BOOKS = (
    "The books disagree; nothing is changed on top of that. Compare the stock row with the "
    "ticket's reservations and its ledger (GET /api/inventory/stocks/ID/movements) around "
    "`updated_at`; the ledger is append-only and usually right."
)
_RESTORED = (
    "Usually one of the databases was restored from a backup: compare their ages, then decide "
    "which one is right."
)
# finding → what a person should look at.
ADVICE: Mapping[str, str] = {
    "sold_nothing": (
        "The buyer has paid and has no units. Find out whether units are left: if so, take them "
        "off sale (adjust the stock) and honour the order by hand; if not, refund at the payment "
        "provider and tell the buyer."
    ),
    "sold_unpaid": (
        "Units are sold for an order that nobody has paid. Look for the payment at the provider; "
        "without one, add the units to the stock again (adjust) after the order has expired."
    ),
    "sold_though_over": (
        "A sale cannot be released. Make sure that no money was kept, then add the units to the "
        "stock again (adjust)."
    ),
    "sale_of_no_item": _RESTORED,
    "sale_without_order": _RESTORED,
    "item_differs": _RESTORED,
    "stock_wrong": _BOOKS,
    "log_wrong": _BOOKS,
    "refusal_moved_stock": _BOOKS,
    "paid_wrong": (
        "Compare the order's payments with the provider's: what is missing was never booked, what "
        "is too much is to be refunded there."
    ),
    "notice_unbooked": (
        "A provider tells of money for a payment that is not known here: usually the database was "
        "restored from a backup. Find the buyer at the provider, and refund there; then "
        "`manage_all.py manage order notices close PROVIDER/ID --reason …`."
    ),
    "notice_refused": (
        "A provider has taken another amount than was asked for, and nothing was booked. Refund "
        "there; then `manage_all.py manage order notices close PROVIDER/ID --reason …`."
    ),
    "payment_unasked": (
        "Look at the provider whether it was paid (Stripe: its reference is the Checkout Session). "
        "Paid: send the provider's webhook again, which books it and gives it back."
    ),
    "refund_impossible": (
        "Set the keys of the provider that took the money again (README, Configuration): "
        "PAYMENT_PROVIDER may stay another one, and the refund is made by itself."
    ),
    "paid_unbooked": "Money is captured and its order is not PAID: compare with the provider.",
    "money_differs": "The sum of the other I9 findings, or of payments in a wrong currency.",
    "payment_wrong": _RESTORED,
    "refused_payment": "Compare with the provider; refund there what was taken.",
    "history_wrong": (
        "The row was changed by hand, or the database was restored: the events in outbox_event "
        "(aggregateid = the order) say what was acknowledged."
    ),
    "total_wrong": "The row was changed by hand: the order's events say what was acknowledged.",
    "items_missing": "The rows were deleted by hand: the order's events say what was acknowledged.",
    "key_wrong": "The row was changed by hand: id, user and key of an order belong together.",
    "answer_wrong": "A buyer was told something else: the order's events say what was so.",
    "event_unsent": "The relay does not keep up or cannot reach the stream: look at its log.",
    "event_from_nowhere": _RESTORED,
    "stock_from_nowhere": _RESTORED,
    "offer_from_nowhere": _RESTORED,
    "label_from_nowhere": _RESTORED,
    "row_impossible": "The row was changed by hand; correct it in the admin.",
}


@dataclass(frozen=True)
class Planned:
    """A repair of one row, and the violation that asks for it."""

    service: str
    repair: Repair
    violation: Violation

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What is to be done once, however many violations ask for it."""
        extra = str(self.violation.details.get("buyer_id", ""))
        return self.service, self.repair.name, self.violation.id, extra

    def item(self) -> dict[str, Any]:
        """Return what the service's ``repair`` command reads."""
        wanted = {name: self.violation.details[name] for name in self.repair.wants}
        return {
            "repair": self.repair.name,
            "id": self.violation.id,
            "why": self.violation.text,
            **wanted,
        }


def plan(checks: Iterable[Check]) -> tuple[list[Planned], list[tuple[Check, Violation]]]:
    """Return the repairs to do, each once, and what is left to a person."""
    planned: dict[tuple[str, str, str, str], Planned] = {}
    left = []
    for check in checks:
        for violation in check.violations:
            repair = REPAIRS.get(violation.finding)
            if repair is None:
                left.append((check, violation))
                continue
            service = repair.service or str(violation.details["service"])
            one = Planned(service, repair, violation)
            planned.setdefault(one.key, one)
    return list(planned.values()), left
