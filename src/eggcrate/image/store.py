"""Blobs by digest, on disk: complete under their name, or not there."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import itertools
import json
import marshal
import os
import pathlib
import time
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from eggcrate.errors import PlanError

# The names of temporary files and directories begin so, and go on with the process's id.
LEFTOVER = ".eggcrate-tmp-"


def _temporary(directory: pathlib.Path) -> pathlib.Path:
    return directory / f"{LEFTOVER}{os.getpid()}-{os.urandom(6).hex()}"


@contextlib.contextmanager
def replacing(
    path: pathlib.Path, mode: int = 0o644, *, sync: bool = True
) -> Iterator[BinaryIO]:
    """A stream whose bytes take the place of ``path`` at once, when the block ends well.

    The bytes go to a temporary file in the same directory, which is synced and renamed;
    after an error it is gone and ``path`` is as it was.  Without ``sync`` a crash of the
    machine may leave a damaged file: for what is checked when it is read.
    """
    temporary = _temporary(path.parent)
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


def write_if_changed(
    path: pathlib.Path, data: bytes, mode: int = 0o644, *, sync: bool = True
) -> bool:
    """Whether ``path`` had to be written to hold ``data``; untouched when it did already."""
    try:
        if path.read_bytes() == data:
            return False
    except OSError:
        pass
    with replacing(path, mode, sync=sync) as stream:
        stream.write(data)
    return True


def remove(path: pathlib.Path) -> bool:
    """Whether the file or directory is gone now, with nothing left under its name."""
    try:
        if path.is_dir() and not path.is_symlink():
            import shutil  # which nothing but this needs

            # what is half removed must not look like a whole one, whenever this is killed
            path = path.rename(_temporary(path.parent))
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


# what copy_file_range(2) says where it can't serve; None where there is no such call
_NO_COPY_HERE = (None, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF)


def _stamp(status: os.stat_result) -> list[int]:
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


# tables of one version of marshal's format are not read as another's
_TABLES = f"marshal{marshal.version}"
# a digest comes first in each record, as neither JSON nor marshal shows every damage
_DIGEST = hashlib.sha256().digest_size
# so many rows of a long table are in memory at a time
_ROWS = 1000

# A record says when it was last used by its time, which is set anew after so many seconds.
_MARKED = 3600.0

_FULL = (errno.ENOSPC, errno.EDQUOT)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


class Store:
    """What was made once and need not be made again, by what it was made from.

    Blobs lie below ``blobs/sha256`` under the digest of their bytes, as in an image
    layout (OCI image-spec, image-layout.md).  Records, small JSON documents, lie below
    ``records/KIND`` under the key of what they were made from.  Several processes may
    use one store at a time: whatever has a name is complete.  What a record mentions, a
    blob or an unpacked package, is there: when it goes, the record does.

    One that this user can't write serves as long as all that is needed is in it.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        # how many bytes more than before the store has, as far as this object knows
        self.written = 0
        self._used: set[str] = set()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Nothing is pruned from the store while the block, such as a build, runs."""
        lock = None
        with contextlib.suppress(OSError):
            lock = self._lock()
            fcntl.flock(lock, fcntl.LOCK_SH)
        # where there can't be a lock, nobody can prune either
        try:
            yield
        finally:
            if lock is not None:
                os.close(lock)

    @contextlib.contextmanager
    def alone(self, wait: float) -> Iterator[bool]:
        """Whether nobody else uses the store while the block runs, see :meth:`in_use`.

        It waits at most so many seconds for the others.
        """
        try:
            lock = self._lock()
        except OSError as error:
            raise self._unwritable(error) from error
        deadline = time.monotonic() + wait
        try:
            while not (alone := _exclusive(lock)) and time.monotonic() < deadline:
                time.sleep(0.05)
            yield alone
        finally:
            os.close(lock)

    def _lock(self) -> int:
        with contextlib.suppress(OSError):
            self.root.mkdir(parents=True, exist_ok=True)
        try:
            return os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            return os.open(self.root / "lock", os.O_RDONLY | os.O_CLOEXEC)

    def used(self) -> list[str]:
        """The records that were found or kept through this object.

        Another record that has this list mentions them: they are then as recently used as
        it is, and not pruned before it.
        """
        return sorted(self._used)

    def _unwritable(self, error: OSError, written: int = 0) -> PlanError:
        full = f" after {written / 1e6:.1f} MB" if error.errno in _FULL and written else ""
        return PlanError(
            f"the cache {self.root} can't be written: {error.strerror or error}{full}",
            "make room, or name another directory in EGGCRATE_CACHE",
        )

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
        """The bytes of the blob, once it has been verified, as a stream."""
        self.verify(digest)
        return self._open(digest)

    def _open(self, digest: str) -> BinaryIO:
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
        with self._open(digest) as stream:
            stamp = _stamp(os.fstat(stream.fileno()))
            if kept is not None and kept.get("stamp") == stamp:
                return
            found = sha256(stream)
        if digest != f"sha256:{found}":
            raise self._damaged(
                self.blob(digest), f"the blob {digest} in the cache {self.root} is damaged"
            )
        self.remember("verified", digest.partition(":")[2], {"stamp": stamp})

    def write_to(self, digest: str, size: int, stream: BinaryIO) -> None:
        """Write the blob of ``size`` bytes, once it has been verified, to ``stream``."""
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
        place = path
        if "unpacked" in parts[:-1]:
            place = self.root.joinpath(*parts[: parts.index("unpacked") + 2])
        return self._damaged(place, f"{path} in the cache is damaged")

    def _damaged(self, path: pathlib.Path, what: str) -> PlanError:
        """What to say of something damaged, which is removed with all that mentions it."""
        if not remove(path):
            return PlanError(what, f"remove {path}, which this user can't, and run again")
        for record in (self.root / "records").glob("*/*/*"):
            with contextlib.suppress(OSError):
                if path.name == record.name or path.name.encode() in record.read_bytes():
                    record.unlink()
        return PlanError(what, "run again: it has been removed, and will be made anew")

    def put(self, data: bytes) -> str:
        """The digest of ``data``, which is now a blob."""
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        if not self.has(digest, len(data)):
            # thousands of small ones, and each is digested again when it goes into a layer
            with self._replacing(self.blob(digest)) as stream:
                stream.write(data)
            self.written += len(data)
        return digest

    @contextlib.contextmanager
    def _replacing(self, path: pathlib.Path) -> Iterator[BinaryIO]:
        try:
            with replacing(path, sync=False) as stream:
                yield stream
        except PlanError as error:
            if isinstance(error.__cause__, OSError):
                raise self._unwritable(error.__cause__) from error.__cause__
            raise

    @contextlib.contextmanager
    def writing(self) -> Iterator[BinaryIO]:
        """A stream into a temporary file; name it with :meth:`adopt` inside the block."""
        path = _temporary(self.root / "blobs")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                yield stream
        except OSError as error:
            raise self._unwritable(error, _length(path)) from error
        except PlanError as error:
            cause = error.__cause__
            if isinstance(cause, OSError) and cause.errno in _FULL:
                # whoever took it for an error of what is read: only writing finds a disk full
                raise self._unwritable(cause, _length(path)) from cause
            raise
        finally:
            with contextlib.suppress(OSError):
                path.unlink()

    @contextlib.contextmanager
    def scratch(self) -> Iterator[pathlib.Path]:
        """A directory in the store, which is gone after the block."""
        import tempfile  # few need one

        try:
            self.root.mkdir(parents=True, exist_ok=True)
            prefix = f"{LEFTOVER}{os.getpid()}-"
            directory = tempfile.TemporaryDirectory(prefix=prefix, dir=self.root)
        except OSError as error:
            raise self._unwritable(error) from error
        with directory as name:
            yield pathlib.Path(name)

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
        status = os.fstat(stream.fileno())
        self.written += status.st_size
        self.remember("verified", digest.partition(":")[2], {"stamp": _stamp(status)})

    def _record(self, kind: str, key: str) -> pathlib.Path:
        return self.root / "records" / kind / key[:2] / key

    def recall(self, kind: str, key: str) -> dict[str, Any] | None:
        """The record under ``key``, or None when it is not there or not whole."""
        data = self._recall(kind, key)
        try:
            record = None if data is None else json.loads(bytes(data))
        except ValueError:
            return None
        return record if isinstance(record, dict) else None

    def remember(self, kind: str, key: str, record: dict[str, Any]) -> None:
        """Keep ``record`` under ``key``."""
        self._keep(kind, key, (json.dumps(record, sort_keys=True).encode(),))

    def table(self, kind: str, key: str) -> Any:
        """The table under ``key``, or None when it is not there or not whole."""
        data = self._recall(f"{kind}-{_TABLES}", key)
        return None if data is None else marshal.loads(data)  # noqa: S302  (this user's own)

    def peek(self, kind: str, key: str) -> Any:
        """The table under ``key``, as :meth:`table` has it, but without its being used."""
        data = self._read(self._record(f"{kind}-{_TABLES}", key))[0]
        return None if data is None else marshal.loads(data)  # noqa: S302  (this user's own)

    def has_table(self, kind: str, key: str) -> bool:
        """Whether there is a table under ``key``; it may be damaged."""
        try:
            status = self._record(f"{kind}-{_TABLES}", key).stat()
        except OSError:
            return False
        self._use(f"{kind}-{_TABLES}", key, status.st_mtime)
        return True

    def keep_table(self, kind: str, key: str, table: Any) -> None:
        """Keep a large ``table`` of lists, tuples, dicts, strings and numbers under ``key``.

        Marshalled, it is read five times as fast as JSON.
        """
        self._keep(f"{kind}-{_TABLES}", key, (marshal.dumps(table),))

    def rows(self, kind: str, key: str) -> Iterator[Any] | None:
        """The rows under ``key``, or None when they are not there or not whole."""
        data = self._recall(f"{kind}-{_TABLES}", key)
        return None if data is None else _rows(data)

    def keep_rows(self, kind: str, key: str, rows: Iterable[Any]) -> None:
        """Keep the ``rows`` of a table under ``key``, few of them in memory at a time."""
        left = iter(rows)
        chunks = iter(lambda: tuple(itertools.islice(left, _ROWS)), ())
        self._keep(f"{kind}-{_TABLES}", key, map(_chunk, chunks))

    def _recall(self, kind: str, key: str) -> memoryview | None:
        data, modified = self._read(self._record(kind, key))
        if data is not None:
            self._use(kind, key, modified)
        return data

    def _read(self, path: pathlib.Path) -> tuple[memoryview | None, float]:
        """What a record holds, when it is whole, and when it was used."""
        try:
            with path.open("rb") as stream:
                modified = os.fstat(stream.fileno()).st_mtime
                data = memoryview(stream.read())
        except OSError:
            return None, 0.0
        whole = hashlib.sha256(data[_DIGEST:]).digest() == data[:_DIGEST]
        return (data[_DIGEST:] if whole else None), modified

    def _keep(self, kind: str, key: str, parts: Iterable[bytes]) -> None:
        path = self._record(kind, key)
        before = _length(path)
        digest = hashlib.sha256()
        try:
            with self._replacing(path) as stream:
                stream.write(bytes(_DIGEST))
                for part in parts:
                    digest.update(part)
                    stream.write(part)
                stream.seek(0)
                stream.write(digest.digest())
        except PlanError as error:
            # nothing has to be remembered; where blobs can't be written, that is an error
            if getattr(error.__cause__, "errno", None) not in _READ_ONLY:
                raise
        else:
            self.written += _length(path) - before
            self._use(kind, key, time.time())

    def _use(self, kind: str, key: str, modified: float) -> None:
        """Mark a record as used now."""
        if kind != "verified":  # it belongs to its blob
            self._used.add(f"{kind}/{key}")
        if modified + _MARKED < time.time():
            with contextlib.suppress(OSError):
                os.utime(self._record(kind, key))


def _chunk(rows: tuple[Any, ...]) -> bytes:
    data = marshal.dumps(rows)
    return len(data).to_bytes(4, "little") + data


def _rows(data: memoryview) -> Iterator[Any]:
    while data:
        end = 4 + int.from_bytes(data[:4], "little")
        yield from marshal.loads(data[4:end])  # noqa: S302  (this user's own)
        data = data[end:]


def _exclusive(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _length(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def default_root() -> pathlib.Path:
    """The cache directory of this user: ``EGGCRATE_CACHE``, else below ``XDG_CACHE_HOME``."""
    if chosen := os.environ.get("EGGCRATE_CACHE"):
        return pathlib.Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(base).expanduser() / "eggcrate"
