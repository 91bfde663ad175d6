"""What the last build remembers: the next one makes the same image as one from nothing."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time
import unittest
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import eggcrate.build
import eggcrate.planning
from eggcrate import record
from eggcrate.build import Outcome, before_last, build, last
from eggcrate.errors import EggcrateError, PlanError
from eggcrate.image import compression, layout
from eggcrate.image.layout import Image, make_image
from eggcrate.image.oci import reference
from eggcrate.image.plan import FileEntry, bytes_file, directory, symlink
from eggcrate.image.store import Store
from eggcrate.payload import bytecode, files
from eggcrate.payload.files import Files
from eggcrate.payload.interpreter import Interpreter, debian_interpreter, this_version
from eggcrate.payload.relocation import Relocation
from eggcrate.payload.site import Include, Part, Site
from eggcrate.planning import Planned, plan_image
from eggcrate.settings import ImageSettings, this_platform
from eggcrate.tests import layers
from eggcrate.tests.validator import validate

# A changed file that was written so many nanoseconds ago shows every later change, when the
# tests wait as many seconds before each build.
_TICK, _WAIT = 15_000_000, 0.03

PROGRAM = f"usr/bin/python{sys.version_info[0]}.{sys.version_info[1]}"
# nobody's
KEY = b"".join(
    (
        b"-----BEGIN PRIVATE KEY-----\n",
        base64.encodebytes(random.Random(1).randbytes(200)),
        b"-----END PRIVATE KEY-----\n",
    )
)


class FakeBase:
    """A base that needs no network: a Python, a shell, and the links that Debian has."""

    below = eggcrate.planning.Base.below
    said = eggcrate.planning.Base.said

    def __init__(
        self, packages: Mapping[str, bytes], lists: str, settings: ImageSettings, store: Store
    ) -> None:
        self._packages = packages
        self._lists = lists
        self.files = Files(Relocation(()))
        self.added: list[str] = []
        self.binaries: dict[str, Any] = {}

    def python(self) -> Interpreter:
        return debian_interpreter(this_version())

    def refresh(self) -> None:
        pass

    def entries(self, python: Interpreter) -> tuple[FileEntry, ...]:
        self.files.look(self._lists)
        where: Any = {"group": "packages", "reason": "package base 1"}
        return (
            directory("usr/bin", **where),
            *(symlink(name, f"usr/{name}", **where) for name in ("bin", "lib")),
            directory("usr/lib", **where),
            *(
                bytes_file(path, data, mode=0o755, **where)
                for path, data in self._packages.items()
            ),
        )

    def add(self, packages: list[str]) -> list[str]:
        return []

    def package_for(self, library: str) -> str | None:
        return None


class Buildout(unittest.TestCase):
    """A buildout on disk with a part of each kind, and the settings of its image.

    Its tests build it several times: they are no unit tests.
    """

    layer = layers.SLOW

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name).resolve()
        self.directory = self.root / "app"
        self.shop = self.root / "checkout/shop"
        self.environment = self.root / "venv/lib/python3/site-packages"
        self.environment.mkdir(parents=True)
        self.store = Store(self.root / "cache")
        self.packages = {PROGRAM: b"a Python", "usr/bin/sh": b"a shell"}
        lists = self.root / "lists"
        lists.write_text("base 1")
        base = functools.partial(FakeBase, self.packages, os.fspath(lists))
        self.patch(eggcrate.planning, "Base", base)
        quiet = logging.NullHandler()
        logging.getLogger("eggcrate").addHandler(quiet)
        self.addCleanup(logging.getLogger("eggcrate").removeHandler, quiet)
        # a crash of the machine is not what is tested here
        self.patch(os, "fsync", lambda descriptor: None)
        self.write_all()
        self.settings = ImageSettings(
            references=(reference("acme/shop", "1"), reference("acme/shop", "latest")),
            platform=this_platform(),
            site=Site(
                directory=self.directory,
                eggs=self.directory / "eggs",
                develop_eggs=self.directory / "develop-eggs",
                bin=self.directory / "bin",
                parts=self.directory / "parts",
                environment=self.environment,
                run_directory=self.directory / "var/run",
                prefixes=(self.root / "venv",),
                develop=(self.shop,),
            ),
            parts=(
                Part("app", (self.directory / "bin/run", self.directory / "bin/none")),
                Part("conf", (self.directory / "parts/conf",)),
            ),
            directory="/srv/app",
            location=self.directory / "parts/image",
            include=(Include(self.directory / "docs", "/srv/docs"),),
            command=(os.fspath(self.directory / "bin/run"),),
            epoch=315_532_800,
        )

    def patch(self, owner: object, name: str, value: object) -> None:
        patch = mock.patch.object(owner, name, value)
        patch.start()
        self.addCleanup(patch.stop)

    def write_all(self) -> None:
        for name in ("develop-eggs", "parts/image", "parts/data/empty"):
            (self.directory / name).mkdir(parents=True)
        self.write(
            "bin/run",
            "#!/bin/sh\nsys.path[0:0] = [\n  'SHOP',\n"
            "  'APP/eggs/one-1.0-py3.11.egg',\n  'APP/eggs/two-1.0-py3.11.egg',\n  'VENV',\n"
            "  'APP',\n  ]\nimport loose\n# APP/parts/conf/app.ini\n",
            0o755,
        )
        self.write("loose/__init__.py", "import looser\n")
        self.write("looser/__init__.py", "")
        self.write("loosest/__init__.py", "")
        self.write("SHOP/setup.py", "")
        self.write("SHOP/shop/__init__.py", "X = 1\n")
        self.write("SHOP/shop/views.py", "def view(request):\n    return 'Y'\n")
        self.write("SHOP/shop/broken.py", "this is no Python\n")
        self.write("SHOP/shop/names.py", "HOME = 'APP/var/run/x'\n")
        self.write("SHOP/shop/tests/test_views.py", "import shop.views\n")
        self.write("SHOP/shop/static/x.css", "a { color: red }")
        self.write("SHOP/shop/static/y.bin", bytes(range(128)) * 80)
        self.write("SHOP/shop.egg-info/PKG-INFO", "Name: shop\nVersion: 1\n")
        self.write("SHOP/shop.egg-info/requires.txt", "one\n")
        self.write("SHOP/shop.egg-info/top_level.txt", "shop\n")
        for name in ("one", "two"):
            egg = f"eggs/{name}-1.0-py3.11.egg"
            self.write(f"{egg}/{name}/__init__.py", f"NAME = {name!r}\n")
            self.write(f"{egg}/EGG-INFO/PKG-INFO", f"Name: {name}\nVersion: 1.0\n")
        for name in ("beside", "unwanted"):
            info = f"{name}-1.dist-info"
            self.write(f"VENV/{info}/METADATA", f"Name: {name}\nVersion: 1\n")
            self.write(
                f"VENV/{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/RECORD,,\n"
            )
            self.write(f"VENV/{name}.py", f"NAME = {name!r}\n")
        self.write("parts/conf/app.ini", "data = APP/parts/data\nmore = APP/parts/absent.ini\n")
        self.write("parts/data/a.txt", "some data")
        self.write("parts/data/below/b.txt", "more data")
        (self.directory / "parts/data/link").symlink_to("a.txt")
        (self.directory / "parts/data/away").symlink_to(self.shop / "shop/views.py")
        self.write("docs/index.txt", "read me")

    def path(self, name: str) -> pathlib.Path:
        """The path of a file by its name below the buildout, SHOP or VENV."""
        top, _, rest = name.partition("/")
        places = {"SHOP": self.shop, "VENV": self.environment}
        return places[top] / rest if top in places else self.directory / name

    def write(self, name: str, text: str | bytes = "", mode: int = 0o644) -> pathlib.Path:
        """A file, in whose text APP, SHOP and VENV are where the buildout and others lie."""
        path = self.path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = text if isinstance(text, bytes) else text.encode()
        for word, place in (
            (b"APP", self.directory),
            (b"SHOP", self.shop),
            (b"VENV", self.environment),
        ):
            data = data.replace(word, os.fsencode(place))
        path.write_bytes(data)
        path.chmod(mode)
        return path

    # Builds

    def build(self) -> Outcome:
        (outcome,) = build(self.settings, self.store)
        return outcome

    def result(self) -> tuple[str, ...]:
        """What a build leaves: the digest and the plan's text; or what it complains of."""
        try:
            outcome = self.build()
        except EggcrateError as error:
            return (str(error),)
        location = self.settings.location
        digest = outcome.image.manifest.digest
        assert (location / "digest").read_text() == f"{digest}\n"
        index = json.loads((location / "oci/index.json").read_bytes())
        assert {item["digest"] for item in index["manifests"]} == {digest}
        return digest, (location / "plan.txt").read_text()

    def afresh(self) -> tuple[str, ...]:
        """The same of a build from nothing."""
        with tempfile.TemporaryDirectory(dir=self.root) as scratch:
            store = Store(pathlib.Path(scratch))
            try:
                planned = plan_image(self.settings, store)
                image = self.image(planned, store)
            except EggcrateError as error:
                return (str(error),)
            return image.manifest.digest, planned.plan.text()

    def image(self, planned: Planned, store: Store) -> Image:
        return make_image(
            planned.plan,
            platform=self.settings.platform,
            runtime=planned.runtime,
            references=self.settings.references,
            store=store,
            compression=self.settings.compression,
            epoch=self.settings.epoch,
        )

    def watched(self) -> list[bool]:
        """A list to which each build adds whether it took up what was remembered."""
        answers: list[bool] = []

        def again(*arguments: Any, **options: Any) -> record.Again | None:
            answer = original(*arguments, **options)
            answers.append(answer is not None)
            return answer

        original = record.again
        self.patch(record, "again", again)
        return answers

    def settle(self) -> None:
        """Let what was written so far be so old that every change of it will be seen."""
        for module in (files, record):
            self.patch(module, "TICK", _TICK)
        time.sleep(_WAIT)


class Edits:
    """Random changes of a buildout, as people, editors, installers and accidents make them."""

    def __init__(self, buildout: Buildout, seed: int) -> None:
        self._buildout = buildout
        self._random = random.Random(seed)
        self._tops = (buildout.directory, buildout.shop, buildout.environment)
        self._new = 0

    def names(self) -> list[str]:
        """The kinds of edits, in a random order."""
        names = [name for name in vars(type(self)) if name.startswith("edit_")]
        self._random.shuffle(names)
        return names

    def _all(self) -> list[pathlib.Path]:
        """Everything that is there but the image."""
        return sorted(
            path
            for top in self._tops
            for path in top.rglob("*")
            if not path.is_relative_to(self._buildout.settings.location)
        )

    def _file(self, suffix: str = "") -> pathlib.Path:
        found = [path for path in self._all() if path.is_file() and not path.is_symlink()]
        return self._random.choice([path for path in found if path.name.endswith(suffix)])

    def _directory(self) -> pathlib.Path:
        """A directory, but none that the image itself lies in."""
        location = self._buildout.settings.location
        found = [path for path in self._all() if path.is_dir() and not path.is_symlink()]
        return self._random.choice(
            [path for path in found if not location.is_relative_to(path)]
        )

    def _link(self) -> pathlib.Path:
        found = [path for path in self._all() if path.is_symlink()]
        return self._random.choice(found) if found else self._fresh(self._directory())

    def _fresh(self, directory: pathlib.Path, suffix: str = "") -> pathlib.Path:
        self._new += 1
        return directory / f"new{self._new}{suffix}"

    def _replace(self, path: pathlib.Path, data: bytes) -> None:
        """As editors do it."""
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_bytes(data)
        temporary.chmod(path.stat().st_mode & 0o777)
        temporary.rename(path)

    def _text(self) -> bytes:
        return b"# %d\n" % self._random.randrange(10**6)

    # Bytes

    def edit_append(self) -> pathlib.Path:
        path = self._file()
        with path.open("ab") as stream:
            stream.write(self._text())
        return path

    def edit_a_line_of_source(self) -> pathlib.Path:
        path = self._file(".py")
        with path.open("ab") as stream:
            stream.write(b"\nY = %d\n" % self._random.randrange(10**6))
        return path

    def edit_same_size(self) -> pathlib.Path:
        path = self._file()
        data = bytearray(path.read_bytes() or b"x")
        data[-1] = self._random.choice(b"0123456789")
        path.write_bytes(data)
        return path

    def edit_and_restore_the_time(self) -> pathlib.Path:
        path = self._file()
        status = path.stat()
        data = bytearray(path.read_bytes() or b"x")
        data[-1] = self._random.choice(b"abcdefgh")
        path.write_bytes(data)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        return path

    def edit_replace(self) -> pathlib.Path:
        path = self._file()
        self._replace(path, path.read_bytes() + self._text())
        return path

    def edit_replace_with_the_same(self) -> pathlib.Path:
        path = self._file()
        self._replace(path, path.read_bytes())
        return path

    def edit_empty(self) -> pathlib.Path:
        path = self._file(".py")
        path.write_bytes(b"")
        return path

    def edit_touch(self) -> pathlib.Path:
        path = self._file()
        path.touch()
        return path

    def edit_swap(self) -> pathlib.Path:
        one, other = self._file(), self._file()
        temporary = self._fresh(one.parent)
        one.rename(temporary)
        (other if other != one else temporary).rename(one)
        if other != one:
            temporary.rename(other)
        return one

    # What decides what else goes in

    def edit_script(self) -> pathlib.Path:
        path = self._buildout.directory / "bin/run"
        with path.open("a") as stream:
            stream.write(f"# {self._file()}\n")
        return path

    def edit_configuration(self) -> pathlib.Path:
        path = self._buildout.directory / "parts/conf/app.ini"
        path.write_text(path.read_text() + f"another = {self._directory()}\n")
        return path

    def edit_another_import(self) -> pathlib.Path:
        path = self._buildout.directory / "loose/__init__.py"
        path.write_text(self._random.choice(("", "import looser\n", "import loosest\n")))
        return path

    def edit_requirements(self) -> pathlib.Path:
        return self._buildout.write(
            "SHOP/shop.egg-info/requires.txt",
            self._random.choice(("one\n", "beside\n", "one\nunwanted\n", "")),
        )

    def edit_top_level(self) -> pathlib.Path:
        self._buildout.write("SHOP/shop2/__init__.py", "")
        return self._buildout.write(
            "SHOP/shop.egg-info/top_level.txt", self._random.choice(("shop\n", "shop\nshop2\n"))
        )

    def edit_entry_points(self) -> pathlib.Path:
        path = self._buildout.shop / "shop.egg-info/entry_points.txt"
        if path.exists():
            path.unlink()
        else:
            path.write_text("[console_scripts]\nshop = shop\n")
        return path

    def edit_dockerignore(self) -> pathlib.Path:
        top = self._random.choice((self._buildout.directory, self._buildout.shop))
        path = top / ".dockerignore"
        if path.exists() and self._random.random() < 0.5:
            path.unlink()
        else:
            path.write_text(self._random.choice(("**/*.css\n", "docs\n", "**/below\n")))
        return path

    def edit_what_was_absent(self) -> pathlib.Path:
        return self._buildout.write(
            self._random.choice(("parts/absent.ini", "bin/none", "parts/data/pyvenv.cfg")),
            "APP/loosest",
        )

    def edit_break_a_module(self) -> pathlib.Path:
        path = self._file(".py")
        path.write_bytes(path.read_bytes() + b"\n(((\n")
        return path

    def edit_mend_a_module(self) -> pathlib.Path:
        path = self._buildout.shop / "shop/broken.py"
        path.write_bytes(b"Y = 1\n" if path.read_bytes()[-3:] != b" 1\n" else b"no Python\n")
        return path

    def edit_put_a_secret(self) -> pathlib.Path:
        path = self._file()
        path.write_bytes(path.read_bytes() + KEY)
        return path

    def edit_put_a_path_of_the_build(self) -> pathlib.Path:
        path = self._file()
        path.write_bytes(path.read_bytes() + os.fsencode(f"x\n# {self._buildout.directory}/y"))
        return path

    def edit_put_a_nul(self) -> pathlib.Path:
        path = self._file()
        path.write_bytes(path.read_bytes() + b"\0")
        return path

    def edit_the_base(self) -> pathlib.Path:
        path = self._buildout.root / "lists"
        path.write_text(f"base {self._random.random()}")
        self._buildout.packages["usr/bin/sh"] = path.read_bytes()
        return path

    # Names

    def edit_delete(self) -> pathlib.Path:
        path = self._file()
        path.unlink()
        return path

    def edit_delete_a_directory(self) -> pathlib.Path:
        path = self._directory()
        if not any(top.is_relative_to(path) for top in self._tops):
            shutil.rmtree(path)
        return path

    def edit_add(self) -> pathlib.Path:
        path = self._fresh(self._directory(), self._random.choice((".py", ".txt", ".pyc", "~")))
        path.write_bytes(self._text())
        return path

    def edit_add_a_package(self) -> pathlib.Path:
        path = self._fresh(self._directory())
        path.mkdir()
        (path / "__init__.py").write_bytes(self._text())
        return path

    def edit_add_a_directory(self) -> pathlib.Path:
        path = self._fresh(self._directory())
        path.mkdir()
        return path

    def edit_add_bytecode(self) -> pathlib.Path:
        path = self._file(".py").parent / "__pycache__"
        path.mkdir(exist_ok=True)
        self._fresh(path, ".pyc").write_bytes(self._text())
        return path

    def edit_rename(self) -> pathlib.Path:
        path = self._file()
        path.rename(self._fresh(path.parent, path.suffix))
        return path

    def edit_rename_a_directory(self) -> pathlib.Path:
        path = self._directory()
        path.rename(self._fresh(path.parent))
        return path

    # Modes and types

    def edit_executable(self) -> pathlib.Path:
        path = self._file()
        path.chmod(path.stat().st_mode ^ 0o111)
        return path

    def edit_mode(self) -> pathlib.Path:
        path = self._random.choice((self._file(), self._directory()))
        path.chmod(path.stat().st_mode ^ 0o020)
        return path

    def edit_file_to_link(self) -> pathlib.Path:
        path = self._file()
        target = self._fresh(self._directory())
        path.rename(target)
        path.symlink_to(target)
        return path

    def edit_directory_to_link(self) -> pathlib.Path:
        path = self._directory()
        target = self._fresh(path.parent)
        path.rename(target)
        path.symlink_to(target.name)
        return path

    def edit_link(self) -> pathlib.Path:
        path, target = self._link(), self._file()
        path.unlink(missing_ok=True)
        path.symlink_to(self._random.choice((target, os.path.relpath(target, path.parent))))
        return path

    def edit_link_to_file(self) -> pathlib.Path:
        path = self._link()
        path.unlink(missing_ok=True)
        path.write_bytes(self._text())
        return path

    def edit_hard_link(self) -> pathlib.Path:
        path = self._file()
        self._fresh(path.parent, path.suffix).hardlink_to(path)
        return path

    def edit_hard_link_of_equals(self) -> pathlib.Path:
        """As programs do that find duplicates."""
        found: dict[bytes, pathlib.Path] = {}
        for path in self._all():
            if path.is_file() and not path.is_symlink():
                one = found.setdefault(path.read_bytes(), path)
                if one != path and self._random.random() < 0.5:
                    path.unlink()
                    path.hardlink_to(one)
        return self._buildout.directory

    def edit_no_hard_links(self) -> pathlib.Path:
        """As copying does."""
        for path in self._all():
            if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
                self._replace(path, path.read_bytes())
        return self._buildout.directory

    def edit_fifo(self) -> pathlib.Path:
        path = self._fresh(self._file().parent, ".txt")
        os.mkfifo(path)
        return path

    def edit_fifo_to_file(self) -> pathlib.Path:
        for path in self._all():
            if path.is_fifo():
                path.unlink()
                path.write_bytes(self._text())
        return self._buildout.directory

    def start_over(self) -> None:
        """Make the buildout what it was at first."""
        location = self._buildout.settings.location
        kept = self._buildout.root / "kept"
        location.rename(kept)
        for top in self._tops:
            shutil.rmtree(top)
        self._buildout.environment.mkdir()
        self._buildout.write_all()
        location.rmdir()
        kept.rename(location)


class Property(Buildout):
    """After each of many edits, a build is what a build from nothing is."""

    def edit_and_compare(self, seed: int, rounds: int, wait: float) -> None:
        # in this process, for speed: test_bytecode proves that it is the same in others
        self.patch(bytecode, "_FEW", 1000)
        answers = self.watched()
        edits = Edits(self, seed)
        self.assertEqual(self.result(), self.afresh())
        done: list[str] = []
        results = []
        for _ in range(rounds):
            for name in edits.names():
                time.sleep(wait)
                with contextlib.suppress(OSError):  # what it is about is gone
                    done.append(name)
                    done[-1] += f" {getattr(edits, name)()}"
                time.sleep(wait)
                found, wanted = self.result(), self.afresh()
                self.assertEqual(found, wanted, "\n".join(done[-12:]))
                results.append(found)
                if len(found) == 1 or len(results) % 10 == 0:
                    edits.start_over()
        # there was something to prove
        good = [found for found in results if len(found) == 2]
        self.assertGreater(len(good), len(results) // 2)
        self.assertGreater(len(set(good)), len(results) // 4)
        self.assertGreater(sum(answers), len(answers) // 10)
        self.assertGreater(answers.count(False), len(answers) // 4)

    def test_with_edits_one_upon_the_other(self) -> None:
        self.edit_and_compare(seed=1, rounds=1, wait=0)

    def test_with_pauses(self) -> None:
        self.settle()
        self.edit_and_compare(seed=2, rounds=1, wait=_WAIT)


# What this process has opened and started, while somebody wants to know
_events: list[tuple[str, str]] | None = None


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _events is not None and event in ("open", "os.fork", "subprocess.Popen"):
        _events.append((event, str(arguments[0]) if arguments else ""))


@functools.cache
def _hook() -> None:
    sys.addaudithook(_audit)  # which can't be taken away again


@contextlib.contextmanager
def events() -> Iterator[list[tuple[str, str]]]:
    """What the block opens, and which programs it starts."""
    global _events
    _hook()
    found: list[tuple[str, str]] = []
    _events = found
    try:
        yield found
    finally:
        _events = None


class Quick(Buildout):
    """What is done when little or nothing has changed."""

    def setUp(self) -> None:
        super().setUp()
        self.answers = self.watched()
        self.settle()
        self.first = self.build()
        time.sleep(_WAIT)

    def opened(self, found: list[tuple[str, str]]) -> set[str]:
        """The files of the buildout that were opened, but for the image's own."""
        tops = (self.directory, self.shop, self.environment)
        return {
            path
            for event, path in found
            if event == "open"
            and any(pathlib.Path(path).is_relative_to(top) for top in tops)
            and not pathlib.Path(path).is_relative_to(self.settings.location)
        }

    def test_what_is_unchanged_is_not_read(self) -> None:
        with events() as found:
            again = self.build()
        self.assertEqual(self.opened(found), set())
        self.assertIn(
            os.fspath(self.settings.location / "plan.txt"), [path for _, path in found]
        )
        self.assertEqual([event for event, _ in found if event != "open"], [])
        self.assertEqual(again.image.manifest, self.first.image.manifest)
        self.assertEqual((again.changed_layers, again.changed_bytes), (0, 0))
        self.assertEqual(self.answers, [False, True])

    def test_a_full_plan_reads_no_unchanged_file_either(self) -> None:
        self.write("parts/data/c.txt", "new")
        with events() as found:
            self.build()
        self.assertEqual(self.answers, [False, False])
        read = self.opened(found)
        # the new file's layer is made anew; nothing of the others is looked into
        unchanged = set(map(os.fspath, (self.shop / "shop").rglob("*.bin")))
        unchanged |= set(map(os.fspath, (self.directory / "eggs").rglob("*/__init__.py")))
        self.assertEqual(read & unchanged, set())
        self.assertIn(os.fspath(self.path("parts/data/c.txt")), read)

    def test_one_changed_line_makes_one_layer(self) -> None:
        path = self.write("SHOP/shop/views.py", "def view(request):\n    return 'Z'\n")
        with events() as found:
            again = self.build()
        self.assertEqual(self.answers, [False, True])
        if sys.version_info >= (3, 11):
            # Python 3.10 compiles in a process of its own, see bytecode
            self.assertEqual([event for event, _ in found if event != "open"], [])
        self.assertIn(os.fspath(path), self.opened(found))
        # a layer is written as a whole: nothing but its files was read
        develop = (self.shop / "shop", self.shop / "shop.egg-info", self.directory)
        self.assertTrue(
            all(
                any(pathlib.Path(name).is_relative_to(top) for top in develop)
                for name in self.opened(found)
            )
        )
        self.assertEqual(self.opened(found) & {os.fspath(self.path("docs/index.txt"))}, set())
        before, after = self.first.image.layers, again.image.layers
        self.assertEqual(
            [
                layer.plan.name
                for layer, old in zip(after, before, strict=True)
                if layer.descriptor != old.descriptor
            ],
            ["develop"],
        )
        self.assertEqual(again.changed_layers, 1)
        self.assertEqual(
            again.changed_bytes,
            next(layer.descriptor.size for layer in after if layer.plan.name == "develop"),
        )
        self.assertEqual(self.result(), self.afresh())

    def test_each_kind_of_ordinary_file(self) -> None:
        for name, layer in {
            "docs/index.txt": "data",
            "parts/data/below/b.txt": "data",
            "SHOP/shop/static/x.css": "develop",
            "SHOP/shop/static/y.bin": "develop",
            "SHOP/shop.egg-info/PKG-INFO": None,
            "loose/__init__.py": None,
            "eggs/one-1.0-py3.11.egg/one/__init__.py": None,
            "bin/run": None,
        }.items():
            with self.subTest(name):
                with self.path(name).open("ab") as stream:
                    stream.write(b"\n# more\n")
                outcome = self.build()
                self.assertEqual(outcome.changed_layers, 1)
                self.assertEqual(self.answers[-1], layer is not None)
                self.assertEqual(self.result(), self.afresh())

    def test_what_is_young_is_read_until_it_shows_its_next_change(self) -> None:
        path = self.write("docs/index.txt", "changed")
        self.build()  # too early
        with events() as found:
            self.build()
        self.assertEqual(self.opened(found), {os.fspath(path)})
        time.sleep(_WAIT)
        self.build()
        with events() as found:
            self.build()
        self.assertEqual(self.opened(found), set())
        self.assertEqual(self.answers, [False, *[True] * 4])

    def test_the_image_is_valid(self) -> None:
        self.write("SHOP/shop/views.py", "")
        self.build()
        self.assertEqual(self.answers, [False, True])
        self.assertEqual(validate(self.settings.location / "oci"), [])
        self.assertEqual(validate(self.settings.location / "image.tar"), [])

    def test_the_plan_tells_of_the_changed_file(self) -> None:
        self.write("docs/index.txt", "x" * 12345)
        self.build()
        self.assertEqual(self.answers, [False, True])
        text = (self.settings.location / "plan.txt").read_text()
        self.assertIn("0644       12345  /srv/docs/index.txt  (include: docs)\n", text)
        with Store(self.root / "other").in_use():
            self.assertEqual(text, plan_image(self.settings, self.store).plan.text())

    def test_a_plan_that_is_gone_or_another_s(self) -> None:
        plan = self.settings.location / "plan.txt"
        wanted = plan.read_text()
        for text in (
            None,
            "",
            "x",
            wanted[:100],
            wanted + "\n## layer 7: x, 0 bytes\n",
            "\xff",
        ):
            with self.subTest(text=text):
                plan.unlink()
                if text is not None:
                    plan.write_text(text, "latin-1")
                self.build()
                self.assertEqual(plan.read_text(), wanted)

    def test_what_is_missing_of_the_image_is_made_again(self) -> None:
        location = self.settings.location
        before = {path: path.read_bytes() for path in location.rglob("*") if path.is_file()}
        self.assertEqual(len(before), 5 + len(self.first.image.blobs))
        for path in before:
            path.unlink()
            self.build()
            self.assertEqual(
                {p: p.read_bytes() for p in location.rglob("*") if p.is_file()}, before, path
            )
        shutil.rmtree(location)
        self.build()
        self.assertEqual(
            {p: p.read_bytes() for p in location.rglob("*") if p.is_file()}, before
        )


class Noticed(Buildout):
    """Changes that show in no byte of an ordinary file."""

    def setUp(self) -> None:
        super().setUp()
        self.answers = self.watched()
        self.settle()

    @contextlib.contextmanager
    def change(self, *, valid: bool = True) -> Iterator[None]:
        """Build, let the block change something, and compare the builds after it."""
        before = self.result()
        time.sleep(_WAIT)
        yield
        time.sleep(_WAIT)
        found = self.result()
        self.assertEqual(found, self.afresh())
        self.assertNotEqual(found, before)
        self.assertEqual(self.answers[-1], False)
        self.assertEqual(len(found), 2 if valid else 1, found)

    def test_a_hard_link_in_place_of_an_equal_file(self) -> None:
        one = self.write("parts/data/one.txt", "the same")
        other = self.write("parts/data/other.txt", "the same")
        with self.change():
            other.unlink()
            other.hardlink_to(one)
        with self.change():  # and a copy again
            other.unlink()
            other.write_text("the same")

    def test_hard_links_to_others(self) -> None:
        names = [self.write(f"parts/data/{name}.txt", "the same") for name in "abcd"]
        for one, other in ((0, 1), (2, 3)):
            names[other].unlink()
            names[other].hardlink_to(names[one])
        with self.change():
            names[1].unlink()
            names[1].hardlink_to(names[2])
            names[3].unlink()
            names[3].hardlink_to(names[0])

    def test_a_fifo_becomes_a_file(self) -> None:
        path = self.path("parts/data/c.txt")
        os.mkfifo(path)
        with self.change():
            path.unlink()
            path.write_text("c")

    def test_a_link_in_place_of_a_directory(self) -> None:
        with self.change():
            self.path("parts/data").rename(self.path("parts/real"))
            self.path("parts/data").symlink_to("real")
        with self.change():
            self.path("parts/data").unlink()
            self.path("parts/real").rename(self.path("parts/data"))

    def test_the_buildout_moves_and_leaves_a_link(self) -> None:
        # its new place is a path of the build now, too
        self.write("docs/index.txt", f"see {self.root}/moved/docs")
        with self.change():
            self.directory.rename(self.root / "moved")
            self.directory.symlink_to("moved")

    def test_a_requirement(self) -> None:
        with self.change():
            self.write("SHOP/shop.egg-info/requires.txt", "one\nbeside\n")
        text = (self.settings.location / "plan.txt").read_text()
        self.assertIn("(beside, required by an egg)", text)

    def test_metadata_that_comes_later(self) -> None:
        with self.change():
            self.write("SHOP/shop.egg-info/entry_points.txt", "[console_scripts]\na = shop\n")

    def test_a_file_of_a_distribution_that_comes_later(self) -> None:
        self.path("VENV/beside.py").unlink()
        self.write("SHOP/shop.egg-info/requires.txt", "beside\n")
        with self.change():
            self.write("VENV/beside.py", "")

    def test_a_wheel_for_another_machine(self) -> None:
        wheel = "Tag: py3-none-any\n"
        self.write("parts/data/x-1.dist-info/WHEEL", wheel)
        self.write("parts/data/x-1.dist-info/METADATA", "Name: x\nVersion: 1\n")
        with self.change(valid=False):
            self.write("parts/data/x-1.dist-info/WHEEL", "Tag: cp27-cp27m-linux_m68k\n")

    def test_one_of_two_equal_files_for_one_place(self) -> None:
        self.settings = dataclasses.replace(
            self.settings,
            include=(
                Include(self.write("docs/a.txt", "the same"), "/srv/x.txt"),
                Include(self.write("docs/b.txt", "the same"), "/srv/x.txt"),
            ),
        )
        with self.change(valid=False):
            self.write("docs/a.txt", "another")

    def test_a_directory_is_no_project_any_more(self) -> None:
        self.write("loosest/setup.py", "")
        self.write("loosest/module.py", "")
        self.path("loosest/__init__.py").unlink()
        self.write("loose/__init__.py", "import loosest.module\n")
        with self.change():
            self.path("loosest/setup.py").unlink()

    def test_a_dockerignore_that_is_a_link(self) -> None:
        self.write("ignored", "docs/index.txt\n")
        self.write("ignored2", "docs\n")
        path = self.path(".dockerignore")
        path.symlink_to("ignored")
        self.build()
        time.sleep(_WAIT)
        self.build()
        self.assertEqual(self.answers, [False, True])
        with self.change():
            self.write("ignored", "docs/another.txt\n")
        with self.change():
            path.unlink()
            path.symlink_to("ignored2")

    def test_a_project_that_lies_elsewhere(self) -> None:
        # its files have the same bytes and the same places in the image
        self.build()
        time.sleep(_WAIT)
        moved = self.root / "elsewhere/shop"
        moved.parent.mkdir()
        self.shop.rename(moved)
        self.shop = moved
        script = self.path("bin/run")
        script.write_text(script.read_text().replace("/checkout/", "/elsewhere/"))
        self.path("parts/data/away").unlink()
        self.path("parts/data/away").symlink_to(moved / "shop/views.py")
        site = dataclasses.replace(self.settings.site, develop=(moved,))
        self.settings = dataclasses.replace(self.settings, site=site)
        self.assertEqual(self.result(), self.afresh())
        time.sleep(_WAIT)
        before = self.result()
        self.write("SHOP/shop/views.py", "def view(request):\n    return 'Z'\n")
        self.assertNotEqual(self.result(), before)
        self.assertEqual(self.result(), self.afresh())
        self.assertEqual(self.answers[-1], True)

    def test_the_base_s_sources(self) -> None:
        with self.change():
            self.packages["usr/bin/sh"] = b"another shell"
            (self.root / "lists").write_text("base 2")

    def test_another_compressor(self) -> None:
        self.addCleanup(compression.compressor.cache_clear)
        with self.change():
            compression.compressor.cache_clear()
            self.patch(compression, "_deflate_version", lambda: "99.0")


class Other(Buildout):
    """Records that are of something else, or damaged, or of things that are gone."""

    def setUp(self) -> None:
        super().setUp()
        self.answers = self.watched()
        self.fresh: dict[ImageSettings, tuple[str, ...]] = {}

    def afresh(self) -> tuple[str, ...]:
        """With the same settings comes the same, where a test changes nothing else."""
        if self.settings not in self.fresh:
            self.fresh[self.settings] = super().afresh()
        return self.fresh[self.settings]

    def tables(self, kind: str) -> list[pathlib.Path]:
        return sorted(self.store.root.glob(f"records/{kind}-*/*/*"))

    def used(self) -> bool:
        """Whether the next build uses what is remembered; it is the right one anyhow."""
        self.assertEqual(self.result(), self.afresh())
        return self.answers[-1]

    def test_of_other_settings(self) -> None:
        self.build()
        self.assertTrue(self.used())
        for changes in (
            {"command": ("/bin/sh",)},
            {"labels": (("a", "b"),)},
            {"epoch": 1},
            {"compression": "none"},
            {"exclude": ("*.css",)},
            {"uid": 5},
            {"directory": "/srv/other"},
            {"references": (reference("acme/shop", "2"),)},
            {"layers": 11},
            {"include": ()},
            {"parts": ()},
            {"allow_secrets": ("x",)},
        ):
            with self.subTest(changes):
                self.settings = dataclasses.replace(self.settings, **changes)
                if not self.settings.parts:
                    self.settings = dataclasses.replace(self.settings, command=("/bin/sh",))
                self.assertFalse(self.used())
                self.assertTrue(self.used())

    def test_how_it_is_asked_for_makes_no_difference(self) -> None:
        self.build()
        self.settings = dataclasses.replace(self.settings, refresh=False, offline=True)
        self.assertTrue(self.used())

    def test_of_another_place(self) -> None:
        self.build()
        other = self.directory / "parts/other"
        self.settings = dataclasses.replace(self.settings, location=other)
        self.assertFalse(self.used())

    def test_of_another_eggcrate(self) -> None:
        package = self.root / "eggcrate"
        shutil.copytree(
            pathlib.Path(eggcrate.build.__file__).parent,
            package,
            ignore=shutil.ignore_patterns("tests", "__pycache__"),
        )
        self.patch(eggcrate.build, "__file__", os.fspath(package / "build.py"))
        self.build()
        self.assertTrue(self.used())
        with (package / "image/plan.py").open("a") as stream:
            stream.write("# a release later\n")
        self.assertFalse(self.used())
        os.utime(package / "errors.py", (1, 1))
        self.assertFalse(self.used())
        self.patch(record, "FORMAT", record.FORMAT + 1)
        self.assertFalse(self.used())
        self.assertIsNone(before_last(self.settings, self.store))

    def test_of_another_python(self) -> None:
        self.build()
        self.patch(sys, "version", f"{sys.version} and another")
        self.assertFalse(self.used())

    def test_of_no_form_at_all(self) -> None:
        self.build()
        key = record.place_key(self.settings.location)
        tables: tuple[Any, ...] = ([], {}, None, 5, "text", {"key": "x"}, {"image": {}})
        for table in tables:
            with self.subTest(table):
                self.store.keep_table("builds", key, table)
                with self.assertRaises(PlanError) as caught:
                    last(self.settings, self.store)
                self.assertIn("the cache does not know the image", caught.exception.what)
                self.assertFalse(self.used())
                self.assertTrue(self.used())

    def test_every_damage_of_the_table(self) -> None:
        keys: list[str] = []

        def again(store: Store, location: pathlib.Path, key: str, **_: Any) -> None:
            keys.append(key)

        with mock.patch.object(record, "again", again):
            self.build()
        (path,) = self.tables("builds")
        data = path.read_bytes()

        def known(damaged: bytes) -> bool:
            path.write_bytes(damaged)
            return bool(
                record.recall(self.store, self.settings.location)
                or record.again(
                    self.store,
                    self.settings.location,
                    keys[0],
                    compression="gzip",
                    epoch=self.settings.epoch,
                )
            )

        self.assertTrue(known(data))
        wrong = [length for length in range(len(data)) if known(data[:length])]
        self.assertEqual(wrong, [])
        for place in range(0, len(data), 7):
            flipped = bytearray(data)
            flipped[place] ^= 1 << place % 8
            self.assertFalse(known(bytes(flipped)), place)
        path.write_bytes(data[:-1])
        self.assertFalse(self.used())
        self.assertTrue(self.used())

    def test_a_plan_that_is_damaged_or_gone(self) -> None:
        self.build()
        for path in self.tables("plans"):
            for damage in (None, b"", path.read_bytes()[:-1]):
                with self.subTest(damage=damage):
                    path.unlink(missing_ok=True)
                    if damage is not None:
                        path.write_bytes(damage)
                    with self.path("docs/index.txt").open("a") as stream:
                        stream.write("more")
                    with self.path("SHOP/shop/views.py").open("a") as stream:
                        stream.write("# more\n")
                    self.fresh.clear()
                    self.used()
                    # who asks is told to build, and that helps
                    with contextlib.suppress(PlanError):
                        last(self.settings, self.store)
                    self.used()
                    image = last(self.settings, self.store)
                    self.assertTrue(all(layer.plan.entries for layer in image.layers))

    def test_details_that_are_gone(self) -> None:
        self.build()
        (path,) = self.tables("details")
        path.unlink()
        with self.assertRaises(PlanError) as caught:
            eggcrate.build.relocation_of(self.settings, self.store)
        self.assertIn("build it", caught.exception.hint)
        self.build()
        relocation = eggcrate.build.relocation_of(self.settings, self.store)
        self.assertEqual(relocation.path(f"{self.directory}/x"), "/srv/app/x")

    def test_each_blob_that_is_gone(self) -> None:
        image = self.build().image
        for blob in image.blobs:
            with self.subTest(blob.media_type):
                self.store.blob(blob.digest).unlink()
                self.assertFalse(self.used())
                self.assertTrue(self.store.has(blob.digest, blob.size))
                self.assertTrue(self.used())

    def test_byte_code_that_is_gone(self) -> None:
        image = self.build().image
        kept = {blob.digest.partition(":")[2] for blob in image.blobs}
        for path in (self.store.root / "blobs/sha256").iterdir():
            if path.name not in kept:
                path.unlink()
        self.assertTrue(self.used())
        for letter, is_used in (("Z", False), ("Y", True)):
            self.write("SHOP/shop/views.py", f"def view(request):\n    return {letter!r}\n")
            self.fresh.clear()
            self.assertEqual(self.used(), is_used)

    def test_without_any_cache(self) -> None:
        before = self.result()
        shutil.rmtree(self.store.root)
        self.assertFalse(self.used())
        self.assertEqual(self.result(), before)


class Kept(Buildout):
    """What is known of images after their builds."""

    def digests(self) -> tuple[str | None, str]:
        previous = before_last(self.settings, self.store)
        return (
            previous.manifest.digest if previous else None,
            last(self.settings, self.store).manifest.digest,
        )

    def test_the_last_image_and_the_one_before(self) -> None:
        answers = self.watched()
        one = self.build().image.manifest.digest
        self.assertEqual(self.digests(), (None, one))
        self.write("docs/index.txt", "changed")
        two = self.build().image.manifest.digest
        self.assertEqual(self.digests(), (one, two))
        # what was built again is not what changed
        self.build()
        self.write("parts/data/__pycache__/x.pyc", "")
        self.build()
        self.assertEqual(self.digests(), (one, two))
        self.write("docs/more.txt", "")
        three = self.build().image.manifest.digest
        self.assertEqual(self.digests(), (two, three))
        self.assertEqual(answers, [False, True, True, True, False])

    def test_both_have_their_whole_plans(self) -> None:
        wanted = []
        for text in ("one", "two"):
            self.write("docs/index.txt", text)
            self.build()
            planned = plan_image(self.settings, self.store)
            wanted.append([layer.entries for layer in planned.plan.layers])
        images = (before_last(self.settings, self.store), last(self.settings, self.store))
        for image, planned_layers in zip(images, wanted, strict=True):
            assert image is not None
            found = [layer.plan.entries for layer in image.layers]
            # byte-code may lie in another bundle of the store
            plain = [
                [dataclasses.replace(entry, source=None, offset=None) for entry in entries]
                for entries in found
            ]
            self.assertEqual(
                plain,
                [
                    [dataclasses.replace(entry, source=None, offset=None) for entry in entries]
                    for entries in planned_layers
                ],
            )

    def test_an_image_that_was_replaced_by_hand_is_not_known(self) -> None:
        self.build()
        (self.settings.location / "digest").write_text("sha256:0\n")
        with self.assertRaises(PlanError) as caught:
            last(self.settings, self.store)
        self.assertIn("build it", caught.exception.hint)

    def test_a_failure_leaves_the_last_image(self) -> None:
        self.build()
        location = self.settings.location

        def state() -> dict[str, str]:
            return {
                path.relative_to(location).as_posix(): hashlib.sha256(
                    path.read_bytes()
                ).hexdigest()
                for path in location.rglob("*")
                if path.is_file()
            }

        before = state()
        self.write("docs/index.txt", "changed")
        for function in ("write_archive", "write_layout"):
            with (
                self.subTest(function),
                mock.patch.object(layout, function, side_effect=OSError(28, "No space left")),
                self.assertRaises(PlanError),
            ):
                self.build()
            self.assertEqual(state(), before)
            self.assertEqual(validate(location / "oci"), [])
            self.assertEqual(validate(location / "image.tar"), [])
        self.assertEqual(self.result(), self.afresh())

    def test_two_builds_at_once(self) -> None:
        """One waits: else each takes away what only the other's image has."""
        running: list[None] = []
        most: list[int] = []
        written = eggcrate.build._written

        def slow(*arguments: Any) -> Outcome:
            running.append(None)
            time.sleep(0.1)
            most.append(len(running))
            outcome = written(*arguments)
            running.pop()
            return outcome

        self.patch(eggcrate.build, "_written", slow)
        other = dataclasses.replace(self.settings, labels=(("other", "1"),))
        with (
            self.assertLogs("eggcrate.build", "WARNING") as logged,
            concurrent.futures.ThreadPoolExecutor(2) as pool,
        ):
            list(pool.map(lambda one: build(one, self.store), (self.settings, other)))
        self.assertEqual(most, [1, 1])
        self.assertIn("Waiting for another build of", logged.output[0])
        location = self.settings.location
        digest = last(self.settings, self.store).manifest.digest
        self.assertEqual((location / "digest").read_text(), f"{digest}\n")
        self.assertEqual(validate(location / "oci"), [])

    def test_a_plan_that_fails_leaves_the_last_image(self) -> None:
        digest = self.build().image.manifest.digest
        for name in ("SHOP/shop/views.py", "bin/run"):
            data = self.path(name).read_bytes()
            self.path(name).write_bytes(data + KEY)
            with self.assertRaises(PlanError) as caught:
                self.build()
            self.assertIn("there is a private key in", caught.exception.what)
            self.assertEqual((self.settings.location / "digest").read_text(), f"{digest}\n")
            self.path(name).write_bytes(data)
        self.assertEqual(self.build().image.manifest.digest, digest)
