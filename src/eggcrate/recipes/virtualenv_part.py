"""The recipe ``eggcrate:virtualenv-part``: a virtual environment below the parts directory."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import logging
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from eggcrate.errors import EggcrateError, InstallError, SettingsError, raise_all
from eggcrate.recipes import ownership
from eggcrate.recipes.boundary import user_errors
from eggcrate.transports import installers

#: what a user may write, besides ``recipe``
OPTIONS = (
    "constraints-files",
    "develop",
    "find-links",
    "index",
    "installer",
    "interpreter",
    "python",
    "requirements",
    "requirements-files",
    "scripts",
)

INSTALLERS = ("uv", "pip")

#: what tells how an editable project is to be installed; its modules need no reinstall
_METADATA = ("pyproject.toml", "setup.py", "setup.cfg")

#: the kernel reads no more of a script's first line
_LONGEST_SHEBANG = 127


class Recipe:
    """A virtual environment, and scripts in ``bin/`` that lead to its programs."""

    def __init__(
        self, buildout: Mapping[str, Any], name: str, options: MutableMapping[str, str]
    ) -> None:
        self.name = name
        self.log = logging.getLogger(name)
        section = buildout["buildout"]
        self.bin = pathlib.Path(section["bin-directory"])
        location = pathlib.Path(section["parts-directory"], name)
        with user_errors(name):
            errors: list[EggcrateError] = [*_unknown_options(options)]
            self.scripts = _scripts(options, errors)
            self.wanted = _wanted(buildout, options, location, errors)
        ownership.declare(options, [location])
        # A changed file changes no option, and buildout compares options: so the digest is one.
        options["digest"] = self.wanted.digest()
        for option in ("index", "find-links", "requirements"):
            if option in options:  # buildout writes options into .installed.cfg
                options[option] = installers.masked(options[option])
        options["location"] = str(location)
        options["bin-directory"] = str(location / "bin")
        options["python"] = str(location / "bin" / "python")
        options["site-packages"] = str(location / self.wanted.interpreter.site_packages)

    def install(self) -> Sequence[str]:
        """Make the environment unless it is there already, and the scripts."""
        with user_errors(self.name):
            return self._provide()

    def update(self) -> Sequence[str]:
        """Mend what is missing; usually nothing, and then nothing is started."""
        with user_errors(self.name):
            return self._provide()

    def _provide(self) -> Sequence[str]:
        location = self.wanted.location
        installers.mend(location)
        before = installers.recorded(location)
        try:
            if not self._is_current(before):
                with installers.rebuilt(self.wanted, self.log) as commands:
                    self._links(commands)  # a wrong name shall leave the old environment
            record = installers.recorded(location)
            assert record is not None
            links = self._links(record.commands)
            gone = set(before.links if before else ()) - set(links)
            for path in (self.bin / script for script in gone):
                if self._is_ours(path):
                    path.unlink()
            self._place(links)
        except BaseException:
            if before is not None:
                # buildout has removed the scripts of the environment that stays
                with contextlib.suppress(InstallError):
                    self._place(before.links)
            raise
        if record.links != links:
            dataclasses.replace(record, links=links).write(location)
        return [str(self.bin / script) for script in sorted(links)]

    def _is_current(self, record: installers.Record | None) -> bool:
        return (
            record is not None
            and record.digest == self.wanted.digest()
            and os.access(self.wanted.location / "bin" / "python", os.X_OK)
        )

    def _links(self, commands: Sequence[str]) -> dict[str, str]:
        """Name in ``bin/``: name in the environment; or every reason why that can't be."""
        errors: list[EggcrateError] = []
        links = {}
        for command, script in self.scripts.renamed.items():
            if command in commands:
                links[script] = command
            else:
                errors.append(_unknown_script(command, commands))
        if self.scripts.all:
            for command in set(commands) - set(self.scripts.renamed):
                links.setdefault(command, command)
        if self.scripts.interpreter:
            links[self.scripts.interpreter] = "python"
        for script in sorted(links):
            path = self.bin / script
            shown = _shown(path, self.wanted.directory)
            if os.path.lexists(path) and not self._is_ours(path):
                errors.append(
                    InstallError(
                        f"{shown} is there already, and not from this part",
                        f"rename ours with scripts = {links[script]}=..., or remove that file",
                    )
                )
        raise_all(errors)
        return links

    def _is_ours(self, path: pathlib.Path) -> bool:
        """Whether a script may be replaced: it leads here, maybe to where we were before."""
        location = self.wanted.location
        place = os.fsencode(f"/{location.parent.name}/{location.name}/bin/")
        try:
            with path.open("rb") as file:
                return place in file.read(4096)
        except OSError:
            return False

    def _place(self, links: Mapping[str, str]) -> None:
        try:
            self.bin.mkdir(exist_ok=True)
            for script, command in links.items():
                _put_program(self.bin / script, self._script(command))
        except OSError as error:
            raise InstallError(
                f"{self.bin} can't be written: {error.strerror}",
                "free it: check the permissions and the space on the disk",
            ) from error

    def _script(self, command: str) -> bytes:
        """What does the same in ``bin/`` as the program in the environment.

        Never a link: buildout doesn't remove one whose target is gone, and a part that
        writes a script of the same name would write through it.
        """
        program = self.wanted.location / "bin" / command
        if command != "python":
            with program.open("rb") as file:
                if file.read(2) == b"#!":
                    return b"#!" + file.read()
        # Python looks for its environment beside the name it is called by, and so may others
        python = self.wanted.location / "bin" / "python"
        shebang = f"#!{python} -IS"
        if len(os.fsencode(shebang)) > _LONGEST_SHEBANG or re.search(r"\s", str(python)):
            quoted = str(program).replace("'", "'\\''")
            return os.fsencode(f"#!/bin/sh\nexec '{quoted}' \"$@\"\n")
        # needs no shell: an image may have none
        lines = [shebang, "import os, sys", f"program = {str(program)!r}"]
        lines += ["os.execv(program, [program, *sys.argv[1:]])", ""]
        return os.fsencode("\n".join(lines))


@dataclasses.dataclass(frozen=True)
class _Scripts:
    """What is to be put into ``bin/``."""

    all: bool
    #: name in the environment: name in ``bin/``
    renamed: Mapping[str, str]
    interpreter: str


def _scripts(options: Mapping[str, str], errors: list[EggcrateError]) -> _Scripts:
    renamed: dict[str, str] = {}
    every = False
    for word in re.sub(r"\s*=\s*", "=", options.get("scripts", "")).split():
        command, _, script = word.partition("=")
        if word == "*":
            every = True
        elif "=" in word and not (command and script):
            errors.append(SettingsError(f"scripts: {word} has no name", "write name=newname"))
        else:
            renamed[command] = script or command
    interpreter = options.get("interpreter", "").strip()
    names = [*renamed.values(), *([interpreter] if interpreter else [])]
    for script in sorted(set(names)):
        if not re.fullmatch(r"[\w.+-]+", script):
            errors.append(
                SettingsError(
                    f"{script!r} can't be the name of a script",
                    "use letters, digits and any of . _ + - in scripts and interpreter",
                )
            )
        elif names.count(script) > 1:
            errors.append(
                SettingsError(
                    f"two scripts would be bin/{script}",
                    "rename one in scripts (name=newname) or interpreter",
                )
            )
    return _Scripts(every, renamed, interpreter)


def _unknown_script(command: str, commands: Sequence[str]) -> InstallError:
    near = difflib.get_close_matches(command, commands, 1)
    if near:
        hint = f"did you mean {near[0]}? There are: {', '.join(commands)}"
    elif commands:
        hint = f"name some of these: {', '.join(commands)}"
    else:
        hint = "name in requirements or develop what brings it; nothing here brings any"
    return InstallError(f"scripts: this environment has no script {command}", hint)


def _wanted(
    buildout: Mapping[str, Any],
    options: Mapping[str, str],
    location: pathlib.Path,
    errors: list[EggcrateError],
) -> installers.Wanted:
    """The options, read and checked; raises every complaint there is, ``errors`` too."""
    section = buildout["buildout"]
    directory = pathlib.Path(section["directory"])
    installer = options.get("installer", "uv").strip()
    if installer not in INSTALLERS:
        errors.append(SettingsError(f"installer: {installer} is unknown", "use uv or pip"))

    requirements = _lines(options, "requirements")
    errors += [
        SettingsError(
            f"requirements: {installers.masked(line)} is an option of the installer",
            "use requirements-files, constraints-files, develop, index or find-links",
        )
        for line in requirements
        if line.startswith("-")
    ]
    requirement_files = _paths(options, "requirements-files", directory)
    constraint_files = _paths(options, "constraints-files", directory)
    files = _Files(directory)
    for path in requirement_files:
        files.read(path, "requirements-files")
    for path in constraint_files:
        files.read(path, "constraints-files")
    projects = _paths(options, "develop", directory)
    for project in projects:
        files.read_project(project)
    errors += files.errors

    interpreter = None
    try:
        interpreter = _interpreter(options.get("python", "").strip(), location, directory)
    except EggcrateError as error:
        errors.append(error)

    pins = _pins(section, buildout)
    if pins and interpreter:
        asked = [("requirements", line) for line in requirements]
        errors += _conflicts([*asked, *files.lines], dict(pins), interpreter)

    index = _index(options.get("index") or section.get("index") or "", directory, errors)
    find_links = _find_links(options, section, directory, errors)
    raise_all(errors)
    assert interpreter is not None
    return installers.Wanted(
        location=location,
        directory=directory,
        interpreter=interpreter,
        installer=installer,
        requirements=tuple(requirements),
        requirement_files=requirement_files,
        constraint_files=constraint_files,
        pins=pins,
        projects=projects,
        index=index,
        find_links=find_links,
        offline=section.get("offline") == "true",
        files=tuple(sorted(files.digests.items())),
    )


def _unknown_options(options: Mapping[str, str]) -> Iterator[SettingsError]:
    for option in sorted(options):
        # buildout has names of its own, like <part-dependencies>
        if option in (*OPTIONS, "recipe") or option.startswith(("<", "_")):
            continue
        near = difflib.get_close_matches(option, OPTIONS, 1)
        yield SettingsError(
            f"has an unknown option {option}",
            f"write {near[0]}" if near else f"use some of {', '.join(OPTIONS)}",
        )


def _lines(options: Mapping[str, str], option: str) -> list[str]:
    return [line.strip() for line in options.get(option, "").splitlines() if line.strip()]


def _paths(
    options: Mapping[str, str], option: str, directory: pathlib.Path
) -> tuple[pathlib.Path, ...]:
    return tuple(
        pathlib.Path(os.path.normpath(directory / pathlib.Path(line).expanduser()))
        for line in _lines(options, option)
    )


class _Files:
    """The files that an environment depends on: digests, requirement lines, complaints."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self.digests: dict[str, str] = {}
        #: where it is, and what it says
        self.lines: list[tuple[str, str]] = []
        self.errors: list[EggcrateError] = []

    def read(self, path: pathlib.Path, by: str) -> None:
        """Take in a file of requirements, and those that it includes."""
        if str(path) in self.digests:
            return
        shown = _shown(path, self._directory)
        try:
            content = path.read_bytes()
        except OSError as error:
            self.errors.append(
                SettingsError(
                    f"{by}: {shown} can't be read: {error.strerror}", self._nearest(path)
                )
            )
            return
        self.digests[str(path)] = hashlib.sha256(content).hexdigest()
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            included = re.match(
                r"\s*(?:-[rc]|--(?:requirement|constraint)s?)[\s=]\s*(\S+)", line
            )
            if included is None:
                self.lines.append((f"{shown}, line {number}", line))
            elif "://" not in included[1]:
                self.read(path.parent / included[1], f"{shown}, line {number}")

    def read_project(self, directory: pathlib.Path) -> None:
        """Take in what says how the project at ``directory`` is installed."""
        shown = _shown(directory, self._directory)
        found = [directory / name for name in _METADATA if (directory / name).is_file()]
        if not directory.is_dir():
            self.errors.append(
                SettingsError(
                    f"develop: there is no directory {shown}", self._nearest(directory)
                )
            )
        elif not any(path.suffix in (".toml", ".py") for path in found):
            self.errors.append(
                SettingsError(
                    f"develop: {shown} is no project, as it has neither pyproject.toml "
                    "nor setup.py",
                    "name the directory that has one of them",
                )
            )
        for path in found:
            self.digests[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()

    def _nearest(self, path: pathlib.Path) -> str:
        beside: list[str] = []
        with contextlib.suppress(OSError):
            beside = sorted(os.listdir(path.parent))
        near = difflib.get_close_matches(path.name, beside, 1)
        if near and near[0] != path.name:
            name = _shown(path.with_name(near[0]), self._directory)
            return f"write {name}, the nearest name there is"
        return "correct the path, which starts from the buildout directory"


def _shown(path: pathlib.Path, directory: pathlib.Path) -> str:
    """A path as messages have it: relative, when it is in the buildout directory."""
    return str(path.relative_to(directory) if path.is_relative_to(directory) else path)


def _interpreter(
    asked: str, location: pathlib.Path, directory: pathlib.Path
) -> installers.Interpreter:
    asked = asked or sys.executable
    record = installers.recorded(location)
    if record and record.interpreter.asked == asked and record.interpreter.is_unchanged():
        return record.interpreter  # to ask it again would cost a process
    return installers.find_interpreter(asked, directory)


def _pins(
    section: Mapping[str, str], buildout: Mapping[str, Any]
) -> tuple[tuple[str, str], ...]:
    """The ``[versions]``, as version specifiers."""
    name = section.get("versions")
    if not name:
        return ()
    return tuple(
        (project, text if text[0] in "<>=!~" else f"=={text}")
        for project, text in sorted((key, pin.strip()) for key, pin in buildout[name].items())
        if text
    )


def _conflicts(
    asked: Iterable[tuple[str, str]],
    pins: Mapping[str, str],
    interpreter: installers.Interpreter,
) -> Iterator[SettingsError]:
    """Requirements that no pinned version can meet; the installers name only one side."""
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import InvalidVersion, Version

    by_name = {canonicalize_name(project): (project, spec) for project, spec in pins.items()}
    environment = {
        "python_version": ".".join(interpreter.version.split(".")[:2]),
        "python_full_version": interpreter.version,
    }
    for where, line in asked:
        text = re.sub(r"(?:^|\s)#.*|\s--hash.*|\\$", "", line).strip()
        try:
            requirement = Requirement(text)
            project, spec = by_name[canonicalize_name(requirement.name)]
            version = Version(spec.removeprefix("=="))
        except (InvalidRequirement, InvalidVersion, KeyError):
            continue  # not ours to judge
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield SettingsError(
                f"{where}: {text} conflicts with {project} = {version} in [versions]",
                "change one of the two",
            )


def _index(text: str, directory: pathlib.Path, errors: list[EggcrateError]) -> str | None:
    text = text.strip()
    if not text:
        return None
    if "\n" in text or text.count("://") > 1:
        errors.append(
            SettingsError(
                "index: it has more than one URL", "name one; add others to find-links"
            )
        )
        return None
    return _url(text, "index", directory, errors)


def _find_links(
    options: Mapping[str, str],
    section: Mapping[str, str],
    directory: pathlib.Path,
    errors: list[EggcrateError],
) -> tuple[str, ...]:
    own = [
        _url(line, "find-links", directory, errors) for line in _lines(options, "find-links")
    ]
    # a directory of [buildout] may not be there yet; eggs don't mind, either
    shared = [_url(line, "find-links", directory, []) for line in _lines(section, "find-links")]
    return tuple(dict.fromkeys(link for link in (*own, *shared) if link))


def _url(
    text: str, option: str, directory: pathlib.Path, errors: list[EggcrateError]
) -> str | None:
    if "://" in text:
        return text
    path = pathlib.Path(os.path.normpath(directory / pathlib.Path(text).expanduser()))
    if not path.exists():
        errors.append(
            SettingsError(
                f"{option}: there is no {_shown(path, directory)}", "name a URL or a directory"
            )
        )
        return None
    return path.as_uri()


def _put_program(path: pathlib.Path, content: bytes) -> None:
    is_program = path.is_file() and not path.is_symlink() and os.access(path, os.X_OK)
    if is_program and path.read_bytes() == content:
        return
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".eggcrate-") as scratch:
        file = pathlib.Path(scratch, path.name)
        file.write_bytes(content)
        file.chmod(0o755)
        file.replace(path)
