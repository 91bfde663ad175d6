"""What the ELF files and wheels of an image need, and whether the image has it."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import posixpath
import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO

from eggcrate.errors import EggcrateError, PlanError, raise_all
from eggcrate.image.plan import BASE, FileEntry, FileType, printable, resolve
from eggcrate.payload.distributions import egg_name

if TYPE_CHECKING:
    from eggcrate.image.store import Store

# e_machine, whether 64 bits, whether little-endian (ELF specification): the architectures
# that Debian and Docker both build, and some that only files are built for
_MACHINES = {
    (62, True, True): "amd64",
    (183, True, True): "arm64",
    (3, False, True): "386",
    (40, False, True): "arm",
    (21, True, True): "ppc64le",
    (22, True, False): "s390x",
    (243, True, True): "riscv64",
    (258, True, True): "loong64",
    (8, True, True): "mips64le",
    (8, False, True): "mipsle",
    (21, True, False): "ppc64",
    (62, False, True): "x32",
}
# the part of a Debian path that names the architecture
MULTIARCH = {
    "amd64": "x86_64-linux-gnu",
    "arm64": "aarch64-linux-gnu",
    "386": "i386-linux-gnu",
    "arm": "arm-linux-gnueabihf",
    "ppc64le": "powerpc64le-linux-gnu",
    "s390x": "s390x-linux-gnu",
    "riscv64": "riscv64-linux-gnu",
}
# what wheels call them (PEP 425: the machine of os.uname())
_WHEEL_MACHINES = {
    "amd64": ("x86_64",),
    "arm64": ("aarch64",),
    "386": ("i386", "i586", "i686"),
    "arm": ("armv6l", "armv7l", "armv8l"),
}
_EXTENSION = re.compile(
    r"(?P<module>[^.]+)\.(?P<tag>cpython-\d+[a-z]*(?:-[\w-]+)?|abi3t?|pypy\d+[\w-]*)\.so"
)
# entries that apt has seen to, or whoever made the base image
_TRUSTED = ("packages", BASE)
_OTHER_PYTHON = "run buildout with the image's Python, or set python = host to pack this one"
_OTHER_PLATFORM = "build the egg for the image's platform, or list the file in exclude"
_OTHER_C_LIBRARY = "run buildout on a machine with the same C library, or list it in exclude"
_NEWER_BASE = "take a newer base, or build on a machine as old as the base"


# Reading ------------------------------------------------------------------------------

MAGIC = b"\x7fELF"
_EXEC, _DYN = 2, 3
_LOAD, _DYNAMIC, _INTERP = 1, 2, 3
NEEDED, STRTAB, STRSZ, SONAME, RPATH, RUNPATH = 1, 5, 10, 14, 15, 29
VERDEF, VERNEED = 0x6FFFFFFC, 0x6FFFFFFE
_WEAK = 2
# The file may say anything: how much of it is believed.  A version's index has 15 bits.
_MOST_TAGS = 1 << 14
_MOST_VERSIONS = 1 << 15
_LONGEST_STRING = 1 << 16
_MOST_TEXT = 1 << 22


def _unreadable(why: str) -> PlanError:
    return PlanError(
        f"an ELF file can't be read: {why}", "build it again, or list it in exclude"
    )


@dataclasses.dataclass(frozen=True, slots=True)
class Segment:
    """One program header: what kind, and where its bytes lie in the file and in memory."""

    type: int
    offset: int
    address: int
    size: int


class Elf:
    """The program headers and the dynamic section of an ELF file, as its loader sees them.

    Sections are left alone: most of what reads them slowly is of no use to a loader.  Only
    what is asked for is read, so that the file's size is of no account.  Whatever does not
    fit together is a PlanError.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.size = stream.seek(0, 2)
        ident = self.read(0, 16)
        if ident[:4] != MAGIC or ident[4] not in (1, 2) or ident[5] not in (1, 2):
            raise _unreadable("its first bytes are not those of one")
        self.wide = ident[4] == 2
        self._order = "<" if ident[5] == 1 else ">"
        (
            self.type, machine, _, _, first, self.sections_at, _, _,
            size, count, self.section_size, self.section_count, _,
        ) = self.unpack("HHIQQQIHHHHHH" if self.wide else "HHIIIIIHHHHHH", 16)  # fmt: skip
        self.machine = _MACHINES.get(
            (machine, self.wide, self._order == "<"), f"ELF machine {machine}"
        )
        self.segments = tuple(self._segments(first, size, count))
        self.tags = tuple(self._tags())
        self._text_left = _MOST_TEXT
        self._table: tuple[int, int] | None = None

    def read(self, offset: int, size: int) -> bytes:
        """So many bytes from that place of the file, and no less."""
        if offset + size > self.size:
            raise _unreadable("it ends too early")
        self._stream.seek(offset)
        data = self._stream.read(size)
        if len(data) != size:
            raise _unreadable("it ends too early")
        return data

    def unpack(self, layout: str, offset: int) -> tuple[Any, ...]:
        """The numbers at that place, in the file's byte order."""
        layout = self._order + layout
        return struct.unpack(layout, self.read(offset, struct.calcsize(layout)))

    def unpack_all(self, layout: str, offset: int, count: int) -> Iterator[tuple[Any, ...]]:
        """The numbers of ``count`` records that lie there one after another."""
        layout = self._order + layout
        return struct.iter_unpack(layout, self.read(offset, count * struct.calcsize(layout)))

    def _segments(self, first: int, size: int, count: int) -> Iterator[Segment]:
        layout = "IIQQQQQQ" if self.wide else "IIIIIIII"
        if count and size != struct.calcsize(f"={layout}"):
            raise _unreadable("its program headers have no known size")
        for values in self.unpack_all(layout, first, count):
            kind, offset, address, length = (
                (values[0], values[2], values[3], values[5])
                if self.wide
                else (values[0], values[1], values[2], values[4])
            )
            if kind == _LOAD and offset + length > self.size:
                raise _unreadable("it ends too early")
            yield Segment(kind, offset, address, length)

    def segment(self, kind: int) -> Segment | None:
        """The first segment of a kind."""
        return next((found for found in self.segments if found.type == kind), None)

    def _tags(self) -> Iterator[tuple[int, int]]:
        dynamic = self.segment(_DYNAMIC)
        if dynamic is None:
            return
        layout = "QQ" if self.wide else "II"
        count = dynamic.size // struct.calcsize(f"={layout}")
        if count > _MOST_TAGS:
            raise _unreadable("its dynamic section is too long")
        for tag, value in self.unpack_all(layout, dynamic.offset, count):
            if tag == 0:
                return
            yield tag, value

    def values(self, tag: int) -> list[int]:
        """What the dynamic section says under a tag, each time it does."""
        return [value for found, value in self.tags if found == tag]

    def sections(self) -> Iterator[tuple[int, int, int]]:
        """The type, address and size of each section; none where they were stripped."""
        layout = "IIQQQQIIQQ" if self.wide else "IIIIIIIIII"
        if self.section_size == struct.calcsize(f"={layout}"):
            for values in self.unpack_all(layout, self.sections_at, self.section_count):
                yield values[1], values[3], values[5]

    def place(self, address: int, size: int) -> int:
        """Where in the file the bytes lie that have an address in memory."""
        for segment in self.segments:
            inside = address - segment.address
            if segment.type == _LOAD and inside >= 0 and inside + size <= segment.size:
                return segment.offset + inside
        raise _unreadable("its dynamic section points outside of it")

    def strings(self) -> tuple[int, int]:
        """Where the dynamic string table lies in the file, and its size."""
        if self._table is None:
            tables, sizes = self.values(STRTAB), self.values(STRSZ)
            if not tables or not sizes:
                raise _unreadable("it has no string table")
            self._table = self.place(tables[-1], sizes[-1]), sizes[-1]
        return self._table

    def string(self, position: int) -> bytes:
        """The string at a position of the dynamic string table."""
        table, size = self.strings()
        text = b""
        limit = min(size - position, _LONGEST_STRING)
        while len(text) < limit:
            length = min(256 + len(text), limit - len(text))
            found, end, _ = self.read(table + position + len(text), length).partition(b"\0")
            text += found
            if end:
                self._text_left -= len(text)
                if self._text_left < 0:
                    raise _unreadable("it has too many names")
                return text
        raise _unreadable("a name in it has no end")

    def needed_versions(self) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Of each library the position of its name, and of its versions' names, with flags."""
        left = _MOST_VERSIONS
        for place in self._chain(VERNEED, "HHIII"):
            _, count, name, first, _ = self.unpack("HHIII", place)
            versions: list[tuple[int, int]] = []
            place += first
            for _ in range(count):
                _, flags, _, version, following = self.unpack("IHHII", place)
                versions.append((version, flags))
                left -= 1
                if left < 0:
                    raise _unreadable("it needs too many versions")
                if not following:
                    break
                place += following
            yield name, versions

    def defined_versions(self) -> Iterator[list[int]]:
        """Of each version that is defined the position of its name, and of those before it."""
        left = _MOST_VERSIONS
        for place in self._chain(VERDEF, "HHHHIII"):
            _, _, _, count, _, first, _ = self.unpack("HHHHIII", place)
            names: list[int] = []
            place += first
            for _ in range(count):
                name, following = self.unpack("II", place)
                names.append(name)
                left -= 1
                if left < 0:
                    raise _unreadable("it has too many versions")
                if not following:
                    break
                place += following
            yield names

    def _chain(self, tag: int, layout: str) -> Iterator[int]:
        """The places of the records of a table; each says how far the next one is."""
        for address in self.values(tag)[-1:]:
            place = self.place(address, struct.calcsize(f"={layout}"))
            for _ in range(_MOST_VERSIONS):
                following = self.unpack(layout, place)[-1]
                yield place
                if not following:
                    return
                place += following
            raise _unreadable("it has too many versions")


@dataclasses.dataclass(frozen=True, slots=True)
class Binary:
    """What an ELF file says of itself.

    ``versions`` are the symbol versions that it needs of each library, ``provides`` those
    that it defines; ``search`` is its RUNPATH, or its RPATH where it has no RUNPATH.  One
    that is linked statically needs nothing.
    """

    machine: str
    interpreter: str
    needed: tuple[str, ...]
    search: tuple[str, ...]
    soname: str
    versions: tuple[tuple[str, tuple[str, ...]], ...]
    provides: tuple[str, ...]


def read_binary(stream: BinaryIO) -> Binary | None:
    """What a program or shared object says of itself; None for anything else."""
    if stream.read(4) != MAGIC:
        return None
    elf = Elf(stream)
    if elf.type not in (_EXEC, _DYN):
        return None

    def text(position: int) -> str:
        return elf.string(position).decode("utf-8", "surrogateescape")

    interpreter = b""
    if segment := elf.segment(_INTERP):
        interpreter = elf.read(segment.offset, min(segment.size, _LONGEST_STRING))
    search = ":".join(map(text, elf.values(RUNPATH) or elf.values(RPATH)))
    return Binary(
        machine=elf.machine,
        interpreter=interpreter.partition(b"\0")[0].decode("utf-8", "surrogateescape"),
        needed=tuple(map(text, elf.values(NEEDED))),
        search=tuple(filter(None, search.split(":"))),
        soname="".join(map(text, elf.values(SONAME)[-1:])),
        versions=tuple(
            # the loader does without a weak one
            (
                text(name),
                tuple(text(version) for version, flags in versions if not flags & _WEAK),
            )
            for name, versions in elf.needed_versions()
        ),
        provides=tuple(text(names[0]) for names in elf.defined_versions() if names),
    )


def as_record(binary: Binary | None) -> list[Any]:
    """What :func:`read_binary` has found, as JSON can hold it."""
    return [] if binary is None else list(dataclasses.astuple(binary))


def from_record(record: Any) -> Binary | None:
    """What :func:`as_record` was given; a ValueError for what is no such record."""
    match record:
        case []:
            return None
        case [str(machine), str(interpreter), [*needed], [*search], str(soname), [*versions],
              [*provides]]:  # fmt: skip
            try:
                return Binary(
                    machine,
                    interpreter,
                    _texts(needed),
                    _texts(search),
                    soname,
                    tuple((_texts([name])[0], _texts(names)) for name, names in versions),
                    _texts(provides),
                )
            except TypeError as error:
                raise ValueError(f"not a record of an ELF file: {error}") from error
    raise ValueError("not a record of an ELF file")


def _texts(values: Iterable[Any]) -> tuple[str, ...]:
    texts = tuple(values)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name is no text")
    return texts


def may_be_binary(entry: FileEntry) -> bool:
    """Whether an entry is worth a look: one that can be run, or is named like a library."""
    return (
        entry.type is FileType.REGULAR
        and entry.size >= 52  # the smallest header
        and bool(entry.mode & 0o111 or ".so" in posixpath.basename(entry.path))
    )


def read_all(entries: Iterable[FileEntry]) -> dict[str, Binary | None]:
    """What files of a base that may be programs or libraries say of themselves, by digest."""
    found: dict[str, Binary | None] = {}
    for entry in entries:
        if may_be_binary(entry) and entry.digest not in found:
            # a package's odd file, a test's for instance, is nobody's mistake
            with contextlib.suppress(PlanError), entry.open() as stream:
                found[entry.digest] = read_binary(stream)
    return found


def binaries(
    tree: Mapping[str, FileEntry],
    store: Store | None = None,
    known: Mapping[str, Binary | None] | None = None,
) -> dict[str, tuple[FileEntry, Binary]]:
    """The ELF files of a tree with what they say of themselves, by path.

    ``known`` is what has been read before, by digest (hexadecimal); such files are not read.
    """
    found, errors = _binaries(tree, store, known)
    raise_all(errors)
    return found


_Found = dict[str, tuple[FileEntry, Binary]]


def _binaries(
    tree: Mapping[str, FileEntry],
    store: Store | None,
    known: Mapping[str, Binary | None] | None,
) -> tuple[_Found, list[EggcrateError]]:
    found: _Found = {}
    errors: list[EggcrateError] = []
    for path, entry in tree.items():
        if not may_be_binary(entry):
            continue
        try:
            binary = _remembered(entry, store, known or {})
        except PlanError as error:
            if entry.group not in _TRUSTED:
                errors.append(error)
            continue
        if binary is not None:
            found[path] = (entry, binary)
    return found, errors


def _remembered(
    entry: FileEntry, store: Store | None, known: Mapping[str, Binary | None]
) -> Binary | None:
    """What the file says of itself, as it was read when it was first seen."""
    if entry.digest in known:
        return known[entry.digest]
    if store and (record := store.recall("binaries", entry.digest)) is not None:
        try:
            return from_record(record.get("binary"))
        except ValueError:
            pass  # damaged, and made anew
    try:
        with entry.open() as stream:
            binary = read_binary(stream)
    except PlanError as error:
        raise PlanError(f"/{printable(entry.path)}: {error.what}", error.hint) from error
    except OSError as error:
        raise PlanError(
            f"/{printable(entry.path)} can't be read: {error.strerror or error}",
            "let this user read it, or list it in exclude",
        ) from error
    if store:
        store.remember("binaries", entry.digest, {"binary": as_record(binary)})
    return binary


# Finding ------------------------------------------------------------------------------


_VARIABLE = re.compile(r"\$(?:\{(ORIGIN|LIB)\}|(ORIGIN|LIB)(?!\w))")


class Linker:
    """Finds libraries in a tree as the dynamic linker of the image would (ld.so(8)).

    Without a cache of its own, ld.so looks at a file's RUNPATH and into its built-in
    directories.  Libraries that an application loads before (the ``.libs`` of some wheels)
    count as found wherever they lie.
    """

    def __init__(self, tree: Mapping[str, FileEntry], architecture: str) -> None:
        self._tree = tree
        self._multiarch = MULTIARCH.get(architecture, architecture)
        places = (f"lib/{self._multiarch}", f"usr/lib/{self._multiarch}", "lib", "usr/lib")
        self._directories = (*places, "lib64", "usr/lib64")
        self._installed: dict[str, str | None] = {}
        self._names: dict[str, list[str]] = collections.defaultdict(list)
        for path, entry in tree.items():
            name = posixpath.basename(path)
            if ".so" in name and entry.type is not FileType.DIRECTORY:
                self._names[name].append(path)

    def find(self, library: str, binary: Binary, path: str) -> str | None:
        """The path of ``library`` for the file at ``path``; None when it is not there."""
        origin = f"/{posixpath.dirname(path)}"
        if "/" in library:
            return self.file(posixpath.join(origin, self._expanded(library, origin)))
        for directory in binary.search:
            found = self.file(f"{self._expanded(directory, origin)}/{library}")
            if found is not None:
                return found
        found = self.installed(library)
        if found is not None:
            return found
        # somewhere else in the image: the application loads it itself, most likely its own
        near = sorted(
            self._names.get(library, ()), key=lambda other: (-_shared(other, path), other)
        )
        return next(filter(None, map(self.file, near)), None)

    def _expanded(self, text: str, origin: str) -> str:
        """A text of RUNPATH with what stands for its variables."""
        if "$" not in text:
            return text
        values = {"ORIGIN": origin, "LIB": f"lib/{self._multiarch}"}
        return _VARIABLE.sub(lambda match: values[match[1] or match[2]], text)

    def installed(self, library: str) -> str | None:
        """The path of the library that every file finds, or None."""
        if library not in self._installed:
            places = (self.file(f"{place}/{library}") for place in self._directories)
            self._installed[library] = next(filter(None, places), None)
        return self._installed[library]

    def file(self, path: str) -> str | None:
        """Where the file at a path really lies, links followed; None when there is none."""
        found = resolve(path, self._tree, last=True)
        entry = self._tree.get(found)
        if entry is None or entry.type in (FileType.DIRECTORY, FileType.SYMLINK):
            return None
        return entry.linkname if entry.type is FileType.HARDLINK else found

    def exists(self, path: str) -> bool:
        """Whether an absolute path is a file of the tree, links followed."""
        return self.file(path) is not None


def _shared(one: str, other: str) -> int:
    return len(posixpath.commonprefix([one, other]).rpartition("/")[0])


@dataclasses.dataclass(frozen=True, slots=True)
class CLibrary:
    """The C library of an image: ``glibc`` or ``musl``, and its version where that is known."""

    name: str
    version: tuple[int, int] | None = None


_C_LIBRARIES = {"glibc": "the GNU C library", "musl": "musl"}
_GLIBC_VERSION = re.compile(r"GLIBC_(\d{1,3})\.(\d{1,3})")


def c_library(
    tree: Mapping[str, FileEntry],
    *,
    architecture: str,
    store: Store | None = None,
    known: Mapping[str, Binary | None] | None = None,
) -> CLibrary | None:
    """The C library that the files of a tree find; None when it has none.

    That of GNU has the version of its newest symbols.
    """
    return _c_library(tree, Linker(tree, architecture), store, known or {})


def _c_library(
    tree: Mapping[str, FileEntry],
    linker: Linker,
    store: Store | None,
    known: Mapping[str, Binary | None],
) -> CLibrary | None:
    path = linker.installed("libc.so.6")
    if path is None:
        musl = any(re.fullmatch(r"(usr/)?lib/ld-musl-[^/]+\.so\.1", path) for path in tree)
        return CLibrary("musl") if musl else None
    versions: list[tuple[int, int]] = []
    # not each release has something new in libc itself
    for path in filter(None, map(linker.installed, ("libc.so.6", "libm.so.6"))):
        try:
            binary = _remembered(tree[path], store, known)
        except PlanError:
            continue
        for match in map(_GLIBC_VERSION.fullmatch, binary.provides if binary else ()):
            if match:
                versions.append((int(match[1]), int(match[2])))
    return CLibrary("glibc", max(versions, default=None))


def _built_for(binary: Binary) -> str:
    """The C library that a file was linked with, by the names that it needs."""
    names = (*binary.needed, posixpath.basename(binary.interpreter))
    if any(name.startswith(("libc.musl-", "ld-musl-")) or name == "libc.so" for name in names):
        return "musl"
    if any(name.startswith(("libc.so.6", "ld-linux", "ld64.so")) for name in names):
        return "glibc"
    return ""


# Checking -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Lacks:
    """What files lack, each thing with the paths of those that lack it."""

    machines: dict[str, list[str]]
    c_libraries: dict[tuple[str, str], list[str]]
    loaders: dict[str, list[str]]
    versions: dict[tuple[str, tuple[str, ...]], list[str]]
    libraries: dict[str, list[str]]


def _lacks(
    tree: Mapping[str, FileEntry],
    found: _Found,
    architecture: str,
    store: Store | None,
    known: Mapping[str, Binary | None],
) -> _Lacks:
    linker = Linker(tree, architecture)
    libc = _c_library(tree, linker, store, known)
    lacks = _Lacks({}, {}, {}, {}, {})
    for path, (entry, binary) in found.items():
        if entry.group in _TRUSTED:
            continue
        if binary.machine != architecture:
            lacks.machines.setdefault(binary.machine, []).append(path)
            continue
        places = {name: linker.find(name, binary, path) for name in binary.needed}
        lost = bool(binary.interpreter) and not linker.exists(binary.interpreter)
        built_for = _built_for(binary)
        if libc and built_for not in ("", libc.name) and (lost or None in places.values()):
            # whatever else it lacks is that of another system
            lacks.c_libraries.setdefault((built_for, libc.name), []).append(path)
            continue
        if lost:
            lacks.loaders.setdefault(binary.interpreter, []).append(path)
        needs = dict(binary.versions)
        for library, where in places.items():
            if where is None:
                lacks.libraries.setdefault(library, []).append(path)
            elif where in found and needs.get(library) and found[where][1].provides:
                older = set(needs[library]) - set(found[where][1].provides)
                if older:
                    key = (library, tuple(sorted(older, key=_natural)))
                    lacks.versions.setdefault(key, []).append(path)
    return lacks


def _natural(text: str) -> list[tuple[int, str]]:
    """A key with which 2.4 comes before 2.38."""
    return [(len(part) if part.isdecimal() else 0, part) for part in re.split(r"(\d+)", text)]


def _first(names: Sequence[str]) -> str:
    """The first of some names, and how many there are more."""
    return printable(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _many(names: Sequence[str], one: str, more: str) -> str:
    return one if len(names) == 1 else more


def check_libraries(
    tree: Mapping[str, FileEntry],
    *,
    architecture: str,
    package_for: Callable[[str], str | None] | None,
    store: Store | None = None,
    known: Mapping[str, Binary | None] | None = None,
) -> list[EggcrateError]:
    """What the ELF files of the tree lack: libraries, symbol versions, their loader.

    Files that lack the same share an error, which names the first of them.  ``package_for``
    names the package that provides a library, for the hint; it is None where nothing can be
    added to the base.  Files of the distribution's own packages are taken on trust: apt has
    resolved what they need.
    """
    found, errors = _binaries(tree, store, known)
    errors.extend(_no_modules(tree, found))
    lacks = _lacks(tree, found, architecture, store, known or {})
    for machine, users in sorted(lacks.machines.items()):
        errors.append(
            PlanError(
                f"/{_first(users)} {_many(users, 'is', 'are')} built for {machine}, and the "
                f"image for {architecture}",
                _OTHER_PLATFORM,
            )
        )
    for (theirs, ours), users in sorted(lacks.c_libraries.items()):
        errors.append(_other_c_library(f"/{_first(users)}", users, theirs, ours))
    for loader, users in sorted(lacks.loaders.items()):
        errors.append(
            PlanError(
                f"/{_first(users)} {_many(users, 'needs', 'need')} the loader "
                f"{printable(loader)}, which is not in the image",
                "take a base with the same C library, or list the file in exclude",
            )
        )
    for (library, versions), users in sorted(lacks.versions.items()):
        errors.append(
            PlanError(
                f"/{_first(users)} {_many(users, 'needs', 'need')} "
                f"{printable(', '.join(versions))} of {printable(library)}, and the one in "
                "the image is older",
                _NEWER_BASE,
            )
        )
    for library, users in sorted(lacks.libraries.items()):
        package = package_for(library) if package_for else None
        errors.append(
            PlanError(
                f"/{_first(users)} {_many(users, 'needs', 'need')} the library "
                f"{printable(library)}, which no layer provides",
                f"add {package} to os-packages"
                if package
                else "take a base that has it, or list the file in exclude"
                if package_for is None
                else "add the package that provides it to os-packages, or list the file in "
                "exclude",
            )
        )
    return errors


def _other_c_library(who: str, names: Sequence[str], theirs: str, ours: str) -> EggcrateError:
    return PlanError(
        f"{who} {_many(names, 'is', 'are')} built for {_C_LIBRARIES[theirs]}, and the image "
        f"has {_C_LIBRARIES[ours]}",
        _OTHER_C_LIBRARY,
    )


def _no_modules(tree: Mapping[str, FileEntry], found: _Found) -> Iterator[EggcrateError]:
    """Files with the name of an extension module that no Python of Linux can load."""
    for path, entry in tree.items():
        if (
            path in found
            or entry.type is not FileType.REGULAR
            or entry.group in _TRUSTED
            or not path.endswith(".so")
            or not _EXTENSION.fullmatch(posixpath.basename(path))
        ):
            continue
        try:
            with entry.open() as stream:
                start = stream.read(4)
        except OSError:
            continue  # it has been complained about
        if start != MAGIC:
            yield PlanError(
                f"/{printable(path)} has the name of an extension module, and is none",
                "install or check out the real file, or list it in exclude",
            )


def missing_packages(
    tree: Mapping[str, FileEntry],
    *,
    architecture: str,
    package_for: Callable[[str], str | None] | None,
    store: Store | None = None,
    known: Mapping[str, Binary | None] | None = None,
) -> tuple[str, ...]:
    """The packages that provide the libraries which the tree lacks, as far as they are known.

    With them in the tree there may be more; when all of them are in, what is still missing
    is for :func:`check_libraries` to say.
    """
    if package_for is None:
        return ()
    found, _ = _binaries(tree, store, known)
    lacks = _lacks(tree, found, architecture, store, known or {})
    return tuple(sorted({*filter(None, map(package_for, sorted(lacks.libraries)))}))


def check_extension_modules(
    entries: Iterable[FileEntry], *, version: tuple[int, int], abiflags: str = ""
) -> list[EggcrateError]:
    """The extension modules that the image's Python, ``version``, can't load.

    A module that comes for several Pythons is fine when one of them is the image's.
    ``abiflags`` are those of ``sys``: ``t`` for a free-threaded Python.
    """
    fitting = re.compile(rf"cpython-{version[0]}{version[1]}{re.escape(abiflags)}(?!\w).*")
    stable = "abi3t" if "t" in abiflags else "abi3"
    names: dict[tuple[str, str], list[tuple[str, FileEntry]]] = {}
    plain: set[tuple[str, str]] = set()
    for entry in entries:
        directory, _, name = entry.path.rpartition("/")
        match = _EXTENSION.fullmatch(name)
        if match:
            key = (directory, match["module"])
            names.setdefault(key, []).append((match["tag"], entry))
        elif name.endswith((".py", ".so")):
            plain.add((directory, name.rpartition(".")[0]))
    others: dict[str, list[str]] = {}
    for key, candidates in names.items():
        if key in plain or any(tag == stable or fitting.match(tag) for tag, _ in candidates):
            continue
        tag, entry = candidates[0]
        others.setdefault(tag, []).append(entry.path)
    return [
        PlanError(
            f"/{_first(paths)} {_many(paths, 'is', 'are')} built for {tag}, and the image's "
            f"Python is {version[0]}.{version[1]}{abiflags}",
            _OTHER_PYTHON,
        )
        for tag, paths in sorted(others.items())
    ]


# What env(1) takes before the program that it runs
_ENV_WORD = re.compile(r"-S|--split-string|-|-i|[A-Za-z_]\w*=.*")
_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def check_interpreters(
    entries: Sequence[tuple[FileEntry, bytes]],
    tree: Mapping[str, FileEntry],
    *,
    search: Sequence[str] = _PATH,
) -> list[EggcrateError]:
    """The scripts whose ``#!`` line names a program that is not in the image.

    Each script comes with its first line.  ``search`` is the image's PATH, for env(1).
    """
    lost: dict[str, list[str]] = {}
    for entry, line in entries:
        words = [word.decode("utf-8", "backslashreplace") for word in line[2:].split()]
        if not words:
            continue
        program = words[0]
        if resolve(program, tree, last=True) not in tree:
            lost.setdefault(program, []).append(entry.path)
        elif posixpath.basename(program) == "env":
            program = next((word for word in words[1:] if not _ENV_WORD.fullmatch(word)), "-")
            if program == "python":
                # any of them: so say scripts that are run by a Python of one's choice,
                # Django's manage.py for one
                program = "python3"
            places = search if "/" not in program else ("",)
            if not program.startswith("-") and not any(
                resolve(f"{place}/{program}", tree, last=True) in tree for place in places
            ):
                lost.setdefault(program, []).append(entry.path)
    return [
        PlanError(
            f"/{_first(paths)} {_many(paths, 'is', 'are')} run by {printable(program)}, which "
            "is not in the image",
            "add the package that has it to os-packages, or list the script in exclude",
        )
        for program, paths in lost.items()
    ]


# Wheels -------------------------------------------------------------------------------

_PLATFORM = re.compile(
    r"(?:manylinux(?:(?P<old>1|2010|2014)|_(?P<major>\d{1,3})_(?P<minor>\d{1,3}))"
    r"|(?P<musl>musllinux)_\d+_\d+|linux)_(?P<machine>\w+)",
    re.ASCII,
)
# PEP 600: the versions of glibc behind the older names
_OLD_MANYLINUX = {"1": (2, 5), "2010": (2, 12), "2014": (2, 17)}
_MOST_TAG_TEXT = 1 << 16
# how near a tag comes to what the image is
_PYTHON, _MACHINE, _FAMILY, _VERSION, _FITS = range(5)


def check_wheel_tags(
    entries: Iterable[FileEntry],
    *,
    version: tuple[int, int],
    architecture: str,
    libc: CLibrary | None,
    abiflags: str = "",
) -> list[EggcrateError]:
    """The distributions that were built for another Python or platform than the image's.

    What they were built for is said in the WHEEL file of their metadata (PyPA: binary
    distribution format), whatever the name of their egg is.  A distribution with several
    tags fits when one of them does, and one without is not judged.  Distributions with the
    same fault share an error.
    """
    faults: dict[tuple[int, str], list[str]] = {}
    pythons: frozenset[tuple[str, str]] = frozenset()
    for entry in entries:
        directory, _, name = entry.path.rpartition("/")
        if (
            name != "WHEEL"
            or not directory.endswith((".dist-info", "/EGG-INFO"))
            or entry.type is not FileType.REGULAR
            or entry.group in _TRUSTED
        ):
            continue
        tags = _wheel_tags(entry)
        if not tags or ("py3", "none", "any") in tags:
            continue
        pythons = pythons or _pythons(version, abiflags)
        nearest = [_nearness(tag, pythons, architecture, libc) for tag in tags]
        near = max(fit for fit, _ in nearest)
        if near != _FITS:
            fault = min((what for fit, what in nearest if fit == near), key=_natural)
            faults.setdefault((near, fault), []).append(_distribution(entry, directory))
    return [
        _wheel_error(fit, what, names, version, abiflags, architecture, libc)
        for (fit, what), names in sorted(faults.items())
    ]


def _wheel_tags(entry: FileEntry) -> set[tuple[str, str, str]]:
    """The tags of a WHEEL file, compressed sets expanded (PEP 425)."""
    try:
        with entry.open() as stream:
            text = stream.read(_MOST_TAG_TEXT).decode("utf-8", "replace")
    except OSError as error:
        raise PlanError(
            f"/{printable(entry.path)} can't be read: {error.strerror or error}",
            "let this user read it, or list it in exclude",
        ) from error
    tags: set[tuple[str, str, str]] = set()
    for line in text.lower().splitlines():
        name, _, value = line.partition(":")
        parts = value.strip().split("-")
        if name == "tag" and len(parts) == 3 and all(parts) and len(value) < 500:
            tags.update(
                (interpreter, abi, platform)
                for interpreter in parts[0].split(".")
                for abi in parts[1].split(".")
                for platform in parts[2].split(".")
            )
    return tags


def machines_of_wheels(architecture: str) -> tuple[str, ...]:
    """What the platform tags of wheels call an architecture of OCI's."""
    return _WHEEL_MACHINES.get(architecture, (architecture,))


def _pythons(version: tuple[int, int], abiflags: str) -> frozenset[tuple[str, str]]:
    """The interpreters and ABIs of wheels that a Python of this version takes."""
    from packaging.tags import compatible_tags, cpython_tags

    name = f"cp{version[0]}{version[1]}"
    # platforms are looked at elsewhere; without one, packaging would take this machine's
    tags = [
        *cpython_tags(version, [name + abiflags], ["any"]),
        *compatible_tags(version, name, ["any"]),
    ]
    return frozenset((tag.interpreter, tag.abi) for tag in tags)


def _nearness(
    tag: tuple[str, str, str],
    pythons: frozenset[tuple[str, str]],
    architecture: str,
    libc: CLibrary | None,
) -> tuple[int, str]:
    """How near a tag comes to fitting, and what in it does not."""
    interpreter, abi, platform = tag
    if (interpreter, abi) not in pythons:
        return _PYTHON, f"{interpreter}-{abi}"
    if platform == "any":
        return _FITS, ""
    match = _PLATFORM.fullmatch(platform)
    machines = machines_of_wheels(architecture)
    if match is None or match["machine"] not in machines:
        return _MACHINE, match["machine"] if match else platform
    if libc is None or platform.startswith("linux"):
        return _FITS, ""
    family = "musl" if match["musl"] else "glibc"
    if family != libc.name:
        return _FAMILY, family
    if family == "musl":
        return _FITS, ""
    needed = _OLD_MANYLINUX.get(match["old"] or "") or (
        int(match["major"]),
        int(match["minor"]),
    )
    if libc.version and needed > libc.version:
        return _VERSION, f"{needed[0]}.{needed[1]}"
    return _FITS, ""


def _distribution(entry: FileEntry, directory: str) -> str:
    """A distribution's name and version, and what it belongs to if that is no egg."""
    if entry.group.startswith("egg "):
        return entry.group.removeprefix("egg ")
    path = directory.removesuffix("/EGG-INFO").removesuffix(".dist-info")
    return f"{egg_name(posixpath.basename(path))} ({entry.group})"


def _wheel_error(
    fit: int,
    what: str,
    names: Sequence[str],
    version: tuple[int, int],
    abiflags: str,
    architecture: str,
    libc: CLibrary | None,
) -> EggcrateError:
    who = _first(sorted(names))
    if fit == _PYTHON:
        return PlanError(
            f"{who} {_many(names, 'is', 'are')} built for {what}, and the image's Python is "
            f"{version[0]}.{version[1]}{abiflags}",
            _OTHER_PYTHON,
        )
    if fit == _MACHINE:
        return PlanError(
            f"{who} {_many(names, 'is', 'are')} built for {what}, and the image for "
            f"linux/{architecture}",
            "run buildout on a machine of the image's platform",
        )
    assert libc is not None, what
    if fit == _FAMILY:
        return _other_c_library(who, names, what, libc.name)
    assert libc.version is not None, what
    return PlanError(
        f"{who} {_many(names, 'needs', 'need')} glibc {what}, and the image has "
        f"{libc.version[0]}.{libc.version[1]}",
        _NEWER_BASE,
    )
