"""Orders over HTTP: read the request, call the domain, answer."""

from __future__ import annotations

from uuid import UUID

from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework.generics import GenericAPIView
from rest_framework.request import Request
from rest_framework.response import Response

from common.authentication import principal_of
from common.errors import CONTENT_TYPE
from common.idempotency.keys import HEADER, fingerprint, idempotency_key
from common.idempotency.responses import replay_headers, respond
from common.openapi import ProblemSerializer
from common.permissions import IsUser
from services.order import orders
from services.order.api.recognise import purchase_body
from services.order.api.serializers import (
    EmptySerializer,
    OrderSerializer,
    PaidOrderSerializer,
    PaySerializer,
    PlacedOrderSerializer,
    PlaceOrderSerializer,
)
from services.order.cancelling import cancel_order, cancel_order_once
from services.order.documents import order_document, placed_order
from services.order.models import Order
from services.order.paying import pay_order
from services.order.placing import place_order
from services.order.providers.registry import methods
from services.order.purchases import purchase_of
from services.order.refusals import rejection_problem


def key_parameter(*, required: bool) -> OpenApiParameter:
    """Return the documentation of the Idempotency-Key header."""
    return OpenApiParameter(
        HEADER,
        str,
        OpenApiParameter.HEADER,
        required=required,
        description="1 to 64 of A-Z a-z 0-9 _ -; new for each intent, the same for its retries",
    )


def refusals(**codes: str) -> dict[tuple[int, str], OpenApiResponse]:
    """Return the documentation of problems: ``refusals(_409="sold_out")``."""
    return {
        (int(status.strip("_")), CONTENT_TYPE): OpenApiResponse(ProblemSerializer, f"`{names}`")
        for status, names in codes.items()
    }


class OrdersView(GenericAPIView[Order]):
    """Your orders, newest first. POST buys: all items or none, once per Idempotency-Key."""

    permission_classes = (IsUser,)
    serializer_class = PlaceOrderSerializer
    filterset_fields = ("status",)
    queryset = Order.objects.none()

    @extend_schema(
        tags=["orders"], operation_id="orders_list", responses=OrderSerializer(many=True)
    )
    def get(self, request: Request) -> Response:
        page = self.paginate_queryset(
            self.filter_queryset(orders.visible_to(principal_of(request)))
        )
        return self.get_paginated_response([order_document(order) for order in page or ()])

    @extend_schema(
        tags=["orders"],
        operation_id="orders_place",
        parameters=[key_parameter(required=True)],
        responses={
            201: PlacedOrderSerializer,
            **refusals(
                _400="validation_error, idempotency_key_required, idempotency_key_invalid",
                _404="ticket_not_found",
                _409="sold_out, limit_exceeded, sale_not_open, mixed_currencies, order_interrupted",
                _422="idempotency_key_reused",
                _503="inventory_unavailable, catalog_unavailable",
            ),
        },
    )
    def post(self, request: Request) -> Response:
        key = idempotency_key(request, required=True)
        assert key is not None
        body = purchase_body(request.data)
        if body is None:
            serializer = self.get_serializer(data=request.data)
            serializer.is_valid(raise_exception=True)
            body = serializer.validated_data
        placed = place_order(
            purchase_of(
                user_id=principal_of(request).id,
                key=key,
                fingerprint=fingerprint("POST", request.path, body),
                lines=body["items"],
            )
        )
        headers = replay_headers(placed.replayed)
        refused = rejection_problem(placed)
        if refused is not None:
            refused.headers = headers
            raise refused
        return Response(placed_order(placed.order, placed.items), status=201, headers=headers)


class OrderView(GenericAPIView[Order]):
    """One order, with its payments."""

    permission_classes = (IsUser,)

    @extend_schema(
        tags=["orders"],
        operation_id="orders_get",
        responses={200: OrderSerializer, **refusals(_404="order_not_found")},
    )
    def get(self, request: Request, order_id: UUID) -> Response:
        return Response(order_document(orders.visible_order(principal_of(request), order_id)))


class PayView(GenericAPIView[Order]):
    """Pay an order. Paying again with the same key answers the same and takes nothing."""

    permission_classes = (IsUser,)
    serializer_class = PaySerializer

    @extend_schema(
        tags=["orders"],
        operation_id="orders_pay",
        parameters=[key_parameter(required=True)],
        responses={
            200: PaidOrderSerializer,
            **refusals(
                _400="validation_error, idempotency_key_required, idempotency_key_invalid",
                _404="order_not_found",
                _409="order_already_paid, order_expired, order_not_payable, request_in_progress",
                _422="idempotency_key_reused",
            ),
        },
    )
    def post(self, request: Request, order_id: UUID) -> Response:
        key = idempotency_key(request, required=True)
        assert key is not None
        body = self.get_serializer(data=request.data)
        body.is_valid(raise_exception=True)
        principal = principal_of(request)
        return respond(
            pay_order(
                order=orders.own_order(principal, order_id),
                user_id=principal.id,
                method=body.validated_data.get("method") or next(iter(methods())),
                key=key,
                fingerprint=fingerprint("POST", request.path, body.validated_data),
            )
        )


class CancelView(GenericAPIView[Order]):
    """Cancel an order that is not paid; its units go back on sale."""

    permission_classes = (IsUser,)
    serializer_class = EmptySerializer

    @extend_schema(
        tags=["orders"],
        operation_id="orders_cancel",
        parameters=[key_parameter(required=False)],
        request=None,
        responses={
            200: OrderSerializer,
            **refusals(_404="order_not_found", _409="order_not_cancellable"),
        },
    )
    def post(self, request: Request, order_id: UUID) -> Response:
        key = idempotency_key(request, required=False)
        self.get_serializer(data=request.data).is_valid(raise_exception=True)
        principal = principal_of(request)
        order = orders.own_order(principal, order_id)
        if key is None:
            return Response(cancel_order(order))
        return respond(
            cancel_order_once(
                order=order,
                user_id=principal.id,
                key=key,
                fingerprint=fingerprint("POST", request.path, {}),
            )
        )
