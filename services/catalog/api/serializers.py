"""Shapes of the catalog's requests and answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rest_framework import serializers

from common.validators import validate_year
from services.catalog.models import (
    DESCRIPTION_LENGTH_MAX,
    LIMIT_MAX,
    NAME_LENGTH_MAX,
    PRICE_MAX,
    TITLE_LENGTH_MAX,
    Event,
    Ticket,
    validate_currency,
)

_ISO_8601 = re.compile(
    r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)


class Text(serializers.CharField):
    """A string, and nothing that could be written as one."""

    def to_internal_value(self, data: Any) -> str:
        if not isinstance(data, str):
            self.fail("invalid")
        return super().to_internal_value(data)


class WholeNumber(serializers.IntegerField):
    """A JSON integer: DRF's field takes "12.00" for 12, which would make 12 euros 12 cents."""

    def to_internal_value(self, data: Any) -> int:
        if type(data) is not int:
            self.fail("invalid")
        return data


class Moment(serializers.DateTimeField):
    """A time as ISO 8601; without an offset it is UTC."""

    def to_internal_value(self, value: Any) -> Any:
        # Python's own parser also takes week dates, other scripts' digits, and a NUL at the end.
        if not isinstance(value, str) or not _ISO_8601.fullmatch(value):
            self.fail("invalid", format="YYYY-MM-DDThh:mm[:ss]Z")
        return super().to_internal_value(value)


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses members that it does not know: a limit that was misspelt must not be no limit.

    What is only read (``unwritable``: member → how it is changed instead) is refused as well,
    except in a PUT, where the thing may be sent back as it was read: there ``echoed`` members must
    be what they are, and the others are passed over.
    """

    unwritable: Mapping[str, str] = {}
    echoed: tuple[str, ...] = ("id", "status")

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        if isinstance(data, Mapping):
            self._refuse_unknown(data)
        fields: dict[str, Any] = super().to_internal_value(data)
        return fields

    def _refuse_unknown(self, data: Mapping[Any, Any]) -> None:
        present: Mapping[str, Any] | None = self.context.get("present")
        errors = {}
        for name in data:
            if name in self.fields:
                continue
            if name not in self.unwritable:
                errors[str(name)[:100]] = _error("Unknown member.", "unknown_field")
            elif present is None or (name in self.echoed and data[name] != present.get(name)):
                errors[name] = _error(self.unwritable[name], "read_only")
        if errors:
            raise serializers.ValidationError(errors)


def _error(detail: str, code: str) -> list[Any]:
    return [serializers.ErrorDetail(detail, code)]


class EventInput(StrictSerializer):
    """What an admin says of an event."""

    unwritable = {
        "id": "The catalog gives ids.",
        "status": "Use /publish, /unpublish and /end.",
        "tickets": "Use /events/{id}/tickets and /tickets/{id}.",
    }

    title = Text(max_length=TITLE_LENGTH_MAX)
    description = Text(max_length=DESCRIPTION_LENGTH_MAX, allow_blank=True, default="")
    starts_at = Moment(validators=[validate_year])
    ends_at = Moment(validators=[validate_year])


class TicketInput(StrictSerializer):
    """What an admin says of a ticket. Without a window the sale is open while it is ON_SALE."""

    unwritable = {
        "id": "The catalog gives ids.",
        "event": "A ticket stays with its event.",
        "status": "Use /on-sale and /off-shelf.",
        "available": "Set the stock in the inventory.",
    }
    echoed = ("id", "event", "status")

    name = Text(max_length=NAME_LENGTH_MAX)
    price = WholeNumber(min_value=0, max_value=PRICE_MAX, help_text="in minor units")
    currency = Text(default="EUR", max_length=3, validators=[validate_currency])
    per_order_limit = WholeNumber(min_value=1, max_value=LIMIT_MAX, default=10)
    per_user_limit = WholeNumber(
        min_value=1, max_value=LIMIT_MAX, allow_null=True, default=None, help_text="null: no limit"
    )
    sale_starts_at = Moment(allow_null=True, default=None, validators=[validate_year])
    sale_ends_at = Moment(allow_null=True, default=None, validators=[validate_year])


class TicketSerializer(serializers.Serializer[Any]):
    """A ticket. Only documents: listing.py makes the data as it is sent."""

    id = serializers.IntegerField()
    event = serializers.IntegerField()
    name = serializers.CharField()
    price = serializers.IntegerField(help_text="in minor units")
    currency = serializers.CharField()
    per_order_limit = serializers.IntegerField()
    per_user_limit = serializers.IntegerField(allow_null=True)
    sale_starts_at = serializers.DateTimeField(allow_null=True)
    sale_ends_at = serializers.DateTimeField(allow_null=True)
    status = serializers.ChoiceField(choices=Ticket.Status.choices)
    available = serializers.IntegerField(help_text="follows the inventory within two seconds")


class EventSerializer(serializers.Serializer[Any]):
    """An event with its tickets. Only documents: listing.py makes the data as it is sent."""

    id = serializers.IntegerField()
    title = serializers.CharField()
    description = serializers.CharField()
    starts_at = serializers.DateTimeField()
    ends_at = serializers.DateTimeField()
    status = serializers.ChoiceField(choices=Event.Status.choices)
    tickets = TicketSerializer(many=True)


class AvailabilitySerializer(serializers.Serializer[Any]):
    """What a page polls. Only documents: listing.py makes the data as it is sent."""

    ticket_id = serializers.IntegerField()
    available = serializers.IntegerField()
    on_sale = serializers.BooleanField(help_text="may be bought at this moment, if any are left")
    sold_out = serializers.BooleanField()
    as_of = serializers.DateTimeField(help_text="when the catalog knew it")
