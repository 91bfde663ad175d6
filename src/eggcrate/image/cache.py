"""What a store holds, how much that is, and what goes when it is too much.

A thing in the store is as recently used as the most recent of the records that mention it
(:meth:`Store.used`), so a record always goes before what it mentions.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import math
import os
import pathlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from eggcrate.errors import PlanError, SettingsError
from eggcrate.image.store import LEFTOVER, Store, remove, replacing

VARIABLE = "EGGCRATE_CACHE_SIZE"
# bytes, where the variable is not set
LIMIT = 10 << 30

_HOUR, _DAY = 3600.0, 86400.0
# after so long nobody waits for what can be made again without a network
_OLD = 90 * _DAY
# how many seconds prune waits for builds to end
_WAIT = 5.0

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:I?B)?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}

_HEX = re.compile("[0-9a-f]{64}")
_SUITE = re.compile("[^.].*-[0-9a-f]{16}")
# How the bytes of a record mention a blob (``sha256:...``, or where it lies), an unpacked
# package, another record or the package lists of a suite.
_MENTION = re.compile(rb"[:/]([0-9a-f]{64})|/(apt/[\w.+-]+)/")

_LAYERS, _BYTECODE, _RECORDS, _DEBS, _UNPACKED, _LISTS, _LEFTOVERS = KINDS = (
    "layers",
    "byte-code",
    "what builds remember",
    "Debian packages",
    "unpacked packages",
    "package lists",
    "left-overs of killed builds",
)
# Kinds of tables that are of use to one buildout only, besides those under its own key
_LOCAL = ("plans", "files")


@dataclasses.dataclass(frozen=True, slots=True)
class Usage:
    """How many things of a kind there are, their bytes, and when the first of them to go was
    used last (seconds since 1970; None where there are none)."""

    kind: str
    number: int
    size: int
    oldest: float | None


@dataclasses.dataclass(frozen=True, slots=True)
class Pruned:
    """How many things were removed, the bytes that they had, and those that are left.

    ``busy`` says that nothing could be removed, as a build was running.
    """

    removed: int
    freed: int
    left: int
    busy: bool = False


def size_limit(environment: Mapping[str, str] = os.environ) -> int | None:
    """The most bytes that the cache may have, by ``EGGCRATE_CACHE_SIZE``; None for no limit.

    SettingsError when the variable says no size.
    """
    text = environment.get(VARIABLE, "").strip()
    if not text:
        return LIMIT
    size = size_of(text)
    if size is None:
        raise SettingsError(
            f"{VARIABLE} is {text!r}, which is no size",
            "set it to a number with M or G, such as 500M or 20G, or to 0 for no limit",
        )
    return size or None


def size_of(text: str) -> int | None:
    """The bytes of a size as people write it, ``500M`` or ``1.5 GiB``; None when it is none."""
    match = _SIZE.fullmatch(text)
    return int(float(match[1]) * _UNITS[match[2].upper()]) if match else None


# What there is ------------------------------------------------------------------------


@dataclasses.dataclass(slots=True, eq=False)
class _Thing:
    """What is removed as one; ``key`` is how records mention it, ``order`` which of those
    used at the same time goes first."""

    key: str
    kind: str
    paths: tuple[pathlib.Path, ...]
    size: int
    used: float
    order: int = 2
    mentions: frozenset[str] = frozenset()

    @property
    def is_blob(self) -> bool:
        return self.paths[0].parent.name == "sha256"

    @property
    def record(self) -> str:
        """Which record it is, as :meth:`Store.used` has it; empty when it is none."""
        return f"{self.paths[0].parts[-3]}/{self.key}" if self.order < 2 else ""

    @property
    def table(self) -> str:
        """The kind of a record, without its format."""
        return self.record.partition("/")[0].partition("-")[0]


def _scan(directory: pathlib.Path) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(directory) as entries:
        yield from entries


def _measure(entry: os.DirEntry[str]) -> int:
    """The bytes of a file, or of all files below a directory."""
    with contextlib.suppress(OSError):
        if entry.is_dir(follow_symlinks=False):
            return sum(map(_measure, _scan(pathlib.Path(entry.path))))
        return entry.stat(follow_symlinks=False).st_size
    return 0


def _modified(entry: os.DirEntry[str]) -> float:
    with contextlib.suppress(OSError):
        return entry.stat(follow_symlinks=False).st_mtime
    return 0.0


def _one(key: str, kind: str, entry: os.DirEntry[str], used: float = 0.0) -> _Thing:
    path = pathlib.Path(entry.path)
    return _Thing(key, kind, (path,), _measure(entry), max(used, _modified(entry)))


def _survey(root: pathlib.Path, now: float) -> list[_Thing]:
    """Everything in the store; what others keep in its directory is not looked at."""
    return [
        *_leftovers(root, now),
        *_records(root),
        *_blobs(root),
        *(
            _one("", _DEBS, entry)
            for entry in _scan(root / "debs")
            if entry.name.endswith(".deb") and _HEX.fullmatch(entry.name[:-4])
        ),
        *(
            _one(entry.name, _UNPACKED, entry)
            for entry in _scan(root / "debs/unpacked")
            if _HEX.fullmatch(entry.name)
        ),
        *_lists(root),
    ]


def _leftovers(root: pathlib.Path, now: float) -> Iterator[_Thing]:
    """What builds that are no more were writing."""
    places = [root, root / "blobs", root / "blobs/sha256", root / "debs"]
    places += [root / "debs/unpacked", root / "apt", *root.glob("apt/*")]
    for place in (*places, *root.glob("records/*/*")):
        # while they are fetched and unpacked, packages are in directories of other names
        names = (LEFTOVER, ".fetch-", ".new-") if "debs" in place.parts[-2:] else LEFTOVER
        for entry in _scan(place):
            if entry.name.startswith(names) and (
                _modified(entry) < now - _DAY or _is_dead(entry.name)
            ):
                yield _one("", _LEFTOVERS, entry)


def _is_dead(name: str) -> bool:
    """Whether the process that a temporary file is named after is no more."""
    process = name.removeprefix(LEFTOVER).partition("-")[0]
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except (ValueError, OSError, OverflowError):
        pass  # it names none, or another user's
    return False


def _records(root: pathlib.Path) -> Iterator[_Thing]:
    for path in root.glob("records/*/*/*"):
        kind = path.parts[-3]
        if (
            kind == "verified"
            or not _HEX.fullmatch(path.name)
            or path.parent.name != path.name[:2]
        ):
            continue
        with contextlib.suppress(OSError):
            data = path.read_bytes()
            status = path.stat()
            found = {(a or b).decode() for a, b in _MENTION.findall(data)}
            own = kind.startswith("builds-")
            if own:
                found.add(path.name)  # there may be others under its key
            yield _Thing(
                *(path.name, _RECORDS, (path,), status.st_size, status.st_mtime),
                order=0 if own else 1,
                mentions=frozenset(found),
            )


def _blobs(root: pathlib.Path) -> Iterator[_Thing]:
    """The blobs, each with the record of when it was verified."""
    verified = {
        entry.name: entry
        for directory in _scan(root / "records/verified")
        for entry in _scan(pathlib.Path(directory.path))
        if _HEX.fullmatch(entry.name)
    }
    for entry in _scan(root / "blobs/sha256"):
        if _HEX.fullmatch(entry.name):
            thing = _one(entry.name, _LAYERS, entry)
            if record := verified.pop(entry.name, None):
                thing.paths += (pathlib.Path(record.path),)
                thing.size += _measure(record)
                thing.used = max(thing.used, _modified(record))
            yield thing
    for name, entry in verified.items():
        yield _one(name, _LEFTOVERS, entry)


def _lists(root: pathlib.Path) -> Iterator[_Thing]:
    for entry in _scan(root / "apt"):
        if _SUITE.fullmatch(entry.name):
            used = max(map(_modified, _scan(pathlib.Path(entry.path))), default=0.0)
            yield _one(f"apt/{entry.name}", _LISTS, entry, used)


def _by_key(things: Iterable[_Thing]) -> dict[str, list[_Thing]]:
    found: dict[str, list[_Thing]] = collections.defaultdict(list)
    for thing in things:
        if thing.key:
            found[thing.key].append(thing)
    return found


def _spread(things: Sequence[_Thing]) -> None:
    """Let what is mentioned be as recently used as what mentions it; tell blobs apart."""
    by_key = _by_key(things)
    for order in (0, 1):
        for thing in things:
            if thing.order != order:
                continue
            for key in thing.mentions:
                for other in by_key.get(key, ()):
                    if other.order > order:
                        other.used = max(other.used, thing.used)
                        if other.is_blob and thing.table == "bytecode":
                            other.kind = _BYTECODE


def usage(root: pathlib.Path, now: float | None = None) -> tuple[Usage, ...]:
    """What the store holds, by kind, in the order of ``KINDS``."""
    things = _survey(root, time.time() if now is None else now)
    _spread(things)
    found = []
    for kind in KINDS:
        ours = [thing for thing in things if thing.kind == kind]
        oldest = min((thing.used for thing in ours), default=None)
        found.append(Usage(kind, len(ours), sum(thing.size for thing in ours), oldest))
    return tuple(found)


# What goes ----------------------------------------------------------------------------


def prune(
    root: pathlib.Path,
    *,
    limit: int | None,
    everything: bool = False,
    now: float | None = None,
) -> Pruned:
    """Remove what nobody needs, and then what was used least recently, until the store has at
    most ``limit`` bytes.

    Nobody needs left-overs of killed builds, what is remembered of buildouts that are gone,
    blobs that no record mentions, and what was not used for three months and can be made
    again without a network.  With ``everything`` all goes.  Nothing does while a build runs.
    """
    now = time.time() if now is None else now
    return _prune(Store(root), limit, limit, now, everything=everything, wait=_WAIT)


def bound(store: Store, limit: int | None, *, now: float | None = None) -> Pruned | None:
    """Keep the store within its limit, at the end of a build; None when nothing was removed.

    It is pruned once a day, when there are new packages, and when builds have written a
    fiftieth of the limit or more than was free.  What was used through ``store`` stays.
    Does nothing in a store that can't be written or that another build uses.
    """
    if not os.access(store.root, os.W_OK):
        return None
    now = time.time() if now is None else now
    known = _Known.read(store.root)
    if known and known.limit == limit and known.places == _places(store.root):
        grown = known.grown + store.written
        within = limit is None or (
            # more than the limit is left when all of it is in use
            grown <= limit // 50 and (known.left + grown <= limit or known.left > limit)
        )
        if within and 0 <= now - known.when < _DAY:
            if store.written:
                dataclasses.replace(known, grown=grown).write(store.root)
                store.written = 0
            return None
    # a tenth less, so that it is not too much again after the next build
    goal = None if limit is None else limit - limit // 10
    try:
        done = _prune(store, limit, goal, now, keep=store.used())
    except PlanError:
        return None
    if not done.busy:
        store.written = 0
    return done if done.removed else None


def _prune(
    store: Store,
    limit: int | None,
    goal: int | None,
    now: float,
    *,
    everything: bool = False,
    keep: Iterable[str] = (),
    wait: float = 0.0,
) -> Pruned:
    """Prune the store to ``goal`` bytes if it has more than the limit."""
    with store.alone(wait) as alone:
        things = _survey(store.root, now)
        total = sum(thing.size for thing in things)
        if not alone:
            return Pruned(0, 0, total, busy=True)
        kept = set(keep)
        for thing in things:
            if thing.record in kept:
                thing.used = math.inf
        _spread(things)
        going = _Going(things)
        for thing in things if everything else _useless(store, things, now):
            going.remove(thing)
        if limit is not None and total - going.freed > limit:
            assert goal is not None
            for thing in sorted(things, key=lambda thing: (thing.used, thing.order)):
                if total - going.freed <= goal or thing.used == math.inf:
                    break
                going.remove(thing)
        left = total - going.freed
        _Known(now, limit, _places(store.root), left).write(store.root)
        return Pruned(len(going.gone), going.freed, left)


class _Going:
    """Things that are removed, and with a record the blobs that no other mentions."""

    def __init__(self, things: Sequence[_Thing]) -> None:
        self.gone: set[_Thing] = set()
        self.freed = 0
        self._by_key = _by_key(things)
        self._mentions = _count(things)

    def remove(self, thing: _Thing) -> None:
        if thing in self.gone or not all(map(remove, thing.paths)):
            return
        self.gone.add(thing)
        self.freed += thing.size
        self._mentions.subtract(thing.mentions)
        for key in thing.mentions:
            if not self._mentions[key]:
                for other in self._by_key.get(key, ()):
                    if other.is_blob:
                        self.remove(other)


def _count(things: Iterable[_Thing]) -> collections.Counter[str]:
    """How many of the things mention a key."""
    return collections.Counter(key for thing in things for key in thing.mentions)


def _useless(store: Store, things: Sequence[_Thing], now: float) -> list[_Thing]:
    """What nobody needs; records before what they mention."""
    gone = [thing for thing in things if thing.table == "builds" and _is_gone(store, thing)]
    # what only they mention is not all theirs: another buildout may need the same layer
    others = _count(thing for thing in things if thing not in gone)
    theirs = {thing.key for thing in gone}
    mentioned = {key for thing in gone for key in thing.mentions if not others[key]}
    mentions = _count(things)
    return [
        *gone,
        *(
            thing
            for thing in things
            if thing.order == 1
            and (thing.key in theirs or (thing.table in _LOCAL and thing.key in mentioned))
        ),
        *(
            thing
            for thing in things
            if thing.kind == _LEFTOVERS
            or (thing.is_blob and not mentions[thing.key] and thing.used < now - _HOUR)
            or ((thing.order < 2 or thing.is_blob) and thing.used < now - _OLD)
        ),
    ]


def _is_gone(store: Store, thing: _Thing) -> bool:
    """Whether the directory that a build was for is no more; False where that can't be told."""
    table = store.peek("builds", thing.key)
    location = table.get("location") if isinstance(table, dict) else None
    return isinstance(location, str) and not os.path.lexists(location)


# How large it was ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class _Known:
    """What is known since the store was pruned: when that was, the bytes that were left, and
    those that builds have written since."""

    when: float
    limit: int | None
    places: list[int]
    left: int
    grown: int = 0

    @classmethod
    def read(cls, root: pathlib.Path) -> _Known | None:
        try:
            known = cls(**json.loads((root / "size").read_bytes()))
            return known if known.when + known.left + known.grown >= 0 else None
        except (OSError, ValueError, TypeError):
            return None

    def write(self, root: pathlib.Path) -> None:
        with contextlib.suppress(PlanError), replacing(root / "size", sync=False) as stream:
            stream.write(json.dumps(dataclasses.asdict(self)).encode())


def _places(root: pathlib.Path) -> list[int]:
    """What changes when there are new packages."""
    return [
        (root / place).stat().st_mtime_ns if (root / place).is_dir() else 0
        for place in ("debs", "debs/unpacked")
    ]


# In words -----------------------------------------------------------------------------


def usage_text(root: pathlib.Path, found: Sequence[Usage], limit: int | None) -> str:
    """The table that people read: what the cache holds, and how much it may."""
    total = sum(kind.size for kind in found)
    most = "without a limit" if limit is None else f"of at most {_megabytes(limit)} MB"
    rows = [("", "number", "MB", "oldest use")]
    rows += [
        (
            kind.kind,
            str(kind.number),
            _megabytes(kind.size),
            ""
            if kind.oldest is None
            else time.strftime("%Y-%m-%d", time.localtime(kind.oldest)),
        )
        for kind in found
    ]
    wide = [max(len(row[column]) for row in rows) for column in range(3)]
    lines = [
        f"  {a:<{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}  {d}".rstrip() for a, b, c, d in rows
    ]
    return "\n".join((f"{root}: {_megabytes(total)} MB {most} ({VARIABLE})", *lines))


def pruned_text(pruned: Pruned) -> str:
    """One line on what was removed."""
    left = f"{_megabytes(pruned.left)} MB are left"
    if pruned.busy:
        return f"nothing removed, {left}: a build is running, run this again when it has ended"
    return f"{pruned.removed} removed, {_megabytes(pruned.freed)} MB; {left}"


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f}"
