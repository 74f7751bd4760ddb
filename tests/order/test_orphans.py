"""Torn purchases: a hold that does not fit its order is found, and its units come back."""

from __future__ import annotations

import pytest

from common.errors import Unavailable
from services.order import inventory_client, orphans, placing
from services.order.inventory_client import Entry
from services.order.models import Order
from services.order.sweeping import Sweeper
from tests.order.driver import hold, make_due, reservation_ids, violations

pytestmark = pytest.mark.django_db


def test_a_torn_purchase_is_resolved_and_its_units_come_back(
    ann, on_sale, inventory, suspect_at_once
):
    ticket = on_sale(10)
    order_id = hold(inventory, ann, ticket, 3)

    assert orphans.OrphanSearch().step() == 1

    assert inventory.stock(ticket) == (10, 0, 0)
    order = Order.objects.get(pk=order_id)
    assert (order.status, order.rejection["code"]) == ("REJECTED", "order_interrupted")
    assert order.settled_at is not None
    assert orphans.OrphanSearch().step() == 0
    assert violations() == []


def test_the_buyer_of_a_torn_purchase_is_told_so_by_the_same_key(
    ann, bob, on_sale, inventory, suspect_at_once
):
    ticket = on_sale(10)
    order_id = hold(inventory, ann, ticket)
    orphans.OrphanSearch().step()
    assert ann.order(order_id).status == 404, "nobody's yet"

    told = ann.place({ticket: 1})
    another_body = ann.place({ticket: 2})

    assert (told.status, told.code) == (409, "order_interrupted")
    assert told.headers["Idempotent-Replayed"] == "true"
    assert (another_body.status, another_body.code) == (422, "idempotency_key_reused")
    assert ann.order(order_id).body["status"] == "REJECTED"
    assert bob.order(order_id).status == 404
    assert ann.place({ticket: 1}, key="new").status == 201
    assert violations() == []


def test_a_request_that_comes_in_after_its_stand_in_loses_and_holds_nothing(
    ann, on_sale, inventory, suspect_at_once, monkeypatch
):
    ticket = on_sale(10)
    prepare = placing._draft

    def sweep_meanwhile(*args):
        assert orphans.OrphanSearch().step() == 1
        return prepare(*args)

    monkeypatch.setattr(placing, "_draft", sweep_meanwhile)

    late = ann.place({ticket: 2})

    assert (late.status, late.code) == (409, "order_interrupted")
    assert inventory.stock(ticket) == (10, 0, 0)
    assert Order.objects.get().status == "REJECTED"
    assert violations() == []


def test_a_hold_that_no_line_of_its_order_names_is_given_back(
    ann, on_sale, inventory, suspect_at_once
):
    ordered, stray = on_sale(10), on_sale(10)
    order_id = ann.place({ordered: 2}).body["id"]
    hold(inventory, ann, stray)

    assert orphans.OrphanSearch().step() == 1

    assert inventory.stock(stray) == (10, 0, 0)
    assert inventory.stock(ordered) == (8, 2, 0)
    assert ann.order(order_id).body["status"] == "AWAITING_PAYMENT"


@pytest.mark.parametrize("status", ["CANCELLED", "EXPIRED", "REJECTED"])
def test_a_hold_of_an_order_that_is_over_is_given_back(
    ann, on_sale, inventory, suspect_at_once, status
):
    ticket = on_sale(10)
    order_id = ann.place({ticket: 2}).body["id"]
    Order.objects.filter(pk=order_id).update(status=status)

    orphans.OrphanSearch().step()

    assert inventory.stock(ticket) == (10, 0, 0)
    assert Order.objects.get().settled_at is not None


def test_a_hold_of_a_paid_order_is_sold(ann, on_sale, inventory, road, suspect_at_once):
    ticket = on_sale(10)
    order_id = ann.place({ticket: 2}).body["id"]
    road.plan("down")
    ann.pay(order_id)

    assert orphans.OrphanSearch().step() == 1

    assert inventory.stock(ticket) == (8, 0, 2)
    assert ann.order(order_id).body["status"] == "CONFIRMED"


def test_orphans_are_found_page_by_page(ann, on_sale, inventory, suspect_at_once, monkeypatch):
    monkeypatch.setattr(orphans, "PAGE_SIZE", 2)
    ticket = on_sale(10)
    for n in range(5):
        hold(inventory, ann, ticket, key=f"k{n}")

    assert orphans.OrphanSearch().step() == 5
    assert inventory.stock(ticket) == (10, 0, 0)


def test_more_holds_than_one_look_bears_are_looked_at_in_the_next_ones(
    ann, on_sale, inventory, suspect_at_once, monkeypatch
):
    monkeypatch.setattr(orphans, "PAGE_SIZE", 2)
    monkeypatch.setattr(orphans, "PAGES_MAX", 1)
    ticket = on_sale(10)
    for n in range(4):
        ann.place({ticket: 1}, key=f"ordered{n}")
    hold(inventory, ann, ticket, key="torn")
    search = orphans.OrphanSearch()

    assert [search.step() for _ in range(4)] == [0, 0, 1, 0]

    hold(inventory, ann, ticket, key="torn later")
    assert search.step() == 1
    assert inventory.stock(ticket) == (6, 4, 0)


def test_what_was_in_line_is_looked_at_again_after_a_while(
    ann, on_sale, inventory, suspect_at_once, monkeypatch
):
    monkeypatch.setattr(orphans, "PAGE_SIZE", 2)
    ticket = on_sale(10)
    ids = [ann.place({ticket: 1}, key=f"k{n}").body["id"] for n in range(4)]
    search = orphans.OrphanSearch()
    assert search.step() == 0
    Order.objects.filter(pk=ids[0]).update(status="CANCELLED")
    assert search.step() == 0
    monkeypatch.setattr(orphans, "ALL_AGAIN_AFTER_SECONDS", 0.0)

    assert search.step() + search.step() == 1
    assert inventory.stock(ticket) == (7, 3, 0)


def test_an_order_that_cannot_be_brought_in_line_hides_no_torn_purchase(
    ann, bob, on_sale, inventory, road, suspect_at_once, monkeypatch
):
    ticket = on_sale(10)
    order_id = ann.place({ticket: 1}).body["id"]
    road.plan("down")
    ann.pay(order_id)
    commit = inventory_client.commit
    # What inventory answers where its books disagree.
    broken = [Entry(reservation_ids(order_id)[0], code="internal_error")]
    monkeypatch.setattr(
        inventory_client,
        "commit",
        lambda ids: broken if ids == reservation_ids(order_id) else commit(ids),
    )
    hold(inventory, bob, ticket, 3)

    assert orphans.OrphanSearch().step() == 1

    assert inventory.stock(ticket) == (9, 1, 0)


def test_a_search_that_meets_nobody_at_inventory_gives_up_soon(
    ann, on_sale, inventory, suspect_at_once, monkeypatch
):
    ticket = on_sale(10)
    for n in range(8):
        hold(inventory, ann, ticket, key=f"torn{n}")
    asked = []

    def away(reservation_ids):
        asked.append(reservation_ids)
        raise Unavailable("inventory_unavailable", "Away.")

    monkeypatch.setattr(inventory_client, "release", away)

    with pytest.raises(Unavailable):
        orphans.OrphanSearch().step()
    assert len(asked) == orphans.FAILURES_MAX


def test_one_round_of_the_sweeper_does_all_of_it(ann, on_sale, inventory, road, suspect_at_once):
    ticket = on_sale(10)
    order_id = ann.place({ticket: 2}).body["id"]
    road.plan("down")
    ann.pay(order_id)
    hold(inventory, ann, ticket, key="torn")
    make_due()
    sweeper = Sweeper()

    assert sweeper.step() == 2
    assert sweeper.step() == 0
    assert inventory.stock(ticket) == (8, 0, 2)
    assert violations() == []
