"""What is recognised without a serializer, the serializer accepts and understands the same."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from common.idempotency.keys import fingerprint
from services.order.api.recognise import purchase_body
from services.order.api.serializers import ITEMS_MAX, PlaceOrderSerializer

numbers = st.one_of(
    st.integers(-1, 3),
    st.sampled_from([9_999, 10_000, 10_001, 10**18 - 1, 10**18, True, False, 1.0, "1", None, [1]]),
)
lines = st.one_of(
    st.fixed_dictionaries({"ticket_id": numbers, "quantity": numbers}),
    st.fixed_dictionaries({"ticket_id": st.integers(1, 60), "quantity": st.integers(1, 9)}),
    st.dictionaries(st.sampled_from(["ticket_id", "quantity", "price"]), numbers),
    numbers,
)
bodies = st.one_of(
    st.fixed_dictionaries({"items": st.lists(lines, max_size=ITEMS_MAX + 2)}),
    st.fixed_dictionaries(
        {"items": st.lists(lines, max_size=2)}, optional={"status": numbers, "user_id": numbers}
    ),
    st.dictionaries(st.sampled_from(["items", "Items"]), numbers),
    st.lists(lines, max_size=1),
    numbers,
)


@given(bodies)
def test_what_is_recognised_is_valid_and_means_the_same(body: Any) -> None:
    recognised = purchase_body(body)
    if recognised is None:
        return
    judged = PlaceOrderSerializer(data=body)
    assert judged.is_valid(), judged.errors
    same = [fingerprint("POST", "/api/orders", one) for one in (recognised, judged.validated_data)]
    assert same[0] == same[1]
    assert recognised == judged.validated_data


def test_the_usual_body_is_recognised() -> None:
    for items in (
        [{"ticket_id": 1, "quantity": 1}],
        [{"ticket_id": n, "quantity": 10_000} for n in range(1, ITEMS_MAX + 1)],
        [{"quantity": 2, "ticket_id": 10**18 - 1}],
    ):
        assert purchase_body({"items": items}) == {"items": items}
