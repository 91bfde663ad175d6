"""Which files belong into an image: what the parts' outputs refer to, and nothing else."""

from __future__ import annotations

import collections
import fnmatch
import os
import pathlib
import re
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from eggcrate.errors import EggcrateError, PlanError, raise_all
from eggcrate.image.plan import FileEntry, FileType, bytes_file, printable, symlink
from eggcrate.payload.distributions import (
    BUILD_TOOLS,
    METADATA,
    canonical_name,
    egg_name,
    mended_record,
    on_path,
    required,
)
from eggcrate.payload.dockerignore import Ignore
from eggcrate.payload.files import Facts, Files
from eggcrate.payload.relocation import Relocation
from eggcrate.payload.runpath import relocated_search_path
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


class _Found(NamedTuple):
    """A path of this machine with its place in the image, as the walk of a tree yields it."""

    path: str
    target: str
    status: os.stat_result


class Closure:
    """Collects entries, following what each file refers to.

    Paths of this machine are strings here: there are 100,000 of them.
    """

    def __init__(
        self,
        site: Site,
        relocation: Relocation,
        *,
        files: Files | None = None,
        exclude: Sequence[str] = (),
        allow_build_paths: Sequence[str] = (),
        allow_secrets: Sequence[str] = (),
    ) -> None:
        self._site = site
        self._relocation = relocation
        self._files = files or Files(relocation)
        self._directory = os.fspath(site.directory)
        self._eggs = os.fspath(site.eggs)
        self._environment = os.fspath(site.environment)
        self._run_directory = os.fspath(site.run_directory)
        self._develop = tuple(map(os.fspath, site.develop))
        # where buildout and its Python keep what they make
        self._python = frozenset(
            path for prefix in site.prefixes for path in map(os.fspath, _python(prefix, site))
        )
        places = {site.bin, site.parts, site.develop_eggs}
        self._places = {*map(os.fspath, places), *self._python}
        eggs_and_above = {*site.eggs.parents, site.eggs} - {*site.directory.parents}
        self._places |= set(map(os.fspath, eggs_and_above))
        # rules for what lies below something else that is moved
        self._rules = frozenset(rule.source for rule in relocation.rules)
        # zc.buildout writes eggs in an order that changes between a first run and the next
        eggs = re.escape(os.fsencode(relocation.path(self._eggs) or ""))
        self._eggs_on_path = re.compile(
            rb"(?:^ *'" + eggs + rb"/[^'\n]+',\n){2,}", re.MULTILINE
        )
        self._exclude = {
            pattern: re.compile(fnmatch.translate(pattern.rstrip("/"))) for pattern in exclude
        }
        self._excluded: set[str] = set()
        self._allow_build_paths = tuple(allow_build_paths)
        self._allow_secrets = tuple(allow_secrets)
        self._queue: collections.deque[tuple[str, str]] = collections.deque()
        self._done: set[str] = set()
        # directories that were taken with all that is in them
        self._trees: set[str] = set()
        self._entries: dict[str, FileEntry] = {}
        self._ignores: dict[str, tuple[tuple[str, Ignore], ...]] = {}
        # the first name of files that have several, by device, inode and group
        self._names: dict[tuple[int, int, str], str] = {}
        self._imported_from_directory: list[tuple[str, str, bytes]] = []
        self._environment_wanted = ""
        self._residues: dict[str, list[str]] = {}
        self._secrets: dict[str, list[str]] = {}
        self.errors: list[EggcrateError] = []
        self.warnings: list[str] = []
        # modules whose words tell what else goes in
        self.telling: set[str] = set()
        # what a #! line names, for the check of interpreters
        self.scripts: list[tuple[FileEntry, bytes]] = []

    # What is asked for

    def add_part(self, part: Part) -> None:
        """Take a part's outputs in, and all that they refer to."""
        for path in part.outputs:
            self._queue.append((os.fspath(path), f"made by the part {part.name}"))
        self._follow()

    def add_include(self, include: Include) -> None:
        """Take one more file or directory in."""
        source = os.path.normpath(include.source)
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
        target = include.target or self._relocation.path(source)
        if target is None:
            self.errors.append(
                PlanError(
                    f"include: {source} lies outside the buildout",
                    "say where it goes: SOURCE = /path/in/the/image",
                )
            )
            return
        place = os.path.normpath(target).strip("/")
        reason = f"include: {self._shown(source)}"
        for found in self._walk(source, place, moved=bool(include.target)):
            if not found.target and stat.S_ISDIR(found.status.st_mode):
                continue  # the image's root
            self._take(found, "data", reason)
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
        for secret, files in sorted(self._secrets.items()):
            self.errors.append(
                PlanError(
                    f"there is {secret} in {some(files)}",
                    "give it to the container when it starts; if it is none, list the file in "
                    "allow-secrets",
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

    def _reach(self, path: str, reason: str) -> None:
        path = os.path.normpath(path)
        if path in self._done:
            return
        self._done.add(path)
        if _below(path, self._run_directory) or not self._files.exists(path):
            return
        if _below(path, self._eggs):
            if path != self._eggs:
                name = path[len(self._eggs) + 1 :].partition("/")[0]
                self._take_egg(f"{self._eggs}/{name}", reason)
        elif _below(path, self._environment):
            self._environment_wanted = self._environment_wanted or reason
        elif self._is_interpreter(path):
            pass
        elif self._stays_out(path):
            pass  # a configuration may well name what holds secrets
        elif (environment := self._environment_of(path)) is not None:
            self._take_tree(environment, f"environment {os.path.basename(environment)}", reason)
        elif (location := self._develop_location_of(path)) is not None:
            self._take_develop(location, reason)
            if path != location and not self._is_packed(path):
                self._take_tree(path, "data", reason)
        elif path in self._places or _below(self._directory, path):
            pass  # a place where others put things, not a thing
        elif any(_below(location, path) for location in self._develop):
            self._take_one(path, "develop", reason)  # a checkout: the directory alone
        elif os.path.isdir(path) and not os.path.islink(path):
            self._take_tree(path, "data", reason)
        elif not self._in_tree(path):
            self._take_one(path, "configuration", reason)

    def _is_interpreter(self, path: str) -> bool:
        """Whether the path belongs to the Python that runs buildout."""
        return any(_below(path, own) for own in self._python)

    def _in_tree(self, path: str) -> bool:
        """Whether the path, or a directory above it, was taken with all that is in it."""
        return any(above in self._trees for above in (path, *_above(path)))

    def _stays_out(self, path: str) -> bool:
        """Whether the path, or a directory above it in the buildout, never goes in."""
        tops = (self._directory, *self._develop)
        above = (
            parent
            for parent in _above(path)
            if any(parent != top and _below(parent, top) for top in tops)
        )
        return any(map(self._left_out, (path, *above)))

    def _environment_of(self, path: str) -> str | None:
        """The virtual environment that the path lies in, below the buildout."""
        for directory in (path, *_above(path)):
            if directory == self._directory:
                return None
            if self._files.exists(f"{directory}/pyvenv.cfg"):
                return directory
        return None

    def _develop_location_of(self, path: str) -> str | None:
        for location in self._develop:
            if _below(path, location) and location != self._directory:
                return location
        return None

    def _is_packed(self, path: str) -> bool:
        """Whether the path is in the image, or is a directory that others have filled."""
        target = (self._relocation.path(path) or "").lstrip("/")
        return target in self._entries or any(
            name.startswith(f"{target}/") for name in self._entries
        )

    # Kinds of content

    def _take_egg(self, egg: str, reason: str) -> None:
        if egg not in self._trees:
            self._take_tree(egg, f"egg {egg_name(os.path.basename(egg))}", reason)

    def _take_tree(self, top: str, group: str, reason: str) -> None:
        target = self._relocation.path(top)
        if target is None or self._in_tree(top):
            return
        self._trees.add(top)
        for found in self._walk(top, target.lstrip("/")):
            self._take(found, group, reason)

    def _take_one(self, path: str, group: str, reason: str) -> None:
        """Take a path alone, where it has a place in the image."""
        target = self._relocation.path(path)
        if target is None or self._left_out(path):
            return
        try:
            status = os.lstat(path)
        except OSError as error:
            self._unreadable(error)
            return
        self._take(_Found(path, target.lstrip("/"), status), group, reason)

    def _take_develop(self, location: str, reason: str) -> None:
        """What a develop egg would install: its packages, modules and metadata."""
        if location in self._trees:
            return
        self._trees.add(location)
        place = pathlib.Path(location)
        if {canonical_name(found.name) for found in on_path(place)} == {"eggcrate"}:
            return  # zc.buildout lists every develop egg in scripts; this one has done its work
        group = f"develop {place.name}"
        for name in sorted(self._importable(place)):
            self._take_package(f"{location}/{name}", group, reason)
        for metadata in sorted(place.glob("*.egg-info")):
            for name in ("PKG-INFO", "entry_points.txt", "requires.txt", "top_level.txt"):
                if (metadata / name).is_file():
                    self._take_one(os.fspath(metadata / name), group, reason)

    def _take_package(self, top: str, group: str, reason: str) -> None:
        """Take a package or a module, whose directory may be marked as taken already."""
        target = self._relocation.path(top)
        if target is None or self._ignores_package(top, reason):
            return
        self._done.add(top)
        for found in self._walk(top, target.lstrip("/")):
            self._take(found, group, reason)

    def _ignores_package(self, top: str, reason: str) -> bool:
        """Whether a module stays out; that a whole package would, is a mistake."""
        directory = os.path.isdir(top)
        if not self._is_ignored(top, directory=directory):
            return False
        if directory:
            shown = self._shown(top)
            self.errors.append(
                PlanError(
                    f"a .dockerignore leaves out the package {shown}, which goes in ({reason})",
                    f"add a line to it, !{shown}, or take the project out of the eggs",
                )
            )
        return True

    def _importable(self, location: pathlib.Path) -> set[str]:
        """The names of the packages and modules of a source tree."""
        top = os.fspath(location)
        children = self._files.children(top, os.stat(top))
        declared: set[str] = set()
        for child in children:
            listing = f"{child.path}/top_level.txt"
            if child.name.endswith(".egg-info") and self._files.exists(listing):
                self._files.facts(listing, os.stat(listing), secrets=False)
                declared.update(pathlib.Path(listing).read_text(encoding="utf-8").split())
        beside_documents = is_project(location)

        def fits(child: os.DirEntry[str]) -> bool:
            if declared and child.is_dir():
                return child.name in declared
            stem, suffix = os.path.splitext(child.name)
            if declared:
                # a module, or an extension module that was built in place
                return suffix in (".py", ".so") and stem.split(".")[0] in declared
            if child.is_dir():
                # beside a project's packages lie its documents and tests
                if beside_documents or is_project(pathlib.Path(child.path)):
                    return self._files.exists(f"{child.path}/__init__.py")
                return self._holds_modules(child.path)
            return suffix == ".py" and child.name not in _PROJECT_FILES

        return {
            child.name
            for child in children
            if not self._left_out(child.path) and child.path not in self._places and fits(child)
        }

    def _holds_modules(self, directory: str) -> bool:
        """Whether there is a module somewhere below a directory."""
        try:
            children = self._files.children(directory, os.stat(directory))
        except OSError:
            return False
        return any(child.name.endswith(".py") for child in children) or any(
            self._holds_modules(child.path)
            for child in children
            if child.is_dir(follow_symlinks=False) and not self._left_out(child.path)
        )

    def _take_mentioned_packages(self) -> None:
        """Packages beside ``buildout.cfg`` that scripts name and that their path reaches.

        djangorecipe puts the buildout directory itself on ``sys.path``: there lie packages
        of the project, and much else.
        """
        directory = self._directory
        if not self._imported_from_directory:
            return
        if directory in self._develop:
            self._take_develop(directory, self._imported_from_directory[0][1])
            return
        candidates = self._importable(self._site.directory)
        pending = list(self._imported_from_directory)
        while pending:
            _, reason, data = pending.pop()
            words = {match.decode() for match in _NAME.findall(data)}
            for name in sorted(candidates):
                if name.removesuffix(".py") not in words:
                    continue
                candidates.discard(name)
                top = f"{directory}/{name}"
                target = self._relocation.path(top)
                if target is None or self._ignores_package(top, reason):
                    continue
                for found in self._walk(top, target.lstrip("/")):
                    entry = self._take(found, f"develop {name}", reason)
                    if entry is not None and found.path.endswith(".py"):
                        self.telling.add(found.path)
                        with open(found.path, "rb") as stream:
                            pending.append((found.path, reason, stream.read()))

    def _take_environment(self) -> None:
        """Distributions beside zc.buildout that eggs need and that buildout found there."""
        if not self._environment_wanted:
            return
        site = self._site.environment
        self._files.children(self._environment, os.stat(self._environment))
        installed = {canonical_name(found.name): found for found in on_path(site)}
        packed = [
            tree
            for tree in self._trees
            if os.path.dirname(tree) == self._eggs or tree in self._develop
        ]
        taken = set(BUILD_TOOLS)
        pending: list[str] = []
        for path in sorted(packed):
            for distribution in on_path(pathlib.Path(path)):
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
                path = os.path.normpath(site / file)
                if _below(path, self._environment) and os.path.isfile(path):
                    self._take_one(path, group, reason)
            pending.extend(required(distribution.requires or ()))

    # One file

    def _walk(self, top: str, target: str, *, moved: bool = False) -> Iterator[_Found]:
        """``top`` and all below it with their places, sorted; links are not followed.

        Where a rule moves something below ``top`` elsewhere, it goes there, unless all is
        ``moved`` by an option.
        """
        if self._left_out(top):
            return
        try:
            status = os.lstat(top)
        except OSError as error:
            self._unreadable(error)
            return
        found = _Found(top, target, status)
        yield found
        if stat.S_ISDIR(status.st_mode):
            source_tree = not (_below(top, self._eggs) or _below(top, self._environment))
            yield from self._walk_below(found, moved, source_tree)

    def _walk_below(
        self, directory: _Found, moved: bool, source_tree: bool
    ) -> Iterator[_Found]:
        try:
            children = self._files.children(directory.path, directory.status)
        except OSError as error:
            self._unreadable(error)
            return
        below = f"{directory.target}/" if directory.target else ""
        for child in children:
            path = f"{directory.path}/{child.name}"
            if self._left_out(path):
                continue
            if source_tree and self._is_ignored(
                path, directory=child.is_dir(follow_symlinks=False)
            ):
                continue
            try:
                status = child.stat(follow_symlinks=False)
            except OSError as error:
                self._unreadable(error)
                continue
            place = below + child.name
            if path in self._rules and not moved:
                place = (self._relocation.path(path) or place).lstrip("/")
            found = _Found(path, place, status)
            yield found
            if stat.S_ISDIR(status.st_mode):
                yield from self._walk_below(found, moved, source_tree)

    def _left_out(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        installed = _below(path, self._eggs) or _below(path, self._environment)
        if (_NEVER_OF_EGGS if installed else _NEVER).fullmatch(name):
            return True
        if not self._exclude:
            return False
        relative = path[len(self._directory) + 1 :] if _below(path, self._directory) else path
        matching = [
            pattern
            for pattern, expression in self._exclude.items()
            if expression.fullmatch(relative) or expression.fullmatch(name)
        ]
        self._excluded.update(matching)
        return bool(matching)

    def _is_ignored(self, path: str, *, directory: bool = False) -> bool:
        """Whether a ``.dockerignore`` above a path of a source tree leaves it out.

        What buildout makes is no source: people let Docker ignore ``bin`` and ``parts``.
        """
        for top, ignore in self._ignores_of(os.path.dirname(path)):
            relative = path[len(top) + 1 :]
            if ignore.matches(relative, directory=directory) and not (
                directory and ignore.may_hold(relative)
            ):
                return True
        return False

    def _ignores_of(self, directory: str) -> tuple[tuple[str, Ignore], ...]:
        """The ``.dockerignore`` files that hold in a directory, the nearest first."""
        known = self._ignores.get(directory)
        if known is not None:
            return known
        found: tuple[tuple[str, Ignore], ...] = ()
        tops = (self._directory, *self._develop)
        if any(_below(directory, top) for top in tops) or is_project(pathlib.Path(directory)):
            ignore = self._ignore(directory)
            own = ((directory, ignore),) if ignore else ()
            found = (*own, *self._ignores_of(os.path.dirname(directory)))
        self._ignores[directory] = found
        return found

    def _ignore(self, directory: str) -> Ignore | None:
        path = f"{directory}/.dockerignore"
        if not self._files.exists(path):
            return None
        try:
            self._files.facts(path, os.stat(path), secrets=False)
            with open(path, encoding="utf-8", errors="surrogateescape") as stream:
                return Ignore.parse(stream.read())
        except OSError as error:
            self._unreadable(error)
        except EggcrateError as error:
            # Docker refuses it too
            place = "" if directory == self._directory else f"{self._shown(directory)}/"
            self.errors.append(PlanError(f"{place}{error.what}", error.hint))
        return None

    def _unreadable(self, error: OSError) -> None:
        self.errors.append(
            PlanError(
                f"{printable(str(error.filename))} can't be read: {error.strerror}",
                "let this user read it, or list it in exclude",
            )
        )

    def _take(self, found: _Found, group: str, reason: str) -> FileEntry | None:
        """Add the entry of one path as it is on disk, with the paths in it relocated."""
        try:
            entry = self._entry(found, group, reason)
        except OSError as error:
            self._unreadable(error)
            return None
        if entry is None:
            return None
        known = self._entries.setdefault(found.target, entry)
        if (
            known is not entry
            and entry.type is not FileType.DIRECTORY
            and self._content(known) != self._content(entry)
        ):
            self.errors.append(
                PlanError(
                    f"/{found.target} is claimed twice, with different content: "
                    f"{known.reason}; and {entry.reason}",
                    "exclude one of the two sources, or give one another target",
                )
            )
        return entry

    def _content(self, entry: FileEntry) -> tuple[str, str]:
        if entry.type is FileType.HARDLINK:
            entry = self._entries[entry.linkname]
        return entry.digest, entry.linkname

    def _entry(self, found: _Found, group: str, reason: str) -> FileEntry | None:
        path, target, status = found
        kind = status.st_mode
        if stat.S_ISDIR(kind):
            return FileEntry(target, FileType.DIRECTORY, 0o755, group, reason)
        if stat.S_ISLNK(kind):
            return self._link(path, target, group, reason)
        if not stat.S_ISREG(kind):
            self.warnings.append(
                f"{printable(path)} is no file, directory or link; it is left out"
            )
            return None
        if kind & (stat.S_ISUID | stat.S_ISGID):
            self.warnings.append(
                f"{printable(path)} is set-user-ID or set-group-ID; the image has it plain"
            )
        if status.st_nlink > 1:
            # only within one group, whose entries share a layer: installers link the files of
            # several environments to one another, and on another machine they copy
            first = self._names.setdefault((status.st_dev, status.st_ino, group), target)
            if first != target and first in self._entries:
                return FileEntry(
                    target,
                    FileType.HARDLINK,
                    self._entries[first].mode,
                    group,
                    reason,
                    linkname=first,
                )
        mode = 0o755 if kind & 0o100 else 0o644
        private = group.partition(" ")[0] in ("develop", "data", "configuration")
        facts = self._files.facts(path, status, secrets=private)
        if facts.secret and not self._is_allowed(target, self._allow_secrets):
            self._secrets.setdefault(facts.secret, []).append(self._shown(path))
        if facts.touched:
            entry = self._relocated(path, facts, target, group, reason, mode)
        else:
            entry = FileEntry(
                target,
                FileType.REGULAR,
                mode,
                group,
                reason,
                source=path,
                size=facts.size,
                digest=facts.digest,
            )
        if facts.first_line and mode & 0o100 and not group.startswith("egg "):
            with entry.open() as stream:
                self.scripts.append((entry, stream.readline(4096)))
        return entry

    def _relocated(
        self, path: str, facts: Facts, target: str, group: str, reason: str, mode: int
    ) -> FileEntry:
        with open(path, "rb") as stream:
            data = stream.read()
        if facts.text:
            if not os.path.dirname(path).endswith(METADATA):
                self._refer(path, data)
            data = _EXEC.sub(rb"#!\g<program>\n", self._relocation.text(data))
            data = self._eggs_on_path.sub(_sorted_lines, data)
        elif facts.binary is not None:
            data = relocated_search_path(data, self._relocation.text) or data
        residue = self._relocation.residue(data)
        if residue and not self._is_allowed(target, self._allow_build_paths):
            self._residues.setdefault(residue, []).append(self._shown(path))
        return bytes_file(target, data, group=group, reason=reason, mode=mode)

    def _refer(self, path: str, data: bytes) -> None:
        """Queue what a text refers to."""
        name = os.path.basename(path)
        editable = name.endswith(".pth") or name.startswith("__editable__")
        shown = self._shown(path)
        for found, quoted in self._relocation.references(data, self._files.exists):
            if editable and os.path.isdir(found):
                self._take_develop(found, f"imported by {shown}")
                continue
            self._queue.append((found, f"named in {shown}"))
            if quoted and found == self._directory:
                self._imported_from_directory.append((path, f"imported by {shown}", data))

    @staticmethod
    def _is_allowed(target: str, patterns: Sequence[str]) -> bool:
        return any(
            fnmatch.fnmatchcase(f"/{target}", pattern)
            or fnmatch.fnmatchcase(target.rpartition("/")[2], pattern)
            for pattern in patterns
        )

    def _link(self, path: str, target: str, group: str, reason: str) -> FileEntry:
        text = self._files.link(path)
        leads_to = os.path.normpath(os.path.join(os.path.dirname(path), text))
        relocated = self._relocation.path(leads_to)
        if relocated is not None:
            self._queue.append((leads_to, f"linked from {self._shown(path)}"))
            if os.path.isabs(text):
                text = relocated
        return symlink(target, text, group=group, reason=reason)

    def _shown(self, path: str) -> str:
        """A path as messages show it: relative to the buildout where it can be."""
        if path != self._directory and _below(path, self._directory):
            path = path[len(self._directory) + 1 :]
        return printable(path)


def _below(path: str, directory: str) -> bool:
    """Whether the path is the directory, or lies in it."""
    return path.startswith(directory) and (
        len(path) == len(directory) or path[len(directory)] == "/" or directory == "/"
    )


def _above(path: str) -> Iterator[str]:
    """The directories above a path, the nearest first."""
    while (path := os.path.dirname(path)) != "/":
        yield path


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
