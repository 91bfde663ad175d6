"""Layers: the same entries give the same bytes, everywhere (OCI image-spec, layer.md)."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from eggcrate.errors import PlanError
from eggcrate.image.compression import SUFFIX, Sink, compressor, plain
from eggcrate.image.descriptor import Descriptor
from eggcrate.image.oci import LAYER
from eggcrate.image.plan import FileEntry, FileType, LayerPlan, printable
from eggcrate.image.store import Store

# Raise it whenever the bytes that come of the same entries change.
FORMAT = 3

# 1980-01-01, the earliest time that a zip file can hold, where SOURCE_DATE_EPOCH is not set
DEFAULT_EPOCH = 315_532_800

# What browsers ask for again by its time and size, as nginx's ETag is made of the two: with
# the same time for all of them, a style sheet of the same length would never be seen.
_SERVED = (
    *(".avif", ".css", ".csv", ".eot", ".gif", ".gz", ".br", ".htm", ".html", ".ico", ".jpeg"),
    *(".jpg", ".js", ".json", ".map", ".mjs", ".mp3", ".mp4", ".otf", ".pdf", ".png", ".svg"),
    *(".ttf", ".txt", ".wasm", ".webm", ".webmanifest", ".webp", ".woff", ".woff2", ".xml"),
)

_BLOCK = 1 << 20
# what tar counts in, and what an archive is a multiple of
BLOCKSIZE = 512
RECORDSIZE = 20 * BLOCKSIZE
_TYPES = {
    FileType.REGULAR: b"0",
    FileType.DIRECTORY: b"5",
    FileType.SYMLINK: b"2",
    FileType.HARDLINK: b"1",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Layer:
    """A layer that lies in the store.

    ``diff_id`` is the digest of the uncompressed tar, ``size`` its length in bytes; ``key``
    stands for all that its bytes depend on; ``made`` says whether they were written now or
    found.
    """

    plan: LayerPlan
    descriptor: Descriptor
    diff_id: str
    size: int
    key: str
    made: bool


# name, mode, uid, gid, size, mtime, checksum, type, linkname, magic and version, uname,
# gname, devmajor, devminor, prefix (POSIX.1-1988)
_HEADER = struct.Struct("100s8s8s8s12s12s8sc100s8s32s32s8s8s155s12x")
# the greatest numbers that 7 and 11 octal digits can say
_MOST_ID = (1 << 21) - 1
_MOST_BYTES = (1 << 33) - 1


def tar_header(entry: FileEntry, epoch: int) -> bytes:
    """The tar header of an entry: ustar, with a pax header only where ustar can't say it.

    ``tarfile`` takes ten times as long, and does not write the same in every Python.
    """
    name = entry.path.encode("utf-8", "surrogateescape")
    if entry.type is FileType.DIRECTORY:
        name += b"/"
    linkname = entry.linkname.encode("utf-8", "surrogateescape")
    extended: dict[str, bytes] = {}
    prefix = b""
    if len(name) > 100:
        # the name may go on in another field, cut at a slash
        cut = name.find(b"/", len(name) - 101, -1)
        if 0 < cut <= 155:
            prefix, name = name[:cut], name[cut + 1 :]
        else:
            extended["path"], name = name, name[:100]
    elif not name.isascii():
        extended["path"] = name
    if prefix and not (prefix.isascii() and name.isascii()):
        extended["path"] = prefix + b"/" + name
    if len(linkname) > 100 or not linkname.isascii():
        extended["linkpath"], linkname = linkname, linkname[:100]
    numbers = {
        "uid": entry.uid,
        "gid": entry.gid,
        "size": entry.size,
        "mtime": _time(entry, epoch),
    }
    for field, most in (
        ("uid", _MOST_ID),
        ("gid", _MOST_ID),
        ("size", _MOST_BYTES),
        ("mtime", _MOST_BYTES),
    ):
        if numbers[field] > most:
            extended[field], numbers[field] = b"%d" % numbers[field], 0
    header = _ustar(name, prefix, entry.mode, numbers, _TYPES[entry.type], linkname)
    if not extended:
        return header
    try:
        b"".join(extended.values()).decode()
    except UnicodeDecodeError:
        # as pax(1) says it: the values are bytes in no particular encoding
        extended["hdrcharset"] = b"BINARY"
    records = b"".join(_record(key.encode(), extended[key]) for key in sorted(extended))
    described = {"uid": 0, "gid": 0, "size": len(records), "mtime": 0}
    first = _ustar(b"././@PaxHeader", b"", 0o644, described, b"x", b"")
    return first + records + bytes(-len(records) % BLOCKSIZE) + header


def _time(entry: FileEntry, epoch: int) -> int:
    """The time of an entry: ``epoch``, or one of the half year from 1980-01-01 on.

    Where nobody has chosen a time, a file that browsers keep has one that its content says.
    """
    if epoch != DEFAULT_EPOCH or not entry.digest or not entry.path.endswith(_SERVED):
        return epoch
    return epoch + int(entry.digest[:6], 16)


def _ustar(
    name: bytes,
    prefix: bytes,
    mode: int,
    numbers: Mapping[str, int],
    type_: bytes,
    linkname: bytes,
) -> bytes:
    fields = [
        name,
        b"%07o" % mode,
        b"%07o" % numbers["uid"],
        b"%07o" % numbers["gid"],
        b"%011o" % numbers["size"],
        b"%011o" % numbers["mtime"],
        b"        ",
        type_,
        linkname,
        b"ustar\x0000",
        b"",
        b"",
        b"",
        b"",
        prefix,
    ]
    # the checksum is the sum of all bytes, with blanks for itself
    fields[6] = b"%06o\0 " % sum(_HEADER.pack(*fields))
    return _HEADER.pack(*fields)


def _record(key: bytes, value: bytes) -> bytes:
    """A record of a pax header: its length in decimal, which counts itself, and the rest."""
    rest = b" %b=%b\n" % (key, value)
    length = len(rest) + 1
    while length != len(rest) + len(b"%d" % length):
        length = len(rest) + len(b"%d" % length)
    return b"%d%b" % (length, rest)


def _write_content(sink: Sink, entry: FileEntry, store: Store) -> None:
    written, digest = 0, hashlib.sha256()
    for data in _blocks(entry, store):
        written += len(data)
        if written > entry.size:
            break
        digest.update(data)
        sink.write(data)
    if written != entry.size or digest.hexdigest() != entry.digest:
        assert entry.source is not None, entry.path
        changed = store.changed(pathlib.Path(entry.source))
        raise PlanError(printable(changed.what), changed.hint)
    sink.write(bytes(-written % BLOCKSIZE))


def _blocks(entry: FileEntry, store: Store) -> Iterator[bytes]:
    """The bytes of a file, piece by piece."""
    try:
        with entry.open() as stream:
            while data := stream.read(_BLOCK):
                yield data
    except OSError as error:
        path = pathlib.Path(entry.source or entry.path)
        if path.is_relative_to(store.root):
            raise store.changed(path) from error
        raise PlanError(
            f"{printable(os.fspath(path))} can't be read: {error.strerror}",
            "mend it and run again",
        ) from error


def layer_key(entries: Sequence[FileEntry], compression: str, epoch: int) -> str:
    """What a layer's bytes depend on, as one hexadecimal SHA-256."""
    digest = hashlib.sha256(f"{FORMAT} {compressor(compression)} {epoch}".encode())
    for entry in entries:
        line = (
            f"\n{entry.path}\0{entry.type.value}\0{entry.mode:o} {entry.uid} {entry.gid} "
            f"{entry.size}\0{entry.digest}\0{entry.linkname}\0"
        )
        digest.update(line.encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def write_layer(
    plan: LayerPlan,
    store: Store,
    *,
    compression: str,
    epoch: int,
    pool: ThreadPoolExecutor,
    written: Callable[[int], None] = lambda size: None,
) -> Layer:
    """The layer of a plan, made or found in the store.

    ``compression`` is one of ``KINDS``; ``epoch`` the time of every entry, in seconds
    since 1970; ``pool`` has the threads that compress; ``written`` is told of the bytes of
    each file.
    """
    key = layer_key(plan.entries, compression, epoch)
    if found := recalled(plan, key, store, compression):
        return found
    with store.writing() as stream:
        sink = Sink(stream, compression, pool)
        for entry in plan.entries:
            sink.write(tar_header(entry, epoch))
            if entry.type is FileType.REGULAR:
                _write_content(sink, entry, store)
                written(entry.size)
        sink.write(bytes(2 * BLOCKSIZE))
        done = sink.close()
        store.adopt(stream, done.digest)
    record = {
        "digest": done.digest,
        "stored": done.stored,
        "diff_id": done.diff_id,
        "size": done.size,
    }
    store.remember("layers", key, record)
    descriptor = Descriptor(LAYER + SUFFIX[compression], done.digest, done.stored)
    return Layer(plan, descriptor, done.diff_id, done.size, key, made=True)


def content(entry: FileEntry, layer: Layer, store: Store) -> bytes:
    """The bytes of a regular file of a layer: those of its source, unless it has changed."""
    import tarfile

    try:
        with entry.open() as stream:
            data = stream.read()
        if hashlib.sha256(data).hexdigest() == entry.digest:
            return data
    except OSError:
        pass
    with (
        store.open(layer.descriptor.digest) as blob,
        plain(blob, layer.descriptor.media_type) as stream,
        tarfile.open(fileobj=stream, mode="r|", errors="surrogateescape") as archive,
    ):
        for member in archive:
            if member.name == entry.path and (found := archive.extractfile(member)):
                return found.read()
    raise PlanError(
        f"/{printable(entry.path)} is not in the layer {layer.descriptor.digest}",
        "build the image again",
    )


def recalled(plan: LayerPlan, key: str, store: Store, compression: str) -> Layer | None:
    """The layer of a plan that the store has already; ``key`` is its :func:`layer_key`."""
    record = store.recall("layers", key)
    try:
        if record is None or not store.has(record["digest"], record["stored"]):
            return None
        descriptor = Descriptor(LAYER + SUFFIX[compression], record["digest"], record["stored"])
        return Layer(plan, descriptor, record["diff_id"], record["size"], key, made=False)
    except (KeyError, TypeError, AttributeError):
        return None  # a record of another kind: it will be written anew
