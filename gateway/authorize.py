"""Answers nginx's auth_request: may this call pass?

204 lets it pass, 401 and 403 refuse it; nginx lets no other answer pass. X-Refusal says why, and
X-Login where a browser should go. Too many calls are a 403 with ``rate_limited`` and Retry-After.
"""

from __future__ import annotations

from urllib.parse import quote

from django.conf import settings
from django.http import HttpRequest, HttpResponse

from common.rate_limits import client_ip, count_call
from common.tokens import Principal
from gateway.identity import InvalidToken, caller_of
from gateway.policy import Refuse, decide
from gateway.routes import Limit, find


def authorize(request: HttpRequest) -> HttpResponse:
    """Decide about the call that the X-Original headers describe."""
    method = request.headers.get("X-Original-Method", "")
    uri = request.headers.get("X-Original-URI", "")
    path = uri.partition("?")[0]
    route = find(path)
    try:
        caller = caller_of(request, route.upstream) if route else None
    except InvalidToken:
        return _refuse(request, Refuse(401, "invalid_token"), uri)
    decision = decide(method, path, caller)
    if isinstance(decision, Refuse):
        return _refuse(request, decision, uri)
    if caller is not None:
        wait_seconds = _too_often(request, caller, decision.route.limit_of(method))
        if wait_seconds:
            response = _refuse(request, Refuse(403, "rate_limited"), uri)
            response["Retry-After"] = str(wait_seconds)
            return response
    return HttpResponse(status=204)


def _refuse(request: HttpRequest, refusal: Refuse, uri: str) -> HttpResponse:
    # Plain, as nginx reads headers only: an HTML refusal would be replaced by a problem document.
    response = HttpResponse(status=refusal.status, content_type="text/plain")
    response["X-Refusal"] = refusal.code
    if refusal.status == 401 and "text/html" in request.headers.get("Accept", ""):
        # Header bytes are latin-1 here: quoted as such, they come back as they were sent.
        target = quote(uri, safe="/", encoding="latin-1")
        response["X-Login"] = f"{settings.LOGIN_PATH}?next={target}"
    return response


def _too_often(request: HttpRequest, caller: Principal, limit: Limit) -> int:
    """Count the call and return how many seconds to wait, 0 when the limit is not reached.

    Without Redis nothing is counted: buying must go on, and nginx still limits by address.
    """
    if limit.by_user is None or client_ip(request) in settings.LIMIT_EXEMPT_IPS:
        return 0
    usage = count_call(
        request,
        group=f"gateway:{limit.name}",
        key=f"{caller.role}:{caller.id}",
        rate=limit.by_user,
        fail_open=True,
    )
    return usage.retry_after_seconds if usage.limited else 0
