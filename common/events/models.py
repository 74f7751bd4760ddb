"""Tables of the transactional outbox and inbox; every service has them in its own database."""

from __future__ import annotations

from typing import ClassVar

from django.db import models

from common.ids import uuid7

# Every aggregate's events lie in one of these, and one relay at a time sends those of one. A row
# keeps the number that it was written with: more of them need nothing else, fewer an empty outbox.
PARTITIONS = 8


class OutboxEvent(models.Model):
    """A fact that is to be published. Column names are Debezium's, so that a CDC connector fits."""

    seq = models.BigAutoField(primary_key=True)
    id = models.UUIDField(default=uuid7, unique=True, editable=False)
    aggregatetype = models.CharField(max_length=64)
    aggregateid = models.CharField(max_length=64)
    type = models.CharField(max_length=64)
    payload = models.JSONField()
    created_at = models.DateTimeField(auto_now_add=True)
    published_at = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    # The database's default serves the version before, which knows of no partitions.
    partition = models.PositiveSmallIntegerField(db_default=0)

    class Meta:
        db_table = "outbox_event"
        # Serves the relay, the metrics and the purge, so that a publication pays for one.
        indexes: ClassVar = [
            models.Index(fields=["partition", "published_at", "seq"], name="outbox_partition")
        ]

    def __str__(self) -> str:
        return f"{self.type} {self.aggregateid}"


class InboxEvent(models.Model):
    """An event that this service has dealt with, written in the transaction of its effect."""

    class Status(models.TextChoices):
        APPLIED = "APPLIED"
        # It failed too often: a person has to look at it.
        PARKED = "PARKED"
        # A person has, and gave it up.
        DISCARDED = "DISCARDED"

    id = models.UUIDField(primary_key=True)
    type = models.CharField(max_length=64)
    status = models.CharField(max_length=16, choices=Status.choices, default=Status.APPLIED)
    received_at = models.DateTimeField(auto_now_add=True)
    # Empty for applied events: what is needed to look at one and to try it again.
    payload = models.JSONField(null=True)
    error = models.TextField(blank=True, default="")

    class Meta:
        db_table = "inbox_event"
        indexes: ClassVar = [models.Index(fields=["status", "received_at"], name="inbox_status")]

    def __str__(self) -> str:
        return f"{self.type} {self.id}"


class Lease(models.Model):
    """Who may do what only one process should do at a time, and until when."""

    name = models.CharField(max_length=64, primary_key=True)
    holder = models.CharField(max_length=64, blank=True, default="")
    expires_at = models.DateTimeField()

    class Meta:
        db_table = "lease"

    def __str__(self) -> str:
        return f"{self.name} held by {self.holder}"


class Bookmark(models.Model):
    """Up to where a stream has been seen to hold what was published; see common.events.bookmark."""

    stream = models.CharField(max_length=64, primary_key=True)
    position = models.CharField(max_length=64, blank=True, default="")

    class Meta:
        db_table = "outbox_bookmark"

    def __str__(self) -> str:
        return f"{self.stream} up to {self.position or 'nothing'}"


class Subscriber(models.Model):
    """A consumer group of a stream, and when it was last alive; see common.events.subscribers."""

    stream = models.CharField(max_length=64)
    name = models.CharField(max_length=64)
    seen_at = models.DateTimeField()

    class Meta:
        db_table = "outbox_subscriber"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["stream", "name"], name="outbox_subscriber_once")
        ]

    def __str__(self) -> str:
        return f"{self.name} of {self.stream}"
