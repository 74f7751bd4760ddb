"""What is recognised without a serializer is what the serializer would have understood.

Bodies are drawn near to the right shape: mostly right, with one or the other thing wrong with them.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import partial

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rest_framework.renderers import JSONRenderer

from services.inventory import reservations
from services.inventory.api.recognise import calls_of, hold_of
from services.inventory.api.serializers import (
    CALL_ENTRIES_MAX,
    GROUP_ENTRIES_MAX,
    LIMIT_MAX,
    QUANTITY_MAX,
    TICKET_ID_MAX,
    TTL_SECONDS_MAX,
    BatchSerializer,
    ReservationSerializer,
    ReserveSerializer,
    calls_from,
    document_of,
    hold_from,
)
from services.inventory.entries import Group, Hold, State
from services.inventory.models import Reservation
from services.inventory.states import Status
from tests.inventory.driver import decide_group, entry, reserve_group

anything = settings(deadline=None, database=None, max_examples=500)

ORDER = "0190c7f0-0000-7000-8000-000000000001"
ODD_TEXTS = [
    *("", " ", "r 1", "r\n", "\nr", "r\0", "é", "ａ", "٣", "r" * 64, "r" * 65, "null", "-", "_"),
    *("1", "1.0", " 1", "1 ", "+1", "-1", "01", "1_0", "١", "1e0", "true"),
    *(ORDER, ORDER.upper(), ORDER.replace("-", ""), "{" + ORDER + "}", "urn:uuid:" + ORDER),
    *(ORDER + "\n", ORDER[:-1], ORDER + "0", ORDER.replace("0", "٠"), "0" * 8 + "-" * 28),
]
ODD_NUMBERS = [
    *(0, -1, 1.0, 1.5, -0.0, 1e300, 2**31, 2**63, 2**64, 10**30, TICKET_ID_MAX, TICKET_ID_MAX + 1),
    *(QUANTITY_MAX, QUANTITY_MAX + 1, LIMIT_MAX, LIMIT_MAX + 1, TTL_SECONDS_MAX),
    TTL_SECONDS_MAX + 1,
]
ODD_VALUES = [None, True, False, [], {}, [1], {"a": 1}, *ODD_TEXTS, *ODD_NUMBERS]
ODD = (
    st.sampled_from(ODD_VALUES)
    | st.text(max_size=5)
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
)
IDS = st.text("Aa0_-", min_size=1, max_size=4)
RIGHT = {
    "reservation_id": IDS,
    "ticket_id": st.integers(1, 9) | st.integers(1, TICKET_ID_MAX),
    "quantity": st.integers(1, QUANTITY_MAX),
    "order_id": st.none() | st.uuids().map(str),
    "buyer_id": st.none() | IDS,
    "buyer_limit": st.none() | st.integers(1, LIMIT_MAX),
    "ttl_seconds": st.none() | st.integers(1, TTL_SECONDS_MAX),
}
NEEDED = ("reservation_id", "ticket_id", "quantity")
OPTIONAL = tuple(RIGHT.keys() - NEEDED)


@st.composite
def nearly(draw, right, wrong_in_ten=3):
    """Draw an object with the right members, and often with something wrong about one or two."""
    body = {name: draw(value) for name, value in right.items()}
    for name in draw(st.sets(st.sampled_from(OPTIONAL))):
        body.pop(name, None)
    if draw(st.integers(0, 9)) < wrong_in_ten:
        for name in draw(st.lists(st.sampled_from([*right, "status", "0"]), max_size=2)):
            if draw(st.booleans()) or name not in body:
                body[name] = draw(ODD)
            else:
                del body[name]
    return body


BODIES = nearly(RIGHT) | ODD
# One entry in many is wrong, or no batch would ever be recognised; ids of one letter are often
# there twice.
ENTRIES = st.lists(
    nearly(RIGHT, wrong_in_ten=1)
    | nearly({**RIGHT, "reservation_id": st.sampled_from("abc")}, wrong_in_ten=0),
    max_size=3,
)
SIDES = st.fixed_dictionaries(
    {"call": st.sampled_from(["reserve"] * 5 + ["commit"]), "entries": ENTRIES}
)
GROUPS = SIDES | st.fixed_dictionaries(
    {"call": st.just("reserve") | ODD, "entries": ENTRIES | ODD}, optional={"more": ODD}
)
BATCHES = st.fixed_dictionaries({"groups": st.lists(SIDES, min_size=1, max_size=3)}) | (
    st.fixed_dictionaries(
        {}, optional={"groups": st.lists(GROUPS | ODD, max_size=3) | ODD, "more": ODD}
    )
)


def as_received(body):
    """Return a body as the service's parser would have made it from JSON."""
    return json.loads(json.dumps(body))


def exactly(value):
    """Return a value so that equal means equal in type too: ``1 == True`` in Python."""
    return repr(value)


def understood(serializer, meaning, body):
    """Return what a serializer understands; fails where it does not accept the body."""
    judged = serializer(data=body)
    assert judged.is_valid(), (body, judged.errors)
    return meaning(judged.validated_data)


as_hold = partial(understood, ReserveSerializer, hold_from)
as_calls = partial(understood, BatchSerializer, calls_from)


def assert_understood(recognise, understand, body):
    """Check that a body is either left to the serializer or understood as it would."""
    body = as_received(body)
    recognised = recognise(body)
    if recognised is not None:
        assert exactly(recognised) == exactly(understand(body))


assert_hold_understood = partial(assert_understood, hold_of, as_hold)
assert_calls_understood = partial(assert_understood, calls_of, as_calls)


@anything
@given(BODIES)
def test_a_hold_that_is_recognised_is_understood_by_the_serializer_as_the_same(body):
    assert_hold_understood(body)


@pytest.mark.parametrize("name", RIGHT)
def test_so_it_is_with_every_odd_value_in_every_member_of_a_hold(name):
    for value in ODD_VALUES:
        assert_hold_understood({**entry("r", order_id=ORDER), name: value})


@anything
@given(BATCHES)
@example({"groups": []})
@example({"groups": [reserve_group()]})
@example({"groups": [reserve_group(entry("a"), entry("a"))]})
@example({"groups": [reserve_group(entry("a")), reserve_group(entry("a"))]})
@example({"groups": [reserve_group(entry("a")), decide_group("commit", "a")]})
def test_a_batch_that_is_recognised_is_understood_by_the_serializer_as_the_same(body):
    assert_calls_understood(body)


@pytest.mark.parametrize("call", ["reserve", "commit", "release", "extend", "Reserve", "expire"])
def test_so_it_is_with_every_call_and_with_every_odd_value_in_a_batch(call):
    assert_calls_understood({"groups": [{"call": call, "entries": [entry("a")]}]})
    for value in ODD_VALUES:
        assert_calls_understood({"groups": [{"call": value, "entries": [entry("a")]}]})
        assert_calls_understood({"groups": [{"call": call, "entries": value}]})
        assert_calls_understood({"groups": [{"call": call, "entries": [entry("a"), value]}]})
        assert_calls_understood({"groups": [reserve_group(entry("a")), value]})
        assert_calls_understood({"groups": value})


@anything
@given(nearly(RIGHT, wrong_in_ten=0))
def test_every_well_formed_hold_is_recognised(body):
    body = as_received(body)

    assert exactly(hold_of(body)) == exactly(as_hold(body))


@anything
@given(
    st.lists(
        st.lists(
            nearly(RIGHT, wrong_in_ten=0),
            min_size=1,
            max_size=3,
            unique_by=lambda one: one["reservation_id"],
        ),
        min_size=1,
        max_size=3,
    )
)
def test_every_well_formed_batch_of_reserves_is_recognised(groups):
    body = as_received({"groups": [reserve_group(*entries) for entries in groups]})

    assert calls_of(body)
    assert exactly(calls_of(body)) == exactly(as_calls(body))


@pytest.mark.parametrize(
    "body",
    [
        entry("r"),
        entry("r-1_A", 7, 3, order_id=ORDER),
        entry("r", buyer_id="ann", buyer_limit=4),
        entry("r", order_id=ORDER, buyer_id="5", buyer_limit=None, ttl_seconds=None),
        entry("0" * 40, TICKET_ID_MAX, QUANTITY_MAX, ttl_seconds=TTL_SECONDS_MAX),
    ],
)
def test_the_usual_bodies_are_recognised(body):
    assert isinstance(hold_of(body), Hold)
    assert exactly(hold_of(body)) == exactly(as_hold(body))
    assert exactly(calls_of({"groups": [reserve_group(body)]})) == exactly(
        as_calls({"groups": [reserve_group(body)]})
    )


def test_a_hold_without_a_time_gets_the_one_of_the_settings(settings):
    settings.HOLD_TTL_SECONDS = 77
    assert hold_of(entry("r")).ttl_seconds == as_hold(entry("r")).ttl_seconds == 77


def test_the_largest_batch_is_recognised_and_one_entry_more_is_for_the_serializer_to_refuse():
    holds = [entry(f"r{n}", order_id=ORDER, buyer_id="5") for n in range(CALL_ENTRIES_MAX)]
    starts = range(0, CALL_ENTRIES_MAX, GROUP_ENTRIES_MAX)
    groups = [reserve_group(*holds[start : start + GROUP_ENTRIES_MAX]) for start in starts]

    assert exactly(calls_of({"groups": groups})) == exactly(as_calls({"groups": groups}))
    one_more = {"groups": [*groups, reserve_group(entry("more"))]}
    assert calls_of(one_more) is None
    assert not BatchSerializer(data=one_more).is_valid()
    too_many = reserve_group(*holds[: GROUP_ENTRIES_MAX + 1])
    assert calls_of({"groups": [too_many]}) is None
    assert not BatchSerializer(data={"groups": [too_many]}).is_valid()


STATES = st.builds(
    State,
    reservation_id=IDS,
    ticket_id=st.integers(1, TICKET_ID_MAX),
    quantity=st.integers(1, QUANTITY_MAX),
    status=st.sampled_from([*Status, *Status.values]),
    expires_at=st.datetimes(
        datetime(2000, 1, 1), datetime(9999, 1, 1), timezones=st.just(UTC)
    ).flatmap(lambda at: st.sampled_from([at, at.replace(microsecond=0)])),
    order_id=st.none() | st.uuids(),
    buyer_id=st.just("") | IDS,
    reason=st.sampled_from(["", "expired", "insufficient_stock"]),
)


def as_json(document):
    """Return a document as it goes over the wire."""
    return JSONRenderer().render(document)


@anything
@given(STATES)
def test_the_document_of_a_reservation_is_byte_for_byte_the_serializers(state):
    row = Reservation(**state._asdict())

    assert as_json(document_of(state)) == as_json(ReservationSerializer(row).data)


@pytest.mark.django_db(transaction=True)
def test_the_document_of_an_answer_is_that_of_the_row_it_speaks_of(tickets):
    tickets(3)
    holds = [
        hold_of(entry("a", order_id=ORDER, buyer_id="ann", ttl_seconds=60)),
        hold_of(entry("b", quantity=9)),
    ]
    told = [reservations.reserve([Group([one], "test")])[0][0].reservation for one in holds]

    rows = [Reservation.objects.get(pk=state.reservation_id) for state in told]
    stored = [reservations.get(state.reservation_id) for state in told]
    documents = [as_json(ReservationSerializer(row).data) for row in rows]
    assert [as_json(document_of(state)) for state in told] == documents
    assert [as_json(document_of(state)) for state in stored] == documents
