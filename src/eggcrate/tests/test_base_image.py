"""Images as bases, whole and damaged, from where they lie; each is made here, byte by byte."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import unittest
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from unittest import mock

from eggcrate.errors import EggcrateError, SettingsError, TransportError
from eggcrate.image import compression, oci
from eggcrate.image.descriptor import INDEX
from eggcrate.image.oci import Platform
from eggcrate.image.plan import FileEntry, FileType
from eggcrate.image.store import Store
from eggcrate.settings import BASE_SIZE
from eggcrate.tests import layers
from eggcrate.tests.fake_registry import FakeRegistry
from eggcrate.transports import base_image
from eggcrate.transports.base_image import BaseImage
from eggcrate.transports.connection import Access

AMD64 = Platform("linux", "amd64")
DOCKER = "application/vnd.docker."
zstd = compression._zstd()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def tar(*members: tuple[str, Any]) -> bytes:
    """A tar archive: bytes are a file, None is a directory, a text a symbolic link's."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.mode = 0o755
            data = b""
            if content is None:
                member.type = tarfile.DIRTYPE
            elif isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            elif isinstance(content, tuple):
                member.type, member.linkname = content
            else:
                data, member.size = content, len(content)
            archive.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def zipped(data: bytes) -> bytes:
    """The same gzip member for the same data."""
    return gzip.compress(data, mtime=0)


class Made:
    """An image layout that grows; every document can be made wrong."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        (root / "blobs/sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, media_type: str, **more: Any) -> dict[str, Any]:
        """The descriptor of a blob that is there now."""
        digest = digest_of(data)
        (self.root / "blobs" / digest.replace(":", "/")).write_bytes(data)
        return {"mediaType": media_type, "digest": digest, "size": len(data), **more}

    def document(self, value: Any, media_type: str, **more: Any) -> dict[str, Any]:
        return self.blob(json.dumps(value).encode(), media_type, **more)

    def manifest(
        self,
        *layers: bytes,
        suffix: str = "+gzip",
        config: Mapping[str, Any] | None = None,
        diff_ids: Sequence[str] | None = None,
        blobs: Sequence[dict[str, Any]] | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """The descriptor of a manifest of uncompressed ``layers``."""
        compress = {"+gzip": zipped, "+zstd": zstd.compress, "": bytes}[suffix]
        if blobs is None:
            blobs = [self.blob(compress(layer), oci.LAYER + suffix) for layer in layers]
        document = {
            "architecture": "amd64",
            "os": "linux",
            "rootfs": {
                "type": "layers",
                "diff_ids": [*map(digest_of, layers)] if diff_ids is None else diff_ids,
            },
            **(config or {}),
        }
        value = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "config": self.document(document, oci.CONFIG),
            "layers": blobs,
        }
        return self.document(value, oci.MANIFEST, **more)

    def index(self, *manifests: dict[str, Any], **more: Any) -> None:
        value = {"schemaVersion": 2, "manifests": manifests, **more}
        (self.root / "index.json").write_text(json.dumps(value))


class Case(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory(prefix="eggcrate-test-")
        self.addCleanup(scratch.cleanup)
        self.top = pathlib.Path(scratch.name)
        self.made = Made(self.top / "layout")
        self.store = Store(self.top / "cache")
        self.name = f"oci:{self.made.root}"

    def read(
        self, name: str = "", platform: Platform = AMD64, most: int = BASE_SIZE
    ) -> BaseImage:
        name = name or self.name
        digest = base_image.resolve(name, platform, self.store)
        return base_image.read(name, digest, platform, self.store, most=most)

    def tree(self, *layers: bytes) -> dict[str, FileEntry]:
        self.made.index(self.made.manifest(*layers))
        return base_image.tree(self.read(), self.name, self.store)

    def refused(self, name: str = "", platform: Platform = AMD64) -> str:
        with self.assertRaises(EggcrateError) as caught:
            image = self.read(name, platform)
            base_image.tree(image, self.name, self.store)
        return str(caught.exception)


LAYER = tar(("bin", "usr/bin"), ("usr/bin/x", b"one"))


class Whole(Case):
    def test_each_compression(self) -> None:
        """D32: gzip, zstd and uncompressed."""
        for suffix in ("+gzip", "+zstd", ""):
            with self.subTest(suffix):
                self.made.index(self.made.manifest(LAYER, suffix=suffix))
                image = self.read()
                (layer,) = image.layers
                self.assertEqual(layer.descriptor.media_type, oci.LAYER + suffix)
                self.assertEqual((layer.diff_id, layer.size), (digest_of(LAYER), len(LAYER)))
                self.assertTrue(self.store.has(layer.diff_id, layer.size))
                tree = base_image.tree(image, self.name, self.store)
                with tree["usr/bin/x"].open() as stream:
                    self.assertEqual(stream.read(), b"one")
                self.assertEqual(tree["bin"].linkname, "usr/bin")

    def test_it_is_not_read_twice(self) -> None:
        self.made.index(self.made.manifest(LAYER))
        first = self.read()
        with mock.patch.object(base_image, "_source", side_effect=AssertionError):
            again = base_image.read(self.name, first.digest, AMD64, self.store, most=len(LAYER))
            self.assertEqual(first, again)
            with self.assertRaisesRegex(TransportError, "layer 1 .* makes it larger"):
                base_image.read(self.name, first.digest, AMD64, self.store, most=1000)

    def test_docker_s_own_types(self) -> None:
        """D32: Docker's schema 2."""
        layer = self.made.blob(gzip.compress(LAYER), f"{DOCKER}image.rootfs.diff.tar.gzip")
        manifest = json.loads(
            (
                self.made.root
                / "blobs"
                / self.made.manifest(LAYER, blobs=[layer])["digest"].replace(":", "/")
            ).read_bytes()
        )
        kind = f"{DOCKER}distribution.manifest.v2+json"
        found = self.made.document({**manifest, "mediaType": kind}, kind)
        self.made.index(found)
        image = self.read()
        self.assertEqual(image.digest, found["digest"])
        self.assertEqual(image.layers[0].descriptor.media_type, f"{oci.LAYER}+gzip")

    def test_a_tag_among_several(self) -> None:
        def named(text: str, layer: bytes) -> dict[str, Any]:
            name = {"org.opencontainers.image.ref.name": text}
            return self.made.manifest(layer, annotations=name)

        one, two = named("one", LAYER), named("a.example/b:two", tar())
        self.made.index(one, two)
        for tag, wanted in (("one", one), ("two", two), ("a.example/b:two", two)):
            self.assertEqual(self.read(f"{self.name}:{tag}").digest, wanted["digest"])
        self.assertIn("has 2 images; say which", self.refused())
        self.assertIn("has no image three", self.refused(f"{self.name}:three"))
        self.made.index({**one, "annotations": {"org.opencontainers.image.ref.name": ["one"]}})
        self.assertIn("has no image one", self.refused(f"{self.name}:one"))

    def test_platforms(self) -> None:
        """D26: nested indexes, variants, attestations; what is offered is said."""

        def built(architecture: str, variant: str = "", **more: str) -> dict[str, Any]:
            config = {"architecture": architecture, "variant": variant}
            platform = {"os": "linux", **config, **more}
            return self.made.manifest(
                tar((architecture + variant, b"")), config=config, platform=platform
            )

        intel, old, new, arm = (
            built("amd64"),
            built("arm", "v6"),
            built("arm", "v7"),
            built("arm64", "v8"),
        )
        attestation = self.made.manifest(
            tar(), platform={"os": "unknown", "architecture": "unknown"}
        )
        nested = self.made.document(
            {"schemaVersion": 2, "mediaType": INDEX, "manifests": [old, new, arm]},
            INDEX,
        )
        self.made.index(attestation, intel, nested)
        for platform, wanted in (
            (AMD64, intel),
            (Platform("linux", "arm64"), arm),
            (Platform("linux", "arm", "v7"), new),
            (Platform("linux", "arm", "v6"), old),
            (Platform("linux", "arm"), new),
        ):
            with self.subTest(platform):
                self.assertEqual(self.read(platform=platform).digest, wanted["digest"])
        self.assertIn(
            "is there for linux/amd64, linux/arm/v6, linux/arm/v7, linux/arm64/v8, and the "
            "image is for linux/s390x; take another base",
            self.refused(platform=Platform("linux", "s390x")),
        )

    def test_a_manifest_without_a_platform_has_that_of_its_config(self) -> None:
        """D26."""
        self.made.index(self.made.manifest(LAYER, config={"architecture": "arm64"}))
        self.assertIn("is there for linux/arm64", self.refused())

    def test_archives(self) -> None:
        described = self.made.manifest(LAYER)
        self.made.index(described)
        archive = self.top / "image.tar"
        with tarfile.open(archive, "w") as packed:
            packed.add(self.made.root, ".")
        self.assertEqual(self.read(f"oci-archive:{archive}").digest, described["digest"])

    def docker_archive(self, *layers: bytes, tags: Iterable[str] = ("a/b:1",)) -> str:
        config = json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "rootfs": {"diff_ids": [digest_of(layer) for layer in (LAYER, LAYER)]},
            }
        ).encode()
        names = [f"{number}/layer.tar" for number in range(len(layers))]
        manifest = [{"Config": "c.json", "RepoTags": [*tags], "Layers": [*names, "z"]}]
        path = self.top / "docker.tar"
        path.write_bytes(
            tar(
                ("c.json", config),
                *zip(names, layers, strict=True),
                # as docker save writes a layer that is there twice
                ("z", "0/layer.tar"),
                ("manifest.json", json.dumps(manifest).encode()),
            )
        )
        return f"docker-archive:{path}"

    def test_docker_save(self) -> None:
        for layer, suffix in ((LAYER, ""), (gzip.compress(LAYER), "+gzip")):
            name = self.docker_archive(layer)
            self.store = Store(self.top / f"cache{suffix}")
            for tag in ("", ":a/b:1", ":docker.io/a/b:1"):
                image = self.read(name + tag)
                self.assertEqual(image.name, "")
                self.assertEqual(image.layers[0].descriptor.media_type, oci.LAYER + suffix)
                self.assertEqual(image.layers[0], image.layers[1])
        self.assertIn(
            "has no image of that name; in the archive are ", self.refused(f"{name}:a/c")
        )

    def test_docker_save_that_is_damaged(self) -> None:
        self.assertIn("has not its diff id", self.refused(self.docker_archive(tar())))
        (self.top / "docker.tar").write_bytes(gzip.compress(LAYER))
        name = f"docker-archive:{self.top}/docker.tar"
        self.assertIn("is no tar archive", self.refused(name))
        for text, why in (
            ("[" * 100_000, "manifest.json is no JSON"),
            ('[{"RepoTags": 5}]', "is no list of images"),
            ('[{"RepoTags": [5]}]', "is no list of images"),
            (r'[{"Config": "\u001b[2J"}]', r"there is no such file in it (\x1b[2J)"),
        ):
            with self.subTest(why):
                archive = tar(("manifest.json", text.encode()))
                (self.top / "docker.tar").write_bytes(archive)
                self.assertIn(why, self.refused(name))

    def test_what_its_config_says(self) -> None:
        history = [{"created_by": "one"}, {"created_by": "ENV", "empty_layer": True}]
        self.made.index(self.made.manifest(LAYER, config={"history": history}))
        self.assertEqual(self.read().history, tuple(history))
        self.made.index(self.made.manifest(LAYER, config={"history": 5}))
        self.assertEqual(self.read().history, ({"created_by": "the base image"},))
        self.made.index(self.made.manifest(LAYER, config={"history": history * 2}))
        self.assertEqual(self.read().history, ({"created_by": "the base image"},))


class Names(Case):
    def test_whiteouts(self) -> None:
        tree = self.tree(
            tar(("a/b/c", b"1"), ("a/d", b"1"), ("e/f", b"1"), ("g", b"1"), ("h/i", b"1")),
            tar(
                ("a/.wh.b", b""), ("a/b2", b"2"), ("e/.wh..wh..opq", b""), ("e/j", b"2"),
                (".wh.g", b""), ("h", b"a file"), (".wh..wh.plnk", None),
            ),
        )  # fmt: skip
        self.assertEqual(sorted(tree), ["a", "a/b2", "a/d", "e", "e/j", "h"])
        self.assertIs(tree["h"].type, FileType.REGULAR)

    def test_whiteouts_are_of_what_is_below(self) -> None:
        tree = self.tree(tar(("a/x", b"1")), tar(("a/y", b"2"), ("a/.wh..wh..opq", b"")))
        self.assertEqual(sorted(tree), ["a", "a/y"])

    def test_a_directory_in_the_place_of_a_link(self) -> None:
        tree = self.tree(tar(("lib", "usr/lib")), tar(("lib/x", b"")))
        self.assertIs(tree["lib"].type, FileType.DIRECTORY)

    def test_hard_links(self) -> None:
        tree = self.tree(tar(("a", b"same"), ("b", (tarfile.LNKTYPE, "a"))))
        self.assertEqual(tree["b"].digest, tree["a"].digest)
        self.assertIs(tree["b"].type, FileType.REGULAR)

    def test_hostile_names_are_names(self) -> None:
        """D15, as far as names go; what they would do is seen in a sandbox."""
        outside = self.top / "outside"
        before = sorted(os.listdir(self.top))
        tree = self.tree(
            tar(
                (f"../../../..{outside}", b"evil"),
                ("/etc/absolute", b""),
                ("link", str(self.top)),
                ("link/below", b"evil"),
                ("shadow", (tarfile.LNKTYPE, "../../../../etc/shadow")),
                ("dev/null", (tarfile.CHRTYPE, "")),
                ("./.", None),
            )
        )
        self.assertIn("etc/absolute", tree)
        self.assertEqual(tree["shadow"].size, 0)
        self.assertFalse(any(".." in path.split("/") for path in tree))
        self.assertFalse(outside.exists())
        self.assertEqual(sorted(os.listdir(self.top)), sorted([*before, "cache"]))

    def test_a_large_file_is_read_piece_by_piece(self) -> None:
        data = os.urandom(3 << 20)
        with self.tree(tar(("a", b"x"), ("big", data), ("z", b"")))["big"].open() as stream:
            self.assertEqual(stream.read(10), data[:10])
            stream.seek(-5, 2)
            self.assertEqual(stream.read(), data[-5:])
            stream.seek(1 << 20)
            self.assertEqual(stream.read(), data[1 << 20 :])


# What a process says of a base, and by how much its memory has grown meanwhile
_LIMITED = """
import pathlib, sys
from eggcrate.errors import EggcrateError
from eggcrate.image.store import Store
from eggcrate.tests.test_base_image import AMD64
from eggcrate.transports import base_image

def memory():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024

store, name = Store(pathlib.Path(sys.argv[2])), sys.argv[1]
digest = base_image.resolve(name, AMD64, store)
before = memory()
try:
    base_image.read(name, digest, AMD64, store, most=100_000_000)
except EggcrateError as error:
    print(error)
print(memory() - before)
"""
# The files of a base with their contents, or what is said of it
_INDEXED = """
import json, pathlib, sys
from eggcrate.errors import EggcrateError
from eggcrate.image.store import Store
from eggcrate.settings import BASE_SIZE
from eggcrate.tests.test_base_image import AMD64
from eggcrate.transports import base_image

name, store = f"oci:{sys.argv[1]}", Store(pathlib.Path(sys.argv[2]))
try:
    digest = base_image.resolve(name, AMD64, store)
    image = base_image.read(name, digest, AMD64, store, most=BASE_SIZE)
    tree = base_image.tree(image, name, store)
except EggcrateError as error:
    print(error)
else:
    contents = {}
    for path, entry in tree.items():
        contents[path] = entry.linkname
        if entry.type.name == "REGULAR":
            with entry.open() as stream:
                contents[path] = stream.read().decode()
    print(json.dumps(contents))
"""


def _changed(value: Any) -> Iterator[Any]:
    """The value with something else in each place of it, one after the other."""
    yield from (None, 5, 1e400, "\ud800", [None], {"a": None})
    if isinstance(value, dict):
        for key in value:
            yield from ({**value, key: one} for one in _changed(value[key]))
    elif isinstance(value, list):
        for number, item in enumerate(value):
            for one in _changed(item):
                yield [*value[:number], one, *value[number + 1 :]]


class Damaged(Case):
    def layered(self, data: bytes, *, suffix: str = "+gzip", diff: bytes = LAYER) -> str:
        """What is said of a layer with such bytes."""
        blob = self.made.blob(data, oci.LAYER + suffix)
        self.made.index(
            self.made.manifest(
                tar(),
                blobs=[self.made.blob(gzip.compress(tar()), f"{oci.LAYER}+gzip"), blob],
                diff_ids=[digest_of(tar()), digest_of(diff)],
            )
        )
        said = self.refused()
        self.assertIn(f"layer 2 of the base {self.name}", said)
        return said

    def test_layers(self) -> None:
        """D13: cut off, with more behind it, or with another content; the layer is named."""
        good, packed = gzip.compress(LAYER), zstd.compress(LAYER)
        other = tar(("other", b""))
        for data, suffix, why in (
            (good[:-9], "+gzip", "can't be unpacked: Compressed file ended before the end"),
            (good[:-1], "+gzip", "can't be unpacked: Compressed file ended before the end"),
            (good + b"trailing", "+gzip", "can't be unpacked: Not a gzipped file"),
            (good + gzip.compress(b"more"), "+gzip", "has not its diff id"),
            (b"no gzip at all", "+gzip", "can't be unpacked: Not a gzipped file"),
            (gzip.compress(other), "+gzip", "has not its diff id"),
            (packed[:-5], "+zstd", "can't be unpacked: Compressed file ended before the end"),
            (packed + b"trailing", "+zstd", "can't be unpacked: "),
            (packed + zstd.compress(b"more"), "+zstd", "has not its diff id"),
            (zstd.compress(other), "+zstd", "has not its diff id"),
            (other, "", "has not its diff id"),
        ):
            with self.subTest(why, suffix=suffix, size=len(data)):
                self.assertRegex(
                    self.layered(data, suffix=suffix),
                    rf"^layer 2 of the base {self.name}, {digest_of(data)}, {why}.*; fetch or "
                    "copy the base again$",
                )
                self.assertFalse(self.store.blob(digest_of(LAYER)).exists())

    def test_a_layer_in_a_registry(self) -> None:
        """D13: what came as it was announced is looked at like any other."""
        server = FakeRegistry()
        self.addCleanup(server.close)
        layers_ = [gzip.compress(LAYER), gzip.compress(LAYER)[:-9]]
        manifest = self.made.manifest(
            LAYER, LAYER, blobs=[self.made.blob(data, f"{oci.LAYER}+gzip") for data in layers_]
        )
        for path in (self.made.root / "blobs/sha256").iterdir():
            server.put("acme/base", path.read_bytes())
        data = server.blobs["acme/base"].pop(manifest["digest"])
        for reference in ("1", manifest["digest"]):
            server.manifests["acme/base", reference] = (oci.MANIFEST, data)
        name = f"docker://{server.host}/acme/base:1"
        access = Access(insecure=frozenset((server.host,)))
        digest = base_image.resolve(name, AMD64, self.store, access=access)
        self.assertEqual(digest, manifest["digest"])
        with self.assertRaisesRegex(
            TransportError, rf"^layer 2 of the base {name}, sha256:\w+, can't be unpacked: "
        ):
            base_image.read(name, digest, AMD64, self.store, most=BASE_SIZE, access=access)

    def test_tars(self) -> None:
        for data, why in (
            (LAYER[:700], "is no valid tar"),
            (LAYER[:1024] + b"x" * 512 + LAYER[1024:], "is no valid tar"),
            (b"x" * 512, "is no valid tar"),
        ):
            with self.subTest(data=data[:20]):
                self.assertIn(why, self.layered(gzip.compress(data), diff=data))

    def test_a_header_that_is_too_long(self) -> None:
        head = tarfile.TarInfo("x")
        head.type, head.size = tarfile.XHDTYPE, 3 << 20
        data = head.tobuf() + bytes(4 << 20)
        self.assertIn("a header that is too long", self.layered(gzip.compress(data), diff=data))

    def test_too_many_headers_for_all_files(self) -> None:
        """tarfile goes through them for each file: 40 MB of such a tar took half an hour."""
        for count, why in ((10, ""), (1000, "it has too many global headers")):
            stream = io.BytesIO()
            headers = {f"a{number}": "" for number in range(count)}
            with tarfile.open(fileobj=stream, mode="w", pax_headers=headers) as archive:
                archive.addfile(tarfile.TarInfo("x"))
            data = stream.getvalue()
            if why:
                self.assertIn(why, self.layered(gzip.compress(data), diff=data))
            else:
                self.assertIn("x", self.tree(data))

    def test_bombs(self) -> None:
        """D14: a gigabyte in a megabyte is unpacked as far as the limit, and not in memory."""
        zeros = bytes(16 << 20)
        for suffix, data in (
            # members and frames one after the other are one stream (RFC 1952, RFC 8878)
            ("+gzip", gzip.compress(zeros) * 64),
            ("+zstd", zstd.compress(zeros) * 64),
        ):
            blob = self.made.blob(data, oci.LAYER + suffix)
            self.made.index(self.made.manifest(blobs=[blob], diff_ids=[digest_of(b"")]))
            done = subprocess.run(
                [sys.executable, "-c", _LIMITED, self.name, os.fspath(self.store.root)],
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                capture_output=True,
                text=True,
                check=True,
            )
            said, grown = done.stdout.splitlines()
            with self.subTest(suffix):
                self.assertEqual(
                    said,
                    f"layer 1 of the base {self.name} makes it larger than 100 MB when it is "
                    "unpacked; take a smaller base, or allow more in the option base-size",
                )
                self.assertLess(int(grown), 32 << 20)
                blobs = self.store.root / "blobs"
                self.assertLess(sum(path.stat().st_size for path in blobs.rglob("*")), 4 << 20)

    def test_layers_count_together(self) -> None:
        """D14: each of them is small enough, but not all."""
        layers = [tar((str(number), bytes(40_000))) for number in range(3)]
        for suffix in ("+gzip", "+zstd", ""):
            with self.subTest(suffix):
                self.made.index(self.made.manifest(*layers, suffix=suffix))
                self.assertEqual(len(self.read(most=3 * len(layers[0])).layers), 3)
                self.store = Store(self.top / f"other{suffix}")
                with self.assertRaisesRegex(TransportError, "^layer 3 .* larger than 154 kB "):
                    self.read(most=3 * len(layers[0]) - 1)

    def test_frames_that_want_gigabytes(self) -> None:
        """D14: a frame of Zstandard says how much memory it is unpacked with."""
        # magic; a header without size or checksum; a window of 2^41 bytes; an empty last block
        frame = bytes.fromhex("28b52ffd 00 f8 010000")
        self.assertIn("can't be unpacked: ", self.layered(frame, suffix="+zstd"))

    def test_a_config_that_is_compressed(self) -> None:
        """D14: what is no document is not unpacked to see whether it would be one."""
        config = self.made.blob(gzip.compress(b"{}"), oci.CONFIG)
        value = {"schemaVersion": 2, "mediaType": oci.MANIFEST, "config": config, "layers": []}
        self.assertIn("is damaged: a document is no JSON", self.described(value))

    def test_blobs(self) -> None:
        """D6, D7 and D8 of an image layout."""
        described = self.made.manifest(LAYER)
        self.made.index(described)
        place = self.made.root / "blobs" / described["digest"].replace(":", "/")
        layer = json.loads(place.read_bytes())["layers"][0]
        path = self.made.root / "blobs" / layer["digest"].replace(":", "/")
        data = path.read_bytes()
        path.write_bytes(data + b"x")
        self.assertIn("has not the", self.refused())
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
        self.assertIn("has another digest", self.refused())
        path.unlink()
        self.assertIn("can't be read: No such file", self.refused())
        place.write_bytes(place.read_bytes().replace(b"2", b"3", 1))
        self.assertIn("has another digest", self.refused())

    def described(self, value: Any, kind: str = oci.MANIFEST) -> str:
        self.made.index(self.made.document(value, kind, platform=AMD64.as_json()))
        return self.refused()

    def test_documents(self) -> None:
        """D11 and D32 of an image layout."""
        good: dict[str, Any] = {"schemaVersion": 2, "mediaType": oci.MANIFEST}
        whole = {**good, "config": self.made.blob(b"{}", oci.CONFIG), "layers": []}
        for value, why in (
            ([], "is no JSON object"),
            ({**whole, "manifests": []}, "is both a manifest and an index"),
            ({**whole, "mediaType": INDEX}, "has the media type"),
            ({**whole, "mediaType": "\x1b[2J"}, r"has the media type \x1b[2J, and"),
            ({**whole, "schemaVersion": 1}, "schema 1, which nobody makes"),
            ({**good, "fsLayers": []}, "schema 1, which nobody makes"),
            ({**whole, "layers": {}}, "has no list of layers"),
            ({**whole, "config": None}, "has no valid digest or size"),
            ({**whole, "config": {"digest": "sha512:" + "0" * 128, "size": 1}}, "SHA-512"),
        ):
            with self.subTest(why):
                self.assertIn(why, self.described(value))
        self.assertIn(
            "schema 1, which nobody makes",
            self.described({}, f"{DOCKER}distribution.manifest.v1+prettyjws"),
        )

    def test_values_of_other_types(self) -> None:
        """Whatever stands where, it is read or refused, and never a traceback."""
        config = {
            "architecture": "amd64",
            "os": "linux",
            "created": "2026-01-01T00:00:00Z",
            "config": {
                "User": "a",
                "Env": ["A=b"],
                "Labels": {"a": "b"},
                "WorkingDir": "/a",
                "Healthcheck": {"Test": ["CMD", "a"]},
            },
            "rootfs": {"type": "layers", "diff_ids": [digest_of(LAYER)]},
            "history": [{"created_by": "a"}],
        }
        name = {"org.opencontainers.image.ref.name": "one"}
        more = {"annotations": name, "platform": AMD64.as_json()}
        layer = self.made.blob(zipped(LAYER), f"{oci.LAYER}+gzip")
        manifest = {
            "schemaVersion": 2,
            "mediaType": oci.MANIFEST,
            "layers": [layer],
            "config": self.made.document(config, oci.CONFIG),
        }
        described = self.made.document(manifest, oci.MANIFEST, **more)
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [described]}
        for changed in _changed(config):
            described = self.made.document(changed, oci.CONFIG)
            self.either({**manifest, "config": described}, more)
        for changed in _changed(manifest):
            self.either(changed, more)
        for changed in _changed(index):
            (self.made.root / "index.json").write_text(json.dumps(changed))
            self.either(None, more)

    def either(self, manifest: Any, more: Mapping[str, Any]) -> None:
        if manifest is not None:
            self.made.index(self.made.document(manifest, oci.MANIFEST, **more))
        for name in (self.name, f"{self.name}:one"):
            try:
                image = self.read(name)
                base_image.tree(image, name, self.store)
                oci.document({"history": image.history, "labels": image.setting("Labels")})
            except EggcrateError as error:
                str(error).encode()

    def test_an_index_that_names_another_again_and_again(self) -> None:
        """Each is read once: 20 ** 5 names would take hours."""
        named = self.made.manifest(LAYER, platform=AMD64.as_json())
        digest = named["digest"]
        for _ in range(4):
            value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [named] * 20}
            named = self.made.document(value, INDEX)
        self.made.index(*[named] * 20)
        self.assertEqual(self.read().digest, digest)

    def test_digests_that_are_paths(self) -> None:
        """D12 of an image layout: the file that is meant is there."""
        secret = self.top / "secret"
        secret.write_text("canary")
        for digest in (
            "sha256:../../../secret",
            f"sha256:{'0' * 63}",
            f"sha256:{'A' * 64}",
            f"../../secret:{'0' * 64}",
            7,
        ):
            with self.subTest(digest):
                blob = {"mediaType": oci.LAYER, "digest": digest, "size": 6}
                self.made.index(
                    self.made.manifest(blobs=[blob], diff_ids=[digest_of(b"canary")])
                )
                self.assertIn("has no valid digest or size", self.refused())

    def test_layers_that_lie_elsewhere(self) -> None:
        """D19 of an image layout."""
        kind = f"{DOCKER}image.rootfs.foreign.diff.tar.gzip"
        blob = self.made.blob(b"x", kind, urls=["http://a.example/x"])
        self.made.index(self.made.manifest(blobs=[blob], diff_ids=[digest_of(b"x")]))
        self.assertIn("layer 1 of the base", said := self.refused())
        self.assertIn("which is not read here", said)

    def test_too_few_diff_ids(self) -> None:
        self.made.index(self.made.manifest(LAYER, diff_ids=[]))
        self.assertIn("not one diff id for each layer", self.refused())

    def test_how_it_is_run(self) -> None:
        """All that is of a wrong type is named, as no engine would start it."""
        wrong = {
            "User": 7,
            "Env": ["A=1", 2],
            "Labels": {"a": 1},
            "Healthcheck": {"Test": "true"},
            "WorkingDir": None,
            "StopSignal": [],
        }
        for running, why in (
            ([], "config in its config is no JSON object"),
            (
                wrong,
                "in its config, User is no string, StopSignal is no string, Env is no list of "
                "strings, Labels is no object of strings, Healthcheck is no object with a list",
            ),
        ):
            with self.subTest(why):
                self.made.index(self.made.manifest(LAYER, config={"config": running}))
                self.assertIn(why, self.refused())
                self.assertIn(why, self.refused())  # from the cache, too

    def test_nothing_there(self) -> None:
        text = self.refused("oci:/nonexistent")
        self.assertIn("can't be read: No such file or directory (/nonexistent/index", text)
        self.assertIn("can't be read: No such file", self.refused("oci-archive:/nonexistent"))


class Hostile(Case):
    """D15: nothing is written outside of the cache, and nothing is read there."""

    def test_the_sandbox(self) -> None:
        for code, changed in (
            ("", False),
            (f"open('{layers.SANDBOX}/canary/kept', 'a').write('x')", True),
            (f"open('{layers.SANDBOX}/canary/new', 'x')", True),
            (f"import os; os.unlink('{layers.SANDBOX}/kept')", True),
            (f"import os; os.chmod('{layers.SANDBOX}/kept', 0)", True),
            (f"open('{self.top}/new', 'x')", False),
        ):
            found = layers.sandboxed(self, self.made.root, code)
            self.assertEqual(bool(found.changed), changed, code)
            self.assertEqual("Read-only file system" in found.stdout, str(self.top) in code)

    def test_a_base_is_never_extracted(self) -> None:
        canary = f"{layers.SANDBOX}/canary"
        climb = "../" * 12 + canary[1:]
        first = tar(
            (f"{climb}/new", b"evil"),
            (f"{canary}/kept", b"evil"),
            ("etc/link", canary),
            ("etc/link/kept", b"evil"),
            ("etc/link/new", b"evil"),
            ("etc/up", "../../../../../../../.."),
            (f"etc/up{canary}/new", b"evil"),
            ("etc/hard", (tarfile.LNKTYPE, f"{climb}/../kept")),
            ("etc/hard-absolute", (tarfile.LNKTYPE, f"{layers.SANDBOX}/kept")),
            ("etc/hard-below", (tarfile.LNKTYPE, "etc/link/kept")),
            ("dev/null", (tarfile.CHRTYPE, "")),
            ("dev/pipe", (tarfile.FIFOTYPE, "")),
        )
        # CVE-2021-29136: the root itself becomes a link, and what follows lies behind it
        second = tar(
            ("/.", canary), (".", canary), ("..", canary), ("", canary), ("new", b"evil")
        )
        # nor do whiteouts remove anything
        third = tar(
            (f"{climb}/.wh.kept", b""),
            (f"{canary}/.wh..wh..opq", b""),
            ("etc/link/.wh.kept", b""),
            ("/../.wh.canary", b""),
        )
        self.made.index(self.made.manifest(first, second, third))
        found = layers.sandboxed(self, self.made.root, _INDEXED)
        told = json.loads(found.stdout)
        self.assertEqual(found.changed, [])
        # names are paths of the image
        self.assertIn("new", told)
        self.assertIn("etc/link", told)
        self.assertFalse([path for path in told if ".." in path.split("/") or path[0] == "/"])
        # what a link would share with the machine is not read
        self.assertEqual((told["etc/hard"], told["etc/hard-absolute"]), ("", ""))
        self.assertFalse([path for path, data in told.items() if "secret" in data])

    def test_digests_are_no_paths(self) -> None:
        """D12: the blob that is asked for is a file of the machine."""
        value = {
            "digest": f"sha256:../../../../..{layers.SANDBOX}/canary/kept",
            "mediaType": oci.LAYER,
            "size": len(layers.CANARY),
        }
        diff_ids = [digest_of(layers.CANARY.encode())]
        self.made.index(self.made.manifest(blobs=[value], diff_ids=diff_ids))
        found = layers.sandboxed(self, self.made.root, _INDEXED)
        self.assertIn("a descriptor has no valid digest or size", found.stdout)
        self.assertEqual(found.changed, [])


class Elsewhere(Case):
    """What an engine and a registry are asked, without one."""

    def test_names_that_move(self) -> None:
        for name, moves in {
            "docker://a.example/b:1": True,
            f"docker://a.example/b@{digest_of(b'')}": False,
            "docker-daemon:docker.io/a/b:1": True,
            f"docker-daemon:{digest_of(b'')}": False,
            "oci:/srv/base": False,
            "scratch": False,
        }.items():
            self.assertEqual(base_image.moves(name), moves, name)

    def test_offline(self) -> None:
        with self.assertRaisesRegex(TransportError, "is not in the cache, and offline is set"):
            base_image.read(
                "docker://a.example/b:1",
                digest_of(b""),
                AMD64,
                self.store,
                most=BASE_SIZE,
                offline=True,
            )

    def test_an_engine_without_its_sdk(self) -> None:
        with (
            mock.patch.dict("sys.modules", docker=None),
            self.assertRaisesRegex(TransportError, "pip install docker"),
        ):
            base_image.resolve("docker-daemon:docker.io/a/b:1", AMD64, self.store)

    def test_an_engine_that_is_not_there(self) -> None:
        with (
            mock.patch.dict(os.environ, DOCKER_HOST=f"unix://{self.top}/none.sock"),
            self.assertRaisesRegex(TransportError, "can't be asked for docker.io/a/b:1"),
        ):
            base_image.resolve("docker-daemon:docker.io/a/b:1", AMD64, self.store)

    def test_the_engine_is_that_of_the_docker_command(self) -> None:
        meta = self.top / "contexts/meta" / hashlib.sha256(b"mine").hexdigest() / "meta.json"
        meta.parent.mkdir(parents=True)
        host = f"unix://{self.top}/mine.sock"
        meta.write_text(json.dumps({"Endpoints": {"docker": {"Host": host}}}))
        variables = {
            "DOCKER_HOST": "",
            "DOCKER_CONFIG": f"{self.top}",
            "DOCKER_CONTEXT": "mine",
        }
        with (
            mock.patch.dict(os.environ, variables),
            self.assertRaisesRegex(TransportError, f"Engine at {host} can't be asked for"),
        ):
            base_image.resolve("docker-daemon:docker.io/a/b:1", AMD64, self.store)

    def test_a_password_is_not_repeated(self) -> None:
        with self.assertRaises(SettingsError) as caught:
            base_image.canonical("docker://me:hunter2@a.example/b:1", self.top)
        self.assertNotIn("hunter2", str(caught.exception))
