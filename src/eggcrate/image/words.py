"""How people write what a document has otherwise."""

from __future__ import annotations


def amount(size: int) -> str:
    """A number of bytes for people, in decimal units: ``12 kB``, ``8.4 MB``."""
    if abs(size) < 1000:
        return f"{size} byte{'' if abs(size) == 1 else 's'}"
    value = float(size)
    for unit in ("kB", "MB", "GB"):
        value /= 1000
        if abs(value) < 999.5 or unit == "GB":
            break
    return f"{value:.1f} {unit}" if abs(value) < 9.95 else f"{value:.0f} {unit}"


def familiar(reference: str) -> str:
    """A full reference as people write it: without Docker Hub's host."""
    for prefix in ("docker.io/library/", "docker.io/"):
        if reference.startswith(prefix):
            return reference.removeprefix(prefix)
    return reference
