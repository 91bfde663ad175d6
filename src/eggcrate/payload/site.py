"""A buildout on this machine: where its things lie, and what its parts have made."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """Where a buildout has its things; absolute paths of this machine.

    ``develop`` are the directories that ``develop-eggs`` puts on the path.
    ``environment`` is the site-packages directory of the Python that runs buildout,
    ``prefixes`` are those of its environment and of its installation.  ``run_directory``
    holds sockets and the like; it is made at start, never packed.
    """

    directory: pathlib.Path
    eggs: pathlib.Path
    develop_eggs: pathlib.Path
    bin: pathlib.Path
    parts: pathlib.Path
    environment: pathlib.Path
    run_directory: pathlib.Path
    prefixes: tuple[pathlib.Path, ...]
    develop: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """A part whose output goes in: its name and the paths that it has made."""

    name: str
    outputs: tuple[pathlib.Path, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Include:
    """More paths, by option: ``source`` of this machine, ``target`` in the image or ''."""

    source: pathlib.Path
    target: str


def develop_locations(develop_eggs: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The directories that buildout's develop eggs put on the path."""
    found: set[pathlib.Path] = set()
    for link in sorted(develop_eggs.glob("*.egg-link")):
        text = link.read_text(encoding="utf-8", errors="surrogateescape").split("\n", 1)[0]
        if text.strip():
            found.add(pathlib.Path(text.strip()))
    return tuple(sorted(found))


def installed_parts(
    installed: Mapping[str, Mapping[str, str]],
    directory: pathlib.Path,
    bin_directory: pathlib.Path,
) -> dict[str, Part]:
    """The parts that ``.installed.cfg`` records, with the paths that each has made.

    Some recipes return names without a directory; those are scripts (djangorecipe's
    ``scripts-with-settings``).
    """
    parts = {}
    for name, options in installed.items():
        if "__buildout_installed__" not in options:
            continue
        texts = options["__buildout_installed__"].split("\n") + options.get("owned", "").split(
            "\n"
        )
        outputs = []
        for text in filter(None, map(str.strip, texts)):
            path = directory / text
            if not os.path.lexists(path) and "/" not in text:
                path = bin_directory / text
            outputs.append(path)
        parts[name] = Part(name, tuple(dict.fromkeys(outputs)))
    return parts


def is_project(directory: pathlib.Path) -> bool:
    """Whether the directory is the top of a project's source tree."""
    return any(
        (directory / name).exists() for name in ("pyproject.toml", "setup.py", "setup.cfg")
    )
