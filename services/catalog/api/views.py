"""Catalog's public API: anybody reads what is published, admins read and change everything."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

from django.http.response import HttpResponseBase
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_view
from rest_framework.generics import GenericAPIView
from rest_framework.permissions import AllowAny, BasePermission
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from common.idempotency.keys import HEADER
from common.openapi import problems
from common.permissions import IsAdmin
from services.catalog import listing, publishing, tickets
from services.catalog.api.filters import EventFilter
from services.catalog.api.once import answer_once
from services.catalog.api.pagination import ListingPages
from services.catalog.api.serializers import (
    AvailabilitySerializer,
    EventInput,
    EventSerializer,
    StrictSerializer,
    TicketInput,
    TicketSerializer,
)
from services.catalog.models import Event

KEY_PARAMETER = OpenApiParameter(HEADER, str, OpenApiParameter.HEADER, required=False)
# Further pages of a list are not asked for by a crowd.
HOT_PAGES_MAX = 10
REFUSED_TO_OTHERS = problems(401, 403)


def is_public(request: Request) -> bool:
    """Tell whether the caller sees what everybody sees, which may come from the cache."""
    return getattr(request.user, "role", None) != "admin"


class CatalogView(APIView):
    """Reads are for anybody, writes for admins. ``input_class`` is the shape of a body."""

    input_class: ClassVar[type[StrictSerializer]]

    def get_permissions(self) -> list[BasePermission]:
        reads = self.request.method in ("GET", "HEAD", "OPTIONS")
        return [AllowAny() if reads else IsAdmin()]

    def finalize_response(
        self, request: Request, response: Response, *args: Any, **kwargs: Any
    ) -> Response:
        response = super().finalize_response(request, response, *args, **kwargs)
        if request.headers.get("Authorization") or request.COOKIES:
            # An admin sees drafts under the same addresses.
            response.headers.setdefault("Cache-Control", "private, no-store")
        return response

    def body(self, request: Request, present: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return what was sent, validated; ``present`` is what a PUT replaces."""
        serializer = self.input_class(
            data=request.data, partial=request.method == "PATCH", context={"present": present}
        )
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def get_serializer(self, **kwargs: Any) -> StrictSerializer:
        # Lets the browsable API offer an example body.
        return self.input_class(instance=kwargs.get("instance"))


@extend_schema(tags=["catalog"])
class EventsView(CatalogView, GenericAPIView[Event]):
    """Published events, with search, filters, ordering and pages. Admins see and make drafts."""

    queryset = Event.objects.all()
    filterset_class = EventFilter
    pagination_class = ListingPages
    input_class = EventInput

    @extend_schema(
        operation_id="event_list",
        # Written like this, the schema sees that it is a list and adds filters and pages.
        responses={
            (200, "application/json"): EventSerializer(many=True),
            **problems(400, 404, 503),
        },
    )
    def get(self, request: Request) -> Response:
        pages, public = ListingPages(), is_public(request)
        asked = EventFilter(
            request.query_params, listing.visible_events(public=public), request=request
        )
        asked.require_valid()
        number, size = pages.asked(request)
        page = listing.events_page(
            asked.qs,
            number=number,
            size=size,
            public=public,
            hot_name=asked.hot_name if number <= HOT_PAGES_MAX else None,
        )
        self._paginator = pages
        return pages.response(request, page, number, size)

    @extend_schema(
        operation_id="event_create",
        request=EventInput,
        responses={201: EventSerializer, **problems(400), **REFUSED_TO_OTHERS},
        parameters=[KEY_PARAMETER],
    )
    def post(self, request: Request) -> Response:
        details = self.body(request)
        return answer_once(
            request,
            201,
            lambda: listing.show_event(publishing.create_event(details), public=False),
        )


@extend_schema(tags=["catalog"])
class EventView(CatalogView):
    """One event with its tickets."""

    input_class = EventInput

    @extend_schema(
        operation_id="event_get",
        responses={200: EventSerializer, **problems(404, 503)},
    )
    def get(self, request: Request, event_id: int) -> Response:
        return Response(listing.show_event(event_id, public=is_public(request)))

    @extend_schema(
        operation_id="event_replace",
        request=EventInput,
        responses={200: EventSerializer, **problems(400, 404), **REFUSED_TO_OTHERS},
    )
    def put(self, request: Request, event_id: int) -> Response:
        return self._revise(request, event_id, listing.show_event(event_id, public=False))

    @extend_schema(
        operation_id="event_update",
        request=EventInput,
        responses={200: EventSerializer, **problems(400, 404), **REFUSED_TO_OTHERS},
    )
    def patch(self, request: Request, event_id: int) -> Response:
        return self._revise(request, event_id, None)

    def _revise(
        self, request: Request, event_id: int, present: Mapping[str, Any] | None
    ) -> Response:
        publishing.revise_event(event_id, self.body(request, present))
        return Response(listing.show_event(event_id, public=False))


class MoveEventView(APIView):
    """DRAFT → PUBLISHED → ENDED, and PUBLISHED → DRAFT; 409 from any other state."""

    permission_classes = (IsAdmin,)
    # One of publishing.TRANSITIONS.
    call = ""

    def post(self, request: Request, event_id: int) -> Response:
        def work() -> Mapping[str, Any]:
            publishing.move_event(event_id, self.call)
            return listing.show_event(event_id, public=False)

        return answer_once(request, 200, work)


@extend_schema(tags=["catalog"])
class EventTicketsView(CatalogView):
    """Make a ticket for an event. It is not on sale until it is put there."""

    input_class = TicketInput
    permission_classes = (IsAdmin,)

    @extend_schema(
        operation_id="ticket_create",
        request=TicketInput,
        responses={201: TicketSerializer, **problems(400, 404, 409), **REFUSED_TO_OTHERS},
        parameters=[KEY_PARAMETER],
    )
    def post(self, request: Request, event_id: int) -> Response:
        details = self.body(request)
        return answer_once(
            request,
            201,
            lambda: listing.show_ticket(tickets.create_ticket(event_id, details), public=False),
        )


@extend_schema(tags=["catalog"])
class TicketView(CatalogView):
    """One ticket."""

    input_class = TicketInput

    @extend_schema(
        operation_id="ticket_get",
        responses={200: TicketSerializer, **problems(404, 503)},
    )
    def get(self, request: Request, ticket_id: int) -> Response:
        return Response(listing.show_ticket(ticket_id, public=is_public(request)))

    @extend_schema(
        operation_id="ticket_replace",
        request=TicketInput,
        responses={200: TicketSerializer, **problems(400, 404), **REFUSED_TO_OTHERS},
    )
    def put(self, request: Request, ticket_id: int) -> Response:
        return self._revise(request, ticket_id, listing.show_ticket(ticket_id, public=False))

    @extend_schema(
        operation_id="ticket_update",
        request=TicketInput,
        responses={200: TicketSerializer, **problems(400, 404), **REFUSED_TO_OTHERS},
    )
    def patch(self, request: Request, ticket_id: int) -> Response:
        return self._revise(request, ticket_id, None)

    def _revise(
        self, request: Request, ticket_id: int, present: Mapping[str, Any] | None
    ) -> Response:
        tickets.revise_ticket(ticket_id, self.body(request, present))
        return Response(listing.show_ticket(ticket_id, public=False))


class MoveTicketView(APIView):
    """OFF_SHELF ↔ ON_SALE; 409 from any other state."""

    permission_classes = (IsAdmin,)
    # One of tickets.TRANSITIONS.
    call = ""

    def post(self, request: Request, ticket_id: int) -> Response:
        def work() -> Mapping[str, Any]:
            tickets.move_ticket(ticket_id, self.call)
            return listing.show_ticket(ticket_id, public=False)

        return answer_once(request, 200, work)


@extend_schema(tags=["catalog"])
class AvailabilityView(CatalogView):
    """How many are left, for pages that ask again and again."""

    @extend_schema(
        operation_id="ticket_availability",
        responses={200: AvailabilitySerializer, **problems(404, 503)},
    )
    def get(self, request: Request, ticket_id: int) -> Response:
        # nginx counts whole seconds and would keep a copy "for 1 s" up to two; this ends with the
        # present second.
        copy_until = {"X-Accel-Expires": f"@{int(time.time())}"}
        state = listing.show_availability(ticket_id, public=is_public(request))
        return Response(state, headers=copy_until)


def event_move(call: str) -> Callable[..., HttpResponseBase]:
    """Return the view that carries out ``call``, a row of publishing.TRANSITIONS."""
    return _move_view(MoveEventView, call, "event", EventSerializer)


def ticket_move(call: str) -> Callable[..., HttpResponseBase]:
    """Return the view that carries out ``call``, a row of tickets.TRANSITIONS."""
    return _move_view(MoveTicketView, call, "ticket", TicketSerializer)


def _move_view(
    base: type[APIView], call: str, thing: str, answer: type[Serializer[Any]]
) -> Callable[..., HttpResponseBase]:
    # A class of its own gives each call its name in the schema and in the browsable API.
    words = call.split("-")
    name = "".join(word.capitalize() for word in (*words, thing, "view"))
    view: type[APIView] = type(name, (base,), {"call": call, "__doc__": base.__doc__})
    described = extend_schema(
        tags=["catalog"],
        operation_id=f"{thing}_{'_'.join(words)}",
        request=None,
        responses={200: answer, **problems(404, 409), **REFUSED_TO_OTHERS},
        parameters=[KEY_PARAMETER],
    )
    return extend_schema_view(post=described)(view).as_view()
