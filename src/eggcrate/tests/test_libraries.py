"""What ELF files and wheels need, and whether the image has it; pyelftools reads along."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import pathlib
import platform
import random
import struct
import sys
import tempfile
import unittest
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from eggcrate.errors import EggcrateError, PlanError
from eggcrate.image.plan import (
    FileEntry,
    FileType,
    bytes_file,
    directory,
    disk_file,
    merge,
    symlink,
)
from eggcrate.image.store import Store
from eggcrate.payload.libraries import (
    MULTIARCH,
    Binary,
    CLibrary,
    Linker,
    as_record,
    binaries,
    c_library,
    check_extension_modules,
    check_interpreters,
    check_libraries,
    check_wheel_tags,
    from_record,
    may_be_binary,
    missing_packages,
    read_binary,
)

ARCHITECTURE = "amd64"
LIB = f"usr/lib/{MULTIARCH[ARCHITECTURE]}"
LOADER = "/lib64/ld-linux-x86-64.so.2"
MUSL_LOADER = "/lib/ld-musl-x86_64.so.1"
MUSL = "libc.musl-x86_64.so.1"

# e_machine
X86_64, I386, S390, AARCH64, ARM = 62, 3, 22, 183, 40


def file(path: str, data: bytes = b"x", group: str = "egg x-1") -> FileEntry:
    return bytes_file(path, data, group=group, reason="test", mode=0o755)


def link(path: str, linkname: str) -> FileEntry:
    return symlink(path, linkname, group="packages", reason="test")


# An ELF file of our own --------------------------------------------------------------


class _Strings:
    """A string table; as with linkers, a string that is another one's end shares its bytes."""

    def __init__(self) -> None:
        self.table = bytearray(1)

    def add(self, text: str) -> int:
        data = text.encode("utf-8", "surrogateescape") + b"\0"
        found = self.table.find(data)
        if found < 0:
            found = len(self.table)
            self.table += data
        return found


def crafted(
    *,
    wide: bool = True,
    order: str = "<",
    machine: int = X86_64,
    kind: int = 3,
    flags: int = 0,
    interpreter: str = "",
    needed: Sequence[str] = (),
    soname: str = "",
    runpath: str = "",
    rpath: str = "",
    versions: Mapping[str, Sequence[str]] | None = None,
    weak: Sequence[str] = (),
    provides: Sequence[str] = (),
    first: Sequence[str] = (),
    symbols: Sequence[str] = (),
    hashed: bool = True,
    sections: bool = True,
    static: bool = False,
    tags: Mapping[int, int] | None = None,
) -> bytes:
    """A small program or shared object, as a linker would make it.

    The names in ``first`` are symbols that come first in the string table.  ``tags`` are
    values to put into the dynamic section instead of the right ones.
    """
    base = 0x10000  # a multiple of every architecture's page
    word = "Q" if wide else "I"
    header_size, segment_size = (64, 56) if wide else (52, 32)
    body = bytearray(header_size + 4 * segment_size)
    strings = _Strings()
    for name in first:
        strings.add(name)
    dynamic: list[tuple[int, int]] = []
    places: dict[str, tuple[int, int]] = {}

    def put(name: str, data: bytes) -> int:
        body.extend(bytes(-len(body) % 8))
        places[name] = (len(body), len(data))
        body.extend(data)
        return base + places[name][0]

    for tag, text in ((29, runpath), (15, rpath), (14, soname)):
        if text:
            dynamic.append((tag, strings.add(text)))
    dynamic += [(1, strings.add(name)) for name in needed]
    names = [0, *(strings.add(name) for name in (*first, *symbols))]
    table = b"".join(
        struct.pack(f"{order}IBBHQQ", name, 0x10, 0, 0, 0, 0)
        if wide
        else struct.pack(f"{order}IIIBBH", name, 0, 0, 0x10, 0, 0)
        for name in names
    )
    dynamic += [(6, put("symbols", table)), (11, 24 if wide else 16)]
    if hashed:
        size = "Q" if machine == S390 else "I"
        chains = [1, len(names), 0, *([0] * len(names))]
        dynamic.append((4, put("hash", struct.pack(f"{order}{len(chains)}{size}", *chains))))
    if versions:
        need = b""
        for number, (library, wanted) in enumerate(versions.items(), 1):
            following = 16 + 16 * len(wanted) if number < len(versions) else 0
            need += struct.pack(
                f"{order}HHIII", 1, len(wanted), strings.add(library), 16, following
            )
            for index, name in enumerate(wanted, 1):
                need += struct.pack(
                    f"{order}IHHII",
                    *(0, 2 if name in weak else 0, index + 1, strings.add(name)),
                    16 if index < len(wanted) else 0,
                )
        dynamic += [(0x6FFFFFFE, put("needs", need)), (0x6FFFFFFF, len(versions))]
    if provides:
        definitions = b""
        for index, name in enumerate(provides, 1):
            definitions += struct.pack(
                f"{order}HHHHIIIII",
                *(1, 0, index, 1, 0, 20, 28 if index < len(provides) else 0),
                *(strings.add(name), 0),
            )
        dynamic += [(0x6FFFFFFC, put("provides", definitions)), (0x6FFFFFFD, len(provides))]
    dynamic += [(5, put("strings", bytes(strings.table))), (10, len(strings.table))]
    put("interpreter", interpreter.encode() + b"\0")
    if tags:
        dynamic = [(tag, tags.get(tag, value)) for tag, value in dynamic]
    put(
        "dynamic",
        b"".join(struct.pack(f"{order}2{word}", *pair) for pair in (*dynamic, (0, 0))),
    )

    section_at = len(body) + (-len(body) % 8) if sections else 0
    if sections:
        counts = {"needs": len(versions or ()), "provides": len(provides)}
        body.extend(bytes(-len(body) % 8) + _sections(order, word, base, places, counts))
    segments = [(1, 6, 0, base, len(body)), (_STACK, 6, 0, 0, 0)]
    for name, number, wanted_here in (
        ("dynamic", 2, not static),
        ("interpreter", 3, bool(interpreter)),
    ):
        if wanted_here:
            place, length = places[name]
            segments.append((number, 6, place, base + place, length))
    ident = b"\x7fELF" + bytes((2 if wide else 1, 1 if order == "<" else 2, 1)) + bytes(9)
    header = ident + struct.pack(
        f"{order}HHI3{word}IHHHHHH",
        *(kind, machine, 1, base, header_size, section_at, flags),
        *(header_size, segment_size, len(segments)),
        *((64 if wide else 40, 7, 6) if sections else (0, 0, 0)),
    )
    for number, rights, offset, address, length in segments:
        align = base if number == 1 else 8
        values = (offset, address, address, length, length)
        header += (
            struct.pack(f"{order}IIQQQQQQ", number, rights, *values, align)
            if wide
            else struct.pack(f"{order}IIIIIIII", number, *values, rights, align)
        )
    body[: len(header)] = header
    return bytes(body)


_STACK = 0x6474E551  # PT_GNU_STACK: without it, a library wants a stack that can be run


def _sections(
    order: str,
    word: str,
    base: int,
    places: Mapping[str, tuple[int, int]],
    counts: Mapping[str, int],
) -> bytes:
    """The section headers, which all have the empty name."""
    wide = word == "Q"
    headers = bytes(64 if wide else 40)
    for name, kind, size in (
        ("strings", 3, 0),
        ("symbols", 11, 24 if wide else 16),
        ("needs", 0x6FFFFFFE, 0),
        ("provides", 0x6FFFFFFD, 0),
        ("dynamic", 6, 16 if wide else 8),
        ("strings", 3, 0),
    ):
        offset, length = places.get(name, (0, 0))
        headers += struct.pack(
            f"{order}II4{word}II2{word}",
            *(0, kind if length else 0, 2, base + offset, offset, length),
            *(1, counts.get(name, 0), 8, size),
        )
    return headers


# Reading -----------------------------------------------------------------------------


def by_pyelftools(data: bytes) -> tuple[Any, ...]:
    """What another reader finds, by other ways: sections mostly."""
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerDefSection, GNUVerNeedSection

    elf: Any = ELFFile(io.BytesIO(data))
    interpreter = ""
    tags: dict[str, list[str]] = {}
    for segment in elf.iter_segments():
        if segment["p_type"] == "PT_INTERP":
            interpreter = segment.get_interp_name()
        elif segment["p_type"] == "PT_DYNAMIC":
            for tag in segment.iter_tags():
                name = tag.entry.d_tag
                if name in ("DT_NEEDED", "DT_RPATH", "DT_RUNPATH", "DT_SONAME"):
                    tags.setdefault(name, []).append(getattr(tag, name[3:].lower()))
    sections = list(elf.iter_sections())
    search = ":".join(tags.get("DT_RUNPATH") or tags.get("DT_RPATH") or ())
    return (
        interpreter,
        tuple(tags.get("DT_NEEDED", ())),
        tuple(filter(None, search.split(":"))),
        "".join(tags.get("DT_SONAME", ())),
        tuple(
            (need.name, tuple(each.name for each in each_version if not each["vna_flags"] & 2))
            for section in sections
            if isinstance(section, GNUVerNeedSection)
            for need, each_version in section.iter_versions()
        ),
        tuple(
            next(iter(auxiliaries)).name
            for section in sections
            if isinstance(section, GNUVerDefSection)
            for _, auxiliaries in section.iter_versions()
        ),
    )


def read(data: bytes) -> Binary:
    found = read_binary(io.BytesIO(data))
    assert found is not None
    return found


FULL: dict[str, Any] = {
    "interpreter": LOADER,
    "needed": ("libone.so.1", "libc.so.6"),
    "soname": "libtwo.so.1",
    "runpath": "$ORIGIN/../libs:/opt/lib",
    "versions": {"libone.so.1": ("ONE_1", "ONE_2"), "libc.so.6": ("GLIBC_2.4", "GLIBC_2.38")},
    "weak": ("ONE_1",),
    "provides": ("libtwo.so.1", "TWO_1"),
    "symbols": ("one", "two"),
}


class Counting(io.FileIO):
    """A file that counts the bytes that are read of it."""

    count = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(-1 if size is None else size)
        self.count += len(data)
        return data


class Reading(unittest.TestCase):
    def test_all_that_a_file_says(self) -> None:
        self.assertEqual(
            read(crafted(**FULL)),
            Binary(
                "amd64",
                LOADER,
                ("libone.so.1", "libc.so.6"),
                ("$ORIGIN/../libs", "/opt/lib"),
                "libtwo.so.1",
                # the loader can do without a weak one
                (("libone.so.1", ("ONE_2",)), ("libc.so.6", ("GLIBC_2.4", "GLIBC_2.38"))),
                ("libtwo.so.1", "TWO_1"),
            ),
        )

    def test_files_of_every_kind_of_machine(self) -> None:
        kinds = {
            (True, "<", X86_64): "amd64",
            (True, "<", AARCH64): "arm64",
            (False, "<", I386): "386",
            (False, "<", ARM): "arm",
            (True, ">", S390): "s390x",
            (False, "<", X86_64): "x32",
            (True, ">", AARCH64): "ELF machine 183",
            (False, ">", 8): "ELF machine 8",
        }
        for (wide, order, machine), name in kinds.items():
            with self.subTest(name):
                data = crafted(wide=wide, order=order, machine=machine, **FULL)
                found = read(data)
                self.assertEqual(found.machine, name)
                self.assertEqual(dataclasses.astuple(found)[1:], by_pyelftools(data))

    def test_sections_are_not_needed(self) -> None:
        data = crafted(sections=False, **FULL)
        self.assertEqual(read(data), read(crafted(**FULL)))

    def test_an_rpath_counts_where_there_is_no_runpath(self) -> None:
        self.assertEqual(read(crafted(rpath="$ORIGIN::/x")).search, ("$ORIGIN", "/x"))
        self.assertEqual(read(crafted(rpath="/x", runpath="/y")).search, ("/y",))

    def test_one_that_is_linked_statically_needs_nothing(self) -> None:
        nothing = Binary("amd64", "", (), (), "", (), ())
        self.assertEqual(read(crafted(static=True, kind=2)), nothing)

    def test_what_is_no_program_or_library_is_nothing(self) -> None:
        self.assertIsNone(read_binary(io.BytesIO(crafted(kind=1, static=True))))
        for data in (b"", b"\x7fEL", b"#!/bin/sh\n", b"MZ" + bytes(100)):
            self.assertIsNone(read_binary(io.BytesIO(data)))

    def test_bytes_that_are_no_text_stay_what_they_are(self) -> None:
        self.assertEqual(read(crafted(needed=["lib\udcff.so"])).needed, ("lib\udcff.so",))

    def test_of_a_big_file_little_is_read(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            path = pathlib.Path(scratch, "big.so")
            path.write_bytes(crafted(**FULL))
            os.truncate(path, 8 << 30)
            with Counting(path) as stream:
                found = read_binary(stream)
                self.assertLess(stream.count, 10_000)
        self.assertEqual(found, read(crafted(**FULL)))

    def test_programs_and_libraries_of_this_machine(self) -> None:
        if not sys.platform.startswith("linux"):
            self.skipTest("ELF files are those of Linux")
        found = list(local_files())
        self.assertTrue(found)
        for path in found:
            data = path.read_bytes()
            with self.subTest(path.name):
                self.assertEqual(dataclasses.astuple(read(data))[1:], by_pyelftools(data))


def local_files() -> Iterator[pathlib.Path]:
    """This Python and its extension modules, and some of this machine's libraries."""
    yield pathlib.Path(sys.executable).resolve()
    places = [
        pathlib.Path(place) for place in sys.path if "dynload" in place or ".egg" in place
    ]
    modules = [path for place in places if place.is_dir() for path in place.rglob("*.so")]
    libraries = [
        path
        for path in sorted(pathlib.Path("/usr/lib").glob("*-linux-*/*.so*"))
        if path.is_file() and not path.is_symlink()
    ]
    for path in (*modules, *libraries[:: len(libraries) // 150 + 1]):
        with path.open("rb") as stream:
            # some are scripts of the linker
            if stream.read(4) == b"\x7fELF":
                yield path


class Damaged(unittest.TestCase):
    """Files of which nothing can be believed: one kind of error, and soon."""

    def complaint(self, data: bytes) -> str:
        with self.assertRaises(PlanError) as caught:
            read_binary(io.BytesIO(data))
        return caught.exception.what.removeprefix("an ELF file can't be read: ")

    def test_one_that_is_cut_off_anywhere(self) -> None:
        data = crafted(**FULL)
        for size in range(4, len(data)):
            self.assertEqual(self.complaint(data[:size]), "it ends too early")

    def test_headers(self) -> None:
        for place, value, complaint in (
            (4, b"\x03", "its first bytes are not those of one"),
            (5, b"\x00", "its first bytes are not those of one"),
            (0x20, b"\xff" * 8, "it ends too early"),
            (0x36, b"\x37", "its program headers have no known size"),
            (0x38, b"\xff\xff", "it ends too early"),
        ):
            data = bytearray(crafted(**FULL))
            data[place : place + len(value)] = value
            self.assertEqual(self.complaint(bytes(data)), complaint, place)

    def test_the_dynamic_section(self) -> None:
        outside = "its dynamic section points outside of it"
        for tag, value, complaint in (
            (5, 1 << 63, outside),
            (5, 0, outside),
            (10, 1 << 63, outside),
            (10, 2, "a name in it has no end"),
            (1, 1 << 40, "a name in it has no end"),
            (0x6FFFFFFE, 1 << 40, outside),
            (0x6FFFFFFC, 0x10000, "a name in it has no end"),
        ):
            with self.subTest(tag=tag, value=value):
                data = crafted(**FULL, tags={tag: value})
                self.assertEqual(self.complaint(data), complaint)

    def test_more_than_can_be(self) -> None:
        for data, complaint in (
            (crafted(needed=["x"] * 20_000), "its dynamic section is too long"),
            (crafted(needed=["x" * 60_000] * 100), "it has too many names"),
            (crafted(runpath="x" * 70_000), "a name in it has no end"),
            (crafted(versions={"l": ["V"] * 40_000}), "it needs too many versions"),
            (crafted(provides=["V"] * 40_000), "it has too many versions"),
        ):
            self.assertEqual(self.complaint(data), complaint)

    def test_anything(self) -> None:
        chance = random.Random(5)
        for _ in range(2000):
            data = bytearray(crafted(**FULL))
            for _ in range(chance.choice((1, 3, 20))):
                place = chance.randrange(4, len(data))
                size = chance.choice((1, 2, 4, 8))
                value = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
                data[place : place + size] = bytes([value]) * size
            try:
                read_binary(io.BytesIO(data))
            except PlanError as error:
                self.assertIn("an ELF file can't be read", error.what)


class Records(unittest.TestCase):
    def test_they_survive_json(self) -> None:
        odd = crafted(needed=["lib\udcff.so"])
        for binary in (None, read(crafted(**FULL)), read(crafted()), read(odd)):
            self.assertEqual(from_record(json.loads(json.dumps(as_record(binary)))), binary)

    def test_what_is_none_is_refused(self) -> None:
        good = as_record(read(crafted(**FULL)))
        value: Any
        wrong: list[Any] = [None, {}, "", [None], good[:-1], [*good, ""]]
        for place in range(len(good)):
            for value in (None, 7, [None], [[1, 2, 3]], [["x", 3]], [[3, ["x"]]], {}):
                wrong.append([*good[:place], value, *good[place + 1 :]])
        for record in wrong:
            with self.assertRaises(ValueError, msg=repr(record)):
                from_record(json.loads(json.dumps(record)))


class Trees(unittest.TestCase):
    """The ELF files of a tree."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name)
        self.store = Store(self.scratch / "store")

    def test_which_files_are_looked_at(self) -> None:
        data = crafted()
        plain = bytes_file("x", data, group="data", reason="t")
        self.assertFalse(may_be_binary(plain))
        for path in ("x.so", "x.so.1", "x.cpython-311-x86_64-linux-gnu.so"):
            self.assertTrue(may_be_binary(dataclasses.replace(plain, path=path)))
        self.assertTrue(may_be_binary(dataclasses.replace(plain, mode=0o755)))
        self.assertFalse(may_be_binary(link("x.so", "y.so")))
        self.assertFalse(may_be_binary(file("x.so", b"")))

    def test_each_is_read_once(self) -> None:
        source = self.scratch / "two.so"
        source.write_bytes(crafted(needed=["libone.so"]))
        entry = disk_file("a.so", source, group="data", reason="t")
        entries = [entry, file("b.so", crafted()), file("c", b"text" * 100)]
        tree = merge(entries)
        first = binaries(tree, self.store)
        self.assertEqual(sorted(first), ["a.so", "b.so"])
        source.unlink()
        self.assertEqual(binaries(tree, self.store), first)
        known = {entry.digest: binary for entry, binary in first.values()}
        self.assertEqual(binaries(tree, known=known), first)
        with self.assertRaises(PlanError) as caught:
            binaries(tree)
        self.assertEqual(
            caught.exception.what, "/a.so can't be read: No such file or directory"
        )

    def test_what_is_known_to_be_no_elf_file_is_not_read(self) -> None:
        digest = hashlib.sha256(b"gone").hexdigest()
        gone = FileEntry(
            *("x.so", FileType.REGULAR, 0o755, "data", "t"),
            source="/nosuch/file",
            size=100,
            digest=digest,
        )
        self.assertEqual(binaries(merge([gone]), known={digest: None}), {})

    def test_a_damaged_record_is_made_anew(self) -> None:
        tree = merge([file("b.so", crafted())])
        first = binaries(tree, self.store)
        (record,) = [path for path in self.scratch.rglob("records/*/*/*") if path.is_file()]
        whole = record.read_bytes()
        for damage in (b"", b"{}", b'{"binary": [1]}'):
            record.write_bytes(damage)
            self.assertEqual(binaries(tree, self.store), first)
            self.assertEqual(record.read_bytes(), whole)


# Finding -----------------------------------------------------------------------------


class Linking(unittest.TestCase):
    def binary(self, *search: str) -> Binary:
        return Binary(ARCHITECTURE, "", (), search, "", (), ())

    def find(
        self, entries: Iterable[FileEntry], path: str, *search: str, library: str = "l.so"
    ) -> str | None:
        linker = Linker(merge(entries), ARCHITECTURE)
        return linker.find(library, self.binary(*search), path)

    def test_where_the_loader_looks(self) -> None:
        for place in (LIB, "usr/lib", "lib", f"lib/{MULTIARCH[ARCHITECTURE]}", "lib64"):
            self.assertEqual(self.find([file(f"{place}/l.so")], "x/y.so"), f"{place}/l.so")

    def test_its_own_path_comes_first(self) -> None:
        entries = [file("x/libs/l.so"), file(f"{LIB}/l.so")]
        for search in ("$ORIGIN/libs", "${ORIGIN}/../x/libs", "/x/libs"):
            self.assertEqual(self.find(entries, "x/y.so", search), "x/libs/l.so", search)
        for search in ("", "$ORIGINAL/libs", "/y"):
            self.assertEqual(self.find(entries, "x/y.so", search), f"{LIB}/l.so")

    def test_the_directory_of_libraries_has_a_name(self) -> None:
        entries = [file(f"x/lib/{MULTIARCH[ARCHITECTURE]}/l.so"), file(f"{LIB}/l.so")]
        for search in ("/x/$LIB", "$ORIGIN/${LIB}"):
            self.assertEqual(self.find(entries, "x/y.so", search), entries[0].path)

    def test_links_are_followed(self) -> None:
        entries = [
            link("lib", "usr/lib"),
            link("usr/lib/l.so", "l.so.1"),
            file("usr/lib/l.so.1"),
        ]
        self.assertEqual(self.find(entries, "x"), "usr/lib/l.so.1")

    def test_a_hard_link_is_the_file_that_it_shares(self) -> None:
        shared = FileEntry(
            "lib/l.so", FileType.HARDLINK, 0o755, "packages", "t", linkname="a.so"
        )
        self.assertEqual(self.find([file("a.so"), shared], "x"), "a.so")

    def test_what_is_no_file_is_not_there(self) -> None:
        self.assertIsNone(self.find([link("usr/lib/l.so", "none")], "x"))
        self.assertIsNone(self.find([link("usr/lib/l.so", "l.so")], "x"))
        entry = directory("usr/lib/l.so", group="data", reason="t")
        self.assertIsNone(self.find([entry], "x"))

    def test_a_loaded_library_may_lie_anywhere(self) -> None:
        self.assertEqual(self.find([file("egg/x.libs/l.so")], "egg/x/y.so"), "egg/x.libs/l.so")

    def test_the_nearest_one_most_likely(self) -> None:
        names = ("a/x.libs/l.so", "b/x.libs/l.so", "c/x.libs/l.so")
        entries = [file(name) for name in names]
        for name in names:
            self.assertEqual(self.find(entries, f"{name[0]}/x/y.so"), name)

    def test_a_library_may_be_named_by_its_path(self) -> None:
        entries = [file("opt/l.so"), file("x/libs/l.so")]
        for name, found in (
            ("/opt/l.so", "opt/l.so"),
            ("$ORIGIN/libs/l.so", "x/libs/l.so"),
            ("/usr/l.so", None),
        ):
            self.assertEqual(self.find(entries, "x/y.so", library=name), found)


def glibc(*versions: str) -> FileEntry:
    """The C library of a base, with these versions of symbols."""
    data = crafted(soname="libc.so.6", provides=("libc.so.6", *versions))
    return file(f"{LIB}/libc.so.6", data, "packages")


class CLibraries(unittest.TestCase):
    def found(self, *entries: FileEntry) -> CLibrary | None:
        return c_library(merge(entries), architecture=ARCHITECTURE)

    def test_that_of_gnu_tells_its_version(self) -> None:
        libc = glibc("GLIBC_2.4", "GLIBC_2.36", "GLIBC_2.9", "GLIBC_PRIVATE", "GLIBC_2.4.1")
        self.assertEqual(self.found(libc), CLibrary("glibc", (2, 36)))
        mathematics = crafted(provides=("GLIBC_2.37",))
        self.assertEqual(
            self.found(libc, file(f"{LIB}/libm.so.6", mathematics, "packages")),
            CLibrary("glibc", (2, 37)),
        )
        self.assertEqual(self.found(glibc()), CLibrary("glibc"))

    def test_musl(self) -> None:
        self.assertEqual(self.found(file("lib/ld-musl-x86_64.so.1")), CLibrary("musl"))
        # Debian has a package of it
        both = (file("lib/ld-musl-x86_64.so.1"), glibc("GLIBC_2.36"))
        self.assertEqual(self.found(*both), CLibrary("glibc", (2, 36)))

    def test_none(self) -> None:
        self.assertIsNone(self.found(file("app/libc.so.6")))


# Checking ----------------------------------------------------------------------------


class Checking(unittest.TestCase):
    maxDiff = None

    def complaints(self, *entries: FileEntry) -> list[EggcrateError]:
        return check_libraries(
            merge(entries),
            architecture=ARCHITECTURE,
            package_for={"libone.so.1": "libone1", "libc.so.6": "libc6"}.get,
        )

    def texts(self, *entries: FileEntry) -> list[str]:
        return [str(error) for error in self.complaints(*entries)]

    def test_a_missing_library_is_named_with_its_package(self) -> None:
        needs = crafted(needed=["libone.so.1"])
        self.assertEqual(
            self.texts(file("egg/a.so", needs)),
            [
                "/egg/a.so needs the library libone.so.1, which no layer provides; "
                "add libone1 to os-packages"
            ],
        )
        self.assertEqual(
            self.texts(*(file(f"egg/{name}.so", needs) for name in "cba")),
            [
                "/egg/a.so and 2 more need the library libone.so.1, which no layer provides; "
                "add libone1 to os-packages"
            ],
        )

    def test_an_unknown_library_has_a_hint_too(self) -> None:
        (error,) = self.complaints(file("a.so", crafted(needed=["libtwo.so.1"])))
        self.assertEqual(
            error.hint,
            "add the package that provides it to os-packages, or list the file in exclude",
        )

    def test_a_library_that_is_there_is_fine(self) -> None:
        needs = crafted(needed=["libone.so.1"], versions={"libone.so.1": ("ONE_2",)})
        one = crafted(soname="libone.so.1", provides=("libone.so.1", "ONE_1", "ONE_2"))
        self.assertEqual(
            self.complaints(
                file("egg/a.so", needs),
                file(f"{LIB}/libone.so.1.2", one, "packages"),
                link(f"{LIB}/libone.so.1", "libone.so.1.2"),
            ),
            [],
        )

    def test_one_that_is_too_old_is_not(self) -> None:
        """D29: the library and the version that is needed are named."""

        def needs(*versions: str) -> bytes:
            return crafted(needed=["libc.so.6"], versions={"libc.so.6": versions})

        hint = "take a newer base, or build on a machine as old as the base"
        self.assertEqual(
            self.texts(
                glibc("GLIBC_2.4", "GLIBC_2.36"),
                file("e/a.so", needs("GLIBC_2.4", "GLIBC_2.36")),
                file("e/b.so", needs("GLIBC_2.4", "GLIBC_2.38")),
                file("e/c.so", needs("GLIBC_2.38")),
                file("e/d.so", needs("GLIBC_2.100", "GLIBC_2.38")),
            ),
            [
                "/e/b.so and 1 more need GLIBC_2.38 of libc.so.6, and the one in the image is "
                f"older; {hint}",
                "/e/d.so needs GLIBC_2.38, GLIBC_2.100 of libc.so.6, and the one in the image "
                f"is older; {hint}",
            ],
        )

    def test_one_without_versions_is_as_good_as_any(self) -> None:
        needs = crafted(needed=["libone.so.1"], versions={"libone.so.1": ("ONE_2",)})
        one = file("usr/lib/libone.so.1", crafted())
        self.assertEqual(self.complaints(file("a.so", needs), one), [])

    def test_a_weak_version_may_be_missing(self) -> None:
        needs = crafted(
            needed=["libc.so.6"], versions={"libc.so.6": ("GLIBC_2.38",)}, weak=["GLIBC_2.38"]
        )
        self.assertEqual(self.complaints(file("a.so", needs), glibc("GLIBC_2.36")), [])

    def test_a_missing_loader_is_named(self) -> None:
        loader = "/nix/store/x-glibc-2.40/lib/ld-linux-x86-64.so.2"
        program = crafted(interpreter=loader)
        self.assertEqual(
            self.texts(file("p", program), file("q", program)),
            [
                f"/p and 1 more need the loader {loader}, which is not in the image; "
                "take a base with the same C library, or list the file in exclude"
            ],
        )
        self.assertEqual(self.complaints(file("p", program), file(loader.lstrip("/"))), [])

    def test_another_machine_s_files_are_named(self) -> None:
        arm, other = crafted(machine=AARCH64), crafted(wide=False, machine=I386)
        static = crafted(machine=AARCH64, kind=2, static=True, needed=["libone.so.1"])
        self.assertEqual(
            self.texts(file("a.so", other), file("b.so", arm), file("c", static)),
            [
                "/a.so is built for 386, and the image for amd64; build the egg for the "
                "image's platform, or list the file in exclude",
                "/b.so and 1 more are built for arm64, and the image for amd64; build the egg "
                "for the image's platform, or list the file in exclude",
            ],
        )

    def test_musl_s_files_have_one_error_on_debian(self) -> None:
        hint = "run buildout on a machine with the same C library, or list it in exclude"
        module = crafted(needed=[MUSL, "libone.so.1"])
        self.assertEqual(
            self.texts(
                glibc("GLIBC_2.36"),
                file("a.so", module),
                file("b", crafted(interpreter=MUSL_LOADER, needed=[MUSL])),
                file("c.so", crafted(needed=["libc.so"])),
                file("d", crafted(interpreter=MUSL_LOADER)),
            ),
            [
                "/a.so and 3 more are built for musl, and the image has the GNU C library; "
                + hint
            ],
        )

    def test_and_those_of_gnu_on_musl(self) -> None:
        """D29: manylinux on musl."""
        hint = "run buildout on a machine with the same C library, or list it in exclude"
        self.assertEqual(
            self.texts(
                file("lib/ld-musl-x86_64.so.1", b"", "packages"),
                file("b", crafted(interpreter=LOADER, needed=["libc.so.6"])),
                file("d", crafted(interpreter=LOADER)),
            ),
            ["/b and 1 more are built for the GNU C library, and the image has musl; " + hint],
        )

    def test_musl_beside_the_other_is_fine(self) -> None:
        # Debian's package of that name
        self.assertEqual(
            self.complaints(
                glibc("GLIBC_2.36"),
                link("lib/ld-musl-x86_64.so.1", "x86_64-linux-musl/libc.so"),
                file("lib/x86_64-linux-musl/libc.so", group="packages"),
                file("b", crafted(interpreter=MUSL_LOADER, needed=["libc.so"])),
            ),
            [],
        )

    def test_without_a_c_library_it_is_just_missing(self) -> None:
        (error,) = self.complaints(file("a.so", crafted(needed=["libc.so.6"])))
        self.assertEqual(error.hint, "add libc6 to os-packages")

    def test_packages_of_the_distribution_are_taken_on_trust(self) -> None:
        for data in (crafted(needed=["libone.so.1"]), crafted()[:200]):
            self.assertEqual(self.complaints(file("x.so", data, "packages")), [])

    def test_all_that_is_damaged_is_named_with_the_rest(self) -> None:
        damaged = crafted(soname="x")[:200]
        self.assertEqual(
            [error.what for error in self.complaints(
                file("egg/a.so", damaged),
                file("egg/b.so", damaged),
                file("egg/c.so", crafted(needed=["libone.so.1"])),
            )],
            [
                "/egg/a.so: an ELF file can't be read: it ends too early",
                "/egg/b.so: an ELF file can't be read: it ends too early",
                "/egg/c.so needs the library libone.so.1, which no layer provides",
            ],
        )  # fmt: skip

    def test_what_is_only_called_an_extension_module_is_named(self) -> None:
        pointer = b"version https://git-lfs.example/spec/v1\noid sha256:0\nsize 5\n"
        module = "e/a.cpython-311-x86_64-linux-gnu.so"
        for data in (pointer, b"", b"\xcf\xfa\xed\xfe" + bytes(100)):
            self.assertEqual(
                self.texts(file(module, data)),
                [
                    f"/{module} has the name of an extension module, and is none; install or "
                    "check out the real file, or list it in exclude"
                ],
            )
        self.assertEqual(len(self.complaints(file("e/a.abi3.so", pointer))), 1)
        # a library may be a script of the linker, and such packages are not ours
        script = b"INPUT(libone.so.1)\n" + bytes(100)
        self.assertEqual(self.complaints(file("e/libone.so", script)), [])
        self.assertEqual(self.complaints(file(module, script, "packages")), [])
        self.assertEqual(self.complaints(file(module, crafted())), [])

    def test_the_order_of_files_does_not_matter(self) -> None:
        entries = [
            file("a", crafted(needed=["libz.so.1", "libone.so.1"], interpreter="/x")),
            file("b", crafted(needed=["libone.so.1", "liba.so.1"], machine=AARCH64)),
            file("c", crafted(needed=["libone.so.1", "liba.so.1"], interpreter="/x")),
            file("d", crafted(needed=["libz.so.1"], interpreter="/w")),
        ]
        self.assertEqual(self.texts(*entries), self.texts(*reversed(entries)))
        self.assertEqual(len(self.texts(*entries)), 6)

    def test_names_from_files_can_t_write_on_the_terminal(self) -> None:
        (error,) = self.complaints(file("a\x1b.so", crafted(needed=["l\x1b[2J\udcff.so"])))
        self.assertTrue(str(error).isprintable(), error)


class Missing(unittest.TestCase):
    def packages(self, *entries: FileEntry) -> tuple[str, ...]:
        names = {"libone.so.1": "libone1", "liba.so.1": "liba1", "libb.so.1": "liba1"}
        names["libc.so.6"] = "libc6"
        return missing_packages(
            merge(entries), architecture=ARCHITECTURE, package_for=names.get
        )

    def test_each_package_once_in_order(self) -> None:
        entries = [
            file("a.so", crafted(needed=["libone.so.1", "libnosuch.so.1", "libb.so.1"])),
            file("b.so", crafted(needed=["liba.so.1", "libone.so.1"])),
        ]
        self.assertEqual(self.packages(*entries), ("liba1", "libone1"))
        added = [file(f"{LIB}/lib{name}.so.1", group="packages") for name in ("a", "b", "one")]
        self.assertEqual(self.packages(*entries, *added), ())

    def test_for_what_can_t_run_here_nothing_is_added(self) -> None:
        self.assertEqual(
            self.packages(
                glibc("GLIBC_2.36"),
                file("a.so", crafted(needed=["libone.so.1"], machine=AARCH64)),
                file("b.so", crafted(needed=["libone.so.1", MUSL])),
                file("c.so", crafted(needed=["libone.so.1"], ), "packages"),
                file("d.so", crafted(needed=["libone.so.1"])[:200]),
            ),
            (),
        )  # fmt: skip


class ExtensionModules(unittest.TestCase):
    def complaints(
        self, *names: str, version: tuple[int, int] = (3, 11), abiflags: str = ""
    ) -> list[str]:
        found = check_extension_modules(map(file, names), version=version, abiflags=abiflags)
        return [error.what for error in found]

    def test_those_of_the_image_s_python_are_fine(self) -> None:
        self.assertEqual(
            self.complaints(
                "e/a.cpython-311-x86_64-linux-gnu.so",
                "e/b.abi3.so",
                "e/c.so",
                "e/d.cpython-311.so",
                "e/lib.so.1",
                "e/f.py",
            ),
            [],
        )

    def test_those_of_another_are_not(self) -> None:
        for tag in (
            "cpython-312-x86_64-linux-gnu",
            "cpython-31-x",
            "cpython-3110",
            "pypy310-pp73",
            "abi3t",
        ):
            self.assertEqual(
                self.complaints(f"e/a.{tag}.so"),
                [f"/e/a.{tag}.so is built for {tag}, and the image's Python is 3.11"],
            )

    def test_those_of_the_same_other_share_an_error(self) -> None:
        names = [
            f"e{minor}/{name}.cpython-{minor}.so" for minor in (312, 310) for name in "abc"
        ]
        self.assertEqual(
            self.complaints(*names, "e/x.pypy310-pp73.so"),
            [
                "/e310/a.cpython-310.so and 2 more are built for cpython-310, and the image's "
                "Python is 3.11",
                "/e312/a.cpython-312.so and 2 more are built for cpython-312, and the image's "
                "Python is 3.11",
                "/e/x.pypy310-pp73.so is built for pypy310-pp73, and the image's Python is "
                "3.11",
            ],
        )

    def test_a_free_threaded_or_debug_python_is_another(self) -> None:
        for tag in ("cpython-313t-x86_64-linux-gnu", "cpython-313d"):
            self.assertEqual(len(self.complaints(f"e/a.{tag}.so", version=(3, 13))), 1, tag)
        for tag in ("cpython-313t-x86_64-linux-gnu", "abi3t"):
            self.assertEqual(
                self.complaints(f"e/a.{tag}.so", version=(3, 13), abiflags="t"), []
            )
        for tag in ("cpython-313-x86_64-linux-gnu", "abi3"):
            self.assertEqual(
                self.complaints(f"e/a.{tag}.so", version=(3, 13), abiflags="t"),
                [f"/e/a.{tag}.so is built for {tag}, and the image's Python is 3.13t"],
            )

    def test_one_of_several_is_enough(self) -> None:
        both = ("e/a.cpython-310-x86_64-linux-gnu.so", "e/a.cpython-311-x86_64-linux-gnu.so")
        self.assertEqual(self.complaints(*both), [])
        self.assertEqual(len(self.complaints(*both, version=(3, 12))), 1)
        # another directory's does not count
        self.assertEqual(
            len(self.complaints("d/a.cpython-310-x.so", "e/a.cpython-311-x.so")), 1
        )

    def test_a_module_that_has_python_source_too_is_fine(self) -> None:
        self.assertEqual(self.complaints("e/a.cpython-310-x.so", "e/a.py"), [])


class Interpreters(unittest.TestCase):
    def complaints(self, *lines: bytes, search: Sequence[str] = ("/usr/bin",)) -> list[str]:
        tree = merge(
            [
                file("usr/bin/python3.11"),
                link("usr/bin/python3", "python3.11"),
                file("usr/bin/env"),
                link("bin", "usr/bin"),
                file("app/bin/tool"),
                directory("x", group="data", reason="t"),
            ]
        )
        scripts = [(file(f"s{number}"), line) for number, line in enumerate(lines)]
        found = check_interpreters(scripts, tree, search=search)
        return [error.what for error in found]

    def test_a_program_that_is_there_is_fine(self) -> None:
        self.assertEqual(
            self.complaints(
                b"#!/usr/bin/python3.11\n",
                b"#! /bin/python3 -I\n",
                b"#!/usr/bin/python3",
                b"#!\n",
                b"#!",
            ),
            [],
        )

    def test_one_that_is_not_is_named(self) -> None:
        self.assertEqual(
            self.complaints(b"#!/opt/python -I\n", b"#!python\n", b"#!/\xff\n"),
            [
                "/s0 is run by /opt/python, which is not in the image",
                "/s1 is run by python, which is not in the image",
                "/s2 is run by /\\xff, which is not in the image",
            ],
        )

    def test_once_for_all_scripts(self) -> None:
        self.assertEqual(
            self.complaints(*[b"#!/usr/bin/perl -w\n"] * 3, b"#!/bin/sh\n"),
            [
                "/s0 and 2 more are run by /usr/bin/perl, which is not in the image",
                "/s3 is run by /bin/sh, which is not in the image",
            ],
        )

    def test_env_looks_along_the_path(self) -> None:
        for line in (
            b"python3",
            b"-S python3 -u",
            b"-S A=1 python3.11",
            b"python",
            b"",
            b"-u X",
        ):
            self.assertEqual(self.complaints(b"#!/usr/bin/env " + line), [], line)
        self.assertEqual(self.complaints(b"#!/bin/env /usr/bin/python3\n"), [])
        for line, name in (
            (b"perl -w", "perl"),
            (b"-S python3.9", "python3.9"),
            (b"tool", "tool"),
            (b"/opt/perl", "/opt/perl"),
        ):
            self.assertEqual(
                self.complaints(b"#!/usr/bin/env " + line + b"\n"),
                [f"/s0 is run by {name}, which is not in the image"],
            )
        self.assertEqual(self.complaints(b"#!/usr/bin/env tool", search=["/app/bin"]), [])
        self.assertEqual(len(self.complaints(b"#!/usr/bin/env python", search=["/x"])), 1)


# Wheels ------------------------------------------------------------------------------


def wheel(name: str, *tags: str, group: str = "") -> FileEntry:
    """The metadata of a distribution that zc.buildout has made an egg of."""
    egg = f"app/eggs/{name}-py3.11-linux-x86_64.egg/{name}-py3.11-linux-x86_64.dist-info"
    text = "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: false\n"
    text += "".join(f"Tag: {tag}\n" for tag in tags)
    data = text.encode()
    return bytes_file(f"{egg}/WHEEL", data, group=group or f"egg {name}", reason="t")


BOOKWORM = CLibrary("glibc", (2, 36))


class WheelTags(unittest.TestCase):
    def complaints(
        self,
        *entries: FileEntry,
        version: tuple[int, int] = (3, 11),
        architecture: str = "amd64",
        libc: CLibrary | None = BOOKWORM,
        abiflags: str = "",
    ) -> list[str]:
        errors = check_wheel_tags(
            entries, version=version, architecture=architecture, libc=libc, abiflags=abiflags
        )
        return [str(error) for error in errors]

    def test_what_fits(self) -> None:
        for tag in (
            "py3-none-any",
            "py2.py3-none-any",
            "py311-none-any",
            "py38-none-any",
            "cp311-none-any",
            "cp311-cp311-linux_x86_64",
            "cp311-cp311-manylinux_2_36_x86_64",
            "cp311-cp311-manylinux1_x86_64",
            "cp311-cp311-manylinux2014_x86_64",
            "cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64",
            "cp311-abi3-manylinux_2_28_x86_64",
            "cp36.cp37-abi3-manylinux_2_28_x86_64",
            "py3-none-manylinux_2_17_x86_64",
            "py3-none-win_amd64.manylinux_2_17_x86_64",
            "CP311-cp311-Linux_x86_64",
        ):
            self.assertEqual(self.complaints(wheel("x-1", tag)), [], tag)

    def test_one_of_several_tags_is_enough(self) -> None:
        for tags in (
            ("py2-none-any", "cp312-cp312-linux_x86_64", "py3-none-any"),
            ("cp311-cp311-musllinux_1_2_x86_64", "cp311-cp311-manylinux_2_17_x86_64"),
            ("cp311-cp311-manylinux_2_38_x86_64", "cp311-cp311-manylinux_2_28_x86_64"),
        ):
            self.assertEqual(self.complaints(wheel("x-1", *tags)), [], tags)

    def test_without_a_tag_nothing_is_said(self) -> None:
        for tags in ((), ("",), ("py3",), ("--",), ("a-b-c-d",), ("x" * 600 + "-y-z",)):
            self.assertEqual(self.complaints(wheel("x-1", *tags)), [], tags)
        self.assertEqual(self.complaints(file("x-1.dist-info/METADATA", b"Tag: a-b-c\n")), [])

    def test_another_python(self) -> None:
        """D28: ABI tags against the image's Python."""
        hint = "run buildout with the image's Python, or set python = host to pack this one"
        for tag, what in (
            ("cp312-cp312-manylinux_2_17_x86_64", "cp312-cp312"),
            ("cp312-abi3-manylinux_2_17_x86_64", "cp312-abi3"),
            ("cp311-cp311t-manylinux_2_17_x86_64", "cp311-cp311t"),
            ("pp310-pypy310_pp73-manylinux_2_17_x86_64", "pp310-pypy310_pp73"),
            ("py2-none-any", "py2-none"),
            ("py312-none-any", "py312-none"),
        ):
            self.assertEqual(
                self.complaints(wheel("x-1", tag)),
                [f"x-1 is built for {what}, and the image's Python is 3.11; {hint}"],
            )

    def test_a_free_threaded_python(self) -> None:
        fits = wheel("x-1", "cp313-cp313t-linux_x86_64")
        other = wheel("x-1", "cp313-cp313-linux_x86_64")
        for abiflags, good, bad in (("t", fits, other), ("", other, fits)):
            found = self.complaints(good, version=(3, 13), abiflags=abiflags)
            self.assertEqual(found, [])
            (text,) = self.complaints(bad, version=(3, 13), abiflags=abiflags)
            self.assertIn(f"and the image's Python is 3.13{abiflags};", text)

    def test_another_machine(self) -> None:
        for platform_tag, what in (
            ("manylinux_2_17_aarch64", "aarch64"),
            ("linux_i686", "i686"),
            ("macosx_11_0_arm64", "macosx_11_0_arm64"),
        ):
            self.assertEqual(
                self.complaints(wheel("x-1", f"cp311-cp311-{platform_tag}")),
                [
                    f"x-1 is built for {what}, and the image for linux/amd64; run "
                    "buildout on a machine of the image's platform"
                ],
            )
        for architecture, machine in (
            ("arm64", "aarch64"),
            ("386", "i686"),
            ("arm", "armv7l"),
            ("ppc64le", "ppc64le"),
            ("s390x", "s390x"),
            ("riscv64", "riscv64"),
        ):
            entry = wheel("x-1", f"cp311-cp311-manylinux_2_17_{machine}")
            self.assertEqual(self.complaints(entry, architecture=architecture), [])

    def test_another_c_library(self) -> None:
        """D29: tags of musl and of the GNU C library."""
        hint = "run buildout on a machine with the same C library, or list it in exclude"
        musl = wheel("x-1", "cp311-cp311-musllinux_1_2_x86_64")
        gnu = wheel("x-1", "cp311-cp311-manylinux_2_17_x86_64")
        self.assertEqual(
            self.complaints(musl),
            [f"x-1 is built for musl, and the image has the GNU C library; {hint}"],
        )
        self.assertEqual(
            self.complaints(gnu, libc=CLibrary("musl")),
            [f"x-1 is built for the GNU C library, and the image has musl; {hint}"],
        )
        self.assertEqual(self.complaints(musl, libc=CLibrary("musl")), [])
        for entry in (musl, gnu):
            self.assertEqual(self.complaints(entry, libc=None), [])

    def test_a_c_library_that_is_too_old(self) -> None:
        """D29: manylinux tags against the image's glibc."""
        entry = wheel(
            "x-1", "cp311-cp311-manylinux_2_39_x86_64", "cp311-cp311-manylinux_2_38_x86_64"
        )
        self.assertEqual(
            self.complaints(entry),
            [
                "x-1 needs glibc 2.38, and the image has 2.36; take a newer base, or build on "
                "a machine as old as the base"
            ],
        )
        self.assertEqual(self.complaints(entry, libc=CLibrary("glibc", (2, 38))), [])
        self.assertEqual(self.complaints(entry, libc=CLibrary("glibc")), [])
        old = wheel("x-1", "cp311-cp311-manylinux2014_x86_64")
        self.assertEqual(len(self.complaints(old, libc=CLibrary("glibc", (2, 12)))), 1)

    def test_distributions_with_the_same_fault_share_an_error(self) -> None:
        entries = [wheel(name, "cp312-cp312-linux_x86_64") for name in ("b-1", "c-2", "a-3")]
        entries.append(wheel("d-1", "cp311-cp311-linux_armv7l"))
        texts = self.complaints(*entries)
        self.assertEqual([text.partition(" built")[0] for text in texts],
                         ["a-3 and 2 more are", "d-1 is"])  # fmt: skip
        self.assertEqual(self.complaints(*reversed(entries)), texts)

    def test_the_name_of_what_is_no_egg(self) -> None:
        tag = b"Tag: cp312-cp312-linux_x86_64\n"
        for path, group, name in (
            ("app/eggs/x-1-py3.11.egg/EGG-INFO/WHEEL", "egg x-1", "x-1"),
            ("e/lib/x-1.dist-info/WHEEL", "environment tool", "x-1 (environment tool)"),
            ("e/x-1-py3.11-linux-x86_64.egg/EGG-INFO/WHEEL", "data", "x-1 (data)"),
        ):
            (text,) = self.complaints(file(path, tag, group))
            self.assertEqual(text.partition(" is built")[0], name)

    def test_packages_of_the_distribution_are_taken_on_trust(self) -> None:
        entry = wheel("x-1", "cp312-cp312-linux_x86_64", group="packages")
        self.assertEqual(self.complaints(entry), [])

    def test_what_this_python_has_fits_this_python(self) -> None:
        """No false alarm: every wheel that an installer has found fit here."""
        if not sys.platform.startswith("linux"):
            self.skipTest("an image's Python is one of Linux")
        names = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "armv7l": "arm"}
        entries = [
            disk_file(os.fspath(path).lstrip("/"), path, group="egg x", reason="t")
            for place in sys.path
            for path in pathlib.Path(place).glob("*.dist-info/WHEEL")
        ]
        self.assertTrue(entries)
        machine = platform.machine()
        family, version = platform.libc_ver()
        libc = (
            CLibrary("glibc", (int(version.split(".")[0]), int(version.split(".")[1])))
            if family == "glibc"
            else CLibrary("musl")
        )
        self.assertEqual(
            self.complaints(
                *entries,
                version=sys.version_info[:2],
                architecture=names.get(machine, machine),
                libc=libc,
                abiflags=sys.abiflags,
            ),
            [],
        )
