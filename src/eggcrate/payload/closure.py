"""Which files belong into an image: what the parts' outputs refer to, and nothing else."""

from __future__ import annotations

import collections
import fnmatch
import os
import pathlib
import re
import stat
from collections.abc import Iterator, Sequence

from eggcrate.errors import EggcrateError, PlanError, raise_all
from eggcrate.image.plan import FileEntry, FileType, bytes_file, disk_file, symlink
from eggcrate.payload.distributions import (
    BUILD_TOOLS,
    METADATA,
    canonical_name,
    egg_name,
    mended_record,
    on_path,
    required,
)
from eggcrate.payload.relocation import Relocation, is_text
from eggcrate.payload.site import Include, Part, Site, is_project

# Left out of everything: what is made anew, or says where an installer had an archive
# (a temporary directory mostly), and this project's own marks.
_MADE_ANEW = ("__pycache__", "*.py[co]", "*.egg-link", "direct_url.json", ".eggcrate.json")

# Left out of everything but eggs, which are what somebody has published: what tools leave
# behind, and what holds secrets.
LEFT_OUT = (
    *_MADE_ANEW,
    *(".bzr", ".git", ".hg", ".svn"),
    *(".mypy_cache", ".nox", ".pytest_cache", ".ruff_cache", ".tox", ".venv", "node_modules"),
    *(".DS_Store", ".dockerignore", "*.swp", "*~"),
    *(".installed.cfg", ".mr.developer.cfg", "pip.conf"),
    *(".aws", ".docker", ".dockercfg", ".gnupg", ".ssh"),
    *(".env", ".env.*", ".envrc", ".git-credentials", ".netrc", ".npmrc", ".pypirc"),
    *("id_dsa", "id_ecdsa", "id_ed25519", "id_rsa"),
)


def _any_of(patterns: Sequence[str]) -> re.Pattern[str]:
    return re.compile("|".join(map(fnmatch.translate, patterns)))


_NEVER = _any_of(LEFT_OUT)
_NEVER_OF_EGGS = _any_of(_MADE_ANEW)

# Files of a source tree's top that belong to the project, not to what it installs.
_PROJECT_FILES = frozenset({"setup.py", "bootstrap.py", "conftest.py", "noxfile.py"})

_NAME = re.compile(rb"[A-Za-z_]\w*")

# What installers write instead of a #! line that would be too long, or hold a space
_EXEC = re.compile(
    rb"""\A#!/bin/sh\n'''exec' (['"]?)(?P<program>/[^'"\s]+)\1 "\$0" "\$@"\n' '''\n"""
)


def some(names: Sequence[str], most: int = 3) -> str:
    """The first names of a list, and how many there are more."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


class Closure:
    """Collects entries, following what each file refers to."""

    def __init__(
        self,
        site: Site,
        relocation: Relocation,
        *,
        exclude: Sequence[str] = (),
        allow_build_paths: Sequence[str] = (),
    ) -> None:
        self._site = site
        self._relocation = relocation
        # where buildout and its Python keep what they make
        self._python = frozenset(
            path for prefix in site.prefixes for path in _python(prefix, site)
        )
        self._places = {site.bin, site.parts, site.develop_eggs, *self._python}
        self._places |= {*site.eggs.parents, site.eggs} - {*site.directory.parents}
        # zc.buildout writes eggs in an order that changes between a first run and the next
        eggs = re.escape(os.fsencode(relocation.path(os.fspath(site.eggs)) or ""))
        self._eggs_on_path = re.compile(
            rb"(?:^ *'" + eggs + rb"/[^'\n]+',\n){2,}", re.MULTILINE
        )
        self._exclude = tuple(exclude)
        self._excluded: set[str] = set()
        self._allow = tuple(allow_build_paths)
        self._queue: collections.deque[tuple[pathlib.Path, str]] = collections.deque()
        self._done: set[pathlib.Path] = set()
        self._entries: dict[str, FileEntry] = {}
        # the path of this machine that each image path was first claimed for
        self._sources: dict[str, pathlib.Path] = {}
        self._imported_from_directory: list[tuple[pathlib.Path, str, bytes]] = []
        self._environment_wanted = ""
        self._residues: dict[str, list[str]] = {}
        self.errors: list[EggcrateError] = []
        self.warnings: list[str] = []
        # what a #! line names, for the check of interpreters
        self.scripts: list[tuple[FileEntry, bytes]] = []

    # What is asked for

    def add_part(self, part: Part) -> None:
        """Take a part's outputs in, and all that they refer to."""
        for path in part.outputs:
            self._queue.append((path, f"made by the part {part.name}"))
        self._follow()

    def add_include(self, include: Include) -> None:
        """Take one more file or directory in."""
        source = include.source
        if not os.path.lexists(source):
            self.errors.append(
                PlanError(f"include: there is no {source}", "mend the path, or take it out")
            )
            return
        if self._left_out(source):
            self.errors.append(
                PlanError(
                    f"include: {self._shown(source)} is of a kind that stays out of images",
                    "take it out, or give the file another name",
                )
            )
            return
        if not include.target and self._relocation.path(os.fspath(source)) is None:
            self.errors.append(
                PlanError(
                    f"include: {source} lies outside the buildout",
                    "say where it goes: SOURCE = /path/in/the/image",
                )
            )
            return
        for path, relative in self._walk(source):
            target = None
            if include.target:
                target = os.path.normpath(os.path.join(include.target, relative)).lstrip("/")
                if not target and path.is_dir():
                    continue  # the image's root
            self._take(path, "data", f"include: {self._shown(path)}", target)
        self._follow()

    def finish(self) -> list[FileEntry]:
        """All entries, after what scripts import from shared directories was found."""
        self._take_mentioned_packages()
        self._follow()
        self._take_environment()
        self._follow()
        for residue, files in sorted(self._residues.items()):
            self.errors.append(
                PlanError(
                    f"the path {residue} of this machine is left in {some(files)}",
                    "build them so that they don't name it, or list them in allow-build-paths",
                )
            )
        raise_all(self.errors)
        self.warnings.extend(
            f"exclude: nothing matches {pattern}"
            for pattern in self._exclude
            if pattern not in self._excluded
        )
        self._mend_records()
        return list(self._entries.values())

    def _mend_records(self) -> None:
        for path, record in list(self._entries.items()):
            if not path.endswith(".dist-info/RECORD") or record.type is not FileType.REGULAR:
                continue
            top = os.path.dirname(os.path.dirname(path))
            with record.open() as stream:
                data = stream.read()
            mended = mended_record(data, record.group, top, self._entries)
            if mended != data:
                self._entries[path] = bytes_file(
                    path, mended, group=record.group, reason=record.reason, mode=record.mode
                )

    # From a reference to what it brings in

    def _follow(self) -> None:
        while self._queue:
            self._reach(*self._queue.popleft())

    def _reach(self, path: pathlib.Path, reason: str) -> None:
        path = pathlib.Path(os.path.normpath(path))
        if path in self._done:
            return
        self._done.add(path)
        site = self._site
        if not os.path.lexists(path) or path.is_relative_to(site.run_directory):
            return
        if path.is_relative_to(site.eggs):
            if path != site.eggs:
                self._take_egg(site.eggs / path.relative_to(site.eggs).parts[0], reason)
        elif path.is_relative_to(site.environment):
            self._environment_wanted = self._environment_wanted or reason
        elif self._is_interpreter(path):
            pass
        elif self._stays_out(path):
            pass  # a configuration may well name what holds secrets
        elif (environment := self._environment_of(path)) is not None:
            self._take_tree(environment, f"environment {environment.name}", reason)
        elif (location := self._develop_location_of(path)) is not None:
            self._take_develop(location, reason)
            if path != location and not self._is_packed(path):
                self._take_tree(path, "data", reason)
        elif path in (site.bin, site.parts, site.develop_eggs, site.eggs) or (
            site.directory.is_relative_to(path)
        ):
            pass  # a place where others put things, not a thing
        elif any(location.is_relative_to(path) for location in site.develop):
            self._take(path, "develop", reason)  # a checkout: the directory alone
        elif path.is_dir() and not path.is_symlink():
            self._take_tree(path, "data", reason)
        elif self._relocation.path(os.fspath(path)) is not None:
            group = "configuration"
            self._take(path, group, reason)

    def _is_interpreter(self, path: pathlib.Path) -> bool:
        """Whether the path belongs to the Python that runs buildout."""
        return any(path.is_relative_to(own) for own in self._python)

    def _stays_out(self, path: pathlib.Path) -> bool:
        """Whether the path, or a directory above it in the buildout, never goes in."""
        tops = (self._site.directory, *self._site.develop)
        above = (
            parent
            for parent in path.parents
            if any(parent != top and parent.is_relative_to(top) for top in tops)
        )
        return any(map(self._left_out, (path, *above)))

    def _environment_of(self, path: pathlib.Path) -> pathlib.Path | None:
        """The virtual environment that the path lies in, below the buildout."""
        for directory in (path, *path.parents):
            if directory == self._site.directory:
                return None
            if (directory / "pyvenv.cfg").is_file():
                return directory
        return None

    def _develop_location_of(self, path: pathlib.Path) -> pathlib.Path | None:
        for location in self._site.develop:
            if path.is_relative_to(location) and location != self._site.directory:
                return location
        return None

    def _is_packed(self, path: pathlib.Path) -> bool:
        """Whether the path is in the image, or is a directory that others have filled."""
        target = (self._relocation.path(os.fspath(path)) or "").lstrip("/")
        return target in self._entries or any(
            name.startswith(f"{target}/") for name in self._entries
        )

    # Kinds of content

    def _take_egg(self, egg: pathlib.Path, reason: str) -> None:
        if egg in self._done and self._is_packed(egg):
            return
        self._done.add(egg)
        self._take_tree(egg, f"egg {egg_name(egg.name)}", reason)

    def _take_tree(self, top: pathlib.Path, group: str, reason: str) -> None:
        for path, _ in self._walk(top):
            self._done.add(path)
            self._take(path, group, reason)

    def _take_develop(self, location: pathlib.Path, reason: str) -> None:
        """What a develop egg would install: its packages, modules and metadata."""
        if location in self._done and self._is_packed(location):
            return
        self._done.add(location)
        if {canonical_name(found.name) for found in on_path(location)} == {"eggcrate"}:
            return  # zc.buildout lists every develop egg in scripts; this one has done its work
        group = f"develop {location.name}"
        for name in sorted(self._importable(location)):
            self._take_tree(location / name, group, reason)
        for metadata in sorted(location.glob("*.egg-info")):
            for name in ("PKG-INFO", "entry_points.txt", "requires.txt", "top_level.txt"):
                if (metadata / name).is_file():
                    self._take(metadata / name, group, reason)

    def _importable(self, location: pathlib.Path) -> set[str]:
        """The names of the packages and modules of a source tree."""
        declared: set[str] = set()
        for listing in location.glob("*.egg-info/top_level.txt"):
            declared.update(listing.read_text(encoding="utf-8").split())
        beside_documents = is_project(location)

        def fits(path: pathlib.Path) -> bool:
            if declared and path.is_dir():
                return path.name in declared
            if declared:
                # a module, or an extension module that was built in place
                return path.suffix in (".py", ".so") and path.name.split(".")[0] in declared
            if path.is_dir():
                # beside a project's packages lie its documents and tests
                pattern = "__init__.py" if beside_documents or is_project(path) else "**/*.py"
                return next(path.glob(pattern), None) is not None
            return path.suffix == ".py" and path.name not in _PROJECT_FILES

        return {
            path.name
            for path in location.iterdir()
            if not self._left_out(path) and path not in self._places and fits(path)
        }

    def _take_mentioned_packages(self) -> None:
        """Packages beside ``buildout.cfg`` that scripts name and that their path reaches.

        djangorecipe puts the buildout directory itself on ``sys.path``: there lie packages
        of the project, and much else.
        """
        directory = self._site.directory
        if not self._imported_from_directory:
            return
        if directory in self._site.develop:
            self._take_develop(directory, self._imported_from_directory[0][1])
            return
        candidates = self._importable(directory)
        pending = list(self._imported_from_directory)
        while pending:
            _, reason, data = pending.pop()
            words = {match.decode() for match in _NAME.findall(data)}
            for name in sorted(candidates):
                if name.removesuffix(".py") not in words:
                    continue
                candidates.discard(name)
                for path, _ in self._walk(directory / name):
                    entry = self._take(path, f"develop {name}", reason)
                    if entry is not None and path.suffix == ".py":
                        pending.append((path, reason, path.read_bytes()))

    def _take_environment(self) -> None:
        """Distributions beside zc.buildout that eggs need and that buildout found there."""
        if not self._environment_wanted:
            return
        site = self._site.environment
        installed = {canonical_name(found.name): found for found in on_path(site)}
        packed = [egg for egg in self._done if egg.parent == self._site.eggs]
        packed += [location for location in self._site.develop if location in self._done]
        taken = set(BUILD_TOOLS)
        pending: list[str] = []
        for distribution in (found for path in sorted(packed) for found in on_path(path)):
            if canonical_name(distribution.name) not in BUILD_TOOLS:
                taken.add(canonical_name(distribution.name))
                pending.extend(required(distribution.requires or ()))
        while pending:
            name = pending.pop()
            if name in taken or name not in installed:
                continue
            taken.add(name)
            distribution = installed[name]
            group = f"egg {distribution.name}-{distribution.version}"
            reason = f"{distribution.name}, required by an egg"
            for file in distribution.files or ():
                path = pathlib.Path(os.path.normpath(site / file))
                if path.is_relative_to(site) and path.is_file() and not self._left_out(path):
                    self._take(path, group, reason)
            pending.extend(required(distribution.requires or ()))

    # One file

    def _walk(self, top: pathlib.Path) -> Iterator[tuple[pathlib.Path, str]]:
        """``top`` and all below it, with paths relative to it; links are not followed."""
        if self._left_out(top):
            return
        yield top, ""
        if top.is_symlink() or not top.is_dir():
            return

        def unreadable(error: OSError) -> None:
            self.errors.append(
                PlanError(
                    f"{error.filename} can't be read: {error.strerror}",
                    "let this user read it, or list it in exclude",
                )
            )

        for root, directories, files in os.walk(top, onerror=unreadable):
            directories.sort()
            kept = []
            for name in directories:
                path = pathlib.Path(root, name)
                if not self._left_out(path):
                    yield path, os.path.relpath(path, top)
                    if not path.is_symlink():
                        kept.append(name)
            directories[:] = kept
            for name in sorted(files):
                path = pathlib.Path(root, name)
                if not self._left_out(path):
                    yield path, os.path.relpath(path, top)

    def _left_out(self, path: pathlib.Path) -> bool:
        installed = path.is_relative_to(self._site.eggs) or path.is_relative_to(
            self._site.environment
        )
        if (_NEVER_OF_EGGS if installed else _NEVER).fullmatch(path.name):
            return True
        if not self._exclude:
            return False
        try:
            relative = path.relative_to(self._site.directory).as_posix()
        except ValueError:
            relative = path.as_posix()
        matching = [
            pattern
            for pattern in self._exclude
            if fnmatch.fnmatchcase(relative, pattern.rstrip("/"))
            or fnmatch.fnmatchcase(path.name, pattern.rstrip("/"))
        ]
        self._excluded.update(matching)
        return bool(matching)

    def _take(
        self, path: pathlib.Path, group: str, reason: str, target: str | None = None
    ) -> FileEntry | None:
        """Add the entry of one path as it is on disk, with the paths in it relocated."""
        if target is None:
            relocated = self._relocation.path(os.fspath(path))
            if relocated is None:
                return None
            target = relocated.lstrip("/")
        if self._sources.setdefault(target, path) == path and target in self._entries:
            return self._entries[target]
        try:
            entry = self._entry(path, target, group, reason)
        except OSError as error:
            self.errors.append(
                PlanError(
                    f"{path} can't be read: {error.strerror}",
                    "let this user read it, or list it in exclude",
                )
            )
            return None
        if entry is None:
            return None
        known = self._entries.setdefault(target, entry)
        if (
            known is not entry
            and entry.type is not FileType.DIRECTORY
            and ((known.digest, known.linkname) != (entry.digest, entry.linkname))
        ):
            self.errors.append(
                PlanError(
                    f"/{target} is claimed twice, with different content: "
                    f"{known.reason}; and {entry.reason}",
                    "exclude one of the two sources, or give one another target",
                )
            )
        return entry

    def _entry(
        self, path: pathlib.Path, target: str, group: str, reason: str
    ) -> FileEntry | None:
        status = path.lstat()
        kind = status.st_mode
        if stat.S_ISLNK(kind):
            return self._link(path, target, group, reason)
        if stat.S_ISDIR(kind):
            return FileEntry(target, FileType.DIRECTORY, 0o755, group, reason)
        if not stat.S_ISREG(kind):
            self.warnings.append(f"{path} is no file, directory or link; it is left out")
            return None
        if kind & (stat.S_ISUID | stat.S_ISGID):
            self.warnings.append(
                f"{path} is set-user-ID or set-group-ID; the image has it plain"
            )
        data = path.read_bytes()
        mode = 0o755 if kind & 0o100 else 0o644
        if not self._relocation.touches(data):
            entry = disk_file(target, path, group=group, reason=reason, mode=mode, data=data)
        else:
            entry = self._relocated(path, data, target, group, reason, mode)
        if data.startswith(b"#!") and mode & 0o100 and not group.startswith("egg "):
            with entry.open() as stream:
                self.scripts.append((entry, stream.readline(4096)))
        return entry

    def _relocated(
        self, path: pathlib.Path, data: bytes, target: str, group: str, reason: str, mode: int
    ) -> FileEntry:
        if is_text(data):
            if not path.parent.name.endswith(METADATA):
                self._refer(path, data)
            data = _EXEC.sub(rb"#!\g<program>\n", self._relocation.text(data))
            data = self._eggs_on_path.sub(_sorted_lines, data)
        residue = self._relocation.residue(data)
        if residue and not self._allowed(target):
            self._residues.setdefault(residue, []).append(self._shown(path))
        return bytes_file(target, data, group=group, reason=reason, mode=mode)

    def _refer(self, path: pathlib.Path, data: bytes) -> None:
        """Queue what a text refers to."""
        editable = path.suffix == ".pth" or path.name.startswith("__editable__")
        for found, quoted in self._relocation.references(data):
            if editable and found.is_dir():
                self._take_develop(found, f"imported by {self._shown(path)}")
                continue
            self._queue.append((found, f"named in {self._shown(path)}"))
            if quoted and found == self._site.directory:
                self._imported_from_directory.append(
                    (path, f"imported by {self._shown(path)}", data)
                )

    def _allowed(self, target: str) -> bool:
        return any(
            fnmatch.fnmatchcase(f"/{target}", pattern)
            or fnmatch.fnmatchcase(target.rpartition("/")[2], pattern)
            for pattern in self._allow
        )

    def _link(self, path: pathlib.Path, target: str, group: str, reason: str) -> FileEntry:
        text = os.readlink(path)
        leads_to = os.path.normpath(path.parent / text)
        relocated = self._relocation.path(leads_to)
        if relocated is not None:
            self._queue.append((pathlib.Path(leads_to), f"linked from {self._shown(path)}"))
            if os.path.isabs(text):
                text = relocated
        return symlink(target, text, group=group, reason=reason)

    def _shown(self, path: pathlib.Path) -> str:
        """A path as messages show it: relative to the buildout where it can be."""
        if path.is_relative_to(self._site.directory):
            return os.fspath(path.relative_to(self._site.directory))
        return os.fspath(path)


def _python(prefix: pathlib.Path, site: Site) -> Iterator[pathlib.Path]:
    """What belongs to the Python with this prefix.

    That is not all below it where the buildout is there too: in the environment's own
    directory (``python3 -m venv .``), or in ``/usr/src`` of a container.
    """
    if not site.directory.is_relative_to(prefix):
        yield prefix
        return
    for name in ("lib", "lib64", "include", "pyvenv.cfg"):
        yield prefix / name
    yield from (prefix / "bin").glob("python*")


def _sorted_lines(match: re.Match[bytes]) -> bytes:
    return b"".join(sorted(match[0].splitlines(keepends=True)))
