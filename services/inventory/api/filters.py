"""What lists of stock, reservations and movements may be asked for."""

# django-filter has no types.
# mypy: disable-error-code="import-untyped, misc"

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import QuerySet
from django.forms import IntegerField, NullBooleanField, TextInput
from django.utils import timezone
from django_filters import Filter
from django_filters.rest_framework import (
    BooleanFilter,
    CharFilter,
    ChoiceFilter,
    FilterSet,
    IsoDateTimeFilter,
    UUIDFilter,
)
from rest_framework.exceptions import ErrorDetail
from rest_framework.exceptions import ValidationError as ValidationFailed
from rest_framework.request import Request

from common.validators import validate_year
from services.inventory.api.serializers import TICKET_ID_MAX
from services.inventory.models import Reservation, Stock, StockMovement
from services.inventory.states import Status

ID_LENGTH_MAX = 64
PAGING = ("page", "page_size", "format")


def require_known(request: Request, filters: type[FilterSet]) -> None:
    """Raise 400 for a query parameter that no filter has: a misspelt one must not look like an
    answer to it."""
    known = {*filters.base_filters, *PAGING}
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        detail = f"There is no such filter; known are {', '.join(sorted(known))}."
        refusal = ErrorDetail(detail, "unknown_field")
        raise ValidationFailed({name: [refusal] for name in unknown})


class WholeNumberFilter(Filter):
    """A number without a fraction, from 0 on."""

    field_class = IntegerField

    def __init__(self, field: str, lookup: str = "exact", label: str = "") -> None:
        super().__init__(field, lookup, label=label, min_value=0, max_value=TICKET_ID_MAX)


class _YesNoField(NullBooleanField):
    def to_python(self, value: Any) -> Any:
        yes = super().to_python(value)
        if yes is None and value not in (None, ""):
            raise ValidationError("Must be true or false.", code="invalid")
        return yes


class YesNoFilter(BooleanFilter):
    """``true`` or ``false``; django-filter's own one takes anything else for "no matter"."""

    field_class = _YesNoField

    def __init__(self, **options: Any) -> None:
        super().__init__(widget=TextInput, **options)


class StockFilter(FilterSet):
    """The query parameters of ``GET /stocks``."""

    ticket_id = WholeNumberFilter("ticket_id")
    sold_out = YesNoFilter(method="filter_sold_out", label="nothing is available")
    available_below = WholeNumberFilter("available", "lt", "fewer available than this")

    class Meta:
        model = Stock
        fields: Sequence[str] = ()

    def filter_sold_out(self, stocks: QuerySet[Stock], name: str, yes: bool) -> QuerySet[Stock]:
        return stocks.filter(available=0) if yes else stocks.filter(available__gt=0)


class ReservationFilter(FilterSet):
    """The query parameters of ``GET /reservations``."""

    ticket_id = WholeNumberFilter("ticket_id")
    status = ChoiceFilter(choices=Status.choices)
    buyer_id = CharFilter(max_length=ID_LENGTH_MAX)
    order_id = UUIDFilter()
    overdue = YesNoFilter(method="filter_overdue", label="RESERVED, and past its expires_at")
    created_after = IsoDateTimeFilter(
        "created_at", "gte", validators=[validate_year], label="at or after"
    )
    created_before = IsoDateTimeFilter(
        "created_at", "lt", validators=[validate_year], label="before"
    )

    class Meta:
        model = Reservation
        fields: Sequence[str] = ()

    def filter_overdue(
        self, reservations: QuerySet[Reservation], name: str, yes: bool
    ) -> QuerySet[Reservation]:
        overdue = {"status": Status.RESERVED, "expires_at__lt": timezone.now()}
        return reservations.filter(**overdue) if yes else reservations.exclude(**overdue)


class MovementFilter(FilterSet):
    """The query parameters of ``GET /stocks/{ticket_id}/movements``."""

    up_to = WholeNumberFilter("seq", "lte", "up to and with this seq")
    kind = ChoiceFilter(choices=StockMovement.Kind.choices)
    reservation_id = CharFilter(max_length=ID_LENGTH_MAX)

    class Meta:
        model = StockMovement
        fields: Sequence[str] = ()
