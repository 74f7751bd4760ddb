"""Auth's public API: JSON in, tokens out."""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.utils import extend_schema
from rest_framework.exceptions import AuthenticationFailed
from rest_framework.permissions import AllowAny
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.serializers import Serializer
from rest_framework.views import APIView

from common.keyring import jwk
from common.openapi import problems
from common.permissions import IsUser
from common.tokens import USER_ISSUER, Principal, key_ring
from services.auth import accounts, registration, sessions
from services.auth.api.serializers import (
    JwksSerializer,
    LoginSerializer,
    RefreshSerializer,
    RegisterSerializer,
    TokenPairSerializer,
    UserSerializer,
)
from services.auth.throttling import LoginAttempt

JWKS_CACHE_SECONDS = 300


class _Open(APIView):
    """Open to anyone: the body says who is calling.

    No header or cookie is read, so that a stale one cannot keep a client from renewing it.
    """

    authentication_classes = ()
    permission_classes = (AllowAny,)
    body_class: type[Serializer[Any]]

    def get_serializer(self) -> Serializer[Any]:
        # Lets the browsable API offer an example body.
        return self.body_class()

    def body(self, request: Request) -> dict[str, Any]:
        """Return the validated body."""
        serializer = self.body_class(data=request.data)
        serializer.is_valid(raise_exception=True)
        return dict(serializer.validated_data)

    def finalize_response(
        self, request: Request, response: Any, *args: Any, **kwargs: Any
    ) -> Response:
        final: Response = super().finalize_response(request, response, *args, **kwargs)
        final["Cache-Control"] = "no-store"
        return final


@extend_schema(tags=["auth"], auth=[])
class RegisterView(_Open):
    """A new account. Its role is `user`; only an admin can change that."""

    body_class = RegisterSerializer

    @extend_schema(
        operation_id="auth_register",
        request=RegisterSerializer,
        responses={201: UserSerializer, **problems(400, 409, 429, 503)},
    )
    def post(self, request: Request) -> Response:
        user = registration.register(**self.body(request))
        return Response(UserSerializer(user).data, status=201)


@extend_schema(tags=["auth"], auth=[])
class LoginView(_Open):
    """Username and password for an access token and a refresh token."""

    body_class = LoginSerializer

    @extend_schema(
        operation_id="auth_login",
        request=LoginSerializer,
        responses={200: TokenPairSerializer, **problems(400, 401, 429, 503)},
    )
    def post(self, request: Request) -> Response:
        body = self.body(request)
        pair = sessions.log_in(**body, attempt=LoginAttempt(request, body["username"]))
        return Response(TokenPairSerializer(pair).data)


@extend_schema(tags=["auth"], auth=[])
class RefreshView(_Open):
    """A refresh token for a new pair. It is spent then: using it again ends the whole login."""

    body_class = RefreshSerializer

    @extend_schema(
        operation_id="auth_refresh",
        request=RefreshSerializer,
        responses={200: TokenPairSerializer, **problems(400, 401, 429, 503)},
    )
    def post(self, request: Request) -> Response:
        pair = sessions.refresh(token=self.body(request)["refresh"])
        return Response(TokenPairSerializer(pair).data)


@extend_schema(tags=["auth"], auth=[])
class LogoutView(_Open):
    """The end of the login that a refresh token belongs to; repeating it does no harm."""

    body_class = RefreshSerializer

    @extend_schema(
        operation_id="auth_logout",
        request=RefreshSerializer,
        responses={204: None, **problems(400, 429, 503)},
    )
    def post(self, request: Request) -> Response:
        sessions.log_out(token=self.body(request)["refresh"])
        return Response(status=204)


@extend_schema(tags=["auth"])
class MeView(APIView):
    """Who I am, as the service knows me now."""

    permission_classes = (IsUser,)

    @extend_schema(
        operation_id="auth_me",
        responses={200: UserSerializer, **problems(401, 403, 429, 503)},
    )
    def get(self, request: Request) -> Response:
        user = accounts.find_active(cast(Principal, request.user))
        if user is None:
            raise AuthenticationFailed("The account is not active any more.")
        return Response(UserSerializer(user).data, headers={"Cache-Control": "no-store"})


@extend_schema(tags=["auth"], auth=[])
class JwksView(APIView):
    """The public keys that verify access tokens (RFC 7517), old ones included."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    renderer_classes = (JSONRenderer,)

    @extend_schema(operation_id="auth_jwks", responses={200: JwksSerializer})
    def get(self, request: Request) -> Response:
        keys = [jwk(public.key, public.kid) for public in key_ring().public_keys(USER_ISSUER)]
        headers = {"Cache-Control": f"public, max-age={JWKS_CACHE_SECONDS}"}
        return Response({"keys": keys}, headers=headers)
