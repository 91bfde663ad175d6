"""What is really in an image, found from its files, as CycloneDX and SPDX documents."""

from __future__ import annotations

import bisect
import collections
import contextlib
import csv
import dataclasses
import email.message
import email.parser
import email.utils
import hashlib
import io
import json
import posixpath
import re
import time
import urllib.parse
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from eggcrate.image import oci
from eggcrate.image.layout import Image
from eggcrate.image.plan import FileEntry, FileType, printable, resolve

Read = Callable[[FileEntry], bytes]


@dataclasses.dataclass(frozen=True, slots=True)
class Component:
    """Something in one layer that has a name and a version of its own.

    ``kind`` is ``pypi`` (a Python distribution), ``deb`` (a Debian package), ``generic``
    (the packed interpreter) or ``oci`` (the base image, whose ``digest`` is its own).  What has
    the same name and version in one layer is one
    component with several ``locations``, the image paths that tell of it; the same in
    another layer is another component.  ``layer`` is an index into the image's layers.

    ``licences`` are SPDX expressions, or names as the component says them where they can't
    be mapped; none means that nothing is known.  ``digest`` is the hexadecimal SHA-256 of
    the lines "path digest", sorted, each ended by a newline, of the files of the component
    in its layer: paths from the image's root without a leading slash, hexadecimal SHA-256
    of the file's bytes, or "-> text" for a symbolic link; it is empty where no files are
    known to belong to the component.  ``dependencies`` are :attr:`ref` of others.
    """

    kind: str
    name: str
    version: str
    purl: str
    layer: int
    licences: tuple[str, ...] = ()
    digest: str = ""
    locations: tuple[str, ...] = ()
    supplier: str = ""
    dependencies: tuple[str, ...] = ()

    @property
    def ref(self) -> str:
        """What the component is called in documents of the image; layers count from 1."""
        return f"layer-{self.layer + 1}/{self.purl}"


def inventory(image: Image, read: Read) -> tuple[Component, ...]:
    """Every component of the image, in the order of layer, kind and package URL.

    The layers' plans must have their entries; ``read`` is given one of them, a regular file,
    and has its bytes.

    Dependencies are requirements without an extra whose markers hold on the image's platform
    and Python, and whose distributions are in the image.
    """
    tree = _Tree(image, read)
    found = (*_distributions(tree), *_packages(tree), *_interpreters(tree))
    drafts: dict[tuple[int, str, str], _Draft] = {}
    for draft in found:
        first = drafts.setdefault((draft.layer, draft.kind, draft.purl), draft)
        if first is not draft:
            first.take(draft)
    present: dict[tuple[str, str], list[_Draft]] = collections.defaultdict(list)
    for draft in drafts.values():
        for name in sorted(draft.provides):
            present[draft.kind, name].append(draft)
    components = [draft.component(tree, present) for draft in drafts.values()]
    components += _base(image)
    return tuple(sorted(components, key=lambda c: (c.layer, c.kind, c.purl)))


def _base(image: Image) -> Iterator[Component]:
    """The base image; nothing is said of what is in it."""
    if not image.base_digest:
        return
    name = oci.repository(image.base_name) or "base"
    where = {"repository_url": name} if image.base_name else None
    purl = _purl("oci", name.rpartition("/")[2], image.base_digest, where)
    digest = _hex(image.base_digest)
    yield Component("oci", name, image.base_digest, purl, 0, digest=digest)


@dataclasses.dataclass(slots=True)
class _Draft:
    """A component whose files and dependencies are still being found."""

    kind: str
    name: str
    version: str
    purl: str
    layer: int
    location: str
    files: set[str]
    licences: tuple[str, ...] = ()
    supplier: str = ""
    # alternatives, of which the first that is there counts
    requires: tuple[tuple[str, ...], ...] = ()
    provides: frozenset[str] = frozenset()
    others: list[_Draft] = dataclasses.field(default_factory=list)

    def take(self, other: _Draft) -> None:
        """Be the other one, too."""
        self.others.append(other)
        self.licences = self.licences or other.licences
        self.supplier = self.supplier or other.supplier

    def component(self, tree: _Tree, present: dict[tuple[str, str], list[_Draft]]) -> Component:
        all_ = (self, *self.others)
        refs = set()
        for alternatives in (item for draft in all_ for item in draft.requires):
            found = next(filter(None, (present.get((self.kind, a)) for a in alternatives)), [])
            # what lies in the same layer is nearer than the same in another environment
            near = [draft for draft in found if draft.layer == self.layer] or found
            refs |= {_ref(draft) for draft in near if draft is not self}
        return Component(
            self.kind,
            self.name,
            self.version,
            self.purl,
            self.layer,
            self.licences,
            tree.digest(set().union(*(draft.files for draft in all_))),
            tuple(sorted({f"/{printable(draft.location)}" for draft in all_})),
            self.supplier,
            tuple(sorted(refs)),
        )


def _ref(draft: _Draft) -> str:
    return Component(draft.kind, draft.name, draft.version, draft.purl, draft.layer).ref


class _Tree:
    """The files of an image as a container sees them, each with its layer."""

    def __init__(self, image: Image, read: Read) -> None:
        self._read = read
        self.machine = image.platform.architecture
        self.pythons: collections.Counter[str] = collections.Counter()
        self.entries: dict[str, FileEntry] = {}
        self.layer: dict[str, int] = {}
        for index, layer in enumerate(image.layers):
            for entry in layer.plan.entries:
                if entry.type is FileType.DIRECTORY and entry.path in self.entries:
                    continue  # each layer has the directories above its files
                self.entries[entry.path] = entry
                self.layer[entry.path] = index
        self._sorted = sorted(self.entries)
        self._groups: dict[tuple[int, str], list[str]] = collections.defaultdict(list)
        self._bytecode: dict[str, list[str]] = collections.defaultdict(list)
        for path, entry in self.entries.items():
            self._groups[self.layer[path], entry.group].append(path)
            if path.endswith(".pyc"):
                directory, _, name = path.rpartition("/__pycache__/")
                module, _, tag = name.partition(".cpython-3")
                self._bytecode[f"{directory}/{module}.py"].append(path)
                if (minor := tag.partition(".")[0]).isdecimal():
                    self.pythons[f"3.{minor}"] += 1

    def read(self, path: str) -> bytes | None:
        """The bytes of the file at ``path``, or None where none is; links are followed."""
        entry = self.entries.get(resolve(path, self.entries, last=True))
        if entry is not None and entry.type is FileType.HARDLINK:
            entry = self.entries.get(entry.linkname)
        if entry is None or entry.type is not FileType.REGULAR:
            return None
        return self._read(entry)

    def text(self, path: str) -> str:
        """The text of the file, or nothing."""
        return (self.read(path) or b"").decode("utf-8", "replace")

    def below(self, directory: str) -> Iterator[str]:
        """Every path below a directory."""
        prefix = f"{directory}/" if directory else ""
        for index in range(bisect.bisect_left(self._sorted, prefix), len(self._sorted)):
            if not self._sorted[index].startswith(prefix):
                break
            yield self._sorted[index]

    def group_of(self, path: str) -> list[str]:
        """Every path of the same group in the same layer."""
        return self._groups[self.layer[path], self.entries[path].group]

    def owned(self, paths: Iterable[str], layer: int) -> set[str]:
        """Those of the paths that are files of the layer, with the byte-code of modules."""
        found = set()
        for path in paths:
            for each in (path, *self._bytecode.get(path, ())):
                entry = self.entries.get(each)
                if entry is not None and entry.type is not FileType.DIRECTORY:
                    found.add(each)
        return {path for path in found if self.layer[path] == layer}

    def digest(self, paths: Iterable[str]) -> str:
        """One digest for the files, as :class:`Component` says."""
        lines = []
        for path in paths:
            entry = self.entries[path]
            if entry.type is FileType.HARDLINK:
                entry = self.entries[entry.linkname]
            content = f"-> {entry.linkname}" if entry.linkname else entry.digest
            lines.append(f"{path} {content}\n".encode("utf-8", "surrogateescape"))
        return hashlib.sha256(b"".join(sorted(lines))).hexdigest() if lines else ""


# Python distributions

_METADATA = re.compile(r"(?:^|/)(?:[^/]*\.dist-info/METADATA|[^/]*\.egg-info/PKG-INFO"
                       r"|EGG-INFO/PKG-INFO|[^/]+\.egg-info|[^/]+\.egg)$")  # fmt: skip
# what is not said, by tools that must say something
_UNKNOWN = ("", "unknown", "none")


def _distributions(tree: _Tree) -> Iterator[_Draft]:
    environment = _environment(tree)
    for path, entry in tree.entries.items():
        if not _METADATA.search(path) or entry.type is FileType.DIRECTORY:
            continue
        text = _zipped(tree, path) if path.endswith(".egg") else tree.text(path)
        # compat32 reads whatever is there; only the head counts
        metadata = email.parser.HeaderParser().parsestr(text)
        name, version = _field(metadata, "Name"), _field(metadata, "Version")
        canonical = re.sub(r"[-_.]+", "-", name).lower()
        if not canonical:
            continue  # every distribution has a name (PyPA: core metadata)
        layer = tree.layer[path]
        lines = _requirements(tree, path, metadata)
        yield _Draft(
            "pypi",
            name,
            version,
            _purl("pypi", canonical, version),
            layer,
            path,
            tree.owned(_files_of(tree, path), layer),
            _python_licences(metadata),
            _python_supplier(metadata),
            tuple((required,) for required in _required(lines, environment)),
            frozenset((canonical,)),
        )


def _field(metadata: email.message.Message, name: str) -> str:
    value = " ".join(str(metadata.get(name) or "").split())
    return "" if value.lower() in _UNKNOWN else value


def _zipped(tree: _Tree, path: str) -> str:
    """The metadata of an egg that is one file."""
    try:
        with zipfile.ZipFile(io.BytesIO(tree.read(path) or b"")) as archive:
            return archive.read("EGG-INFO/PKG-INFO").decode("utf-8", "replace")
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, RuntimeError):
        return ""


def _files_of(tree: _Tree, path: str) -> Iterator[str]:
    """The paths that belong to the distribution of a metadata file, in the image or not."""
    directory = posixpath.dirname(path)
    top = posixpath.dirname(directory)
    yield path
    if path.endswith((".egg-info", ".egg")):
        return  # nothing else is said of its files
    yield from tree.below(directory)
    for name, start in (("RECORD", top), ("installed-files.txt", directory)):
        if listed := tree.read(f"{directory}/{name}"):
            text = listed.decode("utf-8", "surrogateescape").replace("\0", "")
            with contextlib.suppress(csv.Error):
                for row in csv.reader(io.StringIO(text)):
                    path = posixpath.join(start, row[0]) if row else ""
                    yield posixpath.normpath(path).lstrip("/")
            return
    if top.endswith(".egg"):
        yield from tree.below(top)
    elif " " in tree.entries[path].group:
        yield from tree.group_of(path)  # "egg NAME-VERSION", "develop NAME"
    else:
        for name in tree.text(f"{directory}/top_level.txt").split():
            yield from (f"{top}/{name}.py", *tree.below(f"{top}/{name}"))


def _environment(tree: _Tree) -> dict[str, str]:
    """What markers see in the image (PyPA: dependency specifiers), nothing of this machine."""
    machines = {"386": "i686", "amd64": "x86_64", "arm": "armv7l", "arm64": "aarch64"}
    # an image without byte-code, which has hardly a marker, is taken for the oldest Python
    version = max(tree.pythons, key=lambda name: tree.pythons[name], default="3.10")
    return {
        "extra": "",
        "implementation_name": "cpython",
        "implementation_version": f"{version}.0",
        "os_name": "posix",
        "platform_machine": machines.get(tree.machine, tree.machine),
        "platform_python_implementation": "CPython",
        "platform_release": "",
        "platform_system": "Linux",
        "platform_version": "",
        "python_full_version": f"{version}.0",
        "python_version": version,
        "sys_platform": "linux",
    }


def _requirements(tree: _Tree, path: str, metadata: email.message.Message) -> Iterator[str]:
    """The requirements of a distribution, with markers."""
    if lines := metadata.get_all("Requires-Dist"):
        yield from map(str, lines)
    elif path.endswith("/PKG-INFO"):
        # setuptools: a section has an extra, a marker after a colon, or both
        marker = ""
        for line in tree.text(f"{posixpath.dirname(path)}/requires.txt").splitlines():
            if line.startswith("["):
                extra, _, marker = line.strip().strip("[]").partition(":")
                marker = 'extra == "other"' if extra else marker
            elif line.strip():
                yield f"{line} ; {marker}" if marker else line


def _required(lines: Iterable[str], environment: dict[str, str]) -> Iterator[str]:
    from packaging.markers import UndefinedComparison, UndefinedEnvironmentName
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.version import InvalidVersion

    wrong = (InvalidRequirement, InvalidVersion, UndefinedComparison, UndefinedEnvironmentName)
    for line in lines:
        # of brackets there may be many
        with contextlib.suppress(*wrong, RecursionError):
            requirement = Requirement(line)
            if requirement.marker is None or requirement.marker.evaluate(environment):
                yield re.sub(r"[-_.]+", "-", requirement.name).lower()


def _python_supplier(metadata: email.message.Message) -> str:
    """Who wrote it, by name: what an installer has from whom is not said in the image."""
    for name in ("Author", "Maintainer"):
        if value := _field(metadata, name):
            return "" if "@" in value else value
        for shown, _ in email.utils.getaddresses([_field(metadata, f"{name}-email")]):
            if shown:
                return shown
    return ""


# Debian packages

_SOURCE = re.compile(r"([^\s(]+)(?:\s*\((.+)\))?")


def _paragraphs(text: str) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file (deb822(5)), by the fields' names in lower case."""
    for paragraph in re.split(r"\n[ \t]*\n", text.replace("\r\n", "\n")):
        fields: dict[str, str] = {}
        last = ""
        for line in paragraph.splitlines():
            if line[:1] in (" ", "\t") and last:
                fields[last] += f"\n{line.strip()}"
            elif not line.startswith("#"):
                name, found, value = line.partition(":")
                if found:
                    last = name.strip().lower()
                    fields[last] = value.strip()
        if fields:
            yield fields


def _packages(tree: _Tree) -> Iterator[_Draft]:
    system = _system(tree)
    listed = [
        path
        for path in tree.below("var/lib/dpkg")
        if path == "var/lib/dpkg/status"
        or (path.startswith("var/lib/dpkg/status.d/") and not path.endswith(".md5sums"))
    ]
    if not listed:
        return
    reasons: dict[str, list[str]] = collections.defaultdict(list)
    for path, entry in tree.entries.items():
        if entry.reason.startswith("package "):
            reasons[entry.reason].append(path)
    for path in listed:
        for fields in _paragraphs(tree.text(path)):
            state = fields.get("status", "installed").split()
            if "package" not in fields or state[-1:] in (["not-installed"], ["config-files"]):
                continue
            name, version = fields["package"], fields.get("version", "")
            files = reasons.get(f"package {name} {version}") or [*_listed(tree, fields)]
            files = [file for file in files if file in tree.entries]
            layer = min(
                (
                    tree.layer[file]
                    for file in files
                    if tree.entries[file].type is not FileType.DIRECTORY
                ),
                default=tree.layer[path],
            )
            yield _Draft(
                "deb",
                name,
                version,
                _debian_purl(system, fields),
                layer,
                path,
                tree.owned(files, layer),
                _debian_licences(tree.text(f"usr/share/doc/{name}/copyright")),
                fields.get("maintainer", "").partition("<")[0].strip(' "\n'),
                tuple(_debian_requires(fields)),
                frozenset((name, *_names(fields.get("provides", "")))),
            )


def _system(tree: _Tree) -> dict[str, str]:
    """What the image says of its distribution (os-release(5))."""
    text = tree.text("etc/os-release") or tree.text("usr/lib/os-release")
    return {
        name.strip(): value.strip().strip("\"'")
        for name, found, value in (line.partition("=") for line in text.splitlines())
        if found
    }


def _debian_purl(system: dict[str, str], fields: dict[str, str]) -> str:
    namespace = system.get("ID", "debian")
    qualifiers = {"arch": fields.get("architecture", "")}
    if version := system.get("VERSION_ID") or system.get("VERSION_CODENAME"):
        qualifiers["distro"] = f"{namespace}-{version}"
    # Debian's own lists of vulnerabilities go by the source package
    if source := _SOURCE.match(fields.get("source", "")):
        qualifiers["upstream"] = "@".join(filter(None, source.groups()))
    version = fields.get("version", "")
    return _purl(f"deb/{_quoted(namespace)}", fields["package"], version, qualifiers)


def _names(relation: str) -> Iterator[str]:
    """The packages that a relation's field names, without versions (deb-control(5))."""
    for item in re.split(r"[,|]", relation):
        if match := re.match(r"\s*([a-zA-Z0-9][a-zA-Z0-9+.-]*)", item):
            yield match[1]


def _debian_requires(fields: dict[str, str]) -> Iterator[tuple[str, ...]]:
    for name in ("pre-depends", "depends"):
        for item in fields.get(name, "").split(","):
            if alternatives := tuple(_names(item)):
                yield alternatives


def _listed(tree: _Tree, fields: dict[str, str]) -> Iterator[str]:
    """The files of a package as dpkg keeps them, or an image without dpkg."""
    name, architecture = fields["package"], fields.get("architecture", "")
    for kept in (f"{name}.list", f"{name}:{architecture}.list"):
        for line in tree.text(f"var/lib/dpkg/info/{kept}").splitlines():
            yield resolve(line, tree.entries)
    for line in tree.text(f"var/lib/dpkg/status.d/{name}.md5sums").splitlines():
        yield resolve(line.partition("  ")[2], tree.entries)


# The interpreter

_PROGRAM = re.compile(r"usr/local/bin/python(3\.\d+)")


def _interpreters(tree: _Tree) -> Iterator[_Draft]:
    for path, entry in tree.entries.items():
        match = _PROGRAM.fullmatch(path)
        if not match or entry.group != "python" or entry.type is not FileType.REGULAR:
            continue
        files = [
            file for file in tree.group_of(path) if not file.startswith("usr/lib/eggcrate/")
        ]
        version = _python_version(tree, match[1], path, files)
        licence = tree.text(f"usr/local/lib/python{match[1]}/LICENSE.txt")
        layer = tree.layer[path]
        yield _Draft(
            "generic",
            "python",
            version,
            _purl("generic", "python", version),
            layer,
            path,
            tree.owned(files, layer),
            ("PSF-2.0",) if "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in licence else (),
            provides=frozenset(("python",)),
        )


def _python_version(tree: _Tree, short: str, program: str, files: Sequence[str]) -> str:
    """The version of a packed interpreter in full, as far as its files tell.

    It stands in ``patchlevel.h``, which is seldom packed, and in the program or its library,
    where a linker may let it be the end of a longer string.
    """
    number = re.escape(short) + r"\.\d+(?:(?:a|b|rc)\d+)?"
    header = tree.text(f"usr/local/include/python{short}/patchlevel.h")
    if match := re.search(rf'#define\s+PY_VERSION\s+"({number})\+?"', header):
        return match[1]
    library = f"/libpython{short}"
    for path in (program, *sorted(file for file in files if library in f"/{file}")):
        data = tree.read(path) or b""
        if found := re.search(rb"(?<![0-9.])(%b)\+?\0" % number.encode(), data):
            return found[1].decode()
    return short


# Package URLs (the package-url specification)


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe=":")


def _purl(type_: str, name: str, version: str, qualifiers: dict[str, str] | None = None) -> str:
    purl = f"pkg:{type_}/{_quoted(name)}"
    if version:
        purl += f"@{_quoted(version)}"
    query = "&".join(
        f"{key}={urllib.parse.quote(value, safe=':/')}"
        for key, value in sorted((qualifiers or {}).items())
        if value
    )
    return f"{purl}?{query}" if query else purl


def _image_purl(image: Image) -> str:
    if not image.references:
        return ""
    reference = image.references[0]
    repository = f"{without_credentials(reference.host)}/{reference.path}"
    return _purl(
        "oci",
        reference.path.rpartition("/")[2],
        image.manifest.digest,
        {"repository_url": repository, "tag": reference.tag},
    )


def without_credentials(text: str) -> str:
    """The host of a reference without a user and a password before it."""
    return text.rpartition("@")[2]


# Licences

# Those of the SPDX licence list that distributions and packages name
_LISTED = """
    0BSD AFL-2.0 AFL-2.1 AFL-3.0 AGPL-3.0-only AGPL-3.0-or-later Apache-1.0 Apache-1.1
    Apache-2.0 Artistic-1.0 Artistic-1.0-Perl Artistic-2.0 BlueOak-1.0.0 BSD-1-Clause
    BSD-2-Clause BSD-2-Clause-Patent BSD-3-Clause BSD-3-Clause-Clear BSD-4-Clause
    BSD-4-Clause-UC BSL-1.0 bzip2-1.0.6 CC-BY-3.0 CC-BY-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0
    CDDL-1.0 CECILL-2.1 CECILL-B CECILL-C CNRI-Python curl ECL-2.0 EPL-1.0 EPL-2.0 EUPL-1.1
    EUPL-1.2 FSFAP FSFUL FSFULLR FTL GFDL-1.1-only GFDL-1.1-or-later GFDL-1.2-only
    GFDL-1.2-or-later GFDL-1.3-no-invariants-only GFDL-1.3-no-invariants-or-later
    GFDL-1.3-only GFDL-1.3-or-later GPL-1.0-only GPL-1.0-or-later GPL-2.0-only
    GPL-2.0-or-later GPL-3.0-only GPL-3.0-or-later HPND ICU IJG ISC LGPL-2.0-only
    LGPL-2.0-or-later LGPL-2.1-only LGPL-2.1-or-later LGPL-3.0-only LGPL-3.0-or-later Libpng
    MIT MIT-0 MIT-CMU MPL-1.0 MPL-1.1 MPL-2.0 MS-PL MulanPSL-2.0 NCSA NIST-PD OFL-1.1
    OLDAP-2.8 OpenSSL OSL-3.0 PostgreSQL PSF-2.0 Python-2.0 Python-2.0.1 QPL-1.0 Ruby
    Sleepycat TCL Unicode-3.0 Unicode-DFS-2016 Unlicense UPL-1.0 W3C WTFPL X11 Xnet Zlib
    ZPL-1.1 ZPL-2.0 ZPL-2.1
"""
_LISTED_EXCEPTIONS = """
    Autoconf-exception-2.0 Autoconf-exception-3.0 Bison-exception-2.2 Classpath-exception-2.0
    GCC-exception-2.0 GCC-exception-3.1 Libtool-exception Linux-syscall-note LLVM-exception
    openvpn-openssl-exception
"""
_IDENTIFIERS = {identifier.lower(): identifier for identifier in _LISTED.split()}
_EXCEPTIONS = {identifier.lower(): identifier for identifier in _LISTED_EXCEPTIONS.split()}

# What people write in License, without the words that say nothing
_WRITTEN = {
    "agplv3": "AGPL-3.0-only",
    "agplv3+": "AGPL-3.0-or-later",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache software 2.0": "Apache-2.0",
    "apache2": "Apache-2.0",
    "2 clause bsd": "BSD-2-Clause",
    "bsd 2 clause": "BSD-2-Clause",
    "simplified bsd": "BSD-2-Clause",
    "3 clause bsd": "BSD-3-Clause",
    "bsd 3 clause": "BSD-3-Clause",
    "modified bsd": "BSD-3-Clause",
    "new bsd": "BSD-3-Clause",
    "expat": "MIT",
    "gpl 2": "GPL-2.0-only",
    "gpl 3": "GPL-3.0-only",
    "gplv2": "GPL-2.0-only",
    "gplv2+": "GPL-2.0-or-later",
    "gplv3": "GPL-3.0-only",
    "gplv3+": "GPL-3.0-or-later",
    "iscl": "ISC",
    "lgplv2+": "LGPL-2.0-or-later",
    "lgplv2.1": "LGPL-2.1-only",
    "lgplv2.1+": "LGPL-2.1-or-later",
    "lgplv3": "LGPL-3.0-only",
    "lgplv3+": "LGPL-3.0-or-later",
    "mozilla public 2.0": "MPL-2.0",
    "mpl 2.0": "MPL-2.0",
    "psf": "PSF-2.0",
    "python software foundation": "PSF-2.0",
    "zope public 2.1": "ZPL-2.1",
    "zpl 2.1": "ZPL-2.1",
    "zpl2.1": "ZPL-2.1",
}
# Classifiers that mean one licence; many don't, "BSD License" for instance (PEP 639)
_CLASSIFIED = {
    "Boost Software License 1.0 (BSL-1.0)": "BSL-1.0",
    "CC0 1.0 Universal (CC0 1.0) Public Domain Dedication": "CC0-1.0",
    "Eclipse Public License 1.0 (EPL-1.0)": "EPL-1.0",
    "Eclipse Public License 2.0 (EPL-2.0)": "EPL-2.0",
    "European Union Public Licence 1.2 (EUPL 1.2)": "EUPL-1.2",
    "GNU Affero General Public License v3": "AGPL-3.0-only",
    "GNU Affero General Public License v3 or later (AGPLv3+)": "AGPL-3.0-or-later",
    "GNU General Public License v2 (GPLv2)": "GPL-2.0-only",
    "GNU General Public License v2 or later (GPLv2+)": "GPL-2.0-or-later",
    "GNU General Public License v3 (GPLv3)": "GPL-3.0-only",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "GNU Lesser General Public License v2 (LGPLv2)": "LGPL-2.0-only",
    "GNU Lesser General Public License v2 or later (LGPLv2+)": "LGPL-2.0-or-later",
    "GNU Lesser General Public License v3 (LGPLv3)": "LGPL-3.0-only",
    "GNU Lesser General Public License v3 or later (LGPLv3+)": "LGPL-3.0-or-later",
    "Historical Permission Notice and Disclaimer (HPND)": "HPND",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 1.1 (MPL 1.1)": "MPL-1.1",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "SIL Open Font License 1.1 (OFL-1.1)": "OFL-1.1",
    "The Unlicense (Unlicense)": "Unlicense",
    "Universal Permissive License (UPL)": "UPL-1.0",
    "zlib/libpng License": "Zlib",
}
# Debian's short names (copyright-format 1.0) that SPDX calls something else
_DEBIAN_NAMES = {
    "apache-2": "Apache-2.0",
    "expat": "MIT",
    "gfdl-niv-1.3": "GFDL-1.3-no-invariants-only",
    "gfdl-niv-1.3+": "GFDL-1.3-no-invariants-or-later",
    "python-2.0": "Python-2.0",
    "zope-2.1": "ZPL-2.1",
}
_GNU = re.compile(r"(agpl|gfdl|gpl|lgpl)-(\d(?:\.\d)?)(\+?)")


def _identifier(word: str) -> str:
    return _IDENTIFIERS.get(word.lower(), "")


def _debian_identifier(word: str) -> str:
    word = word.lower()
    if match := _GNU.fullmatch(word):
        version = match[2] if "." in match[2] else f"{match[2]}.0"
        word = f"{match[1]}-{version}-{'or-later' if match[3] else 'only'}"
    return _DEBIAN_NAMES.get(word) or _identifier(word)


def _expression(text: str, identifier: Callable[[str], str] = _identifier) -> str:
    """The SPDX expression that ``text`` is, or nothing where it is none (SPDX 2.3, annex D)."""
    words: list[str] = []
    shape = ""
    for word in re.findall(r"[()]|[^\s()]+", text):
        if word in "()":
            shape += word
        elif word.upper() in ("AND", "OR", "WITH"):
            word = word.upper()
            shape += "w" if word == "WITH" else "&"
        elif shape.endswith("w"):
            word = _EXCEPTIONS.get(word.lower(), "")
            shape += "x" if word else "?"
        else:
            word = identifier(word)
            shape += "l" if word else "?"
        words.append(word)
    while (shorter := re.sub(r"lwx|\(l\)|l&l", "l", shape)) != shape:
        shape = shorter
    return " ".join(words).replace("( ", "(").replace(" )", ")") if shape == "l" else ""


def _python_licences(metadata: email.message.Message) -> tuple[str, ...]:
    """What a distribution says of its licence (PEP 639, and what was before it)."""
    if said := _field(metadata, "License-Expression"):
        return (_expression(said) or said,)
    written = str(metadata.get("License") or "").strip()
    short = "" if len(written) > 80 or "\n" in written else _field(metadata, "License")
    words = re.sub(r"\b(the|licen[cs]e|version|v(?=\.? ?\d))\b|[,()\"-]", " ", short.lower())
    plain = " ".join(words.split())
    if known := _expression(short) or _WRITTEN.get(plain) or _expression(plain):
        return (known,)
    classifiers = [str(value) for value in metadata.get_all("Classifier", ())]
    names = {
        value.rpartition(" :: ")[2]
        for value in classifiers
        if value.startswith("License :: ") and value != "License :: OSI Approved"
    }
    if short and not (names and names <= _CLASSIFIED.keys()):
        return (short,)
    return tuple(sorted({_CLASSIFIED.get(name, name) for name in names}))


def _debian_licences(copyright_file: str) -> tuple[str, ...]:
    """What a machine-readable copyright file says, if every short name of it is known."""
    paragraphs = list(_paragraphs(copyright_file))
    if not paragraphs or "copyright-format" not in paragraphs[0].get("format", ""):
        return ()
    names = {
        fields["license"].partition("\n")[0]
        for number, fields in enumerate(paragraphs)
        if "license" in fields and (not number or "files" in fields)
    }
    found = {_expression(name, _debian_identifier) for name in names}
    return () if "" in found else tuple(sorted(found))


def _one_expression(licences: Sequence[str]) -> str:
    """All of the licences in one expression."""
    if len(licences) == 1:
        return licences[0]
    return " AND ".join(f"({text})" if " OR " in text else text for text in licences)


# Documents

# of this project's names for documents
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:eggcrate:sbom")
_HOW = "SHA-256 over the sorted lines PATH DIGEST of its files in the image"


@dataclasses.dataclass(frozen=True, slots=True)
class _Subject:
    """What a document is about: an image, or one of its layers."""

    name: str
    version: str
    digest: str
    ref: str
    purl: str
    uuid: uuid.UUID


def image_name(image: Image) -> str:
    """The repository as people write it, or "image" for one without a name."""
    if not image.references:
        return "image"
    reference = dataclasses.replace(
        image.references[0], host=without_credentials(image.references[0].host)
    )
    return reference.familiar.removesuffix(f":{reference.tag}")


def _subject(image: Image, layer: int | None) -> _Subject:
    name, digest = image_name(image), image.manifest.digest
    if layer is None:
        uuid_ = uuid.uuid5(_NAMESPACE, digest)
        return _Subject(name, digest, _hex(digest), "image", _image_purl(image), uuid_)
    part = image.layers[layer]
    return _Subject(
        f"{name}, layer {layer + 1}: {part.plan.name}",
        part.diff_id,
        _hex(part.descriptor.digest),
        f"layer-{layer + 1}",
        "",
        uuid.uuid5(_NAMESPACE, f"{digest} {layer + 1} {part.diff_id}"),
    )


def _hex(digest: str) -> str:
    return digest.partition(":")[2]


def _time(epoch: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))


def _chosen(components: Iterable[Component], layer: int | None) -> list[Component]:
    chosen = [one for one in components if layer is None or one.layer == layer]
    return sorted(chosen, key=lambda one: one.ref)


def _document(value: dict[str, Any]) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"


def cyclonedx(
    image: Image,
    components: Iterable[Component],
    *,
    epoch: int,
    builder_version: str,
    layer: int | None = None,
) -> bytes:
    """The CycloneDX 1.6 document (JSON) of the image, or of one of its layers.

    ``epoch`` is the only time in it, in seconds since 1970; ``builder_version`` is
    eggcrate's.  ``layer`` is an index: its document has the layer's components and the
    dependencies among them.  The same image, arguments and components give the same bytes.
    """
    subject = _subject(image, layer)
    chosen = _chosen(components, layer)
    refs = {component.ref for component in chosen}
    about: dict[str, Any] = {
        "type": "container",
        "bom-ref": subject.ref,
        "name": subject.name,
        "version": subject.version,
        "hashes": [{"alg": "SHA-256", "content": subject.digest}],
    }
    if subject.purl:
        about["purl"] = subject.purl
    tool = {"type": "application", "name": "eggcrate", "version": builder_version}
    dependencies: dict[str, set[str]] = {subject.ref: refs}
    for component in chosen:
        dependencies[component.ref] = refs.intersection(component.dependencies)
    return _document(
        {
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "serialNumber": f"urn:uuid:{subject.uuid}",
            "version": 1,
            "metadata": {
                "timestamp": _time(epoch),
                "lifecycles": [{"phase": "build"}],
                "tools": {"components": [tool]},
                "component": about,
            },
            "components": [_cyclonedx_component(image, component) for component in chosen],
            "dependencies": [
                {"ref": ref, "dependsOn": sorted(dependencies[ref])}
                for ref in sorted(dependencies)
            ],
        }
    )


def _cyclonedx_component(image: Image, component: Component) -> dict[str, Any]:
    layer = image.layers[component.layer]
    value: dict[str, Any] = {
        "type": {"generic": "platform", "oci": "container"}.get(component.kind, "library"),
        "bom-ref": component.ref,
        "name": component.name,
        "version": component.version,
        "purl": component.purl,
        "cpe": _cpe(component),
        "licenses": _cyclonedx_licences(component.licences),
        "supplier": {"name": component.supplier} if component.supplier else {},
        "evidence": {"occurrences": [{"location": path} for path in component.locations]},
        "properties": [
            {"name": "eggcrate:layer:diffID", "value": layer.diff_id},
            {"name": "eggcrate:layer:digest", "value": layer.descriptor.digest},
            {"name": "eggcrate:layer:index", "value": str(component.layer)},
        ],
    }
    if component.digest:
        value["hashes"] = [{"alg": "SHA-256", "content": component.digest}]
        if component.kind != "oci":
            value["properties"].insert(0, {"name": "eggcrate:hash", "value": _HOW})
    return {key: item for key, item in value.items() if item}


def _cpe(component: Component) -> str:
    """What lists of vulnerabilities call the interpreter, which has no package of its own."""
    if component.kind != "generic" or not component.version:
        return ""
    return f"cpe:2.3:a:python:python:{component.version}:*:*:*:*:*:*:*"


def _cyclonedx_licences(licences: Sequence[str]) -> list[dict[str, Any]]:
    if any(" " in text for text in licences) and all(map(_expression, licences)):
        return [{"expression": _one_expression(licences)}]
    return [
        {"license": {"id": text} if _identifier(text) == text else {"name": text}}
        for text in licences
    ]


def spdx(
    image: Image,
    components: Iterable[Component],
    *,
    epoch: int,
    builder_version: str,
    layer: int | None = None,
) -> bytes:
    """The SPDX 2.3 document (JSON) of the image, or of one of its layers.

    It has a package for the image, for each layer and for each component, and says which
    contains and which depends on which.  The arguments are those of :func:`cyclonedx`.
    """
    subject = _subject(image, layer)
    chosen = _chosen(components, layer)
    ids = {component.ref: _spdx_id(component) for component in chosen}
    numbers = range(len(image.layers)) if layer is None else (layer,)
    packages = [_spdx_layer(image, number) for number in numbers]
    if layer is None:
        described = "SPDXRef-Image"
        packages.append(_spdx_subject(described, subject, "CONTAINER"))
        edges = {(described, "CONTAINS", f"SPDXRef-Layer-{n + 1}") for n in numbers}
    else:
        described, edges = f"SPDXRef-Layer-{layer + 1}", set()
    edges.add(("SPDXRef-DOCUMENT", "DESCRIBES", described))
    unlisted: dict[str, str] = {}
    for component in chosen:
        id_ = ids[component.ref]
        packages.append(_spdx_package(image, id_, component, unlisted))
        edges.add((f"SPDXRef-Layer-{component.layer + 1}", "CONTAINS", id_))
        for ref in component.dependencies:
            if ref in ids:
                edges.add((id_, "DEPENDS_ON", ids[ref]))
    value: dict[str, Any] = {
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": subject.name,
        "documentNamespace": f"urn:uuid:{uuid.uuid5(subject.uuid, 'spdx')}",
        "creationInfo": {
            "created": _time(epoch),
            "creators": [f"Tool: eggcrate-{builder_version}"],
        },
        "packages": sorted(packages, key=lambda package: str(package["SPDXID"])),
        "relationships": [
            {"spdxElementId": one, "relationshipType": kind, "relatedSpdxElement": other}
            for one, kind, other in sorted(edges)
        ],
    }
    if unlisted:
        value["hasExtractedLicensingInfos"] = [
            {"licenseId": id_, "name": name, "extractedText": name}
            for id_, name in sorted(unlisted.items())
        ]
    return _document(value)


def _spdx_id(component: Component) -> str:
    name = re.sub(r"[^A-Za-z0-9.]+", "-", component.name).strip("-")
    unique = hashlib.sha256(component.ref.encode()).hexdigest()[:16]
    return f"SPDXRef-Package-{component.kind}-{name}-{unique}"


def _spdx_subject(id_: str, subject: _Subject, purpose: str) -> dict[str, Any]:
    value: dict[str, Any] = {
        "SPDXID": id_,
        "name": subject.name,
        "versionInfo": subject.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "checksums": [{"algorithm": "SHA256", "checksumValue": subject.digest}],
        "primaryPackagePurpose": purpose,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "copyrightText": "NOASSERTION",
    }
    if subject.purl:
        value["externalRefs"] = [_external("PACKAGE-MANAGER", "purl", subject.purl)]
    return value


def _spdx_layer(image: Image, layer: int) -> dict[str, Any]:
    return _spdx_subject(f"SPDXRef-Layer-{layer + 1}", _subject(image, layer), "ARCHIVE")


def _external(category: str, type_: str, locator: str) -> dict[str, str]:
    return {
        "referenceCategory": category,
        "referenceType": type_,
        "referenceLocator": locator,
    }


# names of those who are several
_SEVERAL = re.compile(
    r"(?i)\b(contributors|corporation|developers|foundation|group|inc|ltd|llc|maintainers"
    r"|packagers|project|team)\b"
)


def _spdx_package(
    image: Image, id_: str, component: Component, unlisted: dict[str, str]
) -> dict[str, Any]:
    """The package of a component; licences that SPDX doesn't list are added to the others."""
    licences = []
    for text in component.licences:
        if not (known := _expression(text)):
            slug = re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-")[:40].strip("-.")
            unique = hashlib.sha256(text.encode()).hexdigest()[:8]
            known = f"LicenseRef-{slug or 'unnamed'}-{unique}"
            unlisted[known] = text
        licences.append(known)
    references = [_external("PACKAGE-MANAGER", "purl", component.purl)]
    if cpe := _cpe(component):
        references.append(_external("SECURITY", "cpe23Type", cpe))
    value: dict[str, Any] = {
        "SPDXID": id_,
        "name": component.name,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": False,
        "externalRefs": references,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": _one_expression(licences) if licences else "NOASSERTION",
        "copyrightText": "NOASSERTION",
        "sourceInfo": (
            "the image that this one is built on"
            if component.kind == "oci"
            else f"found in {', '.join(component.locations)} in layer {component.layer + 1}, "
            f"diff id {image.layers[component.layer].diff_id}"
        ),
    }
    if component.version:
        value["versionInfo"] = component.version
    if supplier := re.sub(r"[()]", " ", component.supplier).strip():
        kind = "Organization" if _SEVERAL.search(supplier) else "Person"
        value["supplier"] = f"{kind}: {supplier}"
    if component.digest:
        value["checksums"] = [{"algorithm": "SHA256", "checksumValue": component.digest}]
        if component.kind != "oci":
            value["comment"] = f"The checksum is {_HOW}."
    return value
