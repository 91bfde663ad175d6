"""What Django needs to know; buildout says the rest by environment variables."""

from __future__ import annotations

import os

from django.core.management.utils import get_random_secret_key

DEBUG = False
# One for all workers, which are forks of the process that has read this (gunicorn --preload).
SECRET_KEY = os.environ.get("DJANGO_SECRET_KEY") or get_random_secret_key()
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]

ROOT_URLCONF = "mysite.urls"
WSGI_APPLICATION = "mysite.wsgi.application"
INSTALLED_APPS = ["django.contrib.sessions", "django.contrib.staticfiles", "visits"]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True}]

SESSION_ENGINE = "django.contrib.sessions.backends.file"
SESSION_FILE_PATH = os.environ.get("MYSITE_RUN")
STATIC_ROOT = os.environ.get("MYSITE_STATIC")
STATIC_URL = "/static/"
SITE_URL = os.environ.get("MYSITE_URL", "")
TIME_ZONE = "UTC"
USE_TZ = True
