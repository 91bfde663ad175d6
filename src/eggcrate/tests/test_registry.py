"""The registry client against a registry that does everything wrong, and says what."""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import email.utils
import errno
import hashlib
import http.server
import json
import os
import pathlib
import re
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from eggcrate.errors import EggcrateError, TransportError
from eggcrate.image import oci
from eggcrate.image.descriptor import INDEX, Descriptor
from eggcrate.image.layout import Image, ImageIndex, index_of, make_image, write_layout
from eggcrate.image.oci import Reference
from eggcrate.image.plan import bytes_file, merge, plan_layers
from eggcrate.image.store import Store
from eggcrate.image.stored import Stored, stored
from eggcrate.tests import layers
from eggcrate.tests.fake_registry import (
    FakeRegistry,
    Fault,
    Handler,
    cuts,
    digest_of,
    hangs_up,
    says,
)
from eggcrate.transports import connection, pool, registry
from eggcrate.transports.connection import Access, Limits
from eggcrate.transports.registry import Repository, Sent

# a registry in this process answers late where the machine has other work
QUICK = Limits(connect=30, stall=30, total=120, tries=3, pause=0.01, longest_wait=0.2)
STALLS = dataclasses.replace(QUICK, stall=1)
CANARY = "canary-8Zr3-password"
TYPE = "application/vnd.oci.image.layer.v1.tar+gzip"
PATH = "acme/shop"
BLOB = bytes(range(256)) * 400


def made_of(store: Store, *contents: bytes, architecture: str = "amd64") -> Image:
    """An image with a layer for each of these contents."""
    entries = [
        bytes_file(f"srv/{group}", content, group=group, reason="t")
        for group, content in zip(("packages", "data", "develop x"), contents, strict=False)
    ]
    return make_image(
        plan_layers(merge(entries), 12),
        platform=oci.Platform("linux", architecture),
        runtime=oci.RuntimeConfig(),
        references=(oci.reference("acme/shop", "1"),),
        store=store,
        compression="none",
        epoch=0,
    )


def image_of(store: Store, *contents: bytes) -> Stored:
    """The same, in a layout of its own."""
    return kept(made_of(store, *contents), store)


def kept(image: Image | ImageIndex, store: Store) -> Stored:
    """The image in a layout of its own."""
    layout = store.root.with_name(image.manifest.digest.replace(":", "-"))
    write_layout(image, store, layout)
    return stored(layout)


class Scratch(unittest.TestCase):
    """A store, a home without credentials, and a registry in this process."""

    maxDiff = None

    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.store = Store(self.root / "store")
        kept = {"HOME": str(self.root / "home"), "PATH": os.environ["PATH"]}
        patched = mock.patch.dict(os.environ, kept, clear=True)
        patched.start()
        self.addCleanup(patched.stop)
        self.said: list[str] = []
        self.server = self.serve()
        self.host = self.server.host

    def serve(self, **options: Any) -> FakeRegistry:
        server = FakeRegistry(**options)
        self.addCleanup(server.close)
        return server

    def access(self, **options: Any) -> Access:
        hosts = frozenset((self.host, *options.pop("insecure", ())))
        return Access(insecure=hosts, limits=options.pop("limits", QUICK), **options)

    def repository(self, path: str = PATH, **options: Any) -> Repository:
        return Repository(
            self.host, path, access=self.access(**options), writing=True, sources=("base",)
        )

    def login(self, host: str = "", password: str = CANARY) -> pathlib.Path:
        file = self.root / "home" / ".docker" / "config.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        auth = base64.b64encode(f"pusher:{password}".encode()).decode()
        file.write_text(json.dumps({"auths": {host or self.host: {"auth": auth}}}))
        file.chmod(0o600)
        return file

    def complaint(self, work: Callable[[], Any]) -> str:
        with self.assertRaises(EggcrateError) as caught:
            work()
        text = str(caught.exception)
        for secret in (CANARY, base64.b64encode(f"pusher:{CANARY}".encode()).decode()):
            self.assertNotIn(secret, text)
        return text

    def blob(self, data: bytes = BLOB, size: int | None = None) -> Descriptor:
        """A blob that the registry has."""
        return Descriptor(
            TYPE, self.server.put(PATH, data), len(data) if size is None else size
        )

    def pull(self, descriptor: Descriptor, **options: Any) -> bytes:
        self.repository(**options).blob(descriptor, self.store)
        with self.store.open(descriptor.digest) as stream:
            return stream.read()

    def manifest(self, value: Any, media_type: str = oci.MANIFEST, tag: str = "1") -> str:
        """Let the registry have a manifest under a tag and its digest."""
        data = value if isinstance(value, bytes) else oci.document(value)
        for reference in (tag, digest_of(data)):
            self.server.manifests[PATH, reference] = (media_type, data)
        return digest_of(data)

    def reference(self, tag: str = "1", path: str = PATH) -> Reference:
        return Reference(self.host, path, tag)

    def push(self, image: Stored, *references: Reference, **options: Any) -> list[Sent]:
        access = options.pop("access", None) or self.access()
        return registry.push(image, references or (self.reference(),), access=access, **options)


class Pulls(Scratch):
    """Rows D1 to D12, D32, D33 of what may go wrong."""

    def test_d1_a_download_that_breaks_off_goes_on(self) -> None:
        descriptor = self.blob()
        self.server.fault("GET", "/blobs/", cuts(30_000), 2)
        self.assertEqual(self.pull(descriptor), BLOB)
        ranges = [headers.get("range") for headers in self.server.asked("GET", "/blobs/")]
        self.assertEqual(ranges, [None, "bytes=30000-", "bytes=60000-"])

    def test_d1_a_registry_that_knows_no_ranges_sends_all_again(self) -> None:
        descriptor = self.blob()
        self.server.fault("GET", "/blobs/", cuts(30_000), 1)
        self.server.fault("GET", "/blobs/", says(200, BLOB), 1)
        self.assertEqual(self.pull(descriptor), BLOB)

    def test_d6_a_blob_that_was_damaged_once_is_fetched_again(self) -> None:
        descriptor = self.blob()
        self.server.fault("GET", "/blobs/", says(200, BLOB[::-1]), 1)
        self.assertEqual(self.pull(descriptor), BLOB)

    def test_what_blobs_may_be(self) -> None:
        """D2, D3, D5, D6, D8, D9, D21 and D33: each ends, and nothing of it is kept."""
        wrong = f"sha256:{hashlib.sha256(BLOB[::-1]).hexdigest()}"
        page = b"<html>" + b"x" * 5000
        size = len(BLOB)

        def stalls(handler: Handler) -> bool:
            handler.send_response(200)
            handler.send_header("Content-Length", str(size))
            handler.end_headers()
            handler.wfile.write(b"x")
            handler.rfile.read(1)  # until the client hangs up
            return True

        def endless(handler: Handler) -> bool:
            handler.send_response(200)
            handler.send_header("Transfer-Encoding", "chunked")
            handler.end_headers()
            for _ in range(2000):
                handler.wfile.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
                self.sent += 65536
            return True

        rows: tuple[tuple[str, Fault, int, str], ...] = (
            ("D2", cuts(100), 3, rf"300 of {size} bytes of sha256:\w+ have come in 3 tries: "
             r"\S+ has closed the connection in the middle"),
            ("D3", stalls, 3, r"in 3 tries: \S+ has not sent or taken a byte for 1 seconds; "
             "see whether the network works, and run again"),
            ("D5", says(503, page), 3, r"could not give the blob sha256:\w+: 503 Service "
             r"Unavailable: '<html>x{191}\.\.\.'; run again later"),
            ("D6", says(200, BLOB[::-1]), 2, rf"what has come as sha256:\w+ has the digest "
             rf"{wrong}; ask who runs"),
            ("D8 larger", says(200, BLOB + b"x"), 1,
             rf"has {size + 1} bytes, where its manifest announces {size} bytes"),
            ("D8 smaller", says(200, BLOB[1:]), 1, rf"has {size - 1} bytes, where its"),
            ("D9", endless, 1, rf"has more, where its manifest announces {size} bytes"),
            ("D21", says(404), 1, r"has no blob sha256:\w+ \(404\); push the image again"),
            ("D33", says(200, b"<html>log in", Content_Type="text/html"), 1,
             r"is no registry's answer \(text/html\).*; see whether a proxy"),
            ("416", says(416), 1, r"has not wanted to give the blob sha256:\w+: 416"),
        )  # fmt: skip
        for row, fault, requests, expected in rows:
            self.sent = 0
            self.server = self.serve()
            self.host = self.server.host
            descriptor = self.blob()
            self.server.fault("GET", "/blobs/", fault)
            with self.subTest(row):
                limits = STALLS if fault is stalls else QUICK
                text = self.complaint(lambda: self.pull(descriptor, limits=limits))
                self.assertRegex(text, expected)
                self.assertEqual(len(self.server.asked("GET", "/blobs/")), requests)
                self.assertFalse(self.store.has(descriptor.digest, descriptor.size))
                self.assertEqual(list((self.store.root / "blobs").glob(".*")), [])
                self.assertLess(self.sent, 40 << 20)

    def test_d3_what_trickles_has_an_end(self) -> None:
        descriptor = self.blob()

        def trickles(handler: Handler) -> bool:
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(BLOB)))
            handler.end_headers()
            for byte in BLOB:
                handler.wfile.write(bytes([byte]))
                time.sleep(0.05)
            return True

        self.server.fault("GET", "/blobs/", trickles)
        limits = Limits(stall=5, total=0.5)
        text = self.complaint(lambda: self.pull(descriptor, limits=limits))
        self.assertRegex(text, r"\d+ of 102400 bytes of sha256:\w+ have come in 0 seconds")

    def test_d4_a_registry_that_is_busy_is_left_alone_for_so_long(self) -> None:
        descriptor = self.blob()
        soon = email.utils.formatdate(time.time() + 3600, usegmt=True)
        for value in ("0", "99999", soon, "nonsense", ""):
            self.server.fault("GET", "/blobs/", says(429, Retry_After=value), 1)
        with self.assertLogs(connection.logger, "WARNING") as logs:
            self.assertEqual(self.pull(descriptor), BLOB)
        first, capped, date = logs.output
        self.assertIn("is busy (429): waiting 0 s, as it asks", first)
        self.assertIn("waiting 0 s, instead of 99999", capped)
        self.assertRegex(date, r"instead of 3[56]\d\d")

    def test_d5_what_passes_is_waited_for(self) -> None:
        descriptor = self.blob()
        for status in (500, 502):
            self.server.fault("GET", "/blobs/", says(status), 1)
        self.assertEqual(self.pull(descriptor), BLOB)

    def test_d12_digests_that_are_paths_make_no_path(self) -> None:
        good = "sha256:" + "a" * 64
        for digest in (
            "sha256:../../../x", "sha256:" + "A" * 64, f"{good}\n", f"{good}/../x", "md5:a",
            ":", "sha256:" + "a" * 63, "sha512:" + "a" * 128, "sha256:%2e%2e",
        ):  # fmt: skip
            for work in (
                lambda d: self.repository().manifest(d),
                lambda d: self.repository().blob(Descriptor(TYPE, d, 1), self.store),
                lambda d: self.repository().has_blob(Descriptor(TYPE, d, 1)),
            ):
                with self.subTest(digest=digest):
                    text = self.complaint(lambda: work(digest))
                    self.assertIn("is not a digest that eggcrate knows", text)
        for tag in ("a/b", "../x", "", ".a", "a" * 129, "a?b", "a#b"):
            self.assertIn("not a tag", self.complaint(lambda: self.repository().manifest(tag)))
        self.assertEqual(self.server.requests, [])

    def test_d19_layers_that_lie_elsewhere_are_not_fetched(self) -> None:
        for kind in (
            "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
            "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        ):
            descriptor = Descriptor(kind, self.blob().digest, len(BLOB))
            text = self.complaint(lambda: self.repository().blob(descriptor, self.store))
            self.assertIn("is said to lie elsewhere", text)
        self.assertEqual(self.server.requests, [])


class Manifests(Scratch):
    def setUp(self) -> None:
        super().setUp()
        self.layer = {"mediaType": TYPE, "digest": "sha256:" + "b" * 64, "size": 3}
        self.good: dict[str, Any] = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": {**self.layer, "mediaType": oci.CONFIG},
            "layers": [self.layer],
        }

    def test_a_manifest_is_its_bytes(self) -> None:
        data = json.dumps(self.good, indent=3).encode()
        digest = self.manifest(data)
        for reference in ("1", digest):
            descriptor, found = self.repository().manifest(reference)
            self.assertEqual(found, data)
            self.assertEqual(descriptor, Descriptor(oci.MANIFEST, digest, len(data)))

    def test_d32_documents_that_are_taken(self) -> None:
        del self.good["mediaType"]
        index = {"schemaVersion": 2, "manifests": [{**self.layer, "mediaType": oci.MANIFEST}]}
        for value, kind in (
            (self.good, oci.MANIFEST),
            (self.good, oci.DOCKER_MANIFEST),
            (index, INDEX),
            (index, oci.DOCKER_LIST),
            ({**self.good, "subject": self.layer}, oci.MANIFEST),
            ({**index, "manifests": []}, INDEX),
        ):
            self.manifest(value, kind)
            self.assertEqual(self.repository().manifest("1")[0].media_type, kind)

    def test_documents_that_are_not(self) -> None:
        """D10, D11, D12, D32 and D33."""
        layer, good = self.layer, self.good
        rows: tuple[tuple[str, Any, str, str], ...] = (
            ("D10", b" " * (5 << 20), oci.MANIFEST, "answers with more than 4096 kB"),
            ("D11", {**good, "manifests": []}, oci.MANIFEST, "is not clearly an image or an"),
            ("D11", good, INDEX, "is not clearly an image or an index"),
            ("D11", {**good, "mediaType": INDEX}, INDEX, "not clearly"),
            ("D11", {"schemaVersion": 2}, oci.MANIFEST, "not clearly"),
            ("D11", {**good, "mediaType": "x/y"}, "x/y", "'x/y' and says 'x/y'"),
            ("D11", b'{"layers": [], "layers": []}', oci.MANIFEST, "not JSON as it should be"),
            ("D12", {**good, "layers": [{**layer, "digest": "sha256:../x"}]}, oci.MANIFEST,
             "'sha256:../x' is not a digest"),
            ("D12", {**good, "config": {**layer, "digest": "x"}}, oci.MANIFEST,
             "is not a digest"),
            ("D12", {**good, "subject": {**layer, "digest": "x:y"}}, oci.MANIFEST,
             "'x:y' is not a digest"),
            ("size", {**good, "config": {**layer, "size": -1}}, oci.MANIFEST, "an entry with"),
            ("size", {**good, "config": {**layer, "size": True}}, oci.MANIFEST, "an entry"),
            ("none", {**good, "layers": [None]}, oci.MANIFEST, "has an entry without media"),
            ("none", {**good, "layers": None}, oci.MANIFEST, "has an entry without media"),
            ("none", {**good, "config": None}, oci.MANIFEST, "has an entry without media"),
            ("deep", b"[" * 200_000, oci.MANIFEST, "not JSON as it should be"),
            ("D32", {"schemaVersion": 1, "fsLayers": []}, "application/json", "schema 1"),
            ("D32", good, "application/vnd.docker.distribution.manifest.v1+prettyjws",
             "schema 1, which has no digests"),
            ("D33", b"<!DOCTYPE html><p>Log in", "text/html; charset=utf-8",
             r"is no registry's answer \(text/html\): '<!DOCTYPE html><p>Log in'; see whether"),
        )  # fmt: skip
        for row, value, kind, expected in rows:
            self.manifest(value, kind)
            with self.subTest(row, value=str(value)[:60]):
                text = self.complaint(lambda: self.repository().manifest("1"))
                self.assertRegex(text, expected)

    def test_d7_manifests_that_are_others(self) -> None:
        digest = self.manifest(self.good)
        data = oci.document({**self.good, "annotations": {}})
        answer = says(200, data, Content_Type=oci.MANIFEST)
        self.server.fault("GET", "/manifests/sha256", answer)
        text = self.complaint(lambda: self.repository().manifest(digest))
        self.assertIn(f"the manifest {digest} is {digest_of(data)}, and not {digest}", text)
        answer = says(200, data, Content_Type=oci.MANIFEST, Docker_Content_Digest=digest)
        self.server.fault("GET", "/manifests/1", answer)
        text = self.complaint(lambda: self.repository().manifest("1"))
        self.assertIn(f"and not {digest}", text)

    def test_d4_d5_manifests_of_a_registry_that_is_busy(self) -> None:
        digest = self.manifest(self.good)
        self.server.fault("GET", "/manifests/", says(429, Retry_After="99999"), 1)
        self.server.fault("GET", "/manifests/", says(502), 1)
        with self.assertLogs(connection.logger, "WARNING") as logs:
            self.assertEqual(self.repository().manifest("1")[0].digest, digest)
        self.assertRegex(logs.output[0], r"is busy \(429\): waiting 0 s, instead of 99999")
        page = b"<html>" + b"x" * 5000
        self.server.fault("GET", "/manifests/", says(503, page))
        self.assertRegex(
            self.complaint(lambda: self.repository().manifest("1")),
            rf"^{self.host} could not give the manifest 1: 503 Service Unavailable: "
            r"'<html>x{191}\.\.\.'; run again later: what is there already is not sent again$",
        )

    def test_a_manifest_that_breaks_off_is_asked_for_again(self) -> None:
        """D1, of a manifest: it is small, and read anew."""
        digest = self.manifest(self.good)

        def cut(handler: Handler) -> bool:
            handler.send_response(200)
            handler.send_header("Content-Length", "5000")
            handler.end_headers()
            handler.wfile.write(b"{")
            handler.hang_up()
            return True

        self.server.fault("GET", "/manifests/", cut, 2)
        self.assertEqual(self.repository().manifest("1")[0].digest, digest)


class Credentials(Scratch):
    """Rows D16 to D18, D20 and D21."""

    def setUp(self) -> None:
        super().setUp()
        self.tokens = self.serve()
        self.lifetime = 1 << 30
        self.count = 0
        self.scopes: list[list[str]] = []

    def wants_basic(self, password: str = CANARY) -> None:
        login = base64.b64encode(f"pusher:{password}".encode()).decode()

        def fault(handler: Handler) -> bool:
            if handler.headers.get("authorization") == f"Basic {login}":
                return False
            handler.answer(401, WWW_Authenticate='Basic realm="tests"')
            return True

        self.server.fault("*", "", fault)

    def wants_token(self, realm: str = "", error: str = "") -> None:
        """A token holds for ``lifetime`` requests."""
        realm = realm or f"http://{self.tokens.host}/token"
        left = {"t0": 0}

        def gives(handler: Handler) -> bool:
            self.count += 1
            left[f"t{self.count}"] = self.lifetime
            answer = json.dumps({"token": f"t{self.count}", "expires_in": 60}).encode()
            handler.answer(200, answer)
            return True

        def fault(handler: Handler) -> bool:
            token = handler.headers.get("authorization", "Bearer t0").partition(" ")[2]
            if left.get(token, 0) > 0:
                left[token] -= 1
                return False
            challenge = f'Bearer realm="{realm}",service="tests",scope="repository:{PATH}:pull"'
            handler.answer(401, WWW_Authenticate=challenge + error)
            return True

        self.tokens.fault("*", "", gives)
        self.server.fault("*", "", fault)

    def of_tokens(self, **options: Any) -> dict[str, Any]:
        return {
            "insecure": (self.tokens.host,),
            "token_hosts": frozenset((self.tokens.host,)),
            **options,
        }

    def test_basic(self) -> None:
        self.wants_basic()
        self.login()
        descriptor = self.blob()
        repository = self.repository()
        repository.blob(descriptor, self.store)
        repository.has_blob(descriptor)
        self.assertEqual(len(self.server.requests), 3)  # it asks once

    def test_a_token_for_a_user_and_for_nobody(self) -> None:
        self.wants_token()
        descriptor = self.blob()
        self.pull(descriptor, insecure=(self.tokens.host,))
        ((_, path, headers),) = self.tokens.requests
        self.assertNotIn("authorization", headers)
        self.assertIn("service=tests", path)
        self.assertIn("scope=repository%3Aacme%2Fshop%3Apull%2Cpush", path)
        self.assertIn("scope=repository%3Abase%3Apull", path)
        self.login()
        self.repository(**self.of_tokens()).has_blob(descriptor)
        login = base64.b64encode(f"pusher:{CANARY}".encode()).decode()
        self.assertEqual(self.tokens.requests[1][2]["authorization"], f"Basic {login}")

    def test_an_identity_token_is_posted(self) -> None:
        self.wants_token()
        file = self.login()
        file.write_text(json.dumps({"auths": {self.host: {"identitytoken": CANARY}}}))
        bodies = []

        def gives(handler: Handler) -> bool:
            bodies.append(handler.body().decode())
            handler.answer(200, b'{"access_token": "t1"}')
            return True

        self.tokens.fault("POST", "", gives, first=True)
        self.complaint(lambda: self.repository(**self.of_tokens()).has_blob(self.blob()))
        self.assertIn(f"refresh_token={CANARY}", bodies[0])
        self.assertIn("grant_type=refresh_token", bodies[0])

    def test_d16_credentials_do_not_go_to_another_host(self) -> None:
        self.wants_token()
        self.login()
        descriptor = self.blob()
        for options, expected in (
            ({"insecure": (self.tokens.host,)}, "wants a token of another host, .*, which the "
             "credentials of .*config.json are not for; if it belongs to the registry, say so"),
            ({}, "wants a token of http://127.0.0.1:[0-9]+/token, which is not HTTPS"),
        ):  # fmt: skip
            text = self.complaint(lambda: self.pull(descriptor, **options))
            self.assertRegex(text, expected)
        self.assertEqual(self.tokens.requests, [])

    def test_d16_realms_that_are_none(self) -> None:
        for realm in ("", "ftp://x/y", "file:///etc/passwd", "http://x@y/", "//evil/x"):
            self.server = self.serve()
            self.host = self.server.host
            self.wants_token(realm or " ")
            text = self.complaint(lambda: self.pull(self.blob()))
            self.assertIn("which is not HTTPS", text)

    def test_d20_a_token_that_expires_is_replaced(self) -> None:
        self.lifetime = 3
        self.wants_token()
        self.login()
        image = image_of(self.store, b"one" * 1000, b"two" * 1000)
        access = self.access(**self.of_tokens())
        self.push(image, access=access, parallel=1)
        self.assertGreater(self.count, 2)
        repository = self.repository(**self.of_tokens())
        other = Store(self.root / "other")
        for blob in image.blobs:
            if blob != image.manifest:
                repository.blob(blob, other)
                self.assertTrue(other.has(blob.digest, blob.size))

    def test_d21_who_we_are_is_said(self) -> None:
        descriptor = self.blob()
        self.wants_basic()
        self.assertRegex(
            self.complaint(lambda: self.pull(descriptor)),
            rf"{self.host} asks who we are for acme/shop \(401\), and no file has credentials "
            rf"for it; log in, docker login {self.host}, .*looked into: .*/auth.json, "
            rf".*config.json",
        )
        file = self.login(password="wrong")
        self.assertRegex(
            self.complaint(lambda: self.pull(descriptor)),
            rf"{self.host} does not take the credentials of {file} \(401\); log in again",
        )

    def test_d21_what_is_not_allowed(self) -> None:
        file = self.login()
        self.wants_basic()

        def denies(handler: Handler) -> bool:
            if "authorization" not in handler.headers:
                return False
            handler.answer(403, b"denied")
            return True

        self.server.fault("POST", "uploads", denies, first=True)
        image = image_of(self.store, b"x")
        text = self.complaint(lambda: self.push(image))
        self.assertIn(
            f"{self.host} does not allow this for acme/shop with the credentials of {file} "
            "(403): 'denied'; ask for the right to it",
            text,
        )

    def test_d21_a_token_without_the_right(self) -> None:
        self.lifetime = 0
        self.wants_token(error=',error="insufficient_scope"')
        self.login()
        text = self.complaint(lambda: self.pull(self.blob(), **self.of_tokens()))
        self.assertIn("does not allow this for acme/shop", text)

    def test_d21_names_and_tags_that_are_not_there(self) -> None:
        text = self.complaint(lambda: self.repository().manifest("1.4"))
        self.assertIn(f"{self.host}/acme/shop has no tag 1.4 (404)", text)
        digest = "sha256:" + "c" * 64
        text = self.complaint(lambda: self.repository().manifest(digest))
        self.assertIn(f"has no manifest {digest} (404)", text)
        unknown = json.dumps({"errors": [{"code": "NAME_UNKNOWN"}]}).encode()
        self.server.fault("*", "", says(404, unknown))
        text = self.complaint(lambda: self.repository().manifest("1.4"))
        self.assertIn(f"{self.host} has no repository acme/shop (404)", text)
        text = self.complaint(lambda: self.push(image_of(self.store, b"x")))
        self.assertIn("has no repository acme/shop to push to (404): 'NAME_UNKNOWN'", text)

    def test_token_services_that_do_not_work(self) -> None:
        self.wants_token()
        for fault, expected in (
            (says(500), "has no token for us \\(500 Internal Server Error\\)"),
            (says(200, b"{}"), "has no token for us \\(200 OK\\)"),
            (says(200, b'{"token": "a\\r\\nX: y"}'), "has no token for us"),
            (says(302, Location="http://127.0.0.1:1/"), "has no token for us \\(302 Found"),
            (hangs_up, "has closed the connection"),
        ):
            self.tokens.fault("GET", "", fault, first=True)
            options = self.of_tokens()
            self.assertRegex(
                self.complaint(lambda: self.pull(self.blob(), **options)),
                expected,
            )
            del self.tokens._faults[0]  # each by itself

    def test_d17_redirects_get_no_credentials(self) -> None:
        self.wants_basic()
        self.login()
        descriptor = self.blob()
        other = self.serve()
        other.put("cdn", BLOB)
        place = f"http://{other.host}/v2/cdn/blobs/{descriptor.digest}"

        def sends_away(handler: Handler) -> bool:
            if "authorization" not in handler.headers:
                return False
            handler.answer(307, Location=place)
            return True

        self.server.fault("GET", "/blobs/", sends_away, first=True)
        self.assertEqual(self.pull(descriptor), BLOB)
        ((_, _, headers),) = other.requests
        self.assertNotIn("authorization", headers)

    def test_redirects_that_lead_nowhere(self) -> None:
        for place, shown in (
            ("http://[x/", "a place"),
            (f"http://{'a' * 64}.example/", f"http://{'a' * 64}.example/"),
            ("http://a:99999/", "http://a:99999/"),
        ):
            server = self.serve()
            self.host = server.host
            server.fault("GET", "", says(307, Location=place))
            with self.subTest(place):
                text = self.complaint(lambda: self.pull(Descriptor(TYPE, digest_of(BLOB), 9)))
                self.assertIn(f"sends us to {shown}, which can't be an address", text)

    def test_redirects_without_an_end(self) -> None:
        self.server.fault("GET", "", says(307, Location="/v2/x"))
        self.assertIn(
            "from one place to the next", self.complaint(lambda: self.pull(self.blob()))
        )
        self.assertEqual(len(self.server.requests), 5)

    def test_a_registry_that_quotes_what_it_was_told(self) -> None:
        self.login()
        self.wants_basic()

        def echoes(handler: Handler) -> bool:
            login = handler.headers.get("authorization", "")
            if login:
                handler.answer(400, f"bad: {login} {CANARY} http://a:{CANARY}@b/".encode())
            return bool(login)

        self.server.fault("GET", "", echoes, first=True)
        text = self.complaint(lambda: self.repository().manifest("1"))
        self.assertIn("400 Bad Request: 'bad: Basic *** *** http://***@b/'", text)


class Pushes(Scratch):
    """Rows D18 and E1 to E8."""

    def setUp(self) -> None:
        super().setUp()
        self.image = image_of(self.store, b"small", b"large" * 100_000)
        for name, value in (
            ("_ONE_REQUEST", 100_000),
            ("_CHUNKS", (1 << 62, 300_000, 100_000)),
        ):
            patched = mock.patch.object(registry, name, value)
            patched.start()
            self.addCleanup(patched.stop)

    def there(self, tag: str = "1", path: str = PATH) -> str:
        """The digest behind a tag, when all of the image is there."""
        _, data = self.server.manifests[path, tag]
        value = json.loads(data)
        for item in (value["config"], *value["layers"]):
            self.assertEqual(digest_of(self.server.blobs[path][item["digest"]]), item["digest"])
        return digest_of(data)

    def test_a_push_sends_what_is_not_there(self) -> None:
        (sent,) = self.push(self.image, self.reference("1"), self.reference("2"))
        self.assertEqual(self.there("1"), self.image.manifest.digest)
        self.assertEqual(self.there("2"), self.image.manifest.digest)
        self.assertEqual((sent.layers, sent.layers_there, sent.blobs), (2, 0, 3))
        self.assertEqual(sent.bytes, self.image.size + self.image.manifest.size)
        (sent,) = self.push(self.image)
        self.assertEqual((sent.layers_there, sent.blobs), (2, 0))
        self.assertLess(sent.bytes, 2000)
        self.assertRegex(
            registry.summary(sent),
            rf"^pushed {self.host}/acme/shop:1 sha256:\w+ \(\d+ bytes sent, 2 of 2 layers ",
        )

    def test_several_platforms_are_one_image(self) -> None:
        """Blobs, the manifests of the platforms, and the index under its tag last."""
        one = made_of(self.store, b"small", b"large" * 100_000)
        other = made_of(self.store, b"other", b"large" * 100_000, architecture="arm64")
        both = kept(index_of([one, other], one, self.store), self.store)
        (sent,) = self.push(both, parallel=1)
        puts = [what for what in self.asked() if what.startswith("PUT manifests/")]
        self.assertEqual(puts, ["PUT manifests/x", "PUT manifests/x", "PUT manifests/1"])
        self.assertEqual(
            (sent.digest, sent.layers, sent.layers_there), (both.manifest.digest, 3, 0)
        )
        descriptor, data = self.repository().manifest("1")
        self.assertEqual(descriptor, both.manifest)
        self.assertEqual(
            [(item["digest"], item["platform"]) for item in json.loads(data)["manifests"]],
            [(each.manifest.digest, each.platform.as_json()) for each in (one, other)],
        )
        self.asked()
        (sent,) = self.push(both, parallel=1)
        self.assertEqual((sent.blobs, sent.layers_there), (0, 3))
        self.assertNotIn("HEAD blobs/x", self.asked())

    def asked(self) -> list[str]:
        """What the registry was asked for, with digests and uploads by their kind alone."""
        found = []
        for method, path, _ in self.server.requests:
            kind = re.sub(r"sha256:\w+|uploads/.*", "x", path.partition(f"/{PATH}/")[2])
            found.append(f"{method} {kind}")
        self.server.requests.clear()
        return found

    def test_of_a_changed_layer_little_is_asked(self) -> None:
        self.push(self.image)
        first = self.asked()
        changed = image_of(self.store, b"SMALL", b"large" * 100_000)
        (sent,) = self.push(changed, parallel=1)
        upload = ["POST blobs/x", "PUT blobs/x"]
        tag = ["PUT manifests/1", "HEAD manifests/1"]
        self.assertEqual(self.asked(), ["GET manifests/1", *upload, *upload, *tag])
        self.assertEqual((sent.layers, sent.layers_there, sent.blobs), (2, 1, 2))
        self.assertEqual(self.there(), changed.manifest.digest)
        self.push(changed)
        self.assertEqual(self.asked(), ["GET manifests/1", *tag])
        # nothing is known of another tag
        self.push(changed, self.reference("2"))
        asked = [
            "GET manifests/2",
            *["HEAD blobs/x"] * 3,
            "PUT manifests/2",
            "HEAD manifests/2",
        ]
        self.assertEqual(self.asked(), asked)
        self.assertEqual(first.count("HEAD blobs/x"), 3)
        self.push(changed, self.reference("3"), self.reference("1"))
        asked = ["GET manifests/3", "GET manifests/1", "PUT manifests/3", "HEAD manifests/3"]
        self.assertEqual(self.asked(), [*asked, *tag])

    def test_a_registry_that_has_lost_a_blob_is_given_it(self) -> None:
        self.push(self.image)
        large = max(self.image.blobs, key=lambda blob: blob.size)
        del self.server.blobs[PATH][large.digest]
        changed = image_of(self.store, b"SMALL", b"large" * 100_000)
        self.server.requests.clear()
        (sent,) = self.push(changed)
        self.assertEqual(self.there(), changed.manifest.digest)
        self.assertEqual(self.asked().count("PUT manifests/1"), 2)
        self.assertEqual((sent.layers_there, sent.blobs), (0, 3))

    def test_what_else_a_tag_may_have(self) -> None:
        for data in (b"[", b"{}", b'{"layers": 7}', b'{"manifests": []}', b"<html>"):
            self.manifest(data, "text/html" if data[:1] == b"<" else INDEX)
            self.server.blobs.clear()
            self.push(self.image)
            self.assertEqual(self.there(), self.image.manifest.digest)
        self.server.fault("GET", "/manifests/", says(503))
        text = self.complaint(lambda: self.push(self.image))
        self.assertIn("could not give the manifest 1: 503 Service Unavailable", text)

    def test_tags_come_last(self) -> None:
        self.push(self.image, self.reference("1"), self.reference("9", "other"))
        puts = [path for method, path, _ in self.server.requests if method == "PUT"]
        tags = [path.rpartition("/")[2] for path in puts[-2:]]
        self.assertEqual(tags, ["1", "9"])
        by_digest = [path for path in puts if "/manifests/sha256:" in path]
        self.assertEqual(puts[-4:-2], by_digest)

    def test_the_second_repository_mounts_from_the_first(self) -> None:
        """E4, where it is not refused."""
        first, second = self.push(self.image, self.reference("1"), self.reference("1", "other"))
        self.assertEqual((first.layers_there, second.layers_there), (0, 2))
        self.assertEqual(self.there("1", "other"), self.image.manifest.digest)

    def test_what_can_be_mounted_is_not_sent(self) -> None:
        """E4, from a repository that is named, and from that of the base."""
        layer = max(self.image.blobs, key=lambda blob: blob.size)
        with self.image.open(layer) as stream:
            self.server.put("base", stream.read())
        for name, near in (("", (f"{self.host}/base", "elsewhere.example/base")),
                           (f"{self.host}/base:1@sha256:x", ())):  # fmt: skip
            self.server.blobs.pop(PATH, None)
            image = self.image._replace(base_name=name)
            (sent,) = self.push(image, mount_from=near)
            self.assertEqual(self.there(), self.image.manifest.digest)
            self.assertEqual(sent.layers_there, 1)

    def test_no_session_is_left_where_nothing_could_be_mounted(self) -> None:
        self.push(self.image, mount_from=(f"{self.host}/one", f"{self.host}/two"))
        asked = [path for method, path, _ in self.server.requests if "from=one" in path]
        self.assertTrue(asked)
        self.assertEqual(self.server.uploads, {})

    def test_what_is_damaged_here_is_said(self) -> None:
        layer = max(self.image.blobs, key=lambda blob: blob.size)
        path = self.image.root / "blobs" / layer.digest.replace(":", "/")
        data = path.read_bytes()
        for damaged in (data[:-1], data[:-1] + b"!", data + b"x"):
            path.write_bytes(damaged)
            self.assertEqual(
                self.complaint(lambda: self.push(self.image)),
                f"{path} is not what its name says; remove the directory, and build again",
            )
        path.unlink()
        text = self.complaint(lambda: self.push(self.image))
        self.assertIn(f"{path} can't be read: No such file or directory", text)
        self.assertEqual(self.server.manifests, {})

    def test_an_image_that_is_replaced_while_it_is_sent(self) -> None:
        def replaced(handler: Handler) -> bool:
            for path in (self.image.root / "blobs/sha256").iterdir():
                path.unlink()
            return False

        self.server.fault("POST", "/uploads/", replaced, 1)
        self.push(self.image)
        self.assertEqual(self.there(), self.image.manifest.digest)

    def test_e1_a_retry_sends_what_is_not_there(self) -> None:
        sizes = sorted(blob.size for blob in self.image.blobs if blob != self.image.manifest)

        def after_two(handler: Handler) -> bool:
            if len(self.server.blobs.get(PATH, {})) < 2:
                return False
            handler.answer(403)
            return True

        self.server.fault("PUT", "/uploads/", after_two)
        self.complaint(lambda: self.push(self.image, parallel=1))
        self.assertNotIn((PATH, "1"), self.server.manifests)
        self.server.forget_faults()
        there = {len(data) for data in self.server.blobs[PATH].values()}
        (sent,) = self.push(self.image)
        self.assertEqual((len(there), sent.blobs), (2, 1))
        self.assertEqual(sent.bytes, sum(sizes) - sum(there) + self.image.manifest.size)

    def test_e1_whenever_it_dies_the_tag_is_whole(self) -> None:
        before = image_of(self.store, b"before")
        self.push(before)
        step = 0
        while True:
            self.server.requests.clear()

            def dies(handler: Handler) -> bool:
                return len(self.server.requests) > step and hangs_up(handler)

            self.server.forget_faults()
            self.server.fault("*", "", dies)
            try:
                self.push(self.image, parallel=1)
            except TransportError as error:
                self.assertIn("has closed the connection", str(error))
            else:
                break
            self.assertIn(self.there(), (before.manifest.digest, self.image.manifest.digest))
            step += 1
            self.assertLess(step, 40)
        self.assertEqual(self.there(), self.image.manifest.digest)
        self.assertGreater(step, 4)

    def test_e2_uploads_that_have_to_begin_anew(self) -> None:
        for method in ("POST", "PATCH", "PUT"):
            for status in (500, 404, 416):
                if (method, status) in (("POST", 404), ("POST", 416)):
                    continue
                self.server = self.serve()
                self.host = self.server.host
                self.server.fault(method, "/uploads/", says(status), 1)
                with self.subTest(method=method, status=status):
                    self.push(self.image)
                    self.assertEqual(self.there(), self.image.manifest.digest)

    def test_e2_it_has_an_end(self) -> None:
        """D18, too: an upload goes to the registry's own host."""
        for method, fault, expected in (
            ("PUT", says(500, b"why"), "could not take the blob .*: 500 .*: 'why'; run again"),
            ("PATCH", hangs_up, "could not be sent in 3 tries: .* has closed the connection"),
            ("PATCH", says(400), "has not wanted to take the blob .*: 400 Bad Request"),
            ("POST", says(405), "takes no pushes \\(405\\)"),
            ("POST", says(202, Location=""), "does not say where an upload is to go"),
            ("POST", says(202, Location="http://evil.example/x"),
             "wants an upload at another host, evil.example; ask who runs the registry"),
            ("PUT", says(201, Docker_Content_Digest="sha256:x"), "was stored as 'sha256:x'"),
        ):  # fmt: skip
            self.server = self.serve()
            self.host = self.server.host
            self.server.fault(method, "/uploads/", fault)
            with self.subTest(method=method, expected=expected):
                self.assertRegex(self.complaint(lambda: self.push(self.image)), expected)
                self.assertNotIn((PATH, "1"), self.server.manifests)

    def test_a_large_upload_goes_on_where_it_was(self) -> None:
        large = max(self.image.blobs, key=lambda blob: blob.size)

        def loses(handler: Handler) -> bool:
            name = re.search(r"uploads/(\w+)", handler.path)
            assert name
            handler.server.uploads[name[1]] += handler.rfile.read(150_000)
            handler.hang_up()
            return True

        self.server.fault("PATCH", "/uploads/", loses, 2)
        (sent,) = self.push(self.image)
        self.assertEqual(self.there(), self.image.manifest.digest)
        ranges = [h.get("content-range") for h in self.server.asked("PATCH", "")]
        self.assertEqual(
            ranges,
            [None, *(f"{start}-{large.size - 1}" for start in (150_000, 300_000))],
        )
        self.assertGreater(sent.bytes, self.image.size)

    def test_e5_what_is_too_large_is_sent_in_parts(self) -> None:
        def limited(handler: Handler) -> bool:
            if int(handler.headers["content-length"]) <= 100_000:
                return False
            handler.answer(413)
            return True

        self.server.fault("PATCH", "/uploads/", limited)
        self.push(self.image)
        self.assertEqual(self.there(), self.image.manifest.digest)

    def test_e5_or_else_the_limit_is_named(self) -> None:
        self.server.fault("PATCH", "/uploads/", says(413, b"<html>too large"))
        text = self.complaint(lambda: self.push(self.image))
        self.assertRegex(text, r"too large what is sent to it \(413\).*: '<html>too large'; .*"
                               "client_max_body_size 0")  # fmt: skip

    def test_e3_what_is_stored_is_read_back(self) -> None:
        other = "sha256:" + "d" * 64
        digest = self.image.manifest.digest
        for method, fault in (
            ("PUT", says(201, Docker_Content_Digest=other)),
            ("HEAD", says(200, Docker_Content_Digest=other)),
        ):
            self.server = self.serve()
            self.host = self.server.host
            self.server.fault(method, "/manifests/1", fault)
            text = self.complaint(lambda: self.push(self.image))
            self.assertIn(f"1 is {other} after {digest} was pushed; see who else pushes", text)
        self.server = self.serve()
        self.host = self.server.host
        self.server.fault("HEAD", f"/blobs/{self.image.config.digest}", says(200, b"x"))
        text = self.complaint(lambda: self.push(self.image))
        self.assertIn("has 1 bytes, where its manifest announces", text)

    def test_e7_two_at_once_leave_one_of_the_two(self) -> None:
        other = image_of(self.store, b"other")
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(self.push, image) for image in (self.image, other)]:
                try:
                    future.result()
                except TransportError as error:
                    self.assertIn("see who else pushes there at the same time", str(error))
        self.assertIn(self.there(), (self.image.manifest.digest, other.manifest.digest))

    def test_e8_attachments_with_and_without_the_api(self) -> None:
        self.push(self.image)
        tag = self.image.manifest.digest.replace(":", "-")
        for knows in (True, False):
            self.server.knows_subjects = knows
            made = self.repository().attach(self.image.manifest, "a/b", "a/c", b"document")
            _, data = self.server.manifests[PATH, made.digest]
            value = json.loads(data)
            self.assertEqual(value["artifactType"], "a/b")
            self.assertEqual(value["subject"]["digest"], self.image.manifest.digest)
            self.assertEqual((PATH, tag) in self.server.manifests, not knows)
        (entry,) = self.repository().referrers(self.image.manifest)
        self.assertEqual(entry["digest"], made.digest)
        puts = len(self.server.asked("PUT", tag))
        self.repository().attach(self.image.manifest, "a/b", "a/c", b"document")
        self.assertEqual(len(self.server.asked("PUT", tag)), puts)

    def test_e8_what_others_attach_at_the_same_time_stays(self) -> None:
        self.push(self.image)
        gate = threading.Barrier(4)

        def attach(number: int) -> str:
            repository = self.repository()
            gate.wait()
            data = str(number).encode()
            return repository.attach(self.image.manifest, "a/b", "a/c", data).digest

        with (
            mock.patch.object(registry, "_MOMENT", (2, 3)),
            concurrent.futures.ThreadPoolExecutor(4) as pool,
        ):
            made = set(pool.map(attach, range(4)))
        entries = self.repository().referrers(self.image.manifest)
        self.assertEqual({entry["digest"] for entry in entries}, made)

    def test_one_that_fails_stops_the_others(self) -> None:
        self.server.fault("PUT", "/uploads/", says(403), 1)
        self.assertIn("(403)", self.complaint(lambda: self.push(self.image)))
        self.assertNotIn((PATH, "1"), self.server.manifests)


class Networks(Scratch):
    """Rows D24 and D25."""

    def test_addresses_that_lead_nowhere(self) -> None:
        closed = f"127.0.0.1:{layers.free_port()}"
        for host, expected in (
            (closed, f"{closed} refuses the connection; see whether the registry runs"),
            ("registry.invalid", "there is no host registry.invalid, as far as this machine"),
        ):
            repository = Repository(host, PATH, access=Access(limits=QUICK))
            self.assertIn(expected, self.complaint(lambda: repository.manifest("1")))

    def test_d24_no_host_is_insecure_unless_it_is_named(self) -> None:
        for insecure in (
            frozenset[str](),
            frozenset(("127.0.0.1",)),
            frozenset(("localhost",)),
        ):
            access = Access(insecure=insecure, limits=QUICK)
            repository = Repository(self.host, PATH, access=access)
            self.assertIn(
                f"{self.host} does not speak TLS; if it is meant to have none, name it: "
                f"insecure-registries = {self.host}, or --insecure {self.host}",
                self.complaint(lambda: repository.manifest("1")),
            )
        self.assertEqual(self.server.requests, [])

    def test_d24_certificates(self) -> None:
        layers.certificate(self.root, "good")
        layers.certificate(self.root, "old", days=-1)
        layers.certificate(self.root, "other", address="127.9.9.9")
        ca = self.root / "ca.crt"
        for name, trusted, expected in (
            ("good", None, "is of nobody whom this machine trusts"),
            ("old", ca, "has expired; have it renewed, or see whether the clock"),
            ("other", ca, "is for another name; use the name that it is for"),
        ):
            server = self.serve(
                certificate=self.root / f"{name}.crt", key=self.root / f"{name}.key"
            )
            repository = Repository(server.host, PATH, access=Access(ca=trusted, limits=QUICK))
            with self.subTest(name):
                text = self.complaint(lambda: repository.manifest("1"))
                self.assertIn(f"the certificate of {server.host} {expected}", text)
                self.assertEqual(server.requests, [])

    def test_d24_every_way_to_name_a_ca(self) -> None:
        layers.certificate(self.root, "good")
        ca = self.root / "ca.crt"
        server = self.serve(certificate=self.root / "good.crt", key=self.root / "good.key")

        def finds(**options: Any) -> None:
            access = Access(limits=QUICK, **options)
            repository = Repository(server.host, PATH, access=access)
            self.assertIsNone(repository.digest("1"))

        finds(ca=ca)
        with mock.patch.dict(os.environ, SSL_CERT_FILE=str(ca)):
            finds()
        own = self.root / "home" / ".docker" / "certs.d" / server.host
        own.mkdir(parents=True)
        (own / "ca.crt").write_bytes(ca.read_bytes())
        finds()
        (own / "ca.crt").write_text("nonsense")
        self.assertIn("ca.crt can't be used as a certificate", self.complaint(finds))
        with mock.patch.dict(os.environ, SSL_CERT_FILE="/nowhere"):
            self.assertIn("SSL_CERT_FILE is /nowhere, and there is no", self.complaint(finds))

    def test_d17_tls_does_not_end_on_the_way(self) -> None:
        layers.certificate(self.root, "good")
        server = self.serve(certificate=self.root / "good.crt", key=self.root / "good.key")
        place = f"http://{self.host}/v2/x?secret={CANARY}"
        server.fault("GET", "", says(307, Location=place), 1)
        server.fault("POST", "", says(202, Location=f"http://{server.host}/v2/x"))
        access = Access(ca=self.root / "ca.crt", limits=QUICK)
        repository = Repository(server.host, PATH, access=access)
        text = self.complaint(lambda: repository.manifest("1"))
        self.assertIn(f"sends us to http://{self.host}/v2/x, which is not HTTPS", text)
        image = image_of(self.store, b"x")
        text = self.complaint(
            lambda: registry.push(image, [Reference(server.host, PATH, "1")], access=access)
        )
        self.assertIn("wants an upload without TLS, at http://127.0.0.1; have the proxy", text)
        self.assertEqual(self.server.requests, [])

    def test_d25_proxies(self) -> None:
        seen: list[tuple[str, str | None]] = []
        answer = 404

        class Proxy(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                seen.append((self.path, self.headers.get("proxy-authorization")))
                self.send_response(answer)
                self.send_header("Content-Length", "0")
                self.end_headers()

            do_HEAD = do_CONNECT = do_GET

            def log_message(self, *arguments: Any) -> None:
                pass

        proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
        self.addCleanup(proxy.server_close)
        self.addCleanup(proxy.shutdown)
        threading.Thread(target=proxy.serve_forever, args=(0.02,), daemon=True).start()
        url = f"http://user:{CANARY}@127.0.0.1:{proxy.server_address[1]}"
        host = "registry.invalid:5000"
        access = Access(insecure=frozenset((host, self.host)), limits=QUICK)
        with mock.patch.dict(os.environ, http_proxy=url, HTTPS_PROXY=url):
            self.assertIsNone(Repository(host, PATH, access=access).digest("1"))
            login = base64.b64encode(f"user:{CANARY}".encode()).decode()
            self.assertEqual(seen.pop(), (f"http://{host}/v2/acme/shop/manifests/1",
                                          f"Basic {login}"))  # fmt: skip
            # what is on this machine has no proxy
            self.assertIsNone(Repository(self.host, PATH, access=access).digest("1"))
            self.assertEqual(seen, [])
            answer = 407
            secure = Repository("registry.invalid", PATH, access=Access(limits=QUICK))
            text = self.complaint(lambda: secure.digest("1"))
            bare = url.replace(f"user:{CANARY}@", "")
            self.assertIn(
                f"the proxy {bare} wants a name and a password to registry.invalid", text
            )
            self.assertEqual(seen.pop()[0], "registry.invalid:443")
            for excluded in ("registry.invalid", ".invalid", "*"):
                with mock.patch.dict(os.environ, no_proxy=excluded):
                    repository = Repository("registry.invalid", PATH, access=access)
                    text = self.complaint(lambda: repository.digest("1"))
                    self.assertIn("there is no host registry.invalid", text)
        with mock.patch.dict(os.environ, https_proxy=f"socks5://user:{CANARY}@h:1"):
            secure = Repository("registry.invalid", PATH, access=Access(limits=QUICK))
            text = self.complaint(lambda: secure.manifest("1"))
            self.assertIn("the proxy socks5://h:1 is none that HTTP can go through", text)
        for wrong in ("http://h:port", "http://h:0", "http://[::1"):
            with mock.patch.dict(os.environ, https_proxy=wrong):
                text = self.complaint(lambda: secure.manifest("1"))
            self.assertIn(f"the proxy {wrong} is none that HTTP can go through", text)

    def test_hosts_and_proxies_without_a_port(self) -> None:
        for host, proxy, place in (
            ("[2001:db8::1]", "", ("2001:db8::1", 443)),
            ("registry.example", "http://proxy.example", ("proxy.example", 80)),
        ):
            repository = Repository(host, PATH, access=Access(limits=QUICK))
            unreachable = OSError(errno.EHOSTUNREACH, "No route to host")
            with (
                mock.patch.dict(os.environ, https_proxy=proxy),
                mock.patch("socket.create_connection", side_effect=unreachable) as connect,
            ):
                self.complaint(lambda: repository.digest("1"))
            self.assertEqual(connect.call_args.args[0], place)

    def test_a_path_that_begins_with_two_slashes(self) -> None:
        """An object store may have such names, and signs them as they are."""
        self.assertEqual(pool._target("https://a.example//b/c?d=%2F"), "//b/c?d=%2F")
        self.assertEqual(pool._target("https://a.example"), "/")


class ReferencesAsPeopleWriteThem(unittest.TestCase):
    def test_what_is_meant(self) -> None:
        for text, expected in {
            "shop": "docker.io/library/shop:latest",
            "acme/shop:1.4": "docker.io/acme/shop:1.4",
            "registry.example:5000/shop": "registry.example:5000/shop:latest",
            "localhost:5000/a/b:c": "localhost:5000/a/b:c",
        }.items():
            self.assertEqual(str(oci.parse(text)), expected)

    def test_what_is_not_shown(self) -> None:
        for text in (
            f"me:{CANARY}@registry.example/shop",
            f"https://me:{CANARY}@registry.example/shop:1",
            f"me:{CANARY}@registry.example",
        ):
            with self.assertRaises(EggcrateError) as caught:
                oci.parse(text)
            self.assertNotIn(CANARY, str(caught.exception))
