"""Fixtures of auth's tests: people, and the browsers they sit at."""

from __future__ import annotations

from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any

import pytest
from django.test import Client

PASSWORD = "correct-horse-battery"


@pytest.fixture
def person() -> Callable[..., Any]:
    """Return a maker of users who can log in with PASSWORD."""
    from services.auth import registration

    def make(username: str = "ann", role: str = "user", password: str = PASSWORD) -> Any:
        email = f"{username}@example.com"
        return registration.register(username=username, email=email, password=password, role=role)

    return make


@pytest.fixture
def log_in(api: Any) -> Callable[..., Any]:
    """Return a caller of the login API."""

    def call(username: str = "ann", password: str = PASSWORD, **headers: Any) -> Any:
        body = {"username": username, "password": password}
        return api.post("/api/auth/login", body, **headers)

    return call


class Browser(Client):
    """A browser: keeps cookies by path, sends the CSRF token of the page it has seen."""

    def __init__(self) -> None:
        super().__init__(enforce_csrf_checks=True, raise_request_exception=False)

    def request(self, **request: Any) -> Any:
        jar = self.cookies
        self.cookies = SimpleCookie()
        for name, cookie in jar.items():
            if f"{request['PATH_INFO']}/".startswith(f"{cookie['path'].rstrip('/')}/"):
                self.cookies[name] = cookie
        response = super().request(**request)
        jar.update(response.cookies)
        self.cookies = jar
        for name in [name for name, cookie in jar.items() if cookie["max-age"] == 0]:
            del jar[name]
        return response

    def submit(self, path: str, **fields: Any) -> Any:
        """Send a form with the CSRF token of a page that was opened before."""
        return self.post(path, {**fields, "csrfmiddlewaretoken": self.csrf_token()})

    def csrf_token(self) -> str:
        if "csrftoken" not in self.cookies:
            self.get("/register")
        return str(self.cookies["csrftoken"].value)

    def forget_access(self) -> None:
        """What happens after 15 minutes: the access cookie is gone."""
        del self.cookies["flashsale_access"]

    def log_in(self, username: str = "ann", password: str = PASSWORD, **fields: Any) -> Any:
        return self.submit("/login", username=username, password=password, **fields)


@pytest.fixture
def browser() -> Browser:
    return Browser()


@pytest.fixture
def new_browser() -> type[Browser]:
    return Browser
