"""A URLconf of views that fail in every way a view can, with DRF and without."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import PermissionDenied, SuspiciousOperation
from django.db import DataError, IntegrityError, InterfaceError, OperationalError
from django.http import Http404, HttpRequest, HttpResponse
from django.urls import path
from rest_framework import exceptions, serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from common.errors import NotFound, Problem, Unavailable
from common.parsers import StrictJSONParser


class Inner(serializers.Serializer[Any]):
    number = serializers.IntegerField(min_value=1)


class Outer(serializers.Serializer[Any]):
    name = serializers.CharField()
    items = Inner(many=True)


def invalid() -> None:
    Outer(data={"items": [{"number": 1}, {"number": 0}]}).is_valid(raise_exception=True)


def raises(error: Exception) -> Any:
    def fail() -> None:
        raise error

    return fail


SECRET = "password of /var/db at 10.0.0.7"
FAILURES = {
    "problem": raises(Problem(409, "sold_out", "Nothing is left.", ticket_id=5, available=0)),
    "not-found": raises(NotFound("order_not_found", "There is no such order.")),
    "unavailable": raises(Unavailable("inventory_unavailable", "Try again.")),
    "limited": raises(Problem(429, "rate_limited", "Slowly.", retry_after_seconds=7)),
    "unauthenticated": raises(Problem(401, "invalid_credentials", "Who?")),
    "invalid": invalid,
    "drf-not-authenticated": raises(exceptions.NotAuthenticated()),
    "drf-authentication-failed": raises(exceptions.AuthenticationFailed()),
    "drf-permission-denied": raises(exceptions.PermissionDenied()),
    "drf-not-found": raises(exceptions.NotFound()),
    "drf-throttled": raises(exceptions.Throttled(wait=3)),
    "drf-parse-error": raises(exceptions.ParseError()),
    "drf-unsupported": raises(exceptions.UnsupportedMediaType("x/y")),
    "http404": raises(Http404(SECRET)),
    "denied": raises(PermissionDenied(SECRET)),
    "suspicious": raises(SuspiciousOperation(SECRET)),
    "database-away": raises(OperationalError(2006, SECRET)),
    "database-lost": raises(InterfaceError(SECRET)),
    "out-of-range": raises(DataError(1264, SECRET)),
    "forbidden": raises(IntegrityError(4025, SECRET)),
    "duplicate": raises(IntegrityError(1062, SECRET)),
    "crash": raises(RuntimeError(SECRET)),
    "deep": raises(RecursionError(SECRET)),
}


class FailingView(APIView):
    permission_classes = (AllowAny,)
    authentication_classes = ()

    def get(self, request: Request, name: str) -> Response:
        FAILURES[name]()
        return Response({})


class ClosedView(APIView):
    """A view that forgot to say who may call it."""

    def get(self, request: Request) -> Response:
        return Response({})


class EchoView(APIView):
    """Answers with what it was sent, to anybody."""

    permission_classes = (AllowAny,)
    parser_classes = (StrictJSONParser,)

    def get(self, request: Request) -> Response:
        return Response({"user": str(request.user), "role": request.user.role})

    def post(self, request: Request) -> Response:
        return Response({"data": request.data, "role": request.user.role})


def plain(request: HttpRequest, name: str) -> HttpResponse:
    FAILURES[name]()
    return HttpResponse("fine")


urlpatterns = [
    path("api/drf/<str:name>", FailingView.as_view()),
    path("api/plain/<str:name>", plain),
    path("api/closed", ClosedView.as_view()),
    path("api/echo", EchoView.as_view()),
    path("page/<str:name>", plain),
]
