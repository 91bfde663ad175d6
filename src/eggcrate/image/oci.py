"""The documents of an image: descriptor, config, manifest, index (OCI image-spec 1.1)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from eggcrate.errors import SettingsError
from eggcrate.image.descriptor import INDEX, Descriptor
from eggcrate.image.words import familiar

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"

# What registries and engines have as well, of Docker's: the same documents by other names
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
MANIFESTS = (MANIFEST, DOCKER_MANIFEST)
INDEXES = (INDEX, DOCKER_LIST)

DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

# the grammar of distribution/reference: a host, path components, a tag
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_NAME = re.compile(
    rf"(?:(?P<host>localhost|{_LABEL}(?:\.{_LABEL})+|{_LABEL}(?:\.{_LABEL})*:[0-9]+"
    r"|\[[0-9a-fA-F:]+\](?::[0-9]+)?)/)?"
    rf"(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
)
#: a registry's host, as it stands in a reference
HOST = r"(?:[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
_ID = re.compile(r"[0-9a-f]{64}")


def digest_of(data: bytes) -> str:
    """The digest of the bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def document(value: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON document: keys sorted, nothing between the tokens, UTF-8."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode()


@dataclasses.dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on (image-index.md): ``linux/amd64``, ``linux/arm64/v8``."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))

    def as_json(self) -> dict[str, str]:
        """The platform as it stands in an index, and in a config."""
        value = {"os": self.os, "architecture": self.architecture}
        if self.variant:
            value["variant"] = self.variant
        return value


@dataclasses.dataclass(frozen=True, slots=True)
class Healthcheck:
    """How an engine finds out whether a container works (Docker's extension of config.md).

    The times are in seconds.
    """

    command: tuple[str, ...]
    interval: int = 30
    timeout: int = 5
    start_period: int = 20
    retries: int = 3

    def as_json(self) -> dict[str, Any]:
        """The check as it stands in a config: times in nanoseconds."""
        second = 1_000_000_000
        return {
            "Test": ["CMD", *self.command],
            "Interval": self.interval * second,
            "Timeout": self.timeout * second,
            "StartPeriod": self.start_period * second,
            "Retries": self.retries,
        }


@dataclasses.dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """How a container of the image is run (config.md, "config")."""

    entrypoint: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    user: str = ""
    working_directory: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    exposed_ports: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    stop_signal: str = ""
    # a base image's own is a mapping, as its config has it
    healthcheck: Healthcheck | Mapping[str, Any] | None = None

    def as_json(self) -> dict[str, Any]:
        """The object "config" of an image config; what is empty is left out."""
        value: dict[str, Any] = {
            "Entrypoint": list(self.entrypoint),
            "Cmd": list(self.command),
            "User": self.user,
            "WorkingDir": self.working_directory,
            "Env": [f"{name}={text}" for name, text in self.environment],
            "ExposedPorts": {port: {} for port in self.exposed_ports},
            "Volumes": {path: {} for path in self.volumes},
            "Labels": dict(self.labels),
            "StopSignal": self.stop_signal,
            "Healthcheck": (
                self.healthcheck.as_json()
                if isinstance(self.healthcheck, Healthcheck)
                else self.healthcheck
            ),
        }
        return {key: item for key, item in value.items() if item}


@dataclasses.dataclass(frozen=True, slots=True)
class History:
    """Where a layer comes from (config.md, "history")."""

    created_by: str


def config_document(
    platform: Platform,
    runtime: RuntimeConfig,
    diff_ids: Sequence[str],
    history: Sequence[History],
    created: str,
    *,
    base_history: Sequence[Mapping[str, Any]] = (),
) -> bytes:
    """The bytes of an image config (config.md); ``created`` is a date-time of RFC 3339.

    ``base_history`` is that of the base image as it stands in its config.
    """
    return document(
        {
            **platform.as_json(),
            "created": created,
            "config": runtime.as_json(),
            "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
            "history": [
                *base_history,
                *({"created": created, "created_by": entry.created_by} for entry in history),
            ],
        }
    )


def manifest_document(
    config: Descriptor, layers: Sequence[Descriptor], annotations: Mapping[str, str]
) -> bytes:
    """The bytes of an image manifest (manifest.md)."""
    value: dict[str, Any] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": config.as_json(),
        "layers": [layer.as_json() for layer in layers],
    }
    if annotations:
        value["annotations"] = dict(annotations)
    return document(value)


def index_document(
    manifest: Descriptor, platform: Platform | None, references: Sequence[Reference]
) -> bytes:
    """The bytes of a layout's ``index.json``, in which the image has all its names.

    An image for several platforms has an index for its manifest, and no platform here.
    Engines disagree on where a name stands: containers/image reads ``ref.name``,
    containerd its own annotation.  With the whole reference in both, Docker and podman
    show the image under the same name.
    """
    entries = [
        {
            **manifest.as_json(),
            **({"platform": platform.as_json()} if platform else {}),
            "annotations": {
                "io.containerd.image.name": str(reference),
                "org.opencontainers.image.ref.name": str(reference),
            },
        }
        for reference in references
    ]
    return document({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})


def platforms_document(manifests: Sequence[tuple[Descriptor, Platform]]) -> bytes:
    """The bytes of the index of an image for several platforms (image-index.md)."""
    entries = [
        {**manifest.as_json(), "platform": platform.as_json()}
        for manifest, platform in manifests
    ]
    return document({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """A repository and a tag, with the registry's host always said."""

    host: str
    path: str
    tag: str

    def __str__(self) -> str:
        return f"{self.host}/{self.path}:{self.tag}"

    @property
    def familiar(self) -> str:
        """The reference as people write it: without Docker Hub's host."""
        return familiar(str(self))


def parse(text: str) -> Reference:
    """The reference that people write: a name, and after a colon a tag, else ``latest``."""
    name, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        name, tag = text, "latest"
    if "@" in text:
        raise SettingsError(
            "a name with an @ in it has a digest or a password, and can't be pushed to",
            "name a repository and a tag, as in registry.example/acme/shop:1.4; log in with "
            "docker login",
        )
    return reference(name, tag)


def repository(name: str) -> str:
    """The ``HOST/PATH`` of a reference that has both; empty for what is none."""
    host, slash, path = name.partition("@")[0].partition("/")
    return f"{host}/{path.partition(':')[0]}" if slash else ""


def reference(name: str, tag: str) -> Reference:
    """The reference of a repository's name and a tag, as engines understand them.

    A name without a host means ``docker.io``, one without a slash ``docker.io/library``.
    """
    match = _NAME.fullmatch(name) if len(name) <= 255 else None
    # what looks like the ID of an image is none of its names
    if match is None or _ID.fullmatch(name):
        raise SettingsError(
            f"the image name {name!r} is not valid",
            "use lower-case letters, digits and single separators (. _ -) between slashes, "
            "as in acme/shop or registry.example:5000/acme/shop; tags go into the option tags",
        )
    if TAG.fullmatch(tag) is None:
        raise SettingsError(
            f"the tag {tag!r} is not valid",
            "use up to 128 letters, digits, '_', '.' and '-', not beginning with '.' or '-'",
        )
    host, path = match["host"] or "docker.io", match["path"]
    port = re.search(r":([0-9]+)$", host)
    if port and not 0 < int(port[1]) < 65536:
        raise SettingsError(
            f"the image name {name!r} has {port[1]} for a port", "use one from 1 to 65535"
        )
    if host == "index.docker.io":
        host = "docker.io"
    if host == "docker.io" and "/" not in path:
        path = f"library/{path}"
    return Reference(host, path, tag)
