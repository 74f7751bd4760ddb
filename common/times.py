"""Moments as the API and the events write them."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(moment: datetime) -> str:
    """Return a moment as UTC ISO 8601, as DRF writes it."""
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z")


def iso_or_none(moment: datetime | None) -> str | None:
    """Return a moment as UTC ISO 8601, and an open end as None."""
    return iso(moment) if moment else None
