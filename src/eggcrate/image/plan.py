"""The plan: every path of an image, before a byte of it is written."""

from __future__ import annotations

import collections
import dataclasses
import enum
import fnmatch
import hashlib
import io
import itertools
import os
import pathlib
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from eggcrate.errors import EggcrateError, PlanError, raise_all
from eggcrate.image.store import sha256


class FileType(enum.Enum):
    """The types of tar entries that a layer of ours can hold (OCI image-spec, layer.md)."""

    REGULAR = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    HARDLINK = "hardlink"


_KINDS = {kind.value: kind for kind in FileType}


@dataclasses.dataclass(frozen=True, slots=True)
class FileEntry:
    """One path of the image, with its bytes or the place where they lie.

    ``path`` is relative to the image's root, without a leading or trailing slash, bytes
    that are no UTF-8 as surrogate escapes.  A regular file has either ``data`` (its
    bytes) or ``source`` (the path of a file on this machine that holds exactly its bytes,
    or has them at ``offset``), and ``size`` and ``digest`` (hexadecimal SHA-256) of them.
    Sources are no ``pathlib.Path``: of 100,000 those take 50 MB.  ``linkname`` is a symbolic
    link's text, or the image path that a hard link shares.  ``group`` names what the
    entry belongs to, for layers ("python", "egg Django-5.2.19"); ``reason`` says why it
    is in the image, for people.
    """

    path: str
    type: FileType
    mode: int
    group: str
    reason: str
    data: bytes | None = None
    source: str | None = None
    offset: int | None = None
    size: int = 0
    digest: str = ""
    linkname: str = ""
    uid: int = 0
    gid: int = 0

    def open(self) -> BinaryIO:
        """The file's bytes, as a stream."""
        if self.data is not None:
            return io.BytesIO(self.data)
        assert self.source is not None, self.path
        stream = open_at_once(self.source)
        if self.offset is None:
            return stream
        if self.size > _SMALL:
            return io.BufferedReader(_Part(stream, self.offset, self.size), _SMALL)
        with stream:
            stream.seek(self.offset)
            return io.BytesIO(stream.read(self.size))


# what is rather read at once than piece by piece
_SMALL = 1 << 20


class _Part(io.RawIOBase):
    """A file within a file, which it closes with itself."""

    def __init__(self, stream: BinaryIO, offset: int, size: int) -> None:
        self._stream, self._offset, self._size, self._position = stream, offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, position: int, whence: int = 0) -> int:
        self._position = position + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        self._stream.seek(self._offset + self._position)
        data = self._stream.read(max(0, min(len(buffer), self._size - self._position)))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._stream.close()
        super().close()


def open_at_once(path: str) -> BinaryIO:
    """The bytes of a file, as a stream: none where a fifo has taken its place meanwhile."""
    return open(path, "rb", opener=_without_waiting)


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def as_row(entry: FileEntry) -> tuple[Any, ...]:
    """The entry as a tuple of plain values, for a table of the store."""
    return (
        entry.path,
        entry.type.value,
        entry.mode,
        entry.group,
        entry.reason,
        entry.data,
        entry.source,
        entry.offset,
        entry.size,
        entry.digest,
        entry.linkname,
        entry.uid,
        entry.gid,
    )


def from_row(row: Sequence[Any]) -> FileEntry:
    """The entry that :func:`as_row` made a tuple of."""
    path, kind, *rest = row
    return FileEntry(path, _KINDS[kind], *rest)


def directory(path: str, *, group: str, reason: str, mode: int = 0o755) -> FileEntry:
    """A directory's entry."""
    return FileEntry(path, FileType.DIRECTORY, mode, group, reason)


def symlink(path: str, linkname: str, *, group: str, reason: str) -> FileEntry:
    """A symbolic link's entry; ``linkname`` is its text."""
    return FileEntry(path, FileType.SYMLINK, 0o777, group, reason, linkname=linkname)


def bytes_file(
    path: str, data: bytes, *, group: str, reason: str, mode: int = 0o644
) -> FileEntry:
    """The entry of a file that was made here."""
    digest = hashlib.sha256(data).hexdigest()
    return FileEntry(
        path, FileType.REGULAR, mode, group, reason, data=data, size=len(data), digest=digest
    )


def disk_file(
    path: str,
    source: pathlib.Path,
    *,
    group: str,
    reason: str,
    mode: int | None = None,
    data: bytes | None = None,
) -> FileEntry:
    """The entry of a file that is taken as it lies on this machine.

    Without ``mode`` it is 0755 for a file that its owner may execute, else 0644.  ``data``
    are its bytes, where they have been read already.
    """
    if mode is None:
        mode = 0o755 if source.stat().st_mode & 0o100 else 0o644
    if data is None:
        with source.open("rb") as stream:
            size, digest = os.fstat(stream.fileno()).st_size, sha256(stream)
    else:
        size, digest = len(data), hashlib.sha256(data).hexdigest()
    return FileEntry(
        path,
        FileType.REGULAR,
        mode,
        group,
        reason,
        source=os.fspath(source),
        size=size,
        digest=digest,
    )


# Groups whose entries change together, from what changes least to what changes most;
# an entry's group is one of these words, or begins with one: "egg Django-5.2.19".
GROUPS = ("packages", "python", "egg", "environment", "data", "develop", "configuration")

# The group of what a base image has already: it is in the tree, and in no layer of ours.
BASE = "base"
# what a base image's layers are called, from the lowest: "base 1", "base 2"
BASE_LAYER = f"{BASE} "

# An egg of this many bytes is worth a layer of its own.
_BIG = 4 << 20

# Linux follows as many symbolic links in one path (path_resolution(7))
_MOST_LINKS = 40

# Docker's limit of layers in an image
MOST_LAYERS = 127


# what the text of a plan begins with, and each of its layers
PLAN_HEADER = "# layer  mode   bytes      path  (why)\n"
PLAN_LAYER = "\n## layer "


@dataclasses.dataclass(frozen=True, slots=True)
class LayerPlan:
    """What will be in one layer: entries in the order of their paths' bytes.

    A base image's layer has none; ``unpacked`` is how many bytes its tar has.
    """

    name: str
    entries: tuple[FileEntry, ...]
    unpacked: int = 0

    @property
    def size(self) -> int:
        """The files' bytes, without the tar's own."""
        return self.unpacked or sum(entry.size for entry in self.entries)

    def text(self, number: int) -> str:
        """The layer for people, the ``number``-th of its image."""
        return _joined(self.lines(number))

    def lines(self, number: int) -> Iterator[str]:
        """The lines of :meth:`text`."""
        yield f"{PLAN_LAYER}{number}: {self.name}, {self.size} bytes\n"
        for entry in self.entries:
            path = printable(entry.path)
            if entry.linkname:
                path += f" -> {printable(entry.linkname)}"
            elif entry.type is FileType.DIRECTORY:
                path += "/"
            yield f"{number:>3}  {entry.mode:04o} {entry.size:>11}  /{path}  ({entry.reason})\n"


@dataclasses.dataclass(frozen=True, slots=True)
class BuildPlan:
    """The whole tree of an image, layer by layer from the bottom."""

    layers: tuple[LayerPlan, ...]

    def entries(self) -> Iterator[FileEntry]:
        """Every entry, from the lowest layer to the highest."""
        for layer in self.layers:
            yield from layer.entries

    def tree(self) -> dict[str, FileEntry]:
        """The entries by path, as a container sees them."""
        return {entry.path: entry for entry in self.entries()}

    def text(self) -> str:
        """The plan for people: each file with its layer, and why it is there."""
        layers = (layer.lines(number) for number, layer in enumerate(self.layers, 1))
        return _joined(itertools.chain((PLAN_HEADER,), *layers))


def _joined(lines: Iterable[str]) -> str:
    # without a list of all of them
    stream = io.StringIO()
    stream.writelines(lines)
    return stream.getvalue()


def printable(text: str) -> str:
    """A path, or another text of files, without anything that changes how the rest is shown.

    Control characters, marks that turn the direction of writing, stray bytes.
    """
    if text.isprintable():
        return text
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(
        letter
        if letter.isprintable()
        else f"\\x{ord(letter):02x}"
        if ord(letter) < 128
        else f"\\u{ord(letter):04x}"
        for letter in text
    )


def resolve(path: str, tree: Mapping[str, FileEntry], *, last: bool = False) -> str:
    """Where ``path`` really lies in ``tree``: symbolic links on the way are followed.

    With ``last`` the path itself is followed too.  A loop ends at the path as it was.
    """
    pending = collections.deque(part for part in path.split("/") if part)
    done: list[str] = []
    links = 0
    while pending:
        part = pending.popleft()
        if part in (".", ""):
            continue
        if part == "..":
            del done[-1:]
            continue
        entry = tree.get("/".join((*done, part)))
        if entry is not None and entry.type is FileType.SYMLINK and (pending or last):
            links += 1
            if links > _MOST_LINKS:
                return path
            if entry.linkname.startswith("/"):
                done = []
            pending.extendleft(reversed(entry.linkname.split("/")))
            continue
        done.append(part)
    return "/".join(done)


def _same(one: FileEntry, other: FileEntry) -> bool:
    """Whether two claims of one path are no contradiction."""
    if one.type is FileType.DIRECTORY and other.type is FileType.DIRECTORY:
        return True
    attributes = ("type", "mode", "digest", "linkname", "uid", "gid")
    return all(getattr(one, name) == getattr(other, name) for name in attributes)


def _replaces(entry: FileEntry, first: FileEntry, tree: Mapping[str, FileEntry]) -> bool:
    """Whether an entry of ours is a file that lies over one of the base image."""
    if first.group != BASE or entry.group == BASE:
        return False
    # what a link to a directory has below it would be gone
    real = tree.get(resolve(first.path, tree, last=True))
    kinds = (entry.type, first.type, real and real.type)
    return FileType.DIRECTORY not in kinds


def _order(path: str) -> bytes:
    return path.encode("utf-8", "surrogateescape")


def _sorted(paths: Iterable[str]) -> list[str]:
    """The paths in the order of their bytes."""
    found = list(paths)
    # mostly that is the order of their letters, which needs no memory for the bytes
    return sorted(found, key=None if all(map(str.isascii, found)) else _order)


def look_alikes(paths: Iterable[str]) -> list[str]:
    """The paths that differ from another one in case or in Unicode's normal form alone."""
    found = list(paths)
    # numbers, as the texts of 100,000 paths take much memory
    keys = sorted(map(_alike, found))
    twice = {one for one, other in itertools.pairwise(keys) if one == other}
    return sorted(path for path in found if _alike(path) in twice) if twice else []


def _alike(path: str) -> int:
    if path.isascii():
        return hash(path.lower())
    # as Unicode's chapter 3.13 has it, canonical caseless matching
    folded = unicodedata.normalize("NFD", path).casefold()
    return hash(unicodedata.normalize("NFD", folded))


def merge(entries: Iterable[FileEntry]) -> dict[str, FileEntry]:
    """One tree of all entries, in which every path is claimed once and has its parents.

    Where directories meet, the first one's attributes hold: what lies lower keeps its
    owner and mode.  A path below a symbolic link to a directory moves to where it leads
    (``bin/x`` to ``usr/bin/x``), or the link would be replaced in the container.  A file of
    ours takes the place of a base image's file.
    """
    entries = list(entries)
    errors: list[EggcrateError] = []
    links = {entry.path: entry for entry in entries if entry.type is FileType.SYMLINK}
    # where the directories really lie that have been looked at
    places: dict[str, str] = {"": ""}

    def place(path: str, *, last: bool = False) -> str:
        above = path.rpartition("/")[0]
        unknown = []
        while above not in places:
            unknown.append(above)
            above = above.rpartition("/")[0]
        for parent in reversed(unknown):  # step by step: it may be very deep
            places[parent] = below(parent, last=True)
        return below(path, last=last)

    def below(path: str, *, last: bool) -> str:
        parent, _, name = path.rpartition("/")
        above = places[parent]
        path = f"{above}/{name}" if above else name
        return resolve(path, links, last=True) if last and path in links else path

    tree: dict[str, FileEntry] = {}
    for entry in entries:
        # a directory may be claimed by the name of a link to it
        path = place(entry.path, last=entry.type is FileType.DIRECTORY)
        if path.startswith(".wh.") or "/.wh." in path:
            errors.append(
                PlanError(
                    f"/{printable(path)} would delete files in the image: names that "
                    f"begin with .wh. are whiteouts ({entry.reason})",
                    "rename it, or list it in exclude",
                )
            )
            continue
        if path != entry.path:
            entry = dataclasses.replace(entry, path=path)
        path = entry.path  # not the same text once more, in memory 100,000 times
        if entry.type is FileType.HARDLINK:
            entry = dataclasses.replace(entry, linkname=place(entry.linkname))
        first = tree.setdefault(path, entry)
        if first is not entry and not _same(first, entry):
            if _replaces(entry, first, tree):
                tree[path] = entry
                continue
            errors.append(
                PlanError(
                    f"/{printable(entry.path)} is claimed twice, with different content: "
                    f"{first.reason}; and {entry.reason}",
                    "exclude one of the two sources, or give one another target",
                )
            )
    for path in _sorted(tree):
        parent = path.rpartition("/")[0]
        while parent:
            above = tree.get(parent)
            if above is None:
                reason = f"the parent of /{printable(path)}"
                tree[parent] = directory(parent, group=tree[path].group, reason=reason)
            elif above.type is not FileType.DIRECTORY:
                errors.append(
                    PlanError(
                        f"/{printable(parent)} is a {above.type.value} ({above.reason}), and "
                        f"/{printable(path)} needs a directory there ({tree[path].reason})",
                        "exclude one of the two, or give one another target",
                    )
                )
            else:
                break  # what is above it has had its turn, or will have
            parent = parent.rpartition("/")[0]
    raise_all(errors)
    return _first_of_hardlinks({path: tree[path] for path in _sorted(tree)})


def _first_of_hardlinks(tree: dict[str, FileEntry]) -> dict[str, FileEntry]:
    """The tree with each file that has several names stored under the first of them."""
    names: dict[str, list[FileEntry]] = collections.defaultdict(list)
    errors: list[EggcrateError] = []
    for entry in tree.values():
        if entry.type is not FileType.HARDLINK:
            continue
        target, passed = entry.linkname, {entry.path}
        while target not in passed and target in tree:
            if tree[target].type is not FileType.HARDLINK:
                break
            passed.add(target)
            target = tree[target].linkname
        if target in tree and tree[target].type is FileType.REGULAR:
            names[target].append(entry)
            continue
        errors.append(
            PlanError(
                f"/{printable(entry.path)} is a hard link to /{printable(target)}, which is "
                f"no file of the image ({entry.reason})",
                "take that file in too, or list the link in exclude",
            )
        )
    raise_all(errors)
    for target, links in names.items():
        stored = tree[target]
        paths = _sorted((target, *(link.path for link in links)))
        for path in paths:
            tree[path] = dataclasses.replace(
                tree[path], type=FileType.HARDLINK, data=None, source=None, size=0, digest="",
                linkname=paths[0], group=stored.group,
            )  # fmt: skip
        tree[paths[0]] = dataclasses.replace(stored, path=paths[0])
    return tree


def _rank(group: str) -> int:
    return GROUPS.index(group.split(" ", 1)[0])


def plan_layers(
    tree: Mapping[str, FileEntry],
    budget: int,
    *,
    together: Sequence[Sequence[str]] = (),
    before: Sequence[str] = (),
) -> BuildPlan:
    """The tree's entries in at most ``budget`` layers, what changes most on top.

    Each kind of group has a layer, and so have the distributions whose names match one of
    the patterns of an item of ``together``.  What is left of the budget goes to big
    distributions, so that an upgraded one changes a layer of its own; the long tail shares
    one.  Where there are more big ones than layers, those stay alone that were so
    ``before``, in the layers of these names.
    """
    units: dict[str, list[FileEntry]] = collections.defaultdict(list)
    for entry in tree.values():
        if entry.group != BASE:
            units[_unit(entry)].append(entry)
    sizes = {unit: sum(entry.size for entry in units[unit]) for unit in units}
    chosen = {unit: patterns for unit in units if (patterns := _asked(unit, together))}
    kinds = {unit.split(" ", 1)[0] for unit in units if unit not in chosen}
    needed = len(kinds) + len(set(chosen.values()))
    if not needed <= budget <= MOST_LAYERS:
        raise PlanError(
            f"{needed} kinds of content don't fit into layers = {budget}",
            f"set layers to a number from {needed} to {MOST_LAYERS}",
        )
    kept = {_unversioned(name) for name in before}
    big = sorted(
        (unit for unit in units if unit not in chosen and _is_alone(unit, sizes[unit])),
        key=lambda unit: (_unversioned(unit) not in kept, -sizes[unit], unit),
    )
    alone = set(big[: budget - needed])

    layers: dict[tuple[int, int, str], list[FileEntry]] = collections.defaultdict(list)
    for unit, members in units.items():
        kind = unit.split(" ", 1)[0]
        if unit in chosen:
            key = (_rank(kind), 0, f"eggs {' '.join(chosen[unit])}")
        elif unit in alone:
            key = (_rank(kind), 1, unit)
        else:
            key = (_rank(kind), 2, "eggs" if kind == "egg" else kind)
        layers[key].extend(members)
    return BuildPlan(
        tuple(
            LayerPlan(
                key[2],
                tuple(_with_parents(_sorted(entry.path for entry in layers[key]), tree)),
            )
            for key in sorted(layers)
        )
    )


def _unit(entry: FileEntry) -> str:
    """What may have a layer of its own: a group, or a package within an environment."""
    if entry.group.startswith("environment "):
        _, found, inside = entry.path.partition("/site-packages/")
        package, slash, _ = inside.partition("/")
        if found and slash:
            return f"{entry.group}: {package}"
    return entry.group


def _is_alone(unit: str, size: int) -> bool:
    return size >= _BIG and unit.startswith(("egg ", "environment "))


def _unversioned(unit: str) -> str:
    """The name of an egg's layer without its version, which may be another one today."""
    return unit.rpartition("-")[0] if unit.startswith("egg ") else unit


def _asked(unit: str, together: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The first patterns that a distribution matches, by its canonical name (PEP 503)."""
    if not unit.startswith("egg "):
        return ()
    name = re.sub(r"[-_.]+", "-", _unversioned(unit).removeprefix("egg ")).lower()
    for patterns in together:
        if any(fnmatch.fnmatchcase(name, pattern.lower()) for pattern in patterns):
            return tuple(patterns)
    return ()


def _with_parents(paths: list[str], tree: Mapping[str, FileEntry]) -> Iterator[FileEntry]:
    """The paths' entries with every directory above them, which engines would else invent."""
    # directories
    seen: set[str] = set()
    for path in paths:
        above = []
        parent = path.rpartition("/")[0]
        while parent and parent not in seen:
            above.append(parent)
            parent = parent.rpartition("/")[0]
        seen.update(above)
        yield from (tree[parent] for parent in reversed(above))
        if path not in seen:
            if tree[path].type is FileType.DIRECTORY:
                seen.add(path)
            yield tree[path]
