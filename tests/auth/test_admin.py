"""Django's admin of the auth service: who gets in, and what they can and cannot do there."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.admin.models import LogEntry

from services.auth import accounts, registration, sessions
from services.auth.models import LoginSession, RefreshToken, User
from tests.auth.conftest import PASSWORD, Browser

pytestmark = pytest.mark.django_db
INDEX = "/admin/auth/"
USERS = "/admin/auth/accounts/user/"


@pytest.fixture
def admin(person: Any, browser: Browser) -> Browser:
    """Return the browser of somebody who is signed in as the admin ``root``."""
    person("root", role="admin")
    browser.log_in("root")
    return browser


def _page(browser: Browser, path: str) -> str:
    response = browser.get(path)
    assert response.status_code == 200, response.content[:500]
    return str(response.content.decode())


class TestWhoGetsIn:
    def test_an_admin_by_the_cookie_of_the_login_page(self, admin: Browser) -> None:
        page = _page(admin, INDEX)
        assert "Flash Sale · Auth" in page
        assert "Users" in page
        assert "Groups" not in page

    def test_nobody_else_and_they_are_sent_to_the_login(
        self, person: Any, browser: Browser
    ) -> None:
        for _ in range(2):
            response = browser.get(USERS)
            assert response.status_code == 302
            sent_to = browser.get(response["Location"])
            assert sent_to["Location"] == "/login?next=/admin/auth/accounts/user/"
            if not User.objects.exists():
                person("ann")
                browser.log_in("ann")

    def test_a_bearer_token_does_not_open_it(
        self, person: Any, browser: Browser, access_token: Any
    ) -> None:
        root = person("root", role="admin")
        token = access_token(role="admin", user_id=root.pk, username="root")
        assert browser.get(INDEX, HTTP_AUTHORIZATION=f"Bearer {token}").status_code == 302

    @pytest.mark.parametrize("change", ["deactivated", "demoted", "deleted"])
    def test_an_admin_no_longer_is_out_though_the_token_still_says_admin(
        self, admin: Browser, change: str
    ) -> None:
        root = User.objects.get(username="root")
        if change == "deactivated":
            accounts.deactivate(user_id=root.pk)
        elif change == "demoted":
            accounts.change_role(user_id=root.pk, role="user")
        else:
            root.delete()
        assert admin.get(INDEX).status_code == 302

    def test_logging_out_there_ends_the_login(self, admin: Browser) -> None:
        response = admin.submit("/admin/auth/logout/")
        assert (response.status_code, response["Location"]) == (307, "/logout")
        admin.submit("/logout")
        assert admin.get(INDEX).status_code == 302
        assert LoginSession.objects.get().end_reason == "logout"

    def test_changes_need_the_csrf_token(self, admin: Browser) -> None:
        assert admin.post(f"{USERS}add/", {"username": "eve"}).status_code == 403


class TestUsers:
    def test_are_listed_searched_and_filtered(self, admin: Browser, person: Any) -> None:
        for name in ("ann", "bob"):
            person(name)
        assert all(name in _page(admin, USERS) for name in ("ann@", "bob@", "root@"))
        found = _page(admin, f"{USERS}?q=ann@example")
        assert "ann@" in found
        assert "bob@" not in found
        admins = _page(admin, f"{USERS}?role__exact=admin")
        assert "root@" in admins
        assert "ann@" not in admins

    @pytest.mark.parametrize("role", ["user", "admin"])
    def test_are_added_with_a_role_and_a_password(
        self, admin: Browser, log_in: Any, role: str
    ) -> None:
        assert "password1" in _page(admin, f"{USERS}add/")
        fields = {"username": "carl", "email": "c@example.com", "role": role}
        response = admin.submit(f"{USERS}add/", **fields, password1=PASSWORD, password2=PASSWORD)
        carl = User.objects.get(username="carl")
        assert response["Location"] == f"{USERS}{carl.pk}/change/"
        assert carl.role == role
        assert log_in("carl").status_code == 200
        assert LogEntry.objects.get().object_id == str(carl.pk)

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"username": "ROOT"}, "That username is taken."),
            ({"email": "ROOT@example.com"}, "There is an account with that address."),
            ({"username": "no spaces"}, "letters (A-Z), digits"),
            ({"password2": "another"}, "didn’t match"),
            ({"password1": "password1", "password2": "password1"}, "too common"),
            ({"role": "root"}, "not one of the available choices"),
        ],
    )
    def test_are_not_added_against_the_rules(
        self, admin: Browser, change: dict[str, str], text: str
    ) -> None:
        fields = {"username": "carl", "email": "c@example.com", "role": "user"}
        passwords = {"password1": PASSWORD, "password2": PASSWORD}
        response = admin.submit(f"{USERS}add/", **{**fields, **passwords, **change})
        assert response.status_code == 200
        assert text in response.content.decode()
        assert User.objects.count() == 1

    def test_a_name_taken_while_the_form_is_saved_is_a_message(
        self, admin: Browser, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        register = registration.register

        def somebody_is_faster(**fields: Any) -> User:
            register(**{**fields, "email": "faster@example.com"})
            return register(**fields)

        monkeypatch.setattr(registration, "register", somebody_is_faster)
        fields = {"username": "carl", "email": "c@example.com", "role": "user"}
        page = f"{USERS}add/"
        response = admin.submit(page, **fields, password1=PASSWORD, password2=PASSWORD)
        assert (response.status_code, response["Location"]) == (302, page)
        assert "That username is taken." in _page(admin, page)

    def test_are_given_a_role_and_are_deactivated(
        self, admin: Browser, person: Any, log_in: Any
    ) -> None:
        ann = person("ann")
        log_in("ann")
        change = f"{USERS}{ann.pk}/change/"
        _page(admin, change)
        assert admin.submit(change, role="admin", is_active="on").status_code == 302
        ann.refresh_from_db()
        assert (ann.role, ann.is_active) == ("admin", True)
        assert admin.submit(change, role="user").status_code == 302
        ann.refresh_from_db()
        assert (ann.role, ann.is_active) == ("user", False)
        assert LoginSession.objects.get(user=ann).end_reason == "deactivated"
        assert log_in("ann").status_code == 401

    def test_keep_their_name_address_and_password_whatever_the_form_says(
        self, admin: Browser, person: Any
    ) -> None:
        ann = person("ann")
        fields = {"username": "eve", "email": "e@example.com", "password": "x"}
        admin.submit(f"{USERS}{ann.pk}/change/", role="user", is_active="on", **fields)
        after = User.objects.get(pk=ann.pk)
        assert (after.username, after.email, after.password) == (
            ann.username,
            ann.email,
            ann.password,
        )

    def test_an_admin_cannot_lock_themselves_out(self, admin: Browser) -> None:
        root = User.objects.get(username="root")
        admin.submit(f"{USERS}{root.pk}/change/", role="user")
        root.refresh_from_db()
        assert (root.role, root.is_active) == ("admin", True)

    def test_get_another_password_and_their_logins_end(
        self, admin: Browser, person: Any, log_in: Any
    ) -> None:
        ann = person("ann")
        log_in("ann")
        page = f"{USERS}{ann.pk}/password/"
        assert "usable_password" not in _page(admin, page)
        assert admin.submit(page, password1="a", password2="b").status_code == 200
        assert admin.submit(page).status_code == 200
        assert log_in("ann").status_code == 200
        new = "another-good-one"
        assert admin.submit(page, password1=new, password2=new).status_code == 302
        assert log_in("ann").status_code == 401
        assert log_in("ann", new).status_code == 200
        assert LoginSession.objects.filter(user=ann, end_reason="password").count() == 2

    def test_changing_ones_own_password_ends_ones_other_logins(
        self, admin: Browser, api: Any, log_in: Any
    ) -> None:
        elsewhere = log_in("root").json()["refresh"]
        new = "another-good-one"
        fields = {"old_password": PASSWORD, "new_password1": new, "new_password2": new}
        link = f"{INDEX}password_change/"
        page = admin.submit(link, **fields)["Location"]
        assert log_in("root").status_code == 200, "Django's own form is out of reach"
        assert admin.get(link)["Location"] == page
        _page(admin, page)
        assert admin.submit(page, password1=new, password2=new).status_code == 302
        assert api.post("/api/auth/refresh", {"refresh": elsewhere}).status_code == 401
        assert not LoginSession.objects.filter(ended_at=None).exists()
        assert log_in("root", new).status_code == 200

    def test_the_way_to_ones_own_password_needs_a_login(self, browser: Browser) -> None:
        response = browser.get(f"{INDEX}password_change/")
        assert "/login/" in response["Location"]

    def test_are_never_deleted(self, admin: Browser, person: Any) -> None:
        ann = person("ann")
        assert admin.submit(f"{USERS}{ann.pk}/delete/", post="yes").status_code == 403
        assert User.objects.filter(pk=ann.pk).exists()
        assert "delete_selected" not in _page(admin, USERS)

    def test_passwords_cannot_be_fished_for_by_filters(self, admin: Browser) -> None:
        assert admin.get(f"{USERS}?password__startswith=argon2").status_code == 400


class TestLogins:
    @pytest.mark.parametrize(
        ("model", "row"), [("refreshtoken", RefreshToken), ("loginsession", LoginSession)]
    )
    def test_are_shown_and_cannot_be_changed(
        self, admin: Browser, log_in: Any, model: str, row: Any
    ) -> None:
        token = log_in("root").json()["refresh"]
        one = row.objects.first()
        listed = f"/admin/auth/accounts/{model}/"
        detail = f"{listed}{one.pk}/change/"
        for page in (_page(admin, listed), _page(admin, detail)):
            assert "root" in page
            assert token not in page
            assert sessions._hash(token) not in page
        assert admin.submit(detail, used_at_0="2020-01-01", used_at_1="00:00").status_code == 403
        assert admin.submit(f"{listed}{one.pk}/delete/", post="yes").status_code == 403
        assert admin.get(f"{listed}add/").status_code == 403
        assert row.objects.filter(pk=one.pk).exists()
