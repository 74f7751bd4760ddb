"""Shapes of inventory's requests and answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

from django.conf import settings
from rest_framework import serializers

from common.serializers import StrictSerializer, WholeNumberField
from common.times import iso
from services.inventory.entries import Hold, Outcome, State
from services.inventory.models import STOCK_MAX, Reservation, Stock, StockMovement

ID_PATTERN = r"^[A-Za-z0-9_-]{1,64}\Z"
TICKET_ID_MAX = 10**18 - 1
QUANTITY_MAX = 10_000
LIMIT_MAX = 1_000_000
TTL_SECONDS_MAX: int = settings.HOLD_SECONDS_MAX
GROUP_ENTRIES_MAX = 20
CALL_ENTRIES_MAX = 256


class IdField(serializers.RegexField):
    """An id that a caller made: compared byte for byte, so nothing is trimmed from it."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(ID_PATTERN, trim_whitespace=False, **kwargs)


class UUIDTextField(serializers.UUIDField):
    """A UUID as text; DRF's own field takes numbers too, and so ``true`` for 0…01."""

    def to_internal_value(self, data: Any) -> UUID:
        if not isinstance(data, str):
            self.fail("invalid", value=data)
        return super().to_internal_value(data)


class StockSerializer(serializers.Serializer[Any]):
    ticket_id = serializers.IntegerField()
    total = serializers.IntegerField()
    available = serializers.IntegerField()
    reserved = serializers.IntegerField()
    sold = serializers.IntegerField()
    version = serializers.IntegerField()


class StockRowSerializer(serializers.ModelSerializer[Stock]):
    class Meta:
        model = Stock
        fields = ("ticket_id", "total", "available", "reserved", "sold", "version", "updated_at")
        read_only_fields = fields


class MovementSerializer(serializers.ModelSerializer[StockMovement]):
    class Meta:
        model = StockMovement
        fields = ("seq", "kind", "quantity", "reservation_id", "actor", "reason", "at")
        read_only_fields = fields


class SetStockSerializer(StrictSerializer):
    total = WholeNumberField(min_value=0, max_value=STOCK_MAX)


class AdjustStockSerializer(StrictSerializer):
    delta = WholeNumberField(min_value=-STOCK_MAX, max_value=STOCK_MAX)

    def validate_delta(self, delta: int) -> int:
        if delta == 0:
            raise serializers.ValidationError("0 changes nothing.")
        return delta


class ReserveSerializer(StrictSerializer):
    reservation_id = IdField()
    ticket_id = WholeNumberField(min_value=1, max_value=TICKET_ID_MAX)
    quantity = WholeNumberField(min_value=1, max_value=QUANTITY_MAX)
    order_id = UUIDTextField(required=False, allow_null=True)
    buyer_id = IdField(required=False, allow_null=True)
    buyer_limit = WholeNumberField(
        min_value=1, max_value=LIMIT_MAX, required=False, allow_null=True
    )
    ttl_seconds = WholeNumberField(
        min_value=1, max_value=TTL_SECONDS_MAX, required=False, allow_null=True
    )


def hold_from(data: dict[str, Any]) -> Hold:
    """Return the domain's Hold for validated ReserveSerializer data."""
    return Hold(
        reservation_id=data["reservation_id"],
        ticket_id=data["ticket_id"],
        quantity=data["quantity"],
        ttl_seconds=data.get("ttl_seconds") or settings.HOLD_TTL_SECONDS,
        order_id=data.get("order_id"),
        buyer_id=data.get("buyer_id") or "",
        buyer_limit=data.get("buyer_limit"),
    )


class ReservationSerializer(serializers.ModelSerializer[Reservation]):
    class Meta:
        model = Reservation
        fields = State._fields
        read_only_fields = fields


def document_of(state: State) -> dict[str, Any]:
    """Return what ReservationSerializer makes of a reservation, without its cost."""
    return {
        **state._asdict(),
        "expires_at": iso(state.expires_at),
        "order_id": str(state.order_id) if state.order_id else None,
    }


def answer_of(outcome: Outcome) -> dict[str, Any]:
    """Return one entry of a batch's answer: {status, reservation, error}."""
    state, problem, created = outcome
    return {
        "status": problem.status_code if problem else 201 if created else 200,
        "reservation": document_of(state) if state else None,
        "error": {"code": problem.code, "detail": problem.text, **problem.extra}
        if problem
        else None,
    }


class ReservationRowSerializer(ReservationSerializer):
    class Meta(ReservationSerializer.Meta):
        fields = (*ReservationSerializer.Meta.fields, "extended", "created_at", "updated_at")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]


class TransitionSerializer(serializers.Serializer[Any]):
    to = serializers.CharField()
    at = serializers.DateTimeField()
    reason = serializers.CharField()

    def get_fields(self) -> dict[str, serializers.Field[Any, Any, Any, Any]]:
        # "from" is a Python keyword and cannot be a class attribute.
        return {"from": serializers.CharField(), **super().get_fields()}


class ReservationDetailSerializer(ReservationSerializer):
    transitions = TransitionSerializer(many=True)

    class Meta(ReservationSerializer.Meta):
        fields = (*ReservationSerializer.Meta.fields, "transitions")  # type: ignore[assignment]
        read_only_fields = fields  # type: ignore[assignment]


class DecideEntrySerializer(StrictSerializer):
    reservation_id = IdField()


class GroupSerializer(StrictSerializer):
    """One all-or-nothing group of a batch; entries have the shape that their call wants."""

    call = serializers.ChoiceField(choices=["reserve", "commit", "release", "extend"])
    entries = serializers.ListField(
        child=serializers.DictField(), min_length=1, max_length=GROUP_ENTRIES_MAX
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        shape = ReserveSerializer if attrs["call"] == "reserve" else DecideEntrySerializer
        entries = shape(data=attrs["entries"], many=True)
        if not entries.is_valid():
            raise serializers.ValidationError({"entries": entries.errors})
        ids = [entry["reservation_id"] for entry in entries.validated_data]
        if len(set(ids)) != len(ids):
            raise serializers.ValidationError("A reservation_id appears twice in one group.")
        return {"call": attrs["call"], "entries": entries.validated_data}


class BatchSerializer(StrictSerializer):
    groups = GroupSerializer(many=True, allow_empty=False)

    def validate_groups(self, groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
        count = sum(len(group["entries"]) for group in groups)
        if count > CALL_ENTRIES_MAX:
            raise serializers.ValidationError(
                f"{count} entries; one call takes at most {CALL_ENTRIES_MAX}."
            )
        return groups


class Call(NamedTuple):
    """One group of a batch: what is to be done, with holds (reserve) or reservation ids."""

    name: str
    entries: Sequence[Any]


def calls_from(data: dict[str, Any]) -> list[Call]:
    """Return the calls of validated BatchSerializer data."""
    return [
        Call(
            group["call"],
            [
                hold_from(one) if group["call"] == "reserve" else one["reservation_id"]
                for one in group["entries"]
            ],
        )
        for group in data["groups"]
    ]


class HoldsQuerySerializer(serializers.Serializer[Any]):
    created_before = serializers.DateTimeField()
    after = serializers.CharField(required=False, max_length=128)
    limit = serializers.IntegerField(min_value=1, max_value=1000, default=500)


class HeldSerializer(serializers.ModelSerializer[Reservation]):
    class Meta:
        model = Reservation
        fields = ("reservation_id", "order_id", "ticket_id", "quantity", "expires_at", "created_at")
        read_only_fields = fields
