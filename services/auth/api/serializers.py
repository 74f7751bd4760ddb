"""Shapes of auth's requests and answers."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from django.core.validators import EmailValidator, RegexValidator
from rest_framework import serializers
from rest_framework.fields import get_error_detail

from services.auth.models import (
    EMAIL_LENGTH_MAX,
    USERNAME_HELP,
    USERNAME_PATTERN,
    Role,
    User,
    validate_email_characters,
)
from services.auth.passwords import PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN, require_good

# Ours have 43 characters; an access token, sent by mistake, is to be told so as well.
REFRESH_TOKEN_LENGTH_MAX = 4096


class StringField(serializers.CharField):
    """Takes strings as they are: a number is not taken for its digits, and nothing is trimmed."""

    def __init__(self, **options: Any) -> None:
        super().__init__(trim_whitespace=False, **options)

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


def _password(**options: Any) -> StringField:
    style = {"input_type": "password"}
    return StringField(max_length=PASSWORD_LENGTH_MAX, write_only=True, style=style, **options)


class RegisterSerializer(serializers.Serializer[Any]):
    """What a new user says about themselves; a role is not among it."""

    username = StringField(
        validators=[RegexValidator(USERNAME_PATTERN, USERNAME_HELP)],
        help_text=f"{USERNAME_HELP} Unique in any case.",
    )
    email = StringField(
        max_length=EMAIL_LENGTH_MAX,
        validators=[validate_email_characters, EmailValidator()],
        help_text="Unique in any case.",
    )
    password = _password(min_length=PASSWORD_LENGTH_MIN)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        try:
            require_good(attrs["password"], username=attrs["username"], email=attrs["email"])
        except ValidationError as error:
            raise serializers.ValidationError({"password": get_error_detail(error)}) from error
        return attrs


class LoginSerializer(serializers.Serializer[Any]):
    # Nothing here says which names or passwords there may be.
    username = StringField(max_length=EMAIL_LENGTH_MAX)
    password = _password()


class RefreshSerializer(serializers.Serializer[Any]):
    refresh = StringField(max_length=REFRESH_TOKEN_LENGTH_MAX, write_only=True)


class TokenPairSerializer(serializers.Serializer[Any]):
    access = serializers.CharField(help_text="Send it as `Authorization: Bearer <access>`.")
    refresh = serializers.CharField(help_text="Good for one `POST /api/auth/refresh`.")
    token_type = serializers.CharField()
    expires_in = serializers.IntegerField(help_text="Seconds that the access token lives.")


class UserSerializer(serializers.ModelSerializer[User]):
    role = serializers.ChoiceField(choices=Role.choices, read_only=True)

    class Meta:
        model = User
        fields = ("id", "username", "email", "role")
        read_only_fields = fields


class JwkSerializer(serializers.Serializer[Any]):
    kty = serializers.CharField()
    n = serializers.CharField()
    e = serializers.CharField()
    kid = serializers.CharField()
    use = serializers.CharField()
    alg = serializers.CharField()
    key_ops = serializers.ListField(child=serializers.CharField())


class JwksSerializer(serializers.Serializer[Any]):
    keys = JwkSerializer(many=True)
