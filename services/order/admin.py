"""Orders in the Django admin: everything can be looked at and found, nothing edited."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Group, User
from django.http import HttpRequest
from unfold.admin import ModelAdmin, TabularInline
from unfold.decorators import display

from services.order.models import Order, OrderItem, Payment, TicketOffer, WebhookNotice
from services.order.states import OrderStatus, PaymentStatus

# The shadow users of common.admin_login are not for people to edit: auth owns who may do what.
admin.site.unregister(User)
admin.site.unregister(Group)

_ORDER_COLOURS = {
    OrderStatus.AWAITING_PAYMENT: "info",
    OrderStatus.PAID: "warning",
    OrderStatus.CONFIRMED: "success",
    OrderStatus.REJECTED: "danger",
}
_PAYMENT_COLOURS = {
    PaymentStatus.CREATED: "info",
    PaymentStatus.CAPTURED: "success",
    PaymentStatus.DECLINED: "danger",
    PaymentStatus.REFUND_DUE: "warning",
}


def money(amount: int, currency: str) -> str:
    """Return an amount as it is kept: the decimals of a currency are the provider's affair."""
    return f"{amount:,} {currency}"


class _ReadOnly:
    """For what only the domain modules write."""

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


class ItemInline(_ReadOnly, TabularInline):
    model = OrderItem
    fields = ("ticket_id", "name", "quantity", "unit_price", "reservation_id")


class PaymentInline(_ReadOnly, TabularInline):
    model = Payment
    fields = ("id", "provider", "method", "amount", "currency", "status", "created_at")
    readonly_fields = fields


@admin.register(Order)
class OrderAdmin(_ReadOnly, ModelAdmin):
    list_display = (
        "id",
        "user_id",
        "shown_status",
        "late_payment",
        "shown_total",
        "settled",
        "created_at",
    )
    list_filter = ("status", "late_payment", "currency")
    search_fields = ("id__startswith", "user_id__exact", "items__ticket_id__exact")
    date_hierarchy = "created_at"
    inlines = (ItemInline, PaymentInline)
    show_full_result_count = False

    @display(description="status", ordering="status", label=_ORDER_COLOURS)  # type: ignore[untyped-decorator]
    def shown_status(self, order: Order) -> str:
        return order.status

    @display(description="total (minor units)", ordering="total")  # type: ignore[untyped-decorator]
    def shown_total(self, order: Order) -> str:
        return money(order.total, order.currency)

    @display(description="settled", boolean=True)  # type: ignore[untyped-decorator]
    def settled(self, order: Order) -> bool:
        return order.settled_at is not None


@admin.register(Payment)
class PaymentAdmin(_ReadOnly, ModelAdmin):
    list_display = ("id", "order", "method", "shown_amount", "shown_status", "created_at")
    list_filter = ("status", "provider", "method")
    search_fields = ("id__startswith", "order__id__startswith", "provider_reference__exact")
    date_hierarchy = "created_at"
    show_full_result_count = False

    @display(description="amount (minor units)", ordering="amount")  # type: ignore[untyped-decorator]
    def shown_amount(self, payment: Payment) -> str:
        return money(payment.amount, payment.currency)

    @display(description="status", ordering="status", label=_PAYMENT_COLOURS)  # type: ignore[untyped-decorator]
    def shown_status(self, payment: Payment) -> str:
        return payment.status


@admin.register(WebhookNotice)
class WebhookNoticeAdmin(_ReadOnly, ModelAdmin):
    list_display = (
        "notice_id",
        "provider",
        "outcome",
        "shown_amount",
        "payment_id",
        "booked",
        "refusal",
        "received_at",
    )
    list_filter = ("provider", "outcome", ("booked_at", admin.EmptyFieldListFilter))
    search_fields = ("notice_id__exact", "payment_id__startswith", "reference__exact")
    date_hierarchy = "received_at"
    show_full_result_count = False

    @display(description="amount (minor units)", ordering="amount")  # type: ignore[untyped-decorator]
    def shown_amount(self, notice: WebhookNotice) -> str:
        return money(notice.amount, notice.currency)

    @display(description="booked", boolean=True)  # type: ignore[untyped-decorator]
    def booked(self, notice: WebhookNotice) -> bool:
        return notice.booked_at is not None


@admin.register(TicketOffer)
class TicketOfferAdmin(_ReadOnly, ModelAdmin):
    list_display = ("ticket_id", "event_title", "name", "price", "currency", "status", "version")
    list_filter = ("status", "event_status")
    search_fields = ("event_title", "name")
