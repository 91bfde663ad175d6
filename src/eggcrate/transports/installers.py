"""Python environments, made by uv or pip: complete, or left as they were.

A virtual environment holds its own path in scripts and in ``pyvenv.cfg``, so it can't be
built elsewhere and moved.  It is built in place instead, while the one that was there waits
beside it under another name and comes back when anything fails.  A marker file, written
last, tells a complete environment from one whose making was killed.
"""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import netrc
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence

from eggcrate.errors import InstallError, SettingsError

#: the file that makes an environment complete; it concerns this machine only
MARKER = ".eggcrate.json"

#: part of every digest: a higher number makes all environments anew
_FORMAT = 1

#: settings of whoever runs us that would send packages elsewhere, or change what is made
_DISTURBING = (
    "CONDA_PREFIX",
    "PIP_DRY_RUN",
    "PIP_PREFIX",
    "PIP_PYTHON",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
    "PYTHONHOME",
    "PYTHONPATH",
    "UV_COMPILE_BYTECODE",
    "UV_PYTHON",
    "UV_SYSTEM_PYTHON",
    "VIRTUAL_ENV",
    "__PYVENV_LAUNCHER__",
)

_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+(?=@)")

#: what a program prints when told this, is what we need to know about a Python
_QUERY = """\
import json, sys, sysconfig
scheme = "venv" if "venv" in sysconfig.get_scheme_names() else "posix_prefix"
purelib = sysconfig.get_path("purelib", scheme, {"base": "", "platbase": ""})
version = ".".join(str(number) for number in sys.version_info[:3])
print(json.dumps([sys.executable, version, purelib.lstrip("/")]))
"""


def masked(text: str) -> str:
    """The text, with the user names and passwords of URLs made unreadable."""
    return _CREDENTIALS.sub("****", text)


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """A Python that environments can be made from."""

    #: as the user named it: a version, a name or a path
    asked: str
    executable: str
    version: str
    #: of an environment made from it, below that environment
    site_packages: str
    #: the program behind links, and its size and time: another one is another interpreter
    program: str
    size: int
    mtime_ns: int

    @property
    def minor(self) -> int:
        """The 11 of Python 3.11.4."""
        return int(self.version.split(".")[1])

    def is_unchanged(self) -> bool:
        """Whether the same program is still there; two system calls, nothing started."""
        try:
            program = os.path.realpath(self.executable)
            status = os.stat(program)
        except OSError:
            return False
        return (program, status.st_size, status.st_mtime_ns) == (
            self.program,
            self.size,
            self.mtime_ns,
        )


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
    #: project and version specifier (``==1.0``), buildout's ``[versions]``
    pins: tuple[tuple[str, str], ...] = ()
    #: directories, installed editable
    projects: tuple[pathlib.Path, ...] = ()
    index: str | None = None
    #: URLs
    find_links: tuple[str, ...] = ()
    offline: bool = False
    #: every file whose content matters, and its SHA-256
    files: tuple[tuple[str, str], ...] = ()

    def digest(self) -> str:
        """Changes whenever another environment would be made; knows no password."""
        facts = dataclasses.asdict(self)
        facts["format"] = _FORMAT
        del facts["offline"]  # forbids the network; asks for nothing else
        text = json.dumps(facts, default=str, sort_keys=True)
        return hashlib.sha256(masked(text).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Record:
    """What a complete environment says about itself."""

    digest: str
    interpreter: Interpreter
    #: the programs that its packages brought, by name
    commands: tuple[str, ...]
    #: programs elsewhere that lead to them: name there, name here
    links: Mapping[str, str]

    def write(self, location: pathlib.Path) -> None:
        """Keep this in the environment at ``location``."""
        text = json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True)
        with _writing(location):
            _replace(location / MARKER, text + "\n")


def recorded(location: pathlib.Path) -> Record | None:
    """The record of the complete environment at ``location``, if there is one."""
    try:
        raw = json.loads((location / MARKER).read_bytes())
        return Record(
            digest=str(raw["digest"]),
            interpreter=Interpreter(**raw["interpreter"]),
            commands=tuple(raw["commands"]),
            links=dict(raw["links"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


# Interpreters


def find_interpreter(asked: str, directory: pathlib.Path) -> Interpreter:
    """The Python that is meant by a path, a version like ``3.12`` or a name."""
    if os.sep in asked:
        path = directory / pathlib.Path(asked).expanduser()
        if not path.is_file() or not os.access(path, os.X_OK):
            raise SettingsError(
                f"python: {asked} is no program",
                f"name one that is there: {_found_interpreters(directory)}",
            )
        program: str | None = str(path)
    elif _is_running(asked):
        program = sys.executable
    else:
        program = _discovered(asked, directory)
    if program is None:
        raise SettingsError(
            f"python: there is no Python {asked} on this machine",
            "install it, give the path of one, "
            f"or name one that is there: {_found_interpreters(directory)}",
        )
    try:
        query = [program, "-I", "-c", _QUERY]
        answer = _run(query, directory, _environ(), errors=False, timeout=30)
        executable, version, site_packages = json.loads(answer)
        program = os.path.realpath(executable)
        status = os.stat(program)
    except (_Failed, OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise SettingsError(
            f"python: {program} is no Python 3 that works",
            f"name one that does: {_found_interpreters(directory)}",
        ) from error
    return Interpreter(
        asked=asked,
        executable=executable,
        version=version,
        site_packages=site_packages,
        program=program,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )


def _is_running(version: str) -> bool:
    """Whether it is the version of the Python that runs us: ``3.12``, or ``3.12.1``."""
    numbers = version.split(".")
    return numbers == [str(number) for number in sys.version_info[: len(numbers)]]


def _discovered(asked: str, directory: pathlib.Path) -> str | None:
    uv = _uv()
    if uv is None:
        return shutil.which(asked) or shutil.which(f"python{asked}")
    find = [uv, "python", "find", "--system", "--no-project", "--", asked]
    try:
        return _run(find, directory, _environ(), errors=False).strip() or None
    except _Failed:
        return None


def _found_interpreters(directory: pathlib.Path) -> str:
    """The Pythons of this machine, for a person to choose from."""
    found: dict[str, str] = {}
    uv = _uv()
    if uv is not None:
        search = [uv, "python", "list", "--only-installed", "--output-format", "json"]
        with contextlib.suppress(_Failed, ValueError, KeyError, TypeError):
            for row in json.loads(_run(search, directory, _environ(), errors=False)):
                found.setdefault(row["version"], row["path"])
    found.setdefault(".".join(map(str, sys.version_info[:3])), sys.executable)
    return ", ".join(f"{version} ({path})" for version, path in found.items())


# Building


@contextlib.contextmanager
def rebuilt(wanted: Wanted, log: logging.Logger) -> Iterator[tuple[str, ...]]:
    """Make the environment anew; gives the names of the programs that came with it.

    It counts as complete when the ``with`` block has ended well.  Any exception, the
    block's own included, puts the environment back that was there before.
    """
    location = wanted.location
    waiting = _waiting(location)
    mend(location)
    with _writing(location):
        location.parent.mkdir(parents=True, exist_ok=True)
        if (location / MARKER).exists():
            location.rename(waiting)
        else:
            _remove(location)
    try:
        commands = _build(wanted, log)
        yield commands
        Record(wanted.digest(), wanted.interpreter, commands, {}).write(location)
    except BaseException:
        with _writing(location):
            _remove(location)
            if waiting.exists():
                waiting.rename(location)
        raise
    with _writing(waiting):
        _remove(waiting)


def mend(location: pathlib.Path) -> None:
    """Finish what a killed run began: keep its environment if complete, else the old one."""
    waiting = _waiting(location)
    if not os.path.lexists(waiting):
        return
    with _writing(location):
        if (location / MARKER).exists():
            _remove(waiting)
        else:
            _remove(location)
            waiting.rename(location)


def _waiting(location: pathlib.Path) -> pathlib.Path:
    """Where the old environment is while the new one is being made."""
    return location.with_name(f".{location.name}.before")


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        # first of all it stops being complete: this may be killed, too
        (path / MARKER).unlink(missing_ok=True)
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _build(wanted: Wanted, log: logging.Logger) -> tuple[str, ...]:
    python = wanted.interpreter
    try:
        # pip and setuptools stay outside: the installers work from outside, too
        make = ["-I", "-m", "venv", "--without-pip", str(wanted.location)]
        _run([python.executable, *make], wanted.directory, _environ())
    except _Failed as error:
        raise InstallError(
            f"{python.executable} can't make a virtual environment: {error.message()}",
            f"install its venv module (on Debian: apt install python3.{python.minor}-venv)",
        ) from error
    programs = wanted.location / "bin"
    own = set(os.listdir(programs))
    uv = None
    if wanted.installer == "uv":
        uv = _uv() or _completed_uv(wanted)
        if uv is None:
            log.warning("There is no uv here, neither installed nor on PATH: pip stands in.")
    if wanted.requirements or wanted.requirement_files or wanted.projects:
        with tempfile.TemporaryDirectory(prefix="eggcrate-") as scratch:
            _install(wanted, uv, pathlib.Path(scratch), log)
    site_packages = wanted.location / python.site_packages
    with _writing(wanted.location):
        (wanted.location / ".lock").unlink(missing_ok=True)  # uv's, writable for everybody
        for cache in site_packages.glob("*.dist-info/uv_cache.json"):
            _forget(cache)
    count = sum(1 for _ in site_packages.glob("*.dist-info"))
    log.info(
        "%d %s for Python %s, by %s.",
        count,
        "distribution" if count == 1 else "distributions",
        python.version,
        "pip" if uv is None else "uv",
    )
    return tuple(sorted(set(os.listdir(programs)) - own))


def _forget(cache: pathlib.Path) -> None:
    """Remove uv's note for itself: the times in it differ between equal environments."""
    record = cache.with_name("RECORD")
    entry = f"{cache.parent.name}/{cache.name},"
    lines = record.read_text("utf-8").splitlines(keepends=True)
    _replace(record, "".join(line for line in lines if not line.startswith(entry)))
    cache.unlink()


def _install(
    wanted: Wanted, uv: str | None, scratch: pathlib.Path, log: logging.Logger
) -> None:
    arguments = []
    if wanted.requirements:
        # in a file, as a direct URL may hold a password, and everybody sees arguments
        file = scratch / "requirements"
        file.write_text("\n".join(wanted.requirements) + "\n", "utf-8")
        arguments += ["-r", str(file)]
    for path in wanted.requirement_files:
        arguments += ["-r", str(path)]
    if wanted.pins:
        file = scratch / "versions"
        file.write_text("".join(f"{name}{spec}\n" for name, spec in wanted.pins), "utf-8")
        arguments += ["-c", str(file)]
    for path in wanted.constraint_files:
        arguments += ["-c", str(path)]
    for path in wanted.projects:
        arguments += ["-e", str(path)]
    python = str(wanted.location / "bin" / "python")
    if uv is not None:
        name = "uv"
        environ, switches = _uv_settings(wanted)
        command = [uv, "pip", "install", "--python", python, "--color", "never"]
        command += ["--no-progress", *switches, *arguments]
    else:
        name = "pip"
        environ = _pip_settings(wanted, scratch)
        command = [sys.executable, _pip(), "--python", python, "install", "--no-compile"]
        command += ["--no-input", "--no-color", "--progress-bar", "off"]
        command += ["--no-warn-script-location", "--disable-pip-version-check", *arguments]
    try:
        output = _run(command, wanted.directory, environ)
    except _Failed as error:
        log.debug("%s", error.output)
        raise _install_error(name, error, wanted) from error
    log.debug("%s", output)


def _install_error(name: str, error: _Failed, wanted: Wanted) -> InstallError:
    message = error.message()
    pinned = [
        project
        for project, spec in wanted.pins
        if re.search(rf"(?i)\b{_name_pattern(project)}\s*{re.escape(spec)}", message)
    ]
    if _UNREACHABLE.search(error.output):
        message = f"something could not be reached: {message}"
        hint = "check the network, and index and find-links"
    elif wanted.offline:
        hint = "unset offline, or add a directory of wheels to find-links"
    elif pinned:
        hint = f"compare with {', '.join(pinned)} in [versions], and change one of the two"
    else:
        hint = "mend the requirements; bin/buildout -v shows all that it printed"
    return InstallError(f"{name} can't install what is asked for: {message}", hint)


def _name_pattern(project: str) -> str:
    return "[-_.]+".join(re.escape(word) for word in re.split(r"[-_.]+", project))


_UNREACHABLE = re.compile(
    r"(?i)failed to fetch|error sending request|dns error|connection (?:refused|reset)"
    r"|connection broken|name resolution|max retries|timed out"
)


# The installers, and what they are told


def _uv() -> str | None:
    """The program of the ``uv`` distribution, or the one on PATH."""
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        return shutil.which("uv")


def _completed_uv(wanted: Wanted) -> str | None:
    """The program of a ``uv`` egg, put into it; None if there is none to be had.

    zc.buildout 5 and 6 make eggs without the programs of a wheel, and uv is nothing else.
    """
    try:
        import uv
    except ImportError:
        return None
    egg = pathlib.Path(uv.__file__).parent.parent
    if egg.suffix != ".egg" or wanted.offline:
        return None
    with tempfile.TemporaryDirectory(prefix="eggcrate-") as scratch:
        environ = _pip_settings(wanted, pathlib.Path(scratch))
        if "PIP_INDEX_URL" in environ:
            # for eggs, zc.buildout takes an index as one more
            more = _pip_configuration(environ).get("extra-index-url", "")
            environ["PIP_EXTRA_INDEX_URL"] = f"{environ.pop('PIP_INDEX_URL')} {more}"
        fetch = [sys.executable, _pip(), "install", "--target", scratch, "--no-deps"]
        fetch += ["--no-compile", "--only-binary", ":all:", "--disable-pip-version-check"]
        fetch += [f"uv=={importlib.metadata.version('uv')}"]
        try:
            _run(fetch, wanted.directory, environ)
            (egg / "bin").mkdir(exist_ok=True)
            program = egg / "bin" / f".uv-{os.getpid()}"
            shutil.copy(pathlib.Path(scratch, "bin", "uv"), program)
            program.replace(egg / "bin" / "uv")
        except (_Failed, OSError):
            return None
    return _uv()


def _pip() -> str:
    """The directory of the pip that zc.buildout uses; a Python can run it as a program."""
    spec = importlib.util.find_spec("pip")
    if spec is None or spec.origin is None:
        raise InstallError(
            f"there is no pip for {sys.executable}",
            "install pip there, or set installer = uv",
        )
    return str(pathlib.Path(spec.origin).parent)


def _environ() -> dict[str, str]:
    environ = {name: text for name, text in os.environ.items() if name not in _DISTURBING}
    if environ.get("UV_LINK_MODE") == "symlink":
        # an environment of links into a cache would be empty elsewhere
        del environ["UV_LINK_MODE"]
    environ["UV_PYTHON_DOWNLOADS"] = "never"
    # what is started now must not leave byte-code in the environment
    environ["PYTHONDONTWRITEBYTECODE"] = "1"
    environ["PYTHONUNBUFFERED"] = "1"  # keeps messages and errors in their order
    return environ


def _uv_settings(wanted: Wanted) -> tuple[dict[str, str], list[str]]:
    """Environment variables, and switches that have no variable."""
    environ = _environ()
    switches = []
    if not _uv_is_configured(environ, wanted.directory):
        # zc.buildout installs eggs with pip: who told pip where packages are expects that
        # it holds here too.
        pip = _pip_configuration(environ)
        if "index-url" in pip:
            environ["UV_DEFAULT_INDEX"] = pip["index-url"]
        if "extra-index-url" in pip:
            environ["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
            # pip's meaning of it; uv's own would hide releases behind a partial mirror
            environ.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
        if "find-links" in pip:
            links = [_as_url(link, wanted.directory) for link in pip["find-links"].split()]
            environ["UV_FIND_LINKS"] = _for_uv(filter(None, links))
        if "constraint" in pip:
            environ.setdefault("UV_CONSTRAINT", " ".join(pip["constraint"].split()))
        if "trusted-host" in pip:
            environ.setdefault("UV_INSECURE_HOST", " ".join(pip["trusted-host"].split()))
        if "cert" in pip:
            environ.setdefault("SSL_CERT_FILE", pip["cert"])
        if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
            switches.append("--no-index")
    if wanted.index:
        environ.pop("UV_INDEX_URL", None)  # the old name
        environ["UV_DEFAULT_INDEX"] = wanted.index
    if wanted.find_links:
        more = environ.get("UV_FIND_LINKS")
        environ["UV_FIND_LINKS"] = _for_uv(wanted.find_links) + (f",{more}" if more else "")
    if wanted.offline:
        switches.append("--offline")
    return environ, switches


def _for_uv(links: Iterator[str] | Sequence[str]) -> str:
    return ",".join(link.replace(",", "%2C") for link in links)


def _uv_is_configured(environ: Mapping[str, str], directory: pathlib.Path) -> bool:
    """Whether uv has been told by its own means where packages are."""
    names = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
    if any(environ.get(name) for name in (*names, "UV_FIND_LINKS", "UV_CONFIG_FILE")):
        return True
    system, user = _config_bases(environ)
    bases = [directory, *(base / "uv" for base in (*system, pathlib.Path("/etc"), user))]
    return any((base / "uv.toml").is_file() for base in bases)


def _config_bases(environ: Mapping[str, str]) -> tuple[list[pathlib.Path], pathlib.Path]:
    """Where configuration is: the system's places, the least important first; the user's."""
    system = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    user = environ.get("XDG_CONFIG_HOME") or pathlib.Path.home() / ".config"
    return [pathlib.Path(path) for path in reversed(system)], pathlib.Path(user)


def _pip_configuration(environ: Mapping[str, str]) -> dict[str, str]:
    """What pip would find in its files and variables (pip's "Configuration" page)."""
    system, user = _config_bases(environ)
    files = [base / "pip" / "pip.conf" for base in system]
    files += [pathlib.Path("/etc/pip.conf"), pathlib.Path.home() / ".pip" / "pip.conf"]
    files += [pathlib.Path.home() / "Library/Application Support/pip/pip.conf"]  # macOS
    files += [user / "pip" / "pip.conf", pathlib.Path(sys.prefix, "pip.conf")]
    named = environ.get("PIP_CONFIG_FILE")
    if named:
        files = [] if named == os.devnull else [*files, pathlib.Path(named)]
    parsers = []
    for file in files:
        parser = configparser.RawConfigParser()
        with contextlib.suppress(OSError, ValueError, configparser.Error):
            parser.read_string(file.read_text("utf-8"))
            parsers.append(parser)
    pairs = [
        pair
        for section in ("global", "install")
        for parser in parsers
        if parser.has_section(section)
        for pair in parser.items(section)
    ]
    pairs += [(name[4:], text) for name, text in environ.items() if name.startswith("PIP_")]
    # an empty value says nothing to pip
    return {name.lower().replace("_", "-"): text for name, text in pairs if text.strip()}


def _as_url(link: str, directory: pathlib.Path) -> str | None:
    """A URL without commas or blanks, for a path or a URL; None for a missing directory."""
    if "://" in link or link.startswith("file:"):
        return link
    path = directory / pathlib.Path(link).expanduser()
    return path.as_uri() if path.exists() else None


def _pip_settings(wanted: Wanted, scratch: pathlib.Path) -> dict[str, str]:
    environ = _environ()
    configured = _pip_configuration(environ).get("find-links", "").split()
    links = [*wanted.find_links, *configured]
    # pip gives its index on to pips of its own as an argument, which everybody can see; so
    # passwords travel in a file.
    secret = _Netrc(quotes=wanted.interpreter.minor >= 11)
    if wanted.offline:
        environ["PIP_NO_INDEX"] = "1"
        links = [link for link in links if not link.startswith(("http:", "https:"))]
    elif wanted.index:
        environ["PIP_INDEX_URL"] = secret.without_password(wanted.index)
    if links:
        environ["PIP_FIND_LINKS"] = " ".join(map(secret.without_password, links))
    if secret.entries:
        own = pathlib.Path(environ.get("NETRC") or pathlib.Path.home() / ".netrc")
        environ["NETRC"] = str(secret.write(scratch / "netrc", own))
    return environ


class _Netrc:
    """Passwords on their way to pip."""

    def __init__(self, quotes: bool) -> None:
        #: Python's reader of such files knows quotes since 3.11
        self.quotes = quotes
        self.entries: list[str] = []

    def without_password(self, url: str) -> str:
        """The URL without user and password, which are kept here."""
        parts = urllib.parse.urlsplit(url)
        if not parts.username:
            return url
        words = [
            urllib.parse.unquote(parts.username),
            urllib.parse.unquote(parts.password or ""),
        ]
        if self.quotes:
            words = ['"' + re.sub(r'(["\\])', r"\\\1", word) + '"' for word in words]
        elif not all(re.fullmatch(r'[^\s"\\]+', word) for word in words):
            return url  # this Python's netrc can't say it
        self.entries.append(f"machine {parts.hostname} login {words[0]} password {words[1]}\n")
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def write(self, path: pathlib.Path, own: pathlib.Path) -> pathlib.Path:
        """Write ``path``, for this user's eyes only: the entries of ``own``, and ours."""
        text = ""
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            netrc.netrc(own)  # one that can't be read would take ours with it
            text = own.read_text("utf-8") + "\n"
        path.touch(mode=0o600)
        path.write_text(text + "".join(self.entries), "utf-8")  # the last entry counts
        return path


# Running, and writing


class _Failed(Exception):
    """A program ended with an error; ``output`` is all that it printed, masked."""

    def __init__(self, output: str) -> None:
        super().__init__(output)
        self.output = output

    def message(self) -> str:
        """The error it ended with, in one line."""
        lines = self.output.splitlines()
        for number, line in enumerate(lines):
            if re.match(r"\s*(?:(?i:error): |\u00d7 )", line):
                lines = lines[number:]
                break
        words = " ".join(
            # without blanks and frames at its beginning
            re.sub(r"^[^!-~]*(?:(?i:error): )?", "", line)
            for line in lines
            if not line.startswith(("WARNING:", "[notice]", "Looking in "))
        ).split()
        text = " ".join(words).replace(" cause: ", ": ").rstrip(".") or "it says nothing"
        return text if len(text) <= 900 else f"{text[:300]} ... {text[-600:]}"


def _run(
    command: Sequence[str],
    directory: pathlib.Path,
    environ: Mapping[str, str],
    errors: bool = True,
    timeout: float | None = None,
) -> str:
    """What the program prints (without its errors, if they are not wanted)."""
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors else subprocess.DEVNULL,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except OSError as error:
        raise _Failed(f"error: {command[0]}: {error.strerror}") from error
    output = masked(done.stdout)
    if done.returncode:
        raise _Failed(output)
    return output


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InstallError(
            f"{path} can't be written: {error.strerror or error}",
            "free it: check the permissions and the space on the disk",
        ) from error


def _replace(path: pathlib.Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            os.fchmod(file.fileno(), 0o644)
        os.replace(name, path)
    except BaseException:
        pathlib.Path(name).unlink(missing_ok=True)
        raise
