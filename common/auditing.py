"""What an audit says: invariants as checks, and every violation with its finding and its subject.

Plain values: they travel as JSON from a service's command to the audit across services, and from
there to the repairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# How many violations of a check are named; all of them are counted.
NAMED_MAX = 1_000
# How many of them a person is shown at once.
SHOWN_MAX = 20
Check = dict[str, Any]


@dataclass(frozen=True)
class Violation:
    """Something that must not be.

    ``finding`` is its kind, which repairs are looked up by; ``subject`` and ``id`` name the row it
    is about; ``details`` is what a repair has to know besides.
    """

    finding: str
    subject: str
    id: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict)


def check(number: str, name: str, violations: Iterable[Violation]) -> Check:
    """Return an invariant with what violates it, as JSON."""
    named: list[dict[str, Any]] = []
    count = 0
    for violation in violations:
        count += 1
        if count <= NAMED_MAX:
            named.append(asdict(violation))
    return {"id": number, "name": name, "ok": not count, "count": count, "violations": named}
