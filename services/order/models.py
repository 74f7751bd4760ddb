"""Order's tables. Who may write them: placing.py inserts orders, saga.py moves them, payments.py
moves payments, notices.py keeps what providers told, late.py gives lines new holds, offers.py
projects the catalog; nobody else."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from django.db import models
from django.db.models import Q

from common.fields import ExactCharField
from services.order.states import LatePayment, OrderStatus, PaymentStatus


class Order(models.Model):
    """One purchase: inserted with its outcome, then moved by saga.py only.

    Everything but ``status``, ``late_payment``, ``extended_until``, ``version``, ``settled_at``,
    ``due_at`` and ``updated_at`` stays as it was inserted, so that a replay of the key can be
    answered from the row for ever. (A stand-in for an interrupted purchase also learns its buyer
    and key, when they show up again.)
    """

    # Derived from (user, key): two requests with one key meet at the primary key.
    id = models.UUIDField(primary_key=True, editable=False)
    # Both empty on the stand-in for a purchase that was interrupted before its order existed.
    user_id = ExactCharField(max_length=64)
    idempotency_key = ExactCharField(max_length=64)
    fingerprint = models.CharField(max_length=64)
    status = models.CharField(max_length=16, choices=OrderStatus.choices)
    total = models.PositiveBigIntegerField()
    currency = models.CharField(max_length=3)
    # When the first of its holds runs out; a refused order has none.
    expires_at = models.DateTimeField(null=True)
    # When instead, after inventory has given more time for a pending payment.
    extended_until = models.DateTimeField(null=True, blank=True)
    version = models.PositiveIntegerField(default=1)
    # What a REJECTED order answered: {status, code, detail, request_id, extra}.
    rejection = models.JSONField(null=True, blank=True)
    # What became of money that came too late; empty as long as none did.
    late_payment = models.CharField(
        max_length=16, choices=LatePayment.choices, blank=True, default="", db_default=""
    )
    # Null until inventory has been brought in line with a final state.
    settled_at = models.DateTimeField(null=True, blank=True)
    # When the sweeper looks after an order that is not settled.
    due_at = models.DateTimeField()
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "order"
        ordering = ("-created_at", "id")
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(status=OrderStatus.REJECTED) | Q(expires_at__isnull=False),
                name="order_held_until",
            )
        ]
        indexes: ClassVar = [
            models.Index(fields=["user_id", "created_at"], name="order_of_user"),
            models.Index(fields=["settled_at", "due_at"], name="order_due"),
            models.Index(fields=["status", "created_at"], name="order_status"),
            models.Index(fields=["created_at"], name="order_created"),
        ]

    def __str__(self) -> str:
        return f"{self.id} {self.status}"

    @property
    def ends_at(self) -> datetime | None:
        """When the time to pay is over."""
        return self.extended_until or self.expires_at


class OrderItem(models.Model):
    """One ticket of an order, at the price of the moment it was ordered, and its hold."""

    # Derived from (user, key, ticket), so that repeating a reserve meets the first one; another one
    # (late.py) once the units had to be held again for money that came late.
    reservation_id = ExactCharField(max_length=64, primary_key=True)
    order = models.ForeignKey(Order, models.PROTECT, related_name="items")
    ticket_id = models.PositiveBigIntegerField()
    quantity = models.PositiveIntegerField()
    unit_price = models.PositiveBigIntegerField()
    name = models.CharField(max_length=512)

    class Meta:
        db_table = "order_item"
        ordering = ("ticket_id",)
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["order", "ticket_id"], name="order_item_once"),
            models.CheckConstraint(condition=Q(quantity__gte=1), name="order_item_of_something"),
        ]

    def __str__(self) -> str:
        return f"{self.quantity} x {self.name}"


class Payment(models.Model):
    """One attempt to pay an order. Its id is what the provider knows it by."""

    # Derived from (user, order, key): the provider is asked about one payment, however often.
    id = models.UUIDField(primary_key=True, editable=False)
    order = models.ForeignKey(Order, models.PROTECT, related_name="payments")
    provider = models.CharField(max_length=32)
    method = models.CharField(max_length=32)
    amount = models.PositiveBigIntegerField()
    currency = models.CharField(max_length=3)
    status = models.CharField(
        max_length=16, choices=PaymentStatus.choices, default=PaymentStatus.CREATED
    )
    # The provider's own name for it; empty until the provider has answered.
    provider_reference = ExactCharField(max_length=255, blank=True, default="")
    # Where the buyer goes on with a payment that is still pending.
    page = models.CharField(max_length=2048, blank=True, default="", db_default="")
    # When the sweeper looks after it; null when there is nothing to do.
    due_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()

    class Meta:
        db_table = "payment"
        ordering = ("created_at", "id")
        indexes: ClassVar = [models.Index(fields=["due_at"], name="payment_due")]

    def __str__(self) -> str:
        return f"{self.id} {self.status}"


class WebhookNotice(models.Model):
    """What a provider told by webhook, under its own id for it: booked once, whenever it comes.

    The payment is no foreign key, as a notice may come before it.
    """

    provider = models.CharField(max_length=32)
    notice_id = ExactCharField(max_length=255)
    payment_id = models.UUIDField()
    outcome = models.CharField(max_length=16)
    amount = models.PositiveBigIntegerField()
    currency = models.CharField(max_length=3)
    reference = ExactCharField(max_length=255, blank=True)
    received_at = models.DateTimeField()
    # Null while no payment here fits the notice.
    booked_at = models.DateTimeField(null=True, blank=True)
    # Why it was dealt with without booking anything.
    refusal = models.CharField(max_length=32, blank=True, default="")

    class Meta:
        db_table = "webhook_notice"
        ordering = ("received_at", "id")
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["provider", "notice_id"], name="webhook_notice_once")
        ]
        indexes: ClassVar = [
            models.Index(fields=["booked_at", "received_at"], name="webhook_notice_booked"),
            models.Index(fields=["payment_id"], name="webhook_notice_payment"),
        ]

    def __str__(self) -> str:
        return f"{self.provider} {self.notice_id} {self.outcome}"


class TicketOffer(models.Model):
    """What the catalog says of a ticket: a projection, in which a newer version always wins."""

    ticket_id = models.PositiveBigIntegerField(primary_key=True)
    version = models.PositiveBigIntegerField()
    event_id = models.PositiveBigIntegerField()
    event_title = models.CharField(max_length=255)
    event_status = models.CharField(max_length=16)
    event_starts_at = models.DateTimeField(null=True, blank=True)
    event_ends_at = models.DateTimeField(null=True, blank=True)
    name = models.CharField(max_length=255)
    price = models.PositiveBigIntegerField()
    currency = models.CharField(max_length=3)
    per_order_limit = models.PositiveIntegerField(null=True, blank=True)
    per_user_limit = models.PositiveIntegerField(null=True, blank=True)
    sale_starts_at = models.DateTimeField(null=True, blank=True)
    sale_ends_at = models.DateTimeField(null=True, blank=True)
    status = models.CharField(max_length=16)

    class Meta:
        db_table = "ticket_offer"
        ordering = ("ticket_id",)

    def __str__(self) -> str:
        return f"{self.event_title} · {self.name}"

    def is_open(self, now: datetime) -> bool:
        """Tell whether the ticket may be bought at this moment."""
        return (
            self.status == "ON_SALE"
            and self.event_status == "PUBLISHED"
            and (self.sale_starts_at is None or self.sale_starts_at <= now)
            and (self.sale_ends_at is None or now < self.sale_ends_at)
        )
