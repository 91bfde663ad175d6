"""Where an image comes from: an in-toto statement with SLSA provenance."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from eggcrate.image.layout import Image
from eggcrate.image.sbom import Component, image_name, without_credentials

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:eggcrate:docker-image:1"
BUILDER = "urn:eggcrate:builder"

Value = str | int | Sequence[str]

# Options that say nothing of the machine they are used on; paths are those of the image.
_PLAIN = frozenset(
    (
        "compression",
        "directory",
        "expose",
        "layers",
        "name",
        "os-packages",
        "parts",
        "platform",
        "python",
        "stop-signal",
        "supervisor",
        "tags",
        "user",
        "volumes",
        "workdir",
    )
)
# Options that may name a path of the machine, or hold what is nobody's business
_FREE = frozenset(
    (
        "allow-build-paths",
        "allow-secrets",
        "base",
        "command",
        "entrypoint",
        "exclude",
        "healthcheck",
        "include",
        "run-directory",
    )
)
# Options of NAME = VALUE, of which the names alone are told
_NAMED = frozenset(("environment", "labels"))

_NAME = re.compile(r"\s*([A-Za-z_][\w./-]*)\s*=")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)([^\s/?#]*)([^\s?#]*)[^\s]*")
_SECRET = re.compile(
    r"(?i)pass(word|wd|phrase)|secret|token|credential|api[-_]?key|private[-_]?key"
    r"|[^\s/@:]+:[^\s/@]+@(?!sha\d+:)"
)
# what stands between paths: in lists, in variables, after options
_BETWEEN = re.compile(r"[\s=:,;'\"()]+")


def statement(
    image: Image,
    *,
    inputs: Iterable[Component],
    epoch: int,
    builder_version: str,
    settings: Mapping[str, Value],
    tools: Mapping[str, str] | None = None,
) -> bytes:
    """The statement (in-toto Statement v1, SLSA provenance v1, JSON) of how the image was made.

    ``inputs`` are the components that went in, ``epoch`` is SOURCE_DATE_EPOCH, in seconds
    since 1970, the only time in it.  ``settings`` are the options that were given, by their
    names, with paths as they are in the image; ``tools`` are the versions of what else had a
    part in the bytes, the compressor for instance.

    What is told of an option has no password, token or path of this machine.  An option
    whose value can't be told is listed by its name in ``withheld``: the statement says that
    it was given.  The same arguments give the same bytes.
    """
    parameters, withheld = _parameters(image, settings)
    if withheld:
        parameters["withheld"] = withheld
    invocation = uuid.uuid5(uuid.NAMESPACE_URL, f"{BUILD_TYPE} {image.manifest.digest}")
    value = {
        "_type": STATEMENT,
        "subject": _subjects(image),
        "predicateType": PREDICATE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": parameters,
                "internalParameters": {
                    "SOURCE_DATE_EPOCH": epoch,
                    "platform": str(image.platform),
                },
                "resolvedDependencies": [*_components(image, inputs), *_layers(image)],
            },
            "runDetails": {
                "builder": {
                    "id": BUILDER,
                    "version": {**(tools or {}), "eggcrate": builder_version},
                },
                # when it began and ended is nothing that could be the same twice
                "metadata": {"invocationId": f"urn:uuid:{invocation}"},
            },
        },
    }
    return json.dumps(value, ensure_ascii=False, indent=1, sort_keys=True).encode() + b"\n"


def _digest(digest: str) -> dict[str, str]:
    """A digest as in-toto writes it (DigestSet)."""
    algorithm, _, value = digest.partition(":")
    return {algorithm: value}


def _subjects(image: Image) -> list[dict[str, Any]]:
    """The image by each of its names, of which it has one at least."""
    names = {
        f"{without_credentials(reference.host)}/{reference.path}:{reference.tag}"
        for reference in image.references
    } or {image_name(image)}
    return [{"name": name, "digest": _digest(image.manifest.digest)} for name in sorted(names)]


def _components(image: Image, inputs: Iterable[Component]) -> Iterable[dict[str, Any]]:
    for component in sorted(inputs, key=lambda component: component.ref):
        value: dict[str, Any] = {
            "name": component.name,
            "uri": component.purl,
            "annotations": {
                "layer": image.layers[component.layer].diff_id,
                "version": component.version,
            },
        }
        if component.digest:
            value["digest"] = {"sha256": component.digest}
        yield value


def _layers(image: Image) -> Iterable[dict[str, Any]]:
    for number, layer in enumerate(image.layers, 1):
        yield {
            "name": f"layer {number}: {layer.plan.name}",
            "digest": _digest(layer.descriptor.digest),
            "mediaType": layer.descriptor.media_type,
            "annotations": {"diffID": layer.diff_id},
        }


def _parameters(
    image: Image, settings: Mapping[str, Value]
) -> tuple[dict[str, Any], list[str]]:
    """What is told of each option, and the names of those whose value can't be."""
    inside = _paths(image)
    parameters: dict[str, Any] = {}
    withheld: list[str] = []
    for option in sorted(settings):
        value = settings[option]
        if option in _NAMED:
            lines = value.splitlines() if isinstance(value, str) else _items(value)
            names = [_NAME.match(line) for line in lines if line.strip()]
            if None in names:
                withheld.append(option)
            else:
                parameters[option] = sorted({name[1] for name in names if name})
            continue
        items = list(map(_without_credentials, _items(value)))
        told = option in _PLAIN or (
            option in _FREE and all(_is_inside(item, inside) for item in items)
        )
        if not told or any(_SECRET.search(item) for item in items):
            withheld.append(option)
        else:
            parameters[option] = _like(value, items)
    return parameters, withheld


def _items(value: Value) -> list[str]:
    return [str(value)] if isinstance(value, str | int) else [str(item) for item in value]


def _like(value: Value, items: list[str]) -> Any:
    """The items in the form in which the value was given."""
    if isinstance(value, int):
        return value
    return items[0] if isinstance(value, str) else items


def _without_credentials(text: str) -> str:
    """The text whose URLs have neither user and password nor query and fragment."""

    def plain(match: re.Match[str]) -> str:
        # docker://NAME@sha256:... has no user: what follows is a digest
        host, at, digest = match[2].partition("@sha")
        return f"{match[1]}{without_credentials(host)}{at}{digest}{match[3]}"

    return _URL.sub(plain, text)


def _paths(image: Image) -> set[str]:
    """Every path of the image, and every directory above one."""
    paths = {""}
    for layer in image.layers:
        for entry in layer.plan.entries:
            path = entry.path
            while path not in paths:
                paths.add(path)
                path = path.rpartition("/")[0]
    return paths


def _is_inside(text: str, paths: set[str]) -> bool:
    """Whether every path that the text names is relative, or one of the image's."""
    for word in _BETWEEN.split(_URL.sub("", text)):
        if "~" in word or ".." in word.split("/"):
            return False
        relative = word[:1].isalnum() or word[:1] in ("", ".", "*", "_")
        _, absolute, path = word.partition("/")
        if absolute and not relative and path.strip("/") not in paths:
            return False
    return True
