"""The image, as an image layout and as one archive that every engine reads."""

from __future__ import annotations

import dataclasses
import json
import logging
import pathlib
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from eggcrate.errors import PlanError, raise_all
from eggcrate.image import oci
from eggcrate.image.compression import compressor, cores
from eggcrate.image.descriptor import INDEX, Descriptor
from eggcrate.image.layers import (
    BLOCKSIZE,
    RECORDSIZE,
    Layer,
    layer_key,
    recalled,
    tar_header,
    write_layer,
)
from eggcrate.image.oci import Platform, Reference, RuntimeConfig
from eggcrate.image.plan import (
    BuildPlan,
    FileEntry,
    FileType,
    directory,
    printable,
)
from eggcrate.image.progress import progress
from eggcrate.image.store import Store, replacing, sha256, write_if_changed
from eggcrate.image.stored import NO_IMAGE, blob_name, manifest_of, read_blob

logger = logging.getLogger(__name__)

# The annotation of a manifest that says what has compressed its layers: with another version
# their diff ids are the same, their digests may not be.
COMPRESSOR = "eggcrate.compressor"
_CREATED_BY = "eggcrate: "


@dataclasses.dataclass(frozen=True, slots=True)
class Image:
    """An image whose blobs all lie in a store.

    ``manifest`` describes the document whose digest is the image's.  ``base_name`` and
    ``base_digest`` are those of the base image, empty where there is none.
    """

    platform: Platform
    references: tuple[Reference, ...]
    manifest: Descriptor
    config: Descriptor
    layers: tuple[Layer, ...]
    base_name: str = ""
    base_digest: str = ""

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob, each once, in the order of their digests."""
        found = {
            descriptor.digest: descriptor
            for descriptor in (
                self.manifest,
                self.config,
                *(layer.descriptor for layer in self.layers),
            )
        }
        return tuple(found[digest] for digest in sorted(found))

    @property
    def size(self) -> int:
        """What a registry would store, in bytes."""
        return sum(blob.size for blob in self.blobs)


@dataclasses.dataclass(frozen=True, slots=True)
class ImageIndex:
    """An image for several platforms: ``images`` has that of each, all in one store.

    ``manifest`` describes the index, whose digest is the image's; ``default`` is the one that
    ``docker load`` gets, which knows no index.
    """

    references: tuple[Reference, ...]
    manifest: Descriptor
    images: tuple[Image, ...]
    default: Image

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob, each once, in the order of their digests."""
        found = {blob.digest: blob for image in self.images for blob in image.blobs}
        found[self.manifest.digest] = self.manifest
        return tuple(found[digest] for digest in sorted(found))


@dataclasses.dataclass(frozen=True, slots=True)
class Below:
    """What an image is built on: the layers of its base, which lie in the store.

    ``name`` is a reference, or empty for a base that has none; ``digest`` is the base's;
    ``history`` is as its config has it.
    """

    name: str = ""
    digest: str = ""
    layers: tuple[Layer, ...] = ()
    history: tuple[Mapping[str, Any], ...] = ()

    def annotations(self) -> dict[str, str]:
        """Those that say what the base is (OCI image-spec, annotations.md)."""
        named = {"name": self.name, "digest": self.digest}
        return {
            f"org.opencontainers.image.base.{key}": value
            for key, value in named.items()
            if value
        }


NOTHING = Below()


def make_image(
    plan: BuildPlan,
    *,
    platform: Platform,
    runtime: RuntimeConfig,
    references: Sequence[Reference],
    store: Store,
    compression: str,
    epoch: int,
    below: Below = NOTHING,
) -> Image:
    """The image of a plan; the first bytes are written here, into the store.

    The first layers of the plan are those of ``below``, if it has any.
    """
    count = len(below.layers)
    own = BuildPlan(plan.layers[count:])
    ours = make_layers(own, store=store, compression=compression, epoch=epoch)
    layers = (*below.layers, *ours)
    config = oci.config_document(
        platform,
        runtime,
        [layer.diff_id for layer in layers],
        [oci.History(f"{_CREATED_BY}{printable(layer.plan.name)}") for layer in ours],
        time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)),
        base_history=below.history,
    )
    config_descriptor = Descriptor(oci.CONFIG, store.put(config), len(config))
    manifest = oci.manifest_document(
        config_descriptor,
        [layer.descriptor for layer in layers],
        {COMPRESSOR: compressor(compression), **below.annotations()},
    )
    return Image(
        platform,
        tuple(references),
        Descriptor(oci.MANIFEST, store.put(manifest), len(manifest)),
        config_descriptor,
        layers,
        below.name,
        below.digest,
    )


def make_layers(
    plan: BuildPlan, *, store: Store, compression: str, epoch: int
) -> tuple[Layer, ...]:
    """The layers of a plan, made or found in the store."""
    layers = []
    # the layers come one after the other; of each, as many members as there are cores are
    # compressed at a time, which keeps little in memory whatever the layers' sizes
    with ThreadPoolExecutor(cores()) as pool:
        for number, layer in enumerate(plan.layers, 1):
            key = layer_key(layer.entries, compression, epoch)
            found = recalled(layer, key, store, compression)
            if found is None:
                what = f"layer {number} of {len(plan.layers)}: {printable(layer.name)}"
                with progress(logger, what, layer.size) as written:
                    found = write_layer(
                        layer,
                        store,
                        compression=compression,
                        epoch=epoch,
                        pool=pool,
                        written=written,
                    )
            layers.append(found)
    return tuple(layers)


def with_layers(image: Image, layers: Sequence[Layer], store: Store) -> Image:
    """The image with other layers, as many, and all else as it was."""
    with store.open(image.config.digest) as stream:
        document: dict[str, Any] = json.load(stream)
    document["rootfs"]["diff_ids"] = [layer.diff_id for layer in layers]
    config = oci.document(document)
    config_descriptor = Descriptor(oci.CONFIG, store.put(config), len(config))
    with store.open(image.manifest.digest) as stream:
        annotations = json.load(stream).get("annotations", {})
    manifest = oci.manifest_document(
        config_descriptor, [layer.descriptor for layer in layers], annotations
    )
    return dataclasses.replace(
        image,
        layers=tuple(layers),
        config=config_descriptor,
        manifest=Descriptor(oci.MANIFEST, store.put(manifest), len(manifest)),
    )


def index_of(images: Sequence[Image], default: Image, store: Store) -> ImageIndex:
    """The image for several platforms that these make; its index is in the store."""
    document = oci.platforms_document([(image.manifest, image.platform) for image in images])
    manifest = Descriptor(INDEX, store.put(document), len(document))
    return ImageIndex(default.references, manifest, tuple(images), default)


def _documents(image: Image | ImageIndex) -> dict[str, bytes]:
    """The files of the layout that are no blobs (image-layout.md), and Docker's own."""
    platform = image.platform if isinstance(image, Image) else None
    return {
        "index.json": oci.index_document(image.manifest, platform, image.references),
        "oci-layout": oci.document({"imageLayoutVersion": "1.0.0"}),
    }


def _docker_manifest(image: Image | ImageIndex) -> bytes:
    """``manifest.json`` of ``docker save``, which image-layout.md allows beside its own."""
    image = image if isinstance(image, Image) else image.default
    value = [
        {
            "Config": blob_name(image.config.digest),
            "RepoTags": [str(reference) for reference in image.references],
            "Layers": [blob_name(layer.descriptor.digest) for layer in image.layers],
        }
    ]
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def is_layout_of(image: Image | ImageIndex, root: pathlib.Path) -> bool:
    """Whether ``root`` is the image layout of the image, with every blob in its size."""
    try:
        return all(
            (root / name).read_bytes() == data for name, data in _documents(image).items()
        ) and all(
            (root / blob_name(blob.digest)).stat().st_size == blob.size for blob in image.blobs
        )
    except OSError:
        return False


def layer_names(root: pathlib.Path) -> list[str]:
    """What the layers of the image in a layout are called, as its config's history says."""
    try:
        manifest = manifest_of(root)
        history = read_blob(root, manifest["config"]["digest"])["history"]
        words = [item.get("created_by", "") for item in history]
        return [
            text.removeprefix(_CREATED_BY) for text in words if text.startswith(_CREATED_BY)
        ]
    except NO_IMAGE:
        return []


def layer_digests(root: pathlib.Path) -> set[str]:
    """The digests of the layers of the image in a layout; none where there is no image."""
    try:
        return {layer["digest"] for layer in manifest_of(root)["layers"]}
    except NO_IMAGE:
        return set()


def check_layout(image: Image, root: pathlib.Path) -> None:
    """Nothing, when the layout at ``root`` holds every blob of the image, undamaged."""
    errors = []
    for blob in image.blobs:
        path = root / blob_name(blob.digest)
        try:
            with path.open("rb") as stream:
                good = f"sha256:{sha256(stream)}" == blob.digest
        except OSError:
            good = False
        if not good:
            errors.append(
                PlanError(
                    f"{path} is not what its name says", "remove the directory, and build again"
                )
            )
    raise_all(errors)


def write_layout(image: Image | ImageIndex, store: Store, root: pathlib.Path) -> None:
    """Make ``root`` the image layout of the image, and of nothing else.

    ``index.json`` is written last and at once: until then the layout holds the image
    that it held before.
    """
    blobs = root / "blobs" / "sha256"
    for blob in image.blobs:
        target = root / blob_name(blob.digest)
        if not target.is_file() or target.stat().st_size != blob.size:
            with replacing(target) as stream:
                store.write_to(blob.digest, blob.size, stream)
    for name, data in sorted(_documents(image).items(), reverse=True):
        write_if_changed(root / name, data)
    wanted = {blob.digest.partition(":")[2] for blob in image.blobs}
    for path in blobs.iterdir():
        if path.name not in wanted and not path.is_dir():
            path.unlink()


def write_archive(
    image: Image | ImageIndex, store: Store, stream: BinaryIO, epoch: int
) -> None:
    """Write the archive: an OCI archive (``skopeo``, ``podman``) and a ``docker load`` one.

    The directories have entries of their own, without which some readers find nothing.
    """
    documents = {**_documents(image), "manifest.json": _docker_manifest(image)}
    length = 0

    def write(data: bytes) -> None:
        nonlocal length
        stream.write(data)
        length += len(data)

    for name in sorted(documents):
        write(tar_header(_member(name, len(documents[name])), epoch))
        write(documents[name])
        write(bytes(-length % BLOCKSIZE))
    for name in ("blobs", "blobs/sha256"):
        write(tar_header(directory(name, group="", reason=""), epoch))
    for blob in image.blobs:
        write(tar_header(_member(blob_name(blob.digest), blob.size), epoch))
        store.write_to(blob.digest, blob.size, stream)
        length += blob.size
        write(bytes(-length % BLOCKSIZE))
    write(bytes(2 * BLOCKSIZE))
    write(bytes(-length % RECORDSIZE))


def _member(name: str, size: int) -> FileEntry:
    return FileEntry(name, FileType.REGULAR, 0o644, "", "", size=size)
