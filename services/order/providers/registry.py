"""The configured providers (settings.PAYMENT_PROVIDERS), by name and by payment method."""

from __future__ import annotations

from functools import cache
from typing import cast

from django.conf import settings
from django.utils.module_loading import import_string

from common.errors import NotFound
from services.order.providers.base import PaymentProvider


def provider(name: str) -> PaymentProvider:
    """Return a provider; NotFound ``provider_not_found`` for one that is not configured."""
    found = _providers().get(name)
    if found is None:
        raise NotFound("provider_not_found", "There is no such payment provider.")
    return found


def methods() -> dict[str, PaymentProvider]:
    """Return every payment method with its provider, the default method first."""
    return {method: one for one in _providers().values() for method in one.methods}


@cache
def _providers() -> dict[str, PaymentProvider]:
    return {
        name: cast(PaymentProvider, import_string(path)())
        for name, path in settings.PAYMENT_PROVIDERS.items()
    }
