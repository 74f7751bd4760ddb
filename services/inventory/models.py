"""Inventory's tables. Who may write them: stock.py counters, limits.py buyer holds,
reservations.py reservations, ledger.py movements, labels.py labels; nobody else."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.db.models import F, Q

from common.fields import ExactCharField
from services.inventory.states import Status

STOCK_MAX = 10**9


class Stock(models.Model):
    """The counters of one ticket. ``total = available + reserved + sold`` at every moment."""

    ticket_id = models.PositiveBigIntegerField(primary_key=True)
    total = models.PositiveBigIntegerField()
    available = models.PositiveBigIntegerField()
    reserved = models.PositiveBigIntegerField(default=0)
    sold = models.PositiveBigIntegerField(default=0)
    version = models.PositiveBigIntegerField(default=1)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "stock"
        verbose_name_plural = "stock"
        ordering = ("ticket_id",)
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(available__gte=0, reserved__gte=0, sold__gte=0),
                name="stock_not_negative",
            ),
            models.CheckConstraint(
                condition=Q(total=F("available") + F("reserved") + F("sold")),
                name="stock_conserved",
            ),
        ]

    def __str__(self) -> str:
        return f"ticket {self.ticket_id}: {self.available} of {self.total} available"


class Reservation(models.Model):
    """A buyer's claim on some units of one ticket, and how it ended (see states.py)."""

    reservation_id = ExactCharField(max_length=64, primary_key=True)
    ticket_id = models.PositiveBigIntegerField()
    quantity = models.PositiveIntegerField()
    order_id = models.UUIDField(null=True)
    buyer_id = ExactCharField(max_length=64, blank=True, default="")
    status = models.CharField(max_length=9, choices=Status.choices)
    reason = models.CharField(max_length=64, blank=True, default="")
    expires_at = models.DateTimeField()
    # Whether it was given more time while a payment is pending; that happens once.
    extended = models.BooleanField(default=False, db_default=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "reservation"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(quantity__gte=1), name="reservation_of_something")
        ]
        indexes: ClassVar = [
            models.Index(fields=["status", "expires_at"], name="reservation_overdue"),
            models.Index(fields=["status", "created_at"], name="reservation_age"),
            models.Index(fields=["order_id"], name="reservation_order"),
            # For the lists, newest first.
            models.Index(fields=["created_at"], name="reservation_created"),
            models.Index(fields=["ticket_id", "created_at"], name="reservation_of_ticket"),
            models.Index(fields=["buyer_id", "created_at"], name="reservation_of_buyer"),
        ]

    def __str__(self) -> str:
        return f"{self.reservation_id} {self.status}"


class StockMovement(models.Model):
    """One line of the ledger: append-only, the audit of a reservation and of a ticket in one."""

    class Kind(models.TextChoices):
        INITIALISE = "initialise"
        ADJUST = "adjust"
        RESERVE = "reserve"
        REFUSE = "refuse"
        COMMIT = "commit"
        RELEASE = "release"
        EXPIRE = "expire"

    seq = models.BigAutoField(primary_key=True)
    ticket_id = models.PositiveBigIntegerField()
    kind = models.CharField(max_length=10, choices=Kind.choices)
    # Units moved; negative only for an adjustment downwards.
    quantity = models.BigIntegerField()
    reservation_id = ExactCharField(max_length=64, blank=True, default="")
    actor = models.CharField(max_length=64)
    reason = models.CharField(max_length=64, blank=True, default="")
    at = models.DateTimeField()

    class Meta:
        db_table = "stock_movement"
        ordering = ("seq",)
        indexes: ClassVar = [
            # Holds all that the counters are recomputed from.
            models.Index(fields=["ticket_id", "seq", "kind", "quantity"], name="movement_sums"),
            models.Index(fields=["reservation_id", "seq"], name="movement_reservation"),
        ]

    def __str__(self) -> str:
        return f"#{self.seq} {self.kind} {self.quantity} of ticket {self.ticket_id}"


class BuyerHold(models.Model):
    """How many units of a ticket a buyer holds or has bought: what a per-person limit counts."""

    # Clustered by what it is found by: an upsert then locks its row, and no gap to a neighbour's.
    pk = models.CompositePrimaryKey("ticket_id", "buyer_id")
    ticket_id = models.PositiveBigIntegerField()
    buyer_id = ExactCharField(max_length=64)
    quantity = models.PositiveIntegerField(default=0)

    class Meta:
        db_table = "buyer_hold"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(quantity__gte=0), name="buyer_hold_not_negative"),
        ]

    def __str__(self) -> str:
        return f"buyer {self.buyer_id}: {self.quantity} of ticket {self.ticket_id}"


class TicketLabel(models.Model):
    """What the catalog calls a ticket, so that a person can pick one by name in the admin."""

    ticket_id = models.PositiveBigIntegerField(primary_key=True)
    label = models.CharField(max_length=512)
    version = models.PositiveBigIntegerField()

    class Meta:
        db_table = "ticket_label"
        ordering = ("label",)

    def __str__(self) -> str:
        return f"{self.label} (#{self.ticket_id})"
