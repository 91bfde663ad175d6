"""Distributions: their names, what they require, the lists of their files."""

from __future__ import annotations

import base64
import csv
import importlib.metadata
import io
import os
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping

from eggcrate.image.plan import FileEntry

# Distributions that build others: in the environment that runs buildout, and not in an image.
BUILD_TOOLS = frozenset(
    (
        "djangorecipe",
        "eggcrate",
        "pip",
        "setuptools",
        "uv",
        "wheel",
        "zc-buildout",
        "zc-recipe-egg",
    )
)

# Directories of a distribution's metadata: where it was built is said there, not needed.
METADATA = (".dist-info", ".egg-info", "EGG-INFO")


def egg_name(directory: str) -> str:
    """The distribution and version in an egg's file name, without Python and platform."""
    return re.sub(r"-py\d+(\.\d+)?(-.+)?$", "", directory.removesuffix(".egg"))


def canonical_name(name: str) -> str:
    """A distribution's name as packaging compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def on_path(directory: pathlib.Path) -> Iterator[importlib.metadata.Distribution]:
    """The distributions that a directory of ``sys.path`` has."""
    for distribution in importlib.metadata.distributions(path=[os.fspath(directory)]):
        if distribution.name:
            yield distribution


def required(requirements: Iterable[str]) -> Iterator[str]:
    """The names that requirements without an extra ask for on this Python."""
    from packaging.requirements import InvalidRequirement, Requirement

    for text in requirements:
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield canonical_name(requirement.name)


def mended_record(data: bytes, group: str, top: str, entries: Mapping[str, FileEntry]) -> bytes:
    """A RECORD of the files as they are in the image (PyPA: recording installed projects).

    Relocation has changed some, and others were left out.  ``top`` is the image path of
    the record's site-packages; only the ``entries`` of ``group`` are its distribution's.
    """
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    for row in csv.reader(io.StringIO(data.decode("utf-8", "surrogateescape"))):
        entry = entries.get(os.path.normpath(f"{top}/{row[0]}")) if row else None
        if entry is None or entry.group != group:
            continue
        if entry.data is not None and len(row) == 3 and row[1]:
            digest = base64.urlsafe_b64encode(bytes.fromhex(entry.digest)).rstrip(b"=")
            row = [row[0], f"sha256={digest.decode()}", str(entry.size)]
        writer.writerow(row)
    return lines.getvalue().encode("utf-8", "surrogateescape")
