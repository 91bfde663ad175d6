"""Whether a URL answers; the health check of an image."""

from __future__ import annotations

import http.client
import sys
import urllib.parse


def healthy(url: str, timeout: float = 4.0) -> bool:
    """Whether ``url`` answers with a status below 400, within ``timeout`` seconds."""
    parts = urllib.parse.urlsplit(url)
    target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
    try:
        connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    except http.client.InvalidURL:
        return False
    try:
        connection.request("GET", target, headers={"User-Agent": "eggcrate-health"})
        return connection.getresponse().status < 400
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def address(argument: str) -> str:
    """The URL to ask, which may be in a file; nothing if the file isn't there yet."""
    if not argument.startswith("/"):
        return argument
    try:
        with open(argument, encoding="utf-8") as file:
            return file.read().strip()
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(0 if healthy(address(sys.argv[1])) else 1)
