from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("events", "0002_partitions"),
    ]

    operations = [
        migrations.CreateModel(
            name="Subscriber",
            fields=[
                (
                    "id",
                    models.BigAutoField(
                        auto_created=True, primary_key=True, serialize=False, verbose_name="ID"
                    ),
                ),
                ("stream", models.CharField(max_length=64)),
                ("name", models.CharField(max_length=64)),
                ("seen_at", models.DateTimeField()),
            ],
            options={
                "db_table": "outbox_subscriber",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("stream", "name"), name="outbox_subscriber_once"
                    )
                ],
            },
        ),
    ]
