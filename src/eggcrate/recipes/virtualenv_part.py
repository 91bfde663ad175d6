"""The recipe ``eggcrate:virtualenv-part``: a virtual environment below the parts directory."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import logging
import os
import pathlib
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any

from eggcrate.environments import environment, requirements
from eggcrate.environments.environment import Means, Project, Record, Wanted
from eggcrate.environments.interpreters import DISTURBING, Interpreter, find_interpreter
from eggcrate.environments.process import masked
from eggcrate.environments.requirements import Files, shown
from eggcrate.errors import EggcrateError, InstallError, SettingsError, raise_all
from eggcrate.recipes import ownership
from eggcrate.recipes.boundary import user_errors

#: what a user may write, besides ``recipe``
OPTIONS = (
    "constraints-files",
    "dependency-groups",
    "develop",
    "environment",
    "extras",
    "find-links",
    "index",
    "installer",
    "interpreter",
    "lock",
    "python",
    "require-hashes",
    "requirements",
    "requirements-files",
    "scripts",
    "system-site-packages",
    "timeout",
)

INSTALLERS = ("uv", "pip")

#: options in which a URL may have a password
_WITH_URLS = ("environment", "find-links", "index", "requirements")

#: names of variables whose values are nobody's business
_SECRET = re.compile(r"(?im)^(\s*\w*(?:PASSW|SECRET|TOKEN|_KEY|CREDENTIAL)\w*\s*=\s*).+")

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
            if "/" in name or name in (".", ".."):
                raise SettingsError(
                    "its name is the path of something else", "give the part a plain name"
                )
            self.scripts = _scripts(options, errors)
            self.wanted = _wanted(buildout, options, location, errors)
        ownership.declare(options, [location])
        # A changed file changes no option, and buildout compares options: so the digest is one.
        self.digest = options["digest"] = self.wanted.digest()
        self.newest = self.wanted.means.newest and not self.wanted.means.offline
        for option in _WITH_URLS:
            if option in options:  # buildout writes options into .installed.cfg
                hidden = masked(options[option])
                if hidden != options[option]:
                    self.log.warning(
                        "%s has a password in it; better let ~/.netrc have it.", option
                    )
                options[option] = _SECRET.sub(r"\1****", hidden)
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
        before = environment.recorded(location)
        if environment.is_unfinished(location) or not self._is_current(before):
            with environment.alone(location, self.log) as lock:
                environment.mend(location)
                before = environment.recorded(location)
                if not self._is_current(before):
                    return self._change(before, lock)
        assert before is not None
        if self.newest and not before.settled and self._has_newer():
            with environment.alone(location, self.log) as lock:
                return self._change(before, lock)
        placed = self._placed(before, before)
        if placed != before:
            placed.write(location)
        return self._paths(placed)

    # what installs is loaded when something is to be installed

    def _has_newer(self) -> bool:
        from eggcrate.environments import installers

        return installers.has_newer(self.wanted, self.log)

    def _change(self, before: Record | None, lock: int) -> Sequence[str]:
        from eggcrate.environments import installers

        made: list[str] = []

        def finish(record: Record) -> Record:
            placed = self._placed(record, before)
            made[:] = self._paths(placed)
            return placed

        try:
            installers.provide(self.wanted, before, self.log, finish, lock=lock)
        except BaseException:
            if before is not None:
                # buildout has removed the scripts of the environment that stays
                with contextlib.suppress(InstallError):
                    self._place(before.links)
            raise
        return made

    def _placed(self, record: Record, before: Record | None) -> Record:
        """Put the scripts into ``bin/``, and take away those that are no longer wanted."""
        links = self._links(record.commands)
        self._place(links)
        for script in set(before.links if before else ()) - set(links):
            path = self.bin / script
            if self._is_ours(path):
                path.unlink()
        return dataclasses.replace(record, links=links)

    def _paths(self, record: Record) -> list[str]:
        return [str(self.bin / script) for script in sorted(record.links)]

    def _is_current(self, record: Record | None) -> bool:
        location = self.wanted.location
        return (
            record is not None
            and record.digest == self.digest
            and record.contents == environment.contents(location, record.interpreter)
            and os.access(location / "bin" / "python", os.X_OK)
        )

    def _links(self, commands: Sequence[str]) -> dict[str, str]:
        """Name in ``bin/``: name in the environment; or every reason why that can't be."""
        errors: list[EggcrateError] = []
        links: dict[str, str] = {}
        wanted = [(script, command) for command, script in self.scripts.renamed]
        if self.scripts.all:
            renamed = {command for command, _ in self.scripts.renamed}
            wanted += [(command, command) for command in commands if command not in renamed]
        if self.scripts.interpreter:
            wanted.append((self.scripts.interpreter, "python"))
        for script, command in wanted:
            if command not in (*commands, "python"):
                errors.append(_unknown_script(command, commands))
            elif links.setdefault(script, command) != command:
                errors.append(_same_script(script))
        for script in sorted(links):
            path = self.bin / script
            name = shown(path, self.wanted.directory)
            if os.path.lexists(path) and not self._is_ours(path):
                ours = (
                    "interpreter"
                    if script == self.scripts.interpreter
                    else f"scripts = {links[script]}=..."
                )
                errors.append(
                    InstallError(
                        f"{name} is there already, and not from this part",
                        f"rename ours with {ours}, or remove that file",
                    )
                )
        raise_all(errors)
        return links

    def _is_ours(self, path: pathlib.Path) -> bool:
        """Whether a script may be replaced: it leads here, maybe to where we were before."""
        location = self.wanted.location
        place = re.escape(os.fsencode(f"/{location.parent.name}/{location.name}/bin/"))
        # what uv, pip and we begin a script with; anybody may have a path in some other line
        begins = rb"#!\s*(?:\S*" + place + rb"|/bin/sh\n'''exec' [^\n]*" + place + rb")"
        try:
            with path.open("rb") as file:
                return re.match(begins, file.read(4096)) is not None
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
        # needs no shell: an image may have none
        lines = [f"#!{python} -IS", "import os, sys", f"program = {str(program)!r}"]
        lines += ["os.execv(program, [program, *sys.argv[1:]])", ""]
        if len(os.fsencode(lines[0])) > _LONGEST_SHEBANG or re.search(r"\s", str(python)):
            # a command to the shell and a string to Python; an image has it as one line again
            quoted = str(python).replace("'", "'\\''")
            lines[:1] = ["#!/bin/sh", f"'''exec' '{quoted}' -IS \"$0\" \"$@\"", "' '''"]
        return os.fsencode("\n".join(lines))


@dataclasses.dataclass(frozen=True)
class _Scripts:
    """What is to be put into ``bin/``."""

    all: bool
    #: name in the environment, and in ``bin/``
    renamed: Sequence[tuple[str, str]]
    interpreter: str


def _scripts(options: Mapping[str, str], errors: list[EggcrateError]) -> _Scripts:
    renamed: list[tuple[str, str]] = []
    every = False
    for word in re.sub(r"\s*=\s*", "=", options.get("scripts", "")).split():
        command, _, script = word.partition("=")
        if word == "*":
            every = True
        elif "=" in word and not (command and script):
            errors.append(SettingsError(f"scripts: {word} has no name", "write name=newname"))
        else:
            renamed.append((command, script or command))
    interpreter = options.get("interpreter", "").strip()
    names = [script for _, script in dict.fromkeys(renamed)]
    names += [interpreter] if interpreter else []
    for script in sorted(set(names)):
        if not re.fullmatch(r"[\w.+-]+", script):
            errors.append(
                SettingsError(
                    f"{script!r} can't be the name of a script",
                    "use letters, digits and any of . _ + - in scripts and interpreter",
                )
            )
        elif names.count(script) > 1:
            errors.append(_same_script(script))
    return _Scripts(every, list(dict.fromkeys(renamed)), interpreter)


def _same_script(script: str) -> SettingsError:
    return SettingsError(
        f"two scripts would be bin/{script}",
        "rename one in scripts (name=newname) or interpreter",
    )


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
) -> Wanted:
    """The options, read and checked; raises every complaint there is, ``errors`` too."""
    section = buildout["buildout"]
    directory = pathlib.Path(section["directory"])
    installer = options.get("installer", "").strip() or "uv"
    if installer not in INSTALLERS:
        errors.append(SettingsError(f"installer: {installer} is unknown", "use uv or pip"))

    text = options.get("requirements", "")
    asked = [line.strip() for _, line in requirements.logical_lines(text) if line.strip()]
    errors += [
        SettingsError(
            f"requirements: {masked(line)} is an option of the installer",
            "use requirements-files, constraints-files, develop, index or find-links",
        )
        for line in asked
        if line.startswith("-")
    ]
    files = Files(directory)
    for line in asked:
        files.take("requirements", line, directory)
    requirement_files = _paths(options, "requirements-files", directory)
    for path in requirement_files:
        files.read(path, "requirements-files")
    constraint_files = _paths(options, "constraints-files", directory)
    for path in constraint_files:
        files.read(path, "constraints-files", asks=False)
    projects = _projects(options, directory, errors)
    for project in projects:
        files.read_project(project)
    groups = tuple(requirements.groups(_words(options, "dependency-groups"), projects, files))
    lock = _lock(options, directory, files, errors)
    errors += files.errors

    interpreter = None
    try:
        interpreter = _interpreter(options.get("python", "").strip(), location, directory)
    except EggcrateError as error:
        errors.append(error)

    pins = _pins(section, buildout)
    if pins and interpreter:
        errors += requirements.conflicts(files.lines, dict(pins), interpreter)

    require_hashes = _flag(options, "require-hashes", errors)
    if require_hashes and interpreter:
        errors += requirements.unhashed(files, interpreter)
    system = _flag(options, "system-site-packages", errors)
    variables = _environment(options, errors)
    index = _index(options.get("index") or section.get("index") or "", directory, errors)
    links = _find_links(options, section, directory, errors)
    means = _means(section, options, errors)
    raise_all(errors)
    assert interpreter is not None
    return Wanted(
        location=location,
        directory=directory,
        interpreter=interpreter,
        installer=installer,
        requirements=tuple(asked),
        requirement_files=requirement_files,
        constraint_files=constraint_files,
        lock=lock,
        require_hashes=require_hashes,
        pins=pins,
        projects=projects,
        groups=groups,
        system_site_packages=system,
        environment=variables,
        index=index,
        find_links=links,
        files=tuple(sorted(files.digests.items())),
        exact=frozenset(requirements.exact_names(files.lines, pins)),
        hashes=tuple(sorted(files.hashes.items())),
        means=means,
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


def _words(options: Mapping[str, str], option: str) -> list[str]:
    return options.get(option, "").replace(",", " ").split()


def _flag(options: Mapping[str, str], option: str, errors: list[EggcrateError]) -> bool:
    text = options.get(option, "").strip() or "false"
    if text not in ("true", "false"):
        errors.append(
            SettingsError(f"{option}: {text} is neither true nor false", "write one of them")
        )
    return text == "true"


def _number(options: Mapping[str, str], option: str, errors: list[EggcrateError]) -> int | None:
    text = options.get(option, "").strip()
    if not text:
        return None
    if not re.fullmatch("[1-9][0-9]{0,6}", text):
        errors.append(
            SettingsError(f"{option}: {text} is no number of seconds", "write one, like 600")
        )
        return None
    return int(text)


def _path(text: str, directory: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(os.path.normpath(directory / pathlib.Path(text).expanduser()))


def _paths(
    options: Mapping[str, str], option: str, directory: pathlib.Path
) -> tuple[pathlib.Path, ...]:
    return tuple(_path(line, directory) for line in _lines(options, option))


def _projects(
    options: Mapping[str, str], directory: pathlib.Path, errors: list[EggcrateError]
) -> tuple[Project, ...]:
    """The directories of ``develop``, each with its own extras and those of all."""
    shared = _words(options, "extras")
    projects = []
    for line in _lines(options, "develop"):
        found = re.fullmatch(r"(.*?)\s*(?:\[([^\[\]]*)\])?", line)
        assert found is not None
        # a directory may well have such a name
        place, own = (line, "") if (directory / line).is_dir() else found.groups()
        extras = dict.fromkeys([*shared, *(own or "").replace(",", " ").split()])
        projects.append(Project(_path(place, directory), tuple(extras)))
    for option in ("extras", "dependency-groups"):
        if _words(options, option) and not projects:
            errors.append(
                SettingsError(
                    f"{option}: there is no project to have any",
                    "name its directory in develop",
                )
            )
    return tuple(projects)


def _lock(
    options: Mapping[str, str],
    directory: pathlib.Path,
    files: Files,
    errors: list[EggcrateError],
) -> pathlib.Path | None:
    paths = _paths(options, "lock", directory)
    if not paths:
        return None
    if len(paths) > 1:
        errors.append(SettingsError("lock: it has more than one file", "name one"))
    with_it = ("requirements", "requirements-files", "constraints-files", "dependency-groups")
    errors += [
        SettingsError(
            f"{option}: lock is the whole list already", "take one of the two options out"
        )
        for option in with_it
        if options.get(option, "").strip()
    ]
    files.read_lock(paths[0])
    return paths[0]


def _interpreter(asked: str, location: pathlib.Path, directory: pathlib.Path) -> Interpreter:
    asked = asked or sys.executable
    record = environment.recorded(location)
    if record and record.interpreter.asked == asked and record.interpreter.is_unchanged():
        return record.interpreter  # to ask it again would cost a process
    return find_interpreter(asked, directory)


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


def _environment(
    options: Mapping[str, str], errors: list[EggcrateError]
) -> tuple[tuple[str, str], ...]:
    variables = []
    for line in _lines(options, "environment"):
        name, found, text = line.partition("=")
        if not (found and re.fullmatch(r"[A-Za-z_]\w*", name.strip())):
            errors.append(
                SettingsError(
                    f"environment: {masked(line)} sets no variable",
                    "write NAME=value, one a line",
                )
            )
        elif name.strip() in DISTURBING:
            errors.append(
                SettingsError(
                    f"environment: {name.strip()} would send packages elsewhere",
                    "take it out; options say where things go",
                )
            )
        else:
            variables.append((name.strip(), text.strip()))
    return tuple(variables)


def _means(
    section: Mapping[str, str], options: Mapping[str, str], errors: list[EggcrateError]
) -> Means:
    cache = section.get("download-cache", "").strip()
    hosts = _lines(section, "allow-hosts")
    return Means(
        offline="true" in (section.get("offline"), section.get("install-from-cache")),
        newest=section.get("newest") == "true",
        cache=_path(cache, pathlib.Path(section["directory"])) if cache else None,
        allowed_hosts=() if "*" in hosts else tuple(hosts),
        socket_timeout=_number(section, "socket-timeout", errors),
        timeout=_number(options, "timeout", errors) or Means.timeout,
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
    path = _path(text, directory)
    if not path.exists():
        errors.append(
            SettingsError(
                f"{option}: there is no {shown(path, directory)}", "name a URL or a directory"
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
