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
from eggcrate.image.plan import FileEntry, FileType, bytes_file, symlink
from eggcrate.payload.files import Files
from eggcrate.payload.libraries import MULTIARCH, Linker, c_library, read_binary
from eggcrate.payload.relocation import Relocation, Rule

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
# what of the C library programs may want that this Python does not need
_C_LIBRARY = (
    *("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "libutil.so.1"),
    *("libresolv.so.2", "libnss_dns.so.2", "libnss_files.so.2", "libgcc_s.so.1"),
)
_LOCALE = "/usr/lib/locale/C.utf8"
_TK = re.compile(r"_tkinter\.|_test|_xxtestfuzz|xxlimited|_ctypes_test")


@dataclasses.dataclass(frozen=True, slots=True)
class Interpreter:
    """The Python of an image: its version, and the absolute path of its program there."""

    version: tuple[int, int]
    program: str
    origin: str

    @property
    def abiflags(self) -> str:
        """Those of ``sys``; Debian's have none."""
        return sys.abiflags if self.origin == "host" else ""

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


def host_relocation() -> Relocation:
    """What becomes of the prefix of the Python that runs buildout when it is packed.

    It is compiled into the interpreter, and written into sysconfig's data.
    """
    base = sys.base_prefix
    return Relocation((Rule(base, PREFIX),) if base != "/usr" else ())


def host_entries(
    tree: Mapping[str, FileEntry], architecture: str, files: Files | None = None
) -> list[FileEntry]:
    """The Python that runs buildout with its standard library, for an image with ``tree``.

    Shared libraries of this machine that no layer provides come with it, but the C library
    only where the tree has none: whether the image's own is new enough,
    :func:`check_libraries` tells.  ``files``
    has what is known of the files here, by :func:`host_relocation`.
    """
    files = files or Files(host_relocation())
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    program = os.path.realpath(sys.executable)
    entries = [
        _entry(f"usr/local/bin/python{version}", program, files, "the interpreter"),
        symlink(
            "usr/local/bin/python3", f"python{version}", group=GROUP, reason="the interpreter"
        ),
    ]
    standard_library = sysconfig.get_path("stdlib")
    library = f"usr/local/lib/python{version}"
    for path in _walk(standard_library, files):
        target = f"{library}/{os.path.relpath(path, standard_library)}"
        entries.append(_entry(target, path, files, "the standard library"))
    dynload = sysconfig.get_config_var("DESTSHARED")
    if dynload and not pathlib.Path(dynload).is_relative_to(standard_library):
        for path in _walk(dynload, files):
            target = f"{library}/lib-dynload/{os.path.basename(path)}"
            entries.append(_entry(target, path, files, "the standard library"))
    entries.extend(_shared_libraries(entries, tree, architecture, files))
    return entries


def _walk(top: str, files: Files) -> Iterator[str]:
    """The files of a library directory that a service may need."""
    for child in files.children(top, os.stat(top)):
        if child.is_dir(follow_symlinks=False):
            if child.name not in _LEFT_OUT and not _CONFIG.match(child.name):
                yield from _walk(child.path, files)
        elif child.is_file() and not (
            child.name.endswith((".pyc", ".a")) or _TK.match(child.name)
        ):
            yield child.path


def _entry(target: str, source: str, files: Files, reason: str) -> FileEntry:
    status = os.stat(source)
    mode = 0o755 if os.access(source, os.X_OK) else 0o644
    facts = files.facts(source, status, secrets=False)
    if facts.touched:
        data = pathlib.Path(source).read_bytes()
        data = _relocated(data) if facts.text else _masked(data)
        return bytes_file(target, data, group=GROUP, reason=reason, mode=mode)
    return FileEntry(
        target,
        FileType.REGULAR,
        mode,
        GROUP,
        reason,
        source=source,
        size=facts.size,
        digest=facts.digest,
    )


def _relocated(data: bytes) -> bytes:
    """A text of the interpreter with the prefix that it has in the image.

    For WebAssembly, sysconfig has the prefix as a relative path, too.
    """
    relative = re.compile(
        rb"(?<=['\"]\.)" + re.escape(os.fsencode(sys.base_prefix)) + rb"(?=['\"/])"
    )
    return relative.sub(os.fsencode(PREFIX), host_relocation().text(data))


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
    files: Files,
) -> Iterator[FileEntry]:
    """The libraries of this machine that the interpreter needs and the tree lacks."""
    merged = {**tree, **{entry.path: entry for entry in entries}}
    linker = Linker(merged, architecture)
    directory = f"usr/lib/{MULTIARCH.get(architecture, architecture)}"
    known = _machine_libraries()
    pending = [entry for entry in entries if ".so" in entry.path or "/bin/" in entry.path]
    taken: set[str] = set()
    loaders: set[str] = set()
    # an image of nothing but this Python has no C library, nor what loads it
    bare = c_library(tree, architecture=architecture) is None
    for library in _C_LIBRARY if bare else ():
        if library in known:
            taken.add(library)
            place = f"{directory}/{library}"
            yield _entry(place, os.fspath(known[library]), files, "the C library")
    if bare and os.path.isdir(_LOCALE):
        for path in _walk(_LOCALE, files):
            yield _entry(path.strip("/"), path, files, "the C library's locale")
    while pending:
        entry = pending.pop()
        if entry.type is not FileType.REGULAR:
            continue
        with entry.open() as stream:
            binary = read_binary(stream)
        loader = binary.interpreter if binary and bare else ""
        if loader and loader not in loaders and not linker.exists(loader):
            loaders.add(loader)
            if os.path.isfile(loader):
                real = os.path.realpath(loader)
                yield _entry(loader.strip("/"), real, files, f"loads /{entry.path}")
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
            found = _entry(
                f"{directory}/{library}",
                os.fspath(source),
                files,
                f"needed by /{entry.path}",
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
