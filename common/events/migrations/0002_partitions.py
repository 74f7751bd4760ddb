from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("events", "0001_initial"),
    ]

    operations = [
        migrations.CreateModel(
            name="Bookmark",
            fields=[
                ("stream", models.CharField(max_length=64, primary_key=True, serialize=False)),
                ("position", models.CharField(blank=True, default="", max_length=64)),
            ],
            options={
                "db_table": "outbox_bookmark",
            },
        ),
        migrations.AddField(
            model_name="outboxevent",
            name="partition",
            field=models.PositiveSmallIntegerField(db_default=0),
        ),
        migrations.AlterField(
            model_name="inboxevent",
            name="status",
            field=models.CharField(
                choices=[("APPLIED", "Applied"), ("PARKED", "Parked"), ("DISCARDED", "Discarded")],
                default="APPLIED",
                max_length=16,
            ),
        ),
        migrations.AddIndex(
            model_name="inboxevent",
            index=models.Index(fields=["status", "received_at"], name="inbox_status"),
        ),
        migrations.AddIndex(
            model_name="outboxevent",
            index=models.Index(
                fields=["partition", "published_at", "seq"], name="outbox_partition"
            ),
        ),
        # Last, as the version before reads by these until it is replaced; without them it is slower.
        migrations.RemoveIndex(
            model_name="outboxevent",
            name="outbox_unpublished",
        ),
        migrations.RemoveIndex(
            model_name="inboxevent",
            name="inbox_received",
        ),
    ]
