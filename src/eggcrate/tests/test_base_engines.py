"""Images on bases of every kind, in engines; the base is one that eggcrate has made."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from eggcrate.build import Outcome, build
from eggcrate.errors import TransportError
from eggcrate.image.store import Store
from eggcrate.settings import ImageSettings, read
from eggcrate.tests import layers
from eggcrate.tests.test_engines import ROOT

BASE = """\
[buildout]
develop = {root}
parts = image
[image]
recipe = eggcrate:docker-image
name = example.test/base/python
tags = 1
os-packages = python3
environment = BASE = its own
"""
IMAGE = """\
[buildout]
extends = buildout.cfg
develop = {root}
parts = report image
[image]
base = oci:{base}
command = report
"""


class OnBases(layers.Layer):
    """A base image, and the settings of the image of a tool on it."""

    directory = pathlib.Path()

    def setUp(self) -> None:
        super().setUp()
        if not shutil.which("apt-get"):
            self.unavailable = "apt-get is not here: the base is made of Debian's packages"
            return
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="eggcrate-bases-"))
        with mock.patch.dict(os.environ, EGGCRATE_CACHE=str(self.directory / "cache")):
            (self.directory / "base").mkdir()
            shutil.copytree(ROOT / "examples/tool", self.directory / "tool")
            self.made = self.directory / "base/parts/image"
            self._buildout("base", "base.cfg", BASE)
            self._buildout("tool", "on.cfg", IMAGE)
        self.store = Store(self.directory / "cache")
        self.settings = read(self.directory / "tool/parts/image/settings.json")

    def _buildout(self, directory: str, name: str, text: str) -> None:
        path = self.directory / directory
        (path / name).write_text(text.format(root=ROOT, base=self.made / "oci"))
        run = "import zc.buildout.buildout; zc.buildout.buildout.main()"
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                run,
                "-N",
                "-c",
                name,
                f"buildout:eggs-directory={ROOT}/eggs",
            ],
            cwd=path,
            env={**os.environ, **layers.BUILDOUT_ENVIRON},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AssertionError(f"buildout has failed:\n{done.stdout}{done.stderr[-5000:]}")

    def tearDown(self) -> None:
        super().tearDown()
        if self.directory != pathlib.Path():
            shutil.rmtree(self.directory)
            self.directory = pathlib.Path()


ON_BASES = OnBases("ON_BASES", "apt")
TOGETHER = layers.Layer("BASES_IN_ENGINES", "docker.io")
TOGETHER.__bases__ = (ON_BASES, layers.DOCKER_ENGINE, layers.PODMAN, layers.REGISTRY)


class Bases(unittest.TestCase):
    layer = TOGETHER

    def setUp(self) -> None:
        ON_BASES.require(self)
        layers.DOCKER_ENGINE.require(self)
        self.archive = ON_BASES.made / "image.tar"

    def built(self, base: str, **more: object) -> tuple[ImageSettings, Outcome]:
        settings = dataclasses.replace(
            ON_BASES.settings,
            base=base,
            refresh=True,
            **more,  # type: ignore[arg-type]  # each of its field's type
        )
        with mock.patch.dict(os.environ, layers.DOCKER_ENGINE.environ):
            (outcome,) = build(settings, ON_BASES.store)
            return settings, outcome

    def says(self, engine: layers.Engine, *command: str) -> str:
        """What a command says in a container of the image that was built last."""
        image = engine.load(ON_BASES.settings.location / "image.tar")
        with contextlib.ExitStack() as stack:
            container = engine.run(image, args=command, read_only=True)
            stack.callback(container.remove)
            code = container.wait()
            logs = container.logs()
            self.assertEqual(code, 0, logs)
            return logs

    def run_program(self, *arguments: str | pathlib.Path) -> str:
        if not shutil.which(str(arguments[0])):
            layers.skip(self, f"needs {arguments[0]}: apt-get install {arguments[0]}")
        done = subprocess.run(arguments, capture_output=True, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_a_layout(self) -> None:
        settings, outcome = self.built(f"oci:{ON_BASES.made / 'oci'}")
        engines: list[layers.Engine] = [layers.DOCKER_ENGINE]
        if not layers.PODMAN.unavailable:
            engines.append(layers.PODMAN)
        show = "import os; print(os.environ['BASE'])"
        for engine in engines:
            self.assertIn("usage: report", self.says(engine, "report", "--help"))
            self.assertIn("its own", self.says(engine, "python3", "-c", show))
        archive = settings.location / "image.tar"
        digest = (ON_BASES.made / "digest").read_text().strip()
        base = json.loads(self.run_program("skopeo", "inspect", f"oci-archive:{self.archive}"))
        found = json.loads(self.run_program("skopeo", "inspect", f"oci-archive:{archive}"))
        self.assertEqual(found["Layers"][: len(base["Layers"])], base["Layers"])
        self.assertEqual(outcome.image.base_digest, digest)
        layout = ON_BASES.directory / "umoci"
        self.run_program("skopeo", "copy", f"oci-archive:{archive}", f"oci:{layout}:1")
        bundle = ON_BASES.directory / "bundle"
        self.run_program("umoci", "unpack", "--rootless", "--image", f"{layout}:1", bundle)
        self.assertTrue((bundle / "rootfs/usr/lib/eggcrate/__main__.py").is_file())
        self.assertEqual(os.readlink(bundle / "rootfs/bin"), "usr/bin")

    def test_nothing(self) -> None:
        self.built("scratch", python="auto")
        self.assertIn("usage: report", self.says(layers.DOCKER_ENGINE, "report", "--help"))
        show = (
            "import locale, pwd, os; locale.setlocale(locale.LC_ALL, ''); "
            "print(pwd.getpwuid(os.getuid()))"
        )
        self.assertIn("'app'", self.says(layers.DOCKER_ENGINE, "python3", "-c", show))

    def test_what_docker_saves(self) -> None:
        layers.DOCKER_ENGINE.load(self.archive)
        saved = ON_BASES.directory / "saved.tar"
        layers.DOCKER_ENGINE.cli("save", "--output", saved, "example.test/base/python:1")
        _, first = self.built(f"docker-archive:{saved}:example.test/base/python:1")
        self.assertIn("usage: report", self.says(layers.DOCKER_ENGINE, "report", "--help"))
        # another cache knows nothing of it
        other = Store(ON_BASES.directory / "other")
        (other.root / "apt").mkdir(parents=True)
        settings = dataclasses.replace(
            ON_BASES.settings, base="docker-daemon:example.test/base/python:1"
        )
        with mock.patch.dict(os.environ, layers.DOCKER_ENGINE.environ):
            (second,) = build(settings, other)
        self.assertEqual(
            [layer.diff_id for layer in second.image.layers],
            [layer.diff_id for layer in first.image.layers],
        )
        self.assertEqual(second.image.base_name, "example.test/base/python:1")
        lock = json.loads((settings.site.directory / "base.lock").read_text())
        platform = str(settings.platform)
        self.assertEqual(lock[settings.base], {platform: second.image.base_digest})
        with self.assertRaisesRegex(TransportError, "has no image example.test/none:1"):
            self.built("docker-daemon:example.test/none:1")

    def test_a_registry(self) -> None:
        layers.REGISTRY.require(self)
        host = layers.REGISTRY.host
        name = f"docker://{host}/base/python:1"
        insecure = {"insecure_registries": (host,)}
        digests = []
        for kind in ("oci", "v2s2"):
            self.run_program(
                *("skopeo", "copy", "--format", kind, "--dest-tls-verify=false"),
                *(f"oci-archive:{self.archive}", name),
            )
            _, outcome = self.built(name, **insecure)
            digests.append(outcome.image.base_digest)
            self.assertEqual(outcome.image.base_name, name.removeprefix("docker://"))
        self.assertEqual(digests[0], (ON_BASES.made / "digest").read_text().strip())
        self.assertNotEqual(*digests)
        self.assertIn("usage: report", self.says(layers.DOCKER_ENGINE, "report", "--help"))
        # the first one is in the cache, by its digest
        pinned = f"docker://{host}/base/python@{digests[0]}"
        _, outcome = self.built(pinned, offline=True)
        self.assertEqual(outcome.image.base_digest, digests[0])
