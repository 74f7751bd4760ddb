"""Payments over HTTP: what their owner sees, and where providers deliver their webhooks."""

from __future__ import annotations

from dataclasses import asdict
from uuid import UUID

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import GenericAPIView
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.authentication import principal_of
from common.permissions import IsUser
from services.order import orders
from services.order.api.serializers import (
    PaymentSerializer,
    SettledPaymentSerializer,
    SettleSerializer,
)
from services.order.api.views import refusals
from services.order.documents import payment_document
from services.order.models import Payment
from services.order.providers import sandbox, sandbox_page
from services.order.providers.base import Outcome
from services.order.webhooks import receive


class PaymentView(GenericAPIView[Payment]):
    """One of your payments."""

    permission_classes = (IsUser,)

    @extend_schema(
        tags=["orders"],
        operation_id="payments_get",
        responses={200: PaymentSerializer, **refusals(_404="payment_not_found")},
    )
    def get(self, request: Request, payment_id: UUID) -> Response:
        return Response(payment_document(orders.own_payment(principal_of(request), payment_id)))


class SandboxSettleView(GenericAPIView[Payment]):
    """Play the sandbox provider: decide a payment's fate; the shop hears of it by webhook.

    ``deliveries`` says what the shop answered to each webhook. ``play``: ``once`` (default);
    ``twice``, the same news in two webhooks; ``later``, in a few seconds; ``wrong_amount`` and
    ``forged``, which the shop refuses.
    """

    permission_classes = (IsUser,)
    serializer_class = SettleSerializer

    @extend_schema(
        tags=["orders"],
        operation_id="payments_sandbox_settle",
        responses={
            200: SettledPaymentSerializer,
            **refusals(
                _400="validation_error",
                _404="payment_not_found",
                _409="payment_already_settled",
                _503="webhook_not_delivered",
            ),
        },
    )
    def post(self, request: Request, payment_id: UUID) -> Response:
        body = self.get_serializer(data=request.data)
        body.is_valid(raise_exception=True)
        payment = orders.own_payment(
            principal_of(request), payment_id, provider=sandbox.SandboxProvider.name
        )
        outcome, play = (body.validated_data[name] for name in ("outcome", "play"))
        deliveries = sandbox_page.settle(payment, Outcome(outcome), sandbox_page.Play(play))
        payment.refresh_from_db()
        told = [asdict(delivery) for delivery in deliveries]
        return Response(payment_document(payment) | {"deliveries": told})


class WebhookView(APIView):
    """Where a payment provider reports; its signature is its login."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        tags=["orders"],
        operation_id="payments_webhook",
        auth=[],
        parameters=[
            # The SDK that knows Stripe's need not be installed.
            OpenApiParameter(header, str, OpenApiParameter.HEADER)
            for header in (sandbox.SIGNATURE_HEADER, "Stripe-Signature")
        ],
        request=OpenApiTypes.OBJECT,
        responses={
            200: OpenApiTypes.OBJECT,
            **refusals(
                _400="webhook_refused, amount_mismatch",
                _404="provider_not_found",
                _503="inventory_unavailable",
            ),
        },
    )
    def post(self, request: Request, provider: str) -> Response:
        # The signature is over the bytes as they came, so nothing may parse them first.
        receive(provider_name=provider, headers=request.headers, body=request.body)
        return Response({"received": True})
