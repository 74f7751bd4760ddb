"""Inventory in the Django admin: a person sets stock here, and reads everything else.

Every form goes through stock.py, which is the only module that changes a counter; the ledger and
the reservations can be looked at, never edited or deleted.
"""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget

from common.errors import Problem
from services.inventory import stock
from services.inventory.models import (
    STOCK_MAX,
    Reservation,
    Stock,
    StockMovement,
    TicketLabel,
)

# The shadow users of common.admin_login are not for people to edit: auth owns who may do what.
admin.site.unregister(User)
admin.site.unregister(Group)


def label_of(ticket_id: int) -> str:
    """Return the catalog's name of a ticket, or its number when no name has arrived yet."""
    label = TicketLabel.objects.filter(ticket_id=ticket_id).first()
    return str(label) if label else f"Ticket #{ticket_id}"


def link_to(model: str, text: str, **condition: str | int) -> str:
    """Return a link to the list of a model's rows that meet the condition."""
    url = reverse(f"admin:inventory_{model}_changelist")
    return format_html(
        '<a class="text-primary-600 underline" href="{}?{}">{}</a>', url, urlencode(condition), text
    )


class ReadOnlyAdmin(ModelAdmin):
    """For what only the domain modules write, which may be millions of rows."""

    show_full_result_count = False

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class SetStockForm(forms.ModelForm):
    """Pick a ticket, type a number."""

    ticket = forms.ModelChoiceField(
        queryset=TicketLabel.objects.none(),
        widget=UnfoldAdminSelectWidget,
        help_text="Tickets of the catalog that have no stock yet.",
    )
    total = forms.IntegerField(
        min_value=0, max_value=STOCK_MAX, widget=UnfoldAdminIntegerFieldWidget
    )

    class Meta:
        model = Stock
        fields: tuple[str, ...] = ()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        stocked = Stock.objects.values("ticket_id")
        field = self.fields["ticket"]
        assert isinstance(field, forms.ModelChoiceField)
        field.queryset = TicketLabel.objects.exclude(ticket_id__in=stocked)

    def _post_clean(self) -> None:
        """Leave the model's row, and what it says of an incomplete one, to stock.py."""


class AdjustStockForm(forms.ModelForm):
    """Add units, or take free ones away."""

    delta = forms.IntegerField(
        label="Add or remove units",
        required=False,
        min_value=-STOCK_MAX,
        max_value=STOCK_MAX,
        widget=UnfoldAdminIntegerFieldWidget,
        help_text="For example 50, or -20 to take back units that are still available.",
    )

    class Meta:
        model = Stock
        fields: tuple[str, ...] = ()


class SoldOut(admin.SimpleListFilter):
    title = "availability"
    parameter_name = "availability"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("left", "Units left"), ("sold_out", "Sold out")]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Stock]) -> QuerySet[Stock]:
        if self.value() == "sold_out":
            return queryset.filter(available=0)
        return queryset.filter(available__gt=0) if self.value() == "left" else queryset


@admin.register(Stock)
class StockAdmin(ModelAdmin):
    list_display = ("ticket", "total", "available", "reserved", "sold", "updated_at", "movements")
    readonly_fields = (
        *("ticket", "total", "available", "reserved", "sold", "version", "updated_at"),
        *("movements", "reservations"),
    )
    list_filter = (SoldOut,)
    search_fields = ("ticket_id",)

    @admin.display(description="ticket", ordering="ticket_id")
    def ticket(self, obj: Stock) -> str:
        return label_of(obj.ticket_id)

    @admin.display(description="ledger")
    def movements(self, obj: Stock) -> str:
        """Link to the ticket's lines in the ledger."""
        return link_to("stockmovement", "movements", ticket_id=obj.ticket_id)

    @admin.display(description="reservations")
    def reservations(self, obj: Stock) -> str:
        """Link to the ticket's reservations."""
        return link_to("reservation", "reservations", ticket_id=obj.ticket_id)

    def get_form(
        self, request: HttpRequest, obj: Stock | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        return AdjustStockForm if obj else SetStockForm

    def get_fields(self, request: HttpRequest, obj: Stock | None = None) -> Any:
        return (*self.readonly_fields, "delta") if obj else ("ticket", "total")

    def get_readonly_fields(self, request: HttpRequest, obj: Stock | None = None) -> Any:
        return self.readonly_fields if obj else ()

    def save_model(self, request: HttpRequest, obj: Stock, form: Any, change: bool) -> None:
        actor = f"admin:{request.user.get_username()}"
        if change:
            delta = form.cleaned_data["delta"]
            if delta:
                stock.adjust(ticket_id=obj.ticket_id, delta=delta, actor=actor)
        else:
            obj.ticket_id = form.cleaned_data["ticket"].ticket_id
            stock.initialise(ticket_id=obj.ticket_id, total=form.cleaned_data["total"], actor=actor)
        # What the admin says of the row afterwards shall be what it has become.
        obj.refresh_from_db()

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        # Django has rolled the form's transaction back by the time the refusal arrives here.
        try:
            return super().changeform_view(request, *args, **kwargs)
        except Problem as problem:
            self.message_user(request, problem.text, messages.ERROR)
            return HttpResponseRedirect(request.path)

    def has_delete_permission(self, request: HttpRequest, obj: Stock | None = None) -> bool:
        return False


@admin.register(Reservation)
class ReservationAdmin(ReadOnlyAdmin):
    list_display = (
        *("reservation_id", "ticket_id", "quantity", "buyer_id", "status", "reason", "expires_at"),
        "steps",
    )
    list_filter = ("status",)
    search_fields = ("=reservation_id", "=buyer_id")
    search_help_text = "A reservation's or a buyer's id; a ticket's are linked from its stock."
    ordering = ("-created_at", "-pk")

    @admin.display(description="ledger")
    def steps(self, obj: Reservation) -> str:
        """Link to the steps of this reservation in the ledger."""
        return link_to("stockmovement", "steps", reservation_id=obj.pk)


@admin.register(StockMovement)
class StockMovementAdmin(ReadOnlyAdmin):
    list_display = ("seq", "ticket_id", "kind", "quantity", "reservation_id", "actor", "at")
    list_filter = ("kind",)
    search_fields = ("=reservation_id",)
    ordering = ("-seq",)
