"""Builds on an image of somebody else, and what its digest is locked to."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import pathlib
import re
import sys
import tarfile
import unittest
from typing import Any
from unittest import mock

from eggcrate import bases
from eggcrate.bases import ImageBase
from eggcrate.build import build, rebase, surroundings, verify
from eggcrate.errors import EggcrateError, PlanError
from eggcrate.image import sbom
from eggcrate.image.difference import difference, text
from eggcrate.image.plan import FileEntry, bytes_file, directory, merge, symlink
from eggcrate.image.report import report
from eggcrate.image.store import Store
from eggcrate.payload.interpreter import this_version
from eggcrate.settings import this_platform
from eggcrate.tests import test_record
from eggcrate.tests.test_base_image import Made, digest_of, tar
from eggcrate.transports import base_image

VERSION = f"{this_version()[0]}.{this_version()[1]}"


@functools.cache
def a_program() -> bytes:
    """An ELF file that is small and needs nothing: this Python's first bytes would do, too."""
    return pathlib.Path(os.path.realpath(sys.executable)).read_bytes()


def python(version: str = VERSION, top: str = "usr/local") -> list[tuple[str, Any]]:
    """What an image has that has a Python."""
    return [
        ("bin", "usr/bin"),
        ("usr/bin/sh", b"a shell"),
        (f"{top}/bin/python3", f"python{version}"),
        (f"{top}/bin/python{version}", a_program()),
        (f"{top}/lib/python{version}/os.py", b"# the standard library\n"),
        ("run", None),
        ("var/run", "/run"),
    ]


WHO = b"root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/:/bin/false\n"
CONFIG = {
    "User": "www-data",
    "WorkingDir": "/srv",
    "Env": ["PATH=/opt/bin:/usr/local/bin:/usr/bin", "LANG=de_DE.UTF-8", "A=b=c", "odd"],
    "Labels": {"org.example": "1", "eggcrate.settings": "of another image"},
    "StopSignal": "SIGQUIT",
    "Healthcheck": {"Test": ["CMD-SHELL", "curl localhost"], "Interval": 5},
    "Entrypoint": ["/old"],
    "ExposedPorts": {"81/tcp": {}},
}

HERE = str(this_platform())


class Case(test_record.Buildout):
    def setUp(self) -> None:
        super().setUp()
        self.made = Made(self.root / "layout")
        self.settings = dataclasses.replace(
            self.settings,
            base=f"oci:{self.made.root}",
            inherited=("healthcheck", "stop-signal", "user", "workdir"),
            python="base",
        )
        self.base(python())

    def base(self, *layers: list[tuple[str, Any]], **config: Any) -> None:
        """Let the base have these layers, and this config."""
        self.made.index(
            self.made.manifest(*(tar(*layer) for layer in layers), config={"config": config})
        )

    def config(self) -> dict[str, Any]:
        """The config of the image that is built now."""
        image = self.build().image
        with self.store.open(image.config.digest) as stream:
            found: dict[str, Any] = json.load(stream)
        return found

    def complaint(self) -> str:
        with self.assertRaises(EggcrateError) as caught:
            self.build()
        return str(caught.exception)


class Builds(Case):
    def test_its_layers_are_below_ours(self) -> None:
        self.base(python(), [("opt/more", b"x")])
        outcome = self.build()
        names = [layer.plan.name for layer in outcome.image.layers]
        self.assertEqual(names[:2], ["base 1", "base 2"])
        self.assertNotIn("packages", names)
        found = ImageBase(self.settings, self.store).image
        self.assertEqual(
            [layer.descriptor for layer in outcome.image.layers[:2]],
            [layer.descriptor for layer in found.layers],
        )
        config = self.config()
        self.assertEqual(
            config["rootfs"]["diff_ids"][:2], [layer.diff_id for layer in found.layers]
        )
        created = [item["created_by"] for item in config["history"]]
        self.assertEqual(created[:2], ["the base image"] * 2)
        self.assertEqual(len(created), len(names))
        with self.store.open(outcome.image.manifest.digest) as stream:
            annotations = json.load(stream)["annotations"]
        self.assertEqual(annotations["org.opencontainers.image.base.digest"], found.digest)
        self.assertNotIn("org.opencontainers.image.base.name", annotations)
        self.assertFalse((self.directory / bases.LOCK).exists())

    def test_none_of_its_files_are_in_ours(self) -> None:
        image = self.build().image
        ours = {
            entry.path
            for layer in image.layers
            for entry in layer.plan.entries
            if not entry.path.startswith(("srv", "usr/lib/eggcrate"))
        }
        # but for the directories above our files
        self.assertEqual(ours, {"run", "usr", "usr/lib"})

    def test_what_is_inherited(self) -> None:
        self.base([*python(), ("etc/passwd", WHO)], **CONFIG)
        running = self.config()["config"]
        self.assertEqual(running["User"], "www-data")
        self.assertEqual(running["WorkingDir"], "/srv")
        self.assertEqual(running["StopSignal"], "SIGQUIT")
        self.assertEqual(running["Healthcheck"], CONFIG["Healthcheck"])
        self.assertEqual(running["Labels"], {"org.example": "1"})
        self.assertEqual(
            running["Env"],
            [
                "A=b=c",
                "LANG=de_DE.UTF-8",
                "PATH=/srv/app/bin:/opt/bin:/usr/local/bin:/usr/bin",
                "PYTHONUNBUFFERED=1",
            ],
        )
        self.assertNotIn("ExposedPorts", running)
        self.assertEqual(running["Entrypoint"][0], f"/usr/local/bin/python{VERSION}")

    def test_what_no_engine_would_do(self) -> None:
        for user, passwd in (("www-data", b""), ("data", WHO), ("www-data:www-data", b"x")):
            self.base([*python(), ("etc/passwd", passwd)], User=user)
            name = user.partition(":")[0]
            with self.assertRaisesRegex(PlanError, f"runs as {name!r}, whom its /etc/passwd"):
                self.build()
        self.base(python(), User="33:33", StopSignal="SIGNOPE")
        with self.assertRaisesRegex(PlanError, "has 'SIGNOPE' for its stop signal; set stop-"):
            self.build()
        for known in ("9", "TERM", "SIGRTMIN+3"):
            self.base(python(), User="33:33", StopSignal=known)
            self.assertEqual(self.config()["config"]["StopSignal"], known)

    def test_what_we_say_counts(self) -> None:
        self.base(python(), **CONFIG)
        self.settings = dataclasses.replace(
            self.settings,
            inherited=(),
            working_directory="/tmp",
            labels=(("org.example", "2"),),
            environment=(("A", "ours"),),
            healthcheck=("/bin/sh",),
        )
        running = self.config()["config"]
        self.assertEqual((running["User"], running["WorkingDir"]), ("10001:10001", "/tmp"))
        self.assertEqual(running["StopSignal"], "SIGTERM")
        self.assertEqual(running["Healthcheck"]["Test"], ["CMD", "/bin/sh"])
        self.assertEqual(running["Labels"], {"org.example": "2"})
        self.assertIn("A=ours", running["Env"])

    def test_nobody_inherits_root(self) -> None:
        for user in ("root", "0", "0:0", ""):
            self.base(python(), User=user, WorkingDir="/")
            running = self.config()["config"]
            self.assertEqual(running["User"], "10001:10001")
            self.assertEqual(running["WorkingDir"], "/srv/app")

    def test_a_changed_line_and_a_changed_base(self) -> None:
        first = self.build()
        self.write("SHOP/shop/views.py", "def view(request):\n    return 'Z'\n")
        second = self.build()
        self.assertEqual(second.changed_layers, 1)
        stayed = [
            one.descriptor == other.descriptor
            for one, other in zip(first.image.layers, second.image.layers, strict=True)
        ]
        self.assertEqual(stayed.count(False), 1)
        self.base(python(), [("opt/more", b"x")])
        third = self.build()
        self.assertEqual(third.changed_layers, 1)
        self.assertEqual(
            [layer.descriptor for layer in third.image.layers[2:]],
            [layer.descriptor for layer in second.image.layers[1:]],
        )

    def test_a_cache_that_has_been_moved(self) -> None:
        self.base([*python(), ("etc/passwd", WHO)], **CONFIG)
        self.build()
        self.store = Store(self.store.root.rename(self.root / "elsewhere"))
        self.write("docs/a.txt", "another line\n")
        self.assertEqual(self.config()["config"]["User"], "www-data")

    def test_everything_else_goes_on_working(self) -> None:
        self.build()
        image, again = verify(self.settings, self.store)
        self.assertIsNone(again)
        page = report(image, None)
        self.assertIn("base 1", page)
        self.assertIn("base 1", text(difference(None, image)))
        components = sbom.inventory(image, lambda entry: b"")
        (component,) = [one for one in components if one.kind == "oci"]
        self.assertEqual(component.version, image.base_digest)
        for document in (sbom.cyclonedx, sbom.spdx):
            made = document(image, components, epoch=0, builder_version="1")
            self.assertIn(image.base_digest.encode(), made)
        plan = (self.settings.location / "plan.txt").read_text()
        self.assertRegex(plan, r"## layer 1: base 1, \d{5,} bytes\n\n## layer 2: ")

    def test_rebase_says_what_to_do(self) -> None:
        self.build()
        with self.assertRaisesRegex(PlanError, "run the command build --newest"):
            rebase(self.settings, self.store)

    def test_the_settings_do_not_say_where_the_digest_comes_from(self) -> None:
        self.assertNotEqual(
            surroundings(bases.pinned(self.settings, self.store)), surroundings(self.settings)
        )

    def test_a_script_whose_program_is_not_there(self) -> None:
        """D30: no shell for a script."""
        self.base([item for item in python() if item[0] != "usr/bin/sh"])
        self.assertIn("is run by /bin/sh, which is not in the image", self.complaint())

    def test_a_file_where_a_directory_has_to_be(self) -> None:
        self.base([*python(), ("srv", b"a file")])
        self.assertRegex(
            self.complaint(), r"/srv is a file \(the base, layer 1\), and .* needs a directory"
        )

    def test_too_many_layers(self) -> None:
        self.base(*([(str(number), b"")] for number in range(120)), python())
        self.assertIn("has 121 layers, and an image at most 127", self.complaint())


class Interpreters(Case):
    def found(self, *layers: list[tuple[str, Any]], wanted: str = "base", **config: Any) -> str:
        self.base(*layers, **config)
        self.settings = dataclasses.replace(self.settings, python=wanted)
        return ImageBase(self.settings, self.store).python().program

    def test_where_it_is(self) -> None:
        program = f"python{VERSION}"
        self.assertEqual(self.found(python()), f"/usr/local/bin/{program}")
        self.assertEqual(self.found(python(top="usr")), f"/usr/bin/{program}")
        self.assertEqual(
            self.found([*python(), *python(top="usr")]), f"/usr/local/bin/{program}"
        )
        conda = python(top="opt/conda")
        self.assertEqual(
            self.found(conda, Env=["PATH=/opt/conda/bin:/bin"]), f"/opt/conda/bin/{program}"
        )

    def test_another_version(self) -> None:
        """D28: buildout's eggs are for its own Python, and the base has another."""
        other = python("3.9")
        self.assertEqual(self.found(other, wanted="auto"), f"/usr/local/bin/python{VERSION}")
        for layer, has in ((other, "Python 3.9"), ([("etc", None)], "no Python")):
            with self.assertRaises(PlanError) as caught:
                self.found(layer)
            self.assertIn(f"has {has}, and buildout runs on {VERSION}", str(caught.exception))

    def test_a_program_without_its_library_is_none(self) -> None:
        """D30: a Python that is none."""
        with self.assertRaisesRegex(PlanError, "has no Python"):
            self.found([item for item in python() if not item[0].endswith("os.py")])

    def test_a_base_that_is_not_what_it_says(self) -> None:
        """D27: the config says one architecture, and the ELF file another."""
        data = bytearray(a_program())
        data[18] = 183 if data[18] != 183 else 62
        lie = [
            (name, bytes(data) if content is a_program() else content)
            for name, content in python()
        ]
        with self.assertRaisesRegex(PlanError, r"says that it is for \w+, and .* is built for"):
            self.found(lie)

    def test_scratch_has_that_of_the_host(self) -> None:
        """D30: nothing at all."""
        self.settings = dataclasses.replace(self.settings, base="scratch", python="auto")
        base = ImageBase(self.settings, self.store)
        self.assertEqual(base.python().origin, "host")
        only = dataclasses.replace(self.settings, python="base")
        with self.assertRaisesRegex(PlanError, "the base scratch has no Python"):
            ImageBase(only, self.store).python()
        self.assertEqual(base.below.layers, ())
        entries = {entry.path: entry for entry in base.entries(base.python())}
        self.assertEqual(entries["tmp"].mode, 0o1777)
        with entries["etc/passwd"].open() as stream:
            self.assertRegex(stream.read(), rb"(?m)^app:.*:10001:")


BASE: Any = {"group": "base", "reason": "the base, layer 1"}
OURS: Any = {"group": "configuration", "reason": "include"}


class Merging(unittest.TestCase):
    """Ours and the base's in one tree."""

    def merged(self, *entries: FileEntry) -> dict[str, FileEntry]:
        return merge(entries)

    def test_a_path_below_a_link_moves_to_where_it_leads(self) -> None:
        tree = self.merged(
            directory("usr/bin", **BASE),
            symlink("bin", "usr/bin", **BASE),
            bytes_file("bin/x", b"", **OURS),
        )
        self.assertEqual(sorted(tree), ["bin", "usr", "usr/bin", "usr/bin/x"])

    def test_a_file_takes_the_place_of_one(self) -> None:
        tree = self.merged(
            bytes_file("etc/x", b"theirs", **BASE),
            bytes_file("etc/x", b"ours", **OURS),
        )
        self.assertEqual(tree["etc/x"].data, b"ours")

    def test_what_is_the_same_stays_the_base_s(self) -> None:
        tree = self.merged(bytes_file("x", b"", **BASE), bytes_file("x", b"", **OURS))
        self.assertEqual(tree["x"].group, "base")

    def test_what_can_not_be_replaced(self) -> None:
        for theirs in (
            [directory("x", **BASE)],
            [directory("y", **BASE), symlink("x", "y", **BASE)],
        ):
            with self.assertRaisesRegex(PlanError, "/x is claimed twice"):
                self.merged(*theirs, bytes_file("x", b"", **OURS))
        with self.assertRaisesRegex(PlanError, "/x is claimed twice"):
            self.merged(bytes_file("x", b"", **BASE), directory("x", **OURS))


class Locked(Case):
    """A name that may mean something else tomorrow."""

    NAME = "docker-daemon:docker.io/acme/base:1"

    def setUp(self) -> None:
        super().setUp()
        self.settings = dataclasses.replace(self.settings, base=self.NAME)
        self.lock = self.directory / bases.LOCK
        self.patch(base_image, "resolve", self.resolve)
        self.patch(base_image, "_saved", self.saved)
        self.now = self.save("one")

    def resolve(self, *arguments: Any, **more: Any) -> str:
        return self.now

    def saved(self, name: str, digest: str, store: Any) -> Any:
        manager: Any = mock.MagicMock()
        manager.__enter__.return_value = os.fspath(self.root / digest.replace(":", "-"))
        return manager

    def save(self, text: str) -> str:
        """The ID of an image of the engine."""
        layer = tar(*python(), (text, b""))
        config = {"architecture": "amd64", "os": "linux"}
        config["architecture"] = self.settings.platform.architecture
        data = json.dumps({**config, "rootfs": {"diff_ids": [digest_of(layer)]}}).encode()
        manifest = [{"Config": "c", "Layers": ["l"], "RepoTags": None}]
        path = self.root / digest_of(data).replace(":", "-")
        path.write_bytes(
            tar(("c", data), ("l", layer), ("manifest.json", json.dumps(manifest).encode()))
        )
        self.assertTrue(tarfile.is_tarfile(path))
        return digest_of(data)

    def built_on(self, **settings: Any) -> str:
        settings_ = dataclasses.replace(self.settings, **settings)
        (outcome,) = build(settings_, self.store)
        return outcome.image.base_digest

    def test_it_is_kept_until_the_newest_is_wanted(self) -> None:
        """D31: the tag has moved."""
        first = self.now
        self.assertEqual(self.built_on(refresh=False), first)
        self.assertEqual(json.loads(self.lock.read_text()), {self.NAME: {HERE: first}})
        self.now = self.save("two")
        self.assertEqual(self.built_on(refresh=False), first)
        with self.assertLogs("eggcrate.bases") as logged:
            self.assertEqual(self.built_on(refresh=True), self.now)
        self.assertEqual(
            logged.output,
            [f"INFO:eggcrate.bases:base: {self.NAME} was {first}, and is now {self.now}"],
        )
        self.assertEqual(json.loads(self.lock.read_text()), {self.NAME: {HERE: self.now}})

    def test_what_fails_leaves_it(self) -> None:
        self.built_on()
        before = self.lock.read_bytes()
        self.now = self.save("two")
        with self.assertRaises(EggcrateError):
            self.built_on(command=("no-such",))
        self.assertEqual(self.lock.read_bytes(), before)

    def test_each_platform_has_its_own(self) -> None:
        other = {self.NAME: {"linux/riscv64": digest_of(b"")}}
        self.lock.write_text(json.dumps(other))
        self.assertEqual(self.built_on(refresh=False), self.now)
        written = {self.NAME: {**other[self.NAME], HERE: self.now}}
        self.assertEqual(json.loads(self.lock.read_text()), written)

    def test_others_are_left(self) -> None:
        other = {"docker://a.example/b:1": {HERE: digest_of(b"")}}
        self.lock.write_text(json.dumps(other))
        self.built_on()
        written = {**other, self.NAME: {HERE: self.now}}
        self.assertEqual(json.loads(self.lock.read_text()), written)

    def test_offline(self) -> None:
        with self.assertRaisesRegex(PlanError, "is not in base.lock, and offline is set"):
            self.built_on(offline=True)
        first = self.built_on()
        self.now = self.save("two")
        self.assertEqual(self.built_on(offline=True), first)

    def test_one_that_is_no_lock(self) -> None:
        for wrong, why in (
            ("{", "can't be read"),
            ("[]", "has something else than digests"),
            ('{"a": "b"}', "has something else than digests"),
            ('{"a": {"b": "c"}}', "has something else than digests"),
        ):
            self.lock.write_text(wrong)
            with self.assertRaisesRegex(PlanError, f"{re.escape(str(self.lock))} {why}"):
                self.built_on()

    def test_a_digest_needs_none(self) -> None:
        name = f"docker-daemon:{self.now}"
        self.patch(base_image, "resolve", mock.Mock(side_effect=AssertionError))
        self.assertEqual(self.built_on(base=name), self.now)
        self.assertFalse(self.lock.exists())
