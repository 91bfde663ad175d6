"""A buildout on this machine: where its things lie, and what its parts have made."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Mapping

# one of these is at the top of a project's source tree
PROJECT = ("pyproject.toml", "setup.py", "setup.cfg")


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
    """A part whose output goes in: its name and the paths that it has made.

    ``eggs`` are the requirements of its option of that name, which recipes of many kinds have.
    """

    name: str
    outputs: tuple[pathlib.Path, ...]
    eggs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Include:
    """More paths, by option: ``source`` of this machine, ``target`` in the image or ''."""

    source: pathlib.Path
    target: str


def develop_locations(develop_eggs: pathlib.Path) -> tuple[pathlib.Path, ...]:
    """The directories in which the packages of buildout's develop eggs lie."""
    from eggcrate.payload import develop

    found = {top for egg in develop.develop_eggs(os.fspath(develop_eggs)) for top in egg.tops}
    return tuple(map(pathlib.Path, sorted(found)))


def develop_places(
    locations: Iterable[pathlib.Path], directory: pathlib.Path
) -> dict[pathlib.Path, str]:
    """Where those of the directories of develop eggs that are not in the buildout's go in it.

    It is ``develop/NAME``; of several with the same name, ``src`` say, each has its parent's
    before it, and those that are still the same are numbered.
    """
    outside = dict.fromkeys(one for one in locations if not one.is_relative_to(directory))
    often = collections.Counter(location.name for location in outside)
    found: dict[pathlib.Path, str] = {}
    for location in outside:
        name = location.name
        if often[name] > 1:
            name = f"{location.parent.name}-{name}"
        place, number = f"develop/{name}", 1
        while place in found.values():
            number += 1
            place = f"develop/{name}-{number}"
        found[location] = place
    return found


def installed_parts(
    installed: Mapping[str, Mapping[str, str]],
    directory: pathlib.Path,
    bin_directory: pathlib.Path,
) -> dict[str, Part]:
    """The parts that ``.installed.cfg`` records, with the paths that each has made.

    Without an option ``eggs``, zc.recipe.egg takes the part's name for one.  Some recipes
    return names without a directory; those are scripts (djangorecipe's
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
        eggs = filter(None, map(str.strip, options.get("eggs", name).split("\n")))
        parts[name] = Part(name, tuple(dict.fromkeys(outputs)), tuple(eggs))
    return parts
