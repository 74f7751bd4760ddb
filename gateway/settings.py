"""The gateway: decides who may go where, and serves the storefront and the API's documentation.

It has no database, no sessions and no admin: whoever comes shows a token, and it only reads that.
"""

from pathlib import Path
from typing import Any

import django
import unfold

from common.settings import *  # noqa: F403
from common.settings import ALLOWED_HOSTS, MIDDLEWARE, TEMPLATES, secret_key

SERVICE = "gateway"
SECRET_KEY = secret_key(SERVICE)
ROOT_URLCONF = "gateway.urls"
WSGI_APPLICATION = "gateway.wsgi.application"
DATABASES: dict[str, Any] = {}

# nginx asks under this name, whatever Host the client sent; the services check the client's.
ALLOWED_HOSTS = [*ALLOWED_HOSTS, "authorize.internal"]

INSTALLED_APPS = [
    "gateway",
    "common",
    # Without tables: simplejwt's token classes import the models of these two.
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
]
# No sessions, users or messages: those middlewares would want tables.
_STATEFUL = ("sessions", "auth", "messages", "admin_login")
MIDDLEWARE = [name for name in MIDDLEWARE if not any(f".{part}." in name for part in _STATEFUL)]
TEMPLATES = [
    {
        **TEMPLATES[0],
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "gateway.pages.signed_in",
            ]
        },
    }
]

# nginx serves all static files from one folder, so one collectstatic, this one, gathers them:
# besides the installed apps' also those of the admin and its theme, which only services install.
_UNFOLD = Path(unfold.__file__).parent
STATICFILES_DIRS = [
    Path(django.__file__).parent / "contrib" / "admin" / "static",
    _UNFOLD / "static",
    *sorted(_UNFOLD.glob("contrib/*/static")),
]
