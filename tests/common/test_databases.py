"""Databases: one moment for a whole audit, ids byte for byte, readiness that tells the truth."""

from __future__ import annotations

import pytest
from django.db import DatabaseError, OperationalError, connection, transaction

from common import health
from common.databases import consistent_snapshot, database_answers
from common.events.leases import Shares
from services.inventory.models import Reservation, TicketLabel
from tests.common.concurrency import together

pytestmark = pytest.mark.django_db(transaction=True)


def label(version):
    TicketLabel.objects.update_or_create(ticket_id=1, defaults={"label": "x", "version": version})


def version():
    return TicketLabel.objects.get(ticket_id=1).version


def test_a_snapshot_is_of_one_moment_while_others_write():
    label(1)
    with consistent_snapshot():
        assert version() == 1
        together(lambda: label(2))
        assert version() == 1
    assert version() == 2


def test_a_snapshot_stops_nobody_from_writing():
    label(1)
    with consistent_snapshot():
        version()
        together(lambda: label(2), lambda: Shares("x", 2, "holder", 10).held())


def test_after_a_snapshot_the_connection_is_as_before():
    label(1)
    with pytest.raises(TicketLabel.DoesNotExist), consistent_snapshot():
        TicketLabel.objects.get(ticket_id=99)
    assert not connection.in_atomic_block
    label(2)
    with transaction.atomic():
        assert version() == 2
        together(lambda: None)
    assert version() == 2


@pytest.mark.skipif("connection.vendor != 'mysql'", reason="the isolation level is MySQL's")
def test_transactions_after_a_snapshot_see_what_others_commit():
    label(1)
    with consistent_snapshot():
        version()
    with transaction.atomic():
        assert version() == 1
        together(lambda: label(2))
        assert version() == 2, "READ COMMITTED again"


def test_inside_of_a_transaction_the_snapshot_is_that_transactions_view():
    label(1)
    with transaction.atomic(), consistent_snapshot():
        label(5)
        assert version() == 5


@pytest.mark.parametrize("other", ["ABC", "abcé", "abc-", "Abc", "ábc"])
def test_ids_are_compared_byte_for_byte(other):
    fields = {"ticket_id": 1, "quantity": 1, "status": "FAILED", "expires_at": "2026-01-01T00:00Z"}
    Reservation.objects.create(pk="abc", **fields)
    Reservation.objects.create(pk=other, **fields)
    assert Reservation.objects.filter(pk=other).count() == 1
    assert Reservation.objects.count() == 2


def test_text_of_any_language_survives():
    text = "Ünïcödé 漢字 😀"
    TicketLabel.objects.create(ticket_id=2, label=text, version=1)
    assert TicketLabel.objects.get(ticket_id=2).label == text


def test_a_service_that_has_all_it_needs_is_ready(client):
    answer = client.get("/readyz")
    assert answer.status_code == 200
    checks = {"keys": "ok", "database": "ok", "cache": "ok"}
    assert answer.json() == {"status": "ok", "checks": checks}


def test_without_its_database_a_service_is_not_ready_but_alive(client, monkeypatch):
    def away():
        raise OperationalError(2002, "away")

    monkeypatch.setattr(health, "database_answers", away)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")
    assert "away" in answer.json()["checks"]["database"]
    assert client.get("/healthz").json() == {"status": "ok"}


def test_without_keys_a_service_is_not_ready(client, settings, tmp_path):
    settings.KEYS_DIR = tmp_path
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "no public key" in answer.json()["checks"]["keys"]


def test_without_redis_a_service_is_ready_and_says_what_is_missing(client, settings):
    dead = {**settings.CACHES["default"], "LOCATION": "redis://127.0.0.1:1/0"}
    settings.CACHES = {"default": dead}
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")
    assert answer.json()["checks"]["cache"] != "ok"


def test_the_database_check_asks_the_database():
    assert database_answers() == "ok"
    with pytest.raises(DatabaseError), connection.execute_wrapper(_refuse):
        database_answers()


def _refuse(execute, sql, params, many, context):
    raise OperationalError(2006, "gone")
