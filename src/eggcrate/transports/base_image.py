"""An image as the base of another one: from a layout, an archive, an engine or a registry.

Its blobs go into the store as they are, each verified.  Beside a compressed layer lies its tar,
under its diff id, of which the names are read: nothing is ever extracted, so that a name with
``..`` or below a link is a name and no more.  Names of places are those of
containers-transports(5).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import posixpath
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

from eggcrate.errors import EggcrateError, SettingsError, TransportError
from eggcrate.image import oci
from eggcrate.image.compression import SUFFIX, faults, plain
from eggcrate.image.descriptor import INDEX, Descriptor
from eggcrate.image.oci import DIGEST, INDEXES, MANIFESTS, Platform, digest_of
from eggcrate.image.plan import BASE, FileEntry, FileType, directory, printable
from eggcrate.image.store import Store
from eggcrate.image.words import amount

if TYPE_CHECKING:
    from eggcrate.transports.connection import Access

# Raise it whenever a record of an older release must not be used.
FORMAT = 1

SCRATCH = "scratch"
LAYOUT, ARCHIVE, DOCKER_ARCHIVE = "oci:", "oci-archive:", "docker-archive:"
DAEMON, REGISTRY = "docker-daemon:", "docker://"

# What is believed of documents and of names in layers; registries take manifests of 4 MiB
_MOST_DOCUMENT = 4 << 20
_MOST_CONFIG = 16 << 20
_MOST_NAMES = 1_000_000
_LONGEST_NAME = 4096
_MOST_HEADER = 1 << 20
# what holds for all that follows, which tarfile goes through for each file
_MOST_GLOBAL = 100
_DEEPEST_INDEX = 4

_OLD = re.compile(r"application/vnd\.docker\.distribution\.manifest\.v1\+(?:prettyjws|json)")
# Docker's layers, and OCI's names for the same bytes
_LAYER_TYPES = {
    **{oci.LAYER + suffix: oci.LAYER + suffix for suffix in SUFFIX.values()},
    "application/vnd.docker.image.rootfs.diff.tar": oci.LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip": f"{oci.LAYER}+gzip",
    "application/vnd.docker.image.rootfs.diff.tar.zstd": f"{oci.LAYER}+zstd",
}
_MAGIC = {b"\x1f\x8b": "+gzip", b"\x28\xb5\x2f\xfd": "+zstd"}

#: what is inherited of a config, by its key: of which kind it is
_RUNNING: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(
        ("User", "WorkingDir", "StopSignal"), ("string", lambda value: isinstance(value, str))
    ),
    "Env": ("list of strings", lambda value: _strings(value)),
    "Labels": (
        "object of strings",
        lambda value: isinstance(value, dict) and _strings(list(value.values())),
    ),
    "Healthcheck": (
        "object with a list of strings for its Test",
        lambda value: isinstance(value, dict) and _strings(value.get("Test") or []),
    ),
}

_AGAIN = "fetch or copy the base again"


# Names --------------------------------------------------------------------------------


def canonical(text: str, top: pathlib.Path) -> str:
    """The name of a base with nothing left out; paths start from ``top``.

    ``python:3.13-slim`` is ``docker://docker.io/library/python:3.13-slim``.
    """
    if text == SCRATCH:
        return text
    for kind in (LAYOUT, ARCHIVE, DOCKER_ARCHIVE):
        if text.startswith(kind):
            path, colon, tag = text.removeprefix(kind).partition(":")
            if not path:
                raise SettingsError(f"base = {text}: there is no path", f"write {kind}PATH")
            return f"{kind}{os.path.normpath(top / path)}{colon}{tag}"
    for kind in (DAEMON, REGISTRY):
        if text.startswith(kind):
            return kind + _reference(text, text.removeprefix(kind), daemon=kind == DAEMON)
    if re.search(r"[/.:@]", text) and not re.match(r"[a-z-]+:/?(?:/|$)", text):
        return REGISTRY + _reference(text, text, daemon=False)
    raise SettingsError(
        f"base = {text}: not a base",
        "use debian, debian:SUITE, scratch, docker://NAME:TAG, docker-daemon:NAME:TAG, "
        "oci:PATH, oci-archive:PATH or docker-archive:PATH",
    )


def _reference(text: str, rest: str, *, daemon: bool) -> str:
    """A reference with its host and tag, or its digest."""
    if daemon and DIGEST.fullmatch(rest):
        return rest
    name, at, digest = rest.partition("@")
    if at and not DIGEST.fullmatch(digest):
        # whatever it is, a password perhaps, it is not repeated
        raise SettingsError(
            "base: what follows the @ is no digest",
            "write NAME@sha256: and 64 hexadecimal digits; passwords belong into "
            "~/.docker/config.json",
        )
    tag = "latest"
    if ":" in name.rpartition("/")[2]:
        name, _, tag = name.rpartition(":")
    try:
        found = oci.reference(name, tag)
    except SettingsError as error:
        raise SettingsError(
            f"base = {text}: {error.what}",
            "write it as in docker://registry.example/acme/python:3.13",
        ) from error
    return f"{found.host}/{found.path}@{digest}" if at else str(found)


def moves(name: str) -> bool:
    """Whether a base of that name may be another one tomorrow, by no doing of this machine."""
    return name.startswith((DAEMON, REGISTRY)) and not DIGEST.fullmatch(
        name.partition("@")[2] or name.removeprefix(DAEMON)
    )


# What is read -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class BaseLayer:
    """A layer whose blob lies in the store, as does its tar of ``size`` bytes."""

    descriptor: Descriptor
    diff_id: str
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class BaseImage:
    """An image whose blobs lie in the store.

    ``name`` is a reference that means it elsewhere, too, or empty; ``digest`` is its
    manifest's, or its config's where it has no manifest; ``config`` is the whole document.
    """

    name: str
    digest: str
    config: Mapping[str, Any]
    layers: tuple[BaseLayer, ...]

    @property
    def history(self) -> tuple[Mapping[str, Any], ...]:
        """An entry for each layer at least, as config.md wants it."""
        items = self.config.get("history")
        items = items if isinstance(items, list) else []
        found = [item for item in items if isinstance(item, dict)]
        if sum(not item.get("empty_layer") for item in found) == len(self.layers):
            return tuple(found)
        created = (
            {"created": when} if isinstance(when := self.config.get("created"), str) else {}
        )
        return tuple({**created, "created_by": "the base image"} for _ in self.layers)

    def setting(self, key: str) -> Any:
        """What its config says of how it is run ("config" of config.md); None for nothing."""
        running = self.config.get("config")
        return running.get(key) if isinstance(running, dict) else None


class Source(Protocol):
    """Where an image is: its first document, what that names, and its layers."""

    def top(self) -> tuple[bytes, str]:
        """The document that the name stands for, and its media type."""

    def document(self, descriptor: Descriptor) -> bytes:
        """The bytes of a manifest or config, not verified yet."""

    def fetch(self, descriptor: Descriptor, store: Store) -> None:
        """Bring a layer into the store, verified."""


class _Place(Protocol):
    """Files by their names, in a directory or an archive."""

    def open(self, name: str) -> BinaryIO:
        """The bytes of a file; OSError when there is none."""


class _Directory:
    def __init__(self, root: str) -> None:
        self._root = pathlib.Path(root)

    def open(self, name: str) -> BinaryIO:
        return (self._root / name).open("rb")


class _Tar:
    """The files of an archive, read where they lie."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._members: dict[str, tuple[int, int, str]] = {}
        with open(path, "rb") as stream:
            for member in members(stream):
                name = posixpath.normpath(member.name)
                link = ""
                if member.issym():
                    link = posixpath.normpath(
                        posixpath.join(posixpath.dirname(name), member.linkname)
                    )
                elif member.islnk():
                    link = posixpath.normpath(member.linkname)
                elif not member.isreg():
                    continue
                self._members[name] = (member.offset_data, member.size, link)

    def open(self, name: str) -> BinaryIO:
        # older versions of docker save have a layer twice as a link
        offset, size, link = self._members.get(name, (0, 0, name))
        if link:
            offset, size, link = self._members.get(link, (0, 0, link))
        if link:
            raise FileNotFoundError(2, "there is no such file in it", name)
        entry = FileEntry(
            name, FileType.REGULAR, 0o644, BASE, "", source=self._path, offset=offset, size=size
        )
        return entry.open()


class _Layout:
    """An image layout (OCI image-spec, image-layout.md), in a directory or an archive."""

    def __init__(self, name: str, place: _Place, tag: str) -> None:
        self._name, self._place, self._tag = name, place, tag

    def top(self) -> tuple[bytes, str]:
        data = self._read("index.json", _MOST_DOCUMENT)
        if not self._tag:
            return data, INDEX
        entries = _parsed(self._name, data, INDEX).get("manifests")
        chosen = [
            entry
            for entry in (entries if isinstance(entries, list) else ())
            if isinstance(entry, dict)
            and isinstance(entry.get("annotations"), dict)
            and self._tag in _names_of(entry["annotations"])
        ]
        if not chosen:
            raise TransportError(
                f"the base {self._name} has no image {self._tag}",
                "name one that is in it, or none, where it has one image only",
            )
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": chosen}
        return oci.document(index), INDEX

    def document(self, descriptor: Descriptor) -> bytes:
        return self._read(_blob_name(descriptor.digest), descriptor.size)

    def fetch(self, descriptor: Descriptor, store: Store) -> None:
        try:
            with self._place.open(_blob_name(descriptor.digest)) as stream:
                keep(self._name, _blocks(stream), descriptor, store)
        except OSError as error:
            raise _missing(self._name, error) from error

    def _read(self, name: str, most: int) -> bytes:
        try:
            with self._place.open(name) as stream:
                return stream.read(most + 1)
        except OSError as error:
            raise _missing(self._name, error) from error


def _names_of(annotations: Mapping[str, Any]) -> set[str]:
    keys = ("org.opencontainers.image.ref.name", "io.containerd.image.name")
    found = {name for key in keys if isinstance(name := annotations.get(key), str)}
    # a short tag means the whole reference that has it
    return found | {name.rpartition(":")[2] for name in found}


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/', 1)}"


def _missing(name: str, error: OSError) -> TransportError:
    which = f" ({printable(str(error.filename)[:200])})" if error.filename else ""
    return TransportError(
        f"the base {name} can't be read: {error.strerror or error}{which}",
        "see whether the path in the option base is right, and what is there is whole and of "
        "that kind",
    )


def _damaged(name: str, why: object) -> TransportError:
    return TransportError(f"the base {name} is damaged: {why}", _AGAIN)


def _damaged_layer(name: str, number: int, digest: str, why: object) -> TransportError:
    return TransportError(f"layer {number} of the base {name}, {digest}, {why}", _AGAIN)


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    while data := stream.read(1 << 20):
        yield data


def keep(name: str, blocks: Iterable[bytes], descriptor: Descriptor, store: Store) -> None:
    """Put a blob into the store, when it has the size and the digest that were promised."""
    with store.writing() as target:
        digest, size = hashlib.sha256(), 0
        for data in blocks:
            size += len(data)
            if size > descriptor.size:
                break
            digest.update(data)
            target.write(data)
        if size != descriptor.size:
            raise _damaged(
                name, f"{descriptor.digest} has not the {descriptor.size} bytes of its manifest"
            )
        if f"sha256:{digest.hexdigest()}" != descriptor.digest:
            raise _damaged(name, f"{descriptor.digest} has another digest")
        store.adopt(target, descriptor.digest)


# Documents ----------------------------------------------------------------------------


def _parsed(name: str, data: bytes, media_type: str) -> dict[str, Any]:
    """An index, a manifest or a config, when it is one and nothing else (CVE-2021-41190)."""
    most = _MOST_CONFIG if media_type == oci.CONFIG else _MOST_DOCUMENT
    if len(data) > most:
        raise _damaged(name, f"a document has more than {amount(most)}")
    try:
        value = _value(data)
    except (ValueError, RecursionError) as error:
        raise _damaged(name, f"a document is no JSON: {error}") from error
    if not isinstance(value, dict):
        raise _damaged(name, "a document is no JSON object")
    if media_type == oci.CONFIG:
        return value
    if value.get("schemaVersion") == 1 or "fsLayers" in value or _OLD.fullmatch(media_type):
        raise TransportError(
            f"the base {name} has a manifest of Docker's schema 1, which nobody makes any more",
            "convert it: docker pull it and push it, or skopeo copy --format v2s2",
        )
    if "manifests" in value and ("layers" in value or "config" in value):
        raise _damaged(name, "a document is both a manifest and an index")
    kinds = INDEXES if "manifests" in value else MANIFESTS
    said = value.get("mediaType", media_type)
    if said != media_type or media_type not in kinds:
        shown = printable(str(said)[:80])
        raise _damaged(name, f"a document has the media type {shown}, and is another one")
    return value


def _value(data: bytes) -> Any:
    """The value of a JSON document; ValueError for one that could not be written again.

    Python takes NaN, and halves of pairs of surrogates.
    """
    value = json.loads(data)
    json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    return value


def _descriptor(name: str, value: Any) -> Descriptor:
    """A descriptor whose digest can be a part of a path."""
    match value:
        case {"digest": str(digest), "size": int(size), **rest} if (
            DIGEST.fullmatch(digest) and size >= 0
        ):
            return Descriptor(str(rest.get("mediaType", "")), digest, size)
        case {"digest": str(digest)} if re.fullmatch(r"sha512:[0-9a-f]{128}", digest):
            raise TransportError(
                f"the base {name} has digests of SHA-512", "take one that has those of SHA-256"
            )
    raise _damaged(name, "a descriptor has no valid digest or size")


def _verified(name: str, source: Source, descriptor: Descriptor) -> bytes:
    most = _MOST_CONFIG if descriptor.media_type == oci.CONFIG else _MOST_DOCUMENT
    if descriptor.size > most:
        raise _damaged(name, f"{descriptor.digest} has more than {amount(most)}")
    data = source.document(descriptor)
    if len(data) != descriptor.size:
        raise _damaged(
            name, f"{descriptor.digest} has not the {descriptor.size} bytes of its manifest"
        )
    if digest_of(data) != descriptor.digest:
        raise _damaged(name, f"{descriptor.digest} has another digest")
    return data


# How near a variant comes to a platform that names none, and which ones an arm can run
_PLAIN_VARIANTS = {"amd64": "v1", "arm64": "v8", "arm": "v7"}


def _nearness(found: Platform, wanted: Platform) -> int | None:
    """0 for the best; None for another platform."""
    if (found.os, found.architecture) != (wanted.os, wanted.architecture):
        return None
    plain_variant = _PLAIN_VARIANTS.get(wanted.architecture, "")
    have, want = found.variant or plain_variant, wanted.variant or plain_variant
    if have == want:
        return 0 if found.variant == wanted.variant else 1
    if not (re.fullmatch(r"v\d", have) and re.fullmatch(r"v\d", want)):
        return None
    # an older one will do
    return 1 + int(want[1:]) - int(have[1:]) if have < want else None


def _platform(value: Mapping[str, Any]) -> Platform:
    return Platform(*(str(value.get(key) or "") for key in ("os", "architecture", "variant")))


def _candidates(
    name: str, source: Source, index: Mapping[str, Any], seen: set[str], depth: int = 0
) -> Iterator[tuple[Descriptor, Platform]]:
    """The manifests of an index, and of those within it, with their platforms.

    An index whose digest is ``seen`` already is not read again.
    """
    if depth > _DEEPEST_INDEX or not isinstance(index["manifests"], list):
        raise _damaged(name, "an index has no list of manifests, or too deep a one")
    for value in index["manifests"]:
        descriptor = _descriptor(name, value)
        if descriptor.media_type in INDEXES:
            if descriptor.digest in seen:
                continue
            seen.add(descriptor.digest)
            inner = _verified(name, source, descriptor)
            document = _parsed(name, inner, descriptor.media_type)
            yield from _candidates(name, source, document, seen, depth + 1)
        elif descriptor.media_type not in MANIFESTS and not _OLD.fullmatch(
            descriptor.media_type
        ):
            continue  # something that is no image
        elif isinstance(platform := value.get("platform"), dict):
            # attestations say that they run on nothing
            if platform.get("os") != "unknown":
                yield descriptor, _platform(platform)
        else:
            data = _verified(name, source, descriptor)
            config = _config_of(name, source, _parsed(name, data, descriptor.media_type))
            yield descriptor, _platform(config)


def _config_of(name: str, source: Source, manifest: Mapping[str, Any]) -> dict[str, Any]:
    descriptor = _descriptor(name, manifest.get("config"))
    # whatever it calls itself, the manifest's kind says that it is a config
    descriptor = descriptor._replace(media_type=oci.CONFIG)
    return _parsed(name, _verified(name, source, descriptor), oci.CONFIG)


def _other_platform(name: str, offered: Iterable[Platform], wanted: Platform) -> TransportError:
    these = ", ".join(sorted({printable(str(platform)) for platform in offered})) or "nothing"
    return TransportError(
        f"the base {name} is there for {these}, and the image is for {wanted}",
        "take another base, or set platform to one that this base has",
    )


def manifest_of(name: str, source: Source, platform: Platform) -> tuple[bytes, Descriptor]:
    """The manifest of an image for a platform, verified, with its descriptor."""
    data, media_type = source.top()
    document = _parsed(name, data, media_type)
    if "manifests" not in document:
        return data, Descriptor(media_type, digest_of(data), len(data))
    found = list(_candidates(name, source, document, set()))
    near = [
        (distance, number)
        for number, (_, each) in enumerate(found)
        if (distance := _nearness(each, platform)) is not None
    ]
    if not near:
        raise _other_platform(name, (each for _, each in found), platform)
    best = {found[number][0].digest for distance, number in near if distance == min(near)[0]}
    if len(best) > 1 and isinstance(source, _Layout):
        raise TransportError(
            f"the base {name} has {len(best)} images",
            "say which: add a colon and its tag",
        )
    descriptor = found[min(near)[1]][0]
    return _verified(name, source, descriptor), descriptor


def _is_platform(name: str, config: Mapping[str, Any], wanted: Platform) -> None:
    if _nearness(_platform(config), wanted) is None:
        raise _other_platform(name, [_platform(config)], wanted)


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _check_running(name: str, config: Mapping[str, Any]) -> None:
    """That what its config says of how it is run is of the types of config.md."""
    running = config.get("config")
    if running is None:
        return
    if not isinstance(running, dict):
        raise _damaged(name, "config in its config is no JSON object")
    wrong = [
        f"{key} is no {kind}"
        for key, (kind, fits) in _RUNNING.items()
        if running.get(key) is not None and not fits(running[key])
    ]
    if wrong:
        raise _damaged(name, "in its config, " + ", ".join(wrong))


def _diff_ids(name: str, config: Mapping[str, Any], count: int) -> list[str]:
    rootfs = config.get("rootfs")
    found = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if found is None and not count:
        return []
    if (
        not isinstance(found, list)
        or len(found) != count
        or not all(isinstance(text, str) and DIGEST.fullmatch(text) for text in found)
    ):
        raise _damaged(name, "its config has not one diff id for each layer")
    return found


# Reading ------------------------------------------------------------------------------


def resolve(
    name: str, platform: Platform, store: Store, *, access: Access | None = None
) -> str:
    """The digest of what a base's name means now; ``access`` is for registries."""
    if name.startswith(DOCKER_ARCHIVE):
        place, entry = _docker_archive(name)
        return digest_of(_docker_config(name, place, entry))
    if name.startswith(DAEMON):
        with _daemon(name) as client:
            return str(client.inspect_image(name.removeprefix(DAEMON))["Id"])
    source = _source(name, store, access)
    if name.startswith(REGISTRY):
        return digest_of(source.top()[0])
    return manifest_of(name, source, platform)[1].digest


def read(
    name: str,
    digest: str,
    platform: Platform,
    store: Store,
    *,
    most: int,
    offline: bool = False,
    access: Access | None = None,
) -> BaseImage:
    """The base of that name that has ``digest``, brought into the store if it is not there.

    ``most`` is how many bytes its layers may have when they are unpacked, ``offline`` says
    that nobody may be asked for it.
    """
    key = hashlib.sha256(f"{FORMAT} {digest} {platform}".encode()).hexdigest()
    image = _recalled(name, digest, store, key)
    if image is not None:
        left = most
        for number, layer in enumerate(image.layers, 1):
            left -= layer.size
            if left < 0:
                raise _too_large(name, number, most)
    else:
        if offline and name.startswith((DAEMON, REGISTRY)):
            raise TransportError(
                f"the base {name}, {digest}, is not in the cache, and offline is set",
                "run once with offline = false",
            )
        if name.startswith((DOCKER_ARCHIVE, DAEMON)):
            config, layers = _read_docker(name, digest, platform, store)
        else:
            config, layers = _pulled(name, digest, platform, store, access)
        document = _parsed(name, config, oci.CONFIG)
        made = _unpacked(name, layers, _diff_ids(name, document, len(layers)), store, most)
        store.remember(
            "base-images",
            key,
            {
                "config": [store.put(config), len(config)],
                "layers": [[*m.descriptor, m.diff_id, m.size] for m in made],
            },
        )
        image = BaseImage(_public(name), digest, document, made)
    _check_running(name, image.config)
    return image


def _recalled(name: str, digest: str, store: Store, key: str) -> BaseImage | None:
    record = store.recall("base-images", key)
    try:
        if record is None or not store.has(*record["config"]):
            return None
        layers = [BaseLayer(Descriptor(*row[:3]), *row[3:]) for row in record["layers"]]
        for layer in layers:
            if not store.has(layer.descriptor.digest, layer.descriptor.size):
                return None
            if not store.has(layer.diff_id, layer.size):
                return None
        with store.open(record["config"][0]) as stream:
            document = _parsed(name, stream.read(), oci.CONFIG)
    except (KeyError, TypeError, ValueError):
        return None  # a record of another kind: it will be written anew
    except EggcrateError:
        return None  # a damaged blob, which has been removed
    return BaseImage(_public(name), digest, document, tuple(layers))


def _public(name: str) -> str:
    """The name of a base as it may stand in an image: no path of this machine."""
    if name.startswith(REGISTRY):
        return name.removeprefix(REGISTRY)
    reference = name.removeprefix(DAEMON)
    return reference if name.startswith(DAEMON) and not DIGEST.fullmatch(reference) else ""


def _pinned(name: str, digest: str) -> str:
    """The name that means what has the digest, whatever has become of a tag."""
    if not name.startswith(REGISTRY):
        return name
    above, slash, last = name.partition("@")[0].rpartition("/")
    return f"{above}{slash}{last.partition(':')[0]}@{digest}"


def _source(name: str, store: Store, access: Access | None) -> Source:
    if name.startswith(REGISTRY):
        return _Registry(name, store, access)
    kind = LAYOUT if name.startswith(LAYOUT) else ARCHIVE
    path, _, tag = name.removeprefix(kind).partition(":")
    return _Layout(name, _place(name, path, kind), tag)


def _place(name: str, path: str, kind: str) -> _Place:
    try:
        return _Directory(path) if kind == LAYOUT else _Tar(path)
    except OSError as error:
        raise _missing(name, error) from error
    except TarFault as error:
        raise _damaged(name, f"it is no tar archive: {error}") from error


def _pulled(
    name: str, digest: str, platform: Platform, store: Store, access: Access | None
) -> tuple[bytes, tuple[Descriptor, ...]]:
    """The config of a base, and its layers, which are in the store then."""
    source = _source(_pinned(name, digest), store, access)
    manifest, descriptor = manifest_of(name, source, platform)
    if not name.startswith(REGISTRY) and descriptor.digest != digest:
        raise _damaged(name, "it has changed while it was read")
    document = _parsed(name, manifest, descriptor.media_type)
    layers = _layers(name, document)
    config_descriptor = _descriptor(name, document.get("config"))._replace(
        media_type=oci.CONFIG
    )
    config = _verified(name, source, config_descriptor)
    _is_platform(name, _parsed(name, config, oci.CONFIG), platform)
    for layer in layers:
        if not store.has(layer.digest, layer.size):
            source.fetch(layer, store)
    return config, layers


def _layers(name: str, manifest: Mapping[str, Any]) -> tuple[Descriptor, ...]:
    values = manifest.get("layers")
    if not isinstance(values, list):
        raise _damaged(name, "its manifest has no list of layers")
    layers = []
    for number, value in enumerate(values, 1):
        descriptor = _descriptor(name, value)
        media_type = _LAYER_TYPES.get(descriptor.media_type)
        if media_type is None:
            raise TransportError(
                f"layer {number} of the base {name} is of the type "
                f"{printable(descriptor.media_type)}, which is not read here",
                "take a base whose layers are tar, tar+gzip or tar+zstd, and in the registry",
            )
        layers.append(descriptor._replace(media_type=media_type))
    return tuple(layers)


# docker save --------------------------------------------------------------------------


def _docker_archive(name: str, path: str = "") -> tuple[_Place, Mapping[str, Any]]:
    """An archive of ``docker save``, and the entry of its manifest that is wanted."""
    found, _, wanted = name.removeprefix(DOCKER_ARCHIVE).partition(":")
    place = _place(name, path or found, DOCKER_ARCHIVE)
    try:
        with place.open("manifest.json") as stream:
            entries = _value(stream.read(_MOST_DOCUMENT))
    except OSError as error:
        raise _missing(name, error) from error
    except (ValueError, RecursionError) as error:
        raise _damaged(name, f"manifest.json is no JSON: {error}") from error
    if not isinstance(entries, list) or not all(
        isinstance(item, dict) and _strings(item.get("RepoTags") or []) for item in entries
    ):
        raise _damaged(name, "manifest.json is no list of images with their names")
    offered = [printable(one) for item in entries for one in _full_names(item)]
    if wanted and not path:
        full = _reference(name, wanted, daemon=False)
        entries = [
            item
            for item in entries
            if {wanted, full}.intersection(item.get("RepoTags") or ())
            or full in _full_names(item)
        ]
    if len(entries) != 1:
        has = f"{len(entries)} images" if entries else "no image of that name"
        raise TransportError(
            f"the base {name} has {has}; in the archive are {', '.join(offered) or 'none'}",
            "say which: add a colon and one of its references",
        )
    return place, entries[0]


def _full_names(item: Mapping[str, Any]) -> Iterator[str]:
    for text in item.get("RepoTags") or ():
        with contextlib.suppress(SettingsError):
            yield _reference(text, text, daemon=False)


def _docker_config(name: str, place: _Place, entry: Mapping[str, Any]) -> bytes:
    try:
        with place.open(posixpath.normpath(str(entry.get("Config")))) as stream:
            return stream.read(_MOST_CONFIG + 1)
    except OSError as error:
        raise _missing(name, error) from error


def _read_docker(
    name: str, digest: str, platform: Platform, store: Store
) -> tuple[bytes, tuple[Descriptor, ...]]:
    with contextlib.ExitStack() as stack:
        path = ""
        if name.startswith(DAEMON):
            path = stack.enter_context(_saved(name, digest, store))
        place, entry = _docker_archive(name, path)
        config = _docker_config(name, place, entry)
        # what an engine calls its id may be another document's digest
        if digest_of(config) != digest and not name.startswith(DAEMON):
            raise _damaged(name, "it has changed while it was read")
        document = _parsed(name, config, oci.CONFIG)
        _is_platform(name, document, platform)
        members_ = entry.get("Layers")
        names = [*map(str, members_)] if isinstance(members_, list) else []
        diff_ids = _diff_ids(name, document, len(names))
        layers = []
        for member, diff_id in zip(names, diff_ids, strict=True):
            try:
                with place.open(posixpath.normpath(member)) as stream:
                    layers.append(_docker_layer(stream, diff_id, store))
            except OSError as error:
                raise _missing(name, error) from error
    return config, tuple(layers)


def _docker_layer(stream: BinaryIO, diff_id: str, store: Store) -> Descriptor:
    """A layer of an archive that says neither its digest nor how it is compressed."""
    with store.writing() as target:
        digest, size, suffix = hashlib.sha256(), 0, ""
        for data in _blocks(stream):
            if not size:
                suffix = next(
                    (kind for magic, kind in _MAGIC.items() if data.startswith(magic)), ""
                )
            size += len(data)
            digest.update(data)
            target.write(data)
        found = f"sha256:{digest.hexdigest()}"
        store.adopt(target, found)
    return Descriptor(f"{oci.LAYER}{suffix}", found, size)


# The Docker Engine --------------------------------------------------------------------


@contextlib.contextmanager
def _daemon(name: str) -> Iterator[Any]:
    """A client of the engine of the docker command; what goes wrong with it is said."""
    from eggcrate.transports.engine import client_of, default_host

    try:
        import docker.errors
    except ImportError as error:
        raise TransportError(
            f"base = {name}: the Docker Engine can't be asked without its SDK",
            "install it beside zc.buildout, .venv/bin/python -m pip install docker, or docker "
            "save the image and use docker-archive:",
        ) from error
    host = default_host()
    try:
        with contextlib.closing(client_of(host)) as client:
            yield client
    except docker.errors.ImageNotFound as error:
        raise TransportError(
            f"the Docker Engine has no image {name.removeprefix(DAEMON)}",
            "docker pull or docker build it, or mend its name in the option base",
        ) from error
    except (docker.errors.DockerException, OSError) as error:
        raise TransportError(
            f"the Docker Engine at {host} can't be asked for {name.removeprefix(DAEMON)}: "
            f"{getattr(error, 'strerror', None) or error}",
            "start it, let this user reach its socket, or set DOCKER_HOST",
        ) from error


@contextlib.contextmanager
def _saved(name: str, digest: str, store: Store) -> Iterator[str]:
    """The path of an archive of an image of the Docker Engine, as long as the block lasts."""
    with _daemon(name) as client, store.writing() as target:
        for data in client.get_image(digest, chunk_size=1 << 20):
            target.write(data)
        target.flush()
        yield cast("Any", target).name


# A registry ---------------------------------------------------------------------------


class _Registry:
    """A repository of a registry, with what the name says of it: a tag or a digest."""

    def __init__(self, name: str, store: Store, access: Access | None) -> None:
        # many builds never need it
        from eggcrate.transports.registry import Repository

        rest, at, digest = name.removeprefix(REGISTRY).partition("@")
        if not at:
            rest, _, digest = rest.rpartition(":")
        host, _, path = rest.partition("/")
        self._wanted, self._store = digest, store
        self._repository = Repository(host, path, access=access)

    def top(self) -> tuple[bytes, str]:
        descriptor, data = self._repository.manifest(self._wanted)
        return data, descriptor.media_type

    def document(self, descriptor: Descriptor) -> bytes:
        if descriptor.media_type in (*INDEXES, *MANIFESTS):
            return self._repository.manifest(descriptor.digest)[1]
        self._repository.blob(descriptor, self._store)
        with self._store.open(descriptor.digest) as stream:
            return stream.read()

    def fetch(self, descriptor: Descriptor, store: Store) -> None:
        self._repository.blob(descriptor, store)


# Layers -------------------------------------------------------------------------------


class TarFault(Exception):
    """What is wrong with a tar archive."""


class _Guarded:
    """A tar archive as tarfile may read it: forwards, and no header of a gigabyte."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._seen = stream, 0

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MOST_HEADER:
            raise TarFault("it has a header that is too long")
        return self._stream.read(size)

    def seek(self, position: int, whence: int = 0) -> int:
        if whence or position < self._seen - 1:
            raise TarFault("a header leads backwards")
        self._seen = max(self._seen, position)
        return self._stream.seek(position)

    def tell(self) -> int:
        return self._stream.tell()


# what tarfile raises for odd bytes
_TAR_FAULTS = (
    tarfile.TarError,
    ValueError,
    LookupError,
    OverflowError,
    RecursionError,
    EOFError,
)


def members(stream: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """The headers of a tar archive, one after the other; TarFault for what is none."""
    size = stream.seek(0, 2)
    stream.seek(0)
    if not size:
        return
    guarded = cast("BinaryIO", _Guarded(stream))
    try:
        with tarfile.open(
            fileobj=guarded, mode="r:", encoding="utf-8", errors="surrogateescape"
        ) as archive:
            before = -1
            while (member := archive.next()) is not None:
                cast("Any", archive).members.clear()
                if member.size < 0 or member.offset <= before:
                    raise TarFault("a header leads backwards")
                before = member.offset
                if len(archive.pax_headers) > _MOST_GLOBAL:
                    raise TarFault("it has too many global headers")
                whole = member.isreg() and not member.issparse()
                if whole and member.offset_data + member.size > size:
                    raise TarFault("it is cut off")
                yield member
            stream.seek(archive.offset)
            if any(stream.read(512)):
                raise TarFault(f"there is no header at byte {archive.offset}")
    except _TAR_FAULTS as error:
        raise TarFault(str(error) or type(error).__name__) from error


def _unpacked(
    name: str, layers: Sequence[Descriptor], diff_ids: Sequence[str], store: Store, most: int
) -> tuple[BaseLayer, ...]:
    """The layers with their tars, which are in the store under their diff ids."""
    left = most
    found = []
    for number, (layer, diff_id) in enumerate(zip(layers, diff_ids, strict=True), 1):
        size = _unpack(name, number, layer, diff_id, store, left)
        if size is None:
            raise _too_large(name, number, most)
        left -= size
        found.append(BaseLayer(layer, diff_id, size))
    return tuple(found)


def _unpack(
    name: str, number: int, layer: Descriptor, diff_id: str, store: Store, most: int
) -> int | None:
    """The length of a layer's tar, which is verified then; None for more than ``most``."""
    if layer.media_type == oci.LAYER:
        if layer.digest != diff_id:
            raise _damaged_layer(name, number, layer.digest, "has not its diff id")
        return layer.size if layer.size <= most else None
    try:
        wrong = faults(layer.media_type)
    except SettingsError as error:
        raise TransportError(
            f"layer {number} of the base {name} is compressed with Zstandard, which this "
            "Python has not",
            "add the extra to the eggs of buildout's environment, eggcrate[zstd]",
        ) from error
    with store.open(layer.digest) as blob, store.writing() as target:
        digest, size = hashlib.sha256(), 0
        try:
            with plain(blob, layer.media_type) as stream:
                for data in _blocks(stream):
                    size += len(data)
                    if size > most:
                        return None
                    digest.update(data)
                    target.write(data)
        except wrong as error:
            raise _damaged_layer(
                name, number, layer.digest, f"can't be unpacked: {error}"
            ) from error
        if f"sha256:{digest.hexdigest()}" != diff_id:
            raise _damaged_layer(name, number, layer.digest, "has not its diff id")
        store.adopt(target, diff_id, sync=False)
    return size


def _too_large(name: str, number: int, most: int) -> TransportError:
    return TransportError(
        f"layer {number} of the base {name} makes it larger than {amount(most)} when it is "
        "unpacked",
        "take a smaller base, or allow more in the option base-size",
    )


def tree(image: BaseImage, name: str, store: Store) -> dict[str, FileEntry]:
    """The files of a base as a container sees them, by path; their bytes are in its tars."""
    found: dict[str, FileEntry] = {}
    for number, layer in enumerate(image.layers, 1):
        path = os.fspath(store.blob(layer.diff_id))
        try:
            found = _over(found, _names(path, number))
        except TarFault as error:
            raise _damaged_layer(
                name, number, layer.descriptor.digest, f"is no valid tar: {error}"
            ) from error
        if len(found) > _MOST_NAMES:
            raise _damaged_layer(
                name, number, layer.descriptor.digest, "has too many files to be a base"
            )
    return found


@dataclasses.dataclass(slots=True)
class _Names:
    """What a layer has, and what it takes from those below it (layer.md, "Whiteouts")."""

    entries: dict[str, FileEntry] = dataclasses.field(default_factory=dict)
    gone: set[str] = dataclasses.field(default_factory=set)
    opaque: set[str] = dataclasses.field(default_factory=set)


_TYPES = {
    tarfile.DIRTYPE: FileType.DIRECTORY,
    tarfile.SYMTYPE: FileType.SYMLINK,
}


def _inside(name: str) -> str:
    """A name of an archive as a path of the image, whatever it tries."""
    return posixpath.normpath(f"/{name}").strip("/")


def _names(path: str, number: int) -> _Names:
    names = _Names()
    reason = f"the base, layer {number}"
    with open(path, "rb") as stream, open(path, "rb") as content:
        for member in members(stream):
            if len(member.name) > _LONGEST_NAME or len(member.linkname) > _LONGEST_NAME:
                raise TarFault("a name is too long")
            place = _inside(member.name)
            above, _, last = place.rpartition("/")
            if last.startswith(".wh."):
                hidden = last.removeprefix(".wh.")
                if last == ".wh..wh..opq":
                    names.opaque.add(above)
                elif hidden and not hidden.startswith(".wh."):
                    names.gone.add(posixpath.join(above, hidden))
                continue
            if not place:
                continue
            if len(names.entries) > _MOST_NAMES:
                raise TarFault("it has too many files")
            names.entries[place] = _entry(member, place, path, reason, content, names.entries)
    return names


def _entry(
    member: tarfile.TarInfo,
    place: str,
    path: str,
    reason: str,
    content: BinaryIO,
    known: Mapping[str, FileEntry],
) -> FileEntry:
    common = {
        "mode": member.mode & 0o7777,
        "group": BASE,
        "reason": reason,
        "uid": member.uid,
        "gid": member.gid,
    }
    if member.islnk():
        # of what a link shares, it is as if there were two; one that leads below is empty
        first = known.get(_inside(member.linkname))
        if first is not None:
            return dataclasses.replace(first, path=place)
    kind = _TYPES.get(member.type, FileType.REGULAR)
    if kind is not FileType.REGULAR:
        linkname = member.linkname if kind is FileType.SYMLINK else ""
        return FileEntry(place, kind, linkname=linkname, **common)  # type: ignore[arg-type]  # each of its type
    if not member.isreg() or member.issparse():
        # a device, say: it has its place, and nothing in it
        digest = hashlib.sha256().hexdigest()
        return FileEntry(place, kind, data=b"", digest=digest, **common)  # type: ignore[arg-type]  # each of its type
    content.seek(member.offset_data)
    digest_, left = hashlib.sha256(), member.size
    while left and (data := content.read(min(left, 1 << 20))):
        digest_.update(data)
        left -= len(data)
    return FileEntry(
        place,
        kind,
        source=path,
        offset=member.offset_data,
        size=member.size,
        digest=digest_.hexdigest(),
        **common,  # type: ignore[arg-type]  # each of its type
    )


def _over(lower: Mapping[str, FileEntry], layer: _Names) -> dict[str, FileEntry]:
    """What is seen of a tree with one more layer over it."""
    others = {
        path for path, entry in layer.entries.items() if entry.type is not FileType.DIRECTORY
    }
    gone = layer.gone | others
    below: dict[str, bool] = {"": "" in layer.opaque}

    def hides(above: str) -> bool:
        """Whether nothing that lies below a directory is left."""
        unknown = []
        while above not in below:
            unknown.append(above)
            above = above.rpartition("/")[0]
        for path in reversed(unknown):
            parent = path.rpartition("/")[0]
            below[path] = below[parent] or path in gone or path in layer.opaque
        return below[unknown[0] if unknown else above]

    found = {
        path: entry
        for path, entry in lower.items()
        if path not in gone and not hides(path.rpartition("/")[0])
    }
    for path, entry in layer.entries.items():
        found[path] = entry
        parent = path.rpartition("/")[0]
        while parent:
            above = found.get(parent)
            if above is not None and above.type is FileType.DIRECTORY:
                break
            found[parent] = directory(parent, group=BASE, reason=entry.reason)
            parent = parent.rpartition("/")[0]
    return found
