"""The configured providers: all of them refund and report, one takes new payments."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import cast

from django.conf import settings
from django.utils.module_loading import import_string

from common.errors import NotFound
from services.order.providers.base import PaymentProvider

# Nobody can be asked: longer than any page is known to live.
UNKNOWN_PAGE_LIFETIME = timedelta(hours=24)


def provider(name: str) -> PaymentProvider:
    """Return a provider; NotFound ``provider_not_found`` for one that is not configured."""
    found = _providers().get(name)
    if found is None:
        raise NotFound("provider_not_found", "There is no such payment provider.")
    return found


def methods() -> dict[str, PaymentProvider]:
    """Return every method of paying with its provider, the default method first."""
    chosen = provider(settings.PAYMENT_PROVIDER)
    return dict.fromkeys(chosen.methods, chosen)


def is_configured(name: str) -> bool:
    """Tell whether a provider can be asked."""
    return name in _providers()


def page_lifetime(name: str) -> timedelta | None:
    """Return how long a provider's pages can take money, also of one that is not configured."""
    found = _providers().get(name)
    return UNKNOWN_PAGE_LIFETIME if found is None else found.page_lifetime


@cache
def _providers() -> dict[str, PaymentProvider]:
    return {
        name: cast(PaymentProvider, import_string(path)())
        for name, path in settings.PAYMENT_PROVIDERS.items()
    }
