"""Inventory's repairs: what the audit found is put right, by conditions that a second one fails."""

from __future__ import annotations

import pytest

from common.events.models import OutboxEvent
from common.repairing import NOTHING, repair_all
from services.inventory import limits
from services.inventory.models import BuyerHold, Stock
from services.inventory.repairing import REPAIRS
from tests.common.concurrency import together
from tests.inventory.books import counters, make_overdue, status_of, violations

pytestmark = pytest.mark.django_db(transaction=True)


def repair(name, row_id, **more):
    """Do one repair; return what came of it."""
    [done] = repair_all([{"repair": name, "id": row_id, "why": "a test", **more}], REPAIRS)
    assert done["ok"], done
    return done["result"]


@pytest.fixture
def books(order, tickets):
    tickets(20)
    for name in ("held", "sold", "released"):
        order.reserve(name, quantity=2, buyer_id="ann")
    order.commit("sold")
    order.release("released")


@pytest.mark.parametrize("counted", [0, 3, 9, None])
def test_a_buyers_count_is_recomputed_from_the_reservations(books, order, counted):
    ann = BuyerHold.objects.filter(ticket_id=1, buyer_id="ann")
    ann.delete() if counted is None else ann.update(quantity=counted)
    assert len(violations()) == 1

    result = repair("recount_buyer", "1", buyer_id="ann")

    assert result == f"counted 4 instead of {counted or 0}"
    assert violations() == []
    assert repair("recount_buyer", "1", buyer_id="ann") == NOTHING
    order.release("held")
    assert (ann.get().quantity, violations()) == (2, [])


def test_a_count_of_nothing_is_recounted_too(books):
    BuyerHold.objects.create(ticket_id=1, buyer_id="eve", quantity=1)
    repair("recount_buyer", "1", buyer_id="eve")
    assert violations() == []


@pytest.mark.parametrize("call", ["reserve", "release"])
def test_a_recount_and_a_call_at_the_same_moment_miss_nothing(books, order, call):
    """Whichever comes first: what the other one does is counted once."""
    BuyerHold.objects.update(quantity=9)
    target = {
        "reserve": lambda: order.reserve("new", quantity=3, buyer_id="ann"),
        "release": lambda: order.release("held"),
    }[call]

    together(lambda: limits.recount(1, "ann"), target)

    assert violations() == []


def test_only_a_hold_whose_time_is_over_is_given_back(books):
    assert repair("expire_hold", "held") == NOTHING
    make_overdue("held")
    assert repair("expire_hold", "held") == "given back"
    assert (status_of("held"), counters()) == ("RELEASED", (18, 0, 2))
    for over in ("held", "sold", "nobody"):
        assert repair("expire_hold", over) == NOTHING
    assert violations() == []


@pytest.mark.parametrize(("above", "version"), [(0, 6 + 1), (6, 6 + 1), (90, 90 + 1)])
def test_counters_are_published_again_under_a_version_that_counts_as_news(books, above, version):
    assert Stock.objects.get().version == 6

    result = repair("republish_stock", "1", above=above)

    event = OutboxEvent.objects.order_by("seq").last()
    assert result == f"published as version {version}"
    assert event.type == "stock.changed"
    told = event.payload["data"]
    assert (told["version"], told["available"], told["reserved"], told["sold"]) == (
        *(version, 16, 2, 2),
    )
    assert Stock.objects.get().version == version
    assert violations() == []


def test_the_counters_of_an_unknown_ticket_cannot_be_published(books):
    before = OutboxEvent.objects.count()
    assert repair("republish_stock", "77") == NOTHING
    assert OutboxEvent.objects.count() == before
