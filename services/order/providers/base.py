"""What the order service wants of a payment provider."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from services.order.models import Payment


class Outcome(StrEnum):
    """What became of the money."""

    CAPTURED = "captured"
    DECLINED = "declined"
    # Known only later: a webhook will tell.
    PENDING = "pending"


@dataclass(frozen=True)
class Charge:
    """A provider's answer to a charge; ``reference`` is its own name for the payment.

    ``page`` is where the buyer goes on with a pending one: an http(s) URL, or a path of the shop.
    """

    outcome: Outcome
    reference: str
    page: str = ""


@dataclass(frozen=True)
class Notice:
    """What a verified webhook says of a payment; ``notice_id`` is the provider's own name for it,
    by which a second delivery is recognised."""

    notice_id: str
    payment_id: UUID
    outcome: Outcome
    amount: int
    currency: str
    reference: str


class PaymentProvider(Protocol):
    """Takes money and gives it back.

    Both calls know a payment by its id and may be repeated: the second charge of a payment takes
    nothing and answers as the first. A provider that cannot be reached raises
    common.errors.Unavailable, and what happened is then unknown until the call is repeated.
    """

    name: str
    # What a buyer may choose; unique over all providers, the default first.
    methods: tuple[str, ...]
    # How long a page can take money at most; None where no money is ever taken.
    page_lifetime: timedelta | None

    def charge(self, payment: Payment) -> Charge:
        """Take the payment's amount."""

    def refund(self, payment: Payment) -> None:
        """Give back whatever was taken for the payment, in full; nothing taken is fine too."""

    def close(self, payment: Payment) -> Charge | None:
        """Let a pending payment be paid no more, as its order is over, and return what has become
        of it; None if its page stays open.

        PENDING is money on its way: asking again will tell.
        """

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> Notice | None:
        """Return what a webhook says, None if it is no news of a payment of ours.

        400 ``webhook_refused`` if it is forged, old or unreadable.
        """
