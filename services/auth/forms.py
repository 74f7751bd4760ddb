"""The forms of the login and registration pages."""

from __future__ import annotations

from typing import Any

from django import forms
from django.core.exceptions import ValidationError
from django.core.validators import RegexValidator

from services.auth.models import (
    EMAIL_LENGTH_MAX,
    USERNAME_HELP,
    USERNAME_LENGTH_MAX,
    USERNAME_LENGTH_MIN,
    USERNAME_PATTERN,
    validate_email_characters,
)
from services.auth.passwords import PASSWORD_LENGTH_MAX, PASSWORD_LENGTH_MIN, require_good


def _password_field(autocomplete: str, **options: Any) -> forms.CharField:
    widget = forms.PasswordInput(attrs={"autocomplete": autocomplete})
    return forms.CharField(strip=False, max_length=PASSWORD_LENGTH_MAX, widget=widget, **options)


class LoginForm(forms.Form):
    """Who are you? It says nothing about which names or passwords there may be."""

    username = forms.CharField(
        max_length=EMAIL_LENGTH_MAX,
        widget=forms.TextInput(
            attrs={"autocomplete": "username", "autocapitalize": "none", "autofocus": True}
        ),
    )
    password = _password_field("current-password")


class RegistrationForm(forms.Form):
    """A new account. There is no field for a role."""

    username = forms.CharField(
        min_length=USERNAME_LENGTH_MIN,
        max_length=USERNAME_LENGTH_MAX,
        validators=[RegexValidator(USERNAME_PATTERN, USERNAME_HELP)],
        help_text=USERNAME_HELP,
        widget=forms.TextInput(
            attrs={"autocomplete": "username", "autocapitalize": "none", "autofocus": True}
        ),
    )
    email = forms.EmailField(
        label="E-mail address",
        max_length=EMAIL_LENGTH_MAX,
        validators=[validate_email_characters],
        widget=forms.EmailInput(attrs={"autocomplete": "email"}),
    )
    password = _password_field(
        "new-password",
        min_length=PASSWORD_LENGTH_MIN,
        help_text=f"At least {PASSWORD_LENGTH_MIN} characters; the longer, the better.",
    )

    def clean(self) -> dict[str, Any]:
        data: dict[str, Any] = super().clean() or {}
        if "password" in data:
            try:
                require_good(
                    data["password"],
                    username=data.get("username", ""),
                    email=data.get("email", ""),
                )
            except ValidationError as error:
                self.add_error("password", error)
        return data
