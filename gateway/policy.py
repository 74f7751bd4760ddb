"""Decides whether a call may pass, from the route table and from who is calling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.routes import Route, Who, find

ROLES_LET_IN = {
    Who.USER: frozenset({"user", "admin"}),
    Who.ADMIN: frozenset({"admin"}),
    Who.SERVICE_OR_ADMIN: frozenset({"service", "admin"}),
}


class Caller(Protocol):
    """Whoever a verified token speaks for."""

    @property
    def role(self) -> str: ...


@dataclass(frozen=True)
class Allow:
    """The call may pass, on this route."""

    route: Route


@dataclass(frozen=True)
class Refuse:
    """The call may not pass; ``code`` says why."""

    status: int
    code: str


def decide(method: str, path: str, caller: Caller | None) -> Allow | Refuse:
    """Return whether ``caller`` (None: nobody is known) may call ``method`` on ``path``.

    ``path`` is the path as sent, without its query. nginx has matched the same table before it
    asks; whatever the table does not know is refused here all the same.
    """
    route = find(path)
    who = route.who(method) if route else None
    if route is None or who is None:
        return Refuse(403, "not_routed")
    # A provider has no token: the service checks the signature of what it sends.
    if who in (Who.ANYONE, Who.PROVIDER):
        return Allow(route)
    if caller is None:
        return Refuse(401, "not_authenticated")
    if caller.role not in ROLES_LET_IN[who]:
        return Refuse(403, "permission_denied")
    return Allow(route)
