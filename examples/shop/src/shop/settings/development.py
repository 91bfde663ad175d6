"""The shop on a developer's machine: ``bin/django runserver --settings=...``."""

from __future__ import annotations

from shop.settings.base import *  # noqa: F403  (that is how Django's settings are layered)

DEBUG = True
SECRET_KEY = "for development only"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "shop.sqlite3"}}
