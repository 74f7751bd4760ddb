"""What no serializer or filter of the system may let through, wherever it comes in."""

from __future__ import annotations

from datetime import UTC, datetime

from django.core.exceptions import ValidationError

# Dates outside of this are typing errors, and every database and time zone can hold those inside.
EARLIEST = datetime(2000, 1, 1, tzinfo=UTC)
LATEST = datetime(2200, 1, 1, tzinfo=UTC)


def validate_year(moment: datetime) -> None:
    """Refuse dates that can only be typing errors."""
    if not EARLIEST <= moment <= LATEST:
        raise ValidationError(
            f"Must be between {EARLIEST.year} and {LATEST.year}.", code="out_of_range"
        )
