"""The reservation state machine, whole, on one page.

    INIT
    ├─ RESERVED ──┬─ COMMITTED
    │             └─ RELEASED
    └─ FAILED

INIT is the state before the row exists. COMMITTED, RELEASED and FAILED are final. A call is a row
of TRANSITIONS: reserving.py applies the first two, deciding.py the others, with a conditional
UPDATE that decides who wins. Whoever loses is answered by REFUSALS from the state that was found.
"""

from __future__ import annotations

from dataclasses import dataclass

from django.db import models


class Status(models.TextChoices):
    """What a stored reservation can be."""

    RESERVED = "RESERVED"
    COMMITTED = "COMMITTED"
    RELEASED = "RELEASED"
    FAILED = "FAILED"


INIT = "INIT"


@dataclass(frozen=True)
class Transition:
    """One row of the table: from a state to a state, and what each unit does to the counters."""

    source: str
    target: str
    effect: dict[str, int]


# call (also the kind of its ledger entry) → (from, to, effect on the stock row per unit)
TRANSITIONS = {
    "reserve": Transition(INIT, Status.RESERVED, {"available": -1, "reserved": +1}),
    "refuse": Transition(INIT, Status.FAILED, {}),
    "commit": Transition(Status.RESERVED, Status.COMMITTED, {"reserved": -1, "sold": +1}),
    "release": Transition(Status.RESERVED, Status.RELEASED, {"reserved": -1, "available": +1}),
    "expire": Transition(Status.RESERVED, Status.RELEASED, {"reserved": -1, "available": +1}),
}

EXPIRED = "expired"

# state found → code of the 409 for a call that would lead elsewhere
REFUSALS = {
    Status.COMMITTED: "reservation_already_committed",
    Status.RELEASED: "reservation_already_released",
    Status.FAILED: "reservation_failed",
}


def refusal_code(status: str, reason: str) -> str:
    """Return the code that tells a caller why a reservation in this state cannot move."""
    if status == Status.RELEASED and reason == EXPIRED:
        return "reservation_expired"
    return REFUSALS[Status(status)]
