"""Scripts in ``bin`` that are bound to a part's files and run a module of the runtime."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import MutableMapping

import eggcrate.runtime

#: the runtime package; an image has that of eggcrate and no other
RUNTIME = pathlib.Path(os.path.abspath(eggcrate.runtime.__file__)).parent


def expression(section: MutableMapping[str, str], path: pathlib.Path) -> str:
    """The Python expression for a path in a script, relative if ``[buildout]`` wants that."""
    directory = section["directory"]
    if section.get("relative-paths", "false") == "true" and path.is_relative_to(directory):
        return f"join(base, {os.fspath(path.relative_to(directory))!r})"
    return repr(os.fspath(path))


def bound(
    section: MutableMapping[str, str], name: str, module: str, *paths: pathlib.Path
) -> list[str]:
    """Write ``bin/name``, which calls ``main`` of a runtime module with the paths.

    It is left as it is when it is there as it should be; its path is what comes back.
    """
    from zc.buildout import easy_install

    relative = section.get("relative-paths", "false") == "true"
    made: list[str] = easy_install.scripts(
        [(name, f"eggcrate.runtime.{module}", "main")],
        [],  # no distribution: what is in the runtime needs none
        sys.executable,
        section["bin-directory"],
        # buildout's template has no place for an empty list
        extra_paths=[os.fspath(RUNTIME)],
        initialization=(
            "import os\n"
            "# the directory that has eggcrate\n"
            "sys.path[0] = os.path.dirname(os.path.dirname(sys.path[0]))\n"
        ),
        arguments=", ".join(expression(section, path) for path in paths),
        relative_paths=section["directory"] if relative else "",
    )
    return made
