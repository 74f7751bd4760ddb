from django.db import migrations, models
from django.db.models import Sum

import common.fields


def count_again(apps, schema_editor):
    """What buyers hold follows from their reservations."""
    reservations = apps.get_model("inventory", "Reservation").objects
    holds = apps.get_model("inventory", "BuyerHold")
    live = reservations.filter(status__in=["RESERVED", "COMMITTED"]).exclude(buyer_id="")
    sums = live.values_list("ticket_id", "buyer_id").annotate(units=Sum("quantity")).order_by()
    holds.objects.bulk_create(
        [
            holds(ticket_id=ticket_id, buyer_id=buyer_id, quantity=units)
            for ticket_id, buyer_id, units in sums.iterator()
        ],
        batch_size=1000,
    )


class Migration(migrations.Migration):
    dependencies = [("inventory", "0002_hold_extension")]

    operations = [
        migrations.DeleteModel(name="BuyerHold"),
        migrations.CreateModel(
            name="BuyerHold",
            fields=[
                (
                    "pk",
                    models.CompositePrimaryKey(
                        "ticket_id",
                        "buyer_id",
                        blank=True,
                        editable=False,
                        primary_key=True,
                        serialize=False,
                    ),
                ),
                ("ticket_id", models.PositiveBigIntegerField()),
                ("buyer_id", common.fields.ExactCharField(max_length=64)),
                ("quantity", models.PositiveIntegerField(default=0)),
            ],
            options={
                "db_table": "buyer_hold",
                "constraints": [
                    models.CheckConstraint(
                        condition=models.Q(("quantity__gte", 0)), name="buyer_hold_not_negative"
                    ),
                ],
            },
        ),
        migrations.RunPython(count_again, migrations.RunPython.noop),
        migrations.RemoveIndex(model_name="reservation", name="reservation_ticket"),
        migrations.AddIndex(
            model_name="reservation",
            index=models.Index(fields=["created_at"], name="reservation_created"),
        ),
        migrations.AddIndex(
            model_name="reservation",
            index=models.Index(fields=["ticket_id", "created_at"], name="reservation_of_ticket"),
        ),
        migrations.AddIndex(
            model_name="reservation",
            index=models.Index(fields=["buyer_id", "created_at"], name="reservation_of_buyer"),
        ),
        migrations.RemoveIndex(model_name="stockmovement", name="movement_ticket"),
        migrations.AddIndex(
            model_name="stockmovement",
            index=models.Index(
                fields=["ticket_id", "seq", "kind", "quantity"], name="movement_sums"
            ),
        ),
    ]
