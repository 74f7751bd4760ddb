"""The route table: everything that is reachable from outside, who may call it, and who serves it.

nginx's configuration, the authorization policy and the documentation are all made from ROUTES, so
that they cannot disagree. What is not in the table does not exist for the outside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

SERVICES = ("auth", "catalog", "inventory", "order")
GATEWAY = "gateway"

# Only such paths are routed: no escapes, no empty or dot segments. nginx and a service that decode
# or normalise differently can then never mean two different things by one address.
_SEGMENT = "[A-Za-z0-9_~-][A-Za-z0-9._~-]*"
PLAIN_PATH = f"/(?:{_SEGMENT}/)*(?:{_SEGMENT})?"
URI_LENGTH_MAX = 2000  # gunicorn refuses request lines of 4094 bytes with a bare 400

# The variable parts that a pattern may name. Eighteen digits still fit a BIGINT.
_PARTS = {"{int}": "[0-9]{1,18}", "{key}": "[A-Za-z0-9_-]{1,64}"}
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class Who(StrEnum):
    """Who may call; the services themselves decide about single objects (owner)."""

    ANYONE = "anyone"
    USER = "user"
    ADMIN = "admin"
    SERVICE_OR_ADMIN = "service or admin"
    PROVIDER = "provider"


class Kind(StrEnum):
    """What answers: decides the Content-Security-Policy and how a browser is refused."""

    API = "api"
    PAGE = "page"
    ADMIN = "admin"
    DOCS = "docs"


@dataclass(frozen=True)
class Limit:
    """How often one address (nginx) and one user (gateway) may call; ``burst`` is the allowance."""

    name: str
    by_ip: str
    burst: int
    by_user: str | None = None


# Buying is generous by address, as a whole campus may stand behind one; the user is the real limit.
READS = Limit("reads", by_ip="100r/s", burst=300, by_user="1200/m")
BUYING = Limit("buying", by_ip="20r/s", burst=60, by_user="60/m")
WRITES = Limit("writes", by_ip="20r/s", burst=100, by_user="300/m")
SIGN_IN = Limit("sign_in", by_ip="1r/s", burst=20)
WEBHOOKS = Limit("webhooks", by_ip="100r/s", burst=400)
LIMITS = (READS, BUYING, WRITES, SIGN_IN, WEBHOOKS)


@dataclass(frozen=True)
class Route:
    """One line of the table. A path that ends in ``/*`` stands for everything below it."""

    path: str
    upstream: str
    methods: Mapping[str, Who]
    limit: Limit = READS  # for its unsafe methods; the safe ones always count as reads
    kind: Kind = Kind.API
    cache_seconds: int = 0  # nginx may answer all callers from one copy for so long

    @property
    def is_prefix(self) -> bool:
        """Whether the route stands for everything below its path."""
        return self.path.endswith("/*")

    @property
    def is_exact(self) -> bool:
        """Whether the path has no variable part."""
        return not self.is_prefix and "{" not in self.path

    @property
    def prefix(self) -> str:
        """The path of a prefix route without its star."""
        return self.path.removesuffix("*")

    @cached_property
    def regex(self) -> str:
        """The path as a regular expression that nginx and Python read alike."""
        pieces = re.split(r"(\{\w+\})", self.prefix)
        pattern = "".join(_PARTS[p] if p.startswith("{") else re.escape(p) for p in pieces)
        return pattern.replace(r"\-", "-") + (".*" if self.is_prefix else "")

    @cached_property
    def allowed_methods(self) -> tuple[str, ...]:
        """The methods nginx lets through, sorted.

        The safe ones always are: a GET of a POST-only route gets the service's 405, which in a
        browser is a page with the form to fill in.
        """
        return tuple(sorted(_SAFE_METHODS | set(self.methods)))

    def who(self, method: str) -> Who | None:
        """Return who may call with ``method``; None when nobody may."""
        if method in self.methods:
            return self.methods[method]
        if method not in _SAFE_METHODS:
            return None
        return self.methods.get("GET") or next(iter(self.methods.values()))

    def limit_of(self, method: str) -> Limit:
        """Return the limit that a call with ``method`` counts against."""
        return READS if method in _SAFE_METHODS else self.limit

    @property
    def safe_methods(self) -> frozenset[str]:
        """The methods that only read."""
        return _SAFE_METHODS

    @property
    def open_methods(self) -> frozenset[str]:
        """The methods that need no authorization by the gateway."""
        free = (Who.ANYONE, Who.PROVIDER)
        return frozenset(m for m in self.allowed_methods if self.who(m) in free)


def _auth_routes() -> tuple[Route, ...]:
    anyone_posts = {"POST": Who.ANYONE}
    form = {"GET": Who.ANYONE, "POST": Who.ANYONE}
    return (
        Route("/api/auth/register", "auth", anyone_posts, SIGN_IN),
        Route("/api/auth/login", "auth", anyone_posts, SIGN_IN),
        Route("/api/auth/refresh", "auth", anyone_posts, WRITES),
        Route("/api/auth/logout", "auth", anyone_posts, WRITES),
        Route("/api/auth/me", "auth", {"GET": Who.USER}),
        Route("/api/auth/jwks.json", "auth", {"GET": Who.ANYONE}),
        Route("/login", "auth", form, SIGN_IN, Kind.PAGE),
        Route("/register", "auth", form, SIGN_IN, Kind.PAGE),
        Route("/login/refresh", "auth", anyone_posts, WRITES, Kind.PAGE),
        Route("/logout", "auth", anyone_posts, WRITES, Kind.PAGE),
    )


def _catalog_routes() -> tuple[Route, ...]:
    base = "/api/catalog"
    listed = {"GET": Who.ANYONE, "POST": Who.ADMIN}
    single = {"GET": Who.ANYONE, "PUT": Who.ADMIN, "PATCH": Who.ADMIN}
    action = {"POST": Who.ADMIN}
    return (
        Route(f"{base}/events", "catalog", listed, WRITES),
        Route(f"{base}/events/{{int}}", "catalog", single, WRITES),
        Route(f"{base}/events/{{int}}/publish", "catalog", action, WRITES),
        Route(f"{base}/events/{{int}}/unpublish", "catalog", action, WRITES),
        Route(f"{base}/events/{{int}}/end", "catalog", action, WRITES),
        Route(f"{base}/events/{{int}}/tickets", "catalog", action, WRITES),
        Route(f"{base}/tickets/{{int}}", "catalog", single, WRITES),
        Route(f"{base}/tickets/{{int}}/on-sale", "catalog", action, WRITES),
        Route(f"{base}/tickets/{{int}}/off-shelf", "catalog", action, WRITES),
        # What every open page polls: a crowd costs the catalog one request a second.
        Route(
            f"{base}/tickets/{{int}}/availability",
            "catalog",
            {"GET": Who.ANYONE},
            cache_seconds=1,
        ),
    )


def _inventory_routes() -> tuple[Route, ...]:
    base = "/api/inventory"
    machine = Who.SERVICE_OR_ADMIN
    stock = {"GET": machine, "PUT": Who.ADMIN}
    return (
        Route(f"{base}/stocks", "inventory", {"GET": Who.ADMIN}),
        Route(f"{base}/stocks/{{int}}", "inventory", stock, WRITES),
        Route(f"{base}/stocks/{{int}}/movements", "inventory", {"GET": Who.ADMIN}),
        Route(f"{base}/stocks/{{int}}/adjust", "inventory", {"POST": Who.ADMIN}, WRITES),
        Route(f"{base}/reservations", "inventory", {"GET": Who.ADMIN, "POST": machine}, WRITES),
        Route(f"{base}/reservations/{{key}}", "inventory", {"GET": machine}),
        Route(f"{base}/reservations/{{key}}/commit", "inventory", {"POST": machine}, WRITES),
        Route(f"{base}/reservations/{{key}}/release", "inventory", {"POST": machine}, WRITES),
        Route(f"{base}/reservations/{{key}}/extend", "inventory", {"POST": machine}, WRITES),
    )


def _order_routes() -> tuple[Route, ...]:
    reads, posts = {"GET": Who.USER}, {"POST": Who.USER}
    webhook = {"POST": Who.PROVIDER}
    return (
        Route("/api/orders", "order", reads | posts, BUYING),
        Route("/api/orders/{key}", "order", reads),
        Route("/api/orders/{key}/cancel", "order", posts, WRITES),
        Route("/api/orders/{key}/pay", "order", posts, BUYING),
        Route("/api/payments/{key}", "order", reads),
        Route("/api/payments/sandbox/{key}/settle", "order", posts, BUYING),
        Route("/api/payments/webhooks/{key}", "order", webhook, WEBHOOKS),
    )


def _page_routes() -> tuple[Route, ...]:
    anyone, user = {"GET": Who.ANYONE}, {"GET": Who.USER}
    return (
        Route("/", GATEWAY, anyone, kind=Kind.PAGE),
        Route("/events/{int}", GATEWAY, anyone, kind=Kind.PAGE),
        Route("/orders", GATEWAY, user, kind=Kind.PAGE),
        Route("/orders/{key}", GATEWAY, user, kind=Kind.PAGE),
        Route("/pay/{key}", GATEWAY, user, kind=Kind.PAGE),
        Route("/api/docs", GATEWAY, anyone, kind=Kind.DOCS),
        Route("/api/openapi.json", GATEWAY, anyone),
        Route("/healthz", GATEWAY, anyone),
        Route("/readyz", GATEWAY, anyone),
    )


def _admin_routes() -> tuple[Route, ...]:
    methods = {"GET": Who.ADMIN, "POST": Who.ADMIN}
    return tuple(
        Route(f"/admin/{service}/*", service, methods, WRITES, Kind.ADMIN) for service in SERVICES
    )


# Longer prefixes never overlap other lines, so the order says nothing (a test checks it).
ROUTES: tuple[Route, ...] = (
    *_page_routes(),
    *_auth_routes(),
    *_catalog_routes(),
    *_inventory_routes(),
    *_order_routes(),
    *_admin_routes(),
)

_EXACT = {route.path: route for route in ROUTES if route.is_exact}
_PATTERNS = tuple((re.compile(route.regex), route) for route in ROUTES if not route.is_exact)
_PLAIN = re.compile(PLAIN_PATH)


def find(path: str) -> Route | None:
    """Return the route that serves ``path`` (as sent, without its query), or None."""
    if len(path) > URI_LENGTH_MAX or not _PLAIN.fullmatch(path):
        return None
    if path in _EXACT:
        return _EXACT[path]
    return next((route for pattern, route in _PATTERNS if pattern.fullmatch(path)), None)
