"""Images go into engines: layers that are there are not sent, and what fails is said."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import io
import json
import os
import pathlib
import secrets
import socketserver
import sys
import tarfile
import tempfile
import threading
import unittest
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

from eggcrate.errors import EggcrateError, PlanError, TransportError
from eggcrate.image.layout import make_image, write_layout
from eggcrate.image.oci import RuntimeConfig, reference
from eggcrate.image.plan import FileEntry, bytes_file, merge, plan_layers
from eggcrate.image.store import Store
from eggcrate.image.stored import Stored, stored
from eggcrate.settings import this_platform
from eggcrate.tests import layers
from eggcrate.transports import engine as module
from eggcrate.transports.engine import Engine, default_host

EPOCH = 315_532_800


class Images(unittest.TestCase):
    """Small images, of content that no engine has seen."""

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.salt = secrets.token_hex(8)
        self.name = f"acme/{self.salt}"

    def make(self, source: str = "1", *, tags: tuple[str, ...] = ("latest",)) -> Stored:
        """An image of three layers, the second of which has the source."""

        def entry(path: str, content: str, group: str) -> FileEntry:
            return bytes_file(path, content.encode(), group=group, reason="t")

        store = Store(self.root / "store")
        content = [
            entry("usr/lib/base", self.salt * 50_000, "packages"),
            entry("srv/source", source + self.salt, "develop shop"),
            entry("etc/configuration", self.salt, "configuration"),
        ]
        image = make_image(
            plan_layers(merge(content), 12),
            platform=this_platform(),
            runtime=RuntimeConfig(command=("/nothing",)),
            references=[reference(self.name, tag) for tag in tags],
            store=store,
            compression="none",
            epoch=EPOCH,
        )
        write_layout(image, store, self.root / "oci")
        return stored(self.root / "oci")


class Archives(Images):
    def test_known_layers_are_named_and_not_there(self) -> None:
        image = self.make()
        for known in range(4):
            data = b"".join(image.docker_archive(known))
            with tarfile.open(fileobj=io.BytesIO(data)) as archive:
                names = archive.getnames()
                member = archive.extractfile("manifest.json")
                assert member is not None
                (described,) = json.load(member)
                for name in names[1:]:
                    blob = archive.extractfile(name)
                    assert blob is not None
                    digest = hashlib.sha256(blob.read()).hexdigest()
                    self.assertEqual(name, f"blobs/sha256/{digest}")
            self.assertEqual(len(described["Layers"]), 3)
            self.assertEqual(described["RepoTags"], [f"docker.io/{self.name}:latest"])
            self.assertEqual(
                names, ["manifest.json", described["Config"], *described["Layers"][known:]]
            )

    def test_without_an_image(self) -> None:
        with self.assertRaisesRegex(PlanError, "^there is no image at .*; build it first$"):
            stored(self.root)

    def test_without_a_blob(self) -> None:
        image = self.make()
        image.root.joinpath("blobs", image.layers[0].digest.replace(":", "/")).unlink()
        with self.assertRaisesRegex(PlanError, "can't be read: No such file"):
            list(image.docker_archive())


class InAnEngine(Images if TYPE_CHECKING else object):  # type: ignore[misc]  # a mixin
    """What holds for every engine."""

    engine: layers.Engine

    def host(self) -> str:
        """Where it speaks its API."""
        raise NotImplementedError

    def setUp(self) -> None:
        super().setUp()
        self.engine.require(self)
        self.here = Engine(self.host())
        self.addCleanup(self.here.close)

    def load(self, image: Stored) -> tuple[int, bool]:
        loaded = self.here.load(image)
        for name in image.references:
            self.addCleanup(self.engine.cli, "rmi", "--force", name)
        identifier = self.engine.cli("image", "inspect", "--format={{.Id}}", self.name).strip()
        self.assertIn(image.config.digest.partition(":")[2], identifier)
        return loaded.sent, loaded.unchanged

    def test_the_same_again_is_not_sent(self) -> None:
        image = self.make()
        self.assertEqual(self.load(image), (3, False))
        self.assertEqual(self.load(image), (0, True))

    def test_another_name_is_not_sent_either(self) -> None:
        self.load(self.make())
        image = self.make(tags=("latest", "1.4"))
        self.assertEqual(self.load(image), (0, True))
        self.assertIn("1.4", self.engine.cli("images", "--format={{.Tag}}", self.name))

    def test_a_layer_that_is_not_what_it_says(self) -> None:
        image = self.make()
        with image.open(image.config) as stream:
            config = json.load(stream)
        config["rootfs"]["diff_ids"][1] = f"sha256:{'1' * 64}"
        data = json.dumps(config).encode()
        digest = hashlib.sha256(data).hexdigest()
        image.root.joinpath("blobs", "sha256", digest).write_bytes(data)
        damaged = Stored(
            image.root,
            image.references,
            image.manifest,
            type(image.config)(image.config.media_type, f"sha256:{digest}", len(data)),
            image.layers,
            tuple(config["rootfs"]["diff_ids"]),
        )
        with self.assertRaisesRegex(TransportError, "says .* when it was sent the image: "):
            self.here.load(damaged)


class DockerTest(InAnEngine, Images):
    layer = layers.DOCKER_ENGINE
    engine = layers.DOCKER_ENGINE

    def host(self) -> str:
        return layers.DOCKER_ENGINE.host

    def test_only_what_it_lacks_is_sent(self) -> None:
        self.assertEqual(self.load(self.make("1")), (3, False))
        self.assertEqual(self.load(self.make("2")), (2, False))
        # a layer is known by what is below it
        self.assertEqual(self.load(self.make("1")), (0, True))

    def test_a_layer_that_goes_meanwhile_is_sent_after_all(self) -> None:
        image = self.make()
        with mock.patch.object(Engine, "_known_layers", lambda *_: 2):
            self.assertEqual(self.load(image), (3, False))

    def test_the_docker_sdk_does_the_same(self) -> None:
        self.here.close()
        self.here = Engine(self.host(), whole_api=True)
        self.assertEqual(self.load(self.make("1")), (3, False))
        self.assertEqual(self.load(self.make("2")), (2, False))
        self.assertEqual(self.load(self.make("2")), (0, True))
        with mock.patch.object(Engine, "_known_layers", lambda *_: 2):
            self.salt = secrets.token_hex(8)
            self.assertEqual(self.load(self.make()), (3, False))


class PodmanTest(InAnEngine, Images):
    layer = layers.PODMAN
    engine = layers.PODMAN

    def host(self) -> str:
        return layers.PODMAN.serve()

    def test_it_is_sent_as_a_whole(self) -> None:
        self.assertTrue(self.here.is_podman)
        self.assertEqual(self.load(self.make("1")), (3, False))
        self.assertEqual(self.load(self.make("2")), (3, False))


# Engines that misbehave ----------------------------------------------------------------

VERSION = {
    "ApiVersion": "1.41",
    "Version": "20.10.24+dfsg1",
    "Components": [{"Name": "Engine"}],
}
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def fake(path: pathlib.Path, answers: dict[str, Answer]) -> Iterator[str]:
    """The address of an engine that answers so, by method and path; else it is Docker 20.10."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            found = next(
                (own for end, own in answers.items() if self.path.split("?")[0].endswith(end)),
                None,
            )
            if found:
                found(self)
            elif self.path == "/version" or self.path.endswith("/version"):
                said(VERSION)(self)
            elif self.path.endswith("/images/json?all=1"):
                said([])(self)
            else:
                said({"message": "No such image"}, 404)(self)

        do_GET = do_POST = answer  # noqa: N815 - http.server asks for these names

        def log_request(self, *_: Any) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = False

        def handle_error(self, *_: Any) -> None:
            pass

    with Server(os.fspath(path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"unix://{path}"
        finally:
            server.shutdown()
            thread.join()


def said(value: Any, status: int = 200, *, read: bool = True) -> Answer:
    """An answer in JSON; a list of bytes is a stream."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        if read and handler.headers.get("Transfer-Encoding") == "chunked":
            while size := int(handler.rfile.readline(), 16):
                handler.rfile.read(size + 2)
            handler.rfile.readline()
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return answer


def hang_up(handler: http.server.BaseHTTPRequestHandler) -> None:
    """No answer."""
    handler.rfile.readline()
    handler.close_connection = True
    handler.connection.close()


class Faults(Images):
    def complaint(self, answers: dict[str, Answer]) -> str:
        (self.root / "d.sock").unlink(missing_ok=True)
        with (
            fake(self.root / "d.sock", answers) as host,
            self.assertRaises(EggcrateError) as caught,
            Engine(host) as engine,
        ):
            engine.load(self.make())
        return str(caught.exception).replace(os.fspath(self.root), "")

    def test_it_is_not_there(self) -> None:
        for path, reason in (("no.sock", "No such file or directory"), ("old", "")):
            if path == "old":
                with fake(self.root / path, {}):
                    reason = "Connection refused"
            for whole in (False, True):
                with self.assertRaises(TransportError) as caught:
                    Engine(f"unix://{self.root}/{path}", whole_api=whole).close()
                self.assertEqual(
                    str(caught.exception),
                    f"no container engine answers at unix://{self.root}/{path}: {reason}; "
                    "start it (systemctl start docker, or for podman systemctl --user start "
                    "podman.socket), or name another one with --host",
                )

    def test_it_may_not_be_used(self) -> None:
        if os.geteuid():
            layers.skip(self, "becomes another user: run as root")
        self.root.chmod(0o755)
        for whole in (False, True):
            with fake(self.root / f"{whole}.sock", {}) as host:
                (self.root / f"{whole}.sock").chmod(0o600)
                reading, writing = os.pipe()
                child = os.fork()
                if not child:
                    os.setgroups([])
                    os.setgid(65534)
                    os.setuid(65534)
                    try:
                        Engine(host, whole_api=whole)
                    except TransportError as error:
                        os.write(writing, str(error).encode())
                    finally:
                        os._exit(0)
                os.close(writing)
                os.waitpid(child, 0)
                with open(reading) as stream:
                    self.assertEqual(
                        stream.read(),
                        f"user 65534 may not use the engine at {host}; add the user to the "
                        "group of the socket (docker), or run as root",
                    )

    def test_it_dies_meanwhile(self) -> None:
        self.assertEqual(
            self.complaint({"/images/load": hang_up}),
            "the engine at unix:///d.sock broke off when it was sent the image; see whether it "
            "still runs and what its log says, and run again",
        )

    def test_it_is_too_old(self) -> None:
        old = {"ApiVersion": "1.22", "Version": "1.10.3"}
        self.assertEqual(
            self.complaint({"/version": said(old)}),
            "Docker 1.10 at unix:///d.sock is too old: it speaks version 1.22 of the API, and "
            "1.24 is needed; use Docker 1.12 or newer, or bin/image save and its own load "
            "command",
        )

    def test_it_is_none(self) -> None:
        for data in (b"<html>", b"[]", b"{}", b'"x"'):
            self.assertEqual(
                self.complaint({"/version": said(data)}),
                "what answers at unix:///d.sock is no container engine; name the socket of one "
                "with --host",
            )

    def test_an_error_in_the_answer_is_one(self) -> None:
        for data in (
            b'{"stream":"Loading"}\n{"errorDetail":{"message":"no space left"}}\n',
            b'{"error":"no space left"}\n',
        ):
            self.assertEqual(
                self.complaint({"/images/load": said(data)}),
                "the engine at unix:///d.sock says no when it was sent the image: no space "
                "left; mend that, or see what its log says",
            )

    def test_it_says_no(self) -> None:
        self.assertEqual(
            self.complaint({"/images/load": said({"message": "read-only"}, 500)}),
            "the engine at unix:///d.sock says 500 when it was sent the image: read-only; mend "
            "that, or see what its log says",
        )

    def test_it_says_no_before_it_has_read_all(self) -> None:
        self.assertIn(
            "says 507 when it was sent the image: full;",
            self.complaint({"/images/load": said({"message": "full"}, 507, read=False)}),
        )

    def test_it_says_nothing_is_wrong_and_has_loaded_nothing(self) -> None:
        self.assertRegex(
            self.complaint({"/images/load": said(b'{"stream":"Loaded image"}\n')}),
            r"^Docker 20\.10 has loaded another image than docker\.io/acme/\w+:latest; see",
        )

    def test_it_wants_all_layers(self) -> None:
        """An engine that doesn't take an archive without known layers gets them."""
        image = self.make()
        sent: list[int] = []
        listed = said([{"Id": "sha256:aa", "RepoTags": [f"{self.name}:old"], "Created": 1}])
        layered = said({"Id": "sha256:aa", "RootFS": {"Layers": list(image.diff_ids[:1])}})
        there = said({"Id": image.config.digest})

        def load(handler: http.server.BaseHTTPRequestHandler) -> None:
            size = 0
            while length := int(handler.rfile.readline(), 16):
                size += len(handler.rfile.read(length + 2)) - 2
            handler.rfile.readline()
            sent.append(size)
            if len(sent) == 1:
                said({"message": "layer not found"}, 500, read=False)(handler)
            else:
                answers[f"{self.name}:latest/json"] = there
                said(b'{"stream":"Loaded image"}\n', read=False)(handler)

        answers = {"/images/json": listed, "/aa/json": layered, "/images/load": load}
        answers["sha256:aa/json"] = layered
        with fake(self.root / "d.sock", answers) as host, Engine(host) as engine:
            loaded = engine.load(image)
        self.assertEqual(len(sent), 2)
        self.assertGreater(sent[1] - sent[0], 800_000)
        self.assertEqual((loaded.sent, loaded.size), (3, sent[1]))


class Hosts(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)

    def host(self, **environ: str) -> str:
        return default_host({"DOCKER_CONFIG": os.fspath(self.root), **environ})

    def test_a_variable_names_it(self) -> None:
        self.assertEqual(self.host(DOCKER_HOST="tcp://h:1"), "tcp://h:1")

    def test_a_context_names_it(self) -> None:
        place = self.root / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest()
        place.mkdir(parents=True)
        meta = {"Name": "far", "Endpoints": {"docker": {"Host": "ssh://far"}}}
        (place / "meta.json").write_text(json.dumps(meta))
        self.assertEqual(self.host(DOCKER_CONTEXT="far"), "ssh://far")
        (self.root / "config.json").write_text('{"currentContext": "far"}')
        self.assertEqual(self.host(), "ssh://far")
        (self.root / "config.json").write_text('{"currentContext": "near"}')
        with self.assertRaisesRegex(TransportError, "^there is no context 'near' of Docker"):
            self.host()

    def test_podman_where_only_it_is_there(self) -> None:
        podman = self.root / "podman" / "podman.sock"
        podman.parent.mkdir()
        podman.touch()
        docker = self.root / "docker.sock"
        with mock.patch("os.path.exists", lambda path: path in (str(podman), str(docker))):
            self.assertEqual(self.host(XDG_RUNTIME_DIR=str(self.root)), f"unix://{docker}")
        with mock.patch("os.path.exists", lambda path: path == str(podman)):
            self.assertEqual(self.host(XDG_RUNTIME_DIR=str(self.root)), f"unix://{podman}")
        with mock.patch("os.path.exists", lambda path: False):
            self.assertEqual(self.host(), "unix:///var/run/docker.sock")

    def test_an_address_that_is_none(self) -> None:
        with self.assertRaisesRegex(TransportError, "^nonsense is no address of an engine"):
            Engine("nonsense")

    def test_without_the_sdk(self) -> None:
        with (
            mock.patch.dict(sys.modules, {"docker": None}),
            self.assertRaises(TransportError) as caught,
        ):
            Engine("ssh://nowhere", whole_api=True)
        self.assertEqual(
            str(caught.exception),
            "the docker SDK, which talks to the Docker Engine, is not here; install it beside "
            "zc.buildout, .venv/bin/python -m pip install docker, and run bin/buildout, which "
            "writes bin/image anew",
        )
        self.assertTrue(module._needs_sdk("ssh://nowhere"))


if __name__ == "__main__":
    unittest.main()
