"""Writing many rows at once: what goes in comes out, and what does not fit leaves nothing."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext

from common import bulk
from common.database_errors import Meaning, meaning_of
from common.ids import uuid7
from common.transactions import in_transaction
from services.inventory.models import BuyerHold, Reservation, StockMovement, TicketLabel
from tests.common.concurrency import times, together

pytestmark = pytest.mark.django_db(transaction=True)

COLUMNS = (
    *("reservation_id", "ticket_id", "quantity", "order_id", "buyer_id"),
    *("status", "reason", "expires_at", "created_at", "updated_at"),
)
NOON = datetime(2031, 7, 4, 12, tzinfo=UTC)
# More than mysqlclient puts into one statement (64 KiB).
MANY = 2_000

insert_reservations = bulk.inserter(Reservation, *COLUMNS)
insert_labels = bulk.inserter(TicketLabel, "ticket_id", "label", "version")
add = bulk.adder(BuyerHold, "ticket_id", "buyer_id", "quantity")
take = bulk.taker(BuyerHold, "ticket_id", "buyer_id", "quantity")


def reservation(name: str, **other: Any) -> tuple[Any, ...]:
    values = {
        "reservation_id": name,
        "ticket_id": 1,
        "quantity": 1,
        "order_id": None,
        "buyer_id": "",
        "status": "RESERVED",
        "reason": "",
        **dict.fromkeys(("expires_at", "created_at", "updated_at"), NOON),
        **other,
    }
    return tuple(values[column] for column in COLUMNS)


def reservations() -> list[tuple[Any, ...]]:
    return list(Reservation.objects.order_by("reservation_id").values_list(*COLUMNS))


def labels() -> dict[int, str]:
    return dict(TicketLabel.objects.values_list("ticket_id", "label"))


def holds() -> dict[tuple[int, str], int]:
    rows = BuyerHold.objects.values_list("ticket_id", "buyer_id", "quantity")
    return {(ticket_id, buyer_id): quantity for ticket_id, buyer_id, quantity in rows}


def refused(write: Any, rows: Iterable[Any]) -> IntegrityError:
    """Return the error of a write in a transaction of its own."""
    with pytest.raises(IntegrityError) as raised, transaction.atomic():
        write(rows)
    return raised.value


# Inserting

TEXTS = [
    "",
    " leading and trailing ",
    'it\'s "quoted" and `so`',
    "back\\slash \\' \\n \\0 \\",
    "100 % %s %d %(label)s %%",
    "? ?1 :name {braces} $1",
    "); DROP TABLE ticket_label; --",
    "line\nbreak\r\nand\ttab",
    "emoji 🎟️👩‍👩‍👧 and Ünïcödé 東京",
    "x" * 512,
]


def test_texts_come_back_as_they_went_in():
    insert_labels((number, text, 0) for number, text in enumerate(TEXTS, start=1))
    assert labels() == dict(enumerate(TEXTS, start=1))


def test_times_of_any_zone_come_back_as_the_same_moments():
    moments = [
        NOON,
        NOON.replace(microsecond=123_456),
        datetime(2031, 7, 4, 12, tzinfo=ZoneInfo("Asia/Kathmandu")),
        datetime(2031, 10, 26, 2, 30, fold=0, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(2031, 10, 26, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
        datetime(1999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ]
    rows = [reservation(f"{n}", expires_at=moment) for n, moment in enumerate(moments)]
    insert_reservations(rows)
    # Compared as UTC: Python calls no two times of different zones equal in the hour that is twice.
    assert [row[-3] for row in reservations()] == [moment.astimezone(UTC) for moment in moments]


def test_uuids_and_nothing_come_back_as_they_went_in():
    one, other = uuid7(), UUID(int=2**128 - 1)
    rows = [
        reservation(f"{n}", order_id=order_id)
        for n, order_id in enumerate([one, None, other, one, None, UUID(int=0)])
    ]
    insert_reservations(rows)
    assert reservations() == rows


def test_equal_and_identical_values_do_not_get_mixed_up():
    """Values are converted once for each object, so rows must still get their own."""
    rows = [
        reservation(
            f"{number:02}",
            order_id=UUID(int=number // 3),
            expires_at=NOON + timedelta(seconds=number),
            created_at=NOON + timedelta(days=number % 2),
        )
        for number in range(50)
    ]
    insert_reservations(rows)
    assert reservations() == rows


def test_the_orm_reads_and_finds_what_was_inserted_as_if_it_had_written_it():
    order_id = uuid7()
    insert_reservations([reservation("bulk", order_id=order_id)])
    by_orm = dict(zip(COLUMNS, reservation("orm"), strict=True))
    Reservation.objects.create(**{**by_orm, "order_id": order_id})
    found = Reservation.objects.filter(order_id=order_id, expires_at=NOON)
    assert {one.reservation_id for one in found} == {"bulk", "orm"}


def test_rows_are_numbered_in_the_order_in_which_they_are_given():
    insert = bulk.inserter(
        StockMovement,
        *("ticket_id", "kind", "quantity", "reservation_id", "actor", "reason", "at"),
    )
    insert((1, "reserve", quantity, "", "test", "", NOON) for quantity in range(100))
    assert list(StockMovement.objects.values_list("quantity", flat=True)) == list(range(100))


@pytest.mark.parametrize("write", [insert_labels, insert_reservations, add, take])
@pytest.mark.parametrize("nothing", [[], (), iter(())], ids=["list", "tuple", "iterator"])
def test_no_rows_are_no_statement(write, nothing):
    with CaptureQueriesContext(connection) as queries:
        write(nothing)
    assert len(queries) == 0


def test_many_rows_are_one_call():
    rows = [(number, f"label % {number} " + "x" * 100, number) for number in range(MANY)]
    with CaptureQueriesContext(connection) as queries:
        insert_labels(iter(rows))
    assert len(queries) == 1
    assert sorted(TicketLabel.objects.values_list("ticket_id", "label", "version")) == rows


@pytest.mark.parametrize("place", [0, 2, 4])
def test_a_row_that_exists_is_an_error_and_nothing_of_the_batch_is_inserted(place):
    insert_labels([(7, "before", 0)])
    rows = [(number, "new", 0) for number in range(1, 5)]
    rows.insert(place, (7, "again", 0))
    assert meaning_of(refused(insert_labels, rows)) is Meaning.DUPLICATE
    assert labels() == {7: "before"}


def test_so_is_a_row_that_the_batch_has_twice():
    error = refused(insert_labels, [(1, "once", 0), (2, "", 0), (1, "twice", 0)])
    assert meaning_of(error) is Meaning.DUPLICATE
    assert labels() == {}


def test_a_duplicate_at_the_very_end_of_many_rows_takes_all_of_them_back():
    rows = [(number, "x" * 100, 0) for number in range(MANY)]
    refused(insert_labels, [*rows, rows[0]])
    assert labels() == {}


def test_a_row_that_a_check_constraint_forbids_is_refused():
    error = refused(insert_reservations, [reservation("a"), reservation("b", quantity=0)])
    assert meaning_of(error) is Meaning.FORBIDDEN
    assert reservations() == []


def test_rows_of_unequal_length_are_a_mistake():
    with pytest.raises(ValueError):
        insert_labels([(1, "", 0), (2, "")])
    assert labels() == {}


# Counting


def test_counting_inserts_what_is_missing_and_adds_to_what_is_there():
    add([(1, "ann", 2), (1, "bob", 1)])
    add([(1, "ann", 3), (1, "cid", 4), (2, "ann", 5)])
    assert holds() == {(1, "ann"): 5, (1, "bob"): 1, (1, "cid"): 4, (2, "ann"): 5}


def test_taking_leaves_the_rest():
    add([(1, "ann", 5), (1, "bob", 2), (1, "cid", 1)])
    take([(1, "ann", 2), (1, "bob", 2)])
    assert holds() == {(1, "ann"): 3, (1, "bob"): 0, (1, "cid"): 1}


def test_a_key_that_comes_twice_counts_twice():
    add([(1, "ann", 2), (1, "bob", 1), (1, "ann", 3)])
    take([(1, "ann", 1), (1, "ann", 1)])
    assert holds() == {(1, "ann"): 3, (1, "bob"): 1}


def test_keys_are_compared_exactly():
    names = ["ann", "Ann", "ánn", "a\u0301nn", "o'ann", "ann\\", "%s", "🎟️"]
    add((1, name, number) for number, name in enumerate(names, start=1))
    add((1, name, 10) for name in names)
    assert holds() == {(1, name): 10 + number for number, name in enumerate(names, start=1)}


@pytest.mark.parametrize("first", [True, False])
def test_the_database_refuses_to_take_more_than_there_is(first):
    add([(1, "ann", 2), (1, "bob", 2)])
    rows = [(1, "ann", 3), (1, "bob", 1)] if first else [(1, "ann", 1), (1, "bob", 3)]
    assert meaning_of(refused(take, rows)) is Meaning.FORBIDDEN
    assert holds() == {(1, "ann"): 2, (1, "bob"): 2}


def test_many_counts_are_one_call():
    rows = [(number % 3, f"{number:05}" + "x" * 40, 1 + number % 7) for number in range(MANY)]
    with CaptureQueriesContext(connection) as queries:
        add(iter(rows))
        add(iter(rows))
        take(iter(rows[:1_000]))
    assert len(queries) == 3
    assert holds() == {
        (ticket_id, name): amount * (1 if place < 1_000 else 2)
        for place, (ticket_id, name, amount) in enumerate(rows)
    }


def test_threads_that_count_the_same_rows_lose_nothing():
    rows = [(1, f"buyer {number:02}", 1) for number in range(20)]
    add(rows)
    together(*times(8, lambda: in_transaction(lambda: (add(rows), add(rows), take(rows)))))
    assert holds() == {(ticket_id, name): 9 for ticket_id, name, _ in rows}


def test_taking_from_a_row_that_is_missing_is_told():
    with transaction.atomic():
        add([(1, "ann", 3), (1, "bob", 3)])
        assert take([(1, "ann", 1), (1, "bob", 2)])

    with transaction.atomic():
        assert not take([(1, "ann", 1), (1, "nobody", 1)])
        transaction.set_rollback(True)
    assert take([]), "nothing is missing of nothing"


def test_adding_tells_on_mysql_that_all_rows_are_new():
    with transaction.atomic():
        assert add([(1, "ann", 1), (1, "bob", 2)]) is (connection.vendor == "mysql")
        assert add([(1, "bob", 1), (1, "cid", 1)]) is False
        assert add([(1, "bob", 1)]) is False
        assert add([]) is False
