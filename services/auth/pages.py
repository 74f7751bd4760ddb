"""The pages where a person logs in, registers and logs out, with cookies instead of JSON."""

from __future__ import annotations

from django.conf import settings
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import never_cache
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST
from rest_framework_simplejwt.exceptions import TokenError

from common.admin_login import ADMIN_PREFIX
from common.errors import Problem, problem_response
from common.tokens import principal_from
from services.auth import accounts, cookies, registration, sessions
from services.auth.forms import LoginForm, RegistrationForm
from services.auth.models import LoginSession, User
from services.auth.sessions import BROWSER_PATIENCE, TokenPair
from services.auth.throttling import LoginAttempt

HOME = "/"
REFRESH_PATH = "/login/refresh"
# Going on to one of these after a login would lead back here, or out again.
_NO_TARGETS = ("/login", "/register", "/logout")
TARGET_LENGTH_MAX = 2000
# Under these codes, what is refused is about one field of the registration form.
_FIELD_OF_CODE = {"username_taken": "username", "email_taken": "email"}


@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def login(request: HttpRequest) -> HttpResponse:
    """Show the login form, or go on at once where this browser is signed in already."""
    target = _target(request)
    if request.method == "POST":
        return _log_in(request, target)
    user = _signed_in(request)
    pair = _renewed(request) if user is None and request.method == "GET" else None
    user = pair.user if pair else user
    if user is not None and _may_visit(user, target):
        return _go_on(pair, target)
    response = _login_page(request, LoginForm(), target, user=user)
    return cookies.sign_in(response, pair) if pair else response


@never_cache
@sensitive_post_parameters("password")
@require_http_methods(["GET", "HEAD", "POST"])
def register(request: HttpRequest) -> HttpResponse:
    """Show the registration form; whoever registers is signed in."""
    target = _target(request)
    form = RegistrationForm(request.POST if request.method == "POST" else None)
    status = 200
    if form.is_bound:
        status = 400
        if form.is_valid():
            try:
                user = registration.register(**form.cleaned_data)
                return _go_on(sessions.open_session(user), target)
            except Problem as problem:
                form.add_error(_FIELD_OF_CODE.get(problem.code), problem.text)
                status = problem.status_code
    return render(request, "accounts/register.html", {"form": form, "next": target}, status=status)


@never_cache
@require_POST
def refresh(request: HttpRequest) -> HttpResponse:
    """Renew the cookies for a page's script: 204, or 401 when this browser has to log in again."""
    token = request.COOKIES.get(settings.REFRESH_COOKIE, "")
    pair = sessions.refresh(token=token, patience=BROWSER_PATIENCE)
    return cookies.sign_in(HttpResponse(status=204), pair)


@never_cache
@require_POST
def logout(request: HttpRequest) -> HttpResponse:
    """End the login of this browser."""
    session_id = cookies.session_id(request)
    if session_id is not None:
        sessions.end(session_id=session_id, reason=LoginSession.End.LOGOUT)
    return cookies.sign_out(HttpResponseRedirect(HOME))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    """Say what to do when the CSRF token of a form or a script is missing or old."""
    if request.path == REFRESH_PATH:
        return problem_response(403, "csrf_failed", f"CSRF check failed: {reason}")
    return render(request, "accounts/csrf_failure.html", {"reason": reason}, status=403)


def _log_in(request: HttpRequest, target: str) -> HttpResponse:
    form = LoginForm(request.POST)
    if not form.is_valid():
        return _login_page(request, form, target, status=400)
    attempt = LoginAttempt(request, form.cleaned_data["username"])
    try:
        pair = sessions.log_in(**form.cleaned_data, attempt=attempt)
    except Problem as problem:
        form.add_error(None, problem.text)
        response = _login_page(request, form, target, status=problem.status_code)
        if problem.wait:
            response["Retry-After"] = str(problem.wait)
        return response
    return _go_on(pair, target)


def _login_page(
    request: HttpRequest,
    form: LoginForm,
    target: str,
    *,
    status: int = 200,
    user: User | None = None,
) -> HttpResponse:
    context = {"form": form, "next": target, "refused": user}
    return render(request, "accounts/login.html", context, status=status)


def _go_on(pair: TokenPair | None, target: str) -> HttpResponse:
    response = HttpResponseRedirect(target)
    return cookies.sign_in(response, pair) if pair is not None else response


def _target(request: HttpRequest) -> str:
    """Return where to go afterwards: a path of this site, never an address of another one."""
    target = request.POST.get("next") or request.GET.get("next") or HOME
    local = (
        target.startswith("/")
        and len(target) <= TARGET_LENGTH_MAX
        and target.isprintable()
        and url_has_allowed_host_and_scheme(target, allowed_hosts=None)
    )
    if not local or target.partition("?")[0].rstrip("/").startswith(_NO_TARGETS):
        return HOME
    return target


def _signed_in(request: HttpRequest) -> User | None:
    try:
        principal = principal_from(request.COOKIES.get(settings.ACCESS_COOKIE, ""))
    except TokenError:
        return None
    return accounts.find_active(principal)


def _may_visit(user: User, target: str) -> bool:
    # An admin site would send anybody else back here, for ever.
    return user.is_staff or not target.startswith(ADMIN_PREFIX)


def _renewed(request: HttpRequest) -> TokenPair | None:
    token = request.COOKIES.get(settings.REFRESH_COOKIE)
    if not token:
        return None
    try:
        return sessions.refresh(token=token, patience=BROWSER_PATIENCE)
    except Problem:
        return None
