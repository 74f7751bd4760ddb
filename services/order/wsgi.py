"""WSGI entry point of the order service."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "services.order.settings")
application = get_wsgi_application()
