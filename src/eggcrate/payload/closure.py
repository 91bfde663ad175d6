"""Which files belong into an image: what the parts' outputs refer to, and nothing else."""

from __future__ import annotations

import bisect
import collections
import dataclasses
import fnmatch
import functools
import hashlib
import os
import pathlib
import re
import stat
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from eggcrate.errors import EggcrateError, PlanError, raise_all
from eggcrate.image.plan import (
    FileEntry,
    FileType,
    bytes_file,
    directory,
    look_alikes,
    open_at_once,
    printable,
    symlink,
)
from eggcrate.payload import distributions, syspath
from eggcrate.payload.develop import DevelopEgg, develop_eggs, package_top
from eggcrate.payload.distributions import (
    BOOKKEEPING,
    BUILD_TOOLS,
    METADATA,
    Distribution,
    canonical_name,
    egg_name,
)
from eggcrate.payload.dockerignore import Ignore
from eggcrate.payload.files import Facts, Files
from eggcrate.payload.relocation import Mention, Relocation
from eggcrate.payload.runpath import relocated_search_path
from eggcrate.payload.site import PROJECT, Include, Part, Site

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

# Files of a source tree's top that belong to the project, not to what it installs, and
# directories that may have modules and are no packages of it.
_PROJECT_FILES = frozenset({"setup.py", "bootstrap.py", "conftest.py", "noxfile.py"})
_BESIDE_PACKAGES = frozenset(
    (
        *("benchmark", "benchmarks", "build", "dist", "doc", "docs", "example", "examples"),
        *("node_modules", "test", "tests"),
    )
)

# Files that a running program makes: when a configuration names one, it is told where.
_RUNTIME_FILES = re.compile(r".*\.(?:lock|log|pid|sock|socket)")

# No script that zc.buildout writes is longer
_LONGEST_SCRIPT = 1 << 20

# Build tools that an application may import, with what it imports then
_TOOL_MODULES = {
    "pip": ("pip",),
    "setuptools": ("pkg_resources", "setuptools"),
    "uv": ("uv",),
    "wheel": ("wheel",),
}

# Programs of an environment for which something else stands in an image, or nothing
_OF_PYTHON = re.compile(r"python[\d.]*|pip[\d.]*|[Aa]ctivate.*|wheel|pyvenv\.cfg|buildout")

# A directory in which a program writes, as any user.  Not sticky: ZODB removes some, to make
# them anew.
_WRITABLE = 0o777

_NAME = re.compile(rb"[A-Za-z_]\w*")

# What installers write instead of a #! line that would be too long, or hold a space
_EXEC = re.compile(
    rb"""\A#!/bin/sh\n'''exec' (['"]?)(?P<program>/[^'"\s]+)\1(?P<option>(?: -\w+)?) """
    rb""""\$0" "\$@"\n' '''\n"""
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


@dataclasses.dataclass(frozen=True, slots=True)
class _Imports:
    """A text with a directory on its ``sys.path`` of which only what it imports goes in."""

    top: str
    path: str
    reason: str
    data: bytes


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
        present: Sequence[str] = (),
    ) -> None:
        """``present`` are directories of this machine that every image has, moved by a rule."""
        self._site = site
        self._present = tuple(present)
        self._relocation = relocation
        self._files = files or Files(relocation)
        self._directory = os.fspath(site.directory)
        self._eggs = os.fspath(site.eggs)
        self._environment = os.fspath(site.environment)
        self._develop_eggs = os.fspath(site.develop_eggs)
        # what programs write, by the custom of zc.buildout's users
        self._variable = os.fspath(site.directory / "var")
        self._run_directory = os.fspath(site.run_directory)
        self._develop = tuple(map(os.fspath, site.develop))
        # where buildout and its Python keep what they make
        self._python = frozenset(
            path for prefix in site.prefixes for path in map(os.fspath, _python(prefix, site))
        )
        self._made_places = tuple(map(os.fspath, (site.bin, site.parts, site.develop_eggs)))
        self._places = {*self._made_places, *self._python}
        eggs_and_above = {*site.eggs.parents, site.eggs} - {*site.directory.parents}
        self._places |= set(map(os.fspath, eggs_and_above))
        # rules for what lies below something else that is moved
        self._rules = frozenset(rule.source for rule in relocation.rules)
        self._exclude = {
            pattern: re.compile(fnmatch.translate(pattern.rstrip("/"))) for pattern in exclude
        }
        self._excluded: set[str] = set()
        self._allow_build_paths = tuple(allow_build_paths)
        self._allow_secrets = tuple(allow_secrets)
        self._parts: list[Part] = []
        self._includes: list[Include] = []
        self._outputs: set[str] = set()
        # paths below var that are asked for
        self._kept: tuple[str, ...] = ()
        self._queue: collections.deque[tuple[str, str]] = collections.deque()
        self._done: set[str] = set()
        # directories that were taken with all that is in them
        self._trees: set[str] = set()
        self._entries: dict[str, FileEntry] = {}
        self._ignores: dict[str, tuple[tuple[str, Ignore], ...]] = {}
        self._environments: dict[str, bool] = {}
        # the first name of files that have several, by device, inode and group
        self._names: dict[tuple[int, int, str], str] = {}
        # directories in which programs make files, with the reason
        self._made: dict[str, str] = {}
        # sockets and the like; files with the rights of others
        self._odd: set[str] = set()
        self._set_id: set[str] = set()
        # programs of the Python that runs buildout, with the reason
        self._programs: dict[str, str] = {}
        # what lies in var and does not go in
        self._staying: set[str] = set()
        self._imports: list[_Imports] = []
        self._mentioned: set[str] = set()
        # why the environment and develop-eggs are on a path, if they are; eggs of build tools
        self._environment_wanted = ""
        self._develop_eggs_wanted = ""
        self._tools: dict[str, str] = {}
        # texts that may import what those have
        self._importing: list[bytes] = []
        self._asked: dict[str, str] = {}
        self._distributions: dict[str, list[Distribution]] = {}
        self._taken: set[str] = set()
        self._scanned = 0
        self._scanned_for: object = None
        # scripts with a list of eggs, by their place in the image, and what `base` is there
        self._listing: dict[str, str] = {}
        self._residues: dict[str, list[str]] = {}
        self._secrets: dict[str, list[str]] = {}
        self.errors: list[EggcrateError] = []
        self.warnings: list[str] = []
        # modules whose words tell what else goes in, and files that must be the same
        self.telling: set[str] = set()
        # what a #! line names, for the check of interpreters
        self.scripts: list[tuple[FileEntry, bytes]] = []

    # What is asked for

    def add_part(self, part: Part) -> None:
        """Ask for a part's outputs, and all that they refer to."""
        self._parts.append(part)

    def add_include(self, include: Include) -> None:
        """Ask for one more file or directory."""
        self._includes.append(include)

    def finish(self) -> list[FileEntry]:
        """The entries of all that was asked for, and of what that refers to."""
        outputs = [
            (os.path.normpath(path), part) for part in self._parts for path in part.outputs
        ]
        self._outputs.update(path for path, _ in outputs)
        asked = [
            *(path for path, _ in outputs if path != self._variable),
            *(os.path.normpath(include.source) for include in self._includes),
        ]
        self._kept = tuple(path for path in asked if _below(path, self._variable))
        for path, part in outputs:
            # scripts have a check of their own; some recipes name more than they make
            is_script = os.path.dirname(path) == os.fspath(self._site.bin)
            if not (
                is_script
                or _below(path, self._variable)
                or os.path.lexists(path)
                or self._left_out(path)
            ):
                self.errors.append(
                    PlanError(
                        f"{path}, which the part {part.name} has made, is not there",
                        "run bin/buildout, without .installed.cfg if need be, or list the path "
                        "in exclude",
                    )
                )
            self._queue.append((path, f"made by the part {part.name}"))
        self._follow()
        for include in self._includes:
            self._include(include)
        self._follow()
        before = -1
        while before != len(self._entries):
            before = len(self._entries)
            self._take_mentioned_packages()
            self._follow()
            self._take_distributions()
            self._follow()
        self._make_directories()
        self._complain()
        self._settle_scripts()
        self._mend_records()
        return list(self._entries.values())

    def _include(self, include: Include) -> None:
        source = os.path.normpath(include.source)
        if not self._files.exists(source):
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
        reason = f"include: {self._shown(source)}"  # one string for 100,000 files
        for found in self._walk(source, place, moved=bool(include.target)):
            if not found.target and stat.S_ISDIR(found.status.st_mode):
                continue  # the image's root
            self._take(found, "data", reason)

    def _complain(self) -> None:
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
        self.warnings.extend(self._oddities())

    def _oddities(self) -> Iterator[str]:
        """One sentence for each kind of odd files."""
        if odd := sorted(map(self._shown, self._odd)):
            yield f"neither file, directory nor link, and left out: {some(odd)}"
        if set_id := sorted(map(self._shown, self._set_id)):
            yield f"set-user-ID or set-group-ID, and plain in the image: {some(set_id)}"
        if twins := look_alikes(self._entries):
            shown = some([f"/{printable(path)}" for path in twins])
            yield f"the same name to macOS and Windows, and both are kept: {shown}"
        for path, reason in sorted(self._programs.items()):
            yield (
                f"of buildout's Python, and left out: {self._shown(path)} ({reason});"
                " have zc.recipe.egg make that script"
            )
        if staying := sorted(map(self._shown, self._staying)):
            yield (
                f"data of this machine, and left out: what is in {some(staying)}; list in "
                "include what the image needs of it"
            )

    def _mend_records(self) -> None:
        for path, record in list(self._entries.items()):
            if not path.endswith(".dist-info/RECORD") or record.type is not FileType.REGULAR:
                continue
            top = os.path.dirname(os.path.dirname(path))
            with record.open() as stream:
                data = stream.read()
            mended = distributions.mended_record(data, record.group, top, self._entries)
            if mended != data:
                self._entries[path] = bytes_file(
                    path, mended, group=record.group, reason=record.reason, mode=record.mode
                )

    def _settle_scripts(self) -> None:
        """Give the eggs on the lists of scripts an order that is the same on each run."""
        if not self._listing:
            return
        eggs = self._relocation.path(self._eggs) or self._eggs
        texts = {path: self._entries[path].data or b"" for path in self._listing}
        clashes = self._clashes(
            {
                found
                for path, data in texts.items()
                for found in syspath.listed(data, self._listing[path])
            }
        )
        for path, data in texts.items():
            settled = syspath.settled(data, eggs, self._listing[path], clashes)
            if settled != data:
                entry = self._entries[path]
                self._entries[path] = bytes_file(
                    path, settled, group=entry.group, reason=entry.reason, mode=entry.mode
                )

    def _clashes(self, directories: Collection[str]) -> set[frozenset[str]]:
        """Pairs of directories of the image that have a module in common."""
        paths = sorted(self._entries)
        owners: dict[str, list[str]] = {}
        for top in sorted(directories):
            start = f"{top.strip('/')}/"
            for place in range(bisect.bisect_left(paths, start), len(paths)):
                path = paths[place]
                if not path.startswith(start):
                    break
                name = path[len(start) :]
                if (
                    self._entries[path].type is not FileType.DIRECTORY
                    and ("/" in name or name.endswith((".py", ".so")))
                    and not name.partition("/")[0].endswith(METADATA)
                ):
                    owners.setdefault(name, []).append(top)
        return {
            frozenset((one, other))
            for found in owners.values()
            if len(found) > 1
            for number, one in enumerate(found)
            for other in found[:number]
        }

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
        if any(_below(path, present) for present in self._present):
            return
        if _below(path, self._eggs):
            if path != self._eggs:
                name = path[len(self._eggs) + 1 :].partition("/")[0]
                self._take_egg(f"{self._eggs}/{name}", reason)
        elif _below(path, self._environment):
            self._environment_wanted = self._environment_wanted or reason
        elif self._is_interpreter(path):
            if not _OF_PYTHON.fullmatch(os.path.basename(path)) and os.path.isfile(path):
                self._programs.setdefault(path, reason)
        elif path == self._develop_eggs:
            self._develop_eggs_wanted = self._develop_eggs_wanted or reason
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
        elif self._is_variable(path):
            self._make_variable(path, reason)
        elif self._is_shelf(path):
            self._take_one(path, "develop", reason)  # a checkout: the directory alone
        elif os.path.isdir(path) and not os.path.islink(path):
            self._take_tree(path, "data", reason)
        elif not self._in_tree(path):
            if _RUNTIME_FILES.fullmatch(path) and path not in self._outputs:
                self._expect(path, reason)
            else:
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
        for above in (path, *_above(path)):
            if above == self._directory:
                return None
            if self._is_environment(above):
                return above
        return None

    def _is_environment(self, path: str) -> bool:
        """Whether a directory is a virtual environment."""
        known = self._environments.get(path)
        if known is None:
            known = self._environments[path] = self._files.exists(f"{path}/pyvenv.cfg")
        return known

    def _develop_location_of(self, path: str) -> str | None:
        """The nearest directory above the path that holds packages of a develop egg.

        The buildout may lie in one: then what is in the buildout is not in that.
        """
        inside = _below(path, self._directory)
        return max(
            (
                location
                for location in self._develop
                if _below(path, location) and not (inside and _below(self._directory, location))
            ),
            key=len,
            default=None,
        )

    def _is_packed(self, path: str) -> bool:
        """Whether the path is in the image, or is a directory that others have filled."""
        target = (self._relocation.path(path) or "").lstrip("/")
        return target in self._entries or any(
            name.startswith(f"{target}/") for name in self._entries
        )

    def _is_shelf(self, path: str) -> bool:
        """Whether develop eggs and other things lie below the path."""
        return any(path != location and _below(location, path) for location in self._develop)

    # What programs write

    def _is_variable(self, path: str) -> bool:
        """Whether the path is, or lies in, ``var``, and nobody has asked for it."""
        return _below(path, self._variable) and not any(
            _below(path, kept) for kept in self._kept
        )

    def _make_variable(self, path: str, reason: str) -> None:
        """Have the directories that a path in ``var`` needs: what is in them stays out."""
        if not os.path.isdir(path):
            self._staying.add(os.path.dirname(path))
            path = os.path.dirname(path)
        elif _holds_files(path):
            self._staying.add(path)
        for directory_ in (path, *_above(path)):
            if not _below(directory_, self._variable):
                break
            self._made.setdefault(directory_, reason)

    def _expect(self, path: str, reason: str) -> None:
        """Have the directory in which a program will make a file that is named."""
        if _below(path, self._run_directory):
            return
        parent = os.path.dirname(path)
        if self._is_variable(parent):
            self._make_variable(parent, reason)
            return
        while not self._files.exists(parent):
            parent = os.path.dirname(parent)
        if (
            parent != self._directory
            and _below(parent, self._directory)
            and parent not in self._places
            and not self._is_shelf(parent)
            and not any(_below(parent, top) for top in (self._eggs, *self._python))
            and self._develop_location_of(parent) is None
            and self._environment_of(parent) is None
            and not self._stays_out(parent)
            and os.path.isdir(parent)
        ):
            self._made.setdefault(parent, reason)

    def _make_directories(self) -> None:
        """Add the directories that programs write in; anyone may where nothing else is."""
        filled = {
            path.rpartition("/")[0]
            for path, entry in self._entries.items()
            if entry.type is not FileType.DIRECTORY
        }
        for path, reason in self._made.items():
            target = (self._relocation.path(path) or "").lstrip("/")
            if self._files.exists(path) and os.path.isdir(path):
                self._files.children(path, os.stat(path))
            known = self._entries.get(target)
            if known is not None and known.type is not FileType.DIRECTORY:
                continue
            group, reason = (known.group, known.reason) if known else ("data", reason)
            mode = 0o755 if target in filled else _WRITABLE
            self._entries[target] = directory(target, group=group, reason=reason, mode=mode)

    # Kinds of content

    def _take_egg(self, egg: str, reason: str) -> None:
        name = egg_name(os.path.basename(egg))
        if canonical_name(name.partition("-")[0]) in BUILD_TOOLS:
            self._tools.setdefault(egg, reason)
        elif egg not in self._trees:
            self._take_tree(egg, f"egg {name}", reason)

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
        if stat.S_ISDIR(status.st_mode):
            self._files.children(path, status)
        self._take(_Found(path, target.lstrip("/"), status), group, reason)

    @functools.cached_property
    def _develop_list(self) -> list[DevelopEgg]:
        found = develop_eggs(self._develop_eggs)
        for path in (self._develop_eggs, *(path for egg in found for path in egg.sources)):
            self._files.look(path)
            self.telling.add(path)
        return found

    def _take_develop(self, location: str, reason: str) -> None:
        """What a develop egg would install: its packages, modules and metadata."""
        if location in self._trees:
            return
        self._trees.add(location)
        own = self._on_path(location)
        eggs = [egg for egg in self._develop_list if location in egg.tops]
        names = {found.name for found in own} | {egg.name for egg in eggs if egg.name}
        if names == {"eggcrate"}:
            return  # zc.buildout lists every develop egg in scripts; this one has done its work
        group = f"develop {self._title(location, own, names)}"
        for name in sorted(self._importable(location, names, self._declared(own, eggs))):
            self._take_package(f"{location}/{name}", group, reason)
        for egg in eggs:
            for dotted, path in egg.packages:
                if package_top(dotted, path) == location:
                    self._take_package(_module(path), group, reason)
        for found in own:
            self._take_metadata(found.metadata, group, reason)

    def _title(self, location: str, own: Sequence[Distribution], names: Collection[str]) -> str:
        if len(names) == 1:
            return next((found.title for found in own), next(iter(names)))
        return os.path.basename(location)

    def _declared(
        self, own: Sequence[Distribution], eggs: Sequence[DevelopEgg]
    ) -> frozenset[str] | None:
        """The names of what distributions install; None where one does not tell."""
        declared: set[str] = set()
        known: dict[str, list[str] | None] = {
            found.name: distributions.top_levels(found, self._files) for found in own
        }
        for egg in eggs:
            hooked = [dotted.partition(".")[0] for dotted, _ in egg.packages]
            known[egg.name] = known.get(egg.name) or hooked or self._top_levels(egg)
        for names in known.values():
            if not names:
                return None
            declared.update(names)
        return frozenset(declared) or None

    def _top_levels(self, egg: DevelopEgg) -> list[str] | None:
        for found in self._on_path(self._develop_eggs) if egg.metadata else ():
            if found.metadata == egg.metadata:
                return distributions.top_levels(found, self._files)
        return None

    def _take_metadata(self, metadata: str, group: str, reason: str) -> None:
        """A distribution's metadata, without what its installer has noted for itself."""
        name = os.path.basename(metadata)
        if name in BOOKKEEPING or self._left_out(metadata):
            return
        if not os.path.isdir(metadata):
            self._take_one(metadata, group, reason)
            return
        for child in self._files.children(metadata, os.stat(metadata)):
            self._take_metadata(child.path, group, reason)

    def _take_package(self, top: str, group: str, reason: str) -> None:
        """Take a package or a module, whose directory may be marked as taken already."""
        target = self._relocation.path(top)
        if target is None or top in self._mentioned:
            return
        self._mentioned.add(top)
        if not self._files.exists(top) or self._ignores_package(top, reason):
            return
        self._done.add(top)
        for found in self._walk(top, target.lstrip("/")):
            self._take(found, group, reason)

    def _take_editable(self, path: str, reason: str) -> None:
        """Take what a hook of an environment finds: a package, or a directory of packages."""
        if os.path.basename(path) == "__init__.py":
            path = os.path.dirname(path)
        if not os.path.isdir(path):
            self._queue.append((path, reason))
        elif self._files.exists(f"{path}/__init__.py"):
            self._take_package(path, f"develop {os.path.basename(path)}", reason)
        else:
            self._take_develop(path, reason)

    def _ignores_package(self, top: str, reason: str) -> bool:
        """Whether a module stays out; that a whole package would, is a mistake."""
        is_directory = os.path.isdir(top)
        if not self._is_ignored(top, directory=is_directory):
            return False
        if is_directory:
            shown = self._shown(top)
            self.errors.append(
                PlanError(
                    f"a .dockerignore leaves out the package {shown}, which goes in ({reason})",
                    f"add a line to it, !{shown}, or take the project out of the eggs",
                )
            )
        return True

    def _importable(
        self, location: str, names: Collection[str], declared: Collection[str] | None
    ) -> set[str]:
        """The names of the packages and modules of a source tree.

        ``names`` are those of its distributions, ``declared`` what they say that they install.
        """
        children = self._files.children(location, os.stat(location))
        beside_documents = self._is_project(location)
        # where packages have no __init__.py: those of shop.cart lie in shop
        namespaces = {name.partition("-")[0] for name in names}

        def fits(child: os.DirEntry[str]) -> bool:
            if declared and child.is_dir():
                return child.name in declared
            stem, suffix = os.path.splitext(child.name)
            if declared:
                # a module, or an extension module that was built in place
                return suffix in (".py", ".so") and stem.split(".")[0] in declared
            if not child.is_dir():
                return suffix == ".py" and child.name not in _PROJECT_FILES
            # beside a project's packages lie its documents and tests
            if not beside_documents and not self._is_project(child.path):
                return self._holds_modules(child.path)
            if self._files.exists(f"{child.path}/__init__.py"):
                return child.name not in _BESIDE_PACKAGES or child.name in names
            return (
                child.name.lower() in namespaces
                and not self._is_project(child.path)
                and self._holds_modules(child.path)
            )

        return {
            child.name
            for child in children
            if not self._left_out(child.path) and child.path not in self._places and fits(child)
        }

    def _is_project(self, path: str) -> bool:
        """Whether a directory is the top of a project's source tree."""
        try:
            children = self._files.children(path, os.stat(path))
        except OSError:
            return False
        return any(child.name in PROJECT for child in children)

    def _holds_modules(self, path: str) -> bool:
        """Whether there is a module somewhere below a directory."""
        try:
            children = self._files.children(path, os.stat(path))
        except OSError:
            return False
        return any(child.name.endswith(".py") for child in children) or any(
            self._holds_modules(child.path)
            for child in children
            if child.is_dir(follow_symlinks=False) and not self._left_out(child.path)
        )

    def _take_mentioned_packages(self) -> None:
        """Packages that scripts name and that lie beside other things on their path.

        djangorecipe puts the buildout directory itself on ``sys.path``: there lie packages
        of the project, and much else.  So do checkouts beside one another.
        """
        known: dict[str, set[str]] = {}
        pending, self._imports = self._imports, []
        while pending:
            imports = pending.pop()
            top = imports.top
            if top in self._develop:
                self._take_develop(top, imports.reason)
                continue
            if top not in known:
                own = self._on_path(top)
                known[top] = self._importable(top, (), self._declared(own, ()))
            words = {match.decode() for match in _NAME.findall(imports.data)}
            for name in sorted(known[top]):
                if name.removesuffix(".py") not in words:
                    continue
                known[top].discard(name)
                package = f"{top}/{name}"
                target = self._relocation.path(package)
                if target is None or package in self._mentioned:
                    continue
                self._mentioned.add(package)
                if self._ignores_package(package, imports.reason):
                    continue
                for found in self._walk(package, target.lstrip("/")):
                    entry = self._take(found, f"develop {name}", imports.reason)
                    if entry is not None and found.path.endswith(".py"):
                        self.telling.add(found.path)
                        with open_at_once(found.path) as stream:
                            data = stream.read()
                        pending.append(_Imports(top, found.path, imports.reason, data))

    # Distributions that no path names

    def _on_path(self, path: str) -> list[Distribution]:
        found = self._distributions.get(path)
        if found is None:
            found = list(distributions.on_path(path, self._files))
            self._distributions[path] = found
        return found

    def _take_distributions(self) -> None:
        """What is needed of the places that others share.

        The environment that runs buildout has pip and linters, too.  ``develop-eggs`` has the
        metadata of every project.  Eggs of tools are on a path because a recipe needs them.
        """
        if not (self._environment_wanted or self._develop_eggs_wanted or self._tools):
            return
        packed: dict[str, list[Distribution]] = {}
        for tree in sorted(self._trees):
            if os.path.dirname(tree) == self._eggs or tree in self._develop:
                for found in self._on_path(tree):
                    packed.setdefault(found.name, []).append(found)
        offered: dict[str, Distribution] = {}
        if self._environment_wanted:
            offered.update((found.name, found) for found in self._on_path(self._environment))
        metadata = {found.metadata: found for found in self._on_path(self._develop_eggs)}
        for egg in self._develop_list:
            found_ = metadata.get(egg.metadata)
            if found_ is None:
                continue
            if any(top in self._trees for top in egg.tops):
                packed.setdefault(egg.name, []).append(found_)
            elif self._develop_eggs_wanted:
                offered[egg.name] = found_
        for egg_ in self._tools:
            offered.update((found.name, found) for found in self._on_path(egg_))
        for name, reason in self._asked_by_scripts(offered):
            self._asked.setdefault(name, reason)
        requirements = [text for part in self._parts for text in part.eggs]
        needs = distributions.resolve(self._asked, requirements, packed, offered)
        tools = {tool for tool in _TOOL_MODULES if tool in offered and tool not in needs.taken}
        if tools and (found_importers := self._importers(tools, needs.tools)):
            self._asked.update(found_importers)
            needs = distributions.resolve(self._asked, requirements, packed, offered)
        for name, reason in sorted(needs.taken.items()):
            if name not in self._taken and name != "eggcrate":
                self._taken.add(name)
                self._take_distribution(offered[name], reason)
        if self._develop_eggs_wanted:
            for egg in self._develop_list:
                if egg.name in packed or egg.name in needs.taken:
                    self._take_develop_egg(egg)

    def _take_distribution(self, found: Distribution, reason: str) -> None:
        top = os.path.dirname(found.metadata)
        if top in self._tools:
            self._take_tree(top, f"egg {egg_name(os.path.basename(top))}", self._tools[top])
        elif top == self._environment:
            group = f"egg {found.title}-{found.version}"
            reason = f"{found.title}, {reason}"
            paths = distributions.files_of(found, self._files)
            if paths is None:
                # Debian's have no RECORD
                for name in distributions.top_levels(found, self._files) or ():
                    if self._files.exists(module := _module(f"{top}/{name}")):
                        self._take_tree(module, group, reason)
                self._take_tree(found.metadata, group, reason)
                return
            for path in paths:
                if (
                    _below(path, top)
                    and not self._left_out(path)
                    and not (found.name in BUILD_TOOLS and "/tests/" in path)
                    and self._files.exists(path)
                ):
                    self._take_one(path, group, reason)

    def _asked_by_scripts(
        self, offered: Mapping[str, Distribution]
    ) -> Iterator[tuple[str, str]]:
        """The distributions on offer that have a module which a script imports."""
        if not self._importing or not offered:
            return
        # places of modules, by path or by dotted name
        owners: dict[str, str] = {}
        for found in offered.values():
            for path in distributions.files_of(found, self._files) or ():
                owners[path] = found.name
        for egg in self._develop_list:
            if egg.name in offered:
                owners.update((dotted, egg.name) for dotted, _ in egg.packages)
        tops = sorted({os.path.dirname(found.metadata) for found in offered.values()})
        modules = {name for data in self._importing for name in distributions.imported(data)}
        for module in sorted(modules):
            words = module.split(".")
            for count in range(len(words), 0, -1):
                name = "/".join(words[:count])
                places = [
                    f"{top}/{name}{end}" for top in tops for end in ("/__init__.py", ".py")
                ]
                if owner := next(
                    filter(None, map(owners.get, (".".join(words[:count]), *places))), None
                ):
                    yield owner, "imported by a script"
                    break

    def _importers(
        self, tools: Collection[str], requiring: Mapping[str, Collection[str]]
    ) -> dict[str, str]:
        """Those build tools that a packed distribution imports, each with one that does.

        Many require setuptools only for what zc.buildout has done already.
        """
        key = (sorted(tools), sorted((name, sorted(of)) for name, of in requiring.items()))
        if key != self._scanned_for:
            self._scanned, self._scanned_for = 0, key
        # whoever imports pkg_resources may well have forgotten to require setuptools
        tools = {tool for tool in tools if tool == "setuptools" or requiring.get(tool)}
        entries = list(self._entries.values())
        start, self._scanned = self._scanned, len(entries)
        importers: dict[str, str] = {}
        for entry in entries[start:]:
            if not tools:
                break
            source = entry.source or ""
            if not source.endswith(".py") or "/tests/" in source or "/test/" in source:
                continue
            if not entry.group.startswith(("egg ", "develop ")):
                continue
            top, owners = self._owners(source)
            required = {
                tool
                for tool in tools
                if any(owner.name in requiring.get(tool, ()) for owner in owners)
            }
            if required and entry.group.startswith("develop "):
                self.telling.add(source)  # with one more import in it, a tool goes in
            modules = {
                module: tool
                for tool in tools
                for module in _TOOL_MODULES[tool]
                if tool in required or module == "pkg_resources"
            }
            with open_at_once(source) as stream:
                data = stream.read()
            modules = {name: tool for name, tool in modules.items() if name.encode() in data}
            if not modules or self._is_recipe(source[len(top) + 1 :], owners):
                continue
            for name, tool in modules.items():
                if distributions.needs(data, (name,), everywhere=tool in required):
                    self.telling.add(source)
                    owner = owners[0].title if owners else self._shown(source)
                    importers.setdefault(tool, f"imported by {owner}")
                    tools.discard(tool)
        return importers

    def _is_recipe(self, name: str, owners: Sequence[Distribution]) -> bool:
        """Whether only buildout imports the module of a distribution with this file name."""
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        recipes = [distributions.recipe_modules(owner, self._files) for owner in owners]
        return bool(recipes) and (
            all(names is None for names in recipes)
            or any(module in names for names in recipes if names)
        )

    def _owners(self, source: str) -> tuple[str, list[Distribution]]:
        """The directory on a path in which a module lies, and the distributions there."""
        if _below(source, self._eggs):
            top = f"{self._eggs}/{source[len(self._eggs) + 1 :].partition('/')[0]}"
        elif _below(source, self._environment):
            return self._environment, []
        else:
            top = self._develop_location_of(source) or os.path.dirname(source)
        return top, self._on_path(top)

    def _take_develop_egg(self, egg: DevelopEgg) -> None:
        """What stands for a project in ``develop-eggs``, which is on a script's path.

        Its metadata; and links to what a hook would import, that scripts do not run.
        """
        key = f"{self._develop_eggs} {egg.name}"
        if key in self._mentioned or egg.name == "eggcrate":
            return
        self._mentioned.add(key)
        reason = self._develop_eggs_wanted
        group = f"develop {egg.name}"
        if egg.metadata:
            self._take_metadata(egg.metadata, group, reason)
        here = self._relocation.path(self._develop_eggs)
        for dotted, path in egg.packages:
            module = _module(path)
            there = self._relocation.path(module)
            if here is None or there is None:
                continue
            self._take_develop(package_top(dotted, path), reason)
            self._take_package(module, group, reason)
            suffix = ".py" if module != path else ""
            link = f"{here}/{dotted.replace('.', '/')}{suffix}".lstrip("/")
            taken = (link, *(above.lstrip("/") for above in _above(f"/{link}")))
            if there.lstrip("/") not in self._entries or any(
                name in self._entries and self._entries[name].type is FileType.SYMLINK
                for name in taken
            ):
                continue
            text = os.path.relpath(there, os.path.dirname(f"/{link}"))
            self._entries[link] = symlink(link, text, group=group, reason=reason)

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
            source_tree = not (self._is_published(top) or self._environment_of(top))
            yield from self._walk_below(found, moved, source_tree)

    def _walk_below(self, top: _Found, moved: bool, source_tree: bool) -> Iterator[_Found]:
        pending = [iter(self._children(top, moved, source_tree))]
        while pending:
            for found in pending[-1]:
                yield found
                if stat.S_ISDIR(found.status.st_mode):
                    pending.append(iter(self._children(found, moved, source_tree)))
                    break
            else:
                pending.pop()

    def _children(self, above: _Found, moved: bool, source_tree: bool) -> list[_Found]:
        try:
            children = self._files.children(above.path, above.status)
        except OSError as error:
            self._unreadable(error)
            return []
        below = f"{above.target}/" if above.target else ""
        found = []
        for child in children:
            path = f"{above.path}/{child.name}"
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
            found.append(_Found(path, place, status))
        return found

    def _left_out(self, path: str) -> bool:
        name = path.rpartition("/")[2]
        if (_NEVER_OF_EGGS if self._is_published(path) else _NEVER).fullmatch(name):
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

    def _is_published(self, path: str) -> bool:
        """Whether a path is of what somebody has published and an installer has unpacked."""
        if _below(path, self._eggs) or _below(path, self._environment):
            return True
        library, found, _ = path.partition("/site-packages/")
        return bool(found) and self._is_environment(os.path.dirname(os.path.dirname(library)))

    def _is_ignored(self, path: str, *, directory: bool = False) -> bool:
        """Whether a ``.dockerignore`` above a path of a source tree leaves it out.

        What buildout makes is no source: people let Docker ignore ``bin`` and ``parts``.
        """
        made = next((place for place in self._made_places if _below(path, place)), "")
        for top, ignore in self._ignores_of(os.path.dirname(path)):
            if made and not _below(top, made):
                continue
            relative = path[len(top) + 1 :]
            if ignore.matches(relative, directory=directory) and not (
                directory and ignore.may_hold(relative)
            ):
                return True
        return False

    def _ignores_of(self, path: str) -> tuple[tuple[str, Ignore], ...]:
        """The ``.dockerignore`` files that hold in a directory, the nearest first."""
        known = self._ignores.get(path)
        if known is not None:
            return known
        found: tuple[tuple[str, Ignore], ...] = ()
        tops = (self._directory, *self._develop)
        if any(_below(path, top) for top in tops) or self._is_project(path):
            ignore = self._ignore(path)
            own = ((path, ignore),) if ignore else ()
            found = (*own, *self._ignores_of(os.path.dirname(path)))
        self._ignores[path] = found
        return found

    def _ignore(self, top: str) -> Ignore | None:
        path = f"{top}/.dockerignore"
        if not self._files.exists(path):
            return None
        try:
            self._files.facts(path, os.stat(path), secrets=False)
            with open_at_once(path) as stream:
                return Ignore.parse(stream.read().decode("utf-8", "surrogateescape"))
        except OSError as error:
            self._unreadable(error)
        except EggcrateError as error:
            # Docker refuses it too
            place = "" if top == self._directory else f"{self._shown(top)}/"
            self.errors.append(PlanError(f"{place}{error.what}", error.hint))
        return None

    def _unreadable(self, error: OSError) -> None:
        self.errors.append(
            PlanError(
                f"user {os.geteuid()} can't read {printable(str(error.filename))}: "
                f"{error.strerror}",
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
        if known is not entry and entry.source != known.source:
            self.telling.update(filter(None, (entry.source, known.source)))
        if (
            known is not entry
            and entry.type is not FileType.DIRECTORY
            and self._content(known) != self._content(entry)
        ):
            self.errors.append(
                PlanError(
                    f"/{printable(found.target)} is claimed twice, with different content: "
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
            self._odd.add(path)
            return None
        if kind & (stat.S_ISUID | stat.S_ISGID):
            self._set_id.add(path)
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
        private = group.partition(" ")[0] in ("develop", "data", "configuration") or (
            path.endswith(".dist-info/METADATA") and distributions.is_editable(path)
        )
        facts = self._files.facts(path, status, secrets=private)
        if facts.secret and not self._is_allowed(target, self._allow_secrets):
            self._secrets.setdefault(facts.secret, []).append(self._shown(path))
        entry = None
        if facts.touched or _may_be_relative(facts, kind, group):
            entry = self._relocated(path, facts, target, group, reason, mode)
        if entry is None:
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
    ) -> FileEntry | None:
        """The entry of a file that may have paths of the build; None when it has none."""
        with open_at_once(path) as stream:
            data = original = stream.read()
        if hashlib.sha256(data).hexdigest() != facts.digest:
            raise PlanError(
                f"{printable(path)} changed while it was read",
                "run again when nothing writes to it",
            )
        if facts.text:
            base = syspath.base(data, path)
            if not os.path.dirname(path).endswith(METADATA):
                self._refer(path, data, base)
            data = _EXEC.sub(rb"#!\g<program>\g<option>\n", self._relocation.text(data))
            there = syspath.base(original, f"/{target}") or ""
            if base is not None:
                data = syspath.relocated(data, base, there, self._relocation.path)
            if syspath.has_list(data) and not group.startswith("egg "):
                self._listing[target] = there
        elif facts.binary is not None:
            data = relocated_search_path(data, self._relocation.text) or data
        if not facts.touched and target not in self._listing and data == original:
            return None
        residue = self._relocation.residue(data)
        if residue and not self._is_allowed(target, self._allow_build_paths):
            self._residues.setdefault(residue, []).append(self._shown(path))
        return bytes_file(target, data, group=group, reason=reason, mode=mode)

    def _refer(self, path: str, data: bytes, base: str | None) -> None:
        """Queue what a text refers to; ``base`` is what it starts relative paths from."""
        name = os.path.basename(path)
        editable = name.endswith(".pth") or name.startswith(("__editable__", "_editable_impl_"))
        shown = self._shown(path)
        importing = False
        mentions = [*self._relocation.mentions(data, self._files.exists)]
        for joined in syspath.joined(data, base) if base is not None else ():
            mentions.append(Mention(joined, True, self._files.exists(joined)))
        for found, quoted, there in mentions:
            found = os.path.normpath(found)
            if editable:
                if there:
                    self._take_editable(found, f"imported by {shown}")
            elif not there:
                self._expect(found, f"{shown} names a file in it")
            else:
                self._queue.append((found, f"named in {shown}"))
                shared = found in (self._environment, self._develop_eggs)
                importing = importing or shared or os.path.dirname(found) == self._eggs
                if quoted and (found == self._directory or self._is_shelf(found)):
                    self._imports.append(_Imports(found, path, f"imported by {shown}", data))
        if importing and not _below(path, self._eggs):
            self._importing.append(data)

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


def _module(path: str) -> str:
    """The file of a module, or the directory of a package, that is named without a suffix."""
    return path if os.path.isdir(path) or not os.path.isfile(f"{path}.py") else f"{path}.py"


def _holds_files(path: str) -> bool:
    """Whether a directory has files that say something; logs and locks do not."""
    for _, _, names in os.walk(path):
        if any(
            not name.startswith(".") and not _RUNTIME_FILES.fullmatch(name) for name in names
        ):
            return True
    return False


def _may_be_relative(facts: Facts, mode: int, group: str) -> bool:
    """Whether a file may be a script that computes its paths from where it lies."""
    return (
        bool(facts.first_line and mode & 0o100)
        and facts.text
        and facts.size < _LONGEST_SCRIPT
        and not group.startswith("egg ")
    )
