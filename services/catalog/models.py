"""Catalog's tables. Who may write them: publishing.py events, tickets.py tickets, availability.py
the projection; nobody else."""

from __future__ import annotations

from typing import ClassVar

from django.core.exceptions import ValidationError
from django.core.validators import MaxLengthValidator, MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q

from common.validators import validate_year
from services.catalog.currencies import CURRENCIES

PRICE_MAX = 10**9
LIMIT_MAX = 10**6
TITLE_LENGTH_MAX = 200
NAME_LENGTH_MAX = 100
DESCRIPTION_LENGTH_MAX = 10_000


def validate_currency(code: str) -> None:
    """Refuse what is not the code of a currency."""
    if code not in CURRENCIES:
        raise ValidationError("Not an ISO 4217 currency code.", code="unknown_currency")


class Event(models.Model):
    """Something that takes place once, and that tickets are sold for."""

    class Status(models.TextChoices):
        DRAFT = "DRAFT"
        PUBLISHED = "PUBLISHED"
        ENDED = "ENDED"

    title = models.CharField(max_length=TITLE_LENGTH_MAX)
    description = models.TextField(
        blank=True, default="", validators=[MaxLengthValidator(DESCRIPTION_LENGTH_MAX)]
    )
    starts_at = models.DateTimeField(validators=[validate_year])
    ends_at = models.DateTimeField(validators=[validate_year])
    status = models.CharField(
        max_length=9, choices=Status.choices, default=Status.DRAFT, editable=False
    )
    # What a search compares: databases disagree about upper case and accents (see searching.py).
    folded_title = models.CharField(max_length=TITLE_LENGTH_MAX, editable=False)
    folded_description = models.TextField(blank=True, default="", editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "event"
        ordering = ("starts_at", "id")
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(starts_at__lte=F("ends_at")),
                name="event_starts_before_it_ends",
                violation_error_message="An event cannot end before it starts.",
            )
        ]
        indexes: ClassVar = [models.Index(fields=["status", "starts_at"], name="event_listed")]

    def __str__(self) -> str:
        return self.title


class Ticket(models.Model):
    """A kind of ticket for an event: its price, its limits and when it may be bought.

    ``version`` grows with every change of it or of its event, so that who follows can tell newer
    from older.
    """

    class Status(models.TextChoices):
        OFF_SHELF = "OFF_SHELF"
        ON_SALE = "ON_SALE"

    event = models.ForeignKey(Event, on_delete=models.PROTECT, related_name="tickets")
    name = models.CharField(max_length=NAME_LENGTH_MAX)
    price = models.PositiveBigIntegerField(
        validators=[MaxValueValidator(PRICE_MAX)], help_text="in minor units: 1250 is 12.50"
    )
    currency = models.CharField(max_length=3, default="EUR", validators=[validate_currency])
    per_order_limit = models.PositiveIntegerField(
        default=10, validators=[MinValueValidator(1), MaxValueValidator(LIMIT_MAX)]
    )
    per_user_limit = models.PositiveIntegerField(
        null=True,
        blank=True,
        validators=[MinValueValidator(1), MaxValueValidator(LIMIT_MAX)],
        help_text="over all orders of one person; empty: no limit",
    )
    sale_starts_at = models.DateTimeField(
        null=True, blank=True, validators=[validate_year], help_text="empty: at once"
    )
    sale_ends_at = models.DateTimeField(
        null=True, blank=True, validators=[validate_year], help_text="empty: open end"
    )
    status = models.CharField(
        max_length=9, choices=Status.choices, default=Status.OFF_SHELF, editable=False
    )
    version = models.PositiveBigIntegerField(default=1, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "ticket"
        ordering = ("id",)
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(price__gte=0, price__lte=PRICE_MAX), name="ticket_price_sane"
            ),
            models.CheckConstraint(
                condition=Q(per_order_limit__gte=1, per_order_limit__lte=LIMIT_MAX),
                name="ticket_order_limit_sane",
            ),
            models.CheckConstraint(
                condition=Q(per_user_limit=None)
                | Q(per_user_limit__gte=1, per_user_limit__lte=LIMIT_MAX),
                name="ticket_user_limit_sane",
            ),
            models.CheckConstraint(
                condition=Q(sale_starts_at=None)
                | Q(sale_ends_at=None)
                | Q(sale_starts_at__lt=F("sale_ends_at")),
                name="ticket_sale_starts_before_it_ends",
                violation_error_message="The sale must start before it ends.",
            ),
        ]

    def __str__(self) -> str:
        return self.name


class Availability(models.Model):
    """How many of a ticket inventory had left, as far as its events have arrived here.

    Not a foreign key: stock may be set for a ticket before this database knows it.
    """

    ticket_id = models.PositiveBigIntegerField(primary_key=True)
    available = models.PositiveBigIntegerField()
    version = models.PositiveBigIntegerField()
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        db_table = "availability"
        verbose_name_plural = "availability"
        ordering = ("ticket_id",)
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(available__gte=0), name="availability_not_negative")
        ]

    def __str__(self) -> str:
        return f"ticket {self.ticket_id}: {self.available} available"
