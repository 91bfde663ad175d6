"""Whether an image is what the specifications ask for, recomputed from its bytes.

Independent of the code under test: standard library only, written from the OCI
image-spec 1.1 and from what ``docker load`` reads.
"""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import json
import pathlib
import posixpath
import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, Protocol, cast

_1980 = 315_532_800

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYERS = {
    "application/vnd.oci.image.layer.v1.tar": False,
    "application/vnd.oci.image.layer.v1.tar+gzip": True,
}

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_REFERENCE = re.compile(
    r"[a-zA-Z0-9][a-zA-Z0-9.-]*(:[0-9]+)?(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)+"
    r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}"
)
_BLOCK = 1 << 20
_TYPES = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE)


def validate(path: pathlib.Path) -> list[str]:
    """What is wrong with the image layout directory, or the archive, at ``path``."""
    problems: list[str] = []
    if path.is_dir():
        _Check(_Directory(path), problems).image()
    else:
        with tarfile.open(path, "r:") as archive:
            _Check(_Archive(archive, problems), problems).image()
    return problems


class _Files(Protocol):
    """The files of a layout by their names."""

    names: set[str]

    def open(self, name: str) -> IO[bytes]: ...


class _Directory:
    def __init__(self, root: pathlib.Path) -> None:
        self._root = root
        self.names = {
            path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()
        }

    def open(self, name: str) -> IO[bytes]:
        return (self._root / name).open("rb")


class _Archive:
    def __init__(self, archive: tarfile.TarFile, problems: list[str]) -> None:
        self._archive = archive
        self.names: set[str] = set()
        directories: set[str] = set()
        for member in archive:
            if member.name in self.names | directories:
                problems.append(f"archive: {member.name} is there twice")
            if member.isreg():
                self.names.add(member.name)
            elif member.isdir():
                directories.add(member.name)
            else:
                problems.append(f"archive: {member.name} is neither file nor directory")
            if member.uid or member.gid or member.uname or member.gname:
                problems.append(f"archive: {member.name} has an owner")
        # without these entries some readers of OCI archives find no blob
        problems.extend(
            f"archive: there is no entry for the directory {name}"
            for name in ("blobs", "blobs/sha256")
            if name not in directories
        )
        if "manifest.json" not in self.names:
            problems.append("archive: there is no manifest.json for docker load")

    def open(self, name: str) -> IO[bytes]:
        stream = self._archive.extractfile(name)
        assert stream is not None
        return stream


class _Broken(Exception):
    """A document can't be read at all."""


class _Check:
    def __init__(self, files: _Files, problems: list[str]) -> None:
        self._files = files
        self._problems = problems
        self._used: set[str] = set()

    def _say(self, problem: str) -> None:
        self._problems.append(problem)

    def _expect(self, truth: object, problem: str) -> None:
        if not truth:
            self._say(problem)

    # Documents

    def image(self) -> None:
        with contextlib.suppress(_Broken):
            marker = self._document("oci-layout")
            self._expect(
                marker == {"imageLayoutVersion": "1.0.0"}, f"oci-layout: it says {marker}"
            )
        with contextlib.suppress(_Broken):
            self._index()
        blobs = {name for name in self._files.names if name.startswith("blobs/")}
        for name in sorted(blobs - self._used):
            self._say(f"{name}: no document refers to it")

    def _document(self, name: str) -> dict[str, Any]:
        if name not in self._files.names:
            self._say(f"{name}: it is missing")
            raise _Broken
        with self._files.open(name) as stream:
            value = self._parsed(name, stream.read())
        if not isinstance(value, dict):
            self._say(f"{name}: it is no JSON object")
            raise _Broken
        return value

    def _parsed(self, name: str, data: bytes) -> Any:
        def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            value = dict(pairs)
            self._expect(len(value) == len(pairs), f"{name}: a key is there twice")
            return value

        try:
            return json.loads(data.decode("utf-8"), object_pairs_hook=unique)
        except ValueError as error:
            self._say(f"{name}: {error}")
            raise _Broken from error

    def _descriptor(self, where: str, value: Any, *media_types: str) -> str:
        """The name of the blob that a descriptor describes, its bytes checked."""
        if not isinstance(value, dict):
            self._say(f"{where}: {value!r} is no descriptor")
            raise _Broken
        digest, size = value.get("digest"), value.get("size")
        self._expect(
            value.get("mediaType") in media_types, f"{where}: {value.get('mediaType')!r}"
        )
        if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
            self._say(f"{where}: the digest is {digest!r}")
            raise _Broken
        name = f"blobs/{digest.replace(':', '/')}"
        if name not in self._files.names:
            self._say(f"{where}: {name} is missing")
            raise _Broken
        if name not in self._used:
            self._used.add(name)
            real, length = hashlib.sha256(), 0
            with self._files.open(name) as stream:
                while block := stream.read(_BLOCK):
                    real.update(block)
                    length += len(block)
            self._expect(
                digest == f"sha256:{real.hexdigest()}", f"{name}: its bytes are others"
            )
            self._expect(
                type(size) is int and size == length, f"{name}: {length} bytes, not {size}"
            )
        return name

    def _index(self) -> None:
        index = self._document("index.json")
        self._expect(index.get("schemaVersion") == 2, "index.json: schemaVersion")
        self._expect(index.get("mediaType") == INDEX, "index.json: mediaType")
        entries = index.get("manifests")
        if not isinstance(entries, list) or not entries:
            self._say("index.json: there are no manifests")
            raise _Broken
        names: list[str] = []
        for entry in entries:
            manifest = self._descriptor("index.json", entry, MANIFEST)
            annotations = entry.get("annotations", {})
            name = annotations.get("org.opencontainers.image.ref.name")
            if not isinstance(name, str) or not _REFERENCE.fullmatch(name):
                self._say(f"index.json: ref.name is {name!r}")
            elif name in names:
                self._say(f"index.json: {name} is there twice")
            else:
                names.append(name)
            self._expect(
                annotations.get("io.containerd.image.name") == name,
                "index.json: containerd's name is another",
            )
            with contextlib.suppress(_Broken):
                self._manifest(manifest, entry.get("platform"))
        if "manifest.json" in self._files.names:
            self._docker(entries, names)

    def _manifest(self, name: str, platform: Any) -> None:
        manifest = self._document(name)
        self._expect(manifest.get("schemaVersion") == 2, f"{name}: schemaVersion")
        self._expect(manifest.get("mediaType") == MANIFEST, f"{name}: mediaType")
        self._strings(f"{name}: annotations", manifest.get("annotations", {}))
        config = self._descriptor(f"{name}: config", manifest.get("config"), CONFIG)
        layers = manifest.get("layers")
        if not isinstance(layers, list):
            self._say(f"{name}: layers is {layers!r}")
            raise _Broken
        diff_ids = self._config(config, platform, len(layers))
        tree: dict[str, bytes] = {}
        times: set[float] = set()
        for number, value in enumerate(layers):
            blob = self._descriptor(f"{name}: layer {number}", value, *LAYERS)
            packed = LAYERS.get(value["mediaType"], False)
            diff_id = self._layer(blob, packed, tree, times)
            if number < len(diff_ids) and diff_ids[number] != diff_id:
                self._say(f"{config}: diff id {number} is {diff_ids[number]}, not {diff_id}")
        self._expect(len(times) < 2, f"{name}: the entries have {len(times)} times")

    def _strings(self, where: str, value: Any) -> None:
        good = isinstance(value, dict) and all(
            isinstance(item, str) for pair in value.items() for item in pair
        )
        self._expect(good, f"{where}: {value!r}")

    def _config(self, name: str, platform: Any, layers: int) -> list[Any]:
        config = self._document(name)
        for key in ("architecture", "os"):
            self._expect(config.get(key) and isinstance(config[key], str), f"{name}: {key}")
        own = {key: config[key] for key in ("architecture", "os", "variant") if key in config}
        self._expect(platform == own, f"{name}: {own} is {platform} in the index")
        self._time(f"{name}: created", config.get("created"))
        runtime = config.get("config", {})
        for key, good in _RUNTIME.items():
            if key in runtime:
                self._expect(good(runtime[key]), f"{name}: {key} is {runtime[key]!r}")
        known = {*_RUNTIME, "Healthcheck"}
        for key in sorted(runtime.keys() - known):
            self._say(f"{name}: {key} is no field of config")
        history = config.get("history", [])
        for entry in history:
            self._time(f"{name}: history", entry.get("created"))
        filled = sum(not entry.get("empty_layer", False) for entry in history)
        self._expect(filled == layers, f"{name}: history has {filled} layers, not {layers}")
        rootfs = config.get("rootfs")
        if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
            self._say(f"{name}: rootfs is {rootfs!r}")
            raise _Broken
        diff_ids = rootfs.get("diff_ids")
        if not isinstance(diff_ids, list):
            self._say(f"{name}: diff_ids is {diff_ids!r}")
            raise _Broken
        self._expect(
            len(diff_ids) == layers, f"{name}: {len(diff_ids)} diff ids, {layers} layers"
        )
        return diff_ids

    def _time(self, where: str, value: Any) -> None:
        try:
            datetime.datetime.strptime(str(value), "%Y-%m-%dT%H:%M:%SZ")
        except ValueError:
            self._say(f"{where}: {value!r} is no time of RFC 3339 in UTC")

    def _docker(self, entries: list[Any], names: list[str]) -> None:
        with self._files.open("manifest.json") as stream:
            value = self._parsed("manifest.json", stream.read())
        digests = {entry["digest"] for entry in entries}
        if not isinstance(value, list) or len(value) != 1 or len(digests) != 1:
            self._say("manifest.json: not one image")
            return
        manifest = self._document(f"blobs/{digests.pop().replace(':', '/')}")

        def blob(descriptor: Any) -> str:
            return f"blobs/{descriptor['digest'].replace(':', '/')}"

        wanted = {
            "Config": blob(manifest["config"]),
            "RepoTags": names,
            "Layers": [blob(layer) for layer in manifest["layers"]],
        }
        for key, item in wanted.items():
            self._expect(
                value[0].get(key) == item, f"manifest.json: {key} is {value[0].get(key)!r}"
            )

    # Layers

    def _layer(self, name: str, packed: bool, tree: dict[str, bytes], times: set[float]) -> str:
        """The diff id of a layer whose entries go into ``tree``."""
        with self._files.open(name) as stored:
            stream = _Plain(stored, packed)
            try:
                # the mode reads on, and never seeks
                source = cast(IO[bytes], stream)
                with tarfile.open(fileobj=source, mode="r|", bufsize=_BLOCK) as layer:
                    self._entries(name, layer, tree, times)
                while stream.read(_BLOCK):
                    pass
            except (tarfile.TarError, zlib.error, EOFError) as error:
                self._say(f"{name}: {error}")
                raise _Broken from error
        self._expect(
            stream.size % 512 == 0 and stream.tail == bytes(1024),
            f"{name}: the tar does not end in two blocks of zeros",
        )
        self._expect(stream.clean, f"{name}: something follows the gzip stream")
        return f"sha256:{stream.digest.hexdigest()}"

    def _entries(
        self, name: str, layer: tarfile.TarFile, tree: dict[str, bytes], times: set[float]
    ) -> None:
        here: dict[str, bytes] = {}
        last = b""
        for entry in layer:
            path = entry.name
            shown = f"{name}: {path!r}"
            order = path.encode("utf-8", "surrogateescape")
            self._expect(order > last, f"{shown} is not in the order of its bytes")
            last = order
            if not path or path.startswith("/") or posixpath.normpath(path) != path:
                self._say(f"{shown} is no plain relative path")
            self._expect(path not in here, f"{shown} is there twice")
            self._expect(".." not in path.split("/"), f"{shown} leaves the root")
            for part in path.split("/"):
                self._expect(not part.startswith(".wh."), f"{shown} is a whiteout")
            parent = posixpath.dirname(path)
            if parent:
                self._expect(
                    here.get(parent) == tarfile.DIRTYPE, f"{shown} comes without its parent"
                )
            self._expect(entry.type in _TYPES, f"{shown} has the type {entry.type!r}")
            below = tree.get(path)
            if below is not None and {below, entry.type} - {tarfile.DIRTYPE}:
                self._say(f"{shown} replaces an entry of a lower layer")
            if entry.islnk():
                self._expect(
                    here.get(entry.linkname) == tarfile.REGTYPE,
                    f"{shown} is a hard link to {entry.linkname!r}, which is not before it",
                )
            self._expect(not entry.uname and not entry.gname, f"{shown} has an owner's name")
            self._expect(0 <= entry.mode <= 0o7777, f"{shown} has the mode {entry.mode:o}")
            odd = set(entry.pax_headers) - {"path", "linkpath", "size", "uid", "gid"}
            self._expect(not odd - {"hdrcharset"}, f"{shown} has the pax headers {odd}")
            # a file for browsers has a time of its own, by its content
            if not (entry.isfile() and 0 < entry.mtime - _1980 < 1 << 24):
                times.add(entry.mtime)
            here[path] = entry.type
            layer.members.clear()  # type: ignore[attr-defined]  # or each header stays in memory
        tree.update(here)


class _Plain:
    """The uncompressed bytes of a layer, read once, digested on the way."""

    def __init__(self, stored: IO[bytes], packed: bool) -> None:
        self._blocks = (
            self._unpacked(stored) if packed else iter(lambda: stored.read(_BLOCK), b"")
        )
        self._pending = b""
        self.digest = hashlib.sha256()
        self.size = 0
        self.tail = b""
        self.clean = True

    def _unpacked(self, stored: IO[bytes]) -> Iterator[bytes]:
        # one member or several (RFC 1952, 2.2)
        stream = zlib.decompressobj(31)
        while block := stored.read(_BLOCK):
            while block:
                if stream.eof:
                    if not block.startswith(b"\x1f"):
                        self.clean = False
                        return
                    stream = zlib.decompressobj(31)
                yield stream.decompress(block)
                block = stream.unused_data
        if not stream.eof:
            raise EOFError("the gzip stream is cut off")

    def read(self, size: int) -> bytes:
        while len(self._pending) < size:
            block = next(self._blocks, None)
            if block is None:
                break
            self.digest.update(block)
            self.size += len(block)
            self.tail = (self.tail + block)[-1024:]
            self._pending += block
        data, self._pending = self._pending[:size], self._pending[size:]
        return data


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _environment(value: Any) -> bool:
    if not _texts(value):
        return False
    names = [text.partition("=")[0] for text in value]
    return all(names) and len(set(names)) == len(names) and all("=" in text for text in value)


def _keys(pattern: str) -> Callable[[Any], bool]:
    def good(value: Any) -> bool:
        return isinstance(value, dict) and all(
            re.fullmatch(pattern, key) and item == {} for key, item in value.items()
        )

    return good


_RUNTIME: dict[str, Callable[[Any], bool]] = {
    "User": lambda value: isinstance(value, str),
    "ExposedPorts": _keys(r"[1-9][0-9]{0,4}(/(tcp|udp))?"),
    "Env": _environment,
    "Entrypoint": _texts,
    "Cmd": _texts,
    "Volumes": _keys(r"/.*"),
    "WorkingDir": lambda value: isinstance(value, str) and value.startswith("/"),
    "Labels": lambda value: (
        isinstance(value, dict)
        and all(isinstance(item, str) for pair in value.items() for item in pair)
    ),
    "StopSignal": lambda value: bool(re.fullmatch(r"SIG[A-Z0-9+-]+|[0-9]+", str(value))),
}
