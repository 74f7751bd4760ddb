"""Facts go out with the effect they speak of: in its transaction, with the whole new state."""

from __future__ import annotations

from functools import partial

import pytest
from django.db import transaction

from common.events.models import OutboxEvent
from common.events.outbox import publish
from services.inventory import expiry, ledger, reservations, stock
from services.inventory.deciding import Decision
from tests.common.concurrency import together
from tests.inventory.books import counters, make_overdue, status_of
from tests.inventory.driver import decide_group, entry, reserve_group

pytestmark = pytest.mark.django_db(transaction=True)


def published(event_type="stock.changed", subject="1"):
    """Return the data of the events of one subject, in the order of the outbox."""
    rows = OutboxEvent.objects.filter(type=event_type, aggregateid=subject).order_by("seq")
    return [row.payload["data"] for row in rows]


def test_every_change_of_stock_is_announced_with_its_whole_state_and_version(admin, order):
    admin.set_stock(1, 10)
    order.reserve("a", quantity=2)
    order.commit("a")
    order.reserve("b", quantity=3)
    order.release("b")
    admin.adjust(1, 5)
    order.reserve("c", quantity=1)
    make_overdue("c")
    expiry.expire_batch()

    states = [(e["total"], e["available"], e["reserved"], e["sold"]) for e in published()]
    assert states == [
        (10, 10, 0, 0),
        (10, 8, 2, 0),
        (10, 8, 0, 2),
        (10, 5, 3, 2),
        (10, 8, 0, 2),
        (15, 13, 0, 2),
        (15, 12, 1, 2),
        (15, 13, 0, 2),
    ]
    assert [event["version"] for event in published()] == list(range(1, 9))
    assert admin.stock().body == published()[-1]


def test_what_changes_nothing_is_not_announced(admin, order):
    admin.set_stock(1, 10)
    order.reserve("a", quantity=2)
    order.commit("a")
    before = OutboxEvent.objects.count()

    for refused_or_replayed in (
        partial(order.reserve, "a", quantity=2),
        partial(order.reserve, "a", quantity=3),
        partial(order.reserve, "b", quantity=99),
        partial(order.commit, "a"),
        partial(order.release, "a"),
        partial(order.commit, "nobody"),
        partial(admin.set_stock, 1, 5),
        partial(admin.adjust, 1, -99),
        expiry.expire_batch,
    ):
        refused_or_replayed()

    assert OutboxEvent.objects.count() == before


def test_a_group_announces_each_ticket_once(order, tickets):
    tickets(10, 10)
    order.batch(reserve_group(entry("a", 1, 1), entry("b", 1, 2), entry("c", 2, 3)))
    order.batch(decide_group("commit", "a", "b", "c"))

    assert [event["available"] for event in published(subject="1")] == [10, 7, 7]
    assert [event["sold"] for event in published(subject="2")] == [0, 0, 3]


def test_an_event_has_the_names_of_cloudevents_and_the_columns_of_debezium(admin):
    answer = admin.call("PUT", "/api/inventory/stocks/1", {"total": 5}, x_request_id="req-1")

    row = OutboxEvent.objects.get()
    assert (row.aggregatetype, row.aggregateid, row.type) == ("ticket", "1", "stock.changed")
    assert row.published_at is None
    event = row.payload
    assert event["id"] == str(row.id)
    assert row.id.version == 7
    assert (event["specversion"], event["source"]) == ("1.0", "/flashsale/inventory")
    assert (event["type"], event["subject"]) == ("stock.changed", "1")
    assert event["datacontenttype"] == "application/json"
    assert event["requestid"] == "req-1" == answer.headers["X-Request-ID"]
    assert event["data"] == answer.body


def test_versions_follow_the_order_in_which_changes_happened(order, tickets):
    tickets(100)

    together(*(partial(order.reserve, f"r{n}") for n in range(20)))

    events = published()
    versions = [event["version"] for event in events]
    assert versions == list(range(1, 1 + len(events))), "one for each transaction"
    left = [event["available"] for event in events]
    assert left == sorted(left, reverse=True)
    assert (left[0], left[-1]) == (100, 80)


@pytest.mark.parametrize(
    "change",
    [
        lambda: stock.initialise(ticket_id=2, total=5, actor="test"),
        lambda: stock.adjust(ticket_id=1, delta=5, actor="test"),
        lambda: reservations.decide("commit", [Decision(["a"], "test")]),
        lambda: reservations.decide("release", [Decision(["a"], "test")]),
        lambda: expiry.expire_batch(),
    ],
    ids=["initialise", "adjust", "commit", "release", "expire"],
)
def test_an_event_is_rolled_back_with_its_effect(order, tickets, change):
    tickets(10)
    order.reserve("a", quantity=2)
    if change.__code__.co_names[0] == "expiry":
        make_overdue("a")
    before = (OutboxEvent.objects.count(), counters(), status_of("a"))

    with transaction.atomic():
        change()
        assert OutboxEvent.objects.count() > before[0], "written inside the transaction"
        transaction.set_rollback(True)

    assert (OutboxEvent.objects.count(), counters(), status_of("a")) == before


@pytest.mark.parametrize("module", [ledger, stock], ids=["ledger", "outbox"])
def test_an_effect_is_rolled_back_when_what_must_follow_it_fails(
    order, tickets, monkeypatch, module
):
    tickets(10)
    order.reserve("a", quantity=2)
    before = (OutboxEvent.objects.count(), counters(), status_of("a"))
    name = "record_reservations" if module is ledger else "publish_all"

    def crash(*_, **__):
        raise RuntimeError("crash")

    monkeypatch.setattr(module, name, crash)
    assert order.commit("a").status == 500
    assert order.release("a").status == 500
    assert order.reserve("b").status == 500

    assert (OutboxEvent.objects.count(), counters(), status_of("a")) == before
    assert status_of("b") is None


def test_publishing_outside_of_a_transaction_is_refused():
    with pytest.raises(RuntimeError, match="transaction"):
        publish(aggregate_type="ticket", aggregate_id="1", event_type="stock.changed", data={})
    assert OutboxEvent.objects.count() == 0
