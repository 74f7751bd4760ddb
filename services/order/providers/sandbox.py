"""The sandbox: a provider that takes no money and always does what the method's name says.

What its page can do beyond that is in sandbox_page.py.
Its webhooks are signed as a real provider's are: ``Sandbox-Signature: t=<unix time>,n=<nonce>,
v1=<hex>`` (in one line) with v1 = HMAC-SHA256(secret, "<t>.<n>.<body>").
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
import time
from collections.abc import Mapping
from typing import Any
from uuid import UUID

from django.conf import settings

from common.errors import Problem
from services.order.models import Payment
from services.order.providers.base import Charge, Notice, Outcome

SIGNATURE_HEADER = "Sandbox-Signature"
SIGNATURE = re.compile(r"t=([0-9]{1,12}),n=([A-Za-z0-9_-]{1,64}),v1=([0-9a-f]{64})")
# An older webhook may be a recorded one; the provider signs its retries anew.
AGE_SECONDS_MAX = 300

_OUTCOMES = {
    "sandbox_ok": Outcome.CAPTURED,
    "sandbox_decline": Outcome.DECLINED,
    "sandbox_later": Outcome.PENDING,
}


class SandboxProvider:
    """Captures, declines or waits for the sandbox page, by the method that the buyer chose."""

    name = "sandbox"
    methods = tuple(_OUTCOMES)
    page_lifetime = None

    def charge(self, payment: Payment) -> Charge:
        outcome = _OUTCOMES[payment.method]
        page = f"/pay/{payment.id}" if outcome is Outcome.PENDING else ""
        return Charge(outcome, _reference(payment), page)

    def refund(self, payment: Payment) -> None:
        """Nothing was taken."""

    def close(self, payment: Payment) -> Charge | None:
        """Its page stays open, so that a person can play the buyer who pays too late."""

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> Notice:
        nonce = _verified_nonce(headers.get(SIGNATURE_HEADER, ""), body)
        try:
            data = json.loads(body)
            return Notice(
                notice_id=nonce,
                payment_id=UUID(data["payment_id"]),
                outcome=Outcome(data["outcome"]),
                amount=data["amount"],
                currency=data["currency"],
                reference=str(data["reference"])[:255],
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise _refused("The body is not a notice of the sandbox.") from error


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


def _verified_nonce(header: str, body: bytes) -> str:
    match = SIGNATURE.fullmatch(header)
    if match is None:
        raise _refused(f"The {SIGNATURE_HEADER} header is missing or malformed.")
    sent_at, nonce, given = match.groups()
    if not hmac.compare_digest(_mac(sent_at, nonce, body), given):
        raise _refused("The signature does not match.")
    if abs(time.time() - int(sent_at)) > AGE_SECONDS_MAX:
        raise _refused(f"The webhook is more than {AGE_SECONDS_MAX} seconds old.")
    return nonce


def _mac(sent_at: str, nonce: str, body: bytes, secret: str | None = None) -> str:
    key = settings.SANDBOX_WEBHOOK_SECRET if secret is None else secret
    return hmac.new(key.encode(), f"{sent_at}.{nonce}.".encode() + body, hashlib.sha256).hexdigest()


def _reference(payment: Payment) -> str:
    return f"sandbox_{payment.id.hex}"


def _refused(detail: str) -> Problem:
    return Problem(400, "webhook_refused", detail)
