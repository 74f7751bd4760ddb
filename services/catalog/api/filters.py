"""What a list of events may be asked for: words, times, status, order."""

# django-filter has no types.
# mypy: disable-error-code="import-untyped, misc"

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import QuerySet
from django_filters import ChoiceFilter, IsoDateTimeFilter, OrderingFilter
from django_filters.rest_framework import CharFilter, FilterSet
from django_filters.utils import translate_validation

from common.validators import validate_year
from services.catalog.models import Event
from services.catalog.searching import containing

SEARCH_LENGTH_MAX = 100


class StableOrdering(OrderingFilter):
    """Equal ones keep one order among them, or pages would overlap."""

    def filter(self, qs: QuerySet[Event], value: Sequence[str] | None) -> QuerySet[Event]:
        names = [self.get_ordering_value(name) for name in value or ("starts_at",)]
        return qs.order_by(*names, "id")


class EventFilter(FilterSet):
    """The query parameters of ``GET /events``."""

    search = CharFilter(
        method="filter_search",
        max_length=SEARCH_LENGTH_MAX,
        label="words in title or description, in any case",
    )
    starts_after = IsoDateTimeFilter(
        "starts_at", "gte", validators=[validate_year], label="at or after"
    )
    starts_before = IsoDateTimeFilter("starts_at", "lt", validators=[validate_year], label="before")
    status = ChoiceFilter(
        choices=Event.Status.choices,
        method="filter_status",
        label="the public is shown PUBLISHED ones unless it asks for ENDED",
    )
    ordering = StableOrdering(
        fields={"starts_at": "starts_at", "folded_title": "title", "id": "id"},
        label="default: starts_at",
    )

    class Meta:
        model = Event
        fields: Sequence[str] = ()

    def filter_search(self, events: QuerySet[Event], name: str, text: str) -> QuerySet[Event]:
        return containing(events, text)

    def filter_status(self, events: QuerySet[Event], name: str, status: str) -> QuerySet[Event]:
        return events.filter(status=status)

    def filter_queryset(self, queryset: QuerySet[Event]) -> QuerySet[Event]:
        events: QuerySet[Event] = super().filter_queryset(queryset)
        if self.public and not self.form.cleaned_data["status"]:
            return events.filter(status=Event.Status.PUBLISHED)
        return events

    @property
    def public(self) -> bool:
        """Whether the list is for somebody who is not an admin."""
        return getattr(getattr(self.request, "user", None), "role", None) != "admin"

    @property
    def hot_name(self) -> str | None:
        """A name for lists that many people ask for; None for what only one person searches."""
        asked = self.form.cleaned_data
        ordering = asked["ordering"] or [""]
        if asked["search"] or asked["starts_after"] or asked["starts_before"] or ordering[1:]:
            return None
        return f"{asked['status']}:{ordering[0]}"

    def require_valid(self) -> None:
        """Raise 400 with every parameter that is not valid."""
        if not self.is_valid():
            raise translate_validation(self.errors)
