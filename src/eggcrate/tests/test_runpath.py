"""Search paths of ELF files in place: what changes, what does not, and that it works."""

from __future__ import annotations

import io
import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable
from typing import Any

from eggcrate.payload.libraries import read_binary
from eggcrate.payload.relocation import Relocation, Rule
from eggcrate.payload.runpath import relocated_search_path
from eggcrate.tests.test_libraries import (
    AARCH64,
    ARM,
    I386,
    S390,
    X86_64,
    by_pyelftools,
    crafted,
    local_files,
)

HERE, THERE = "/srv/somebody/build/shop", "/var/application"
RELOCATION = Relocation((Rule(HERE, THERE),))


def relocated(data: bytes, relocate: Callable[[bytes], bytes] = RELOCATION.text) -> bytes:
    found = relocated_search_path(data, relocate)
    assert found is not None
    return found


def search(data: bytes) -> tuple[str, ...]:
    binary = read_binary(io.BytesIO(data))
    assert binary is not None
    return binary.search


class Relocated(unittest.TestCase):
    def test_each_directory_of_either_path(self) -> None:
        path = f"{HERE}/parts/lib:$ORIGIN/../x:{HERE}-old:{HERE}"
        there = (f"{THERE}/parts/lib", "$ORIGIN/../x", f"{HERE}-old", THERE)
        for data in (crafted(runpath=path), crafted(rpath=path)):
            found = relocated(data)
            self.assertEqual(len(found), len(data))
            self.assertEqual(search(found), there)

    def test_both_paths_at_once(self) -> None:
        for rpath in (f"{HERE}/one", f"{HERE}/two"):
            found = relocated(crafted(runpath=f"{HERE}/two", rpath=rpath))
            self.assertNotIn(HERE.encode(), found)

    def test_nothing_else_changes(self) -> None:
        options: dict[str, Any] = {
            "needed": ("libone.so.1", "libc.so.6"),
            "soname": "libtwo.so",
            "versions": {"libone.so.1": ("ONE_1",)},
            "provides": ("libtwo.so", "TWO_1"),
            "symbols": ("one", "two", "shop_init"),
        }
        for wide, order, machine in (
            (True, "<", X86_64),
            (True, "<", AARCH64),
            (False, "<", I386),
            (False, "<", ARM),
            (True, ">", S390),
            (False, ">", 20),
        ):
            for sections, hashed in ((True, True), (False, True), (True, False)):
                data = crafted(
                    wide=wide,
                    order=order,
                    machine=machine,
                    sections=sections,
                    hashed=hashed,
                    runpath=f"{HERE}/lib",
                    **options,
                )
                found = relocated(data)
                old, new = f"{HERE}/lib".encode(), f"{THERE}/lib".encode()
                # padded at its length, and no byte of anything else
                self.assertEqual(found, data.replace(old, new.ljust(len(old), b"\0")))
                if sections:
                    before, after = by_pyelftools(data), by_pyelftools(found)
                    self.assertEqual(after[2], (f"{THERE}/lib",))
                    self.assertEqual((*before[:2], *before[3:]), (*after[:2], *after[3:]))

    def test_a_path_may_become_empty(self) -> None:
        self.assertEqual(search(relocated(crafted(runpath="/x/y"), lambda path: b"")), ())

    def test_without_a_path_of_ours_it_is_the_same(self) -> None:
        for data in (
            crafted(),
            crafted(runpath="$ORIGIN"),
            crafted(static=True),
            # where they can't be changed, neither
            crafted(rpath=f"{HERE}2/lib", symbols=["lib"]),
        ):
            self.assertIs(relocated(data), data)

    def test_real_files_stay_whole(self) -> None:
        if not sys.platform.startswith("linux"):
            self.skipTest("ELF files are those of Linux")
        for path in local_files():
            data = path.read_bytes()
            if not search(data):
                continue
            found = relocated_search_path(data, lambda _: b"/x")
            with self.subTest(path.name):
                assert found is not None
                before, after = by_pyelftools(data), by_pyelftools(found)
                self.assertEqual(after[2], ("/x",))
                self.assertEqual((*before[:2], *before[3:]), (*after[:2], *after[3:]))
                self.assertEqual(symbols(found), symbols(data))


def symbols(data: bytes) -> list[str]:
    from elftools.elf.elffile import ELFFile

    elf: Any = ELFFile(io.BytesIO(data))
    table = elf.get_section_by_name(".dynsym")
    return [symbol.name for symbol in table.iter_symbols()] if table else []


class Refused(unittest.TestCase):
    def refused(
        self, data: bytes, relocate: Callable[[bytes], bytes] = RELOCATION.text
    ) -> None:
        self.assertIsNone(relocated_search_path(data, relocate))

    def test_a_path_that_becomes_longer(self) -> None:
        data = crafted(runpath="/srv/lib")
        self.refused(data, lambda path: path + b"x")
        # one of equal length does not
        self.assertEqual(search(relocated(data, lambda path: b"/opt/lib")), ("/opt/lib",))

    def test_a_name_that_lies_in_the_path(self) -> None:
        path = f"{HERE}/lib/libone.so.1"
        options: dict[str, Any]
        for options in (
            {"symbols": ["one.so.1"]},
            {"symbols": [path]},
            {"needed": ["libone.so.1"]},
            {"soname": "libone.so.1"},
            {"provides": ["libone.so.1", "ONE"]},
            {"provides": ["ONE", ".so.1"]},
            {"versions": {"libone.so.1": ("ONE",)}},
            {"versions": {"libc.so.6": ("ONE", "1")}},
            {"rpath": f"{path[:-1]}1"[5:]},
        ):
            for sections, hashed in ((True, True), (False, True), (True, False)):
                with self.subTest(options=options, sections=sections):
                    self.refused(
                        crafted(runpath=path, sections=sections, hashed=hashed, **options)
                    )

    def test_a_name_that_the_path_lies_in(self) -> None:
        self.refused(crafted(first=[f"x{HERE}/lib"], runpath=f"{HERE}/lib"))
        self.refused(crafted(first=[f"{HERE}/lib"], runpath=f"{HERE}/lib"))

    def test_names_beside_the_path_do_not_matter(self) -> None:
        data = crafted(first=[f"x{HERE}", ""], runpath=f"{HERE}/lib", symbols=["", "x"])
        self.assertEqual(search(relocated(data)), (f"{THERE}/lib",))

    def test_a_symbol_table_of_unknown_length(self) -> None:
        self.refused(crafted(runpath=f"{HERE}/lib", sections=False, hashed=False))

    def test_what_is_no_whole_elf_file(self) -> None:
        data = crafted(runpath=f"{HERE}/lib", versions={"l": ("V",)}, symbols=["x"])
        for size in range(len(data)):
            self.refused(data[:size])
        for wrong in (b"#!/bin/sh\n" + HERE.encode(), b"\x7fELF" + HERE.encode()):
            self.refused(wrong)

    def test_tables_that_lead_nowhere(self) -> None:
        for tag in (4, 6, 0x6FFFFFFE):
            data = crafted(runpath=f"{HERE}/lib", versions={"l": ("V",)}, tags={tag: 1 << 40})
            with self.subTest(tag=tag):
                self.refused(data)


class Loaded(unittest.TestCase):
    """The loader of this machine finds a library by the path that was relocated."""

    def setUp(self) -> None:
        if not sys.platform.startswith("linux"):
            self.skipTest("ELF files are loaded on Linux")
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.scratch = pathlib.Path(scratch.name).resolve()

    def test_a_library_is_found_in_its_new_place(self) -> None:
        build, image = self.scratch / "the/place/of/the/build", self.scratch / "image"
        relocation = Relocation((Rule(str(build), str(image)),))
        for directory in (build / "lib", image / "lib"):
            directory.mkdir(parents=True)
        library = self.native(soname="libneeded.so")
        for option in ("runpath", "rpath"):
            path = f"/nosuch:{build}/none:{build}/lib:$ORIGIN/none"
            data = self.native(needed=["libneeded.so"], **{option: path})
            before, after = self.scratch / f"{option}.so", self.scratch / f"{option}2.so"
            before.write_bytes(data)
            after.write_bytes(relocated(data, relocation.text))
            for place, works in ((build, [before]), (image, [after]), (None, [])):
                if place:
                    (place / "lib/libneeded.so").write_bytes(library)
                for module in (before, after):
                    with self.subTest(option=option, place=place, module=module.name):
                        complaint = self.loaded(module)
                        if module in works:
                            self.assertEqual(complaint, "")
                        else:
                            self.assertIn("libneeded.so", complaint)
                if place:
                    (place / "lib/libneeded.so").unlink()

    def native(self, **options: Any) -> bytes:
        """A shared object for the Python that runs this."""
        with open(sys.executable, "rb") as stream:
            header = stream.read(64)
        wide, order = header[4] == 2, "<" if header[5] == 1 else ">"
        (machine,) = struct.unpack(f"{order}H", header[18:20])
        place = 48 if wide else 36
        (flags,) = struct.unpack(f"{order}I", header[place : place + 4])
        return crafted(wide=wide, order=order, machine=machine, flags=flags, **options)

    def loaded(self, module: pathlib.Path) -> str:
        """What the loader has to say of a module; nothing when it is loaded."""
        program = (
            "import ctypes, sys\n"
            "try:\n    ctypes.CDLL(sys.argv[1])\n"
            "except OSError as error:\n    print(error)\n"
        )
        command = [sys.executable, "-c", program, str(module)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
