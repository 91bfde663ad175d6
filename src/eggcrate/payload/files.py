"""What the files of this machine are: each is read once, until it changes."""

from __future__ import annotations

import hashlib
import itertools
import marshal
import os
import stat
import time
import zlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from eggcrate.errors import PlanError
from eggcrate.image.plan import open_at_once, printable
from eggcrate.image.store import Store

if TYPE_CHECKING:
    from eggcrate.payload.libraries import Binary
    from eggcrate.payload.relocation import Relocation

# Raise it whenever what is kept of a file, or the way it is found, changes.
FORMAT = 4

_BLOCK = 1 << 20
# Files that are larger are read a block at a time.
_WHOLE = 8 << 20
_ELF = b"\x7fELF"
_LONGEST_LINE = 4096
# what is looked for in a text may lie in two blocks of it; bytes
_LONGEST_SECRET = 4096
# Of so many files the rows are put away: as objects, those of 100,000 would take 60 MB.
_MANY = 10_000

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
    """What changes when a file does (stat(2)); times in nanoseconds, ``links`` its names."""

    device: int
    inode: int
    mode: int
    size: int
    modified: int
    changed: int
    links: int


def stamp(status: os.stat_result) -> Stamp:
    """The stamp of a file, a directory or a link."""
    # a directory's size and links say nothing of its own
    directory = stat.S_ISDIR(status.st_mode)
    return Stamp(
        status.st_dev,
        status.st_ino,
        status.st_mode,
        0 if directory else status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        1 if directory else status.st_nlink,
    )


def settled(status: os.stat_result, now: int) -> bool:
    """Whether a stamp taken at ``now`` (nanoseconds since 1970) will show the next change."""
    return max(status.st_mtime_ns, status.st_ctime_ns) + TICK < now


class Files:
    """The facts of files, kept in a store from one build of a site to the next.

    What is kept is trusted as long as the file's stamp is the same; ``key`` stands for all
    else that facts depend on.
    """

    def __init__(self, relocation: Relocation, store: Store | None = None) -> None:
        self._relocation = relocation
        self._store = store
        # a path has another spelling when its links lead elsewhere
        real = [os.path.realpath(rule.source) for rule in relocation.rules]
        rules = f"{FORMAT} {relocation.rules} {real}"
        self.key = hashlib.sha256(rules.encode("utf-8", "surrogateescape")).hexdigest()
        table = store.table("files", self.key) if store else None
        # rows by path: those of the last build, of this one, and of this one put away
        self._known: dict[str, bytes] = {}
        for rows in table or ():
            self._known.update(_rows(rows))
        self._used: dict[str, bytes] = {}
        self._away: list[bytes] = []
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
        sign = stamp(status)
        facts = self._kept(path, sign, secrets)
        if facts is None:
            self._read_any = True
            now = time.time_ns()
            facts = self._read(path, status, secrets)
            self._use(path, _as_row(sign, settled(status, now), facts))
        if facts.binary or (status.st_mode & 0o111 and not facts.complaint):
            self.binaries[facts.digest] = facts.binary
        return facts

    def _kept(self, path: str, sign: Stamp, secrets: bool) -> Facts | None:
        """What is known of a file, when it is still so, and enough."""
        row, last = self._used.get(path), False
        if row is None:
            row, last = self._known.pop(path, None), True
        if row is None:
            return None
        before, lasting, facts = _from_row(row)
        if before != sign or (last and not lasting) or (secrets and facts.secret is None):
            return None
        if last:
            self._use(path, row)
        # what else was kept must not show in what is made of them
        return facts if secrets else facts._replace(secret=None)

    def _use(self, path: str, row: bytes) -> None:
        self._used[path] = row
        if len(self._used) == _MANY:
            self._put_away()

    def _put_away(self) -> None:
        self._away.append(zlib.compress(marshal.dumps(list(self._used.items())), 1))
        self._used = {}

    def _read(self, path: str, status: os.stat_result, secrets: bool) -> Facts:
        digest = hashlib.sha256()
        size, text, touched, first = 0, True, False, b""
        tail, secret = b"", ""
        overlap = max(self._relocation.longest, _LONGEST_SECRET if secrets else 0)
        if secrets:
            from eggcrate.payload.secrets import secret_in
        with open_at_once(path) as stream:
            opened = os.fstat(stream.fileno())
            # another file may have got the number of the one that it has replaced
            if not (os.path.samestat(opened, status) and stat.S_ISREG(opened.st_mode)):
                raise PlanError(
                    f"{printable(path)} was replaced while it was read",
                    "run again when nothing writes to it",
                )
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
                from eggcrate.payload.libraries import read_binary

                stream.seek(0)
                try:
                    binary = read_binary(stream)
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
        if self._store is None or not (self._read_any or self._known):
            return
        if self._used:
            self._put_away()
        self._store.keep_table("files", self.key, self._away)

    def seen(self) -> Iterator[tuple[str, Stamp, bool, Facts]]:
        """Each file that was read: its stamp, whether that will show the next change, and its
        facts."""
        for path, row in itertools.chain(
            itertools.chain.from_iterable(map(_rows, self._away)), self._used.items()
        ):
            yield path, *_from_row(row)


def _name(child: os.DirEntry[str]) -> str:
    return child.name


def listing(children: Iterable[os.DirEntry[str]]) -> str:
    """What a directory has, as one digest; byte-code comes and goes unnoticed."""
    names = [
        f"{child.name}/{child.is_dir(follow_symlinks=False):d}"
        f"{child.is_file(follow_symlinks=False):d}"
        for child in children
        if child.name != "__pycache__"
    ]
    return hashlib.sha256("\0".join(names).encode("utf-8", "surrogateescape")).hexdigest()


def _as_row(sign: Stamp, lasting: bool, facts: Facts) -> bytes:
    binary = None
    if facts.binary:
        from eggcrate.payload.libraries import as_record

        binary = as_record(facts.binary)
    digest = bytes.fromhex(facts.digest)
    values = (*sign, lasting, facts.size, digest, *facts[2:-2], binary, facts.complaint)
    return marshal.dumps(values)


def _from_row(row: bytes) -> tuple[Stamp, bool, Facts]:
    *sign, lasting, size, digest, text, touched, first_line, secret, binary, complaint = (
        marshal.loads(row)  # noqa: S302  (as this user has written it)
    )
    found = None
    if binary:
        from eggcrate.payload.libraries import from_record

        found = from_record(binary)
    facts = Facts(size, digest.hex(), text, touched, first_line, secret, found, complaint)
    return Stamp(*sign), lasting, facts


def _rows(data: bytes) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = marshal.loads(  # noqa: S302  (as this user has written it)
        zlib.decompress(data)
    )
    return found
