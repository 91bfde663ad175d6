"""An environment as it should be, and how it becomes so: complete, or left as it was.

A virtual environment holds its own path in scripts and in ``pyvenv.cfg``, so it can't be
built elsewhere and moved.  It is changed in place instead, while the one that was there waits
beside it under another name, as hard links, and comes back when anything fails.  A marker
file, written last, tells a complete environment from one whose making was killed.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import logging
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping

from eggcrate.environments.interpreters import Interpreter
from eggcrate.environments.process import masked
from eggcrate.errors import InstallError

#: the file that makes an environment complete; it concerns this machine only
MARKER = ".eggcrate.json"
# as pip and uv write those of archives
_HASH = re.compile(r"\b(?:sha256|sha384|sha512):[0-9a-f]{64,}")

#: the first file of every environment
_FIRST = "pyvenv.cfg"

#: part of every digest: a higher number makes all environments anew
_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class Project:
    """A project that is installed editable, with its extras."""

    directory: pathlib.Path
    extras: tuple[str, ...] = ()

    def __str__(self) -> str:
        extras = f"[{','.join(self.extras)}]" if self.extras else ""
        return f"{self.directory}{extras}"


@dataclasses.dataclass(frozen=True)
class Means:
    """By what an environment is made; it says nothing about what comes of it."""

    #: no network at all
    offline: bool = False
    #: whether releases of the last minutes count
    newest: bool = True
    #: where archives are kept, or come from; None is the user's cache
    cache: pathlib.Path | None = None
    #: patterns of the hosts that may be asked; empty stands for all
    allowed_hosts: tuple[str, ...] = ()
    #: seconds for an answer, or None; seconds for all
    socket_timeout: int | None = None
    timeout: float = 1800


@dataclasses.dataclass(frozen=True)
class Wanted:
    """An environment as it should be."""

    location: pathlib.Path
    #: where relative paths in requirements count from, and where the installer is started
    directory: pathlib.Path
    interpreter: Interpreter
    #: ``uv`` or ``pip``
    installer: str
    requirements: tuple[str, ...] = ()
    requirement_files: tuple[pathlib.Path, ...] = ()
    constraint_files: tuple[pathlib.Path, ...] = ()
    #: a ``pylock.toml``: then it is the whole list of what is not a project
    lock: pathlib.Path | None = None
    require_hashes: bool = False
    #: project and version specifier (``==1.0``), buildout's ``[versions]``
    pins: tuple[tuple[str, str], ...] = ()
    projects: tuple[Project, ...] = ()
    #: dependency groups (PEP 735): a ``pyproject.toml`` and the name in it
    groups: tuple[tuple[pathlib.Path, str], ...] = ()
    system_site_packages: bool = False
    #: environment variables of the installer
    environment: tuple[tuple[str, str], ...] = ()
    index: str | None = None
    #: URLs
    find_links: tuple[str, ...] = ()
    #: every file whose content matters, and its SHA-256
    files: tuple[tuple[str, str], ...] = ()
    #: names of which the requirements allow one release only
    exact: frozenset[str] = frozenset()
    #: names and what their archives are told by
    hashes: tuple[tuple[str, str], ...] = ()
    means: Means = Means()

    @property
    def is_complete_list(self) -> bool:
        """Whether what is no project is listed to the last one."""
        return self.lock is not None or self.require_hashes

    @property
    def is_bare(self) -> bool:
        """Whether nothing is asked for."""
        asked = (self.requirements, self.requirement_files, self.projects, self.groups)
        return self.lock is None and not any(asked)

    def digest(self) -> str:
        """Changes whenever another environment would be made; knows no password."""
        facts = dataclasses.asdict(self)
        del facts["means"]  # they ask for nothing
        del facts["exact"], facts["hashes"]  # they follow from the rest
        return _digest(facts)

    def foundation(self, sources: object) -> str:
        """Changes whenever an environment has to be made anew, not only changed.

        ``sources`` is where the installer looks for packages: what is there from another
        place stays, otherwise, though the new one would not have it.
        """
        names = ("location", "interpreter", "installer", "system_site_packages", "environment")
        facts = dataclasses.asdict(self)
        return _digest({**{name: facts[name] for name in names}, "sources": sources})


def _digest(facts: Mapping[str, object]) -> str:
    text = json.dumps({**facts, "format": _FORMAT}, default=str, sort_keys=True)
    return hashlib.sha256(masked(text).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Record:
    """What a complete environment says about itself."""

    digest: str
    foundation: str
    interpreter: Interpreter
    #: the programs that its packages brought, by name
    commands: tuple[str, ...]
    #: names in its directories of programs and of packages
    contents: tuple[str, ...]
    #: whether no newer release of anything may come
    settled: bool
    #: name, and what its archive was told by when it was installed
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: programs elsewhere that lead to them: name there, name here
    links: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def archives(self) -> dict[str, list[str]]:
        """The hashes of archives that were allowed, as in ``sha256:...``, by name."""
        found = {name: _HASH.findall(text) for name, text in self.hashes.items()}
        return {name: hashes for name, hashes in found.items() if hashes}

    def write(self, location: pathlib.Path) -> None:
        """Keep this in the environment at ``location``."""
        text = json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)
        with writing(location):
            replace(location / MARKER, f"{text}\n".encode())


def recorded(location: pathlib.Path) -> Record | None:
    """The record of the complete environment at ``location``, if there is one."""
    try:
        raw = json.loads((location / MARKER).read_bytes())
        return Record(
            digest=str(raw["digest"]),
            foundation=str(raw["foundation"]),
            interpreter=Interpreter(**raw["interpreter"]),
            commands=tuple(raw["commands"]),
            contents=tuple(raw["contents"]),
            settled=raw["settled"] is True,
            hashes=dict(raw["hashes"]),
            links=dict(raw["links"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def contents(location: pathlib.Path, interpreter: Interpreter) -> tuple[str, ...]:
    """What stands in an environment's directories of programs and packages, by name.

    Byte-code doesn't count: a program that runs leaves it.
    """
    found: list[str] = []
    for place in ("bin", interpreter.site_packages):
        with contextlib.suppress(OSError):
            names = os.listdir(location / place)
            found += (f"{place}/{name}" for name in names if name != "__pycache__")
    return tuple(sorted(found))


@contextlib.contextmanager
def changed(wanted: Wanted, before: Record | None, foundation: str) -> Iterator[bool]:
    """Have the environment changed by the ``with`` block; True when it is to be made anew.

    It counts as complete when the block has ended well and written a record.  Any exception,
    the block's own included, puts the environment back that was there before.
    """
    location = wanted.location
    waiting = _waiting(location)
    anew = (
        before is None
        or wanted.is_bare
        or before.foundation != foundation
        or before.contents != contents(location, before.interpreter)
    )
    with writing(location):
        if anew and before is not None:
            location.rename(waiting)
        elif anew:
            _refuse_others(location)
            _remove(location)
        else:
            _link_tree(location, waiting)
            (location / MARKER).unlink()
    try:
        yield anew
    except BaseException:
        with writing(location):
            _remove(location)
            if waiting.exists():
                waiting.rename(location)
        raise
    with writing(waiting):
        _remove(waiting)


def _refuse_others(location: pathlib.Path) -> None:
    """Leave a directory alone that no run of ours has begun."""
    is_begun = os.path.lexists(location / _FIRST)
    # empty directories are all that is there before
    if not is_begun and any(files for _, _, files in os.walk(location)):
        raise InstallError(
            f"{location} is there already, and is no environment",
            "move it away, or give the part another name",
        )


def is_unfinished(location: pathlib.Path) -> bool:
    """Whether a run was killed while it changed the environment, or is at it."""
    return os.path.lexists(_waiting(location))


def mend(location: pathlib.Path) -> None:
    """Finish what a killed run began: keep its environment if complete, else the old one."""
    if not is_unfinished(location):
        return
    waiting = _waiting(location)
    with writing(location):
        if (location / MARKER).exists() or not (waiting / MARKER).exists():
            _remove(waiting)
        else:
            _remove(location)
            waiting.rename(location)


@contextlib.contextmanager
def alone(location: pathlib.Path, log: logging.Logger) -> Iterator[int]:
    """Wait until nobody else changes environments beside this one; gives a descriptor.

    A program that inherits the descriptor goes on being that somebody when we are killed.
    """
    with writing(location.parent):
        location.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(location.parent, os.O_RDONLY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("Waiting for another run that changes %s.", location.parent)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def _waiting(location: pathlib.Path) -> pathlib.Path:
    """Where the old environment is while the new one is being made."""
    return location.with_name(f".{location.name}.before")


def _link_tree(source: pathlib.Path, target: pathlib.Path) -> None:
    """Make ``target`` the same tree, of hard links, its marker last.

    Installers replace files and never write into one: they, too, link them from their caches.
    """
    marker = os.fspath(source / MARKER)

    # shutil.copytree asks for each file's state and sets each directory's times
    def link(directory: str, twin: str) -> None:
        os.mkdir(twin)
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    link(entry.path, os.path.join(twin, entry.name))
                elif entry.path != marker:
                    _link_or_copy(entry.path, os.path.join(twin, entry.name))
        shutil.copymode(directory, twin)

    link(os.fspath(source), os.fspath(target))
    _link_or_copy(marker, os.fspath(target / MARKER))


def _link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without links, or one file has too many
        shutil.copy2(source, target, follow_symlinks=False)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # first of all it stops being complete, and last of all being an environment: this may
        # be killed, too
        (path / MARKER).unlink(missing_ok=True)
        for child in path.iterdir():
            if child.is_dir() and not child.is_symlink():
                shutil.rmtree(child)
            elif child.name != _FIRST:
                child.unlink()
        (path / _FIRST).unlink(missing_ok=True)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[None]:
    """Turn an ``OSError`` of the ``with`` block into a complaint about ``path``."""
    try:
        yield
    except OSError as error:
        raise InstallError(
            f"{path} can't be written: {error.strerror or error}",
            "free it: check the permissions and the space on the disk",
        ) from error


def replace(path: pathlib.Path, content: bytes) -> None:
    """Write ``path``, whole or not at all."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            os.fchmod(file.fileno(), 0o644)
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise
