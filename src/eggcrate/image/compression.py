"""Compressed streams whose bytes depend on what is written alone, not on how or where."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import hashlib
import importlib
import os
import pathlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, BinaryIO, cast

from eggcrate.errors import SettingsError

KINDS = ("gzip", "zstd", "none")

# What the media type of a layer ends with (OCI image-spec, layer.md)
SUFFIX = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}

# The bytes that become one gzip member (RFC 1952, 2.2) or one Zstandard frame (RFC 8878,
# 3.1).  Fixed, so that the result does not depend on how the input arrives; small, so that
# several are compressed at a time; large, so that each costs next to nothing.
MEMBER = 1 << 20

_GZIP_LEVEL = 6
_ZSTD_LEVEL = 9
# members that wait for their turn, for each core
_AHEAD = 2


@functools.cache
def _zstd() -> Any:
    """The module that has Zstandard: Python 3.14's own, or the same for older ones."""
    for module in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(module)
        except ImportError:
            continue
    raise SettingsError(
        "compression = zstd: this Python has no Zstandard",
        "add the extra to the eggs of buildout's environment, eggcrate[zstd], or use gzip",
    )


@functools.cache
def compressor(kind: str) -> str:
    """What compresses, with its version and level: other bytes may come of another one.

    libdeflate's bytes are the same on every processor, but only for one version of it
    (ebiggers/libdeflate#400).  The digest of the plain tar, the diff id, depends on none.
    """
    if kind == "gzip":
        return f"deflate {_deflate_version()}, level {_GZIP_LEVEL}, members of {MEMBER} bytes"
    if kind == "zstd":
        version = _zstd().zstd_version
        return f"zstd {version}, level {_ZSTD_LEVEL}, frames of {MEMBER} bytes"
    return "none"


def _deflate_version() -> str:
    """The version of the package that has libdeflate, which its module does not tell.

    importlib.metadata takes 15 ms to load, more than all else that a quick build does.
    """
    import deflate

    place = pathlib.Path(deflate.__file__).parents[1]
    for metadata in place.glob("deflate-*.dist-info"):
        return metadata.name.removesuffix(".dist-info").partition("-")[2]
    import importlib.metadata

    return importlib.metadata.version("deflate")


def _compress(kind: str) -> Callable[[bytes], bytes] | None:
    if kind == "gzip":
        import deflate

        # its header has neither time nor name
        return lambda data: bytes(deflate.gzip_compress(data, _GZIP_LEVEL))
    if kind == "zstd":
        zstd = _zstd()
        options = {
            zstd.CompressionParameter.compression_level: _ZSTD_LEVEL,
            zstd.CompressionParameter.checksum_flag: 1,
        }
        return lambda data: bytes(zstd.compress(data, options=options))
    return None


@contextlib.contextmanager
def plain(stream: BinaryIO, media_type: str) -> Iterator[BinaryIO]:
    """The uncompressed bytes of a layer's blob, by its media type."""
    if media_type.endswith("+gzip"):
        import gzip

        with gzip.open(stream) as opened:
            yield cast("BinaryIO", opened)
    elif media_type.endswith("+zstd"):
        with _zstd().ZstdFile(stream) as opened:
            yield opened
    else:
        yield stream


def faults(media_type: str) -> tuple[type[Exception], ...]:
    """What reading a stream of :func:`plain` raises when its bytes are not of that type."""
    import gzip
    import zlib

    common = (EOFError, zlib.error, gzip.BadGzipFile)
    return (*common, _zstd().ZstdError) if media_type.endswith("+zstd") else common


def cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1


@dataclasses.dataclass(frozen=True, slots=True)
class Written:
    """Both sides of a stream: ``diff_id`` and ``size`` of what was written, ``digest`` and
    ``stored`` of what came of it; sizes in bytes."""

    diff_id: str
    size: int
    digest: str
    stored: int


class Sink:
    """Compresses what is written to it, several members at a time, and digests both sides."""

    def __init__(self, stream: BinaryIO, kind: str, pool: ThreadPoolExecutor) -> None:
        self._stream = stream
        self._compress = _compress(kind)
        self._pool = pool
        self._most = _AHEAD * cores()
        self._waiting: collections.deque[Future[bytes]] = collections.deque()
        self._buffer = bytearray()
        self._plain = hashlib.sha256()
        self._stored = hashlib.sha256()
        self._size = self._stored_size = 0

    def write(self, data: bytes) -> None:
        """Take more bytes."""
        self._buffer += data
        while len(self._buffer) >= MEMBER:
            block = bytes(memoryview(self._buffer)[:MEMBER])
            del self._buffer[:MEMBER]
            self._member(block)

    def _member(self, block: bytes) -> None:
        self._size += len(block)
        if self._compress is None:
            self._plain.update(block)
            self._store(block)
            return
        self._waiting.append(self._pool.submit(self._compress, block))
        self._plain.update(block)
        while len(self._waiting) > self._most or (self._waiting and self._waiting[0].done()):
            self._store(self._waiting.popleft().result())

    def _store(self, data: bytes) -> None:
        self._stored.update(data)
        self._stored_size += len(data)
        self._stream.write(data)

    def close(self) -> Written:
        """What was written, once all of it is in the stream."""
        # a stream of no member at all would be no gzip file
        if self._buffer or not self._size:
            self._member(bytes(self._buffer))
            self._buffer.clear()
        while self._waiting:
            self._store(self._waiting.popleft().result())
        return Written(
            f"sha256:{self._plain.hexdigest()}",
            self._size,
            f"sha256:{self._stored.hexdigest()}",
            self._stored_size,
        )
