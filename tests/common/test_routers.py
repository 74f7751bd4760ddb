"""Routers: a service touches its own tables, and reads a replica only where it was asked to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import ImproperlyConfigured
from django.db import models

from common.events.models import OutboxEvent
from common.idempotency.models import IdempotencyRecord
from services.inventory.models import Reservation, Stock
from services.inventory.router import InventoryRouter

ROOT = Path(__file__).resolve().parents[2]
OWN = (Stock, Reservation, OutboxEvent, IdempotencyRecord, User, LogEntry)


def foreign(label):
    """Return a model of another service's app, as it would be if somebody imported it here."""
    meta = type("Meta", (), {"app_label": label, "managed": False})
    return type(f"Foreign{label}", (models.Model,), {"__module__": __name__, "Meta": meta})


ORDER, ACCOUNT = foreign("order"), foreign("accounts")


@pytest.mark.parametrize("model", OWN)
def test_own_models_live_in_the_services_database(model):
    router = InventoryRouter()
    assert router.db_for_read(model) == router.db_for_write(model) == "default"
    assert router.allow_migrate("default", model._meta.app_label)


@pytest.mark.parametrize("model", [ORDER, ACCOUNT])
def test_models_of_other_services_are_refused(model):
    router = InventoryRouter()
    for ask in (router.db_for_read, router.db_for_write):
        with pytest.raises(ImproperlyConfigured, match="no service touches another's tables"):
            ask(model)
    assert not router.allow_migrate("default", model._meta.app_label)
    assert not router.allow_relation(Stock(), model())
    assert not router.allow_relation(model(), Stock())


@pytest.mark.django_db
@pytest.mark.parametrize(
    "query",
    [
        lambda: ORDER.objects.first(),
        lambda: ORDER.objects.update(id=1),
        lambda: ORDER.objects.create(),
        lambda: ORDER.objects.all().delete(),
        lambda: ORDER(id=1).save(),
    ],
)
def test_a_query_on_another_services_model_does_not_reach_the_database(query):
    with pytest.raises(ImproperlyConfigured):
        query()


def test_nothing_migrates_on_a_replica():
    assert not InventoryRouter().allow_migrate("replica", "inventory")


# Runs in a process of its own, as settings are read once. The replica is a copy of the database
# that says 7 where the primary says 100.
WITH_REPLICA = """
import json, shutil, sqlite3, sys
import django
django.setup()
from django.conf import settings
from django.core.management import call_command
from django.db import connections, transaction
from django.db.models import F
from common.routers import replica_reads
from common.transactions import in_transaction
from services.inventory.models import Stock
from tests.common.concurrency import together

call_command("migrate", verbosity=0)
Stock.objects.create(ticket_id=1, total=100, available=100)
connections.close_all()
primary, replica = (settings.DATABASES[name]["NAME"] for name in ("default", "replica"))
sqlite3.connect(primary).execute("PRAGMA wal_checkpoint(TRUNCATE)")
shutil.copy(primary, replica)
copy = sqlite3.connect(replica)
copy.execute("UPDATE stock SET total = 7, available = 7")
copy.commit()

total = lambda: Stock.objects.get(ticket_id=1).total
told = {"plain": total()}
with replica_reads():
    told["opted in"] = total()
    told["in another thread"] = together(total)[0]
    with transaction.atomic():
        told["in a transaction"] = total()
    told["in in_transaction"] = in_transaction(total)
    Stock.objects.filter(ticket_id=1).update(total=F("total") + 1, available=F("available") + 1)
    told["after a write"] = total()
    with replica_reads():
        pass
    told["after an inner block"] = total()
try:
    with replica_reads():
        raise ValueError
except ValueError:
    told["after an error"] = total()
told["afterwards"] = total()
told["replica"] = copy.execute("SELECT total FROM stock").fetchone()[0]
print(json.dumps(told))
"""


def test_a_replica_answers_opted_in_reads_outside_of_transactions_and_nothing_else(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", WITH_REPLICA],
        env={
            **os.environ,
            "INVENTORY_DATABASE_URL": f"sqlite:///{tmp_path}/primary.sqlite3",
            "INVENTORY_REPLICA_URL": f"sqlite:///{tmp_path}/replica.sqlite3",
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "plain": 100,
        "opted in": 7,
        "in another thread": 100,
        "in a transaction": 100,
        "in in_transaction": 100,
        "after a write": 7,
        "after an inner block": 7,
        "after an error": 101,
        "afterwards": 101,
        "replica": 7,
    }
