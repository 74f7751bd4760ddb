"""WSGI entry point of the auth service."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "services.auth.settings")
application = get_wsgi_application()
