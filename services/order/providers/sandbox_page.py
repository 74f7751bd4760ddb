"""The sandbox's own side: what its page can play, and how the shop is told of it over HTTP."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from enum import StrEnum

import structlog
import urllib3
from django.conf import settings
from urllib3.exceptions import HTTPError

from common.errors import Problem, Unavailable
from services.order.models import Payment
from services.order.providers.base import Outcome
from services.order.providers.sandbox import (
    SIGNATURE_HEADER,
    SandboxProvider,
    notice_body,
    sign,
)
from services.order.states import PaymentStatus

log = structlog.get_logger(__name__)

DELIVERY_TIMEOUT = urllib3.Timeout(connect=0.5, read=5.0)
# "In a few seconds": long enough to look at the order that waits.
LATER_SECONDS = 4.0
LATER_MAX = 100

_A_FORGERS_KEY = "not the shop's secret"
_pool = urllib3.PoolManager(num_pools=2, maxsize=8, retries=False)
# The sandbox lives in the shop that it calls: if every thread waited for another one to take its
# webhook, none would be left to do so.
_deliveries = threading.BoundedSemaphore(4)
_later = threading.BoundedSemaphore(LATER_MAX)


class Play(StrEnum):
    """How the shop is told."""

    ONCE = "once"
    TWICE = "twice"
    LATER = "later"
    WRONG_AMOUNT = "wrong_amount"
    FORGED = "forged"


@dataclass(frozen=True)
class Delivery:
    """What the shop answered to a webhook; ``code`` and ``detail`` are its refusal's."""

    status: int
    code: str = ""
    detail: str = ""


def settle(payment: Payment, outcome: Outcome, play: Play = Play.ONCE) -> list[Delivery]:
    """Decide what became of a payment, tell the shop, and return what it answered.

    Saying the same again delivers the webhook again. 409 ``payment_already_settled`` for another
    outcome than the first; Unavailable when the shop did not take the webhook.
    """
    status = PaymentStatus(payment.status)
    if status != PaymentStatus.CREATED and (status == PaymentStatus.DECLINED) != (
        outcome is Outcome.DECLINED
    ):
        raise Problem(409, "payment_already_settled", f"This payment is {status} already.")
    body = notice_body(payment, outcome)
    if play is Play.FORGED:
        return [_deliver(body, sign(body, secret=_A_FORGERS_KEY))]
    if play is Play.WRONG_AMOUNT:
        body = notice_body(payment, outcome, amount=payment.amount + 1)
        return [_deliver(body, sign(body))]
    if play is Play.LATER:
        _deliver_later(body)
        return []
    return [_taken(body) for _ in range(2 if play is Play.TWICE else 1)]


def _taken(body: bytes) -> Delivery:
    """Deliver a webhook that the shop has to take, signed anew as each delivery is."""
    delivery = _deliver(body, sign(body))
    if delivery.status != 200:
        raise Unavailable("webhook_not_delivered", f"The webhook was answered {delivery.status}.")
    return delivery


def _deliver(body: bytes, signature: str) -> Delivery:
    if not _deliveries.acquire(blocking=False):
        raise Unavailable("webhook_not_delivered", "Too many webhooks are on their way; try again.")
    try:
        answer = _pool.request(
            "POST",
            f"{settings.ORDER_URL}/api/payments/webhooks/{SandboxProvider.name}",
            body=body,
            headers={"Content-Type": "application/json", SIGNATURE_HEADER: signature},
            timeout=DELIVERY_TIMEOUT,
        )
        told = json.loads(answer.data)
    except (HTTPError, ValueError) as error:
        raise Unavailable("webhook_not_delivered", "The webhook got no answer.") from error
    finally:
        _deliveries.release()
    return Delivery(answer.status, told.get("code", ""), told.get("detail", ""))


def _deliver_later(body: bytes) -> None:
    if not _later.acquire(blocking=False):
        raise Unavailable("webhook_not_delivered", "Too many webhooks wait already; try again.")

    def deliver() -> None:
        try:
            _taken(body)
        except Unavailable as error:
            # A provider would try again; a person at the sandbox's page can.
            log.warning("late webhook not delivered", reason=str(error))
        finally:
            _later.release()

    timer = threading.Timer(LATER_SECONDS, deliver)
    timer.daemon = True
    timer.start()
