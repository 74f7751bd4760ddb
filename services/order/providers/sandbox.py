"""The sandbox: a provider that takes no money and always does what the method's name says.

Its webhooks are signed as a real provider's are: ``Sandbox-Signature: t=<unix time>,n=<nonce>,
v1=<hex>`` (in one line) with v1 = HMAC-SHA256(secret, "<t>.<n>.<body>").
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import threading
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import urllib3
from django.conf import settings
from urllib3.exceptions import HTTPError

from common.errors import Problem, Unavailable
from services.order.models import Payment
from services.order.providers.base import Charge, Notice, Outcome
from services.order.states import PaymentStatus

SIGNATURE_HEADER = "Sandbox-Signature"
SIGNATURE = re.compile(r"t=([0-9]{1,12}),n=([A-Za-z0-9_-]{1,64}),v1=([0-9a-f]{64})")
# An older webhook may be a recorded one; the provider signs its retries anew.
AGE_SECONDS_MAX = 300
DELIVERY_TIMEOUT = urllib3.Timeout(connect=0.5, read=5.0)

_OUTCOMES = {
    "sandbox_ok": Outcome.CAPTURED,
    "sandbox_decline": Outcome.DECLINED,
    "sandbox_later": Outcome.PENDING,
}
_pool = urllib3.PoolManager(num_pools=2, maxsize=8, retries=False)


class SandboxProvider:
    """Captures, declines or waits for the sandbox page, by the method that the buyer chose."""

    name = "sandbox"
    methods = tuple(_OUTCOMES)

    def charge(self, payment: Payment) -> Charge:
        return Charge(_OUTCOMES[payment.method], _reference(payment))

    def refund(self, payment: Payment) -> None:
        """Nothing was taken."""

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> Notice:
        _verify(headers.get(SIGNATURE_HEADER, ""), body)
        try:
            data = json.loads(body)
            return Notice(
                payment_id=UUID(data["payment_id"]),
                outcome=Outcome(data["outcome"]),
                amount=data["amount"],
                currency=data["currency"],
                reference=str(data["reference"])[:255],
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _refused("The body is not a notice of the sandbox.") from error


# The sandbox lives in the shop that it calls: if every thread waited for another one to take its
# webhook, none would be left to do so.
_deliveries = threading.BoundedSemaphore(4)


def settle(payment: Payment, outcome: Outcome) -> None:
    """Be the provider's side: decide what became of a payment, and tell the shop over HTTP.

    Saying the same again delivers the webhook again. 409 ``payment_already_settled`` for another
    outcome than the first; Unavailable when the shop did not take the webhook.
    """
    status = PaymentStatus(payment.status)
    if status != PaymentStatus.CREATED and (status == PaymentStatus.DECLINED) != (
        outcome is Outcome.DECLINED
    ):
        raise Problem(409, "payment_already_settled", f"This payment is {status} already.")
    deliver(notice_body(payment, outcome))


def deliver(body: bytes) -> None:
    """Send the shop a signed webhook, as the provider would."""
    if not _deliveries.acquire(blocking=False):
        raise Unavailable("webhook_not_delivered", "Too many webhooks are on their way; try again.")
    try:
        answer = _pool.request(
            "POST",
            f"{settings.ORDER_URL}/api/payments/webhooks/{SandboxProvider.name}",
            body=body,
            headers={"Content-Type": "application/json", SIGNATURE_HEADER: sign(body)},
            timeout=DELIVERY_TIMEOUT,
        )
    except HTTPError as error:
        raise Unavailable("webhook_not_delivered", "The webhook got no answer.") from error
    finally:
        _deliveries.release()
    if answer.status != 200:
        raise Unavailable("webhook_not_delivered", f"The webhook was answered {answer.status}.")


def notice_body(payment: Payment, outcome: Outcome, **changes: Any) -> bytes:
    """Return the webhook body for a payment; ``changes`` replace members of it."""
    members = {
        "payment_id": str(payment.id),
        "outcome": str(outcome),
        "amount": payment.amount,
        "currency": payment.currency,
        "reference": _reference(payment),
    }
    return json.dumps(members | changes).encode()


def sign(body: bytes, *, at: float | None = None, secret: str | None = None) -> str:
    """Return the signature header's value for a body that is sent now, or at another time."""
    sent_at = str(int(time.time() if at is None else at))
    nonce = secrets.token_urlsafe(12)
    return f"t={sent_at},n={nonce},v1={_mac(sent_at, nonce, body, secret)}"


def _verify(header: str, body: bytes) -> None:
    match = SIGNATURE.fullmatch(header)
    if match is None:
        raise _refused(f"The {SIGNATURE_HEADER} header is missing or malformed.")
    sent_at, nonce, given = match.groups()
    if not hmac.compare_digest(_mac(sent_at, nonce, body), given):
        raise _refused("The signature does not match.")
    if abs(time.time() - int(sent_at)) > AGE_SECONDS_MAX:
        raise _refused(f"The webhook is more than {AGE_SECONDS_MAX} seconds old.")


def _mac(sent_at: str, nonce: str, body: bytes, secret: str | None = None) -> str:
    key = settings.SANDBOX_WEBHOOK_SECRET if secret is None else secret
    return hmac.new(key.encode(), f"{sent_at}.{nonce}.".encode() + body, hashlib.sha256).hexdigest()


def _reference(payment: Payment) -> str:
    return f"sandbox_{payment.id.hex}"


def _refused(detail: str) -> Problem:
    return Problem(400, "webhook_refused", detail)
