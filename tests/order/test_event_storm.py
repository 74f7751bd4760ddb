"""The order service's offers end in the catalog's newest state, however its events come."""

from __future__ import annotations

import pytest

from common.events.redis_streams import RedisStreams
from common.events.transport import stream_name
from services.order.models import TicketOffer
from tests.common import event_storm
from tests.order.driver import new_ticket_id, offer

pytestmark = pytest.mark.django_db(transaction=True)
TICKETS, VERSIONS = 5, 20


def test_a_storm_of_doubled_shuffled_and_late_events_ends_in_the_newest_offers(monkeypatch):
    RedisStreams()._redis.delete(stream_name("catalog"), stream_name("inventory"))
    newest = {new_ticket_id(): VERSIONS + extra for extra in range(TICKETS)}
    events = [
        event_storm.event(
            "catalog",
            "ticket.changed",
            offer(
                ticket_id,
                version=version,
                price=version * 100,
                status="ON_SALE" if version % 2 else "OFF_SHELF",
            ),
        )
        for ticket_id, last in newest.items()
        for version in range(1, last + 1)
    ]

    event_storm.rage("catalog", events, monkeypatch)

    offers = TicketOffer.objects.values_list("ticket_id", "version", "price", "status")
    assert set(offers) == {
        (ticket_id, last, last * 100, "ON_SALE" if last % 2 else "OFF_SHELF")
        for ticket_id, last in newest.items()
    }
