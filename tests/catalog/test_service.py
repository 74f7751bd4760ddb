"""The service as a whole: audit, schema, health, loops, tables."""

from __future__ import annotations

import io
import json

import pytest
from django.apps import apps
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import IntegrityError, connection, transaction
from django.test import Client
from django.utils.module_loading import import_string

from common.events.inbox import park_event
from common.loops import Loop
from services.catalog.models import Availability, Event, Ticket
from tests.catalog.test_queries import EVENT_MEMBERS, TICKET_MEMBERS

pytestmark = pytest.mark.django_db(transaction=True)


def audit() -> dict:
    out = io.StringIO()
    call_command("audit", "--json", stdout=out)
    return json.loads(out.getvalue())


def test_the_audit_tells_what_is_known_and_what_waits(show):
    event = show()
    Availability.objects.create(ticket_id=7, available=3, version=9)
    result = audit()
    assert result["service"] == "catalog"
    assert all(check["ok"] and check["violations"] == [] for check in result["checks"])
    assert result["facts"]["availability"] == {"7": {"available": 3, "version": 9}}
    assert result["facts"]["unsent_count"] == 2, event


def test_the_audit_finds_a_parked_event():
    park_event({"id": "0" * 32, "type": "stock.changed", "data": {}}, "no version")
    parked = next(check for check in audit()["checks"] if check["name"] == "no event is parked")
    assert (parked["ok"], parked["count"]) == (False, 1)
    assert "no version" in parked["violations"][0]["text"]
    with pytest.raises(CommandError):
        call_command("audit", stdout=io.StringIO())


def test_the_tables_have_the_names_of_the_design():
    names = {model._meta.db_table for model in apps.get_app_config("catalog").get_models()}
    assert names == {"event", "ticket", "availability"}
    present = set(connection.introspection.table_names())
    assert names | {"outbox_event", "inbox_event"} <= present


@pytest.mark.parametrize(
    "changes",
    [
        {"price": 10**9 + 1},
        {"per_order_limit": 0},
        {"per_order_limit": 10**6 + 1},
        {"per_user_limit": 0},
        {"sale_starts_at": "2027-01-02T00:00Z", "sale_ends_at": "2027-01-01T00:00Z"},
    ],
)
def test_the_database_refuses_a_ticket_that_makes_no_sense(show, changes):
    show()
    with pytest.raises(IntegrityError), transaction.atomic():
        Ticket.objects.update(**changes)


def test_the_database_refuses_an_event_that_ends_before_it_starts(show):
    show()
    with pytest.raises(IntegrityError), transaction.atomic():
        Event.objects.update(ends_at="2001-01-01T00:00Z")


def test_every_loop_and_subscription_names_something_that_exists():
    assert all(isinstance(import_string(path), Loop) for path in settings.LOOPS)
    for handlers in settings.EVENT_SUBSCRIPTIONS.values():
        assert all(callable(import_string(path)) for path in handlers.values())


def test_the_service_is_alive_and_ready():
    client = Client()
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").json()["status"] == "ok"


def test_the_schema_describes_every_call_and_every_member(show):
    schema = Client().get("/internal/catalog/openapi.json").json()
    operations = {
        operation["operationId"]: operation
        for item in schema["paths"].values()
        for operation in item.values()
    }
    assert set(operations) == {
        "event_list",
        "event_create",
        "event_get",
        "event_replace",
        "event_update",
        "event_publish",
        "event_unpublish",
        "event_end",
        "ticket_create",
        "ticket_get",
        "ticket_replace",
        "ticket_update",
        "ticket_on_sale",
        "ticket_off_shelf",
        "ticket_availability",
    }
    assert all(operation["tags"] == ["catalog"] for operation in operations.values())
    parameters = {parameter["name"] for parameter in operations["event_list"]["parameters"]}
    assert parameters == {
        "search",
        "starts_after",
        "starts_before",
        "status",
        "ordering",
        "page",
        "page_size",
    }
    open_to_all = {name for name, operation in operations.items() if {} in operation["security"]}
    assert open_to_all == {"event_list", "event_get", "ticket_get", "ticket_availability"}
    shapes = schema["components"]["schemas"]
    assert set(shapes["Event"]["properties"]) == EVENT_MEMBERS
    assert set(shapes["Ticket"]["properties"]) == TICKET_MEMBERS
    assert shapes["EventInputRequest"]["required"] == ["ends_at", "starts_at", "title"]
    assert shapes["TicketInputRequest"]["required"] == ["name", "price"]


def test_no_schema_change_waits_for_a_migration():
    call_command("makemigrations", "--check", "--dry-run", stdout=io.StringIO())
