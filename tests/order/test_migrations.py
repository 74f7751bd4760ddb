"""Migrations run while the version before them still serves."""

from __future__ import annotations

from uuid import uuid4

import pytest
from django.db import connection
from django.utils import timezone

from services.order.models import Order, Payment

pytestmark = pytest.mark.django_db

ADDED_LATER = {"order": {"late_payment"}, "payment": {"page"}}


def insert(model, **values):
    """Insert a row as a version does that knows nothing of the columns added later."""
    fields = [f for f in model._meta.concrete_fields if f.name not in ADDED_LATER[table(model)]]
    row = [f.get_db_prep_save(values.get(f.attname, f.get_default()), connection) for f in fields]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(f.column) for f in fields)
    marks = ", ".join(["%s"] * len(fields))
    with connection.cursor() as cursor:
        cursor.execute(f"INSERT INTO {quote(table(model))} ({columns}) VALUES ({marks})", row)


def table(model):
    return model._meta.db_table


def test_the_version_before_can_still_insert_orders_and_payments():
    now = timezone.now()
    times = {"created_at": now, "updated_at": now, "due_at": now}
    order = {"user_id": "1", "idempotency_key": "k", "fingerprint": "f", "status": "CANCELLED"}
    money = {"currency": "EUR", "provider": "sandbox", "method": "sandbox_ok"}
    order_id, payment_id = uuid4(), uuid4()

    insert(Order, id=order_id, total=1, expires_at=now, currency="EUR", **order, **times)
    insert(Payment, id=payment_id, order_id=order_id, amount=1, **money, **times)

    assert Order.objects.get().late_payment == ""
    assert Payment.objects.get().page == ""
