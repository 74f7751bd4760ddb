"""What only other services call: batches of groups, and the holds that may be orphans."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.permissions import IsService
from services.inventory import holds, reservations
from services.inventory.api.serializers import (
    BatchSerializer,
    HeldSerializer,
    HoldsQuerySerializer,
    ReservationSerializer,
    hold_from,
)
from services.inventory.api.views import actor_of
from services.inventory.reservations import Outcome


@extend_schema(exclude=True)
class BatchView(APIView):
    """Groups of reserve, commit or release; each group happens as a whole or not at all."""

    permission_classes = (IsService,)

    def post(self, request: Request) -> Response:
        body = BatchSerializer(data=request.data)
        body.is_valid(raise_exception=True)
        actor = actor_of(request)
        return Response({"groups": [_run(group, actor) for group in body.validated_data["groups"]]})


@extend_schema(exclude=True)
class HoldsView(APIView):
    """RESERVED reservations that name an order, oldest first, in pages."""

    permission_classes = (IsService,)

    def get(self, request: Request) -> Response:
        query = HoldsQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        rows, following = holds.with_orders(**query.validated_data)
        return Response({"holds": HeldSerializer(rows, many=True).data, "next": following})


def _run(group: dict[str, Any], actor: str) -> dict[str, Any]:
    entries = group["entries"]
    if group["call"] == "reserve":
        outcomes = reservations.reserve(holds=[hold_from(one) for one in entries], actor=actor)
    else:
        decide = reservations.commit if group["call"] == "commit" else reservations.release
        outcomes = decide(reservation_ids=[one["reservation_id"] for one in entries], actor=actor)
    return {
        "ok": all(outcome.problem is None for outcome in outcomes),
        "entries": [_entry(outcome) for outcome in outcomes],
    }


def _entry(outcome: Outcome) -> dict[str, Any]:
    row, problem = outcome.reservation, outcome.problem
    status = problem.status_code if problem else 201 if outcome.created else 200
    error = {"code": problem.code, "detail": problem.text, **problem.extra} if problem else None
    return {
        "status": status,
        "reservation": ReservationSerializer(row).data if row else None,
        "error": error,
    }
