"""Guessing passwords is slow: failed logins are counted per account and per address.

Successful logins cost nothing, so a crowd behind one address can log in at once. An account is
counted by the name that was sent, whether it exists or not: the answer tells nothing about that.
Guesses under way at the same moment see each other only when they have failed, so their number
can exceed the limit by what the service works on at once, never by more.
"""

from __future__ import annotations

import ipaddress

from django.conf import settings
from django.http import HttpRequest

from common.errors import Problem, Unavailable
from common.rate_limits import Usage, client_ip, count_call

ACCOUNT_FAILURES = "10/5m"
# A school or a company may stand behind one address, with all its typing errors.
ADDRESS_FAILURES = "100/5m"
# What one subscriber gets: within it, an IPv6 address is as free to choose as a port.
IPV6_PREFIX_LENGTH = 64


class LoginAttempt:
    """One try to log in as ``username`` from where ``request`` comes."""

    def __init__(self, request: HttpRequest, username: str) -> None:
        self._request = request
        self._limits = [("login:account", username.lower(), ACCOUNT_FAILURES)]
        address = client_ip(request)
        if address not in settings.LIMIT_EXEMPT_IPS:
            self._limits.append(("login:address", _network(address), ADDRESS_FAILURES))

    def require_allowed(self) -> None:
        """Raise 429 ``rate_limited`` after too many failures; 503 when they cannot be counted."""
        for group, key, rate in self._limits:
            usage = self._count(group, key, rate, increment=False)
            if usage.remaining == 0:
                raise _refusal(usage)

    def failed(self) -> None:
        """Count a failure; raises as ``require_allowed`` does when it was one too many."""
        usages = [self._count(*limit, increment=True) for limit in self._limits]
        for usage in usages:
            if usage.limited:
                raise _refusal(usage)

    def _count(self, group: str, key: str, rate: str, *, increment: bool) -> Usage:
        return count_call(
            self._request, group=group, key=key, rate=rate, fail_open=False, increment=increment
        )


def _refusal(usage: Usage) -> Problem:
    if usage.limit == 0:
        return Unavailable("login_unavailable", "Logging in is not possible just now; try again.")
    return Problem(
        429,
        "rate_limited",
        "Too many failed logins; wait a few minutes and try again.",
        retry_after_seconds=usage.retry_after_seconds,
    )


def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, IPV6_PREFIX_LENGTH), strict=False))
