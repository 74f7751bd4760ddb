"""What only other services call."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.permissions import IsService
from services.catalog.offers import offer_of


@extend_schema(exclude=True)
class OfferView(APIView):
    """The present offer of a ticket: what ``ticket.changed`` said last, or is about to say."""

    permission_classes = (IsService,)

    def get(self, request: Request, ticket_id: int) -> Response:
        return Response(offer_of(ticket_id))
