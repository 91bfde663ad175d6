"""The layers run real servers, and leave nothing behind."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

from eggcrate.tests import layers

PROGRAMS = ("nginx", "env", "touch", "id")

NGINX_CONF = """\
pid /run/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path /run/body;
    proxy_temp_path /run/proxy;
    fastcgi_temp_path /run/fastcgi;
    uwsgi_temp_path /run/uwsgi;
    scgi_temp_path /run/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{ return 200 "hello\\n"; }}
        location /moved {{ return 302 /; }}
    }}
}}
"""


def libraries(program: str) -> list[str]:
    """The files that a program of this machine loads before it starts."""
    output = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
    return re.findall(r"(/\S+) \(0x", output.stdout)


def image_archive(test: unittest.TestCase, path: Path, port: int) -> None:
    """Write, for ``docker load``, an image of this machine's nginx and a few programs."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w", dereference=True) as tar:
        added = set()
        for name in PROGRAMS:
            program = shutil.which(name, path=layers.PROGRAMS_PATH)
            if program is None:
                layers.skip(test, f"{name} is not here; apt-get install nginx-light coreutils")
                return
            tar.add(program, f"bin/{name}")
            for library in libraries(program):
                if library not in added:
                    tar.add(library)
                    added.add(library)
        for name in ("run", "tmp"):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777
            tar.addfile(entry)
        text = NGINX_CONF.format(port=port).encode()
        entry = tarfile.TarInfo("nginx.conf")
        entry.size = len(text)
        tar.addfile(entry, io.BytesIO(text))
    config = json.dumps(
        {
            "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
            "os": "linux",
            "config": {
                "Cmd": ["/bin/nginx", "-e", "stderr", "-c", "/nginx.conf", "-g", "daemon off;"]
            },
            "rootfs": {
                "type": "layers",
                "diff_ids": [f"sha256:{hashlib.sha256(layer.getvalue()).hexdigest()}"],
            },
        }
    ).encode()
    manifest = [
        {"Config": "config.json", "RepoTags": ["example/hello:1"], "Layers": ["layer.tar"]}
    ]
    with tarfile.open(path, "w") as tar:
        for name, content in {
            "layer.tar": layer.getvalue(),
            "config.json": config,
            "manifest.json": json.dumps(manifest).encode(),
        }.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


class Contract:
    """A name space: what is in a module of tests is run, what is in here is inherited."""

    class Engine(unittest.TestCase):
        layer: layers.Engine

        def setUp(self) -> None:
            self.layer.require(self)
            directory = tempfile.TemporaryDirectory()
            self.addCleanup(directory.cleanup)
            self.archive, self.port = Path(directory.name) / "image.tar", layers.free_port()
            image_archive(self, self.archive, self.port)
            self.image = self.layer.load(self.archive)

        def start(self, **options: Any) -> layers.Container:
            container = self.layer.run(self.image, **options)
            self.addCleanup(container.remove)
            return container

        def test_a_container_is_started_asked_and_stopped(self) -> None:
            container = self.start(user="1234:5678", read_only=True, tmpfs=["/run:mode=1777"])
            response = container.wait_http(self.port)
            self.assertEqual(response.text, "hello\n")
            self.assertRegex(response.headers["server"], "^nginx")
            moved = layers.get(f"http://127.0.0.1:{self.port}/moved")
            self.assertEqual(moved.status, 302)
            self.assertIsNone(container.exit_code())
            started = time.monotonic()
            self.assertEqual(container.stop(timeout=60), 0)
            self.assertLess(time.monotonic() - started, 50)
            with self.assertRaises(OSError):
                layers.get(f"http://127.0.0.1:{self.port}/")

        def test_environment_and_arguments_arrive(self) -> None:
            container = self.start(args=["/bin/env"], env={"GREETING": "good morning"})
            self.assertEqual(container.wait(), 0)
            self.assertIn("GREETING=good morning\n", container.logs())

        def test_only_the_tmpfs_of_a_read_only_container_can_be_written(self) -> None:
            for path, code in (("/tmp/file", 1), ("/run/file", 0)):
                container = self.start(
                    args=["/bin/touch", path], read_only=True, tmpfs=["/run"]
                )
                self.assertEqual(container.wait(), code, container.logs())

        def test_the_user_is_who_was_asked_for(self) -> None:
            container = self.start(args=["/bin/id", "-u"], user="1234")
            self.assertEqual((container.wait(), container.logs()), (0, "1234\n"))

        def test_a_container_that_has_ended_is_reported_with_its_logs(self) -> None:
            container = self.start(args=["/bin/touch", "/none/file"])
            with self.assertRaisesRegex(AssertionError, r"ended with 1; logs:\n.*No such file"):
                container.wait_http(layers.free_port())

        def test_a_failing_command_is_reported_with_its_complaint(self) -> None:
            with self.assertRaisesRegex(AssertionError, "load .*/none.tar.*no such file"):
                self.layer.load(Path("/none.tar"))

        def test_tear_down_takes_containers_along(self) -> None:
            engine = type(self.layer)(self.layer.__name__ + "_OWN", "")
            engine.setUp()
            self.addCleanup(engine.tearDown)
            engine.require(self)
            container = engine.run(engine.load(self.archive), user="1234", tmpfs=["/run"])
            container.wait_http(self.port)
            process = Path("/proc") / str(container.inspect()["State"]["Pid"])
            self.assertTrue(process.exists())
            directory = engine.directory
            engine.tearDown()
            self.assertFalse(process.exists())
            self.assertFalse(directory.exists())
            self.assertNotIn(str(directory), Path("/proc/self/mountinfo").read_text())
            engine.tearDown()  # has nothing to do any more


class Docker(Contract.Engine):
    layer = layers.DOCKER_ENGINE

    def test_the_sdk_talks_to_the_same_engine(self) -> None:
        with contextlib.closing(layers.DOCKER_ENGINE.client()) as client:
            self.assertEqual(client.images.get("example/hello:1").tags, ["example/hello:1"])


class Podman(Contract.Engine):
    layer = layers.PODMAN


class Registry(unittest.TestCase):
    layer = layers.REGISTRY

    def setUp(self) -> None:
        self.layer.require(self)

    def test_it_answers_as_a_registry(self) -> None:
        response = layers.get(f"{self.layer.url}/v2/")
        self.assertEqual(
            (response.status, response.headers["Docker-Distribution-Api-Version"]),
            (200, "registry/2.0"),
        )
        self.assertEqual(layers.get(f"{self.layer.url}/v2/none/tags/list").status, 404)


class Nginx(unittest.TestCase):
    layer = layers.NGINX

    def setUp(self) -> None:
        self.layer.require(self)

    def test_it_is_a_program_that_runs(self) -> None:
        process = subprocess.run(
            [self.layer.program, "-v"], capture_output=True, text=True, check=True
        )
        self.assertIn("nginx version", process.stderr)


class Unavailable(unittest.TestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.scratch = Path(directory.name)
        self.programs = self.scratch / "bin"
        self.programs.mkdir()
        for patch in (
            mock.patch.object(layers, "PROGRAMS_PATH", str(self.programs)),
            mock.patch.object(tempfile, "tempdir", str(self.scratch)),
            mock.patch.dict(os.environ),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        os.environ.pop("EGGCRATE_REQUIRE", None)

    def test_a_missing_program_comes_with_the_command_that_provides_it(self) -> None:
        for layer, package in (
            (layers.Nginx("N", "nginx-light"), "nginx-light"),
            (layers.Registry("R", "docker-registry"), "docker-registry"),
        ):
            layer.setUp()
            self.assertIn("not here; apt-get install " + package, layer.unavailable)
            with self.assertRaisesRegex(unittest.SkipTest, package):
                layer.require(self)
            layer.tearDown()

    def test_engines_without_their_programs_are_unavailable(self) -> None:
        for engine in (
            layers.DockerEngine("D", "docker.io"),
            layers.Podman("P", "podman"),
        ):
            engine.setUp()
            with self.assertRaises(unittest.SkipTest):
                engine.require(self)
            engine.tearDown()
        self.assertEqual([path.name for path in self.scratch.iterdir()], ["bin"])

    def test_a_skip_is_a_failure_where_everything_is_required(self) -> None:
        layer = layers.Nginx("N", "nginx-light")
        layer.setUp()
        os.environ["EGGCRATE_REQUIRE"] = "all"
        with self.assertRaisesRegex(self.failureException, "apt-get install nginx-light"):
            layer.require(self)

    def test_a_server_that_ends_at_once_leaves_its_last_words(self) -> None:
        program = self.programs / "docker-registry"
        program.write_text("#!/bin/sh\necho starting\necho out of order\nexit 1\n")
        program.chmod(0o755)
        layer = layers.Registry("R", "docker-registry")
        layer.setUp()
        self.assertIn("docker-registry doesn't start here: out of order", layer.unavailable)
        self.assertEqual([path.name for path in self.scratch.iterdir()], ["bin"])

    def test_a_layer_that_was_never_set_up_says_so(self) -> None:
        with self.assertRaisesRegex(unittest.SkipTest, "R is not set up"):
            layers.Registry("R", "docker-registry").require(self)
