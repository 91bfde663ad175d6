"""The image that lies in an image layout, and archives of it.

Whoever loads an image waits for these imports, too: so they are few.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, BinaryIO, NamedTuple

from eggcrate.errors import PlanError
from eggcrate.image.descriptor import INDEX, Descriptor

_BLOCK = 512
# what reading a layout raises that is not there, or not whole
NO_IMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError)


class Stored(NamedTuple):
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
        path = self.root / blob_name(blob.digest)
        try:
            stream = path.open("rb")
        except OSError as error:
            raise PlanError(
                f"{path} can't be read: {error.strerror}",
                "remove the directory, and build again",
            ) from error
        if os.fstat(stream.fileno()).st_size != blob.size:
            stream.close()
            raise self._damaged(blob)
        return stream

    def check(self, blob: Descriptor, stream: BinaryIO) -> None:
        """Nothing, when a blob has the bytes that its digest is of."""
        from eggcrate.image.store import sha256

        stream.seek(0)
        if f"sha256:{sha256(stream)}" != blob.digest:
            raise self._damaged(blob)

    def _damaged(self, blob: Descriptor) -> PlanError:
        return PlanError(
            f"{self.root / blob_name(blob.digest)} is not what its name says",
            "remove the directory, and build again",
        )

    def docker_archive(self, known: Collection[str] = ()) -> Iterator[bytes]:
        """The archive that ``docker load`` reads, piece by piece.

        Layers with these diff ids are named in it, and their bytes are not there.
        """
        value = [
            {
                "Config": blob_name(self.config.digest),
                "RepoTags": list(self.references),
                "Layers": [blob_name(layer.digest) for layer in self.layers],
            }
        ]
        yield from _document("manifest.json", value)
        yield from self._blobs((self.config,), known)

    def oci_archive(self, known: Collection[str] = ()) -> Iterator[bytes]:
        """The same for podman, an image layout; of several names it has the first."""
        described = {
            **self.manifest.as_json(),
            "annotations": {"org.opencontainers.image.ref.name": self.references[0]},
        }
        yield from _document("oci-layout", {"imageLayoutVersion": "1.0.0"})
        yield from _document("index.json", {"schemaVersion": 2, "manifests": [described]})
        yield from self._blobs((self.manifest, self.config), known)

    def _blobs(self, first: tuple[Descriptor, ...], known: Collection[str]) -> Iterator[bytes]:
        wanted = [
            layer
            for layer, diff_id in zip(self.layers, self.diff_ids, strict=True)
            if diff_id not in known
        ]
        for blob in dict.fromkeys((*first, *wanted)):
            yield _header(blob_name(blob.digest), blob.size)
            left = blob.size
            with self.open(blob) as stream:
                while data := stream.read(1 << 20):
                    yield data
                    left -= len(data)
            if left:
                raise self._damaged(blob)
            yield bytes(-blob.size % _BLOCK)
        yield bytes(2 * _BLOCK)


def _document(name: str, value: Any) -> Iterator[bytes]:
    data = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    yield _header(name, len(data))
    yield data + bytes(-len(data) % _BLOCK)


def _header(name: str, size: int) -> bytes:
    """A header of ustar (pax(1)), for a short name."""
    length = b"%011o" % size
    if len(length) > 11:
        # as GNU tar, Go and Python write it
        length = b"\x80" + size.to_bytes(11, "big")
    header = b"".join(
        (
            *(name.encode().ljust(100, b"\0"), b"0000644\0", 2 * b"0000000\0"),
            *(length.ljust(12, b"\0"), b"00000000000\0", 8 * b" ", b"0"),
            *(bytes(100), b"ustar\x0000"),
        )
    ).ljust(_BLOCK, b"\0")
    return header[:148] + b"%06o\0 " % sum(header) + header[156:]


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
    manifest = read_blob(root, described["digest"])
    if described["mediaType"] == INDEX:
        images = tuple(_stored(root, references, entry) for entry in manifest["manifests"])
        layers = (layer for image in images for layer in image.layers)
        return images[0]._replace(
            manifest=_descriptor(described), layers=tuple(dict.fromkeys(layers)), images=images
        )
    config = read_blob(root, manifest["config"]["digest"])
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


def _descriptor(value: Mapping[str, Any]) -> Descriptor:
    return Descriptor(str(value["mediaType"]), str(value["digest"]), int(value["size"]))


def manifest_of(root: pathlib.Path) -> Any:
    """The manifest of the image in a layout, or one of the errors ``NO_IMAGE``."""
    index = json.loads((root / "index.json").read_bytes())
    return read_blob(root, index["manifests"][0]["digest"])


def read_blob(root: pathlib.Path, digest: str) -> Any:
    """A document of a layout, by its digest, or one of the errors ``NO_IMAGE``."""
    return json.loads((root / blob_name(digest)).read_bytes())


def blob_name(digest: str) -> str:
    """Where a blob is in a layout (image-layout.md)."""
    return f"blobs/{digest.replace(':', '/', 1)}"
