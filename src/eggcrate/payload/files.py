"""What the files of this machine are: each is read once, until it changes."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from eggcrate.errors import PlanError
from eggcrate.image.store import Store
from eggcrate.payload import libraries
from eggcrate.payload.libraries import Binary
from eggcrate.payload.relocation import Relocation
from eggcrate.payload.secrets import secret_in

# Raise it whenever what is kept of a file, or the way it is found, changes.
FORMAT = 1

_BLOCK = 1 << 20
# Files that are larger are read a block at a time.
_WHOLE = 8 << 20
_ELF = b"\x7fELF"
_LONGEST_LINE = 4096

# A file that was changed shortly before it was read may change again within one tick of the
# file system's clock, with nothing to see afterwards; FAT's tick is the longest, 2 s.
TICK = 2_000_000_000


class Facts(NamedTuple):
    """What one file is: ``size`` in bytes, ``digest`` (hexadecimal SHA-256) of its bytes.

    ``text`` says that a path in it may be replaced by one of another length, ``touched``
    that it may hold a path of the build.  ``first_line`` is that of a script, ``secret``
    what of a text nobody should publish, None where nobody looked; ``binary`` is what an ELF
    file says of itself, ``complaint`` why it can't be read.
    """

    size: int
    digest: str
    text: bool
    touched: bool
    first_line: bytes
    secret: str | None
    binary: Binary | None
    complaint: str


class Stamp(NamedTuple):
    """What changes when a file does (stat(2)); times in nanoseconds."""

    device: int
    inode: int
    mode: int
    size: int
    modified: int
    changed: int


def stamp(status: os.stat_result) -> Stamp:
    """The stamp of a file, a directory or a link."""
    return Stamp(
        status.st_dev,
        status.st_ino,
        status.st_mode,
        # a directory's size says nothing of its own
        0 if stat.S_ISDIR(status.st_mode) else status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def settled(status: os.stat_result, now: int) -> bool:
    """Whether a stamp taken at ``now`` (nanoseconds since 1970) will show the next change."""
    return max(status.st_mtime_ns, status.st_ctime_ns) + TICK < now


class Files:
    """The facts of files, kept in a store from one build of a site to the next.

    What is kept is trusted as long as the file's stamp is the same.
    """

    def __init__(self, relocation: Relocation, store: Store | None = None) -> None:
        self._relocation = relocation
        self._store = store
        rules = f"{FORMAT} {relocation.rules}"
        self._key = hashlib.sha256(rules.encode("utf-8", "surrogateescape")).hexdigest()
        table = store.table("files", self._key) if store else None
        self._known: dict[str, list[Any]] = table if isinstance(table, dict) else {}
        self._used: dict[str, list[Any]] = {}
        self._unsettled: set[str] = set()
        self._read_any = False
        self.binaries: dict[str, Binary | None] = {}
        # what else was looked at: directories with their stamp and listing, links with their
        # text, and what was not there
        self.directories: dict[str, tuple[Stamp, str]] = {}
        self.links: dict[str, str] = {}
        self.absent: set[str] = set()

    def facts(self, path: str, status: os.stat_result, *, secrets: bool) -> Facts:
        """The facts of the regular file at ``path``; OSError when it can't be read.

        ``secrets`` says whether to look for them.
        """
        sign = list(stamp(status))
        row = self._used.get(path) or self._known.get(path)
        if row is not None and row[0] == sign and not (secrets and row[1][5] is None):
            facts = _from_row(row[1])
        else:
            self._read_any = True
            now = time.time_ns()
            facts = self._read(path, secrets)
            row = [sign, _as_row(facts)]
            if not settled(status, now):
                self._unsettled.add(path)
        self._used[path] = row
        if not facts.complaint:
            self.binaries[facts.digest] = facts.binary
        return facts

    def _read(self, path: str, secrets: bool) -> Facts:
        digest = hashlib.sha256()
        size, text, touched, first = 0, True, False, b""
        tail, secret = b"", ""
        overlap = self._relocation.longest
        with open(path, "rb") as stream:
            while block := stream.read(_WHOLE if not size else _BLOCK):
                digest.update(block)
                first = first or block[:_LONGEST_LINE]
                size += len(block)
                text = text and b"\x00" not in block
                touched = touched or self._relocation.touches(tail + block)
                if secrets and text and not secret:
                    secret = secret_in(tail + block) or ""
                tail = block[-overlap:]
            binary, complaint = None, ""
            if first.startswith(_ELF):
                stream.seek(0)
                try:
                    binary = libraries.read_binary(stream)
                except PlanError as error:
                    complaint = error.what
        line = first.partition(b"\n")[0] if first.startswith(b"#!") else b""
        return Facts(
            size,
            digest.hexdigest(),
            text,
            touched,
            line,
            (secret if text else "") if secrets else None,
            binary,
            complaint,
        )

    def look(self, path: str) -> None:
        """Note a path of any kind, so that a change of it is seen."""
        if not self.exists(path):
            return
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            self.children(path, status)
        else:
            self.facts(path, status, secrets=False)

    def children(self, directory: str, status: os.stat_result) -> list[os.DirEntry[str]]:
        """What a directory has, by name; ``status`` was taken before."""
        with os.scandir(directory) as found:
            children = sorted(found, key=_name)
        self.directories[directory] = (stamp(status), listing(children))
        return children

    def exists(self, path: str) -> bool:
        """Whether there is something at the path; it is remembered when there is not."""
        if os.path.lexists(path):
            return True
        self.absent.add(path)
        return False

    def link(self, path: str) -> str:
        """The text of a symbolic link."""
        text = self.links[path] = os.readlink(path)
        return text

    def keep(self) -> None:
        """Let the next build know what was read for this one."""
        if self._store is None or not (self._read_any or len(self._used) != len(self._known)):
            return
        settled_rows = {
            path: row for path, row in self._used.items() if path not in self._unsettled
        }
        self._store.keep_table("files", self._key, settled_rows)

    def seen(self) -> Iterator[tuple[str, tuple[tuple[int, ...] | None, int, Facts]]]:
        """Each file that was read: its stamp, None when that may not show the next change,
        its mode, and its facts."""
        for path, (sign, row) in self._used.items():
            known = None if path in self._unsettled else tuple(sign)
            yield path, (known, sign[2], _from_row(row))


def _name(child: os.DirEntry[str]) -> str:
    return child.name


def listing(children: Iterable[os.DirEntry[str]]) -> str:
    """What a directory has, as one digest; byte-code comes and goes unnoticed."""
    names = [
        f"{child.name}/{child.is_dir(follow_symlinks=False):d}{child.is_symlink():d}"
        for child in children
        if child.name != "__pycache__"
    ]
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def _as_row(facts: Facts) -> list[Any]:
    binary = libraries.as_record(facts.binary) if facts.binary else None
    return [*facts[:-2], binary, facts.complaint]


def _from_row(row: list[Any]) -> Facts:
    size, digest, text, touched, first_line, secret, binary, complaint = row
    found = libraries.from_record(binary) if binary else None
    return Facts(size, digest, text, touched, first_line, secret, found, complaint)
