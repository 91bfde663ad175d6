"""Waitress on a socket that Circus has opened: its own command has no option for one."""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import socket
import sys
from collections.abc import Sequence
from typing import Any


def load(name: str) -> Any:
    """The WSGI application that ``module:attribute`` names; ``:application`` by default."""
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for attribute in (path or "application").split("."):
        found = getattr(found, attribute)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Serve an application until SIGTERM, which lets the requests that are there end."""
    parser = argparse.ArgumentParser("serve-waitress", description="Serve a WSGI application.")
    parser.add_argument("--fd", type=int, required=True, help="the socket's file descriptor")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("app", help="module:attribute")
    arguments = parser.parse_args(argv)
    # gunicorn and uvicorn look for modules here, too
    sys.path.insert(0, os.getcwd())
    try:
        waitress = importlib.import_module("waitress")
    except ImportError:
        print(f"serve-waitress: {sys.executable} has no waitress; install it", file=sys.stderr)
        return 78
    application = load(arguments.app)
    # waitress ends in order on SystemExit, and knows no signal
    signal.signal(signal.SIGTERM, _end)
    waitress.serve(
        application,
        sockets=[socket.socket(fileno=arguments.fd)],
        threads=arguments.threads,
    )
    return 0


def _end(number: int, frame: object) -> None:
    sys.exit(0)


if __name__ == "__main__":
    sys.exit(main())
