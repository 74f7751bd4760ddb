"""The login pages: a browser gets cookies, and nothing leads it astray."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from django.conf import settings
from django.test import Client

from common.tokens import principal_from
from services.auth import accounts
from services.auth.models import LoginSession, User
from tests.auth.conftest import PASSWORD, Browser

pytestmark = pytest.mark.django_db
ACCESS, REFRESH, SESSION = "flashsale_access", "flashsale_refresh", "flashsale_session"


def _renew(browser: Browser, **headers: str) -> Any:
    return browser.post("/login/refresh", HTTP_X_CSRFTOKEN=browser.csrf_token(), **headers)


class TestLogin:
    def test_signs_in_with_cookies_that_no_script_can_read(
        self, person: Any, browser: Browser
    ) -> None:
        person("ann")
        response = browser.log_in()
        assert (response.status_code, response["Location"]) == (302, "/")
        paths = {ACCESS: "/", REFRESH: "/login", SESSION: "/logout"}
        for name, path in paths.items():
            cookie = response.cookies[name]
            assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == (path, True, "Lax")
        assert response.cookies[ACCESS]["max-age"] == 900
        assert principal_from(response.cookies[ACCESS].value).username == "ann"

    @pytest.mark.parametrize("secure", [True, False])
    def test_the_cookies_are_secure_where_the_site_is(
        self, settings: Any, person: Any, browser: Browser, secure: bool
    ) -> None:
        settings.COOKIE_SECURE = secure
        person("ann")
        cookies = browser.log_in().cookies
        assert [bool(cookies[name]["secure"]) for name in (ACCESS, REFRESH, SESSION)] == [
            secure
        ] * 3

    def test_a_wrong_password_shows_the_form_again_without_the_password(
        self, person: Any, browser: Browser
    ) -> None:
        person("ann")
        response = browser.log_in(password="wrong-password")
        page = response.content.decode()
        assert response.status_code == 401
        assert "The username or the password is wrong." in page
        assert 'value="ann"' in page
        assert "wrong-password" not in page
        assert ACCESS not in response.cookies

    def test_too_many_failures_are_said_in_words(self, person: Any, browser: Browser) -> None:
        person("ann")
        for _ in range(10):
            browser.log_in(password="wrong-password")
        response = browser.log_in()
        assert response.status_code == 429
        assert int(response["Retry-After"]) >= 1
        assert "Too many failed logins" in response.content.decode()

    @pytest.mark.parametrize("fields", [{}, {"username": "a\x00b"}, {"username": "x" * 9_000}])
    def test_bad_input_shows_the_form_again(self, browser: Browser, fields: dict[str, str]) -> None:
        assert browser.submit("/login", **fields).status_code == 400

    def test_broken_utf8_and_huge_bodies_do_no_harm(self, browser: Browser) -> None:
        token = browser.csrf_token()
        form = "application/x-www-form-urlencoded"
        broken = f"csrfmiddlewaretoken={token}&username=%ff%fe&password=%c3%28".encode()
        assert browser.generic("POST", "/login", broken, form).status_code == 401
        huge = f"csrfmiddlewaretoken={token}&username={'x' * 1_000_000}".encode()
        assert browser.generic("POST", "/login", huge, form).status_code in {400, 413}

    def test_the_page_is_never_kept_by_a_cache(self, browser: Browser) -> None:
        assert "no-store" in browser.get("/login")["Cache-Control"]

    def test_who_is_signed_in_goes_straight_on(self, person: Any, browser: Browser) -> None:
        person("ann")
        browser.log_in()
        response = browser.get("/login?next=/orders")
        assert (response.status_code, response["Location"]) == (302, "/orders")

    def test_a_lapsed_login_is_renewed_quietly(self, person: Any, browser: Browser) -> None:
        person("ann")
        browser.log_in()
        spent = browser.cookies[REFRESH].value
        browser.forget_access()
        response = browser.get("/login?next=/orders%3Fpage%3D2")
        assert (response.status_code, response["Location"]) == (302, "/orders?page=2")
        assert browser.cookies[REFRESH].value != spent
        assert principal_from(browser.cookies[ACCESS].value).username == "ann"

    def test_looking_at_the_headers_only_spends_nothing(
        self, person: Any, browser: Browser
    ) -> None:
        person("ann")
        browser.log_in()
        browser.forget_access()
        assert browser.head("/login").status_code == 200
        assert browser.get("/login").status_code == 302

    def test_a_user_who_wants_into_the_admin_is_asked_for_another_login(
        self, person: Any, browser: Browser
    ) -> None:
        """Sending them on would come back here for ever."""
        person("ann")
        browser.log_in()
        for _ in range(2):
            response = browser.get("/login?next=/admin/catalog/")
            assert response.status_code == 200
            assert "signed in as ann" in response.content.decode()
            browser.cookies.pop(ACCESS, None)
        assert browser.get("/login?next=/orders").status_code == 302

    def test_a_deactivated_user_sees_the_form(self, person: Any, browser: Browser) -> None:
        user = person("ann")
        browser.log_in()
        accounts.deactivate(user_id=user.pk)
        assert browser.get("/login").status_code == 200


class TestWhereALoginLeads:
    @pytest.mark.parametrize(
        "target", ["/orders", "/events/7?x=1&y=2", "/admin/auth/", "/search?q=jazz è"]
    )
    def test_to_a_path_of_this_site(self, person: Any, browser: Browser, target: str) -> None:
        person("ann")
        browser.get(f"/login?next={quote(target)}")
        response = browser.log_in(next=target)
        assert response["Location"] == quote(target, safe="/?&=")

    @pytest.mark.parametrize(
        "target",
        [
            *("https://evil.example/", "//evil.example", "///evil.example", "/\\evil.example"),
            *("\\\\evil.example", "javascript:alert(1)", "http:evil.example", " //evil.example"),
            *("/\t/evil.example", "/\n/evil.example", "\x00//evil.example", "orders", "./x", "@x"),
            *("/" + "x" * 3000, "/login", "/login?next=/login", "/logout", "/register"),
        ],
    )
    def test_never_to_another_site_nor_in_circles(
        self, person: Any, new_browser: type[Browser], target: str
    ) -> None:
        if not User.objects.exists():
            person("ann")
        browser = new_browser()
        form = browser.get("/login", {"next": target})
        assert 'name="next" value="/"' in form.content.decode()
        assert browser.log_in(next=target)["Location"] == "/"
        assert browser.get("/login", {"next": target})["Location"] == "/"
        registered = browser.submit(
            "/register", username="bob", email="b@x.org", password=PASSWORD, next=target
        )
        assert registered["Location"] == "/"

    def test_what_comes_back_in_the_form_is_escaped(self, browser: Browser) -> None:
        page = browser.get("/login", {"next": '/"><script>alert(1)</script>'}).content.decode()
        assert "<script>alert" not in page


class TestRegister:
    def test_whoever_registers_is_signed_in(self, browser: Browser) -> None:
        response = browser.submit(
            "/register", username="ann", email="a@example.com", password=PASSWORD, next="/events/1"
        )
        assert (response.status_code, response["Location"]) == (302, "/events/1")
        assert principal_from(browser.cookies[ACCESS].value).username == "ann"
        assert User.objects.get().role == "user"

    def test_no_field_of_the_form_gives_a_role(self, browser: Browser) -> None:
        fields = {"username": "eve", "email": "e@example.com", "password": PASSWORD}
        browser.submit("/register", **fields, role="admin", is_staff="on", is_superuser="on")
        assert principal_from(browser.cookies[ACCESS].value).role == "user"

    @pytest.mark.parametrize(
        ("username", "email", "text"),
        [
            ("ANN", "b@example.com", "That username is taken."),
            ("bob", "ANN@example.com", "There is an account with that e-mail address."),
        ],
    )
    def test_what_is_taken_is_said_at_its_field(
        self, person: Any, browser: Browser, username: str, email: str, text: str
    ) -> None:
        person("ann")
        fields = {"username": username, "email": email, "password": PASSWORD}
        response = browser.submit("/register", **fields)
        assert response.status_code == 409
        assert text in response.content.decode()

    @pytest.mark.parametrize("password", ["short", "password1", "1" * 20, "x" * 129])
    def test_weak_passwords_are_refused(self, browser: Browser, password: str) -> None:
        fields = {"username": "ann", "email": "a@example.com", "password": password}
        response = browser.submit("/register", **fields)
        assert response.status_code == 400
        assert 'aria-invalid="true"' in response.content.decode()
        assert not User.objects.exists()


class TestRefresh:
    def test_renews_the_cookies(self, person: Any, browser: Browser) -> None:
        person("ann")
        browser.log_in()
        browser.forget_access()
        response = _renew(browser)
        assert (response.status_code, response.content) == (204, b"")
        assert {ACCESS, REFRESH, SESSION} <= set(response.cookies)
        assert _renew(browser).status_code == 204

    def test_without_a_good_cookie_is_401(self, person: Any, browser: Browser) -> None:
        for _ in range(2):
            response = _renew(browser)
            assert response.status_code == 401
            assert response.json()["code"] == "invalid_refresh_token"
            assert ACCESS not in response.cookies
            browser.cookies[REFRESH] = "nonsense"

    def test_needs_the_csrf_token(self, person: Any, browser: Browser) -> None:
        person("ann")
        browser.log_in()
        spent = browser.cookies[REFRESH].value
        response = browser.post("/login/refresh")
        assert (response.status_code, response.json()["code"]) == (403, "csrf_failed")
        assert response["Content-Type"] == "application/problem+json"
        assert browser.cookies[REFRESH].value == spent
        assert _renew(browser).status_code == 204

    def test_a_second_tab_at_the_same_moment_is_not_logged_out(
        self, person: Any, browser: Browser
    ) -> None:
        person("ann")
        browser.log_in()
        spent = browser.cookies[REFRESH].value
        assert _renew(browser).status_code == 204
        newest = browser.cookies[REFRESH].value
        browser.cookies[REFRESH] = spent
        assert _renew(browser).status_code == 401
        browser.cookies[REFRESH] = newest
        assert _renew(browser).status_code == 204


class TestLogout:
    def test_ends_the_login_and_takes_the_cookies(self, person: Any, browser: Browser) -> None:
        person("ann")
        browser.log_in()
        stolen = browser.cookies[REFRESH].value
        response = browser.submit("/logout")
        assert (response.status_code, response["Location"]) == (302, "/")
        assert not {ACCESS, REFRESH, SESSION} & set(browser.cookies)
        assert LoginSession.objects.get().end_reason == "logout"
        browser.cookies[REFRESH] = stolen
        assert _renew(browser).status_code == 401

    def test_works_after_the_access_cookie_has_lapsed(self, person: Any, browser: Browser) -> None:
        person("ann")
        browser.log_in()
        browser.forget_access()
        browser.submit("/logout")
        assert LoginSession.objects.get().ended_at is not None

    def test_needs_a_post_with_the_csrf_token(self, person: Any, browser: Browser) -> None:
        person("ann")
        browser.log_in()
        assert browser.get("/logout").status_code == 405
        assert browser.post("/logout").status_code == 403
        assert LoginSession.objects.get().ended_at is None
        assert ACCESS in browser.cookies

    @pytest.mark.parametrize("value", ["", "nonsense", "0" * 32, "\x00", "é"])
    def test_a_strange_cookie_does_no_harm(self, browser: Browser, value: str) -> None:
        browser.csrf_token()
        browser.cookies[SESSION] = value
        assert browser.submit("/logout").status_code == 302


@pytest.mark.parametrize("path", ["/login", "/register", "/logout"])
def test_a_form_from_elsewhere_is_refused_with_a_page_that_helps(path: str) -> None:
    response = Client(enforce_csrf_checks=True).post(path, {"username": "ann"})
    assert response.status_code == 403
    assert "Please try again" in response.content.decode()


def test_another_site_cannot_send_the_form(person: Any, browser: Browser) -> None:
    person("ann")
    fields = {"csrfmiddlewaretoken": browser.csrf_token(), "username": "ann", "password": PASSWORD}
    response = browser.post("/login", fields, HTTP_ORIGIN="https://evil.example")
    assert response.status_code == 403


def test_the_cookie_of_a_login_opens_the_api(person: Any, browser: Browser) -> None:
    person("ann")
    browser.log_in()
    assert browser.get("/api/auth/me").json()["username"] == "ann"


def test_the_pages_have_the_look_of_the_storefront(browser: Browser) -> None:
    for path in ("/login", "/register"):
        page = browser.get(path).content.decode()
        assert "/static/storefront/style.css" in page
        # The Content-Security-Policy allows neither.
        assert "<script" not in page
        assert "style=" not in page


def test_the_browsable_api_offers_a_form_for_every_call(person: Any, browser: Browser) -> None:
    person("ann")
    browser.log_in()
    for call in ("register", "login", "refresh", "logout"):
        page = browser.get(f"/api/auth/{call}", HTTP_ACCEPT="text/html")
        assert page.status_code == 405
        assert 'name="_content"' in page.content.decode()
    me = browser.get("/api/auth/me", HTTP_ACCEPT="text/html").content.decode()
    assert "ann (user)" in me


def test_names_of_cookies_are_the_ones_that_all_services_read() -> None:
    assert (settings.ACCESS_COOKIE, settings.REFRESH_COOKIE) == (ACCESS, REFRESH)
