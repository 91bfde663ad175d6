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
import subprocess
import sys
import tarfile
import tempfile
import threading
import unittest
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

from eggcrate.errors import EggcrateError, PlanError, TransportError
from eggcrate.image.layout import make_image, write_layout
from eggcrate.image.oci import RuntimeConfig, reference
from eggcrate.image.plan import FileEntry, bytes_file, merge, plan_layers
from eggcrate.image.store import Store
from eggcrate.image.stored import Stored, blob_name, stored
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
            data = b"".join(image.docker_archive(image.diff_ids[:known]))
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

    def test_little_is_imported_to_load(self) -> None:
        self.make()
        place = os.fspath(self.root)
        script = f"""\
import sys
sys.path[:] = {sys.path!r}
from eggcrate.console import main
main("bin/image", {place!r}, ["load", "--host", "unix:///nowhere"])
print(*sys.modules)
"""
        command = [sys.executable, "-I", "-S", "-c", script]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        self.assertIn("no container engine answers", done.stderr)
        loaded = done.stdout.split()
        self.assertIn("eggcrate.transports.engine", loaded)
        heavy = {"dataclasses", "inspect", "logging", "http.client", "ssl", "docker"}
        self.assertEqual(heavy.intersection(loaded), set())

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

    def test_a_blob_that_is_damaged(self) -> None:
        """E10: what is there no longer, or only half of it, is said before an engine is."""
        for case, (kind, complaint) in {
            "missing": (PlanError, "can't be read: No such file or directory; remove the"),
            "cut off": (PlanError, "is not what its name says; remove the directory, and"),
            "flipped": (TransportError, "says .* when it was sent the image: "),
        }.items():
            with self.subTest(case):
                # an engine doesn't look at what it has already
                self.salt = secrets.token_hex(8)
                image = self.make()
                blob = image.root / blob_name(image.layers[0].digest)
                data = blob.read_bytes()
                if case == "missing":
                    blob.unlink()
                elif case == "cut off":
                    blob.write_bytes(data[: len(data) // 2])
                else:
                    middle = len(data) // 2
                    flipped = bytes([data[middle] ^ 1])
                    blob.write_bytes(data[:middle] + flipped + data[middle + 1 :])
                with self.assertRaisesRegex(kind, complaint):
                    self.here.load(image)
                with self.assertRaisesRegex(AssertionError, "o such image|not known"):
                    self.engine.cli("image", "inspect", self.name)

    def test_an_archive_that_is_cut_off(self) -> None:
        """E10: its own command refuses it as well."""
        path = self.root / "image.tar"
        for kind in ("docker_archive", "oci_archive"):
            with self.subTest(kind):
                data = b"".join(getattr(self.make(), kind)())
                path.write_bytes(data[: len(data) // 2])
                with self.assertRaises(AssertionError):
                    self.engine.cli("load", "--input", path)

    def test_a_layer_that_is_not_what_it_says(self) -> None:
        """E10: a diff id that is another one's."""
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

    def test_it_dies_meanwhile(self) -> None:
        """E12, with a Docker of the test's own."""
        engine = layers.DockerEngine("DOCKER_THAT_ENDS", "docker.io")
        engine.setUp()
        self.addCleanup(engine.tearDown)
        engine.require(self)
        image = self.make()
        process = engine._process
        assert process is not None
        whole = Stored.docker_archive

        def archive(stored: Stored, known: Collection[str] = ()) -> Iterator[bytes]:
            for number, data in enumerate(whole(stored, known)):
                if number == 4:
                    process.kill()
                    process.wait()
                yield data

        with (
            Engine(engine.host) as here,
            mock.patch.object(Stored, "docker_archive", archive),
            self.assertRaises(TransportError) as caught,
        ):
            here.load(image)
        self.assertEqual(
            str(caught.exception),
            f"the engine at {engine.host} broke off when it was sent the image; see whether it "
            "still runs and what its log says, and run again",
        )

    def test_a_layer_that_goes_meanwhile_is_sent_after_all(self) -> None:
        image = self.make()
        with mock.patch.object(Engine, "_known_layers", lambda *_: image.diff_ids[:2]):
            self.assertEqual(self.load(image), (3, False))

    def test_the_docker_sdk_does_the_same(self) -> None:
        self.here.close()
        self.here = Engine(self.host(), whole_api=True)
        self.assertEqual(self.load(self.make("1")), (3, False))
        self.assertEqual(self.load(self.make("2")), (2, False))
        self.assertEqual(self.load(self.make("2")), (0, True))
        self.salt = secrets.token_hex(8)
        image = self.make()
        with mock.patch.object(Engine, "_known_layers", lambda *_: image.diff_ids[:2]):
            self.assertEqual(self.load(image), (3, False))


class PodmanTest(InAnEngine, Images):
    layer = layers.PODMAN
    engine = layers.PODMAN

    def host(self) -> str:
        return layers.PODMAN.serve()

    def test_only_what_it_lacks_is_sent(self) -> None:
        self.assertTrue(self.here.is_podman)
        self.assertEqual(self.load(self.make("1")), (3, False))
        # it looks for each layer by itself: what lies on the changed one is there
        self.assertEqual(self.load(self.make("2")), (1, False))
        self.assertEqual(self.load(self.make("1")), (0, True))

    def test_what_other_commands_have_loaded(self) -> None:
        for kind in ("oci_archive", "docker_archive"):
            with self.subTest(kind):
                self.salt = secrets.token_hex(8)
                self.name = f"acme/{self.salt}"
                path = self.root / kind
                path.write_bytes(b"".join(getattr(self.make("1"), kind)()))
                self.engine.cli("load", "--input", path)
                self.assertEqual(self.load(self.make("2")), (1, False))

    def test_all_names(self) -> None:
        image = self.make(tags=("latest", "1.4"))
        self.assertEqual(self.load(image), (3, False))
        self.assertIn("1.4", self.engine.cli("images", "--format={{.Tag}}", self.name))

    def test_a_layer_that_goes_meanwhile_is_sent_after_all(self) -> None:
        image = self.make()
        with mock.patch.object(Engine, "_known_layers", lambda *_: image.diff_ids[:2]):
            self.assertEqual(self.load(image), (3, False))


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

        do_GET = do_POST = answer

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
    """E12 and E13: what an engine is not, does not, or says."""

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

    def test_it_is_newer_than_anyone_knows(self) -> None:
        """E12: its own version of the API is spoken, whatever it is."""
        asked: list[str] = []

        def ping(handler: http.server.BaseHTTPRequestHandler) -> None:
            data = b"HTTP/1.1 200 OK\r\nServer: Docker/99.1.2 (linux)\r\n"
            handler.wfile.write(data + b"Api-Version: 9.77\r\nContent-Length: 2\r\n\r\nOK")

        def image(handler: http.server.BaseHTTPRequestHandler) -> None:
            asked.append(handler.path)
            said({"Id": "sha256:aa"})(handler)

        answers: dict[str, Answer] = {"/_ping": ping, "x/json": image}
        with fake(self.root / "d.sock", answers) as host, Engine(host) as engine:
            self.assertEqual(engine.name, "Docker 99.1")
            self.assertEqual(engine._id("x"), "aa")
        self.assertEqual(asked, ["/v9.77/images/x/json"])

    def test_it_is_none(self) -> None:
        for data in (b"<html>", b"[]", b"{}", b'"x"'):
            self.assertEqual(
                self.complaint({"/version": said(data)}),
                "what answers at unix:///d.sock is no container engine; name the socket of one "
                "with --host",
            )

    def test_an_error_in_the_answer_is_one(self) -> None:
        """E13."""
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
        for text in ("", "[]", '{"Endpoints": []}', '{"Endpoints": {"docker": {"Host": 5}}}'):
            (place / "meta.json").write_text(text)
            with self.assertRaisesRegex(TransportError, "^there is no context 'far' of Docker"):
                self.host(DOCKER_CONTEXT="far")
        (self.root / "config.json").write_text('{"currentContext": 5}')
        with self.assertRaisesRegex(TransportError, "^there is no context 5 of Docker"):
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

    def test_an_address_of_a_network(self) -> None:
        asked: list[str] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(f"{self.path} {self.headers['Host']}")
                # as long as the connection is there, in a version without chunks
                self.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps(VERSION).encode())

            def log_message(self, *_: Any) -> None:
                pass

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.01,))
            thread.start()
            place = f"127.0.0.1:{server.server_address[1]}"
            try:
                with (
                    mock.patch.dict(os.environ, DOCKER_TLS_VERIFY=""),
                    Engine(f"tcp://{place}") as engine,
                ):
                    self.assertEqual(engine.name, "Docker 20.10")
            finally:
                server.shutdown()
                thread.join()
        self.assertEqual(asked, [f"/_ping {place}", f"/version {place}"])

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
