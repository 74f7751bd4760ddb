"""The storefront's pages: shells with a navigation; their scripts fill them from the public API."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.cache import cache_control
from django.views.decorators.csrf import ensure_csrf_cookie
from django.views.decorators.http import require_safe

from gateway.identity import cookie_holder
from gateway.routes import SERVICES


def signed_in(request: HttpRequest) -> dict[str, Any]:
    """Give templates who is signed in and, for admins, where each service's admin is."""
    person = cookie_holder(request)
    is_admin = person is not None and person.role == "admin"
    return {"person": person, "admin_services": SERVICES if is_admin else ()}


def _shell(request: HttpRequest, name: str, **ids: Any) -> HttpResponse:
    return render(request, f"storefront/{name}.html", {"page": name, **ids})


# The scripts send the cookie's CSRF token back with every unsafe call; a cached page would show
# somebody else's navigation.
def _page(view: Any) -> Any:
    return require_safe(cache_control(private=True, no_cache=True)(ensure_csrf_cookie(view)))


@_page
def events(request: HttpRequest) -> HttpResponse:
    """List what is for sale."""
    return _shell(request, "events")


@_page
def event(request: HttpRequest, event_id: int) -> HttpResponse:
    """Show one event with its tickets, live."""
    return _shell(request, "event", event_id=event_id)


@_page
def orders(request: HttpRequest) -> HttpResponse:
    """List the visitor's own orders."""
    return _shell(request, "orders")


@_page
def order(request: HttpRequest, order_id: str) -> HttpResponse:
    """Show one order: countdown, payment, cancellation."""
    return _shell(request, "order", order_id=order_id)


@_page
def pay(request: HttpRequest, payment_id: str) -> HttpResponse:
    """Play the payment provider's page, for payments that the sandbox settles later."""
    return _shell(request, "pay", payment_id=payment_id)
