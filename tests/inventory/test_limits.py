"""Limits per person: they count what a buyer holds or has bought, over all orders."""

from __future__ import annotations

import pytest

from services.inventory import expiry
from services.inventory.models import BuyerHold
from tests.inventory.books import counters, make_overdue, violations
from tests.inventory.driver import entry, reserve_group

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def buy(order, tickets):
    """Return what reserves for ann, who may have 3 of ticket 1 or of ticket 2."""
    tickets(100, 100)

    def reserve(reservation_id, quantity, ticket_id=1, buyer_id="ann", limit=3):
        return order.reserve(
            reservation_id, ticket_id, quantity, buyer_id=buyer_id, buyer_limit=limit
        )

    return reserve


def held(buyer_id="ann", ticket_id=1):
    """Return what is counted against a buyer."""
    row = BuyerHold.objects.filter(buyer_id=buyer_id, ticket_id=ticket_id).first()
    return row.quantity if row else 0


def test_a_second_order_cannot_defeat_the_limit(buy):
    assert buy("a", 2).status == 201
    refused = buy("b", 2)

    assert (refused.status, refused.code) == (409, "limit_exceeded")
    assert (refused.body["limit"], refused.body["ticket_id"]) == (3, 1)
    assert buy("c", 1).status == 201, "the third unit is still allowed"
    assert (held(), counters()) == (3, (97, 3, 0))
    assert violations() == []


def test_one_order_beyond_the_limit_is_refused_and_recorded(buy, order):
    assert buy("a", 4).code == "limit_exceeded"
    assert buy("a", 4).code == "limit_exceeded", "the replay tells the same reason"
    assert order.reservation("a").body["reason"] == "limit_exceeded"
    assert held() == 0


def test_entries_of_one_group_are_summed_against_the_limit(buy, order):
    ann = {"buyer_id": "ann", "buyer_limit": 3}

    answer = order.batch(reserve_group(entry("a", 1, 2, **ann), entry("b", 1, 2, **ann)))

    codes = [one["error"]["code"] for one in answer.body["groups"][0]["entries"]]
    assert codes == ["limit_exceeded", "limit_exceeded"]
    assert held() == 0


def test_the_limit_counts_per_ticket_and_per_buyer(buy):
    assert buy("a", 3).status == 201
    assert buy("b", 3, ticket_id=2).status == 201
    assert buy("c", 3, buyer_id="bob").status == 201
    assert buy("d", 3, buyer_id="ANN").status == 201, "buyers are compared byte for byte"
    assert (held(), held(ticket_id=2), held("bob"), held("ANN")) == (3, 3, 3, 3)
    assert violations() == []


def test_what_is_released_or_expired_may_be_bought_again(buy, order):
    buy("a", 3)
    order.release("a")
    assert held() == 0
    buy("b", 3)
    make_overdue("b")
    expiry.expire_batch()

    assert buy("c", 3).status == 201
    assert violations() == []


def test_what_is_sold_stays_counted(buy, order):
    buy("a", 3)
    order.commit("a")

    assert buy("b", 1).code == "limit_exceeded"
    assert held() == 3


def test_a_reserve_refused_for_stock_counts_nothing(buy, order):
    order.reserve("rest", 1, 99)

    assert buy("a", 2).code == "insufficient_stock"
    assert held() == 0
    assert violations() == []


def test_a_buyer_without_a_limit_is_counted_all_the_same(buy, order):
    order.reserve("a", 1, 50, buyer_id="ann")

    assert held() == 50
    assert buy("b", 1).code == "limit_exceeded"


def test_nobodys_reservations_count_against_nobody(buy, order):
    order.reserve("a", 1, 5, buyer_limit=3)
    order.reserve("b", 1, 5, buyer_limit=3, buyer_id=None)

    assert BuyerHold.objects.count() == 0


def test_the_lowest_limit_of_a_group_counts(buy, order):
    answer = order.batch(
        reserve_group(
            entry("a", 1, 1, buyer_id="ann", buyer_limit=5),
            entry("b", 1, 1, buyer_id="ann", buyer_limit=1),
        )
    )
    assert not answer.body["groups"][0]["ok"]
