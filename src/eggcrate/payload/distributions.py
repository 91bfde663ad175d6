"""Distributions: their names, what they require, what they import, the lists of their files."""

from __future__ import annotations

import base64
import collections
import contextlib
import csv
import functools
import io
import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from eggcrate.image.plan import FileEntry, open_at_once

if TYPE_CHECKING:
    from eggcrate.payload.files import Files

# Distributions that build others: beside zc.buildout, and not in an image unless a script
# imports one of them, or a part lists it in its eggs.
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

# What tools keep in metadata for themselves: paths of the checkout, how it was installed.
BOOKKEEPING = frozenset(
    (
        *("INSTALLER", "RECORD", "REQUESTED", "SOURCES.txt", "dependency_links.txt"),
        *("installed-files.txt", "not-zip-safe", "zip-safe"),
    )
)

_REQUIREMENT = re.compile(
    r"\s*(?P<name>[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9])?)\s*(?:\[(?P<extras>[^]]*)\])?"
)
_IMPORT = re.compile(rb"^[ \t]*(?:import|from)[ \t]+([A-Za-z_][\w.]*)", re.MULTILINE)


class Distribution(NamedTuple):
    """A distribution on a path: ``name`` is canonical, ``title`` as it calls itself.

    ``requires`` are requirements with their markers, ``metadata`` is the path of its metadata's
    directory, or of a file that has it all.
    """

    name: str
    title: str
    version: str
    requires: tuple[str, ...]
    metadata: str


def egg_name(directory: str) -> str:
    """The distribution and version in an egg's file name, without Python and platform."""
    return re.sub(r"-py\d+(\.\d+)?(-.+)?$", "", directory.removesuffix(".egg"))


def canonical_name(name: str) -> str:
    """A distribution's name as packaging compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


# Metadata ---------------------------------------------------------------------------


def on_path(directory: str, files: Files) -> Iterator[Distribution]:
    """The distributions that a directory of ``sys.path`` has."""
    try:
        children = files.children(directory, os.stat(directory))
    except OSError:
        return
    for child in children:
        if not child.name.endswith(METADATA):
            continue
        for name in ("METADATA", "PKG-INFO", ""):
            found = _distribution(f"{child.path}/{name}" if name else child.path, files)
            if found is not None:
                yield found
                break


def _distribution(path: str, files: Files) -> Distribution | None:
    if not files.exists(path) or os.path.isdir(path):
        return None
    headers: dict[str, list[str]] = {}
    # the head alone: what follows is prose, and much of it
    for line in text_of(path, files).split("\n"):
        if not line.rstrip("\r"):
            break
        name, colon, value = line.partition(":")
        if colon and not line.startswith((" ", "\t")):
            headers.setdefault(name.lower(), []).append(value.strip())
    directory = os.path.dirname(path)
    # metadata may be no more than its directory's name
    title = next(iter(headers.get("name", ())), "") or _named(directory)
    if not title:
        return None
    requires = headers.get("requires-dist", [])
    if (
        not requires
        and path.endswith("/PKG-INFO")
        and files.exists(f"{directory}/requires.txt")
    ):
        requires = list(_sections(text_of(f"{directory}/requires.txt", files)))
    return Distribution(
        canonical_name(title),
        title,
        next(iter(headers.get("version", ())), ""),
        tuple(requires),
        directory if path.endswith(("/METADATA", "/PKG-INFO")) else path,
    )


def _named(metadata: str) -> str:
    name = os.path.basename(metadata)
    return name.partition("-")[0].removesuffix(".egg-info") if name != "EGG-INFO" else ""


def _sections(text: str) -> Iterator[str]:
    """The requirements of a ``requires.txt``: a section has an extra, a marker, or both."""
    markers: list[str] = []
    for line in filter(None, map(str.strip, text.split("\n"))):
        if line.startswith("["):
            extra, _, marker = line.strip("[]").partition(":")
            markers = [f"({marker})"] if marker else []
            markers += [f"extra == '{extra}'"] if extra else []
        else:
            yield f"{line} ; {' and '.join(markers)}" if markers else line


def text_of(path: str, files: Files) -> str:
    """The text of a file that says what else goes in; '' when it can't be read."""
    try:
        files.facts(path, os.stat(path), secrets=False)
        with open_at_once(path) as stream:
            return stream.read().decode("utf-8", "surrogateescape")
    except OSError:
        return ""


def top_levels(distribution: Distribution, files: Files) -> list[str] | None:
    """The names of its packages and modules; None when the metadata doesn't tell."""
    path = f"{distribution.metadata}/top_level.txt"
    if os.path.isfile(distribution.metadata) or not files.exists(path):
        return None
    return text_of(path, files).split()


def is_editable(metadata: str) -> bool:
    """Whether a file of metadata is that of a project which is installed editable (PEP 610)."""
    try:
        with open_at_once(f"{os.path.dirname(metadata)}/direct_url.json") as stream:
            return json.load(stream)["dir_info"]["editable"] is True
    except (OSError, ValueError, KeyError, TypeError):
        return False


def files_of(distribution: Distribution, files: Files) -> list[str] | None:
    """The paths that RECORD lists; None when there is none."""
    path = f"{distribution.metadata}/RECORD"
    if os.path.isfile(distribution.metadata) or not files.exists(path):
        return None
    top = os.path.dirname(distribution.metadata)
    return [os.path.normpath(f"{top}/{row[0]}") for row in record_rows(text_of(path, files))]


def recipe_modules(distribution: Distribution, files: Files) -> frozenset[str] | None:
    """The modules that only buildout imports; None for a distribution that is but recipes."""
    path = f"{distribution.metadata}/entry_points.txt"
    if os.path.isfile(distribution.metadata) or not files.exists(path):
        return frozenset()
    found: set[str] = set()
    others = False
    group = ""
    for line in filter(None, map(str.strip, text_of(path, files).split("\n"))):
        if line.startswith("["):
            group = line.strip("[] ")
        elif group == "zc.buildout" or group.startswith("zc.buildout."):
            found.add(line.partition("=")[2].partition(":")[0].strip())
        else:
            others = True
    return None if found and not others else frozenset(found)


# Requirements -----------------------------------------------------------------------


def required(
    requirements: Iterable[str], extras: Collection[str] = ("",)
) -> Iterator[tuple[str, frozenset[str]]]:
    """The names, and their extras, that requirements ask for on this Python.

    ``extras`` are those for which they are asked; '' stands for no extra.
    """
    for text in requirements:
        text, _, marker = text.partition(";")
        match = _REQUIREMENT.match(text)
        if match is None:
            continue
        if not marker.strip() or any(_holds(marker.strip(), extra) for extra in extras):
            names = filter(None, map(str.strip, (match["extras"] or "").split(",")))
            yield canonical_name(match["name"]), frozenset(map(canonical_name, names))


class Needs(NamedTuple):
    """What :func:`resolve` finds: ``taken`` are names of distributions on offer with who needs
    each, ``tools`` are names of build tools with those that require each."""

    taken: dict[str, str]
    tools: dict[str, set[str]]


def resolve(
    asked: Mapping[str, str],
    requirements: Iterable[str],
    packed: Mapping[str, Sequence[Distribution]],
    offered: Mapping[str, Distribution],
) -> Needs:
    """Which distributions on offer are needed, beside those that are packed.

    ``asked`` are names that must be there with the reason, ``requirements`` are what parts ask
    for.  What is only required is not taken when it is a build tool.
    """
    # name, extras, why it is asked for, who requires it
    pending: collections.deque[tuple[str, frozenset[str], str, str]] = collections.deque(
        (
            *((name, frozenset(), reason, "") for name, reason in asked.items()),
            *(
                (name, more, "one of a part's eggs", "")
                for name, more in required(requirements)
            ),
            *((name, frozenset(), "", "") for name in packed),
        )
    )
    seen: dict[str, set[str]] = {}
    needs = Needs({}, {})
    while pending:
        name, extras, reason, requiring = pending.popleft()
        if name in BUILD_TOOLS and not reason:
            if requiring:
                needs.tools.setdefault(name, set()).add(requiring)
            continue
        found = packed.get(name, ())
        if not found and name in offered:
            found = (offered[name],)
            needs.taken.setdefault(name, reason or "required by an egg")
        new = {"", *extras} - seen.setdefault(name, set())
        seen[name] |= new
        for distribution in found if new else ():
            pending.extend(
                (other, more, "", distribution.name)
                for other, more in required(distribution.requires, new)
            )
    return needs


@functools.lru_cache(maxsize=4096)
def _holds(marker: str, extra: str) -> bool:
    from packaging.markers import InvalidMarker, Marker, UndefinedEnvironmentName

    try:
        return Marker(marker).evaluate({"extra": extra})
    except (InvalidMarker, UndefinedEnvironmentName):
        return False


# Imports ----------------------------------------------------------------------------


def imported(data: bytes) -> set[str]:
    """The dotted names of the modules that a script imports."""
    return {match.decode() for match in _IMPORT.findall(data)}


def needs(source: bytes, modules: Collection[str], *, everywhere: bool) -> bool:
    """Whether a module can't be imported without one of ``modules``.

    It can where the import may fail: ``try: import x`` with ``except ImportError``.
    ``everywhere`` takes functions into account, too.
    """
    import ast

    try:
        pending: list[ast.AST] = list(ast.parse(source).body)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    while pending:
        node = pending.pop()
        names: Sequence[str | None] = ()
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names = [node.module]
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") == "__import__":
            names = [getattr(argument, "value", None) for argument in node.args[:1]]
        elif isinstance(node, ast.Try) and any(map(_catches_import_error, node.handlers)):
            pending += node.orelse + node.finalbody
            continue
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending += node.orelse
            continue
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not everywhere:
            continue
        if any(isinstance(name, str) and name.split(".")[0] in modules for name in names):
            return True
        pending += ast.iter_child_nodes(node)
    return False


def _catches_import_error(handler: object) -> bool:
    import ast

    caught = getattr(handler, "type", None)
    names = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(
        name is None
        or getattr(name, "id", "")
        in ("ImportError", "ModuleNotFoundError", "Exception", "BaseException")
        for name in names
    )


# Records ----------------------------------------------------------------------------


def record_rows(text: str) -> Iterator[list[str]]:
    """The rows of a RECORD, as far as it is one; the path comes first in each."""
    with contextlib.suppress(csv.Error):
        rows = csv.reader(io.StringIO(text.replace("\0", ""), newline=""))
        yield from filter(None, rows)


def mended_record(data: bytes, group: str, top: str, entries: Mapping[str, FileEntry]) -> bytes:
    """A RECORD of the files as they are in the image (PyPA: recording installed projects).

    Relocation has changed some, and others were left out.  ``top`` is the image path of
    the record's site-packages; only the ``entries`` of ``group`` are its distribution's.
    """
    lines = io.StringIO(newline="")
    writer = csv.writer(lines, lineterminator="\n")
    for row in record_rows(data.decode("utf-8", "surrogateescape")):
        path = f"{top}/{row[0]}"
        entry = entries.get(os.path.normpath(path) if ".." in path else path)
        if entry is None or entry.group != group:
            continue
        if entry.data is not None and len(row) == 3 and row[1]:
            digest = base64.urlsafe_b64encode(bytes.fromhex(entry.digest)).rstrip(b"=")
            row = [row[0], f"sha256={digest.decode()}", str(entry.size)]
        writer.writerow(row)
    return lines.getvalue().encode("utf-8", "surrogateescape")
