"""Byte-code: what Python would have compiled, and the same on every run."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import marshal
import os
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest
from unittest import mock

from eggcrate.errors import PlanError
from eggcrate.image.plan import FileEntry, bytes_file, disk_file
from eggcrate.image.store import Store
from eggcrate.payload import bytecode
from eggcrate.payload.bytecode import bytecode_entries, compiled

SOURCE = b'''"""A module."""
from __future__ import annotations
import os

NAMES = {"one", "two"}
BIG = (10**30, 1.5, 2j, b"bytes", None, ..., ("nested", ("tuple", -1)))


def outer(a: int, *, b: str = "default") -> object:
    """Its documentation."""
    if b in {"alpha", "beta", "gamma", "delta"}:
        return None

    def inner() -> str:
        return f"{a} {b!r} {os.sep}"

    return inner


class Thing:
    attribute = lambda self: [x for x in (1, 2, 3) if x]
'''

# Compiles modules of the standard library, in a process in which other things are loaded,
# and prints the digests.  With a seed of its own the order of a frozen set is another in
# Python 3.10; how the compiler is started sees to that.
_COMPILER = """
import hashlib, importlib, json, pathlib, sys
names = json.loads(sys.argv[1])
for name in sys.argv[2].split():
    importlib.import_module(name)
from eggcrate.payload.bytecode import compiled
found = {}
for name in names:
    data = compiled(pathlib.Path(name).read_bytes(), f"/lib/{pathlib.Path(name).name}")
    found[name] = data and hashlib.sha256(data).hexdigest()
print(json.dumps(found, sort_keys=True))
"""


def module(path: str, source: bytes) -> FileEntry:
    return bytes_file(path, source, group="develop shop", reason="test")


class Compiled(unittest.TestCase):
    def code(self, data: bytes | None) -> types.CodeType:
        assert data is not None
        code = marshal.loads(data[16:])
        assert isinstance(code, types.CodeType)
        return code

    def test_the_header_is_that_of_an_unchecked_hash(self) -> None:
        data = compiled(b"x = 1\n", "/srv/x.py")
        assert data is not None
        self.assertEqual(data[:4], importlib.util.MAGIC_NUMBER)
        self.assertEqual(data[4:8], b"\x01\x00\x00\x00")
        self.assertEqual(data[8:16], importlib.util.source_hash(b"x = 1\n"))

    def test_the_file_name_is_that_of_the_image_everywhere(self) -> None:
        pending = [self.code(compiled(SOURCE, "/srv/x.py"))]
        while pending:
            code = pending.pop()
            self.assertEqual(code.co_filename, "/srv/x.py")
            pending += [item for item in code.co_consts if isinstance(item, types.CodeType)]

    def test_it_does_what_the_source_does(self) -> None:
        found: dict[str, object] = {"__name__": "x"}
        exec(self.code(compiled(SOURCE, "/srv/x.py")), found)
        self.assertEqual(found["NAMES"], {"one", "two"})
        self.assertEqual(found["BIG"][0], 10**30)  # type: ignore[index]  # a namespace is of objects
        outer = found["outer"]
        assert isinstance(outer, types.FunctionType)
        self.assertEqual(outer.__doc__, "Its documentation.")
        self.assertEqual(outer(1)(), f"1 'default' {os.sep}")
        self.assertIsNone(outer(1, b="beta"))
        self.assertEqual(outer.__annotations__["a"], "int")

    def test_asserts_and_documentation_stay(self) -> None:
        code = self.code(compiled(b'"""Text."""\nassert False\n', "/x.py"))
        with self.assertRaises(AssertionError):
            exec(code, {})

    def test_the_future_of_this_process_does_not_leak(self) -> None:
        # this module has postponed annotations; the compiled one has not
        found: dict[str, object] = {}
        exec(self.code(compiled(b"def f(a: 1 + 1): pass\n", "/x.py")), found)
        self.assertEqual(found["f"].__annotations__, {"a": 2})

    def test_what_does_not_compile_has_none(self) -> None:
        for source in (
            *(b"print 'x'\n", b"{% template %}\n", b"\x00", b"\xff = 1\n"),
            *(b"# coding: unknown\n", b"(" * 1000, b"-" * 200_000 + b"1"),
        ):
            self.assertIsNone(compiled(source, "/x.py"), source[:20])

    def test_a_declared_encoding_holds(self) -> None:
        found: dict[str, object] = {}
        exec(self.code(compiled(b"# coding: latin-1\nx = '\xe9'\n", "/x.py")), found)
        self.assertEqual(found["x"], "é")


class Determinism(unittest.TestCase):
    def digests(self, seed: str, preload: str, *, backwards: bool = False) -> dict[str, str]:
        library = pathlib.Path(os.__file__).parent
        names = [os.fspath(path) for path in sorted(library.glob("[a-c]*.py"))]
        names += [os.fspath(path) for path in sorted((library / "email").glob("*.py"))]
        if backwards:
            names.reverse()
        package = pathlib.Path(bytecode.__file__).parents[2]
        output = subprocess.run(
            [sys.executable, "-c", _COMPILER, json.dumps(names), preload],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.fspath(package)},
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        found = json.loads(output)
        assert isinstance(found, dict)
        return found

    def test_what_else_a_process_has_loaded_does_not_matter(self) -> None:
        self.assertEqual(
            self.digests("0", ""),
            self.digests("0", "email.message http.client asyncio ctypes", backwards=True),
        )

    if sys.version_info >= (3, 11):  # Python 3.10 writes sets in their own order

        def test_the_hash_seed_does_not_matter(self) -> None:
            self.assertEqual(self.digests("1", ""), self.digests("2", "json"))


class Entries(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.store = Store(self.root / "store")

    def test_each_module_has_its_file_beside_it(self) -> None:
        modules = [
            module("srv/shop/__init__.py", b""),
            module("srv/shop/views.py", SOURCE),
            module("srv/shop/template.py", b"{% x %}"),
            module("srv/top.py", b"x = 1\n"),
        ]
        entries = bytecode_entries(modules, self.store)
        tag = sys.implementation.cache_tag
        self.assertEqual(
            [(entry.path, entry.mode, entry.group) for entry in entries],
            [
                (f"srv/{name}.{tag}.pyc", 0o644, "develop shop")
                for name in (
                    "shop/__pycache__/__init__",
                    "shop/__pycache__/views",
                    "__pycache__/top",
                )
            ],
        )
        for entry in entries:
            with entry.open() as stream:
                data = stream.read()
            self.assertEqual(entry.size, len(data))
            self.assertEqual(entry.digest, hashlib.sha256(data).hexdigest())

    def test_python_takes_it(self) -> None:
        source = self.root / "views.py"
        source.write_bytes(b"x = 'source'\n")
        path = os.fspath(source).lstrip("/")
        (entry,) = bytecode_entries([module(path, b"x = 'byte-code'\n")], self.store)
        target = pathlib.Path("/", entry.path)
        target.parent.mkdir()
        with entry.open() as stream:
            target.write_bytes(stream.read())
        output = subprocess.run(
            [sys.executable, "-c", "import views; print(views.x, views.__cached__)"],
            cwd=self.root,
            env={**os.environ, "PYTHONPATH": ""},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
        self.assertEqual(output, f"byte-code {target}\n")

    def test_it_is_made_once(self) -> None:
        modules = [module("a.py", b"x = 1\n"), module("b.py", b"{% x %}")]
        first = bytecode_entries(modules, self.store)
        for entry in first:
            assert entry.source is not None
            os.utime(entry.source, (1, 1))
        self.assertEqual(bytecode_entries(modules, self.store), first)
        for entry in first:
            assert entry.source is not None
            self.assertEqual(os.stat(entry.source).st_mtime, 1)

    def test_a_blob_that_is_gone_is_made_again(self) -> None:
        modules = [module("a.py", b"x = 1\n")]
        (first,) = bytecode_entries(modules, self.store)
        assert first.source is not None
        os.unlink(first.source)
        self.assertEqual(bytecode_entries(modules, self.store), [first])
        self.assertTrue(os.path.exists(first.source))

    def test_a_path_is_a_part_of_it(self) -> None:
        one, two = bytecode_entries(
            [module("a/x.py", b"x = 1\n"), module("b/x.py", b"x = 1\n")], self.store
        )
        self.assertNotEqual(one.digest, two.digest)

    def test_bytes_here_and_on_disk_make_the_same(self) -> None:
        source = self.root / "x.py"
        source.write_bytes(SOURCE)
        on_disk = disk_file("a/x.py", source, group="develop shop", reason="test")
        (one,) = bytecode_entries([on_disk], self.store)
        (two,) = bytecode_entries([module("a/x.py", SOURCE)], Store(self.root / "other"))
        self.assertEqual(one.digest, two.digest)

    def test_hash_seed_order_and_directory_do_not_matter(self) -> None:
        script = (
            "import json, pathlib, sys\n"
            "from eggcrate.image.plan import bytes_file\n"
            "from eggcrate.image.store import Store\n"
            "from eggcrate.payload.bytecode import bytecode_entries\n"
            "source = pathlib.Path(sys.argv[1]).read_bytes()\n"
            "names = sys.argv[3].split()\n"
            "modules = [bytes_file(n, source, group='data', reason='t') for n in names]\n"
            "store = Store(pathlib.Path(sys.argv[2]))\n"
            "entries = bytecode_entries(modules, store)\n"
            "print(json.dumps(sorted([e.path, e.digest] for e in entries)))\n"
        )
        (self.root / "source").write_bytes(SOURCE)
        package = pathlib.Path(bytecode.__file__).parents[2]
        outputs = {
            subprocess.run(
                [sys.executable, "-c", script, self.root / "source", self.root / seed, names],
                env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.fspath(package)},
                cwd=place,
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
            for seed, names, place in (
                ("1", "a.py b.py c.py", "/"),
                ("2", "c.py b.py a.py", self.root),
            )
        }
        self.assertEqual(len(outputs), 1)

    def test_a_source_that_changes_after_the_plan_is_an_error(self) -> None:
        source = self.root / "x.py"
        source.write_bytes(b"x = 1\n")
        modules = [disk_file("a/x.py", source, group="develop shop", reason="test")]
        source.write_bytes(b"x = 2\n")
        with self.assertRaises(PlanError) as caught:
            bytecode_entries(modules, self.store)
        self.assertEqual(caught.exception.what, f"{source} changed while it was read")
        # and it is not kept as the byte-code of what was planned
        source.write_bytes(b"x = 1\n")
        (entry,) = bytecode_entries(modules, self.store)
        with entry.open() as stream:
            self.assertEqual(stream.read(), compiled(b"x = 1\n", "/a/x.py"))

    def test_a_store_that_can_t_be_written_is_one_sentence(self) -> None:
        (self.root / "file").write_bytes(b"")
        source = self.root / "x.py"
        source.write_bytes(b"x = 1\n")
        entry = disk_file("a/x.py", source, group="develop shop", reason="test")
        with self.assertRaises(PlanError) as caught:
            bytecode_entries([entry], Store(self.root / "file/store"))
        self.assertIn("can't be written", caught.exception.what)

    def test_the_user_s_variables_do_not_matter(self) -> None:
        digests = set()
        for number, changes in enumerate(
            ({}, {"PYTHONNODEBUGRANGES": "1", "PYTHONOPTIMIZE": "2", "PYTHONUTF8": "1"})
        ):
            with mock.patch.dict(os.environ, changes):
                store = Store(self.root / f"store{number}")
                (entry,) = bytecode_entries([module("a/x.py", SOURCE)], store)
            digests.add(entry.digest)
        self.assertEqual(len(digests), 1)

    def test_nothing_to_compile_starts_nothing(self) -> None:
        self.assertEqual(bytecode_entries([], self.store), [])
        self.assertFalse(self.store.root.exists())
