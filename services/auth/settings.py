"""Settings of the auth service: what differs from common.settings."""

from __future__ import annotations

from datetime import timedelta

from common.databases import databases
from common.settings import *  # noqa: F403
from common.settings import COMMON_APPS, SPECTACULAR_SETTINGS, admin_theme, secret_key

SERVICE = "auth"
SECRET_KEY = secret_key(SERVICE)
ROOT_URLCONF = "services.auth.urls"
WSGI_APPLICATION = "services.auth.wsgi.application"
INSTALLED_APPS = [*COMMON_APPS, "services.auth"]
DATABASES = databases(SERVICE)
DATABASE_ROUTERS = ["services.auth.router.AuthRouter"]
SESSION_COOKIE_NAME = f"{SERVICE}_session"

AUTH_USER_MODEL = "accounts.User"
# Here the admin's user is the real one, so that a deactivated admin is out at once.
ADMIN_USER_LOADER = "services.auth.accounts.load_admin"
CSRF_FAILURE_VIEW = "services.auth.pages.csrf_failure"
# A login that is not used for so long ends; every refresh starts the time anew.
REFRESH_TOKEN_LIFETIME = timedelta(days=14)
# Under this name, at /logout only, a browser keeps which login it is to end.
SESSION_COOKIE = "flashsale_session"

PASSWORD_HASHERS = ["services.auth.passwords.Argon2id"]
_DJANGO = "django.contrib.auth.password_validation"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"{_DJANGO}.MinimumLengthValidator", "OPTIONS": {"min_length": 8}},
    {"NAME": "services.auth.passwords.MaximumLengthValidator"},
    {
        "NAME": f"{_DJANGO}.UserAttributeSimilarityValidator",
        # It compares letters without their order: the default, 0.7, refuses innocent passwords.
        "OPTIONS": {"user_attributes": ("username", "email"), "max_similarity": 0.9},
    },
    {"NAME": f"{_DJANGO}.CommonPasswordValidator"},
    {"NAME": f"{_DJANGO}.NumericPasswordValidator"},
]

LOOPS = ["services.auth.purge.purge_tokens"]
SPECTACULAR_SETTINGS = {
    **SPECTACULAR_SETTINGS,
    "TITLE": "Auth",
    "DESCRIPTION": "Who is who: registration, login, and the tokens that all services verify.",
    "SCHEMA_PATH_PREFIX": "/api/auth",
}
UNFOLD = admin_theme("Auth")
