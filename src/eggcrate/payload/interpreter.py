"""The Python that the image runs: Debian's, or the one that runs buildout, packed."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import sysconfig
from collections.abc import Iterator, Mapping

from eggcrate.errors import PlanError
from eggcrate.image.plan import FileEntry, FileType, bytes_file, disk_file, symlink
from eggcrate.payload.libraries import MULTIARCH, Linker, read_binary
from eggcrate.payload.relocation import Relocation, Rule, is_text

GROUP = "python"
# where a packed interpreter lies in the image
PREFIX = "/usr/local"
# parts of the standard library that no service needs, and that only weigh
_LEFT_OUT = {
    "__pycache__",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "tkinter",
    "turtledemo",
}
_CONFIG = re.compile(r"config-\d")
_TK = re.compile(r"_tkinter\.|_test|_xxtestfuzz|xxlimited|_ctypes_test")


@dataclasses.dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python of an image: its version, and the absolute path of its program there."""

    version: tuple[int, int]
    program: str
    origin: str

    @property
    def cache_tag(self) -> str:
        """What the names of its byte-code files carry (PEP 3147)."""
        return f"cpython-{self.version[0]}{self.version[1]}"


def this_version() -> tuple[int, int]:
    """Major and minor version of the Python that runs buildout."""
    return sys.version_info[:2]


def debian_interpreter(version: tuple[int, int]) -> Interpreter:
    """Debian's Python of that version."""
    return Interpreter(version, f"/usr/bin/python{version[0]}.{version[1]}", "debian")


def host_interpreter() -> Interpreter:
    """The Python that runs buildout, as it lies in the image when it is packed."""
    version = this_version()
    return Interpreter(version, f"{PREFIX}/bin/python{version[0]}.{version[1]}", "host")


def host_rules(interpreter: Interpreter) -> Iterator[Rule]:
    """The programs of the Python that runs buildout, and what stands for them in the image."""
    major, minor = interpreter.version
    names = ("python", f"python{major}", f"python{major}.{minor}")
    for prefix in dict.fromkeys((sys.prefix, sys.base_prefix)):
        for name in names:
            yield Rule(f"{prefix}/bin/{name}", interpreter.program)
    yield Rule(sys.executable, interpreter.program)


def host_entries(tree: Mapping[str, FileEntry], architecture: str) -> list[FileEntry]:
    """The Python that runs buildout with its standard library, for an image with ``tree``.

    Shared libraries of this machine that no layer provides come with it, but never the C
    library: whether the image's own is new enough, :func:`check_libraries` tells.
    """
    base = pathlib.Path(sys.base_prefix)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    # the prefix is compiled into the interpreter and written into sysconfig's data
    relocation = (
        Relocation((Rule(os.fspath(base), PREFIX),)) if base != pathlib.Path("/usr") else None
    )
    program = pathlib.Path(os.path.realpath(sys.executable))
    entries = [
        _relocated(f"usr/local/bin/python{version}", program, relocation, "the interpreter"),
        symlink(
            "usr/local/bin/python3", f"python{version}", group=GROUP, reason="the interpreter"
        ),
    ]
    standard_library = pathlib.Path(sysconfig.get_path("stdlib"))
    for path in _walk(standard_library):
        target = f"usr/local/lib/python{version}/{path.relative_to(standard_library)}"
        entries.append(_relocated(target, path, relocation, "the standard library"))
    dynload = sysconfig.get_config_var("DESTSHARED")
    if dynload and not pathlib.Path(dynload).is_relative_to(standard_library):
        for path in _walk(pathlib.Path(dynload)):
            target = f"usr/local/lib/python{version}/lib-dynload/{path.name}"
            entries.append(_relocated(target, path, relocation, "the standard library"))
    entries.extend(_shared_libraries(entries, tree, architecture, relocation))
    return entries


def _walk(top: pathlib.Path) -> Iterator[pathlib.Path]:
    for root, directories, files in os.walk(top):
        directories[:] = sorted(
            name for name in directories if name not in _LEFT_OUT and not _CONFIG.match(name)
        )
        for name in sorted(files):
            path = pathlib.Path(root, name)
            if path.is_file() and not name.endswith((".pyc", ".a")) and not _TK.match(name):
                yield path


def _relocated(
    target: str, source: pathlib.Path, relocation: Relocation | None, reason: str
) -> FileEntry:
    data = source.read_bytes()
    mode = 0o755 if os.access(source, os.X_OK) else 0o644
    if relocation is not None and relocation.touches(data):
        data = relocation.text(data) if is_text(data) else _masked(data)
        return bytes_file(target, data, group=GROUP, reason=reason, mode=mode)
    return disk_file(target, source, group=GROUP, reason=reason, mode=mode, data=data)


def _masked(data: bytes) -> bytes:
    """A program of the interpreter without its compiled-in prefix, at its length.

    The prefix counts only where no standard library lies beside the program, so slashes
    may stand for it.  Its last component stays: a linker lets other strings, the version
    for instance, share the end of this one.
    """
    prefix = os.fsencode(sys.base_prefix)
    name = prefix.rpartition(b"/")[2]
    return data.replace(prefix, b"/" * (len(prefix) - len(name)) + name)


def _shared_libraries(
    entries: list[FileEntry],
    tree: Mapping[str, FileEntry],
    architecture: str,
    relocation: Relocation | None,
) -> Iterator[FileEntry]:
    """The libraries of this machine that the interpreter needs and the tree lacks."""
    merged = {**tree, **{entry.path: entry for entry in entries}}
    linker = Linker(merged, architecture)
    directory = f"usr/lib/{MULTIARCH.get(architecture, architecture)}"
    known = _machine_libraries()
    pending = [entry for entry in entries if ".so" in entry.path or "/bin/" in entry.path]
    taken: set[str] = set()
    while pending:
        entry = pending.pop()
        if entry.type is not FileType.REGULAR:
            continue
        with entry.open() as stream:
            binary = read_binary(stream)
        for library in binary.needed if binary else ():
            if library in taken or (binary and linker.find(library, binary, entry.path)):
                continue
            taken.add(library)
            source = known.get(library)
            if source is None:
                raise PlanError(
                    f"{library}, which the Python that runs buildout needs, was not found",
                    "run buildout with the Python of Debian's python3, and set python = debian",
                )
            found = _relocated(
                f"{directory}/{library}", source, relocation, f"needed by /{entry.path}"
            )
            yield found
            pending.append(found)


def _machine_libraries() -> dict[str, pathlib.Path]:
    """The shared libraries that this machine's linker knows, and the interpreter's own."""
    found: dict[str, pathlib.Path] = {}
    own = sysconfig.get_config_var("LIBDIR")
    if own and pathlib.Path(own).is_dir():
        for path in sorted(pathlib.Path(own).glob("libpython*.so*")):
            found[path.name] = path
    try:
        listing = subprocess.run(
            ["ldconfig", "-p"],
            env={**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return found
    for line in listing.splitlines():
        name, _, where = line.strip().partition(" => ")
        # the first entry of a name is the one for this machine's own architecture
        if where:
            found.setdefault(name.split(" ", 1)[0], pathlib.Path(where))
    return found
