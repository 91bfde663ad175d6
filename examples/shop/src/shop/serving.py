"""How gunicorn serves the shop: ``gunicorn --config python:shop.serving shop.wsgi``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import connections

if TYPE_CHECKING:
    from gunicorn.arbiter import Arbiter

worker_class = "gthread"
threads = 4
# One process loads the application, the workers are its forks: they share the memory,
# and a random SECRET_KEY.
preload_app = True
# Less than what Circus grants before it kills.
graceful_timeout = 7
# The root file system may be read-only: everything goes into the run directory, and the
# control socket, which would go to the home directory, is not needed under Circus.
worker_tmp_dir = os.environ.get("SHOP_RUN")
control_socket_disable = True


def on_starting(server: Arbiter) -> None:
    """Make the database ready, before there is any worker.

    One container has one SQLite file, so nobody else migrates at the same time.
    """
    if not os.environ.get("DJANGO_SECRET_KEY"):
        server.log.warning(
            "DJANGO_SECRET_KEY is not set: a random one is used, sessions end with this process"
        )
    call_command("migrate", interactive=False, verbosity=0)
    _make_superuser()
    # A connection must not be shared with a fork.
    connections.close_all()


def _make_superuser() -> None:
    """Let somebody into the admin: the variables are those of ``django createsuperuser``."""
    name = os.environ.get("DJANGO_SUPERUSER_USERNAME") or "admin"
    password = os.environ.get("DJANGO_SUPERUSER_PASSWORD")
    users = get_user_model().objects
    if password and not users.filter(username=name).exists():
        users.create_superuser(name, password=password)
