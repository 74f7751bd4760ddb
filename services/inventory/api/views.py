"""Inventory's public API: stock for admins, reservations for services and admins."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.generics import GenericAPIView, ListAPIView
from rest_framework.permissions import BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from common.authentication import principal_of
from common.idempotency.keys import HEADER, fingerprint, idempotency_key
from common.idempotency.records import Answer, Execution, run_once
from common.idempotency.responses import respond
from common.ids import uuid7
from common.permissions import IsAdmin, IsServiceOrAdmin
from services.inventory import extending, ledger, reservations, stock
from services.inventory.api.filters import (
    MovementFilter,
    ReservationFilter,
    StockFilter,
    require_known,
)
from services.inventory.api.recognise import hold_of
from services.inventory.api.serializers import (
    AdjustStockSerializer,
    MovementSerializer,
    ReservationDetailSerializer,
    ReservationRowSerializer,
    ReservationSerializer,
    ReserveSerializer,
    SetStockSerializer,
    StockRowSerializer,
    StockSerializer,
    document_of,
    hold_from,
)
from services.inventory.deciding import Decision
from services.inventory.entries import Group, Outcome
from services.inventory.models import Reservation, Stock, StockMovement

KEY_PARAMETER = OpenApiParameter(HEADER, str, OpenApiParameter.HEADER, required=False)


def actor_of(request: Request) -> str:
    """Return who is named in the ledger for what this request does."""
    principal = principal_of(request)
    return f"{principal.role}:{principal.username}"[:64]


@extend_schema(tags=["inventory"])
class StocksView(ListAPIView[Stock]):
    """The stock of all tickets."""

    permission_classes = (IsAdmin,)
    serializer_class = StockRowSerializer
    queryset = Stock.objects.order_by("ticket_id")
    filterset_class = StockFilter

    @extend_schema(operation_id="stock_list", summary="The stock of all tickets [admin]")
    def get(self, request: Request) -> Response:
        require_known(request, StockFilter)
        return self.list(request)


@extend_schema(tags=["inventory"])
class StockView(GenericAPIView):
    """The counters of one ticket. PUT sets the total until the first unit is reserved or sold."""

    serializer_class = SetStockSerializer

    def get_permissions(self) -> list[IsAdmin | IsServiceOrAdmin]:
        return [IsAdmin() if self.request.method == "PUT" else IsServiceOrAdmin()]

    @extend_schema(operation_id="stock_get", responses=StockSerializer)
    def get(self, request: Request, ticket_id: int) -> Response:
        return Response(stock.state_of(ticket_id))

    @extend_schema(
        operation_id="stock_set",
        request=SetStockSerializer,
        responses={200: StockSerializer, 201: StockSerializer},
    )
    def put(self, request: Request, ticket_id: int) -> Response:
        body = self.get_serializer(data=request.data)
        body.is_valid(raise_exception=True)
        state, created = stock.initialise(
            ticket_id=ticket_id, total=body.validated_data["total"], actor=actor_of(request)
        )
        return Response(state, status=201 if created else 200)


@extend_schema(tags=["inventory"])
class AdjustStockView(GenericAPIView):
    """Add units to a ticket's stock, or take free ones away. An Idempotency-Key is honoured."""

    permission_classes = (IsAdmin,)
    serializer_class = AdjustStockSerializer

    @extend_schema(
        operation_id="stock_adjust",
        request=AdjustStockSerializer,
        responses=StockSerializer,
        parameters=[KEY_PARAMETER],
    )
    def post(self, request: Request, ticket_id: int) -> Response:
        body = self.get_serializer(data=request.data)
        body.is_valid(raise_exception=True)
        delta, actor = body.validated_data["delta"], actor_of(request)
        # A key of our own where the caller sends none: a repeated transaction must not count twice.
        key = idempotency_key(request, required=False) or uuid7().hex

        def work(execution: Execution) -> Answer:
            return stock.adjust_once(
                ticket_id=ticket_id, delta=delta, actor=actor, execution=execution
            )

        answer = run_once(
            work,
            user_id=principal_of(request).id,
            operation=f"stock.adjust:{ticket_id}",
            key=key,
            fingerprint=fingerprint("POST", request.path, {"delta": delta}),
        )
        return respond(answer)


@extend_schema(tags=["inventory"])
class MovementsView(ListAPIView[StockMovement]):
    """The ledger of one ticket, oldest first; its counters follow from it.

    An ``initialise`` sets total and available anew, everything else adds to what was before. With
    ``up_to`` (a ``seq``, of which every ticket has only some) the answer has ``counters`` too:
    ``{total, available, reserved, sold}`` as they were after that movement, recomputed.
    """

    permission_classes = (IsAdmin,)
    serializer_class = MovementSerializer
    filterset_class = MovementFilter
    # For the schema, which has no ticket.
    queryset = StockMovement.objects.none()

    def get_queryset(self) -> QuerySet[StockMovement]:
        return ledger.movements_of_ticket(self.kwargs["ticket_id"])

    @extend_schema(operation_id="stock_movements", summary="The ledger of a ticket [admin]")
    def get(self, request: Request, ticket_id: int) -> Response:
        require_known(request, MovementFilter)
        stock.state_of(ticket_id)
        response = self.list(request)
        asked = MovementFilter(request.query_params).form
        if asked.is_valid() and asked.cleaned_data["up_to"] is not None:
            up_to: int = asked.cleaned_data["up_to"]
            response.data["counters"] = ledger.counters(ticket_id, up_to)
        return response


@extend_schema(tags=["inventory"])
class ReservationsView(ListAPIView[Reservation]):
    """Reserve units of one ticket; sending it again answers the same. Admins see them all."""

    queryset = Reservation.objects.order_by("-created_at", "-pk")
    filterset_class = ReservationFilter

    def get_permissions(self) -> list[BasePermission]:
        return [IsAdmin() if self.request.method == "GET" else IsServiceOrAdmin()]

    def get_serializer_class(self) -> type[Serializer[Any]]:
        return ReservationRowSerializer if self.request.method == "GET" else ReserveSerializer

    @extend_schema(
        operation_id="reservation_list",
        summary="All reservations, newest first [admin]",
        description="With filters, in pages.",
        # Written like this, the schema sees that it is a list and adds filters and pages.
        responses={(200, "application/json"): ReservationRowSerializer(many=True)},
    )
    def get(self, request: Request) -> Response:
        require_known(request, ReservationFilter)
        return self.list(request)

    @extend_schema(
        operation_id="reservation_reserve",
        request=ReserveSerializer,
        responses={200: ReservationSerializer, 201: ReservationSerializer},
    )
    def post(self, request: Request) -> Response:
        hold = hold_of(request.data)
        if hold is None:
            body = self.get_serializer(data=request.data)
            body.is_valid(raise_exception=True)
            hold = hold_from(body.validated_data)
        [[outcome]] = reservations.reserve([Group([hold], actor_of(request))])
        return _respond(outcome)


@extend_schema(tags=["inventory"])
class ReservationView(APIView):
    """One reservation with every step of its life."""

    permission_classes = (IsServiceOrAdmin,)

    @extend_schema(operation_id="reservation_get", responses=ReservationDetailSerializer)
    def get(self, request: Request, reservation_id: str) -> Response:
        state = reservations.get(reservation_id)
        transitions = ledger.transitions_of(reservation_id)
        return Response({**document_of(state), "transitions": transitions})


@extend_schema(tags=["inventory"])
class CommitView(APIView):
    """RESERVED → COMMITTED: the units are sold."""

    permission_classes = (IsServiceOrAdmin,)

    @extend_schema(operation_id="reservation_commit", request=None, responses=ReservationSerializer)
    def post(self, request: Request, reservation_id: str) -> Response:
        return _decide("commit", reservation_id, request)


@extend_schema(tags=["inventory"])
class ReleaseView(APIView):
    """RESERVED → RELEASED: the units are available again."""

    permission_classes = (IsServiceOrAdmin,)

    @extend_schema(
        operation_id="reservation_release", request=None, responses=ReservationSerializer
    )
    def post(self, request: Request, reservation_id: str) -> Response:
        return _decide("release", reservation_id, request)


@extend_schema(tags=["inventory"])
class ExtendView(APIView):
    """More time for a hold while its payment is pending, once; asking again changes nothing."""

    permission_classes = (IsServiceOrAdmin,)

    @extend_schema(operation_id="reservation_extend", request=None, responses=ReservationSerializer)
    def post(self, request: Request, reservation_id: str) -> Response:
        return _respond(extending.extend(reservation_id))


def _decide(call: str, reservation_id: str, request: Request) -> Response:
    decision = Decision([reservation_id], actor_of(request))
    [[outcome]] = reservations.decide(call, [decision])
    return _respond(outcome)


def _respond(outcome: Outcome) -> Response:
    if outcome.problem is not None:
        raise outcome.problem
    assert outcome.reservation is not None
    return Response(document_of(outcome.reservation), status=201 if outcome.created else 200)
