"""Layers: the same entries give the same bytes, everywhere (OCI image-spec, layer.md)."""

from __future__ import annotations

import dataclasses
import hashlib
import tarfile
import zlib
from collections.abc import Sequence
from typing import BinaryIO, Protocol

from eggcrate.errors import PlanError
from eggcrate.image.oci import LAYER, Descriptor
from eggcrate.image.plan import FileEntry, FileType, LayerPlan
from eggcrate.image.store import Store

# Raise it whenever the bytes that come of the same entries change.
FORMAT = 1

# 1980-01-01, the earliest time that a zip file can hold, where SOURCE_DATE_EPOCH is not set
DEFAULT_EPOCH = 315_532_800

_BLOCK = 1 << 20
_TYPES = {
    FileType.REGULAR: tarfile.REGTYPE,
    FileType.DIRECTORY: tarfile.DIRTYPE,
    FileType.SYMLINK: tarfile.SYMTYPE,
    FileType.HARDLINK: tarfile.LNKTYPE,
}


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """A layer that lies in the store.

    ``diff_id`` is the digest of the uncompressed tar, ``size`` its length in bytes;
    ``made`` says whether its bytes were written now or found.
    """

    plan: LayerPlan
    descriptor: Descriptor
    diff_id: str
    size: int
    made: bool


class _Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


class _Identity:
    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""


def _gzip() -> _Compressor:
    # a gzip header of zlib's own has neither time nor name
    return zlib.compressobj(6, zlib.DEFLATED, 31)


_SUFFIX = {"gzip": "+gzip", "none": ""}


class _Sink:
    """Compresses what is written, and digests both sides."""

    def __init__(self, stream: BinaryIO, compression: str) -> None:
        self._stream = stream
        self._compressor: _Compressor = _gzip() if compression == "gzip" else _Identity()
        self._plain = hashlib.sha256()
        self._stored = hashlib.sha256()
        self.size = self.stored_size = 0

    def write(self, data: bytes) -> None:
        self._plain.update(data)
        self.size += len(data)
        self._store(self._compressor.compress(data))

    def _store(self, data: bytes) -> None:
        self._stored.update(data)
        self.stored_size += len(data)
        self._stream.write(data)

    def close(self) -> tuple[str, str]:
        """The diff id and the digest."""
        self._store(self._compressor.flush())
        return f"sha256:{self._plain.hexdigest()}", f"sha256:{self._stored.hexdigest()}"


def _header(entry: FileEntry, epoch: int) -> bytes:
    """The tar header of an entry: ustar, with a pax header only where ustar can't say it."""
    info = tarfile.TarInfo(entry.path)
    info.type = _TYPES[entry.type]
    info.mode, info.uid, info.gid = entry.mode, entry.uid, entry.gid
    info.mtime, info.size, info.linkname = epoch, entry.size, entry.linkname
    return info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _write_content(sink: _Sink, entry: FileEntry, store: Store) -> None:
    written, digest = 0, hashlib.sha256()
    try:
        with entry.open() as stream:
            while data := stream.read(_BLOCK):
                written += len(data)
                digest.update(data)
                sink.write(data)
    except OSError as error:
        raise PlanError(
            f"{entry.source} can't be read: {error.strerror}", "mend it and run again"
        ) from error
    if written != entry.size or digest.hexdigest() != entry.digest:
        assert entry.source is not None, entry.path
        raise store.changed(entry.source)
    sink.write(bytes(-written % tarfile.BLOCKSIZE))


def layer_key(entries: Sequence[FileEntry], compression: str, epoch: int) -> str:
    """What a layer's bytes depend on, as one hexadecimal SHA-256."""
    digest = hashlib.sha256(f"{FORMAT} {compression} {epoch}\n".encode())
    for entry in entries:
        digest.update(
            "\0".join(
                (
                    entry.path,
                    entry.type.value,
                    f"{entry.mode:o} {entry.uid} {entry.gid} {entry.size}",
                    entry.digest,
                    entry.linkname,
                    "\n",
                )
            ).encode("utf-8", "surrogateescape")
        )
    return digest.hexdigest()


def write_layer(plan: LayerPlan, store: Store, *, compression: str, epoch: int) -> Layer:
    """The layer of a plan, made or found in the store.

    ``compression`` is ``gzip`` or ``none``; ``epoch`` the time of every entry, in seconds
    since 1970.
    """
    key = layer_key(plan.entries, compression, epoch)
    if found := _found(plan, key, store, compression):
        return found
    with store.writing() as stream:
        sink = _Sink(stream, compression)
        for entry in plan.entries:
            sink.write(_header(entry, epoch))
            if entry.type is FileType.REGULAR:
                _write_content(sink, entry, store)
        sink.write(bytes(2 * tarfile.BLOCKSIZE))
        diff_id, digest = sink.close()
        store.adopt(stream, digest)
    store.remember(
        "layers",
        key,
        {"digest": digest, "stored": sink.stored_size, "diff_id": diff_id, "size": sink.size},
    )
    descriptor = Descriptor(LAYER + _SUFFIX[compression], digest, sink.stored_size)
    return Layer(plan, descriptor, diff_id, sink.size, made=True)


def _found(plan: LayerPlan, key: str, store: Store, compression: str) -> Layer | None:
    """The layer of a plan that the store has already."""
    record = store.recall("layers", key)
    try:
        if record is None or not store.has(record["digest"], record["stored"]):
            return None
        descriptor = Descriptor(
            LAYER + _SUFFIX[compression], record["digest"], record["stored"]
        )
        return Layer(plan, descriptor, record["diff_id"], record["size"], made=False)
    except (KeyError, TypeError, AttributeError):
        return None  # a record of another kind: it will be written anew
