"""Virtual environments in an image: they run on the image's Python, whichever made them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping

from eggcrate.errors import PlanError
from eggcrate.image.plan import (
    BASE,
    FileEntry,
    FileType,
    bytes_file,
    printable,
    resolve,
    symlink,
)
from eggcrate.payload.interpreter import Interpreter

# A line of pyvenv.cfg: name, equals sign, value
_LINE = re.compile(r"^([\w-]+)([ \t]*=[ \t]*)(.*)$", re.MULTILINE)
# What python -m venv notes of itself: how it was called
_CALLED = re.compile(r".*(?= -m venv )")


def adopt(tree: dict[str, FileEntry], python: Interpreter) -> None:
    """Give the environments of a tree ``python``, where the one that made them is not in it.

    They lead to that by a link in ``bin``, and by ``home`` in ``pyvenv.cfg`` (PEP 405), which
    is where Python looks for its library.
    """
    for path, text in _configurations(tree):
        top = posixpath.dirname(path)
        for name in ("python", "python3", f"python{_version(text)}"):
            link = tree.get(f"{top}/bin/{name}")
            if (
                link is not None
                and link.type is FileType.SYMLINK
                and "/" in link.linkname  # the others lead to this one
                and resolve(link.path, tree, last=True) not in tree
            ):
                tree[link.path] = symlink(
                    link.path, python.program, group=link.group, reason=link.reason
                )
        program = resolve(f"{top}/bin/python", tree, last=True)
        if program in tree and not program.startswith(f"{top}/"):
            entry = tree[path]
            data = _led_to(f"/{program}", text).encode("utf-8", "surrogateescape")
            tree[path] = bytes_file(
                path, data, group=entry.group, reason=entry.reason, mode=entry.mode
            )


def check(tree: Mapping[str, FileEntry], python: Interpreter) -> Iterator[PlanError]:
    """The environments that were made for another version of Python than the image's."""
    for path, text in _configurations(tree):
        version = _version(text)
        if version and version != f"{python.version[0]}.{python.version[1]}":
            yield PlanError(
                f"/{printable(posixpath.dirname(path))} is an environment for Python "
                f"{version}, and the image's Python is "
                f"{python.version[0]}.{python.version[1]}",
                "give that part the same python, or leave it out of parts",
            )


def _configurations(tree: Mapping[str, FileEntry]) -> list[tuple[str, str]]:
    """Each ``pyvenv.cfg`` of a tree, and its text."""
    found = []
    for path, entry in tree.items():
        ours = entry.type is FileType.REGULAR and entry.group != BASE
        if ours and posixpath.basename(path) == "pyvenv.cfg":
            with entry.open() as stream:
                found.append((path, stream.read().decode("utf-8", "surrogateescape")))
    return found


def _version(text: str) -> str:
    """Major and minor version of an environment's Python; empty where that is not told."""
    values = {name: value for name, _, value in _LINE.findall(text)}
    version = values.get("version_info") or values.get("version") or ""
    return ".".join(version.split(".")[:2])


def _led_to(program: str, text: str) -> str:
    """The text of a ``pyvenv.cfg`` whose environment runs on ``program``."""
    home = posixpath.dirname(program)
    prefix = posixpath.dirname(home)
    values = {
        "home": home,
        "executable": program,
        # these are virtualenv's
        "base-executable": program,
        "base-prefix": prefix,
        "base-exec-prefix": prefix,
    }

    def line(match: re.Match[str]) -> str:
        name, equals, value = match.groups()
        if name == "command":
            value = _CALLED.sub(lambda _: program, value, count=1)
        return f"{name}{equals}{values.get(name, value)}"

    return _LINE.sub(line, text)
