"""The shop as it is served, behind nginx, which is the only way to its socket.

It reads these environment variables:

``DJANGO_SECRET_KEY``
    Signs sessions.  Without it there is a random one for each start, so that a
    trial needs no settings; people then have to log in again after a restart.
``SHOP_DATA``
    The directory of the database.  Default: ``SHOP_RUN``.
``SHOP_RUN``
    The run directory, private and gone after a restart.  Default: where we are.
``SHOP_STATIC``
    The directory of the collected static files.
``SHOP_HOSTS``
    The host names that the shop answers to.
``SHOP_HTTPS``
    ``1`` when browsers come by HTTPS only: cookies then never travel in clear.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from django.core.management.utils import get_random_secret_key

from shop.settings.base import *  # noqa: F403  (that is how Django's settings are layered)

settings: dict[str, Any] = {}
try:
    # what [runtime] of buildout.cfg declares, as the container was started; typed and checked
    from eggcrate.runtime import settings as runtime_settings

    settings = runtime_settings()
except ImportError:
    pass  # outside of it the defaults do

DEBUG = False
GREETING = settings.get("greeting", GREETING)  # noqa: F405

# All workers have the same random key: they are forks of one process, which has loaded
# these settings (preload_app in shop.serving).
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or get_random_secret_key()

RUN = Path(os.environ.get("SHOP_RUN") or ".")
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": Path(os.environ.get("SHOP_DATA") or RUN) / "shop.sqlite3",
        # A transaction that turns from reading to writing can't wait for another one,
        # it fails with "database is locked".  One that asks for the lock at once can.
        "OPTIONS": {"transaction_mode": "IMMEDIATE"},
    }
}

STATIC_ROOT = os.environ.get("SHOP_STATIC")
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "shop.staticfiles.HashedStaticFiles"},
}

ALLOWED_HOSTS = os.environ.get("SHOP_HOSTS", "").split()

# nginx always sets this header, whatever the browser sent.
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = os.environ.get("SHOP_HTTPS") == "1"

# Django's own default for DEBUG = False mails errors, and shows them nowhere else.
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{levelname} {name}: {message}", "style": "{"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["stderr"], "level": "WARNING"},
    "loggers": {
        "django": {"handlers": [], "level": "NOTSET"},
        # a page that does not exist is in nginx's access log
        "django.request": {"level": "ERROR"},
    },
}
