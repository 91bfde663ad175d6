"""Documents of an image: their bytes, and the names that engines take."""

from __future__ import annotations

import json
import time
import unittest
from typing import Any

from eggcrate.errors import SettingsError
from eggcrate.image import oci
from eggcrate.image.descriptor import Descriptor
from eggcrate.image.oci import (
    Healthcheck,
    History,
    Platform,
    RuntimeConfig,
    reference,
)

DIGEST = f"sha256:{'0' * 64}"


class Documents(unittest.TestCase):
    def test_bytes_are_canonical(self) -> None:
        self.assertEqual(
            oci.document({"b": [1, "é"], "a": {"d": None, "c": ""}}),
            '{"a":{"c":"","d":null},"b":[1,"é"]}'.encode(),
        )

    def test_a_manifest(self) -> None:
        config, layer = Descriptor(oci.CONFIG, DIGEST, 7), Descriptor(oci.LAYER, DIGEST, 9)
        self.assertEqual(
            json.loads(oci.manifest_document(config, [layer], {})),
            {
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": {
                    "mediaType": "application/vnd.oci.image.config.v1+json",
                    "digest": DIGEST,
                    "size": 7,
                },
                "layers": [
                    {
                        "mediaType": "application/vnd.oci.image.layer.v1.tar",
                        "digest": DIGEST,
                        "size": 9,
                    }
                ],
            },
        )
        value = json.loads(oci.manifest_document(config, [], {"a": "b"}))
        self.assertEqual(value["annotations"], {"a": "b"})

    def test_an_index_has_every_name(self) -> None:
        manifest = Descriptor(oci.MANIFEST, DIGEST, 7)
        names = [reference("acme/shop", tag) for tag in ("1", "latest")]
        value = json.loads(
            oci.index_document(manifest, Platform("linux", "arm64", "v8"), names)
        )
        self.assertEqual(value["schemaVersion"], 2)
        self.assertEqual(
            [entry["annotations"] for entry in value["manifests"]],
            [
                {
                    "io.containerd.image.name": f"docker.io/acme/shop:{tag}",
                    "org.opencontainers.image.ref.name": f"docker.io/acme/shop:{tag}",
                }
                for tag in ("1", "latest")
            ],
        )
        self.assertEqual(
            value["manifests"][0]["platform"],
            {"os": "linux", "architecture": "arm64", "variant": "v8"},
        )


class Config(unittest.TestCase):
    def config(self, runtime: RuntimeConfig) -> dict[str, Any]:
        value = json.loads(
            oci.config_document(
                Platform("linux", "amd64"),
                runtime,
                [DIGEST],
                [History("test")],
                "1980-01-01T00:00:00Z",
            )
        )
        assert isinstance(value, dict)
        return value

    def test_what_is_not_set_is_not_there(self) -> None:
        self.assertEqual(
            self.config(RuntimeConfig()),
            {
                "os": "linux",
                "architecture": "amd64",
                "created": "1980-01-01T00:00:00Z",
                "config": {},
                "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
                "history": [{"created": "1980-01-01T00:00:00Z", "created_by": "test"}],
            },
        )

    def test_what_is_set_has_the_names_of_the_specification(self) -> None:
        runtime = RuntimeConfig(
            entrypoint=("/a", "-I"),
            command=("b c",),
            user="1:2",
            working_directory="/w",
            environment=(("A", "1=2"), ("B", "")),
            exposed_ports=("80/tcp",),
            volumes=("/data",),
            labels=(("l", "m"),),
            stop_signal="SIGTERM",
            healthcheck=Healthcheck(("/check", "x"), interval=1, timeout=2, start_period=3),
        )
        self.assertEqual(
            self.config(runtime)["config"],
            {
                "Entrypoint": ["/a", "-I"],
                "Cmd": ["b c"],
                "User": "1:2",
                "WorkingDir": "/w",
                "Env": ["A=1=2", "B="],
                "ExposedPorts": {"80/tcp": {}},
                "Volumes": {"/data": {}},
                "Labels": {"l": "m"},
                "StopSignal": "SIGTERM",
                "Healthcheck": {
                    "Test": ["CMD", "/check", "x"],
                    "Interval": 1_000_000_000,
                    "Timeout": 2_000_000_000,
                    "StartPeriod": 3_000_000_000,
                    "Retries": 3,
                },
            },
        )


class Platforms(unittest.TestCase):
    def test_they_show_themselves_as_people_write_them(self) -> None:
        self.assertEqual(str(Platform("linux", "amd64")), "linux/amd64")
        self.assertEqual(str(Platform("linux", "arm", "v7")), "linux/arm/v7")


class References(unittest.TestCase):
    def test_the_host_is_always_said(self) -> None:
        for name, full, familiar in (
            ("shop", "docker.io/library/shop:1", "shop:1"),
            ("acme/shop", "docker.io/acme/shop:1", "acme/shop:1"),
            ("docker.io/shop", "docker.io/library/shop:1", "shop:1"),
            ("docker.io/acme/shop", "docker.io/acme/shop:1", "acme/shop:1"),
            ("index.docker.io/acme/shop", "docker.io/acme/shop:1", "acme/shop:1"),
            ("localhost/shop", "localhost/shop:1", "localhost/shop:1"),
            ("localhost:5000/shop", "localhost:5000/shop:1", "localhost:5000/shop:1"),
            ("r.example/a/b/c", "r.example/a/b/c:1", "r.example/a/b/c:1"),
            ("R.Example:5/a", "R.Example:5/a:1", "R.Example:5/a:1"),
            ("[::1]:5000/a", "[::1]:5000/a:1", "[::1]:5000/a:1"),
            ("a__b--c.d_e", "docker.io/library/a__b--c.d_e:1", "a__b--c.d_e:1"),
        ):
            found = reference(name, "1")
            self.assertEqual((str(found), found.familiar), (full, familiar))

    def test_what_engines_refuse_is_refused_here(self) -> None:
        """E14: upper case and the like."""
        for name in (
            *("", "/", "a/", "/a", "a//b", "A", "acme/Shop", "-a", "a-", "a_", "a___b"),
            *("a..b", "a.-b", "a b", "a\n", "ä", "shop:1", "shop@sha256:0", "r.example:/a"),
            *("-r.example/a", "r-.example/a", "..:5000/a", "r..example:5000/a", "0" * 64),
            *("r.example:5000", "http://r.example/a", "user@r.example/a", "a" * 256),
        ):
            with self.assertRaises(SettingsError, msg=name) as caught:
                reference(name, "latest")
            self.assertIn(repr(name), caught.exception.what)

    def test_tags(self) -> None:
        """E14: more than 128 letters, and what is no tag."""
        for tag in ("latest", "1.0", "_", "A-b.c_d", "t" * 128):
            self.assertEqual(reference("a", tag).tag, tag)
        for tag in ("", ".a", "-a", "a b", "a:b", "a\n", "ä", "t" * 129):
            with self.assertRaises(SettingsError, msg=tag):
                reference("a", tag)

    def test_a_hostile_name_takes_no_time(self) -> None:
        started = time.process_time()
        for name in ("a-" * 5000, "a." * 5000 + "/", "a" * 20_000 + "!", "a-a" * 3000 + "_"):
            with self.assertRaises(SettingsError):
                reference(name, "latest")
        self.assertLess(time.process_time() - started, 5)
