"""What zc.buildout leaves in ``develop-eggs``: where the packages of each project lie."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from eggcrate.payload.distributions import canonical_name, record_rows


class DevelopEgg(NamedTuple):
    """A project that is installed in place.

    ``name`` is the canonical one.  ``locations`` are the directories that the project puts on
    ``sys.path``, ``packages`` pairs of a dotted name and the directory or module that an
    import hook finds under it (PEP 660), in setuptools' spelling: a module has no suffix.
    ``metadata`` is the ``.dist-info`` directory in ``develop-eggs``, or ''.  ``sources`` are
    the files that say all this.
    """

    name: str
    locations: tuple[str, ...]
    packages: tuple[tuple[str, str], ...]
    metadata: str
    sources: tuple[str, ...]

    @property
    def tops(self) -> tuple[str, ...]:
        """The directories that hold its packages, whoever finds them there."""
        found = list(self.locations)
        for name, path in self.packages:
            top = package_top(name, path)
            if not any(_below(top, location) for location in found):
                found.append(top)
        return tuple(found)


def package_top(name: str, path: str) -> str:
    """The directory of a source tree in which the package ``name`` at ``path`` lies."""
    below = "/" + name.replace(".", "/")
    return path.removesuffix(below) if path.endswith(below) else os.path.dirname(path)


def develop_eggs(directory: str) -> list[DevelopEgg]:
    """The projects that a ``develop-eggs`` directory has; none where there is no such."""
    try:
        names = sorted(os.listdir(directory))
    except OSError:
        return []
    links: dict[str, str] = {}
    metadata: dict[str, str] = {}
    # the projects to which files belong
    owners: dict[str, str] = {}
    for name in names:
        path = f"{directory}/{name}"
        stem, suffix = os.path.splitext(name)
        if suffix == ".egg-link":
            links[canonical_name(stem)] = path
        elif suffix in (".dist-info", ".egg-info") and os.path.isdir(path):
            project = canonical_name(stem.partition("-")[0])
            metadata[project] = path
            owners.update(dict.fromkeys(_recorded(f"{path}/RECORD"), project))
    hooks: dict[str, list[str]] = {}
    for name in names:
        if name.endswith(".pth") or (name.startswith("__editable__") and name.endswith(".py")):
            hooks.setdefault(owners.get(name, ""), []).append(f"{directory}/{name}")
    return [
        _develop_egg(
            name, directory, links.get(name), metadata.get(name, ""), hooks.get(name, ())
        )
        for name in sorted({*links, *metadata, *hooks})
    ]


def _develop_egg(
    name: str, directory: str, link: str | None, metadata: str, hooks: Iterable[str]
) -> DevelopEgg:
    locations: list[str] = []
    packages: dict[str, str] = {}
    sources = [*([link] if link else ()), *hooks]
    for source in sources:
        text = _text(source)
        if source.endswith(".py"):
            packages.update(_mapped(text))
            continue
        lines = text.split("\n")
        for line in lines[:1] if source == link else lines:
            if line.strip() and not line.startswith(("#", "import ", "import\t")):
                path = os.path.normpath(os.path.join(directory, line.strip()))
                # what an .egg-link has is true even if it is not there any more
                if source == link or os.path.isdir(path):
                    locations.append(path)
    if metadata:
        sources.append(f"{metadata}/RECORD")
    return DevelopEgg(
        name,
        tuple(dict.fromkeys(locations)),
        tuple(sorted(packages.items())),
        metadata,
        tuple(sources),
    )


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()
    except OSError:
        return ""


def _recorded(record: str) -> Iterator[str]:
    """The names beside a distribution's metadata that its RECORD has."""
    for row in record_rows(_text(record)):
        if "/" not in row[0]:
            yield row[0]


def _mapped(source: str) -> Iterator[tuple[str, str]]:
    """What setuptools' hook finds: dotted names with their paths, its ``MAPPING``."""
    import ast

    try:
        statements = ast.parse(source).body
    except (SyntaxError, ValueError):
        return
    values: dict[str, Any] = {}
    for statement in statements:
        if isinstance(statement, ast.Assign):
            targets = statement.targets
        elif isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        else:
            continue
        for target in targets:
            if isinstance(target, ast.Name) and statement.value is not None:
                try:
                    values[target.id] = ast.literal_eval(statement.value)
                except (ValueError, TypeError, SyntaxError):
                    continue
    mapping = values.get("MAPPING")
    if isinstance(mapping, dict):
        for name, path in mapping.items():
            yield str(name), os.path.normpath(str(path))


def _below(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")
