"""Stripe: the buyer pays on a page of Stripe's (a Checkout Session) and a webhook tells the shop.

A payment's id is the idempotency key of its session, so that repeating a charge finds the same one.
The shop's amounts are minor units already, which is what Stripe counts in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import stripe
import structlog
from django.conf import settings

from common.errors import Problem, Unavailable
from services.order.models import Payment
from services.order.providers.base import Charge, Notice, Outcome

log = structlog.get_logger(__name__)
T = TypeVar("T")

SIGNATURE_HEADER = "Stripe-Signature"
# An older webhook may be a recorded one; Stripe signs its retries anew.
AGE_SECONDS_MAX = 300
# Together less than a request may take (common.databases has the ladder).
CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS = 1.0, 4.0
# Stripe allows 30 minutes to 24 hours from now; some more, for a call that comes late.
SESSION_AT_LEAST = timedelta(minutes=35)
SESSION_LIFETIME_MAX = timedelta(hours=24)
SESSION_AT_MOST = SESSION_LIFETIME_MAX - timedelta(minutes=5)
ITEM_NAME_LENGTH_MAX = 250

# Nothing is to be paid for a free order.
_PAID = ("paid", "no_payment_required")
_OUTCOMES = {
    "checkout.session.completed": Outcome.CAPTURED,
    "checkout.session.async_payment_succeeded": Outcome.CAPTURED,
    "checkout.session.async_payment_failed": Outcome.DECLINED,
    "checkout.session.expired": Outcome.DECLINED,
}


class StripeProvider:
    """Checkout Sessions of Stripe's, with the account that STRIPE_SECRET_KEY belongs to."""

    name = "stripe"
    methods = ("stripe_checkout",)
    page_lifetime = SESSION_LIFETIME_MAX

    def __init__(self, api_base: str = stripe.DEFAULT_API_BASE) -> None:
        timeout = (CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS)
        self._client = stripe.StripeClient(
            settings.STRIPE_SECRET_KEY,
            # The saga's sweeper repeats; retries happen at one layer only.
            max_network_retries=0,
            http_client=stripe.RequestsClient(timeout=timeout),
            base_addresses={"api": api_base},
        )

    def charge(self, payment: Payment) -> Charge:
        try:
            session = self._session(payment)
        except stripe.InvalidRequestError as error:
            # Asking again would be refused again: an amount or a currency that Stripe cannot take.
            log.error("Stripe refused the payment", payment_id=str(payment.pk), reason=str(error))
            return Charge(Outcome.DECLINED, "")
        return Charge(Outcome.PENDING, session.id, session.url or "")

    def refund(self, payment: Payment) -> None:
        try:
            reference = payment.provider_reference or self._session(payment).id
        except stripe.InvalidRequestError as error:
            # Refused, as its time is over: so the lost call of the charge has never made one.
            log.info("no page was made", payment_id=str(payment.pk), reason=str(error))
            return
        try:
            session = _ask(lambda: self._client.v1.checkout.sessions.retrieve(reference))
            if session.payment_status == "paid":
                self._give_back(payment, str(session.payment_intent))
            elif session.status == "open":
                _ask(lambda: self._client.v1.checkout.sessions.expire(reference))
        except stripe.InvalidRequestError as error:
            if error.code == "charge_already_refunded":
                return
            # Paid a moment ago, perhaps: looking again will tell.
            raise _away() from error

    def close(self, payment: Payment) -> Charge | None:
        reference = payment.provider_reference
        try:
            _ask(lambda: self._client.v1.checkout.sessions.expire(reference))
        except stripe.InvalidRequestError as error:
            # Paid, or over by itself; a webhook would say which, but may never come.
            log.info("page not closed", payment_id=str(payment.pk), reason=str(error))
            return Charge(self._outcome(reference), reference)
        return Charge(Outcome.DECLINED, reference)

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> Notice | None:
        event = _verified(headers.get(SIGNATURE_HEADER, ""), body)
        try:
            outcome = _OUTCOMES.get(event["type"])
            session = event["data"]["object"]
            payment_id = (session.get("metadata") or {}).get("payment_id")
            if outcome is None or payment_id is None:
                # Of another kind, or of something else that this account sells.
                return None
            if outcome is Outcome.CAPTURED and session["payment_status"] not in _PAID:
                outcome = Outcome.PENDING
            return Notice(
                notice_id=str(event["id"])[:255],
                payment_id=UUID(payment_id),
                outcome=outcome,
                amount=session["amount_total"],
                currency=str(session["currency"]).upper(),
                reference=str(session["id"])[:255],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise _refused("The event is not one of a Checkout Session.") from error

    def _session(self, payment: Payment) -> stripe.checkout.Session:
        """Return the payment's session, made if there is none yet."""
        return _ask(
            lambda: self._client.v1.checkout.sessions.create(
                _session_of(payment),  # type: ignore[arg-type]
                {"idempotency_key": str(payment.pk)},
            )
        )

    def _outcome(self, reference: str) -> Outcome:
        """Ask what has become of a session."""
        try:
            session = _ask(lambda: self._client.v1.checkout.sessions.retrieve(reference))
        except stripe.InvalidRequestError as error:
            raise _away() from error
        if session.payment_status in _PAID:
            return Outcome.CAPTURED
        return Outcome.DECLINED if session.status == "expired" else Outcome.PENDING

    def _give_back(self, payment: Payment, payment_intent: str) -> None:
        _ask(
            lambda: self._client.v1.refunds.create(
                {"payment_intent": payment_intent, "metadata": {"payment_id": str(payment.pk)}},
                {"idempotency_key": f"{payment.pk}-refund"},
            )
        )


def _session_of(payment: Payment) -> dict[str, Any]:
    """Return what a session is asked for with: the same for a payment whenever it is asked."""
    order = payment.order
    back = f"{settings.PUBLIC_URL}/orders/{order.pk}"
    metadata = {"payment_id": str(payment.pk), "order_id": str(order.pk)}
    assert order.expires_at is not None, "only what is held can be paid"
    ends_at = min(
        max(order.expires_at, payment.created_at + SESSION_AT_LEAST),
        payment.created_at + SESSION_AT_MOST,
    )
    return {
        "mode": "payment",
        "line_items": [
            {
                "quantity": item.quantity,
                "price_data": {
                    "currency": payment.currency.lower(),
                    "unit_amount": item.unit_price,
                    "product_data": {"name": item.name[:ITEM_NAME_LENGTH_MAX]},
                },
            }
            for item in order.items.order_by("ticket_id")
        ],
        "client_reference_id": str(order.pk),
        "metadata": metadata,
        "payment_intent_data": {"metadata": metadata},
        "expires_at": int(ends_at.timestamp()),
        "success_url": back,
        "cancel_url": back,
    }


def _ask(call: Callable[[], T]) -> T:
    """Call Stripe; only what it refuses for good stays an InvalidRequestError."""
    try:
        return call()
    except stripe.InvalidRequestError:
        raise
    except stripe.StripeError as error:
        log.warning("Stripe did not do it", reason=str(error), kind=type(error).__name__)
        raise _away() from error


def _away() -> Unavailable:
    return Unavailable("provider_unavailable", "The payment provider did not answer; try again.")


def _verified(signature: str, body: bytes) -> Any:
    try:
        event = stripe.Webhook.construct_event(
            body, signature, settings.STRIPE_WEBHOOK_SECRET, AGE_SECONDS_MAX
        )
        return event.to_dict()
    except stripe.SignatureVerificationError as error:
        raise _refused(f"The {SIGNATURE_HEADER} header does not fit or is too old.") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise _refused("The body is not an event of Stripe's.") from error


def _refused(detail: str) -> Problem:
    return Problem(400, "webhook_refused", detail)
