"""Debian's docker-registry takes what we push, and strangers read it; and the other way."""

from __future__ import annotations

import base64
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import tempfile
import time
import unittest
from collections.abc import Iterator
from typing import Any
from unittest import mock

from eggcrate.errors import TransportError
from eggcrate.image.descriptor import INDEX, Descriptor
from eggcrate.image.oci import Reference
from eggcrate.image.store import Store
from eggcrate.image.stored import Stored
from eggcrate.tests import layers
from eggcrate.tests.test_registry import image_of
from eggcrate.transports import registry
from eggcrate.transports.registry import Access, Repository


class Server(unittest.TestCase):
    """A store, an image in it, and a home with the credentials that a test wants."""

    layer: layers.Registry

    def setUp(self) -> None:
        self.layer.require(self)
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.store = Store(self.root / "store")
        self.host = self.layer.host
        # each test has repositories of its own
        self.path = re.sub(r"\W+", "-", self.id().rpartition(".")[2].lower().replace("_", "-"))
        patched = mock.patch.dict(
            os.environ, {"HOME": str(self.root), "PATH": os.environ["PATH"]}, clear=True
        )
        patched.start()
        self.addCleanup(patched.stop)
        self.access = Access(insecure=frozenset((self.host,)))
        self.image = image_of(self.store, b"base" * 50_000, self.id().encode() * 300_000)

    def login(self, password: str) -> None:
        file = self.root / ".docker" / "config.json"
        file.parent.mkdir()
        auth = base64.b64encode(f"pusher:{password}".encode()).decode()
        file.write_text(json.dumps({"auths": {self.host: {"auth": auth}}}))
        file.chmod(0o600)

    def reference(self, tag: str = "1") -> Reference:
        return Reference(self.host, self.path, tag)

    def push(self, image: Stored | None = None, *tags: str) -> registry.Sent:
        references = [self.reference(tag) for tag in tags or ("1",)]
        (sent,) = registry.push(image or self.image, references, access=self.access)
        return sent

    def pulled(self, tag: str = "1", path: str = "") -> tuple[Descriptor, list[Descriptor]]:
        """What a repository has under a tag, now in a store of its own."""
        repository = Repository(self.host, path or self.path, access=self.access)
        manifest, data = repository.manifest(tag)
        other = Store(self.root / "other")
        value = json.loads(data)
        blobs = [
            Descriptor(item["mediaType"], item["digest"], item["size"])
            for item in (value["config"], *value["layers"])
        ]
        for blob in blobs:
            repository.blob(blob, other)
            other.verify(blob.digest)
        return manifest, blobs

    def skopeo(self, *words: str) -> str:
        done = subprocess.run(
            ["skopeo", *words],
            env={**os.environ, "REGISTRY_AUTH_FILE": f"{self.root}/.docker/config.json"},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def nothing_secret(self, secret: str, texts: Iterator[str]) -> None:
        pair = base64.b64encode(f"pusher:{secret}".encode()).decode()
        for text in texts:
            self.assertNotIn(secret, text)
            self.assertNotIn(pair, text)


class Open(Server):
    layer = layers.REGISTRY

    def test_skopeo_pulls_what_we_push(self) -> None:
        self.push()
        name = f"docker://{self.reference()}"
        self.skopeo(
            "copy",
            "--preserve-digests",
            "--src-tls-verify=false",
            name,
            f"oci:{self.root}/oci:1",
        )
        index = json.loads((self.root / "oci" / "index.json").read_bytes())
        self.assertEqual(index["manifests"][0]["digest"], self.image.manifest.digest)
        told = json.loads(self.skopeo("inspect", "--tls-verify=false", name))
        self.assertEqual(told["Digest"], self.image.manifest.digest)
        self.assertEqual(told["Layers"], [one.digest for one in self.image.layers])

    def test_we_pull_what_skopeo_pushes(self) -> None:
        self.push()
        for kind in ("v2s2", "oci"):
            self.skopeo(
                "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", kind,
                f"docker://{self.reference()}", f"docker://{self.host}/{self.path}:{kind}",
            )  # fmt: skip
            manifest, blobs = self.pulled(kind)
            self.assertEqual("docker" in manifest.media_type, kind == "v2s2")
            self.assertEqual(len(blobs), 3)

    def test_only_what_is_new_is_sent(self) -> None:
        self.push()
        sent = self.push(image_of(self.store, b"base" * 50_000, b"changed"), "2")
        self.assertEqual((sent.layers, sent.layers_there), (2, 1))
        self.assertLess(sent.bytes, 64_000)

    def test_a_mount_and_one_that_is_refused(self) -> None:
        """E4: where nothing can be mounted (202) it is sent."""
        self.push()
        base = f"{self.host}/{self.path}"
        for source, there in ((base, 2), (f"{self.host}/nowhere", 0)):
            reference = Reference(self.host, f"{self.path}-{there}", "1")
            (sent,) = registry.push(
                self.image, [reference], access=self.access, mount_from=[source]
            )
            self.assertEqual(sent.layers_there, there)
            self.assertEqual(self.pulled(path=reference.path)[0], self.image.manifest)

    def test_e7_two_push_the_same_tag(self) -> None:
        images = [image_of(self.store, b"base" * 50_000, bytes([n]) * 90_000) for n in (1, 2)]
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            for _ in range(8):
                for future in [pool.submit(self.push, image) for image in images]:
                    try:
                        future.result()
                    except TransportError as error:
                        self.assertIn("see who else pushes there", str(error))
                self.assertIn(self.pulled()[0], [image.manifest for image in images])

    def test_e6_fifty_pushes_at_once(self) -> None:
        images = [
            image_of(self.store, b"base" * 50_000, f"{number}".encode() * 9000)
            for number in range(50)
        ]
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            list(pool.map(lambda n: self.push(images[n], f"t{n}"), range(50)))
        for number in range(0, 50, 7):
            self.assertEqual(self.pulled(f"t{number}")[0], images[number].manifest)
        repository = Repository(self.host, self.path, access=self.access)
        self.assertEqual(
            [repository.digest(f"t{number}") for number in range(50)],
            [image.manifest.digest for image in images],
        )

    def test_e8_four_attach_at_once(self) -> None:
        self.push()

        def attach(number: int) -> str:
            repository = Repository(self.host, self.path, access=self.access, writing=True)
            data = f"{number}".encode()
            return repository.attach(self.image.manifest, "a/b", "a/c", data).digest

        # longer than a busy machine needs from the first byte of a list to its last
        with (
            mock.patch.object(registry, "_MOMENT", (2, 3)),
            concurrent.futures.ThreadPoolExecutor(4) as pool,
        ):
            made = set(pool.map(attach, range(4)))
        repository = Repository(self.host, self.path, access=self.access)
        found = repository.referrers(self.image.manifest)
        self.assertEqual({entry["digest"] for entry in found}, made)
        tag = self.image.manifest.digest.replace(":", "-")
        raw = self.skopeo(
            "inspect", "--tls-verify=false", "--raw", f"docker://{self.host}/{self.path}:{tag}"
        )
        self.assertEqual(json.loads(raw)["mediaType"], INDEX)

    def test_what_is_not_there(self) -> None:
        repository = Repository(self.host, self.path, access=self.access)
        self.assertIsNone(repository.digest("1"))
        with self.assertRaisesRegex(TransportError, "has no tag 1 "):
            repository.manifest("1")


class BehindNginx(Server):
    """E5: what the server in front of a registry refuses, and what it says."""

    layer = layers.REGISTRY_BEHIND_NGINX

    def front(self, text: str) -> None:
        """Let nginx have these directives, and be the registry's host."""
        self.layer.front(text)
        self.access = Access(insecure=frozenset((self.host,)))

    def complaint(self, *contents: bytes) -> str:
        image = image_of(self.store, *contents)
        with self.assertRaises(TransportError) as caught:
            self.push(image)
        repository = Repository(self.host, self.path, access=self.access)
        self.assertIsNone(repository.digest("1"))
        return str(caught.exception)

    def test_a_body_that_is_too_large(self) -> None:
        """For one request, 2 MB, and in parts, 40 MB: none is small enough."""
        self.front("client_max_body_size 500k;")
        for size in (2_000_000, 40_000_000):
            with self.subTest(size):
                self.assertRegex(
                    self.complaint(os.urandom(size)),
                    rf"^{self.host} finds too large what is sent to it \(413\) to take the "
                    r"blob sha256:\w{64}: '<html> <head><title>413 Request Entity Too Large"
                    "</title>.*'; raise the limit of the server in front of the registry, "
                    "nginx's client_max_body_size 0 for instance, or the quota$",
                )

    def test_parts_are_small_enough(self) -> None:
        for limit in ("10m", "1m"):  # the latter is nginx's own
            with self.subTest(limit):
                self.front(f"client_max_body_size {limit};")
                image = image_of(self.store, os.urandom(20_000_000), os.urandom(2_000_000))
                self.push(image)
                self.assertEqual(self.pulled()[0], image.manifest)

    def test_a_tag_that_does_not_change(self) -> None:
        """As Harbor (412), ECR and Quay (400, 409) have it."""
        for status, code, message in (
            (412, "PRECONDITION", "configured as immutable, cannot be updated"),
            (400, "TAG_INVALID", "The image tag 1 already exists, and cannot be overwritten"),
            (409, "TAG_IMMUTABLE", "tag is immutable"),
        ):
            said = json.dumps({"errors": [{"code": code, "message": message}]})
            self.front(
                f"location ~ /manifests/1$ {{ if ($request_method = PUT) "
                f"{{ return {status} '{said}'; }} proxy_pass {self.layer.url}; }}"
            )
            with self.subTest(status):
                self.assertRegex(
                    self.complaint(b"x"),
                    rf"^{self.host} does not let the tag 1 be another image \({status}\): "
                    rf"'{code}: {message}'; push under another tag, or ask for one that may "
                    "move$",
                )

    def test_a_quota(self) -> None:
        said = json.dumps({"errors": [{"code": "DENIED", "message": "quota of 1 GiB is used"}]})
        self.front(f"location ~ /uploads/ {{ return 403 '{said}'; }}")
        self.assertRegex(
            self.complaint(b"x"),
            rf"^{self.host} does not allow this for {self.path} without credentials \(403\): "
            "'DENIED: quota of 1 GiB is used'; ",
        )
        self.front("location ~ /uploads/ { return 507; }")
        self.assertRegex(
            self.complaint(b"x"),
            rf"^{self.host} has not wanted to begin an upload: 507 Insufficient Storage",
        )


class Password(Server):
    layer: layers.PasswordRegistry = layers.REGISTRY_WITH_PASSWORD

    def test_with_the_password(self) -> None:
        self.login(self.layer.password)
        with self.assertLogs(level="DEBUG") as logs:
            self.push()
            self.pulled()
        self.nothing_secret(self.layer.password, iter(logs.output))
        self.skopeo("inspect", "--tls-verify=false", f"docker://{self.reference()}")

    def test_without_and_with_a_wrong_one(self) -> None:
        with self.assertRaisesRegex(TransportError, "asks who we are for .* no file has"):
            self.push()
        self.login("wrong")
        with self.assertRaisesRegex(
            TransportError, r"not take the credentials of .*config.json"
        ):
            self.push()


class TLS(Server):
    layer: layers.TLSRegistry = layers.REGISTRY_WITH_TLS

    def test_a_ca_of_our_own(self) -> None:
        self.access = Access()
        with self.assertRaisesRegex(TransportError, "of nobody whom this machine trusts"):
            self.push()
        self.access = Access(ca=self.layer.ca)
        self.push()
        self.assertEqual(self.pulled()[0], self.image.manifest)

    def test_insecure_is_plain_http_and_nothing_else(self) -> None:
        with self.assertRaisesRegex(TransportError, "speaks TLS, but is named among"):
            self.push()


class Tokens(Server):
    layer: layers.TokenRegistry = layers.REGISTRY_WITH_TOKENS

    def setUp(self) -> None:
        super().setUp()
        self.access = Access(
            insecure=frozenset((self.host, self.layer.token_host)),
            token_hosts=frozenset((self.layer.token_host,)),
        )

    def test_a_push_with_tokens_that_expire(self) -> None:
        self.login(self.layer.password)
        put = Repository.put_manifest

        def late(*arguments: Any, **options: Any) -> bool:
            time.sleep(10)
            return put(*arguments, **options)

        # docker-registry gives an expired token another minute
        with (
            mock.patch.object(self.layer, "lifetime", -52),
            mock.patch.object(Repository, "put_manifest", late),
            self.assertLogs(level="DEBUG") as logs,
        ):
            before = len(self.layer.asked)
            self.push()
            self.assertGreater(len(self.layer.asked), before + 1)
            self.assertEqual(self.pulled()[0], self.image.manifest)
        self.nothing_secret(self.layer.password, iter(logs.output))

    def test_a_pull_by_nobody_and_a_push(self) -> None:
        with self.assertRaisesRegex(TransportError, "asks who we are"):
            self.push()
        self.login(self.layer.password)
        self.push()
        self.root.joinpath(".docker", "config.json").unlink()
        self.assertEqual(self.pulled()[0], self.image.manifest)
