"""An image in a layout: what there is to say to engines and registries that are given it."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from eggcrate.errors import PlanError
from eggcrate.image.oci import INDEX, Descriptor
from eggcrate.image.store import sha256

# What reading documents raises that are not there, or are others
NO_IMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError)


@dataclasses.dataclass(frozen=True, slots=True)
class Stored:
    """The image of a layout at ``root``, as its documents say; no blob has been read.

    ``layers`` and ``diff_ids`` are in the same order.  ``base_name`` is a reference that means
    its base, or empty.  Where the manifest is an index, ``images`` are those of its platforms:
    the layers are theirs, the rest is that of the first.
    """

    root: pathlib.Path
    references: tuple[str, ...]
    manifest: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    diff_ids: tuple[str, ...]
    base_name: str = ""
    images: tuple[Stored, ...] = ()

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        """Every blob, each once, by digest."""
        found = {blob.digest: blob for blob in (self.manifest, self.config, *self.layers)}
        for image in self.images:
            found.update((blob.digest, blob) for blob in image.blobs)
        return tuple(found[digest] for digest in sorted(found))

    @property
    def size(self) -> int:
        """What a registry would store, in bytes."""
        return sum(blob.size for blob in self.blobs)

    def open(self, blob: Descriptor) -> BinaryIO:
        """The bytes of a blob, as many as it has to have."""
        path = self.root / blob_name(blob)
        try:
            stream = path.open("rb")
        except OSError as error:
            raise PlanError(
                f"{path} can't be read: {error.strerror}",
                "remove the directory, and build again",
            ) from error
        if os.fstat(stream.fileno()).st_size != blob.size:
            stream.close()
            raise self._damaged(path)
        return stream

    def check(self, blob: Descriptor, stream: BinaryIO) -> None:
        """Nothing, when a blob has the bytes that its digest is of."""
        stream.seek(0)
        if f"sha256:{sha256(stream)}" != blob.digest:
            raise self._damaged(self.root / blob_name(blob))

    def _damaged(self, path: pathlib.Path) -> PlanError:
        return PlanError(
            f"{path} is not what its name says", "remove the directory, and build again"
        )

    def docker_archive(self, known: int = 0) -> Iterator[bytes]:
        """The archive that ``docker load`` reads, piece by piece.

        The first ``known`` layers are named in it, and their bytes are not there.
        """
        from eggcrate.image.layers import BLOCKSIZE, tar_header
        from eggcrate.image.plan import FileEntry, FileType

        def header(name: str, size: int) -> bytes:
            return tar_header(FileEntry(name, FileType.REGULAR, 0o644, "", "", size=size), 0)

        value = [
            {
                "Config": blob_name(self.config),
                "RepoTags": list(self.references),
                "Layers": [blob_name(layer) for layer in self.layers],
            }
        ]
        manifest = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
        yield header("manifest.json", len(manifest))
        yield manifest + bytes(-len(manifest) % BLOCKSIZE)
        left_out = {layer.digest for layer in self.layers[:known]}
        for blob in dict.fromkeys((self.config, *self.layers)):
            if blob.digest in left_out:
                continue
            yield header(blob_name(blob), blob.size)
            with self.open(blob) as stream:
                while data := stream.read(1 << 20):
                    yield data
            yield bytes(-blob.size % BLOCKSIZE)
        yield bytes(2 * BLOCKSIZE)


def stored(root: pathlib.Path) -> Stored:
    """The image of the layout at ``root``."""
    try:
        entries = json.loads((root / "index.json").read_bytes())["manifests"]
        references = tuple(
            entry["annotations"]["org.opencontainers.image.ref.name"] for entry in entries
        )
        return _stored(root, references, entries[0])
    except NO_IMAGE as error:
        raise PlanError(f"there is no image at {root}", "build it first") from error


def _stored(
    root: pathlib.Path, references: tuple[str, ...], described: Mapping[str, Any]
) -> Stored:
    manifest = read_document(root, described["digest"])
    if described["mediaType"] == INDEX:
        images = tuple(_stored(root, references, entry) for entry in manifest["manifests"])
        layers = (layer for image in images for layer in image.layers)
        return dataclasses.replace(
            images[0],
            manifest=_descriptor(described),
            layers=tuple(dict.fromkeys(layers)),
            images=images,
        )
    config = read_document(root, manifest["config"]["digest"])
    annotations = manifest.get("annotations", {})
    return Stored(
        root,
        references,
        _descriptor(described),
        _descriptor(manifest["config"]),
        tuple(map(_descriptor, manifest["layers"])),
        tuple(map(str, config["rootfs"]["diff_ids"])),
        str(annotations.get("org.opencontainers.image.base.name", "")),
    )


def blob_name(descriptor: Descriptor) -> str:
    """Where a layout has a blob (OCI image-spec, image-layout.md)."""
    return f"blobs/{descriptor.digest.replace(':', '/', 1)}"


def read_document(root: pathlib.Path, digest: str) -> Any:
    """A document of the layout at ``root``; one of ``NO_IMAGE`` when there is none."""
    return json.loads((root / "blobs" / digest.replace(":", "/", 1)).read_bytes())


def _descriptor(value: Mapping[str, Any]) -> Descriptor:
    return Descriptor(str(value["mediaType"]), str(value["digest"]), int(value["size"]))
