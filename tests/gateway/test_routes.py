"""The route table: what it knows, and that every reader of it sees the same."""

from __future__ import annotations

import re

import pytest

from gateway.routes import PLAIN_PATH, READS, ROUTES, SERVICES, Route, Who, find


def sample(route: Route) -> str:
    """Return an address that the route stands for."""
    path = route.path.replace("{int}", "17").replace("{key}", "0190-ab_C")
    return path.replace("*", "inventory/stock/1/change/")


def test_every_route_finds_itself_and_no_other() -> None:
    for route in ROUTES:
        path = sample(route)
        assert re.fullmatch(PLAIN_PATH, path)
        assert find(path) is route
        assert [other for other in ROUTES if re.fullmatch(other.regex, path)] == [route]


def test_every_route_goes_to_a_known_upstream() -> None:
    assert {route.upstream for route in ROUTES} == {*SERVICES, "gateway"}


def test_services_mount_the_paths_that_are_routed_to_them() -> None:
    for route in ROUTES:
        match = re.match(r"/(?:api|admin)/([a-z]+)", route.path)
        if match and match[1] in SERVICES:
            assert route.upstream == match[1]


@pytest.mark.parametrize(
    "path",
    [
        "/internal/inventory/reservations:batch",
        "/internal/inventory/holds",
        "/internal/catalog/tickets/1/offer",
        "/internal/order/openapi.json",
        "/internal/gateway/authorize",
        "/.authorize",
        "/admin/",
        "/admin/gateway/",
        "/admin/catalog",
        "/api/",
        "/api",
        "/metrics",
    ],
)
def test_what_is_internal_or_unknown_has_no_route(path: str) -> None:
    assert find(path) is None


@pytest.mark.parametrize(
    "path",
    [
        "",
        "api/orders",
        "//api/orders",
        "/api//orders",
        "/api/orders/",
        "/api/orders/.",
        "/api/catalog/../orders",
        "/api/catalog/events/1/../../../inventory/stocks/1",
        "/admin/catalog/../inventory/",
        "/admin/catalog/./stock/",
        "/api/%6frders",
        "/api%2forders",
        "/api/orders%00",
        "/api/orders%0a",
        "/api/orders\n",
        "/api/orders;x=1",
        "/api\\orders",
        "/API/orders",
        "/api/Orders",
        "/api/catalog/events/1e3",
        "/api/catalog/events/-1",
        "/api/catalog/events/٣",
        "/api/catalog/events/9999999999999999999",
        "/api/orders/" + "a" * 65,
        "/api/payments/webhooks/stripe/extra",
        "/admin/catalog/" + "a/" * 2000,
    ],
)
def test_a_path_that_is_not_in_its_plainest_form_has_no_route(path: str) -> None:
    assert find(path) is None


def test_safe_methods_count_as_reads_and_others_as_what_the_route_says() -> None:
    orders = find("/api/orders")
    assert orders is not None
    assert orders.limit_of("GET") is READS
    assert orders.limit_of("POST").name == "buying"


def test_methods_that_a_route_does_not_name_are_for_nobody() -> None:
    for route in ROUTES:
        assert route.who("DELETE") is None
        assert route.who("TRACE") is None


def test_a_read_of_a_write_only_route_needs_what_the_write_needs() -> None:
    publish = find("/api/catalog/events/1/publish")
    assert publish is not None
    assert publish.who("GET") is Who.ADMIN
    assert publish.who("OPTIONS") is Who.ADMIN


def test_only_answers_that_are_the_same_for_everybody_are_copied() -> None:
    for route in ROUTES:
        if route.cache_seconds:
            assert set(route.methods.values()) == {Who.ANYONE}
            assert set(route.methods) == {"GET"}
