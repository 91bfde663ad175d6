"""The Python of an image: named, and packed from the one that runs this."""

from __future__ import annotations

import functools
import os
import pathlib
import platform
import subprocess
import sys
import tempfile
import unittest

from eggcrate.image.plan import FileEntry, FileType, bytes_file, merge
from eggcrate.payload import interpreter
from eggcrate.payload.libraries import MULTIARCH, read_binary

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "ppc64le": "ppc64le"}.get(
    platform.machine(), platform.machine()
)
VERSION = f"{sys.version_info[0]}.{sys.version_info[1]}"


class Names(unittest.TestCase):
    def test_debian_s(self) -> None:
        found = interpreter.debian_interpreter((3, 11))
        self.assertEqual(found.program, "/usr/bin/python3.11")
        self.assertEqual(found.cache_tag, "cpython-311")

    def test_this_one(self) -> None:
        found = interpreter.host_interpreter()
        self.assertEqual(found.program, f"/usr/local/bin/python{VERSION}")
        self.assertEqual(found.cache_tag, sys.implementation.cache_tag)

    def test_every_name_of_this_one_leads_to_the_image_s(self) -> None:
        found = interpreter.debian_interpreter((3, 11))
        rules = list(interpreter.host_rules(found))
        self.assertEqual({rule.target for rule in rules}, {found.program})
        sources = {rule.source for rule in rules}
        self.assertIn(sys.executable, sources)
        for name in ("python", "python3", "python3.11"):
            self.assertIn(f"{sys.base_prefix}/bin/{name}", sources)


# what every base has
C_LIBRARY = (
    *("libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1"),
    *("libutil.so.1", "libcrypt.so.1", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"),
)


@functools.cache
def packed() -> tuple[FileEntry, ...]:
    """This Python, for an image that has the C library."""
    lib = f"usr/lib/{MULTIARCH[ARCHITECTURE]}"
    tree = merge(
        bytes_file(f"{lib}/{name}", b"", group="packages", reason="t") for name in C_LIBRARY
    )
    return tuple(interpreter.host_entries(tree, ARCHITECTURE))


@unittest.skipUnless(sys.platform.startswith("linux"), "an image's interpreter is one of Linux")
class Packed(unittest.TestCase):
    def setUp(self) -> None:
        self.entries = packed()

    def test_each_path_once_below_usr(self) -> None:
        tree = merge(self.entries)
        paths = [entry.path for entry in self.entries]
        self.assertEqual(len(paths), len(set(paths)))
        self.assertEqual({path.split("/")[0] for path in paths}, {"usr"})
        self.assertEqual({entry.group for entry in self.entries}, {"python"})
        self.assertIs(tree[f"usr/local/bin/python{VERSION}"].type, FileType.REGULAR)
        self.assertEqual(tree["usr/local/bin/python3"].linkname, f"python{VERSION}")

    def test_what_only_weighs_stays_out(self) -> None:
        names = {part for entry in self.entries for part in entry.path.split("/")}
        unwanted = {"test", "idlelib", "tkinter", "__pycache__", "ensurepip", "site-packages"}
        self.assertEqual(names & unwanted, set())
        self.assertIn("asyncio", names)
        self.assertIn("encodings", names)

    def test_the_c_library_is_the_base_s(self) -> None:
        names = {entry.path.rpartition("/")[2] for entry in self.entries}
        self.assertEqual(names & {*C_LIBRARY}, set())

    def test_where_there_is_none_it_comes_with_what_loads_it(self) -> None:
        entries = {entry.path: entry for entry in interpreter.host_entries({}, ARCHITECTURE)}
        with entries[f"usr/local/bin/python{VERSION}"].open() as stream:
            binary = read_binary(stream)
        assert binary is not None
        self.assertIn(binary.interpreter.strip("/"), entries)
        self.assertIn(f"usr/lib/{MULTIARCH[ARCHITECTURE]}/libc.so.6", entries)

    def test_no_path_of_this_machine_remains(self) -> None:
        if sys.base_prefix in ("/usr", "/usr/local"):
            return  # every image has these
        prefix = os.fsencode(sys.base_prefix)
        for entry in self.entries:
            if entry.type is FileType.REGULAR:
                with entry.open() as stream:
                    self.assertFalse(prefix in stream.read(), entry.path)

    def test_it_runs_elsewhere(self) -> None:
        with tempfile.TemporaryDirectory() as scratch:
            root = pathlib.Path(scratch)
            for entry in self.entries:
                path = root / entry.path
                path.parent.mkdir(parents=True, exist_ok=True)
                if entry.type is FileType.SYMLINK:
                    path.symlink_to(entry.linkname)
                else:
                    with entry.open() as stream:
                        path.write_bytes(stream.read())
                    path.chmod(entry.mode)
            output = subprocess.run(
                [
                    root / "usr/local/bin/python3",
                    *("-I", "-c"),
                    "import sys, json, hashlib, asyncio, sqlite3, zlib; print(sys.prefix)",
                ],
                env={"LD_LIBRARY_PATH": os.fspath(root / "usr/lib" / MULTIARCH[ARCHITECTURE])},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            ).stdout
            self.assertEqual(output, f"{root.resolve()}/usr/local\n")
