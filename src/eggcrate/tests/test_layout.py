"""The image on disk: a layout and an archive, whole and the same every time."""

from __future__ import annotations

import hashlib
import io
import json
import pathlib
import secrets
import shutil
import subprocess
import tarfile
import tempfile
import unittest
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from eggcrate.errors import PlanError
from eggcrate.image import oci
from eggcrate.image.descriptor import Descriptor
from eggcrate.image.layers import Layer
from eggcrate.image.layout import (
    Image,
    check_layout,
    make_image,
    write_archive,
    write_layout,
)
from eggcrate.image.oci import Healthcheck, Platform, Reference, RuntimeConfig, reference
from eggcrate.image.plan import (
    FileEntry,
    FileType,
    bytes_file,
    directory,
    merge,
    plan_layers,
    symlink,
)
from eggcrate.image.store import Store, replacing
from eggcrate.tests import layers
from eggcrate.tests.validator import validate

LOADERS = layers.Layer("LOADERS", "docker.io podman skopeo")
LOADERS.__bases__ = (layers.DOCKER_ENGINE, layers.PODMAN)

EPOCH = 315_532_800
NAMES = (reference("acme/shop", "1"), reference("acme/shop", "latest"))
RUNTIME = RuntimeConfig(
    entrypoint=("/bin/a",),
    user="1:1",
    working_directory="/",
    environment=(("PATH", "/bin"),),
    exposed_ports=("80/tcp",),
    labels=(("a", "b"),),
    stop_signal="SIGTERM",
    healthcheck=Healthcheck(("/bin/a",)),
)


def entries(source: bytes = b"x") -> list[FileEntry]:
    return [
        directory("tmp", group="packages", reason="t", mode=0o1777),
        bytes_file("usr/bin/a", b"program", group="packages", reason="t", mode=0o755),
        FileEntry("usr/bin/b", FileType.HARDLINK, 0o755, "packages", "t", linkname="usr/bin/a"),
        symlink("bin", "usr/bin", group="packages", reason="t"),
        bytes_file("bin/script", b"#!/bin/a", group="configuration", reason="t", mode=0o755),
        bytes_file("srv/\u00e9/" + "n" * 200, source, group="develop shop", reason="t"),
        bytes_file("srv/bad\udcff\n", b"", group="data", reason="t"),
    ]


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.root = pathlib.Path(scratch.name)
        self.store = Store(self.root / "store")

    def make(
        self,
        content: Iterable[FileEntry] = (),
        *,
        compression: str = "gzip",
        names: tuple[Reference, ...] = NAMES,
        store: Store | None = None,
    ) -> Image:
        return make_image(
            plan_layers(merge(content), 12),
            platform=Platform("linux", "amd64"),
            runtime=RUNTIME,
            references=names,
            store=store or self.store,
            compression=compression,
            epoch=EPOCH,
        )

    def layout(self, image: Image) -> pathlib.Path:
        write_layout(image, self.store, self.root / "oci")
        return self.root / "oci"

    def archive(self, image: Image) -> pathlib.Path:
        with replacing(self.root / "image.tar") as stream:
            write_archive(image, self.store, stream, EPOCH)
        return self.root / "image.tar"


class Images(Scratch):
    def test_layout_and_archive_are_valid(self) -> None:
        for compression in ("gzip", "none"):
            image = self.make(entries(), compression=compression)
            self.assertEqual(validate(self.layout(image)), [])
            self.assertEqual(validate(self.archive(image)), [])

    def test_an_image_without_a_file_is_valid(self) -> None:
        image = self.make()
        self.assertEqual(image.layers, ())
        self.assertEqual(validate(self.layout(image)), [])
        self.assertEqual(validate(self.archive(image)), [])

    def test_digest_and_size_are_those_of_the_bytes(self) -> None:
        image = self.make(entries())
        for blob in image.blobs:
            data = self.store.blob(blob.digest).read_bytes()
            self.assertEqual(blob.digest, f"sha256:{hashlib.sha256(data).hexdigest()}")
            self.assertEqual(blob.size, len(data))
        self.assertEqual(image.size, sum(blob.size for blob in image.blobs))
        digests = [blob.digest for blob in image.blobs]
        self.assertEqual(digests, sorted(set(digests)))

    def test_the_config_has_a_line_of_history_for_each_layer(self) -> None:
        image = self.make(entries())
        config = json.loads(self.store.blob(image.config.digest).read_bytes())
        self.assertEqual(
            [entry["created_by"] for entry in config["history"]],
            [f"eggcrate: {name}" for name in ("packages", "data", "develop", "configuration")],
        )
        self.assertEqual(config["created"], "1980-01-01T00:00:00Z")

    def test_the_same_image_in_another_store_has_the_same_digest(self) -> None:
        other = Store(self.root / "other")
        one, two = self.make(entries()), self.make(reversed(entries()), store=other)
        self.assertEqual(one.manifest, two.manifest)

    def test_names_are_not_a_part_of_the_image(self) -> None:
        one, two = self.make(entries()), self.make(entries(), names=NAMES[:1])
        self.assertEqual(one.manifest, two.manifest)


class Layout(Scratch):
    def test_it_holds_the_image_and_nothing_else(self) -> None:
        root = self.layout(self.make(entries(b"old")))
        (root / "blobs" / "sha256" / ("0" * 64)).write_bytes(b"left by another build")
        image = self.make(entries(b"new"))
        self.layout(image)
        self.assertEqual(validate(root), [])
        names = {path.name for path in (root / "blobs" / "sha256").iterdir()}
        self.assertEqual(names, {blob.digest.partition(":")[2] for blob in image.blobs})

    def test_what_has_not_changed_is_not_written(self) -> None:
        root = self.layout(self.make(entries(b"old")))

        def numbers() -> dict[str, int]:
            return {path.name: path.stat().st_ino for path in root.rglob("*") if path.is_file()}

        before = numbers()
        self.layout(self.make(entries(b"old")))
        self.assertEqual(numbers(), before)
        self.layout(self.make(entries(b"new")))
        changed = [name for name, number in numbers().items() if before.get(name) != number]
        # a layer, the config, the manifest, the index
        self.assertEqual(len(changed), 4)

    def test_a_blob_that_was_cut_off_is_mended(self) -> None:
        image = self.make(entries())
        root = self.layout(image)
        blob = root / "blobs" / "sha256" / image.config.digest.partition(":")[2]
        blob.write_bytes(blob.read_bytes()[:-1])
        self.layout(image)
        self.assertEqual(validate(root), [])

    def test_a_place_that_can_t_be_written_is_one_sentence(self) -> None:
        image = self.make(entries())
        (self.root / "file").write_bytes(b"")
        for place in (self.root / "file", self.root / "file" / "oci"):
            with self.assertRaises(PlanError) as caught:
                write_layout(image, self.store, place)
            self.assertIn("can't be written", caught.exception.what)

    def test_a_blob_that_is_gone_from_the_cache_is_named(self) -> None:
        image = self.make(entries())
        self.store.blob(image.config.digest).unlink()
        for write in (self.layout, self.archive):
            with self.assertRaises(PlanError) as caught:
                write(image)
            self.assertIn(
                f"the blob {image.config.digest} can't be read", caught.exception.what
            )

    def test_until_the_index_is_written_the_old_image_is_whole(self) -> None:
        root = self.layout(self.make(entries(b"old")))
        index = (root / "index.json").read_bytes()
        image = self.make(entries(b"new"))
        (develop,) = [layer for layer in image.layers if layer.plan.name == "develop"]
        self.store.blob(develop.descriptor.digest).unlink()
        with self.assertRaises(PlanError):
            self.layout(image)
        self.assertEqual((root / "index.json").read_bytes(), index)
        self.assertEqual(
            [problem for problem in validate(root) if "no document refers" not in problem], []
        )


class Archive(Scratch):
    def test_directories_come_before_their_files_and_all_is_root_s(self) -> None:
        image = self.make(entries())
        with tarfile.open(self.archive(image)) as archive:
            lines = [
                f"{entry.type.decode()} {entry.mode:o} {entry.uid}:{entry.gid} {entry.mtime} "
                f"{entry.name}"
                for entry in archive
            ]
        self.assertEqual(
            lines,
            [
                *(
                    f"0 644 0:0 {EPOCH} {name}"
                    for name in ("index.json", "manifest.json", "oci-layout")
                ),
                f"5 755 0:0 {EPOCH} blobs",
                f"5 755 0:0 {EPOCH} blobs/sha256",
                *(
                    f"0 644 0:0 {EPOCH} blobs/{blob.digest.replace(':', '/')}"
                    for blob in image.blobs
                ),
            ],
        )

    def test_the_same_image_gives_the_same_archive(self) -> None:
        image = self.make(entries())
        first = self.archive(image).read_bytes()
        self.assertEqual(self.archive(image).read_bytes(), first)

    def test_docker_load_finds_its_document(self) -> None:
        image = self.make(entries())
        with tarfile.open(self.archive(image)) as archive:
            stream = archive.extractfile("manifest.json")
            assert stream is not None
            (value,) = json.loads(stream.read())
        self.assertEqual(
            value["RepoTags"], ["docker.io/acme/shop:1", "docker.io/acme/shop:latest"]
        )
        self.assertEqual(len(value["Layers"]), 4)

    def test_a_missing_blob_leaves_the_old_archive(self) -> None:
        path = self.archive(self.make(entries(b"old")))
        before = path.read_bytes()
        image = self.make(entries(b"new"))
        self.store.blob(image.layers[-1].descriptor.digest).unlink()
        with self.assertRaises(PlanError):
            self.archive(image)
        self.assertEqual(path.read_bytes(), before)
        self.assertEqual(list(self.root.glob(".eggcrate-tmp-*")), [])

    def test_a_directory_in_its_place_is_refused(self) -> None:
        (self.root / "image.tar").mkdir()
        with self.assertRaises(PlanError):
            self.archive(self.make(entries()))
        self.assertTrue((self.root / "image.tar").is_dir())


class Damaged(Scratch):
    """E10: an archive that is cut off, or whose layer, config or diff id is another one."""

    layer = LOADERS

    def damages(self) -> Iterator[tuple[str, pathlib.Path]]:
        """Archives, each of content that no loader has seen."""
        for what in ("cut off", "flipped", "missing", "diff id"):
            salt = secrets.token_hex(8).encode()
            image = self.make(entries(salt * 1000), compression="none", names=NAMES[:1])
            (layer,) = (
                one
                for one in image.layers
                if any(entry.data and salt in entry.data for entry in one.plan.entries)
            )
            damaged = layer.descriptor.digest.partition(":")[2]
            archive = self.archive(image)
            changed = self.root / f"{what.replace(' ', '-')}.tar"
            if what == "cut off":
                data = archive.read_bytes()
                changed.write_bytes(data[: len(data) * 2 // 3])
            else:
                with tarfile.open(archive) as old, tarfile.open(changed, "w") as new:
                    for member in old:
                        stream = old.extractfile(member)
                        data = stream.read() if stream else b""
                        if what == "flipped":
                            data = data.replace(salt, salt[::-1], 1)
                        elif what == "missing" and member.name.endswith(damaged):
                            continue
                        elif what == "diff id" and b'"diff_ids"' in data:
                            data = data.replace(layer.diff_id.encode(), b"sha256:" + b"0" * 64)
                        new.addfile(member, io.BytesIO(data))
            yield what, changed

    def test_everybody_refuses_them(self) -> None:
        engines = [layers.DOCKER_ENGINE, layers.PODMAN]
        for engine in engines:
            engine.require(self)
        if not shutil.which("skopeo"):
            layers.skip(self, "skopeo is not here; apt-get install skopeo")
        whole = self.archive(self.make(entries(secrets.token_bytes(9)), names=NAMES[:1]))
        for number, (what, archive) in enumerate((("whole", whole), *self.damages())):
            copy = f"oci:{self.root}/copy{number}:1"
            skopeo = ["skopeo", "copy", "--quiet", f"oci-archive:{archive}", copy]
            done = subprocess.run(skopeo, capture_output=True, check=False)
            with self.subTest(what, loader="skopeo"):
                self.assertEqual(done.returncode == 0, what == "whole", done.stderr)
            for engine in engines:
                with self.subTest(what, loader=engine.__name__):
                    if what == "whole":
                        engine.load(archive)
                    else:
                        self.assertRaises(AssertionError, engine.load, archive)


class Checked(Scratch):
    """E10, as our own verify sees it."""

    def test_a_blob_that_is_damaged_is_named(self) -> None:
        image = self.make(entries())
        root = self.layout(image)
        check_layout(image, root)
        for blob in image.blobs:
            path = root / "blobs" / blob.digest.replace(":", "/")
            data = path.read_bytes()
            for damaged in (data[:-1], data + b"x", data[:-1] + bytes([data[-1] ^ 1]), None):
                if damaged is None:
                    path.unlink()
                else:
                    path.write_bytes(damaged)
                with self.assertRaisesRegex(PlanError, f"^{path} is not what its name says; "):
                    check_layout(image, root)
            path.write_bytes(data)


class TheValidator(Scratch):
    """What checks the images of all tests must see what is wrong with one."""

    def damaged(self, change: Callable[[pathlib.Path, Image], None]) -> str:
        image = self.make(entries())
        root = self.layout(image)
        change(root, image)
        return "\n".join(validate(root))

    def blob(self, root: pathlib.Path, digest: str) -> pathlib.Path:
        return root / "blobs" / digest.replace(":", "/")

    def test_a_flipped_byte(self) -> None:
        def change(root: pathlib.Path, image: Image) -> None:
            path = self.blob(root, image.layers[0].descriptor.digest)
            data = bytearray(path.read_bytes())
            data[-5] ^= 1
            path.write_bytes(data)

        self.assertIn("its bytes are others", self.damaged(change))

    def test_missing_and_superfluous_blobs(self) -> None:
        def missing(root: pathlib.Path, image: Image) -> None:
            self.blob(root, image.layers[0].descriptor.digest).unlink()

        def superfluous(root: pathlib.Path, image: Image) -> None:
            (root / "blobs" / "sha256" / "x").write_bytes(b"")

        self.assertIn("is missing", self.damaged(missing))
        self.assertIn("no document refers to it", self.damaged(superfluous))

    def test_documents_that_disagree(self) -> None:
        def config(**changes: Any) -> str:
            def change(root: pathlib.Path, image: Image) -> None:
                value = json.loads(self.blob(root, image.config.digest).read_bytes())
                value.update(changes)
                store = Store(root)
                data = oci.document(value)
                new = Descriptor(oci.CONFIG, store.put(data), len(data))
                data = oci.manifest_document(new, [la.descriptor for la in image.layers], {})
                manifest = Descriptor(oci.MANIFEST, store.put(data), len(data))
                (root / "index.json").write_bytes(
                    oci.index_document(manifest, image.platform, image.references)
                )

            return self.damaged(change)

        self.assertIn("history has 0 layers, not 4", config(history=[]))
        self.assertIn("0 diff ids, 4 layers", config(rootfs={"type": "layers", "diff_ids": []}))
        self.assertIn(
            "diff id 0 is x", config(rootfs={"type": "layers", "diff_ids": ["x"] * 4})
        )
        self.assertIn("in the index", config(architecture="arm64"))
        self.assertIn("no time of RFC 3339", config(created="yesterday"))
        self.assertIn("Env is", config(config={"Env": ["A"]}))

    def test_what_is_wrong_in_a_layer(self) -> None:
        for names, expected in (
            (["a", "a"], "is there twice"),
            (["a/b"], "comes without its parent"),
            (["/a"], "is no plain relative path"),
            (["../a"], "leaves the root"),
            (["b", "a"], "not in the order of its bytes"),
            ([".wh.a"], "is a whiteout"),
        ):
            stream = io.BytesIO()
            with tarfile.open(fileobj=stream, mode="w") as archive:
                for name in names:
                    archive.addfile(tarfile.TarInfo(name))
            data = stream.getvalue()
            digest = self.store.put(data)
            layer = Descriptor(oci.LAYER, digest, len(data))
            config = oci.config_document(
                Platform("linux", "amd64"),
                RUNTIME,
                [digest],
                [oci.History("t")],
                "1980-01-01T00:00:00Z",
            )
            descriptor = Descriptor(oci.CONFIG, self.store.put(config), len(config))
            manifest = oci.manifest_document(descriptor, [layer], {})
            image = Image(
                Platform("linux", "amd64"),
                NAMES,
                Descriptor(oci.MANIFEST, self.store.put(manifest), len(manifest)),
                descriptor,
                tuple(
                    Layer(plan, layer, digest, len(data), "key", made=True)
                    for plan in plan_layers(merge(entries()[:1]), 1).layers
                ),
            )
            self.assertIn(expected, "\n".join(validate(self.layout(image))), names)
