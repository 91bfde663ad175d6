"""What differs between two images: paths, layers, distributions, bytes to push."""

from __future__ import annotations

import collections
import dataclasses
import heapq
import importlib.util
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from eggcrate.image.layers import Layer
from eggcrate.image.layout import Image
from eggcrate.image.plan import FileEntry, FileType, printable
from eggcrate.image.words import amount


@dataclasses.dataclass(frozen=True, slots=True)
class Distribution:
    """A release of something that is installed as a whole; ``kind`` is Python or Debian."""

    kind: str
    name: str
    version: str

    @property
    def project(self) -> tuple[str, str]:
        """What stays the same when it is upgraded (names as PEP 503 compares them)."""
        return self.kind, re.sub(r"[-_.]+", "-", self.name).lower()


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """A path of both images; ``what`` is of type, content, link, mode and owner."""

    before: FileEntry
    after: FileEntry
    what: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Upgrade:
    """A distribution that came, went, or is there in another version.

    ``before`` and ``after`` are its versions, none where it is not there; the numbers
    count the paths that belong to it, and the bytes by which it grew.
    """

    kind: str
    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    added: int
    removed: int
    changed: int
    growth: int


@dataclasses.dataclass(frozen=True, slots=True)
class LayerDifference:
    """What became of the layers; those of the new image in its order.

    A layer is *kept* where the same blob was anywhere in the image before, and *changed*
    where another of its name was.
    """

    kept: tuple[Layer, ...]
    changed: tuple[tuple[Layer, Layer], ...]
    new: tuple[Layer, ...]
    gone: tuple[Layer, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Line:
    """One line of the difference: ``sign`` is ``+``, ``-`` or ``~``, ``growth`` in bytes.

    ``path`` and ``what`` can be shown as they are.
    """

    sign: str
    path: str
    what: str
    growth: int


@dataclasses.dataclass(frozen=True, slots=True)
class Difference:
    """All that differs between an image and the one before it, if there was one.

    ``push`` are the bytes of the blobs that were not in the image before, ``growth`` is
    what it takes more when it is unpacked, in bytes.  ``added`` and ``removed`` have the
    directories too; :attr:`loose` are the paths that say something on their own.
    """

    before: Image | None
    after: Image
    added: tuple[FileEntry, ...]
    removed: tuple[FileEntry, ...]
    changed: tuple[Change, ...]
    layers: LayerDifference
    push: int
    growth: int
    distributions: tuple[Upgrade, ...]
    loose: tuple[Line, ...]

    @property
    def upgraded(self) -> tuple[Upgrade, ...]:
        """The distributions that are in both images, in different versions."""
        return tuple(item for item in self.distributions if item.before and item.after)

    @property
    def same(self) -> bool:
        """Whether both are the same image."""
        return self.before is not None and self.before.manifest == self.after.manifest


def tree(image: Image) -> dict[str, FileEntry]:
    """The entries by path, as a container sees them."""
    return {entry.path: entry for layer in image.layers for entry in layer.plan.entries}


# The version begins with a digit behind the last hyphen that can be meant: a-b-1.0, a-1.0-1.
_EGG = re.compile(r"egg (.+?)-(v?\d[^-]*(?:-\d+)?)")
_OTHER_EGG = re.compile(r"egg (.+)-([^-]+)")
# as transports.deb says where a file comes from
_DEBIAN = re.compile(r"package (\S+) (\S+)")


def _distribution(entry: FileEntry) -> Distribution | None:
    match = _EGG.fullmatch(entry.group) or _OTHER_EGG.fullmatch(entry.group)
    if match:
        return Distribution("Python", match[1], match[2])
    match = _DEBIAN.fullmatch(entry.reason)
    return Distribution("Debian", match[1], match[2]) if match else None


def distributions(entries: Mapping[str, FileEntry]) -> dict[str, Distribution]:
    """The distribution that each path belongs to, where it is known.

    Byte-code that was made here belongs to its module's.
    """
    found = {
        path: distribution
        for path, entry in entries.items()
        if (distribution := _distribution(entry))
    }
    for path in entries:
        if path not in found and path.endswith(".pyc") and "/__pycache__/" in path:
            try:
                module = importlib.util.source_from_cache(path)
            except ValueError:
                continue
            if module in found:
                found[path] = found[module]
    return found


def difference(before: Image | None, after: Image) -> Difference:
    """What differs between ``before``, the image of the last build, and ``after``."""
    old, new = tree(before) if before else {}, tree(after)
    added = tuple(entry for path, entry in new.items() if path not in old)
    removed = tuple(entry for path, entry in old.items() if path not in new)
    changed = tuple(
        Change(old[path], entry, what)
        for path, entry in new.items()
        if path in old and (what := _what(old[path], entry))
    )
    owners = distributions(old), distributions(new)
    upgrades = _upgrades(*owners, added, removed, changed)
    known = {blob.digest for blob in before.blobs} if before else set()
    return Difference(
        before,
        after,
        _in_order(added),
        _in_order(removed),
        tuple(sorted(changed, key=lambda change: _order(change.after))),
        _layers(before.layers if before else (), after.layers),
        sum(blob.size for blob in after.blobs if blob.digest not in known),
        sum(entry.size for entry in new.values()) - sum(entry.size for entry in old.values()),
        tuple(upgrades[project] for project in sorted(upgrades, key=_python_first)),
        tuple(_loose(*owners, added, removed, changed, upgrades)),
    )


def _order(entry: FileEntry) -> bytes:
    return entry.path.encode("utf-8", "surrogateescape")


def _in_order(entries: Iterable[FileEntry]) -> tuple[FileEntry, ...]:
    return tuple(sorted(entries, key=_order))


def _what(old: FileEntry, new: FileEntry) -> tuple[str, ...]:
    """What of a path is not the same; of another type, the rest says nothing."""
    facts: list[tuple[str, Callable[[FileEntry], object]]] = [
        ("owner", lambda entry: (entry.uid, entry.gid))
    ]
    if old.type is not new.type:
        facts = [("type", lambda entry: entry.type), *facts]
    else:
        facts = [
            ("content", lambda entry: (entry.size, entry.digest)),
            ("link", lambda entry: entry.linkname),
            ("mode", lambda entry: entry.mode),
            *facts,
        ]
    return tuple(name for name, fact in facts if fact(old) != fact(new))


def _layers(before: Sequence[Layer], after: Sequence[Layer]) -> LayerDifference:
    blobs = {layer.descriptor.digest for layer in before}
    kept = [layer for layer in after if layer.descriptor.digest in blobs]
    stayed = {layer.descriptor.digest for layer in kept}
    left = [layer for layer in before if layer.descriptor.digest not in stayed]
    coming = [layer for layer in after if layer.descriptor.digest not in blobs]
    pairs: dict[int, Layer] = {}
    # by its name, or else by what is left of it without a version
    for name in (lambda layer: layer.plan.name, _bare_name):
        for number, layer in enumerate(coming):
            if number not in pairs:
                match = next((other for other in left if name(other) == name(layer)), None)
                if match is not None:
                    pairs[number] = match
                    left.remove(match)
    return LayerDifference(
        tuple(kept),
        tuple((pairs[number], coming[number]) for number in sorted(pairs)),
        tuple(layer for number, layer in enumerate(coming) if number not in pairs),
        tuple(left),
    )


def _bare_name(layer: Layer) -> str:
    match = _EGG.fullmatch(layer.plan.name) or _OTHER_EGG.fullmatch(layer.plan.name)
    return f"egg {match[1]}" if match else layer.plan.name


_Owners = Mapping[str, Distribution]
_Upgrades = Mapping[tuple[str, str], Upgrade]


def _versions(owners: _Owners) -> dict[tuple[str, str], set[Distribution]]:
    found: dict[tuple[str, str], set[Distribution]] = collections.defaultdict(set)
    for distribution in set(owners.values()):
        found[distribution.project].add(distribution)
    return found


def _upgrades(
    old: _Owners,
    new: _Owners,
    added: Sequence[FileEntry],
    removed: Sequence[FileEntry],
    changed: Sequence[Change],
) -> _Upgrades:
    """The distributions that differ, by project, with what it means in paths and bytes."""
    before, after = _versions(old), _versions(new)
    counts: dict[tuple[str, str], list[int]] = collections.defaultdict(lambda: [0] * 4)
    for column, entries, owners, sign in ((0, added, new, 1), (1, removed, old, -1)):
        for entry in entries:
            if entry.path in owners:
                count = counts[owners[entry.path].project]
                count[column] += entry.type is not FileType.DIRECTORY
                count[3] += sign * entry.size
    for change in changed:
        owner = new.get(change.after.path) or old.get(change.after.path)
        if owner:
            counts[owner.project][2] += 1
            counts[owner.project][3] += change.after.size - change.before.size
    found = {}
    for project in before.keys() | after.keys():
        sides = [
            tuple(sorted({release.version for release in side.get(project, ())}))
            for side in (before, after)
        ]
        if sides[0] != sides[1]:
            name = min(release.name for release in after.get(project) or before[project])
            found[project] = Upgrade(project[0], name, sides[0], sides[1], *counts[project])
    return found


def _python_first(project: tuple[str, str]) -> tuple[bool, str]:
    return project[0] != "Python", project[1]


def _loose(
    old: _Owners,
    new: _Owners,
    added: Sequence[FileEntry],
    removed: Sequence[FileEntry],
    changed: Sequence[Change],
    upgrades: _Upgrades,
) -> Iterator[Line]:
    """The paths that no distribution's line speaks for, and no path below them."""

    def is_told(path: str) -> bool:
        owner = new.get(path) or old.get(path)
        return owner is not None and owner.project in upgrades

    found: list[tuple[bytes, Line]] = []
    for sign, entries in (("+", added), ("-", removed)):
        parents = {posixpath.dirname(entry.path) for entry in entries}
        for entry in entries:
            if is_told(entry.path):
                continue
            if entry.type is FileType.DIRECTORY and entry.path in parents:
                continue
            growth = entry.size if sign == "+" else -entry.size
            found.append((_order(entry), Line(sign, _shown(entry), _type(entry), growth)))
    for change in changed:
        if not is_told(change.after.path):
            growth = change.after.size - change.before.size
            what = ", ".join(_fact(name, change.before, change.after) for name in change.what)
            found.append((_order(change.after), Line("~", _shown(change.after), what, growth)))
    return (path for _, path in sorted(found, key=lambda item: item[0]))


def _shown(entry: FileEntry) -> str:
    return f"/{printable(entry.path)}{'/' * (entry.type is FileType.DIRECTORY)}"


def _type(entry: FileEntry) -> str:
    if entry.type is FileType.SYMLINK:
        return f"link to {printable(entry.linkname)}"
    if entry.type is FileType.HARDLINK:
        return f"the same file as /{printable(entry.linkname)}"
    return ""


def _fact(name: str, old: FileEntry, new: FileEntry) -> str:
    if name == "mode":
        return f"mode {old.mode:04o} -> {new.mode:04o}"
    if name == "owner":
        return f"owner {old.uid}:{old.gid} -> {new.uid}:{new.gid}"
    if name == "link":
        return f"link {printable(old.linkname)} -> {printable(new.linkname)}"
    if name == "type":
        return f"{old.type.value} -> {new.type.value}"
    return name


def rolled_up(paths: Sequence[Line], most: int) -> tuple[Line, ...]:
    """The paths in at most ``most`` lines: of crowded directories only how many are below.

    Directories with few paths are opened first, so that one edited file is still seen
    beside a thousand that came together.
    """
    if len(paths) <= most:
        return tuple(paths)
    position = {id(path): number for number, path in enumerate(paths)}
    shown: dict[str, list[Line]] = {}
    waiting: list[tuple[int, str, dict[str, list[Line]]]] = []

    def show(top: str, below: list[Line]) -> None:
        shown[top] = below
        if len(below) > 1 and top.endswith("/"):
            inside: dict[str, list[Line]] = collections.defaultdict(list)
            for path in below:
                head, slash, _ = path.path[len(top) :].partition("/")
                inside[f"{top}{head}{slash}"].append(path)
            if list(inside) != [top]:
                heapq.heappush(waiting, (len(inside), top, inside))

    show("/", list(paths))
    while waiting and len(shown) - 1 + waiting[0][0] <= most:
        _, top, inside = heapq.heappop(waiting)
        del shown[top]
        for name, below in inside.items():
            show(name, below)
    return tuple(
        below[0] if len(below) == 1 else _together(top, below)
        for top, below in sorted(shown.items(), key=lambda item: position[id(item[1][0])])
    )


def _together(top: str, below: Sequence[Line]) -> Line:
    signs = collections.Counter(path.sign for path in below)
    sign = below[0].sign if len(signs) == 1 else "~"
    return Line(
        sign, top, _counts(signs["+"], signs["-"], signs["~"]), sum(p.growth for p in below)
    )


def _counts(added: int, removed: int, changed: int, noun: str = "") -> str:
    parts = ((added, "added"), (removed, "removed"), (changed, "changed"))
    words = [(f"{number:,}", word) for number, word in parts if number]
    if words and noun:
        words[0] = (words[0][0], f"{noun}{'' if words[0][0] == '1' else 's'} {words[0][1]}")
    return ", ".join(" ".join(pair) for pair in words)


def signed(size: int) -> str:
    """A difference in bytes for people, with its sign."""
    return f"+{amount(size)}" if size > 0 else amount(size)


def _layer_count(layers: Sequence[Layer]) -> str:
    return "1 layer" if len(layers) == 1 else f"{len(layers)} layers"


def summary(difference: Difference) -> str:
    """The difference in one line."""
    after = difference.after
    coming = len(difference.layers.changed) + len(difference.layers.new)
    size = sum(entry.size for entry in tree(after).values())
    if difference.before is None:
        return (
            f"no image before: {_layer_count(after.layers)}, "
            f"{amount(difference.push)} to push, {amount(size)} unpacked"
        )
    if difference.same:
        return f"nothing differs: {after.manifest.digest}"
    signs = collections.Counter(path.sign for path in difference.loose)
    for upgrade in difference.distributions:
        signs.update({"+": upgrade.added, "-": upgrade.removed, "~": upgrade.changed})
    paths = _counts(signs["+"], signs["-"], signs["~"], "path") or "no path differs"
    return (
        f"{paths}; {coming} of {_layer_count(after.layers)} to push, "
        f"{amount(difference.push)}; {signed(difference.growth)} unpacked"
    )


def text(difference: Difference, *, most: int | None = 40) -> str:
    """The difference for a terminal: a summary, then layers, distributions and paths.

    At most ``most`` paths have a line of their own (:func:`rolled_up`); None is all.
    """
    lines = [summary(difference)]
    if difference.same:
        return f"{lines[0]}\n"
    lines += ["", "layers", *_table(_layer_rows(difference), "<<><")]
    if difference.before is None:
        return "\n".join(lines) + "\n"
    if difference.distributions:
        rows = [_upgrade_row(upgrade) for upgrade in difference.distributions]
        lines += ["", "distributions", *_table(rows, "<<<><")]
    if difference.loose:
        paths = difference.loose if most is None else rolled_up(difference.loose, most)
        path_rows = [
            (path.sign, signed(path.growth) if path.growth else "", _with_what(path))
            for path in paths
        ]
        lines += ["", "paths", *_table(path_rows, "<><")]
    return "\n".join(lines) + "\n"


def _with_what(path: Line) -> str:
    return f"{path.path}  ({path.what})" if path.what else path.path


def _layer_rows(difference: Difference) -> Iterator[tuple[str, ...]]:
    def row(word: str, layer: Layer, more: str = "") -> tuple[str, ...]:
        return word, printable(layer.plan.name), amount(layer.descriptor.size), more

    layers = difference.layers
    was = {id(after): before for before, after in layers.changed}
    kept = {id(layer) for layer in layers.kept}
    for layer in difference.after.layers:
        if old := was.get(id(layer)):
            name = "" if old.plan.name == layer.plan.name else f"{printable(old.plan.name)}, "
            yield row("changed", layer, f"was {name}{amount(old.descriptor.size)}")
        elif id(layer) not in kept:
            yield row("new", layer)
    for layer in layers.gone:
        yield row("gone", layer)
    if layers.kept:
        size = sum(layer.descriptor.size for layer in layers.kept)
        yield "kept", _layer_count(layers.kept), amount(size), ""
    config = difference.after.config
    if difference.before is not None and difference.before.config != config:
        yield "changed", "the image's config", amount(config.size), ""


def _upgrade_row(upgrade: Upgrade) -> tuple[str, ...]:
    sign = "~" if upgrade.before and upgrade.after else "+" if upgrade.after else "-"
    return (
        sign,
        printable(upgrade.name),
        printable(versions(upgrade)),
        signed(upgrade.growth) if upgrade.growth else "",
        _counts(upgrade.added, upgrade.removed, upgrade.changed),
    )


def versions(upgrade: Upgrade) -> str:
    """The versions of a distribution, as ``1.0 -> 1.1`` or alone."""
    sides = (", ".join(side) for side in (upgrade.before, upgrade.after) if side)
    return " -> ".join(sides)


def _table(rows: Iterable[tuple[str, ...]], alignment: str) -> Iterator[str]:
    """The rows with their columns under one another."""
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (
            cell.rjust(width) if side == ">" else cell.ljust(width)
            for cell, side, width in zip(row, alignment, widths, strict=True)
        )
        yield f"  {'  '.join(cells)}".rstrip()
