"""Fields and serializers that take a body at its word: nothing unknown, no text for a number."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers


class StrictSerializer(serializers.Serializer[Any]):
    """Refuses members it does not know: a limit that was misspelt must not be no limit, and a body
    that names a price or a status is a mistake."""

    def to_internal_value(self, data: Any) -> Any:
        if isinstance(data, dict):
            unknown = sorted(set(data) - set(self.fields))
            if unknown:
                refusal = serializers.ErrorDetail("This field is not allowed.", "unknown_field")
                raise serializers.ValidationError({name: [refusal] for name in unknown})
        return super().to_internal_value(data)


class WholeNumberField(serializers.IntegerField):
    """A JSON number without a fraction; not a string, not true."""

    def to_internal_value(self, data: Any) -> int:
        if not isinstance(data, int) or isinstance(data, bool):
            self.fail("invalid")
        return super().to_internal_value(data)


def is_whole(value: Any, most: int) -> bool:
    """Tell, without a serializer, whether WholeNumberField takes the value for one from 1 to
    ``most``."""
    return type(value) is int and 0 < value <= most
