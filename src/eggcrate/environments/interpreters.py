"""Which Python is meant, and which ones there are."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence

from eggcrate.environments import process
from eggcrate.errors import SettingsError

#: settings of whoever runs us that would send packages elsewhere, or change what is made
DISTURBING = (
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

#: what a Python prints when told this, is what we need to know about it
_QUERY = """\
import json, sys, sysconfig
scheme = "venv" if "venv" in sysconfig.get_scheme_names() else "posix_prefix"
purelib = sysconfig.get_path("purelib", scheme, {"base": "", "platbase": ""})
version = ".".join(str(number) for number in sys.version_info[:3])
print(json.dumps([sys.executable, version, purelib.lstrip("/")]))
"""

#: seconds in which a Python can tell its version
_SOON = 30


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

    @property
    def markers(self) -> dict[str, str]:
        """What requirements' markers ask of a Python, where it differs from ours."""
        short = ".".join(self.version.split(".")[:2])
        return {"python_version": short, "python_full_version": self.version}

    @property
    def is_running(self) -> bool:
        """Whether it is the Python that runs us."""
        return self.executable == sys.executable

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


def find_interpreter(asked: str, directory: pathlib.Path) -> Interpreter:
    """The Python that is meant by a path, a version like ``3.12`` or a name.

    A relative path counts from ``directory``.  The Python that runs us is asked nothing;
    others are started.  Raises a :class:`SettingsError` that names the ones there are.
    """
    try:
        if asked == sys.executable or _is_running(asked):
            executable, version, site_packages = _running()
        else:
            program = _program(asked, directory)
            query = [program, "-I", "-c", _QUERY]
            answer = process.run(query, directory, environ(), errors=False, timeout=_SOON)
            executable, version, site_packages = json.loads(answer)
        real = os.path.realpath(executable)
        status = os.stat(real)
    except (process.Failed, OSError, ValueError) as error:
        raise SettingsError(
            f"python: {asked} is no Python 3 that works",
            f"name one that does: {_found_interpreters(directory)}",
        ) from error
    return Interpreter(
        asked=asked,
        executable=executable,
        version=version,
        site_packages=site_packages,
        program=real,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
    )


def _is_running(version: str) -> bool:
    """Whether it is the version of the Python that runs us: ``3.12``, or ``3.12.1``."""
    numbers = version.split(".")
    return numbers == [str(number) for number in sys.version_info[: len(numbers)]]


def _running() -> tuple[str, str, str]:
    """What ``_QUERY`` asks of others."""
    scheme = "venv" if "venv" in sysconfig.get_scheme_names() else "posix_prefix"
    purelib = sysconfig.get_path("purelib", scheme, {"base": "", "platbase": ""})
    version = ".".join(map(str, sys.version_info[:3]))
    return sys.executable, version, purelib.lstrip("/")


def _program(asked: str, directory: pathlib.Path) -> str:
    if os.sep in asked:
        path = directory / pathlib.Path(asked).expanduser()
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
        raise SettingsError(
            f"python: {asked} is no program",
            f"name one that is there: {_found_interpreters(directory)}",
        )
    program = _discovered(asked, directory)
    if program is None:
        raise SettingsError(
            f"python: there is no Python {asked} on this machine",
            "install it, give the path of one, "
            f"or name one that is there: {_found_interpreters(directory)}",
        )
    return program


def _discovered(asked: str, directory: pathlib.Path) -> str | None:
    uv = uv_program()
    if uv is None:
        return next(_working((asked, f"python{asked}"), directory), None)
    find = [uv, "python", "find", "--system", "--no-project", "--", asked]
    try:
        return process.run(find, directory, _discovery(), errors=False).strip() or None
    except process.Failed:
        return None


def _found_interpreters(directory: pathlib.Path) -> str:
    """The Pythons of this machine, for a person to choose from."""
    found: dict[str, str] = {}
    uv = uv_program()
    if uv is not None:
        search = [uv, "python", "list", "--only-installed", "--output-format", "json"]
        with contextlib.suppress(process.Failed, ValueError, KeyError, TypeError):
            for row in json.loads(process.run(search, directory, _discovery(), errors=False)):
                found.setdefault(row["version"], row["path"])
    else:
        for minor in range(14, 9, -1):
            for program in _working([f"python3.{minor}"], directory):
                found.setdefault(f"3.{minor}", program)
    running = ".".join(map(str, sys.version_info[:3]))
    found.setdefault(running, sys.executable)
    return ", ".join(f"{version} ({path})" for version, path in found.items())


def _working(names: Sequence[str], directory: pathlib.Path) -> Iterator[str]:
    """Programs of one of these names that answer; those of version managers may refuse."""
    for place in _discovery()["PATH"].split(os.pathsep):
        for name in names:
            program = shutil.which(name, path=place)
            if program is None:
                continue
            with contextlib.suppress(process.Failed):
                query = [program, "-I", "-c", _QUERY]
                process.run(query, directory, environ(), errors=False, timeout=_SOON)
                yield program


def _discovery() -> dict[str, str]:
    """The environment for a search: behind PATH come the Pythons of version managers.

    They put only the chosen one on PATH, and have a directory for each version in one place.
    """
    found = environ()
    places = [*pathlib.Path(sys.base_prefix).parent.glob("*/bin")]
    if root := found.get("PYENV_ROOT"):
        places += pathlib.Path(root).glob("versions/*/bin")
    versions = {_version(place.parent.name): str(place) for place in places}
    versions.pop((), None)
    newest_first = [versions[version] for version in sorted(versions, reverse=True)]
    found["PATH"] = os.pathsep.join([found.get("PATH", os.defpath), *newest_first])
    return found


def _version(name: str) -> tuple[int, ...]:
    words = name.split(".")
    return tuple(map(int, words)) if all(word.isdecimal() for word in words) else ()


def uv_program() -> str | None:
    """The program of the ``uv`` distribution, or the one on PATH."""
    try:
        import uv

        return str(uv.find_uv_bin())
    except (ImportError, FileNotFoundError):
        return shutil.which("uv")


def environ(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment variables for an installer: ours, and ``more``."""
    found = {name: text for name, text in os.environ.items() if name not in DISTURBING}
    if found.get("UV_LINK_MODE") == "symlink":
        # an environment of links into a cache would be empty elsewhere
        del found["UV_LINK_MODE"]
    found["UV_PYTHON_DOWNLOADS"] = "never"
    # what is started now must not leave byte-code in the environment
    found["PYTHONDONTWRITEBYTECODE"] = "1"
    found["PYTHONUNBUFFERED"] = "1"  # keeps messages and errors in their order
    found.update(more or {})
    return found
