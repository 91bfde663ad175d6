"""Blobs by digest, on disk: complete under their name, or not there."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import marshal
import os
import pathlib
import secrets
import shutil
from collections.abc import Iterator
from typing import Any, BinaryIO

from eggcrate.errors import PlanError


@contextlib.contextmanager
def replacing(
    path: pathlib.Path, mode: int = 0o644, *, sync: bool = True
) -> Iterator[BinaryIO]:
    """A stream whose bytes take the place of ``path`` at once, when the block ends well.

    The bytes go to a temporary file in the same directory, which is synced and renamed;
    after an error it is gone and ``path`` is as it was.  Without ``sync`` a crash of the
    machine may leave a damaged file: for what is checked when it is read.
    """
    temporary = path.with_name(f".eggcrate-tmp-{os.getpid()}-{secrets.token_hex(6)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fchmod(stream.fileno(), mode)
            if sync:
                os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise PlanError(
            f"{path} can't be written: {error.strerror or error}",
            "make room for it, or let this user write there",
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def sha256(stream: BinaryIO) -> str:
    """The hexadecimal SHA-256 of what is left in the stream."""
    digest = hashlib.sha256()
    while block := stream.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def write_if_changed(path: pathlib.Path, data: bytes, mode: int = 0o644) -> bool:
    """Whether ``path`` had to be written to hold ``data``; untouched when it did already."""
    try:
        if path.read_bytes() == data:
            return False
    except OSError:
        pass
    with replacing(path, mode) as stream:
        stream.write(data)
    return True


# what copy_file_range(2) says where it can't serve; None where there is no such call
_NO_COPY_HERE = (None, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


# tables of one version of marshal's format are not read as another's
_TABLES = f"marshal{marshal.version}"


class Store:
    """What was made once and need not be made again, by what it was made from.

    Blobs lie below ``blobs/sha256`` under the digest of their bytes, as in an image
    layout (OCI image-spec, image-layout.md).  Records, small JSON documents, lie below
    ``records/KIND`` under the key of what they were made from.  Several processes may
    use one store at a time: whatever has a name is complete.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root

    def blob(self, digest: str) -> pathlib.Path:
        """Where the blob with this digest (``sha256:...``) lies, if it is there."""
        return self.root / "blobs" / digest.replace(":", "/", 1)

    def has(self, digest: str, size: int) -> bool:
        """Whether a blob of this digest and size (bytes) is there."""
        try:
            return self.blob(digest).stat().st_size == size
        except OSError:
            return False

    def open(self, digest: str) -> BinaryIO:
        """The bytes of the blob, as a stream."""
        try:
            return self.blob(digest).open("rb")
        except OSError as error:
            raise PlanError(
                f"the blob {digest} can't be read from the cache {self.root}: {error.strerror}",
                "let nothing remove it while an image is built, and run again",
            ) from error

    def verify(self, digest: str) -> None:
        """Nothing, when the blob is what its digest says; a damaged one is removed.

        One that has not changed since it was written or verified is not read again.
        """
        kept = self.recall("verified", digest.partition(":")[2])
        with self.open(digest) as stream:
            stamp = _stamp(os.fstat(stream.fileno()))
            if kept is not None and kept.get("stamp") == stamp:
                return
            found = sha256(stream)
        if digest != f"sha256:{found}":
            self.blob(digest).unlink()
            raise PlanError(
                f"the blob {digest} in the cache {self.root} is damaged",
                "run again: it has been removed, and will be made anew",
            )
        self.remember("verified", digest.partition(":")[2], {"stamp": stamp})

    def write_to(self, digest: str, size: int, stream: BinaryIO) -> None:
        """Write the blob of ``size`` bytes, once it has been verified, to ``stream``."""
        self.verify(digest)
        with self.open(digest) as source:
            copied = 0
            try:
                stream.flush()
                while copied < size:
                    # within the kernel, which on some file systems shares the blocks
                    done = os.copy_file_range(source.fileno(), stream.fileno(), size - copied)
                    if not done:
                        break
                    copied += done
            except (OSError, AttributeError) as error:
                if getattr(error, "errno", None) not in _NO_COPY_HERE:
                    raise
                source.seek(copied)
                while copied < size and (block := source.read(min(1 << 20, size - copied))):
                    stream.write(block)
                    copied += len(block)
        if copied != size:
            raise PlanError(
                f"the blob {digest} in the cache {self.root} is cut off",
                "let nothing change it while an image is built, and run again",
            )

    def changed(self, path: pathlib.Path) -> PlanError:
        """What to say of a file whose bytes are not what they were when it was planned.

        One of the store's own is damaged: it is removed, an unpacked package as a whole, so
        that it is made anew.
        """
        if not path.is_relative_to(self.root):
            return PlanError(
                f"{path} changed while it was read", "run again when nothing writes to it"
            )
        parts = path.relative_to(self.root).parts
        if "unpacked" in parts[:-1]:
            package = self.root.joinpath(*parts[: parts.index("unpacked") + 2])
            shutil.rmtree(package, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        return PlanError(
            f"{path} in the cache is damaged",
            "run again: it has been removed, and will be made anew",
        )

    def put(self, data: bytes) -> str:
        """The digest of ``data``, which is now a blob."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self.has(digest, len(data)):
            # thousands of small ones, and each is digested again when it goes into a layer
            with replacing(self.blob(digest), sync=False) as stream:
                stream.write(data)
        return digest

    @contextlib.contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """A stream into a temporary file; name it with :meth:`adopt` inside the block."""
        path = self.root / "blobs" / f".eggcrate-tmp-{os.getpid()}-{secrets.token_hex(6)}"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                yield stream
        except OSError as error:
            raise PlanError(
                f"the cache {self.root} can't be written: {error.strerror or error}",
                "make room, or name another directory in EGGCRATE_CACHE",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    def adopt(self, stream: BinaryIO, digest: str, *, sync: bool = True) -> None:
        """Let what was written to ``stream`` be the blob with ``digest``.

        Without ``sync``, see :func:`replacing`.
        """
        stream.flush()
        if sync:
            os.fsync(stream.fileno())
        target = self.blob(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(stream.name).replace(target)
        stamp = _stamp(os.fstat(stream.fileno()))
        self.remember("verified", digest.partition(":")[2], {"stamp": stamp})

    def _record(self, kind: str, key: str) -> pathlib.Path:
        return self.root / "records" / kind / key[:2] / key

    def recall(self, kind: str, key: str) -> dict[str, Any] | None:
        """The record under ``key``, or None when it is not there or not whole."""
        try:
            record = json.loads(self._record(kind, key).read_bytes())
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) else None

    def remember(self, kind: str, key: str, record: dict[str, Any]) -> None:
        """Keep ``record`` under ``key``."""
        with replacing(self._record(kind, key), sync=False) as stream:
            stream.write(json.dumps(record, sort_keys=True).encode())

    def table(self, kind: str, key: str) -> Any:
        """The table under ``key``, or None when it is not there or not whole."""
        try:
            data = self._record(f"{kind}-{_TABLES}", key).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(data[32:]).digest() != data[:32]:
            return None
        return marshal.loads(data[32:])  # noqa: S302  (as this user has written it)

    def has_table(self, kind: str, key: str) -> bool:
        """Whether there is a table under ``key``; it may be damaged."""
        return self._record(f"{kind}-{_TABLES}", key).exists()

    def keep_table(self, kind: str, key: str, table: Any) -> None:
        """Keep a large ``table`` of lists, tuples, dicts, strings and numbers under ``key``.

        Marshalled, it is read five times as fast as JSON; its digest comes first, as
        ``marshal`` must not read what is damaged.
        """
        data = marshal.dumps(table)
        with replacing(self._record(f"{kind}-{_TABLES}", key), sync=False) as stream:
            stream.write(hashlib.sha256(data).digest() + data)


def default_root() -> pathlib.Path:
    """The cache directory of this user: ``EGGCRATE_CACHE``, else below ``XDG_CACHE_HOME``."""
    if chosen := os.environ.get("EGGCRATE_CACHE"):
        return pathlib.Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "eggcrate"
