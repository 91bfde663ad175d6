"""The statement says where an image comes from, and nothing about who made it where."""

from __future__ import annotations

import json
import os
import pathlib
import random
import re
import tempfile
import unittest
from collections.abc import Mapping
from typing import Any

from eggcrate.image.layout import Image, make_image
from eggcrate.image.oci import Platform, Reference, RuntimeConfig, reference
from eggcrate.image.plan import FileEntry, bytes_file, disk_file, merge, plan_layers
from eggcrate.image.provenance import Value, statement
from eggcrate.image.sbom import inventory
from eggcrate.image.store import Store

EPOCH = 1_700_000_000
NAMES = (reference("acme/shop", "latest"), reference("registry.example:5000/acme/shop", "1"))
STATUS = b"Package: tzdata\nStatus: install ok installed\nVersion: 1\nArchitecture: all\n"


def entries() -> list[FileEntry]:
    return [
        bytes_file("var/lib/dpkg/status", STATUS, group="packages", reason="t"),
        bytes_file("usr/bin/program", b"x", group="packages", reason="t", mode=0o755),
        bytes_file("usr/share/zone", b"z", group="packages", reason="package tzdata 1"),
        bytes_file(
            "var/application/eggs/shop-1.0.egg/EGG-INFO/PKG-INFO",
            b"Name: shop\nVersion: 1.0\n",
            group="egg shop-1.0",
            reason="t",
        ),
    ]


def read(entry: FileEntry) -> bytes:
    with entry.open() as stream:
        return stream.read()


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.store = Store(self.root / "store")

    def make(
        self, names: tuple[Reference, ...] = NAMES, content: list[FileEntry] | None = None
    ) -> Image:
        return make_image(
            plan_layers(merge(entries() if content is None else content), 12),
            platform=Platform("linux", "arm64", "v8"),
            runtime=RuntimeConfig(),
            references=names,
            store=self.store,
            compression="none",
            epoch=EPOCH,
        )

    def statement(
        self, settings: Mapping[str, Value] | None = None, image: Image | None = None
    ) -> bytes:
        image = image or self.make()
        return statement(
            image,
            inputs=inventory(image, read),
            epoch=EPOCH,
            builder_version="0.1",
            settings=settings or {},
            tools={"deflate": "0.9.0"},
        )

    def parameters(self, settings: Mapping[str, Value]) -> dict[str, Any]:
        value = json.loads(self.statement(settings))
        found: dict[str, Any] = value["predicate"]["buildDefinition"]["externalParameters"]
        return found


class Statements(Scratch):
    def test_it_is_an_in_toto_statement_with_slsa_provenance(self) -> None:
        value = json.loads(self.statement())
        self.assertEqual(set(value), {"_type", "subject", "predicateType", "predicate"})
        self.assertEqual(value["_type"], "https://in-toto.io/Statement/v1")
        self.assertEqual(value["predicateType"], "https://slsa.dev/provenance/v1")
        predicate = value["predicate"]
        self.assertEqual(set(predicate), {"buildDefinition", "runDetails"})
        definition = predicate["buildDefinition"]
        self.assertEqual(
            set(definition),
            {"buildType", "externalParameters", "internalParameters", "resolvedDependencies"},
        )
        self.assertEqual(definition["buildType"], "urn:eggcrate:docker-image:1")
        self.assertEqual(
            definition["internalParameters"],
            {"SOURCE_DATE_EPOCH": EPOCH, "platform": "linux/arm64/v8"},
        )
        builder = predicate["runDetails"]["builder"]
        self.assertEqual(builder["id"], "urn:eggcrate:builder")
        self.assertEqual(builder["version"], {"deflate": "0.9.0", "eggcrate": "0.1"})
        self.assertEqual(set(predicate["runDetails"]["metadata"]), {"invocationId"})

    def test_the_subject_is_the_image_by_each_name(self) -> None:
        image = self.make()
        digest = {"sha256": image.manifest.digest.removeprefix("sha256:")}
        self.assertEqual(
            json.loads(self.statement(image=image))["subject"],
            [
                {"name": "docker.io/acme/shop:latest", "digest": digest},
                {"name": "registry.example:5000/acme/shop:1", "digest": digest},
            ],
        )
        nameless = self.make(names=())
        (subject,) = json.loads(self.statement(image=nameless))["subject"]
        self.assertEqual(subject["name"], "image")

    def test_the_inputs_are_the_components_and_the_layers(self) -> None:
        image = self.make()
        value = json.loads(self.statement(image=image))
        found = value["predicate"]["buildDefinition"]["resolvedDependencies"]
        components = inventory(image, read)
        self.assertEqual(
            [(one.get("uri"), one["digest"]["sha256"]) for one in found if "uri" in one],
            [(component.purl, component.digest) for component in components],
        )
        self.assertEqual(
            [one["uri"] for one in found if "uri" in one],
            ["pkg:deb/debian/tzdata@1?arch=all", "pkg:pypi/shop@1.0"],
        )
        self.assertEqual(
            [
                (one["name"], one["digest"]["sha256"], one["mediaType"])
                for one in found
                if "mediaType" in one
            ],
            [
                (
                    f"layer {number}: {layer.plan.name}",
                    layer.descriptor.digest.removeprefix("sha256:"),
                    layer.descriptor.media_type,
                )
                for number, layer in enumerate(image.layers, 1)
            ],
        )
        # a resource descriptor has one of these at least (in-toto, resource_descriptor.md)
        for one in found:
            self.assertTrue({"uri", "digest", "content"} & set(one), one)

    def test_the_same_image_has_the_same_statement(self) -> None:
        settings: dict[str, Value] = {"tags": "b a", "labels": "b = 1\na = 2", "layers": 12}
        first = self.statement(settings)
        self.store = Store(self.root / "another" / "store")
        content = entries()
        random.Random(1).shuffle(content)
        image = self.make(names=NAMES[::-1], content=content)
        again = self.statement(dict(reversed(settings.items())), image)
        self.assertEqual(again, first)

    def test_another_image_has_another_statement(self) -> None:
        fewer = self.make(content=entries()[:2])
        self.assertNotEqual(self.statement(image=fewer), self.statement())


class Options(Scratch):
    def test_what_was_given_is_told_as_it_was_given(self) -> None:
        settings: dict[str, Value] = {
            "name": "registry.example:5000/acme/shop",
            "tags": ["1", "latest"],
            "directory": "/srv/shop",
            "layers": 12,
            "base": "debian:bookworm",
            "command": "/usr/bin/program -I/usr/share --log=/usr/share/zone src/conf",
            "exclude": "*.map src/shop/tests",
            "include": "src/shop/fixtures",
            "healthcheck": "http://127.0.0.1:8080/health",
        }
        self.assertEqual(self.parameters(settings), settings)

    def test_of_variables_and_labels_the_names_are_told(self) -> None:
        self.assertEqual(
            self.parameters(
                {"environment": "DSN = hidden\n\nLANG=hidden", "labels": ["a.b = hidden"]}
            ),
            {"environment": ["DSN", "LANG"], "labels": ["a.b"]},
        )
        for value in ("A = b\nhidden", "/home/me = b", "a b = c"):
            self.assertEqual(
                self.parameters({"environment": value}), {"withheld": ["environment"]}
            )

    def test_paths_that_are_not_in_the_image_are_withheld(self) -> None:
        for value in (
            "/home/me/shop/bin/run",
            "run --config=/home/me/x",
            "-I/home/me",
            "a:/home/me",
            "('/home/me')",
            "~/shop",
            "~jane",
            "../../jane",
            "src/../../jane",
            "oci:/home/me/layout",
            "file:///usr /home/me",
            "@/home/me",
        ):
            self.assertEqual(self.parameters({"command": value}), {"withheld": ["command"]})
        found = self.parameters({"include": ["src", "/home/me = /srv"], "base": "oci:/h/j"})
        self.assertEqual(found, {"withheld": ["base", "include"]})

    def test_credentials_are_left_out(self) -> None:
        for value, told in (
            ("docker://jane:hunter2@registry.example/a/b:1", "docker://registry.example/a/b:1"),
            ("https://t0k@h.example/x?sig=hunter2#hunter2 b", "https://h.example/x b"),
            ("docker://python:3.13-slim", "docker://python:3.13-slim"),
            ("docker://python:3.13@sha256:0f", "docker://python:3.13@sha256:0f"),
            ("docker://me:pw@h.example/a@sha256:0f", "docker://h.example/a@sha256:0f"),
        ):
            self.assertEqual(self.parameters({"base": value}), {"base": told})

    def test_what_looks_like_a_secret_is_withheld(self) -> None:
        for value in (
            "run --password hunter2",
            "run --api-key=hunter2",
            "run SECRET_KEY=hunter2",
            "jane:hunter2@registry.example/a",
        ):
            found = self.parameters({"command": ["run", value], "name": value})
            self.assertEqual(found, {"withheld": ["command", "name"]})

    def test_an_option_that_is_not_known_is_withheld(self) -> None:
        found = self.parameters({"future": "hunter2", "layers": 3})
        self.assertEqual(found, {"layers": 3, "withheld": ["future"]})

    def test_nothing_of_the_machine_is_told(self) -> None:
        source = self.root / "canary-source"
        source.write_bytes(b"Name: canned\nVersion: 1\n")
        content = [
            *entries(),
            disk_file(
                "var/application/eggs/canned-1.egg/EGG-INFO/PKG-INFO",
                source,
                group="egg canned-1",
                reason=f"named in {source}",
            ),
        ]
        names = (Reference("canary:canary@registry.example", "acme/shop", "1"),)
        settings: dict[str, Value] = {
            option: [os.fspath(source), "https://canary:canary@index.example/?canary"]
            for option in ("command", "include", "base", "future", "environment")
        }
        text = self.statement(settings, self.make(names=names, content=content)).decode()
        self.assertNotIn("canary", text)
        self.assertNotIn(str(self.root), text)
        self.assertEqual(re.findall(r"\d{4}-\d\d-\d\dT", text), [])
        self.assertIn('"registry.example/acme/shop:1"', text)
        self.assertIn("pkg:pypi/canned@1", text)
