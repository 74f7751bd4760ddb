"""Settings that every Django project of the system shares; all of them come from the environment.

A service's own settings module starts with ``from common.settings import *`` and then says what is
different about it.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import environ
import structlog
from django.core.exceptions import ImproperlyConfigured
from redis.backoff import NoBackoff
from redis.retry import Retry

from common.logs import logging_config

env = environ.Env()

ROOT = Path(__file__).resolve().parent.parent
VAR = Path(env.str("FLASHSALE_VAR", default=str(ROOT / "var")))
KEYS_DIR = Path(env.str("KEYS_DIR", default=str(VAR / "keys")))

DEBUG = env.bool("DEBUG", default=False)
ALLOWED_HOSTS = env.list("ALLOWED_HOSTS", default=["127.0.0.1", "localhost"])
PUBLIC_URL = env.str("PUBLIC_URL", default="http://127.0.0.1:8000")
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]


def secret_key(service: str) -> str:
    """The service's SECRET_KEY from ``<SERVICE>_SECRET_KEY``; only DEBUG may do without one."""
    key: str = env.str(f"{service.upper()}_SECRET_KEY", default="")
    if key:
        return key
    if DEBUG:
        return f"debug-only-{service}-" + "0" * 50
    raise ImproperlyConfigured(
        f"{service.upper()}_SECRET_KEY is not set (50 random characters; needed unless DEBUG=true)"
    )


# Services find each other here; nginx never routes these addresses to the outside.
AUTH_URL = env.str("AUTH_URL", default="http://127.0.0.1:8101")
CATALOG_URL = env.str("CATALOG_URL", default="http://127.0.0.1:8102")
INVENTORY_URL = env.str("INVENTORY_URL", default="http://127.0.0.1:8103")
ORDER_URL = env.str("ORDER_URL", default="http://127.0.0.1:8104")

# The cache may be evicted, the streams may not: two databases, in production two instances.
CACHE_URL = env.str("CACHE_URL", default="redis://127.0.0.1:6379/0")
STREAM_URL = env.str("STREAM_URL", default="redis://127.0.0.1:6379/1")
# Where events travel: redis://… or nats://host:port[,nats://host:port…][?replicas=n]; empty: over
# the streams' Redis.
EVENT_TRANSPORT = env.str("EVENT_TRANSPORT", default="")
REDIS_TIMEOUTS = {"socket_connect_timeout": 0.2, "socket_timeout": 0.3}
CACHES = {
    "default": {
        "BACKEND": "django_redis.cache.RedisCache",
        "LOCATION": CACHE_URL,
        "KEY_PREFIX": "flashsale",
        "OPTIONS": {
            "SERIALIZER": "django_redis.serializers.json.JSONSerializer",
            # A dead cache makes reads slower, never wrong: callers see a miss.
            "IGNORE_EXCEPTIONS": True,
            # redis-py's own default retries a dead server for 3 s on every call.
            "CONNECTION_POOL_KWARGS": {**REDIS_TIMEOUTS, "retry": Retry(NoBackoff(), 1)},
        },
    }
}

# How many requests may share a transaction (common.group_commit); 1 switches that off.
GROUP_COMMIT_MAX_BATCH = max(1, env.int("GROUP_COMMIT_MAX_BATCH", default=256))
HOLD_TTL_SECONDS = env.int("HOLD_TTL_SECONDS", default=600)
# How much longer a hold may last while its payment is pending, once; 0: not at all.
HOLD_EXTENSION_SECONDS = int(
    env.str("HOLD_EXTENSION_SECONDS", default="") or HOLD_TTL_SECONDS // 2  # half as long again
)
HOLD_SECONDS_MAX = 86_400
if not 0 < HOLD_TTL_SECONDS <= HOLD_SECONDS_MAX >= HOLD_EXTENSION_SECONDS >= 0:
    raise ImproperlyConfigured(
        f"HOLD_TTL_SECONDS is 1 to {HOLD_SECONDS_MAX} and HOLD_EXTENSION_SECONDS 0 to as many"
    )
ACCESS_TOKEN_LIFETIME = timedelta(minutes=15)
LIMIT_EXEMPT_IPS = frozenset(env.list("LIMIT_EXEMPT_IPS", default=[]))

TIME_ZONE = "UTC"
USE_TZ = True
LANGUAGE_CODE = "en-us"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
APPEND_SLASH = False
# Bodies beyond this are refused (413) by common.parsers, which DRF's JSON needs, and by nginx.
DATA_UPLOAD_MAX_MEMORY_SIZE = 256 * 1024

STATIC_URL = "/static/"
STATIC_ROOT = VAR / "static"

COMMON_APPS = [
    "common",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "rest_framework",
    "drf_spectacular",
    "drf_standardized_errors",
    "django_filters",
]
MIDDLEWARE = [
    "common.request_id.RequestIdMiddleware",
    "common.problems.ProblemMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "common.admin_login.AdminCookieMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        # common's templates go first so that they may extend what DRF and unfold ship.
        "DIRS": [ROOT / "common" / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
# No session table: who is logged in is in the access token. Django's admin insists on an engine.
SESSION_ENGINE = "django.contrib.sessions.backends.signed_cookies"
MESSAGE_STORAGE = "django.contrib.messages.storage.cookie.CookieStorage"

COOKIE_SECURE = env.bool("COOKIE_SECURE", default=not DEBUG)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = COOKIE_SECURE
# TLS ends at nginx, which also redirects plain http; it is the only one that can reach a service.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_HSTS_SECONDS = 31_536_000 if COOKIE_SECURE else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = COOKIE_SECURE
SECURE_SSL_REDIRECT = False
SILENCED_SYSTEM_CHECKS = ["security.W008"]

# Names that the admin's login and the token modules agree on.
ACCESS_COOKIE = "flashsale_access"
REFRESH_COOKIE = "flashsale_refresh"
LOGIN_PATH = "/login"
ADMIN_USER_LOADER = "common.admin_login.shadow_user"


def admin_theme(title: str) -> dict[str, Any]:
    """Return django-unfold's settings of one service's admin, with a way to the others."""
    others = [
        ("Events and tickets", "/admin/catalog/", "event"),
        ("Stock", "/admin/inventory/", "inventory_2"),
        ("Orders", "/admin/order/", "shopping_cart"),
        ("Users", "/admin/auth/", "group"),
    ]
    return {
        "SITE_TITLE": title,
        "SITE_HEADER": f"Flash Sale · {title}",
        "SITE_URL": "/",
        "SITE_DROPDOWN": [
            *({"title": name, "link": link, "icon": icon} for name, link, icon in others),
            {"title": "Storefront", "link": "/", "icon": "storefront"},
        ],
    }


REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "common.authentication.BearerAuthentication",
        "common.authentication.CookieAuthentication",
    ],
    # Every view names who may call it; one that forgets is closed.
    "DEFAULT_PERMISSION_CLASSES": ["common.permissions.Nobody"],
    "DEFAULT_PARSER_CLASSES": ["common.parsers.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": [
        "rest_framework.renderers.JSONRenderer",
        "rest_framework.renderers.BrowsableAPIRenderer",
    ],
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_PAGINATION_CLASS": "common.pagination.Pages",
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "common.problems.exception_handler",
    "UNAUTHENTICATED_USER": "common.authentication.anonymous",
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "NUM_PROXIES": 1,
}
DRF_STANDARDIZED_ERRORS = {
    "EXCEPTION_FORMATTER_CLASS": "common.problems.ProblemFormatter",
    "EXCEPTION_HANDLER_CLASS": "common.problems.ProblemHandler",
    "ENABLE_IN_DEBUG_FOR_UNHANDLED_EXCEPTIONS": True,
}
SPECTACULAR_SETTINGS = {
    "VERSION": "0.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_AUTHENTICATION": [],
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "COMPONENT_SPLIT_REQUEST": True,
    "PATH_CONVERTER_OVERRIDES": {"row_id": int, "token": str},
}

LOGGING = logging_config(
    env.str("LOG_LEVEL", default="INFO"), env.str("LOG_FORMAT", default="json")
)
LOGGING_CONFIG = "logging.config.dictConfig"
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
    ],
    logger_factory=structlog.stdlib.LoggerFactory(),
    cache_logger_on_first_use=True,
)
