"""Shapes of the order service's requests, and of its answers for the documentation."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from common.serializers import StrictSerializer, WholeNumberField
from services.order.providers.registry import methods
from services.order.providers.sandbox_page import Play
from services.order.states import LatePayment, OrderStatus, PaymentStatus

ITEMS_MAX = 20
QUANTITY_MAX = 10_000
TICKET_ID_MAX = 10**18 - 1


class LineSerializer(StrictSerializer):
    ticket_id = WholeNumberField(min_value=1, max_value=TICKET_ID_MAX)
    quantity = WholeNumberField(min_value=1, max_value=QUANTITY_MAX)


class PlaceOrderSerializer(StrictSerializer):
    items = serializers.ListField(child=LineSerializer(), allow_empty=False, max_length=ITEMS_MAX)

    def validate_items(self, lines: list[dict[str, int]]) -> list[dict[str, int]]:
        wanted: dict[int, int] = {}
        for line in lines:
            wanted[line["ticket_id"]] = wanted.get(line["ticket_id"], 0) + line["quantity"]
        if max(wanted.values()) > QUANTITY_MAX:
            raise serializers.ValidationError(f"At most {QUANTITY_MAX} of one ticket.", "max_value")
        return lines


class PaySerializer(StrictSerializer):
    method = serializers.CharField(required=False, max_length=32)

    def validate_method(self, method: str) -> str:
        if method not in methods():
            known = ", ".join(methods())
            raise serializers.ValidationError(f"One of {known}.", "invalid_choice")
        return method


class EmptySerializer(StrictSerializer):
    """A body without members, or no body at all."""


class SettleSerializer(StrictSerializer):
    outcome = serializers.ChoiceField(choices=["captured", "declined"])
    play = serializers.ChoiceField(choices=list(Play), default=Play.ONCE)


class ItemSerializer(serializers.Serializer[Any]):
    ticket_id = serializers.IntegerField()
    name = serializers.CharField()
    quantity = serializers.IntegerField()
    unit_price = serializers.IntegerField()


class PlacedOrderSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    status = serializers.ChoiceField(choices=OrderStatus.choices)
    items = ItemSerializer(many=True)
    total = serializers.IntegerField()
    currency = serializers.CharField()
    expires_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField()


class PaymentSerializer(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    order_id = serializers.UUIDField()
    provider = serializers.CharField()
    method = serializers.CharField()
    amount = serializers.IntegerField()
    currency = serializers.CharField()
    status = serializers.ChoiceField(choices=PaymentStatus.choices)
    page = serializers.CharField(allow_null=True)
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()


class DeliverySerializer(serializers.Serializer[Any]):
    status = serializers.IntegerField()
    code = serializers.CharField()
    detail = serializers.CharField()


class SettledPaymentSerializer(PaymentSerializer):
    deliveries = DeliverySerializer(many=True)


class ReasonSerializer(serializers.Serializer[Any]):
    code = serializers.CharField()
    detail = serializers.CharField()


class OrderSerializer(PlacedOrderSerializer):
    updated_at = serializers.DateTimeField()
    rejection = ReasonSerializer(allow_null=True)
    late_payment = serializers.ChoiceField(choices=LatePayment.choices, allow_blank=True)
    payment_methods = serializers.ListField(child=serializers.CharField())
    payments = PaymentSerializer(many=True)


class PaidOrderSerializer(serializers.Serializer[Any]):
    order = OrderSerializer()
    payment = PaymentSerializer()
