"""What an environment is to hold: the files that say so, and what is wrong with them."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import json
import os
import pathlib
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from eggcrate.environments.environment import Project
from eggcrate.environments.interpreters import Interpreter
from eggcrate.environments.process import masked
from eggcrate.errors import EggcrateError, SettingsError

#: what tells how a project is to be installed; its modules need no reinstall
_METADATA = ("pyproject.toml", "setup.py", "setup.cfg")

_INCLUDED = re.compile(r"\s*(?:-[rc]|--(?:requirement|constraint)s?[\s=])[\s=]*(\S+)")
_EDITABLE = re.compile(r"\s*(?:-e|--editable[\s=])[\s=]*(\S.*)")
_COMMENT = re.compile(r"(?:^|\s)#.*")
_IN_GIT = re.compile(r"git\+https?://(?!git@)[^/\s]+@")
_HASH = re.compile(r"\s--hash[\s=](\S+)")
_PROJECT = re.compile(r"([A-Za-z0-9][\w.-]*)\s*(?:\[[^\]]*\])?\s*")


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of requirements, and where it stands."""

    where: str
    #: without hashes and comments
    text: str
    #: whether it asks for something, and does not only forbid other releases
    asks: bool = True


def canonical_name(name: str) -> str:
    """A project's name as all spell it (the specification of names, once PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def shown(path: pathlib.Path, directory: pathlib.Path) -> str:
    """A path as messages have it: relative, when it is in the buildout directory."""
    return str(path.relative_to(directory) if path.is_relative_to(directory) else path)


def nearest(path: pathlib.Path, directory: pathlib.Path) -> str:
    """A hint for a path that is not there."""
    beside: list[str] = []
    with contextlib.suppress(OSError):
        beside = sorted(os.listdir(path.parent))
    near = difflib.get_close_matches(path.name, beside, 1)
    if near and near[0] != path.name:
        return f"write {shown(path.with_name(near[0]), directory)}, the nearest name there is"
    return "correct the path, which starts from the buildout directory"


class Files:
    """The files that an environment depends on: digests, requirement lines, complaints."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self.digests: dict[str, str] = {}
        self.lines: list[Line] = []
        self.errors: list[EggcrateError] = []
        #: of a name, what its archives are told by
        self.hashes: dict[str, str] = {}
        self._tables: dict[pathlib.Path, Mapping[str, Any] | None] = {}

    def read(self, path: pathlib.Path, by: str, *, asks: bool = True) -> None:
        """Take in a file of requirements or constraints, and those that it includes."""
        path = pathlib.Path(os.path.normpath(path))  # two files may include each other
        if str(path) in self.digests:
            return
        content = self._content(path, by)
        if content is None:
            return
        name = shown(path, self._directory)
        for number, line in logical_lines(content.decode("utf-8-sig", "replace")):
            where = f"{name}, line {number}"
            included = _INCLUDED.match(line)
            if included is None:
                self.take(where, line, path.parent, asks=asks)
            elif "://" not in included[1]:
                constrains = line.lstrip().startswith(("-c", "--c"))
                self.read(path.parent / included[1], where, asks=asks and not constrains)

    def take(self, where: str, line: str, beside: pathlib.Path, *, asks: bool = True) -> None:
        """Take in a line of requirements; ``beside`` is the directory of its file."""
        text = _HASH.sub("", _COMMENT.sub("", line)).strip()
        if not text:
            return
        editable = _EDITABLE.match(text)
        name = editable[1] if editable else text
        if re.match(r"\.{0,2}/", name) or (editable and "://" not in name):
            # a project, or an archive, of this machine
            name = re.sub(r"\s*(?:\[[^\]]*\]|;.*|\s#.*)$", "", name)
            for base in dict.fromkeys((self._directory, beside)):
                self._take_path(pathlib.Path(os.path.normpath(base / name)))
        if _IN_GIT.search(text):
            self.errors.append(
                SettingsError(
                    f"{where}: git would have the password of {masked(text)} among its "
                    "arguments, for everybody to see",
                    "take it out of the URL; git reads ~/.netrc, or asks a helper of its own",
                )
            )
        self.lines.append(Line(where, text, asks))
        hashes = [*_HASH.findall(line), *re.findall(r"#(\w+=[0-9a-f]{32,})", line)]
        if hashes and (project := _PROJECT.match(text)):
            self.hashes[canonical_name(project[1])] = " ".join(sorted(hashes))

    def _take_path(self, path: pathlib.Path) -> None:
        for name in _METADATA:
            if (path / name).is_file():
                self.digests[str(path / name)] = _digest((path / name).read_bytes())
        if path.is_file():
            status = path.stat()
            self.digests[str(path)] = f"{status.st_size} {status.st_mtime_ns}"

    def read_project(self, project: Project, option: str = "develop") -> None:
        """Take in what says how a project is installed."""
        directory = project.directory
        name = shown(directory, self._directory)
        found = [directory / name for name in _METADATA if (directory / name).is_file()]
        if not directory.is_dir():
            self.errors.append(
                SettingsError(
                    f"{option}: there is no directory {name}",
                    nearest(directory, self._directory),
                )
            )
        elif not any(path.suffix in (".toml", ".py") for path in found):
            self.errors.append(
                SettingsError(
                    f"{option}: {name} is no project, as it has neither pyproject.toml "
                    "nor setup.py",
                    "name the directory that has one of them",
                )
            )
        for path in found:
            self.digests[str(path)] = _digest(path.read_bytes())
        self._read_dynamic(directory)

    def _read_dynamic(self, directory: pathlib.Path) -> None:
        """Take in the files from which setuptools reads metadata, and say so nowhere else."""
        path = directory / "pyproject.toml"
        if not path.is_file() or b"tool.setuptools.dynamic" not in path.read_bytes():
            return
        dynamic = _at(self.table(path), "tool", "setuptools", "dynamic")
        for file in _values_of("file", dynamic):
            if (directory / file).is_file():
                self.digests[str(directory / file)] = _digest((directory / file).read_bytes())

    def read_lock(self, path: pathlib.Path) -> None:
        """Take in a ``pylock.toml`` (PEP 751)."""
        name = shown(path, self._directory)
        if self._content(path, "lock") is None:
            return
        if not re.fullmatch(r"pylock(?:\.[^.]+)?\.toml", path.name):
            self.errors.append(
                SettingsError(
                    f"lock: {name} is no name of a lock file",
                    "call it pylock.toml or pylock.NAME.toml, as its specification says",
                )
            )
            return
        table = self.table(path, "lock")
        if table is None:
            return
        packages = table.get("packages")
        is_list = isinstance(packages, list) and all(
            isinstance(package, Mapping) for package in packages
        )
        if "lock-version" not in table or not is_list:
            self.errors.append(
                SettingsError(
                    f"lock: {name} is no lock file, as it has no lock-version or no packages",
                    "write it anew: uv export --format pylock.toml, or pip lock",
                )
            )
            return
        for package in packages or ():
            project, version = package.get("name"), package.get("version")
            if isinstance(project, str) and isinstance(version, str):
                self.lines.append(Line(name, f"{project}=={version}"))
                text = json.dumps(package, default=str, sort_keys=True)
                hashes = sorted(_archive_hashes(package)) or [_digest(text.encode())]
                self.hashes[canonical_name(project)] = " ".join(hashes)

    def table(self, path: pathlib.Path, option: str = "develop") -> Mapping[str, Any] | None:
        """What a file in TOML says; None, and a complaint, when it is none."""
        if path not in self._tables:
            if sys.version_info >= (3, 11):
                import tomllib
            else:
                import tomli as tomllib
            try:
                self._tables[path] = tomllib.loads(path.read_bytes().decode())
            except (OSError, ValueError) as error:
                self._tables[path] = None
                self.errors.append(
                    SettingsError(
                        f"{option}: {shown(path, self._directory)} is no TOML: {error}",
                        "mend that line",
                    )
                )
        return self._tables[path]

    def _content(self, path: pathlib.Path, by: str) -> bytes | None:
        try:
            content = path.read_bytes()
        except OSError as error:
            self.errors.append(
                SettingsError(
                    f"{by}: {shown(path, self._directory)} can't be read: {error.strerror}",
                    nearest(path, self._directory),
                )
            )
            return None
        self.digests[str(path)] = _digest(content)
        return content


def logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines with the number of their first; one that ends with a backslash goes on."""
    begun, parts = 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        begun = begun or number
        parts.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            yield begun, " ".join(parts)
            begun, parts = 0, []
    if parts:
        yield begun, " ".join(parts)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _archive_hashes(package: Mapping[str, Any]) -> Iterator[str]:
    """The hashes of a package's archives in a ``pylock.toml`` (PEP 751)."""
    wheels = package.get("wheels")
    archives = [*(wheels if isinstance(wheels, list) else ())]
    archives += [package.get("sdist"), package.get("archive")]
    for archive in archives:
        hashes = archive.get("hashes") if isinstance(archive, Mapping) else None
        if isinstance(hashes, Mapping):
            yield from (f"{algorithm}:{digest}" for algorithm, digest in hashes.items())


def _values_of(key: str, table: object) -> Iterator[str]:
    """Every text below a key of that name, in tables in tables."""
    if isinstance(table, Mapping):
        for name, value in table.items():
            if name == key:
                values = value if isinstance(value, list) else [value]
                yield from (text for text in values if isinstance(text, str))
            else:
                yield from _values_of(key, value)


def _at(table: object, *keys: str) -> object:
    """What stands in tables in tables, if they are such; None otherwise."""
    for key in keys:
        table = table.get(key) if isinstance(table, Mapping) else None
    return table


def groups(
    names: Sequence[str], projects: Sequence[Project], files: Files
) -> Iterator[tuple[pathlib.Path, str]]:
    """Each ``pyproject.toml`` that has one of the dependency groups (PEP 735), with the group.

    A name that none of the projects has becomes one of the complaints of ``files``.
    """
    known: dict[str, str] = {}
    for project in projects:
        path = project.directory / "pyproject.toml"
        table = files.table(path) if path.is_file() else None
        found = _at(table, "dependency-groups")
        own = {
            canonical_name(name): name for name in (found if isinstance(found, Mapping) else ())
        }
        known |= own
        yield from ((path, own[name]) for name in map(canonical_name, names) if name in own)
    for name in names:
        if canonical_name(name) not in known:
            files.errors.append(
                SettingsError(
                    f"dependency-groups: no project of develop has a group {name}",
                    _one_of(name, known.values()),
                )
            )


def _one_of(name: str, known: Iterable[str]) -> str:
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, 1)
    if near:
        return f"write {near[0]}"
    return f"name some of {', '.join(names)}" if names else "take it out: there are none"


def unknown_extra(name: str, known: Iterable[str]) -> SettingsError:
    """The complaint about an extra that no project has."""
    return SettingsError(
        f"extras: no project of develop has an extra {name}", _one_of(name, known)
    )


def conflicts(
    lines: Iterable[Line], pins: Mapping[str, str], interpreter: Interpreter
) -> Iterator[SettingsError]:
    """Requirements that no pinned version can meet; the installers name only one side."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    by_name = {canonical_name(project): (project, spec) for project, spec in pins.items()}
    for line in lines:
        found = _PROJECT.match(line.text)
        if found is None or (name := canonical_name(found[1])) not in by_name:
            continue
        project, spec = by_name[name]
        if line.text[found.end() :] == spec:
            continue  # as most lines; to parse it would take longer than all the rest
        try:
            requirement = Requirement(line.text)
            pin = SpecifierSet(spec)
        except (InvalidRequirement, InvalidSpecifier):
            continue  # not ours to judge
        if requirement.marker and not requirement.marker.evaluate(interpreter.markers):
            continue
        one, other = _one_release(pin), _one_release(requirement.specifier)
        if (one and not requirement.specifier.contains(one, prereleases=True)) or (
            other and not pin.contains(other, prereleases=True)
        ):
            yield SettingsError(
                f"{line.where}: {line.text} conflicts with {project} = "
                f"{spec.removeprefix('==')} in [versions]",
                "change one of the two",
            )


def _one_release(specifiers: Any) -> str | None:
    """The only release that a set of specifiers allows, if there is such a one."""
    for specifier in specifiers:
        if specifier.operator in ("==", "===") and "*" not in specifier.version:
            return str(specifier.version)
    return None


def unhashed(files: Files, interpreter: Interpreter) -> Iterator[SettingsError]:
    """Requirements that have no hash, though each one has to."""
    from packaging.requirements import InvalidRequirement, Requirement

    for line in files.lines:
        if not line.asks or line.text.startswith("--"):
            continue
        try:
            requirement = Requirement(line.text)
        except InvalidRequirement:
            name = None  # an editable project, or a path
        else:
            if requirement.marker and not requirement.marker.evaluate(interpreter.markers):
                continue
            name = canonical_name(requirement.name)
        if name not in files.hashes:
            yield SettingsError(
                f"{line.where}: {line.text} has no hash, and require-hashes is set",
                "write --hash=sha256:... behind it; uv pip compile --generate-hashes does",
            )


def exact_names(lines: Iterable[Line], pins: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Names of which requirements, constraints and pins allow one release only."""
    for name, spec in pins:
        if re.fullmatch(r"===?[^,*]+", spec):
            yield canonical_name(name)
    for line in lines:
        found = _PROJECT.match(line.text)
        if found and re.match(r"@|===?\s*[^\s,;*]+\s*(?:;|$)", line.text[found.end() :]):
            yield canonical_name(found[1])
