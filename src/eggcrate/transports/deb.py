"""Debian packages as files: unpacked once, and merged to one tree without running anything.

A .deb is an ar archive of ``debian-binary``, ``control.tar`` and ``data.tar`` (deb(5)).
Its members never touch this machine's file system by their own names: contents lie as
numbered files beside an index.  No maintainer script runs; ``root_entries`` has rules for
the usual effects of those of Debian's base packages.
"""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import hashlib
import importlib
import io
import json
import logging
import lzma
import os
import pathlib
import posixpath
import re
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import IO, Any, cast

from eggcrate.errors import PlanError, TransportError, raise_all
from eggcrate.image.compression import cores
from eggcrate.image.plan import (
    FileEntry,
    FileType,
    bytes_file,
    directory,
    merge,
    printable,
    resolve,
    symlink,
)

logger = logging.getLogger(__name__)

_ANOTHER = "leave it out of os-packages, or choose another version of it"


@dataclasses.dataclass(frozen=True, slots=True)
class Package:
    """One Debian package, as a signed package index describes it."""

    name: str
    version: str
    architecture: str
    uri: str
    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """One path of a package, without ``./`` in front or a slash at the end.

    ``source`` holds the bytes of a file, and of a hard link; ``linkname`` is what the
    package has, and may point anywhere.
    """

    path: str
    type: FileType
    mode: int
    uid: int = 0
    gid: int = 0
    linkname: str = ""
    size: int = 0
    digest: str = ""
    source: pathlib.Path | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class DebFiles:
    """What is in a package: its members, by path, and its control data."""

    package: Package
    members: tuple[Member, ...]
    control: str
    conffiles: tuple[str, ...]


def paragraphs(text: str) -> Iterator[dict[str, str]]:
    """Each paragraph of a control file (deb822(5)); field names come in lower case.

    Lines that continue a field keep their line break and their leading space.
    """
    fields: dict[str, str] = {}
    name = ""
    for line in [*text.splitlines(), ""]:
        if line.startswith("#"):
            continue
        if not line.strip():
            if fields:
                yield fields
            fields, name = {}, ""
        elif line[0] in " \t":
            if name:
                fields[name] += "\n" + line.rstrip()
        else:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()


# The file format ----------------------------------------------------------------------


class _FormatError(Exception):
    """The file breaks the format; the text says how."""


_FORMAT_ERRORS = (
    _FormatError,
    tarfile.TarError,
    lzma.LZMAError,
    zlib.error,
    EOFError,
)


# Small pieces would have several threads wait for one another.
_BLOCK = 1 << 20


def _ar_members(data: bytes) -> dict[str, memoryview]:
    """The members of an ar archive, by name (ar(5); names are short ones in a .deb)."""
    if not data.startswith(b"!<arch>\n"):
        raise _FormatError("it is no ar archive")
    members: dict[str, memoryview] = {}
    offset = 8
    while offset < len(data):
        header = data[offset : offset + 60]
        size = header[48:58].strip()
        if len(header) < 60 or header[58:] != b"`\n" or not size.isdigit():
            raise _FormatError(f"its ar header at byte {offset} is damaged")
        name = header[:16].decode("ascii", "replace").rstrip().removesuffix("/")
        start, end = offset + 60, offset + 60 + int(size)
        if end > len(data):
            raise _FormatError(f"its member {printable(name)} is cut off")
        if name in members:
            raise _FormatError(f"it has two members {printable(name)}")
        members[name] = memoryview(data)[start:end]
        offset = end + end % 2
    return members


def _zstd(stream: IO[bytes]) -> IO[bytes]:
    """A stream that decompresses Zstandard, with whatever this Python has for it."""
    for module, attribute in (
        ("compression.zstd", "ZstdFile"),  # Python 3.14
        ("backports.zstd", "ZstdFile"),
        ("zstandard", "open"),
    ):
        try:
            opener: Any = getattr(importlib.import_module(module), attribute)
        except ImportError:
            continue
        return cast("IO[bytes]", opener(stream))
    raise TransportError(
        "this Python can't read packages that are compressed with Zstandard",
        "install zstandard or backports.zstd beside eggcrate",
    )


_DECOMPRESSORS: dict[str, Callable[[Any], Any]] = {
    "": lambda stream: stream,
    ".xz": lzma.open,
    ".gz": gzip.open,
    ".bz2": bz2.open,
    ".zst": _zstd,
}


def _open_tar(members: dict[str, memoryview], stem: str) -> tarfile.TarFile:
    for suffix, opener in _DECOMPRESSORS.items():
        if (data := members.get(stem + suffix)) is not None:
            stream = cast("IO[bytes]", opener(io.BytesIO(data)))
            return tarfile.open(
                fileobj=stream,
                mode="r|",
                bufsize=_BLOCK,
                encoding="utf-8",
                errors="surrogateescape",
            )
    raise _FormatError(f"it has no {stem} in a compression known here")


def _member_path(name: str) -> str:
    """The path of a tar member relative to the root, "" for the root itself."""
    path = name.removeprefix("./").rstrip("/")
    if path in ("", "."):
        return ""
    if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path:
        raise _FormatError(f"its member {name!r} leads out of the tree")
    return path


def _read_control(members: dict[str, memoryview]) -> tuple[str, tuple[str, ...]]:
    """The control paragraph and the conffiles."""
    texts: dict[str, str] = {}
    with _open_tar(members, "control.tar") as tar:
        for info in tar:
            path = _member_path(info.name)
            if path in ("control", "conffiles") and info.isreg():
                stream = tar.extractfile(info)
                assert stream is not None  # a regular file has one
                texts[path] = stream.read().decode("utf-8", "surrogateescape")
    if "control" not in texts:
        raise _FormatError("it has no control file")
    # "remove-on-upgrade /path" is the one flag there is (deb-conffiles(5))
    conffiles = (line.split()[-1] for line in texts.get("conffiles", "").splitlines() if line)
    return texts["control"], tuple(path.lstrip("/") for path in conffiles)


def _store(stream: IO[bytes], target: pathlib.Path) -> tuple[int, str]:
    """Copy a stream to a new file; give its size and SHA-256."""
    digest = hashlib.sha256()
    size = 0
    with target.open("xb") as output:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
            output.write(block)
    return size, digest.hexdigest()


def _read_data(members: dict[str, memoryview], files: pathlib.Path) -> list[Member]:
    """Every member of ``data.tar``; the bytes of files go below ``files``, numbered."""
    found: dict[str, Member] = {}
    with _open_tar(members, "data.tar") as tar:
        for info in tar:
            path = _member_path(info.name)
            if not path:
                continue
            if path in found:
                raise _FormatError(f"its member {printable(path)} is there twice")
            mode, uid, gid = info.mode & 0o7777, info.uid, info.gid
            if info.isdir():
                member = Member(path, FileType.DIRECTORY, mode, uid, gid)
            elif info.issym():
                member = Member(path, FileType.SYMLINK, 0o777, uid, gid, info.linkname)
            elif info.islnk():
                other = found.get(_member_path(info.linkname))
                if other is None or other.source is None:
                    raise _FormatError(
                        f"its hard link {printable(path)} shares no file before it"
                    )
                member = dataclasses.replace(
                    other, path=path, type=FileType.HARDLINK, linkname=other.path
                )
            elif info.isreg():
                stream = tar.extractfile(info)
                assert stream is not None  # a regular file has one
                source = files / str(len(found))
                size, digest = _store(stream, source)
                member = Member(
                    path, FileType.REGULAR, mode, uid, gid, "", size, digest, source
                )
            else:
                raise _FormatError(f"its member {printable(path)} is a device or a pipe")
            found[path] = member
    return sorted(found.values(), key=lambda member: os.fsencode(member.path))


# The store ----------------------------------------------------------------------------

# A change of what the index holds gets another number, so that old ones are made anew.
_INDEX = "index-2.json"


def deb_path(package: Package, store: pathlib.Path) -> pathlib.Path:
    """Where the store keeps a package's .deb file."""
    return store / f"{package.sha256}.deb"


def _unpacked_path(package: Package, store: pathlib.Path) -> pathlib.Path:
    return store / "unpacked" / package.sha256


def is_unpacked(package: Package, store: pathlib.Path) -> bool:
    """Whether ``unpack`` needs the .deb file no more."""
    return _load(package, _unpacked_path(package, store)) is not None


def are_unpacked(packages: Iterable[Package], store: pathlib.Path) -> bool:
    """Whether each package was unpacked; its files are digested when they are used."""
    return all((_unpacked_path(package, store) / _INDEX).exists() for package in packages)


def unpack_all(packages: Sequence[Package], store: pathlib.Path) -> list[DebFiles]:
    """What is in each of the packages; several are decompressed at a time."""
    # the largest first, so that none is left alone at the end
    order = sorted(packages, key=lambda package: -package.size)
    with ThreadPoolExecutor(cores()) as pool:
        found = dict(zip(order, pool.map(lambda p: unpack(p, store), order), strict=True))
    return [found[package] for package in packages]


def _load(package: Package, place: pathlib.Path) -> DebFiles | None:
    """What was unpacked before; None when it is not there or no longer whole."""
    try:
        digest, _, text = (place / _INDEX).read_bytes().partition(b"\n")
        if digest.decode() != hashlib.sha256(text).hexdigest():
            return None
        index = json.loads(text)
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(place)}
        members = tuple(
            Member(
                path,
                FileType(kind),
                mode,
                uid,
                gid,
                linkname,
                size,
                digest,
                place / source if source else None,
            )
            for path, kind, mode, uid, gid, linkname, size, digest, source in index["members"]
        )
        # A power cut leaves empty files, a cleaner of old files takes some of them.
        if any(m.source and sizes[m.source.name] != m.size for m in members):
            return None
        return DebFiles(package, members, index["control"], tuple(index["conffiles"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _save(deb: DebFiles, place: pathlib.Path) -> None:
    index = {
        "conffiles": deb.conffiles,
        "control": deb.control,
        "members": [
            (
                m.path,
                m.type.value,
                m.mode,
                m.uid,
                m.gid,
                m.linkname,
                m.size,
                m.digest,
                m.source.name if m.source else "",
            )
            for m in deb.members
        ],
    }
    # ASCII, so that names that are no UTF-8 survive as surrogate escapes
    text = json.dumps(index).encode("ascii")
    (place / _INDEX).write_bytes(f"{hashlib.sha256(text).hexdigest()}\n".encode() + text)


def unpack(package: Package, store: pathlib.Path) -> DebFiles:
    """What is in a package of the store; its .deb file is read only once.

    The bytes that are unpacked are the bytes whose digest was compared.
    """
    place = _unpacked_path(package, store)
    if (found := _load(package, place)) is not None:
        return found
    source = deb_path(package, store)
    try:
        data = source.read_bytes()
        if hashlib.sha256(data).hexdigest() != package.sha256:
            raise TransportError(
                f"the cached file of the Debian package {package} is damaged",
                "run again, to fetch it anew",
            )
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = pathlib.Path(tempfile.mkdtemp(prefix=".new-", dir=place.parent))
        try:
            members = _ar_members(data)
            if not bytes(members.get("debian-binary", b"")).startswith(b"2."):
                raise _FormatError("it is no package of format 2")
            control, conffiles = _read_control(members)
            _save(
                DebFiles(package, tuple(_read_data(members, fresh)), control, conffiles), fresh
            )
            fresh.chmod(0o755)  # the store may be shared; mkdtemp makes 0700
            _publish(fresh, package, place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        if error.errno is None:  # that is how bz2 and gzip say that their input is damaged
            raise _unusable(package, error) from error
        raise TransportError(
            f"the Debian package {package} can't be unpacked below {store}: {error.strerror}",
            "make room there, and see that it can be written",
        ) from error
    except _FORMAT_ERRORS as error:
        raise _unusable(package, error) from error
    unpacked = _load(package, place)
    assert unpacked is not None  # it has just been written
    return unpacked


def _unusable(package: Package, error: Exception) -> TransportError:
    return TransportError(
        f"the file of the Debian package {package} can't be unpacked: {error}", _ANOTHER
    )


def _publish(fresh: pathlib.Path, package: Package, place: pathlib.Path) -> None:
    """Give a complete directory its name, unless another build was quicker."""
    try:
        fresh.rename(place)
    except OSError:
        if not place.is_dir():
            raise
        if _load(package, place) is None:  # what is there is damaged
            broken = place.rename(fresh.with_name(fresh.name + "-broken"))
            fresh.rename(place)
            shutil.rmtree(broken, ignore_errors=True)


# Raise it whenever other entries come of the same packages.
FORMAT = 1

# The tree -----------------------------------------------------------------------------

# Merged /usr, and what base-files' postinst makes of two directories that it ships.
_LINKS = {
    "bin": "usr/bin",
    "lib": "usr/lib",
    "lib32": "usr/lib32",
    "lib64": "usr/lib64",
    "libx32": "usr/libx32",
    "sbin": "usr/sbin",
    "var/lock": "/run/lock",
    "var/run": "/run",
}

# Directories with these modes, whatever packages say: any user id keeps its files there.
_OPEN_DIRECTORIES = {"run": 0o1777, "run/lock": 0o1777, "tmp": 0o1777, "var/tmp": 0o1777}

_EMPTY_DIRECTORIES = ("home", "mnt", "opt", "srv", "usr/local/bin", "usr/local/lib")

# Files that a postinst copies when there is none, with their model.
_COPIES = (
    ("etc/nsswitch.conf", "usr/share/libc-bin/nsswitch.conf"),
    ("etc/nsswitch.conf", "usr/share/base-files/nsswitch.conf"),  # before bookworm
    ("etc/profile", "usr/share/base-files/profile"),
)

# The accounts that everything relies on, with Debian's static ids (base-passwd).
_USERS = """\
root:*:0:0:root:/root:/bin/sh
daemon:*:1:1:daemon:/usr/sbin:/usr/sbin/nologin
bin:*:2:2:bin:/bin:/usr/sbin/nologin
sys:*:3:3:sys:/dev:/usr/sbin/nologin
www-data:*:33:33:www-data:/var/www:/usr/sbin/nologin
nobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
"""
_GROUPS = """\
root:*:0:
daemon:*:1:
bin:*:2:
sys:*:3:
adm:*:4:
tty:*:5:
www-data:*:33:
staff:*:50:
users:*:100:
nogroup:*:65534:
"""

_DOCUMENTATION = re.compile(
    r"usr/share/(?:bug|doc|doc-base|info|linda|lintian|locale|man|menu)(?:/|$)"
)
# Licences oblige; a package's directory may be a link to another's.
_COPYRIGHT = re.compile(r"usr/share/doc/[^/]+(?:/copyright)?$")


def _is_left_out(member: Member) -> bool:
    if not _DOCUMENTATION.match(member.path):
        return False
    return member.type is FileType.DIRECTORY or not _COPYRIGHT.match(member.path)


def _replaced(deb: DebFiles) -> set[str]:
    """The names of packages whose files this one may take over.

    The versions that the field allows are not compared: where they do not fit, dpkg
    would not install the two packages beside each other either.
    """
    fields = next(paragraphs(deb.control), {})
    return set(re.findall(r"(?:^|,)\s*([a-z0-9][a-z0-9+.-]*)", fields.get("replaces", "")))


class _Tree:
    """The merged tree while it grows: entries by their path in the image."""

    def __init__(self, group: str) -> None:
        self.group = group
        self.entries: dict[str, FileEntry] = {}
        self.links = {
            path: symlink(path, linkname, group=group, reason="made as base-files makes it")
            for path, linkname in _LINKS.items()
        }
        self.owners: dict[str, DebFiles] = {}
        self.complaints: list[PlanError] = []

    def _points_to_itself(self, path: str, linkname: str) -> bool:
        """Whether merged /usr makes of a link what it points to: /bin/x -> /usr/bin/x."""
        target = posixpath.join("/", posixpath.dirname(path), linkname)
        return resolve(target, self.links) == path

    def add_links(self, debs: Iterable[DebFiles]) -> None:
        """Learn all links first: a path of one package may lead through another's."""
        found = [
            member
            for deb in debs
            for member in deb.members
            if member.type is FileType.SYMLINK and not _is_left_out(member)
        ]
        for member in sorted(found, key=lambda member: member.path.count("/")):
            path = resolve(member.path, self.links)
            if not self._points_to_itself(path, member.linkname):
                reason = "a package's link"
                self.links.setdefault(
                    path, symlink(path, member.linkname, group=self.group, reason=reason)
                )

    def add(self, deb: DebFiles) -> None:
        """Take a package's members, or note why they can't come in."""
        reason = f"package {deb.package}"
        for member in deb.members:
            if _is_left_out(member):
                continue
            path = resolve(member.path, self.links)
            kind = FileType.REGULAR if member.source else member.type
            if kind is FileType.DIRECTORY and path in self.links:
                continue  # dpkg keeps a link to a directory, too
            if kind is FileType.SYMLINK and self._points_to_itself(path, member.linkname):
                continue
            if member.mode & 0o6000:
                logger.debug("%s: set-id bits dropped from /%s", reason, path)
            entry = FileEntry(
                path,
                kind,
                member.mode & 0o1777,
                self.group,
                reason,
                source=os.fspath(member.source) if member.source else None,
                size=member.size,
                digest=member.digest,
                linkname="" if member.source else member.linkname,
                uid=member.uid,
                gid=member.gid,
            )
            if self._takes(path, entry, deb):
                self.entries[path] = entry
                self.owners[path] = deb

    def _takes(self, path: str, entry: FileEntry, deb: DebFiles) -> bool:
        old = self.entries.get(path)
        if old is None:
            return True
        same = (old.type, old.digest, old.linkname) == (
            entry.type,
            entry.digest,
            entry.linkname,
        )
        owner = self.owners[path]
        if same or deb.package.name in _replaced(owner):
            return False
        if owner.package.name in _replaced(deb):
            return True
        self.complaints.append(
            PlanError(
                f"the Debian packages {owner.package} and {deb.package} both have "
                f"/{printable(path)}, with different content",
                "leave one of them out of os-packages",
            )
        )
        return False

    def make(self, entry: FileEntry) -> None:
        """Take an entry that a rule makes, in the place of a package's."""
        self.entries[entry.path] = entry

    def text(self, path: str, data: str | bytes, rule: str) -> None:
        """Make a small file by a rule."""
        if isinstance(data, str):
            data = data.encode("utf-8", "surrogateescape")
        self.make(bytes_file(path, data, group=self.group, reason=rule))

    def read(self, path: str) -> bytes | None:
        """The bytes of a file that is in the tree."""
        entry = self.entries.get(path)
        if entry is None or entry.type is not FileType.REGULAR:
            return None
        with entry.open() as stream:
            data = stream.read()
        if hashlib.sha256(data).hexdigest() != entry.digest:
            raise TransportError(
                f"/{path} of the {entry.reason} is damaged in the cache at {entry.source}",
                "remove the directory that it is in, and run again",
            )
        return data

    def merged(self) -> tuple[FileEntry, ...]:
        """All entries, by path and with their parents; names that share a file are links."""
        names: dict[str, str] = {}
        entries: list[FileEntry] = []
        for path, entry in self.entries.items():
            if entry.source is not None:
                shared = names.setdefault(entry.source, path)
                if shared != path:
                    entry = dataclasses.replace(
                        entry, type=FileType.HARDLINK, source=None, size=0, digest="",
                        linkname=shared,
                    )  # fmt: skip
            entries.append(entry)
        return tuple(merge(entries).values())


def root_entries(
    packages: Iterable[DebFiles],
    *,
    group: str = "packages",
    user: str | None = "app",
    uid: int = 10001,
) -> tuple[FileEntry, ...]:
    """The file system that the packages make, as the entries of one layer, by path.

    /usr is merged; documentation, manual pages and translations are left out, copyright
    files are kept; set-id bits are dropped: no program of the image becomes root.
    ``user`` is one more account (and group), with the id ``uid`` and / as its home.

    Raises PlanError, for all paths at once, where two packages have different files.
    """
    # base-files comes first in every Debian, so its directories' modes win
    debs = sorted(
        packages, key=lambda deb: (deb.package.name != "base-files", deb.package.name)
    )
    tree = _Tree(group)
    tree.add_links(debs)
    for deb in debs:
        tree.add(deb)
    raise_all(tree.complaints)
    _make_directories(tree)
    _make_accounts(tree, user, uid)
    _make_certificates(tree)
    _make_copies(tree)
    _make_status(tree, debs)
    return tree.merged()


def _make_directories(tree: _Tree) -> None:
    """Links and directories that base-files' postinst and debootstrap make."""
    rule = "made as base-files makes it"
    for path, mode in _OPEN_DIRECTORIES.items():
        tree.make(directory(path, group=tree.group, reason=rule, mode=mode))
    used = {path.split("/")[1] for path in tree.entries if path.startswith("usr/")}
    for path in _LINKS:
        # /lib64 and its kin are there only on architectures that have them
        if path in ("bin", "lib", "sbin") or path.startswith("var/") or path in used:
            tree.make(tree.links[path])
    for path in (*_EMPTY_DIRECTORIES, "usr/bin", "usr/lib", "usr/sbin"):
        if path not in tree.entries:
            tree.make(directory(path, group=tree.group, reason=rule))


def _make_accounts(tree: _Tree, user: str | None, uid: int) -> None:
    rule = "made as base-passwd makes it"
    for path, builtin, line in (
        ("passwd", _USERS, f"{user}:*:{uid}:{uid}::/:/usr/sbin/nologin\n"),
        ("group", _GROUPS, f"{user}:*:{uid}:\n"),
    ):
        master = tree.read(f"usr/share/base-passwd/{path}.master")
        text = master.decode() if master else builtin
        if user and not re.search(f"^{re.escape(user)}:", text, re.MULTILINE):
            text += line
        tree.text(f"etc/{path}", text, rule)


def _make_certificates(tree: _Tree) -> None:
    """The CA bundle, as update-ca-certificates writes it."""
    rule = "made as ca-certificates makes it"
    names = sorted(
        path.removeprefix("usr/share/ca-certificates/")
        for path in tree.entries
        if path.startswith("usr/share/ca-certificates/") and path.endswith(".crt")
    )
    found = [tree.read(f"usr/share/ca-certificates/{name}") or b"" for name in names]
    if not found:
        return
    bundle = b"".join(data.rstrip(b"\n") + b"\n" for data in found)
    tree.text("etc/ssl/certs/ca-certificates.crt", bundle, rule)
    tree.text("etc/ca-certificates.conf", "".join(f"{name}\n" for name in names), rule)


def _make_copies(tree: _Tree) -> None:
    for path, model in _COPIES:
        data = tree.read(model)
        if data is not None and path not in tree.entries:
            tree.text(path, data, f"copied from /{model}")
    if "usr/share/zoneinfo/Etc/UTC" in tree.entries and "etc/localtime" not in tree.entries:
        linkname = "/usr/share/zoneinfo/Etc/UTC"
        rule = "made as tzdata makes it"
        tree.make(symlink("etc/localtime", linkname, group=tree.group, reason=rule))


def _make_status(tree: _Tree, debs: Iterable[DebFiles]) -> None:
    """dpkg's status file: scanners read from it what is in the image."""
    stanzas: list[str] = []
    for deb in sorted(debs, key=lambda deb: deb.package.name):
        first, _, rest = deb.control.rstrip("\n").partition("\n")
        stanzas.append(f"{first}\nStatus: install ok installed\n{rest}\n")
    if stanzas:
        tree.text("var/lib/dpkg/status", "\n".join(stanzas), "lists the packages")
