"""What the catalog says no with, where more than one module does."""

from __future__ import annotations

from common.errors import NotFound, Problem


def event_not_found() -> NotFound:
    """Return the refusal for an event that is not there, or not for the caller."""
    return NotFound("event_not_found", "There is no such event.")


def ticket_not_found() -> NotFound:
    """Return the refusal for a ticket that is not there, or not for the caller."""
    return NotFound("ticket_not_found", "There is no such ticket.")


def invalid_transition(call: str, *, thing: str, wanted: str, found: str) -> Problem:
    """Return the refusal of a step that does not start from the state that was found."""
    return Problem(
        409,
        "invalid_transition",
        f"{call} is for {thing} that is {wanted}; this one is {found}.",
        current_status=found,
    )


def wrong_way_round(start: str, end: str) -> Problem:
    """Return the refusal of a period that would end before it starts."""
    detail = f"{end} must not be before {start}."
    error = {"field": end, "code": "before_start", "detail": detail}
    return Problem(400, "validation_error", detail, errors=[error])
