"""What ELF files need, and whether the image has it; with objects of a real compiler."""

from __future__ import annotations

import functools
import io
import pathlib
import platform
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterable

from eggcrate.errors import EggcrateError, PlanError
from eggcrate.image.plan import FileEntry, bytes_file, directory, merge, symlink
from eggcrate.image.store import Store
from eggcrate.payload.libraries import (
    MULTIARCH,
    Binary,
    Linker,
    binaries,
    check_extension_modules,
    check_interpreters,
    check_libraries,
    read_binary,
)

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "ppc64le": "ppc64le"}.get(
    platform.machine(), platform.machine()
)
LIB = f"usr/lib/{MULTIARCH.get(ARCHITECTURE, ARCHITECTURE)}"


def file(path: str, data: bytes = b"x", group: str = "egg x-1") -> FileEntry:
    return bytes_file(path, data, group=group, reason="test", mode=0o755)


def link(path: str, linkname: str) -> FileEntry:
    return symlink(path, linkname, group="packages", reason="test")


class NeedsCompiler(unittest.TestCase):
    def setUp(self) -> None:
        if not sys.platform.startswith("linux"):
            self.skipTest("ELF files are made on Linux")
        if shutil.which("gcc") is None:
            self.skipTest("there is no compiler: apt install gcc libc6-dev")


@functools.cache
def compiled(kind: str) -> bytes:
    """A small object: ``one`` defines a versioned symbol, ``two`` needs it, and so on."""
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch)

        def gcc(output: str, source: str, *options: str) -> bytes:
            (root / f"{output}.c").write_text(source)
            command = [
                "gcc",
                "-o",
                output,
                f"{output}.c",
                "-L.",
                "-Wl,--no-as-needed",
                *options,
            ]
            subprocess.run(command, cwd=root, check=True)
            return (root / output).read_bytes()

        (root / "map").write_text("ONE_1 { global: one; local: *; };\n")
        (root / "map2").write_text("ONE_1 { global: one; };\nONE_2 { global: more; };\n")
        shared = ("-shared", "-fPIC")
        one = ("-Wl,-soname,libone.so.1", "-nostdlib")
        if kind == "one":
            return gcc(
                "libone.so", "int one() {return 1;}", *shared, *one, "-Wl,--version-script=map"
            )
        both = gcc(
            "libone.so",
            "int one() {return 1;} int more() {return 2;}",
            *(*shared, *one, "-Wl,--version-script=map2"),
        )
        if kind == "one newer":
            return both
        if kind == "two":
            search = "-Wl,--enable-new-dtags,-rpath,$ORIGIN/../libs:/opt/lib"
            source = "int more(); int two() {return more();}"
            return gcc("libtwo.so", source, *shared, "-nostdlib", "-lone", search)
        if kind == "rpath":
            search = "-Wl,--disable-new-dtags,-rpath,$ORIGIN"
            source = "int one(); int two() {return one();}"
            return gcc("libtwo.so", source, *shared, "-nostdlib", "-lone", search)
        if kind == "static":
            return gcc("static", "void _start() {}", "-static", "-nostdlib", "-no-pie")
        if kind == "object":
            return gcc("object.o", "int x;", "-c")
        assert kind == "program", kind
        return gcc("program", "int main() {return 0;}")


class Reading(NeedsCompiler):
    def read(self, kind: str) -> Binary | None:
        return read_binary(io.BytesIO(compiled(kind)))

    def test_what_a_library_defines(self) -> None:
        found = self.read("one")
        assert found is not None
        self.assertEqual((found.machine, found.soname), (ARCHITECTURE, "libone.so.1"))
        self.assertIn("ONE_1", found.provides)
        self.assertEqual((found.needed, found.search, found.interpreter), ((), (), ""))

    def test_what_it_needs_and_where_it_looks(self) -> None:
        found = self.read("two")
        assert found is not None
        self.assertEqual(found.needed, ("libone.so.1",))
        self.assertEqual(found.search, ("$ORIGIN/../libs", "/opt/lib"))
        self.assertEqual(found.versions, (("libone.so.1", ("ONE_2",)),))

    def test_an_rpath_counts_where_there_is_no_runpath(self) -> None:
        found = self.read("rpath")
        assert found is not None
        self.assertEqual(found.search, ("$ORIGIN",))

    def test_a_program_names_its_loader(self) -> None:
        found = self.read("program")
        assert found is not None
        self.assertIn("/ld", found.interpreter)
        self.assertIn("libc.so.6", found.needed)

    def test_what_needs_nothing_is_nothing(self) -> None:
        self.assertIsNone(self.read("static"))
        self.assertIsNone(self.read("object"))
        for data in (b"", b"\x7fEL", b"#!/bin/sh\n", b"MZ" + bytes(100)):
            self.assertIsNone(read_binary(io.BytesIO(data)))

    def test_a_file_that_is_cut_off_is_an_error(self) -> None:
        for size in (5, 20, 64, 200):
            with self.assertRaises(PlanError):
                read_binary(io.BytesIO(compiled("program")[:size]))

    def test_an_impossible_offset_is_an_error(self) -> None:
        for position in (0x20, 0x28):  # e_phoff and e_shoff of a 64-bit header
            data = bytearray(compiled("two"))
            data[position : position + 8] = b"\xff" * 8
            with self.assertRaises(PlanError):
                read_binary(io.BytesIO(data))

    def test_it_is_read_once(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            store = Store(pathlib.Path(scratch))
            entries = [file("a.so", compiled("two")), file("b.so", compiled("one"))]
            entries += [file("c", compiled("static")), file("d", b"text" * 100)]
            tree = merge(entries)
            first = binaries(tree, store)
            self.assertEqual(sorted(first), ["a.so", "b.so"])
            self.assertEqual(binaries(tree, store), first)
            self.assertEqual(binaries(tree), first)


class Linking(unittest.TestCase):
    def binary(self, *search: str) -> Binary:
        return Binary(ARCHITECTURE, "", (), search, "", (), ())

    def find(self, entries: Iterable[FileEntry], path: str, *search: str) -> str | None:
        return Linker(merge(entries), ARCHITECTURE).find("l.so", self.binary(*search), path)

    def test_where_the_loader_looks(self) -> None:
        for place in (LIB, "usr/lib", "lib", f"lib/{MULTIARCH[ARCHITECTURE]}", "lib64"):
            self.assertEqual(self.find([file(f"{place}/l.so")], "x/y.so"), f"{place}/l.so")

    def test_its_own_path_comes_first(self) -> None:
        entries = [file("x/libs/l.so"), file(f"{LIB}/l.so")]
        for search in ("$ORIGIN/libs", "${ORIGIN}/../x/libs", "/x/libs"):
            self.assertEqual(self.find(entries, "x/y.so", search), "x/libs/l.so", search)
        self.assertEqual(self.find(entries, "x/y.so"), f"{LIB}/l.so")

    def test_links_are_followed(self) -> None:
        entries = [
            link("lib", "usr/lib"),
            link("usr/lib/l.so", "l.so.1"),
            file("usr/lib/l.so.1"),
        ]
        self.assertEqual(self.find(entries, "x"), "usr/lib/l.so.1")

    def test_a_library_that_dangles_is_not_there(self) -> None:
        self.assertIsNone(self.find([link("usr/lib/x.so", "none")], "x"))

    def test_a_loaded_library_may_lie_anywhere(self) -> None:
        self.assertEqual(self.find([file("egg/x.libs/l.so")], "egg/x/y.so"), "egg/x.libs/l.so")


class Checking(NeedsCompiler):
    def complaints(self, *entries: FileEntry) -> list[EggcrateError]:
        return check_libraries(
            merge(entries),
            architecture=ARCHITECTURE,
            package_for=lambda library: "libone1" if library == "libone.so.1" else None,
        )

    def test_a_missing_library_is_named_with_its_package(self) -> None:
        (error,) = self.complaints(
            file("egg/a.so", compiled("two")), file("egg/b.so", compiled("rpath"))
        )
        self.assertEqual(
            error.what,
            "/egg/a.so and 1 more needs the library libone.so.1, which no layer provides",
        )
        self.assertEqual(error.hint, "add libone1 to os-packages")

    def test_an_unknown_library_has_a_hint_too(self) -> None:
        loader = read_binary(io.BytesIO(compiled("program")))
        assert loader is not None
        errors = self.complaints(
            file("bin/program", compiled("program")), file(loader.interpreter.lstrip("/"))
        )
        self.assertEqual(
            [error.hint for error in errors],
            ["add the package that provides it to os-packages"] * len(loader.needed),
        )

    def test_a_library_that_is_there_is_fine(self) -> None:
        self.assertEqual(
            self.complaints(
                file("egg/a.so", compiled("two")),
                file(f"{LIB}/libone.so.1.2", compiled("one newer"), "packages"),
                link(f"{LIB}/libone.so.1", "libone.so.1.2"),
            ),
            [],
        )

    def test_one_that_is_too_old_is_not(self) -> None:
        (error,) = self.complaints(
            file("egg/a.so", compiled("two")),
            file(f"{LIB}/libone.so.1", compiled("one"), "packages"),
        )
        self.assertEqual(
            error.what,
            "/egg/a.so needs ONE_2 of libone.so.1, and the one in the image is older",
        )

    def test_a_missing_loader_is_named(self) -> None:
        found = [error.what for error in self.complaints(file("p", compiled("program")))]
        self.assertTrue(any("/p needs the loader /" in what for what in found), found)

    def test_another_machine_s_file_is_named(self) -> None:
        other = "arm64" if ARCHITECTURE != "arm64" else "amd64"
        errors = check_libraries(
            merge([file("egg/a.so", compiled("one"))]),
            architecture=other,
            package_for=lambda library: None,
        )
        self.assertEqual(
            [error.what for error in errors],
            [f"/egg/a.so is built for {ARCHITECTURE}, and the image for {other}"],
        )

    def test_packages_of_the_distribution_are_taken_on_trust(self) -> None:
        self.assertEqual(self.complaints(file("x.so", compiled("two"), "packages")), [])

    def test_a_damaged_file_is_named(self) -> None:
        with self.assertRaises(PlanError) as caught:
            self.complaints(file("egg/a.so", compiled("two")[:200]))
        self.assertTrue(
            caught.exception.what.startswith("/egg/a.so: an ELF file can't be read")
        )


class ExtensionModules(unittest.TestCase):
    def complaints(self, *names: str, version: tuple[int, int] = (3, 11)) -> list[str]:
        return [
            error.what for error in check_extension_modules(map(file, names), version=version)
        ]

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
        ):
            self.assertEqual(
                self.complaints(f"e/a.{tag}.so"),
                [f"/e/a.{tag}.so is built for {tag}, and the image's Python is 3.11"],
            )

    def test_a_free_threaded_or_debug_python_is_another(self) -> None:
        for tag in ("cpython-313t-x86_64-linux-gnu", "cpython-313d"):
            self.assertEqual(len(self.complaints(f"e/a.{tag}.so", version=(3, 13))), 1, tag)

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
    def complaints(self, *lines: bytes) -> list[str]:
        tree = merge([file("usr/bin/python3.11"), link("usr/bin/python3", "python3.11")])
        tree.update(merge([link("bin", "usr/bin"), directory("x", group="data", reason="t")]))
        scripts = [(file(f"s{number}"), line) for number, line in enumerate(lines)]
        return [error.what for error in check_interpreters(scripts, tree)]

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
