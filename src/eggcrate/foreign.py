"""Distributions with compiled modules, for an image of another platform than this machine's.

What is pure is the same on every platform.  In the place of the rest comes what the wheel of
the same version for that platform has, at the same paths: scripts name them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import pathlib
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence

from eggcrate.environments.wheels import Release, Target, fetch
from eggcrate.image.plan import FileEntry, FileType
from eggcrate.image.store import Store
from eggcrate.payload.distributions import canonical_name, mended_record, record_rows
from eggcrate.payload.libraries import Binary, CLibrary, machines_of_wheels
from eggcrate.settings import ImageSettings

logger = logging.getLogger(__name__)

# Raise it whenever something else is kept of a wheel.
FORMAT = 3

# where it is not known: what nearly all wheels of these days run on (PEP 599)
_OLD_GLIBC = (2, 17)
# what says who has installed a distribution, and from where
_OF_INSTALLER = ("INSTALLER", "REQUESTED", "direct_url.json")
# where pip --target puts what does not go into site-packages, seen from there
_OUTSIDE = "../../"

# A file of a wheel: its place below the target directory, mode, digest and size
_Row = tuple[str, int, str, int]


@dataclasses.dataclass(frozen=True, slots=True)
class _Installed:
    """A distribution in an image: its metadata's directory, and which files are not to stay."""

    release: Release
    metadata: str
    group: str
    reason: str
    replaced: frozenset[str] = frozenset()

    @property
    def top(self) -> str:
        return posixpath.dirname(self.metadata)

    @property
    def prefix(self) -> str:
        """Where its programs' ``bin`` is: an egg has its own, an environment is three above."""
        if self.top.endswith(".egg"):
            return self.top
        return posixpath.dirname(posixpath.dirname(posixpath.dirname(self.top)))


def adapted(
    entries: Iterable[FileEntry],
    binaries: Mapping[str, Binary | None],
    settings: ImageSettings,
    store: Store,
    *,
    python: tuple[int, int],
    c_library: CLibrary | None,
    locked: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
) -> list[FileEntry]:
    """The entries, with those of the wheels for the image's platform in place of what was
    compiled for another one.

    ``binaries`` are the ELF files among them, by digest.  ``locked`` has the hashes that an
    environment allows, by its place in the image and a distribution's name.  What belongs to
    no distribution, and to none that is published, stays, for the checks to find.
    """
    tree = {entry.path: entry for entry in entries}
    foreign = _foreign(tree, binaries, settings.platform.architecture)
    if not foreign:
        return list(tree.values())
    glibc = None
    if c_library is None or c_library.name != "musl":
        glibc = (c_library and c_library.version) or _OLD_GLIBC
    machines = machines_of_wheels(settings.platform.architecture)
    target = Target(str(settings.platform), machines, python, glibc)
    foreign = [_with_hashes(found, locked or {}) for found in foreign]
    wanted = {found.release for found in foreign}
    wheels = _wheels(wanted, target, settings, store)
    replaced = {path for found in foreign for path in found.replaced}
    # other environments may share files with what goes
    for path, entry in list(tree.items()):
        if entry.type is FileType.HARDLINK and path not in replaced:
            first = tree[entry.linkname]
            if first.path in replaced:
                tree[path] = dataclasses.replace(first, path=path, group=entry.group)
    for path in replaced:
        tree.pop(path, None)
    for found in foreign:
        rows = wheels[found.release]
        tree.update(_entries(found, rows, store, str(settings.platform)))
    return list(tree.values())


def _foreign(
    tree: Mapping[str, FileEntry], binaries: Mapping[str, Binary | None], architecture: str
) -> list[_Installed]:
    """The distributions with a file that was compiled for another architecture, and those
    whose wheels say that they are for one."""

    def is_foreign(path: str) -> bool:
        entry = tree.get(path)
        if entry is not None and entry.type is FileType.HARDLINK:
            entry = tree.get(entry.linkname)
        binary = binaries.get(entry.digest) if entry is not None else None
        return binary is not None and binary.machine != architecture

    eggs: dict[str, list[str]] = {}
    for path in tree:
        top, egg, _ = path.partition(".egg/")
        if egg:
            eggs.setdefault(f"{top}.egg", []).append(path)
    result = []
    for found, files in _installed(tree, eggs):
        foreign = set(filter(is_foreign, files))
        if (
            foreign or _is_bound(tree.get(f"{found.metadata}/WHEEL"))
        ) and found.release.version:
            # scripts name this machine's Python in the wheel, and the image's here
            scripts = f"{found.prefix}/bin/"
            own = {
                path
                for path in files
                if path.startswith(f"{found.top}/") and not path.startswith(scripts)
            }
            result.append(dataclasses.replace(found, replaced=frozenset(own | foreign)))
    return result


def _with_hashes(
    found: _Installed, locked: Mapping[str, Mapping[str, Sequence[str]]]
) -> _Installed:
    hashes = locked.get(found.prefix, {}).get(found.release.name, ())
    return dataclasses.replace(found, release=found.release._replace(hashes=tuple(hashes)))


def _is_bound(wheel: FileEntry | None) -> bool:
    """Whether a WHEEL file has platforms, and not any of them (PyPA: binary distributions)."""
    if wheel is None:
        return False
    with wheel.open() as stream:
        lines = stream.read().decode("utf-8", "replace").splitlines()
    tags = [line.partition(":")[2].strip() for line in lines if line.startswith("Tag:")]
    return bool(tags) and not any(tag.endswith("-any") for tag in tags)


def _installed(
    tree: Mapping[str, FileEntry], eggs: Mapping[str, Sequence[str]]
) -> Iterator[tuple[_Installed, Sequence[str]]]:
    """The distributions that somebody has published, each with its files."""
    for path, entry in tree.items():
        directory, _, name = path.rpartition("/")
        if name != "METADATA" or not directory.endswith(".dist-info"):
            continue
        if entry.group.startswith("develop "):
            continue  # nobody has published it
        with entry.open() as stream:
            head = stream.read().partition(b"\n\n")[0].decode("utf-8", "replace")
        said = {
            key.lower(): value.strip()
            for key, _, value in (line.partition(":") for line in head.splitlines())
        }
        top = posixpath.dirname(directory)
        files: Sequence[str] = eggs.get(top, ())
        if not files:
            record = tree.get(f"{directory}/RECORD")
            if record is None:
                continue
            with record.open() as stream:
                text = stream.read().decode("utf-8", "surrogateescape")
            files = [posixpath.normpath(f"{top}/{row[0]}") for row in record_rows(text)]
        name, version = canonical_name(said.get("name", "")), said.get("version", "")
        yield _Installed(Release(name, version), directory, entry.group, entry.reason), files


def _entries(
    found: _Installed, rows: Sequence[_Row], store: Store, platform: str
) -> dict[str, FileEntry]:
    """What an image has of a wheel that was unpacked, in a distribution's place, by path."""
    entries: dict[str, FileEntry] = {}
    for place, mode, digest, size in rows:
        below, slash, rest = place.partition("/")
        if below.endswith(".dist-info"):
            if rest in _OF_INSTALLER:
                continue
            path = f"{found.metadata}{slash}{rest}"
        elif place.startswith(_OUTSIDE):
            path = f"{found.prefix}/{place.removeprefix(_OUTSIDE)}"
            if path not in found.replaced:
                continue
        else:
            path = f"{found.top}/{place}"
        entries[path] = FileEntry(
            path,
            FileType.REGULAR,
            mode,
            found.group,
            f"{found.reason}; of the wheel for {platform}",
            source=os.fspath(store.blob(digest)),
            size=size,
            digest=digest.removeprefix("sha256:"),
        )
    record = entries.get(f"{found.metadata}/RECORD")
    if record is not None:
        with record.open() as stream:
            data = mended_record(stream.read(), found.group, found.top, entries)
        entries[record.path] = dataclasses.replace(
            record,
            source=None,
            data=data,
            size=len(data),
            digest=hashlib.sha256(data).hexdigest(),
        )
    return entries


# The wheels ----------------------------------------------------------------------------


def _wheels(
    wanted: set[Release], target: Target, settings: ImageSettings, store: Store
) -> dict[Release, Sequence[_Row]]:
    """The files of the wheels, which lie in the store."""
    found: dict[Release, Sequence[_Row]] = {}
    for release in sorted(wanted):
        rows = store.table("wheels", _key(release, target))
        if rows is not None and all(store.has(digest, size) for _, _, digest, size in rows):
            found[release] = rows
    while missing := sorted(wanted - set(found), reverse=True):
        # of a distribution one version at a time
        these = {release.name: release for release in missing}
        logger.info("wheels for %s: %s", settings.platform, " ".join(sorted(these)))
        with store.scratch() as top:
            fetch(
                these.values(),
                target,
                top,
                index=settings.index,
                find_links=settings.find_links,
                offline=settings.offline,
            )
            for name, release in these.items():
                found[release] = _stored(name, top, store)
                store.keep_table("wheels", _key(release, target), found[release])
    return found


def _key(release: Release, target: Target) -> str:
    return hashlib.sha256(f"{FORMAT} {release!r} {target!r}".encode()).hexdigest()


def _stored(name: str, top: pathlib.Path, store: Store) -> list[_Row]:
    """The files of a distribution that pip has unpacked, with their blobs."""
    rows = []
    for metadata in sorted(top.glob("*.dist-info")):
        if canonical_name(metadata.name.partition("-")[0]) != name:
            continue
        text = (metadata / "RECORD").read_text("utf-8", "surrogateescape")
        for place in sorted({row[0] for row in record_rows(text)}):
            below = place.removeprefix(_OUTSIDE)
            # a wheel may say of any file of this machine that it is its own
            inside = posixpath.normpath(below) == below and not below.startswith(("/", "../"))
            path = top / below
            if inside and path.is_file():
                data = path.read_bytes()
                mode = 0o755 if path.stat().st_mode & 0o100 else 0o644
                rows.append((place, mode, store.put(data), len(data)))
    return rows
