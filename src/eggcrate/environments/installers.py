"""uv and pip: what they are told to do, and what becomes of their answers."""

from __future__ import annotations

import contextlib
import dataclasses
import email.parser
import importlib.metadata
import importlib.util
import json
import logging
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from eggcrate.environments import allowlist, process
from eggcrate.environments.configuration import (
    pip_configuration,
    pip_settings,
    sources,
    uv_settings,
)
from eggcrate.environments.environment import (
    Project,
    Record,
    Wanted,
    changed,
    contents,
    replace,
    writing,
)
from eggcrate.environments.interpreters import environ as plain_environ
from eggcrate.environments.interpreters import uv_program
from eggcrate.environments.process import Failed, TookTooLong
from eggcrate.environments.requirements import canonical_name, unknown_extra
from eggcrate.errors import EggcrateError, InstallError, raise_all
from eggcrate.image.progress import status

#: the oldest uv that knows all that it is told here
LEAST_UV = "0.7"

# What is worth a word on a terminal, of all that an installer prints
_STEP = re.compile(
    r"\s*((?:Resolved|Downloading|Building|Prepared|Uninstalled|Installed) .*"
    r"|(?:Collecting|Obtaining|Preparing metadata|Installing) .*)"
)

_UNREACHABLE = re.compile(
    r"(?i)failed to fetch|error sending request|dns error|connection (?:refused|reset)"
    r"|connection broken|name resolution|max retries|timed out|incomplete message"
    r"|could not fetch url.*"
)

# The last line of a traceback in pip's log
_REASON = re.compile(r"^[\dT:,.-]+ +([A-Z]\w*(?:Error|Exception|Exit)\b.*?)\.?$", re.M)

# What uv would bring or take away
_CHANGE = re.compile(r"^ [+-] \S", re.M)


def provide(
    wanted: Wanted,
    before: Record | None,
    log: logging.Logger,
    finish: Callable[[Record], Record],
    *,
    lock: int,
) -> None:
    """Make the environment what is wanted, and have ``finish`` do the rest.

    ``before`` is the record of what is there; what can be kept of that is changed in place.
    ``finish`` gets the new record, and gives the one to be kept.  When anything fails, that
    included, what was there comes back.  ``lock`` is a descriptor that says that this
    environment is being changed.
    """
    programs = wanted.location / "bin"
    with _Run.of(wanted, log, lock) as run:
        uv = run.uv()
        old = _distributions(wanted)
        foundation = wanted.foundation(sources(wanted))
        with changed(wanted, before, foundation) as anew:
            if anew:
                _make(wanted)
            own = _own_files(wanted, () if anew or before is None else before.commands)
            stale = [] if anew or before is None else _stale(wanted, before)
            if wanted.is_bare:
                pass
            elif uv is not None:
                _install_with_uv(run, uv, stale, anew=anew)
            else:
                _install_with_pip(run, {} if anew else old, stale)
            _settle(wanted)
            new = _distributions(wanted)
            raise_all([*_intruders(wanted, own), *_complaints(wanted, new)])
            record = Record(
                digest=wanted.digest(),
                foundation=foundation,
                interpreter=wanted.interpreter,
                commands=tuple(sorted(set(os.listdir(programs)) - {*own})),
                contents=contents(wanted.location, wanted.interpreter),
                settled=wanted.is_complete_list or _from_indexes(wanted) <= wanted.exact,
                hashes=dict(wanted.hashes),
            )
            finish(record).write(wanted.location)
        run.report(old if before is not None else {}, new, "pip" if uv is None else "uv")


def has_newer(wanted: Wanted, log: logging.Logger) -> bool:
    """Whether there is a newer release of anything, as the installer sees it.

    Warns, and says no, when it can't be asked: what is installed goes on working.
    """
    with _Run.of(wanted, log, None) as run:
        uv = run.uv()
        try:
            if uv is not None:
                return bool(
                    _CHANGE.search(
                        _uv_install(run, uv, run.requirements(), "--upgrade", "--dry-run")
                    )
                )
            there = _distributions(wanted)
            found = _resolved(run).items()
            return any(version and there.get(name) != version for name, version in found)
        except InstallError as error:
            log.warning("Nothing newer was looked for: %s", error.what)
            return False
        finally:
            _unlock(wanted)


@dataclasses.dataclass(frozen=True)
class _Run:
    """What installers are started for, and with."""

    wanted: Wanted
    log: logging.Logger
    #: a directory for files that they read
    scratch: pathlib.Path
    #: a descriptor that they inherit
    lock: int | None
    begun: float

    @classmethod
    @contextlib.contextmanager
    def of(cls, wanted: Wanted, log: logging.Logger, lock: int | None) -> Iterator[_Run]:
        with tempfile.TemporaryDirectory(prefix="eggcrate-") as scratch:
            yield cls(wanted, log, pathlib.Path(scratch), lock, time.monotonic())

    def uv(self) -> str | None:
        """The program of uv; None when pip is wanted, or has to stand in."""
        if self.wanted.installer != "uv":
            return None
        uv = uv_program() or _completed_uv(self.wanted)
        if uv is None:
            self.log.warning(
                "There is no uv here, neither installed nor on PATH: pip stands in."
            )
        return uv

    @property
    def python(self) -> str:
        """The program of the environment's Python."""
        return str(self.wanted.location / "bin" / "python")

    def requirements(self) -> list[str]:
        """What is asked for, as arguments of both installers."""
        wanted = self.wanted
        if wanted.lock is not None:
            return ["-r", str(wanted.lock)]
        arguments = []
        if wanted.requirements:
            # in a file, as a direct URL may hold a password, and everybody sees arguments
            arguments += ["-r", self._written("requirements", wanted.requirements)]
        for path in wanted.requirement_files:
            arguments += ["-r", str(path)]
        # among hashes, there is no room for anything that is not exact
        pins = [
            f"{name}{spec}"
            for name, spec in wanted.pins
            if not wanted.require_hashes or spec.startswith("==")
        ]
        if pins:
            arguments += ["-c", self._written("versions", pins)]
        for path in wanted.constraint_files:
            arguments += ["-c", str(path)]
        for path, group in wanted.groups:
            arguments += ["--group", f"{path}:{group}"]
        if wanted.require_hashes:
            return [*arguments, "--require-hashes"]
        return [*arguments, *self.projects()]

    def projects(self) -> list[str]:
        """The projects, as arguments of both installers."""
        return [word for project in self.wanted.projects for word in ("-e", str(project))]

    def _written(self, name: str, lines: Iterable[str]) -> str:
        file = self.scratch / name
        file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return str(file)

    def start(
        self,
        name: str,
        command: Sequence[str],
        environ: Mapping[str, str],
        log: pathlib.Path | None = None,
    ) -> str:
        """Run an installer; gives what it prints, or raises what went wrong.

        ``log`` is a file in which it may say more of that.
        """
        wanted = self.wanted
        begun = time.monotonic()
        deadline = self.begun + wanted.means.timeout
        with allowlist.only(wanted.means.allowed_hosts, environ) as allowed:
            try:
                with status(self.log, self.log.name) as told:
                    return process.run(
                        command,
                        wanted.directory,
                        allowed.environ,
                        timeout=max(deadline - begun, 1),
                        told=self._follower(told),
                        keep=() if self.lock is None else (self.lock,),
                    )
            except Failed as error:
                more = ""
                if log is not None:
                    with contextlib.suppress(OSError):  # it may have failed before that
                        more = process.masked(log.read_text("utf-8", "replace"))
                # what is wrong is in the option, not in a file that is gone
                error.output = error.output.replace(f"{self.scratch}/", "")
                raise _install_error(name, error, more, wanted, allowed.refused) from error

    def _follower(self, told: Callable[[str], None]) -> Callable[[str], None]:
        def follow(line: str) -> None:
            step = _STEP.match(line)
            told(step[1] if step else "")
            if line:
                self.log.debug("%s", line)

        return follow

    def report(self, old: Mapping[str, str], new: Mapping[str, str], name: str) -> None:
        """Say what is there now, and what has changed."""
        self.log.info(
            "%d %s for Python %s, by %s, in %.1f s.",
            len(new),
            "distribution" if len(new) == 1 else "distributions",
            self.wanted.interpreter.version,
            name,
            time.monotonic() - self.begun,
        )
        for project in sorted({*old, *new}) if old else ():
            was, now = old.get(project), new.get(project)
            if was is None:
                self.log.info("+ %s %s", project, now)
            elif now is None:
                self.log.info("- %s %s", project, was)
            elif was != now:
                self.log.info("~ %s %s, was %s", project, now, was)


def _make(wanted: Wanted) -> None:
    """Make an environment with nothing in it; the installers work from outside."""
    python = wanted.interpreter
    system = wanted.system_site_packages
    if python.is_running:
        import venv

        builder = venv.EnvBuilder(symlinks=True, system_site_packages=system)
        with writing(wanted.location):
            try:
                builder.create(wanted.location)
            except ValueError as error:  # a colon in its path
                raise InstallError(
                    f"{wanted.location} can't be an environment: {error}",
                    "give the buildout another directory",
                ) from error
        return
    code = (
        "import sys, venv; venv.EnvBuilder(symlinks=True, "
        f"system_site_packages={system}).create(sys.argv[1])"
    )
    try:
        command = [python.executable, "-I", "-c", code, str(wanted.location)]
        process.run(command, wanted.directory, plain_environ())
    except Failed as error:
        raise InstallError(
            f"{python.executable} can't make a virtual environment: {error.message()}",
            f"install its venv module (on Debian: apt install python3.{python.minor}-venv)",
        ) from error


def _distributions(wanted: Wanted) -> dict[str, str]:
    """Canonical name and version of each distribution that is installed."""
    found = {}
    with contextlib.suppress(OSError):
        for name in os.listdir(wanted.location / wanted.interpreter.site_packages):
            if name.endswith(".dist-info"):
                project, _, version = name.removesuffix(".dist-info").partition("-")
                found[canonical_name(project)] = version
    return found


def _from_indexes(wanted: Wanted) -> set[str]:
    """Canonical names of what no path or URL has brought: there may be newer releases."""
    site_packages = wanted.location / wanted.interpreter.site_packages
    return {
        canonical_name(path.name.partition("-")[0])
        for path in site_packages.glob("*.dist-info")
        if not (path / "direct_url.json").exists()
    }


def _stale(wanted: Wanted, before: Record) -> list[str]:
    """Names whose hashes are others now: the installers look at those of archives only."""
    return [name for name, text in wanted.hashes if before.hashes.get(name) != text]


# uv


def _install_with_uv(run: _Run, uv: str, stale: Iterable[str], *, anew: bool) -> None:
    """Install what is wanted, what is stale once more, and remove everything else.

    With ``--upgrade`` what is there does not count, nor what uv has kept of an index for some
    minutes; to ask for that once more takes longer than all the rest.
    """
    again = [word for name in stale for word in ("--reinstall-package", name)]
    arguments = run.requirements()
    may_be_kept = anew and not run.wanted.means.newest
    try:
        _uv_install(run, uv, arguments, *([] if may_be_kept else ["--upgrade"]), *again)
    except InstallError as error:
        if not may_be_kept or "No solution found" not in error.what:
            raise
        _uv_install(run, uv, arguments, "--upgrade")
    if run.wanted.is_complete_list and run.wanted.projects:
        _uv_install(run, uv, run.projects(), "--no-deps", exact=False)


def _uv_install(
    run: _Run, uv: str, arguments: Sequence[str], *switches: str, exact: bool = True
) -> str:
    environ, more = uv_settings(run.wanted)
    command = [uv, "pip", "install", "--python", run.python, "--color", "never"]
    command += ["--no-progress", *more, *switches, *(["--exact"] if exact else [])]
    if not (run.wanted.directory / "uv.toml").is_file():
        # otherwise it obeys some pyproject.toml above the buildout directory
        (run.scratch / "uv.toml").touch()
        command += ["--project", str(run.scratch)]
    return run.start("uv", [*command, *arguments], environ)


def _completed_uv(wanted: Wanted) -> str | None:
    """The program of a ``uv`` egg, put into it; None if there is none to be had.

    zc.buildout 5 and 6 make eggs without the programs of a wheel, and uv is nothing else.
    """
    try:
        import uv
    except ImportError:
        return None
    egg = pathlib.Path(uv.__file__).parent.parent
    if egg.suffix != ".egg" or wanted.means.offline:
        return None
    with tempfile.TemporaryDirectory(prefix="eggcrate-") as scratch:
        environ = pip_settings(wanted, pathlib.Path(scratch))
        if "PIP_INDEX_URL" in environ:
            # for eggs, zc.buildout takes an index as one more
            more = pip_configuration(environ).get("extra-index-url", "")
            environ["PIP_EXTRA_INDEX_URL"] = f"{environ.pop('PIP_INDEX_URL')} {more}"
        fetch = [sys.executable, _pip_directory(), "install", "--target", scratch, "--no-deps"]
        fetch += ["--no-compile", "--only-binary", ":all:", "--disable-pip-version-check"]
        fetch += [f"uv=={importlib.metadata.version('uv')}"]
        try:
            process.run(fetch, wanted.directory, environ, timeout=wanted.means.timeout)
            (egg / "bin").mkdir(exist_ok=True)
            program = egg / "bin" / f".uv-{os.getpid()}"
            shutil.copy(pathlib.Path(scratch, "bin", "uv"), program)
            program.replace(egg / "bin" / "uv")
        except (Failed, OSError):
            return None
    return uv_program()


def _pip_directory() -> str:
    """The directory of the pip that zc.buildout uses; a Python can run it as a program."""
    spec = importlib.util.find_spec("pip")
    if spec is None or spec.origin is None:
        raise InstallError(
            f"there is no pip for {sys.executable}",
            "install pip there, or set installer = uv",
        )
    return str(pathlib.Path(spec.origin).parent)


# pip


def _install_with_pip(run: _Run, old: Mapping[str, str], stale: Collection[str]) -> None:
    """Install what is wanted, what is stale once more, and remove what is not wanted.

    pip has no command for that: it is asked first what it would install into an empty
    environment, so that what comes of it does not depend on what was there.
    """
    wanted = run.wanted
    if old:
        resolved = _resolved(run)
        # what comes from no index may have changed under the same name and version
        other = [
            name
            for name, version in old.items()
            if resolved.get(name) != version or name in stale
        ]
        if other:
            _pip(run, "uninstall", "--yes", *sorted(other))
    archives = wanted.means.cache / "dist" if wanted.means.cache is not None else None
    arguments = run.requirements()
    if archives is not None and not wanted.means.offline:
        # pip's own cache is of no use without its index
        _pip(run, "download", "--dest", str(archives), *_without_projects(arguments))
    _pip(run, "install", *arguments)
    if wanted.is_complete_list and wanted.projects:
        _pip(run, "install", "--no-deps", *run.projects())


def _without_projects(arguments: Sequence[str]) -> list[str]:
    place = arguments.index("-e") if "-e" in arguments else len(arguments)
    return list(arguments[:place])


def _resolved(run: _Run) -> dict[str, str]:
    """Canonical name and version of what pip would install into an empty environment.

    The version is empty for what doesn't come from an index.
    """
    report = run.scratch / "report"
    look = ["--dry-run", "--ignore-installed", "--report", str(report)]
    _pip(run, "install", *look, *run.requirements())
    found = {}
    for item in json.loads(report.read_bytes())["install"]:
        metadata = item["metadata"]
        found[canonical_name(metadata["name"])] = (
            "" if item["is_direct"] and run.wanted.lock is None else metadata["version"]
        )
    return found


def _pip(run: _Run, action: str, *arguments: str) -> str:
    """Run pip on the environment's Python, though it isn't installed there."""
    log = run.scratch / "log"
    command = [run.python, f"{_pip_directory()}/__pip-runner__.py", action]
    command += ["--no-input", "--no-color", "--disable-pip-version-check", "--log", str(log)]
    if action != "uninstall":
        command += ["--progress-bar", "off"]
    if action == "install":
        command += ["--no-compile", "--no-warn-script-location", "--root-user-action", "ignore"]
    environ = pip_settings(run.wanted, run.scratch)
    return run.start("pip", [*command, *arguments], environ, log=log)


# Afterwards


def _settle(wanted: Wanted) -> None:
    """Take away what differs between equal environments."""
    site_packages = wanted.location / wanted.interpreter.site_packages
    with writing(wanted.location):
        _unlock(wanted)
        for information in site_packages.glob("*.dist-info"):
            # there are times in uv's; pip's depends on what else was installed when
            for name in ("uv_build.json", "uv_cache.json", "REQUESTED"):
                if (information / name).exists():
                    _forget(information / name)


def _unlock(wanted: Wanted) -> None:
    """Remove the lock that uv leaves, which everybody may write."""
    (wanted.location / ".lock").unlink(missing_ok=True)


def _forget(note: pathlib.Path) -> None:
    """Remove an installer's note for itself, from what the distribution lists, too."""
    record = note.with_name("RECORD")
    entry = f"{note.parent.name}/{note.name},".encode()
    lines = record.read_bytes().splitlines(keepends=True)
    replace(record, b"".join(line for line in lines if not line.startswith(entry)))
    note.unlink()


def _own_files(wanted: Wanted, commands: Collection[str]) -> dict[str, bytes]:
    """What an environment has without any package, and what is in it, by names in ``bin``."""
    programs = wanted.location / "bin"
    names = [*(name for name in os.listdir(programs) if name not in commands), "../pyvenv.cfg"]
    return {name: _identity(programs / name) for name in names}


def _identity(path: pathlib.Path) -> bytes:
    try:
        return os.fsencode(os.readlink(path)) if path.is_symlink() else path.read_bytes()
    except OSError:
        return b""


def _intruders(wanted: Wanted, own: Mapping[str, bytes]) -> Iterator[InstallError]:
    """Packages that replace a part of the environment itself; the installers let them."""
    programs = wanted.location / "bin"
    for name, content in own.items():
        if _identity(programs / name) != content:
            yield InstallError(
                f"a package has overwritten {os.path.normpath(programs / name)}",
                "don't install it: look at the scripts and data of those that are new",
            )


def _complaints(wanted: Wanted, there: Mapping[str, str]) -> Iterator[EggcrateError]:
    """What the installers let pass: extras that are none, projects that need more."""
    asked = {extra for project in wanted.projects for extra in project.extras}
    if not asked and not wanted.is_complete_list:
        return
    known: set[str] = set()
    for project in wanted.projects:
        metadata = _metadata(wanted, project)
        if metadata is None:
            continue
        own = metadata.get_all("Provides-Extra") or []
        known.update(own)
        if wanted.is_complete_list:
            yield from _missing(wanted, project, metadata, there)
    names = {canonical_name(name) for name in known}
    for extra in sorted(asked):
        if canonical_name(extra) not in names:
            yield unknown_extra(extra, known)


def _metadata(wanted: Wanted, project: Project) -> email.message.Message | None:
    """The metadata of the distribution that is installed from a project."""
    site_packages = wanted.location / wanted.interpreter.site_packages
    for address in site_packages.glob("*.dist-info/direct_url.json"):
        # uv and pip don't quote the same letters
        url = urllib.parse.unquote(
            json.loads(address.read_bytes()).get("url", ""), errors="surrogateescape"
        )
        if url == f"file://{project.directory}":
            text = address.with_name("METADATA").read_text("utf-8")
            return email.parser.Parser().parsestr(text, headersonly=True)
    return None


def _missing(
    wanted: Wanted,
    project: Project,
    metadata: email.message.Message,
    there: Mapping[str, str],
) -> Iterator[InstallError]:
    """What a project needs, and a list that was to be complete does not bring."""
    from packaging.requirements import Requirement

    name = "lock" if wanted.lock is not None else "the list of requirements"
    environment = wanted.interpreter.markers
    for text in metadata.get_all("Requires-Dist") or []:
        requirement = Requirement(text)
        if requirement.marker and not any(
            requirement.marker.evaluate({**environment, "extra": extra})
            for extra in (*project.extras, "")
        ):
            continue
        version = there.get(canonical_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            has = "it not" if version is None else version
            yield InstallError(
                f"develop: {metadata['Name']} needs {requirement}, and {name} has {has}",
                "bring that up to date, or change what the project needs",
            )


def _install_error(
    name: str, error: Failed, more: str, wanted: Wanted, refused: Iterable[str]
) -> InstallError:
    """What an installer's failure means to whoever wrote the options."""
    message = error.message()
    if reasons := _REASON.findall(more):  # pip's log has what it doesn't show then
        message = message.replace("> No available output.", f"{reasons[-1]}.")
    if isinstance(error, TookTooLong):
        at = f", and was at: {message}" if error.output else ""
        return InstallError(
            f"{name} was not done after {wanted.means.timeout:.0f} s{at}",
            "look what it waits for, or give it more seconds: timeout",
        )
    if re.search(r"unexpected argument|unrecognized subcommand", error.output):
        return InstallError(
            f"{name} is older than {LEAST_UV}: {message}",
            f"install uv {LEAST_UV} or newer, or set installer = pip",
        )
    pinned = [
        project
        for project, spec in wanted.pins
        if re.search(rf"(?i)\b{_name_pattern(project)}\s*{re.escape(spec)}", message)
    ]
    why = ""
    if refused:
        why = f"allow-hosts forbids {', '.join(sorted(refused))}: "
        hint = "add it to allow-hosts, or take index and find-links that don't lead there"
    elif unreachable := _UNREACHABLE.search(error.output + more):
        why = f"something could not be reached in {error.seconds:.0f} s: "
        if more and unreachable[0] not in message:  # pip goes on without
            why += f"{unreachable[0]}: "
        hint = "check the network, and index and find-links"
    elif re.search(r"No space left|Read-only file system|quota exceeded", error.output):
        hint = "free some space, or check the permissions"
    elif wanted.means.offline:
        hint = (
            "unset offline and install-from-cache, or add a directory of wheels to find-links"
        )
    elif pinned:
        hint = f"compare with {', '.join(pinned)} in [versions], and change one of the two"
    else:
        hint = "mend the requirements; bin/buildout -v shows all that it printed"
    return InstallError(f"{name} can't install what is asked for: {why}{message}", hint)


def _name_pattern(project: str) -> str:
    return "[-_.]+".join(re.escape(word) for word in re.split(r"[-_.]+", project))
