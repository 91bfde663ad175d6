"""The project as a WSGI application."""

from __future__ import annotations

from django.core.wsgi import get_wsgi_application

# bin/gunicorn-with-settings has set DJANGO_SETTINGS_MODULE
application = get_wsgi_application()
