"""Who may go where: the whole table, cell by cell."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gateway.policy import Allow, Refuse, decide
from gateway.routes import ROUTES

NOBODY, USER, ADMIN, SERVICE = None, "user", "admin", "service"

# (method, path) → the roles that may; taken from the HTTP contract, not from the code.
EVERYBODY = {NOBODY, USER, ADMIN, SERVICE}
PEOPLE = {USER, ADMIN}
CONTRACT: dict[tuple[str, str], set[str | None]] = {
    ("POST", "/api/auth/register"): EVERYBODY,
    ("POST", "/api/auth/login"): EVERYBODY,
    ("POST", "/api/auth/refresh"): EVERYBODY,
    ("POST", "/api/auth/logout"): EVERYBODY,
    ("GET", "/api/auth/me"): PEOPLE,
    ("GET", "/api/auth/jwks.json"): EVERYBODY,
    ("GET", "/api/catalog/events"): EVERYBODY,
    ("POST", "/api/catalog/events"): {ADMIN},
    ("GET", "/api/catalog/events/1"): EVERYBODY,
    ("PUT", "/api/catalog/events/1"): {ADMIN},
    ("PATCH", "/api/catalog/events/1"): {ADMIN},
    ("POST", "/api/catalog/events/1/publish"): {ADMIN},
    ("POST", "/api/catalog/events/1/unpublish"): {ADMIN},
    ("POST", "/api/catalog/events/1/end"): {ADMIN},
    ("POST", "/api/catalog/events/1/tickets"): {ADMIN},
    ("GET", "/api/catalog/tickets/1"): EVERYBODY,
    ("PUT", "/api/catalog/tickets/1"): {ADMIN},
    ("PATCH", "/api/catalog/tickets/1"): {ADMIN},
    ("POST", "/api/catalog/tickets/1/on-sale"): {ADMIN},
    ("POST", "/api/catalog/tickets/1/off-shelf"): {ADMIN},
    ("GET", "/api/catalog/tickets/1/availability"): EVERYBODY,
    ("PUT", "/api/inventory/stocks/1"): {ADMIN},
    ("GET", "/api/inventory/stocks/1"): {ADMIN, SERVICE},
    ("POST", "/api/inventory/stocks/1/adjust"): {ADMIN},
    ("GET", "/api/inventory/stocks"): {ADMIN},
    ("GET", "/api/inventory/stocks/1/movements"): {ADMIN},
    ("GET", "/api/inventory/reservations"): {ADMIN},
    ("POST", "/api/inventory/reservations"): {ADMIN, SERVICE},
    ("POST", "/api/inventory/reservations/r-1/extend"): {ADMIN, SERVICE},
    ("GET", "/api/inventory/reservations/r-1"): {ADMIN, SERVICE},
    ("POST", "/api/inventory/reservations/r-1/commit"): {ADMIN, SERVICE},
    ("POST", "/api/inventory/reservations/r-1/release"): {ADMIN, SERVICE},
    ("GET", "/api/orders"): PEOPLE,
    ("POST", "/api/orders"): PEOPLE,
    ("GET", "/api/orders/o-1"): PEOPLE,
    ("POST", "/api/orders/o-1/cancel"): PEOPLE,
    ("POST", "/api/orders/o-1/pay"): PEOPLE,
    ("GET", "/api/payments/p-1"): PEOPLE,
    ("POST", "/api/payments/sandbox/p-1/settle"): PEOPLE,
    ("POST", "/api/payments/webhooks/sandbox"): EVERYBODY,  # signed by the provider
    ("GET", "/"): EVERYBODY,
    ("GET", "/events/1"): EVERYBODY,
    ("GET", "/orders"): PEOPLE,
    ("GET", "/orders/o-1"): PEOPLE,
    ("GET", "/pay/p-1"): PEOPLE,
    ("GET", "/login"): EVERYBODY,
    ("POST", "/login"): EVERYBODY,
    ("POST", "/login/refresh"): EVERYBODY,
    ("POST", "/logout"): EVERYBODY,
    ("GET", "/register"): EVERYBODY,
    ("POST", "/register"): EVERYBODY,
    ("GET", "/api/docs"): EVERYBODY,
    ("GET", "/api/openapi.json"): EVERYBODY,
    ("GET", "/healthz"): EVERYBODY,
    ("GET", "/readyz"): EVERYBODY,
    **{
        (method, f"/admin/{service}/"): {ADMIN}
        for service in ("auth", "catalog", "inventory", "order")
        for method in ("GET", "POST")
    },
}


@dataclass(frozen=True)
class Caller:
    role: str


@pytest.mark.parametrize(("method", "path"), CONTRACT, ids=" ".join)
@pytest.mark.parametrize("role", [NOBODY, USER, ADMIN, SERVICE])
def test_who_may_call(method: str, path: str, role: str | None) -> None:
    decision = decide(method, path, Caller(role) if role else None)
    if role in CONTRACT[method, path]:
        assert isinstance(decision, Allow)
    elif role is NOBODY:
        assert decision == Refuse(401, "not_authenticated")
    else:
        assert decision == Refuse(403, "permission_denied")


def test_the_contract_names_every_route_and_method() -> None:
    decided = {
        (method, decision.route.path)
        for method, path in CONTRACT
        if isinstance(decision := decide(method, path, Caller(ADMIN)), Allow)
    }
    assert decided == {(method, route.path) for route in ROUTES for method in route.methods}


@pytest.mark.parametrize("method", ["DELETE", "TRACE", "get", "", "PROPFIND"])
def test_methods_that_nobody_named_are_refused_even_for_an_admin(method: str) -> None:
    assert decide(method, "/api/orders", Caller(ADMIN)) == Refuse(403, "not_routed")


def test_a_role_that_nobody_knows_opens_nothing() -> None:
    assert decide("GET", "/api/orders", Caller("root")) == Refuse(403, "permission_denied")
