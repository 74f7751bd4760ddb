"""Auth in Django's admin: users, and a look at their logins. Changes go through the domain."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.forms import BaseUserCreationForm
from django.contrib.auth.models import Group
from django.core.exceptions import ValidationError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from unfold.admin import ModelAdmin
from unfold.forms import AdminPasswordChangeForm, UserChangeForm
from unfold.widgets import UnfoldAdminPasswordWidget

from common.errors import Problem
from services.auth import accounts, registration
from services.auth.models import LoginSession, RefreshToken, User

# A role is all that counts here.
admin.site.unregister(Group)


class AddUserForm(BaseUserCreationForm):
    """A new user of either role, with a password."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name in ("password1", "password2"):
            attributes = {"autocomplete": "new-password"}
            self.fields[name].widget = UnfoldAdminPasswordWidget(attrs=attributes)

    def clean_username(self) -> str:
        username: str = self.cleaned_data["username"]
        if registration.username_taken(username):
            raise ValidationError("That username is taken.", code="username_taken")
        return username

    def clean_email(self) -> str:
        email: str = self.cleaned_data["email"]
        if registration.email_taken(email):
            raise ValidationError("There is an account with that address.", code="email_taken")
        return email


class ChangePasswordForm(AdminPasswordChangeForm):
    """Another password; the user's logins end."""

    def __init__(self, user: User, *args: Any, **kwargs: Any) -> None:
        super().__init__(user, *args, **kwargs)
        # Who is to be kept out is deactivated instead.
        self.fields.pop("usable_password", None)
        self.fields["password1"].required = self.fields["password2"].required = True

    def save(self, commit: bool = True) -> User:
        accounts.set_password(user_id=self.user.pk, password=self.cleaned_data["password1"])
        self.user.refresh_from_db()
        user: User = self.user
        return user


@admin.register(User)
class UserAdmin(DjangoUserAdmin, ModelAdmin):
    """Users are added, given a role, deactivated; never deleted, as orders speak of them."""

    form = UserChangeForm
    add_form = AddUserForm
    change_password_form = ChangePasswordForm
    list_display = ("username", "email", "role", "is_active", "created_at", "last_login")
    list_filter = ("role", "is_active")
    search_fields = ("username", "email")
    ordering = ("-created_at",)
    filter_horizontal = ()
    fieldsets = (
        (None, {"fields": ("username", "email", "password")}),
        ("Access", {"fields": ("role", "is_active")}),
        ("Dates", {"fields": ("created_at", "last_login")}),
    )
    add_fieldsets = ((None, {"fields": ("username", "email", "role", "password1", "password2")}),)

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> tuple[str, ...]:
        if obj is None:
            return ()
        fixed = ("username", "email", "created_at", "last_login")
        # Nobody locks themselves out.
        return (*fixed, "role", "is_active") if obj.pk == request.user.pk else fixed

    def has_delete_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        return False

    def save_model(
        self, request: HttpRequest, obj: User, form: forms.ModelForm, change: bool
    ) -> None:
        if not change:
            created = registration.register(
                username=obj.username,
                email=obj.email,
                password=form.cleaned_data["password1"],
                role=obj.role,
            )
            obj.pk = created.pk
            return
        if "role" in form.changed_data:
            accounts.change_role(user_id=obj.pk, role=obj.role)
        if "is_active" in form.changed_data:
            (accounts.activate if obj.is_active else accounts.deactivate)(user_id=obj.pk)

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        # Django has rolled the form's transaction back by the time the refusal arrives here.
        try:
            response: HttpResponse = super().changeform_view(request, *args, **kwargs)
            return response
        except Problem as refusal:
            self.message_user(request, refusal.text, messages.ERROR)
            return HttpResponseRedirect(request.path)


class ReadOnlyAdmin(ModelAdmin):
    """Rows to look at: the service alone writes them."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(LoginSession)
class LoginSessionAdmin(ReadOnlyAdmin):
    list_display = ("user", "created_at", "expires_at", "ended_at", "end_reason")
    list_filter = ("end_reason",)
    list_select_related = ("user",)
    search_fields = ("user__username",)
    date_hierarchy = "created_at"
    # Who knows a login's id can end it.
    exclude = ("id",)


@admin.register(RefreshToken)
class RefreshTokenAdmin(ReadOnlyAdmin):
    list_display = ("id", "owner", "created_at", "expires_at", "used_at")
    list_filter: ClassVar = [("used_at", admin.EmptyFieldListFilter)]
    list_select_related = ("family__user",)
    search_fields = ("family__user__username",)
    fields = ("owner", "family", "created_at", "expires_at", "used_at")

    @admin.display(description="user", ordering="family__user__username")
    def owner(self, token: RefreshToken) -> str:
        return str(token.family.user)
