"""What only other services call: batches of groups, and the holds that may be orphans."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from operator import attrgetter
from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.permissions import IsService
from services.inventory import extending, holds, reservations
from services.inventory.api.recognise import calls_of
from services.inventory.api.serializers import (
    BatchSerializer,
    Call,
    HeldSerializer,
    HoldsQuerySerializer,
    answer_of,
    calls_from,
)
from services.inventory.api.views import actor_of
from services.inventory.deciding import Decision
from services.inventory.entries import Group, Outcome


@extend_schema(exclude=True)
class BatchView(APIView):
    """Groups of reserve, commit or release, each of which happens as a whole or not at all; and of
    extend, where each entry stands for itself."""

    permission_classes = (IsService,)

    def post(self, request: Request) -> Response:
        calls = calls_of(request.data)
        if calls is None:
            body = BatchSerializer(data=request.data)
            body.is_valid(raise_exception=True)
            calls = calls_from(body.validated_data)
        actor = actor_of(request)
        # In the order of the body; what stands side by side shares its transactions.
        outcomes = [
            group
            for name, neighbours in groupby(calls, key=attrgetter("name"))
            for group in _perform(name, list(neighbours), actor)
        ]
        problems = [outcome.problem for group in outcomes for outcome in group]
        if problems[0] and all(one and one.status_code == 503 for one in problems):
            raise problems[0]
        return Response({"groups": [_answer(group) for group in outcomes]})


@extend_schema(exclude=True)
class HoldsView(APIView):
    """RESERVED reservations that name an order, oldest first, in pages."""

    permission_classes = (IsService,)

    def get(self, request: Request) -> Response:
        query = HoldsQuerySerializer(data=request.query_params)
        query.is_valid(raise_exception=True)
        rows, following = holds.with_orders(**query.validated_data)
        return Response({"holds": HeldSerializer(rows, many=True).data, "next": following})


def _perform(name: str, calls: Sequence[Call], actor: str) -> list[list[Outcome]]:
    if name == "reserve":
        return reservations.reserve([Group(call.entries, actor) for call in calls])
    if name == "extend":
        return [[extending.extend(one) for one in call.entries] for call in calls]
    return reservations.decide(name, [Decision(call.entries, actor) for call in calls])


def _answer(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "ok": all(outcome.problem is None for outcome in outcomes),
        "entries": [answer_of(outcome) for outcome in outcomes],
    }
