"""What an image is to be: typed settings, and the file that keeps them."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import types
import typing
from typing import Any

from eggcrate.errors import SettingsError
from eggcrate.image.oci import Platform, Reference
from eggcrate.payload.site import Include, Part, Site

# Raise it whenever an older file must not be read.
FORMAT = 1

# bytes that the layers of a base may have when they are unpacked
BASE_SIZE = 20 << 30

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "ppc64le": "ppc64le"}


def this_platform() -> Platform:
    """The platform of this machine."""
    machine = os.uname().machine
    return Platform("linux", _MACHINES.get(machine, machine))


@dataclasses.dataclass(frozen=True, slots=True)
class ImageSettings:
    """What an image is to be: the options of ``docker-image``, typed and checked.

    ``suite`` is Debian's, or None for the machine's own, where ``base`` is empty; else that is
    the name of an image, or ``scratch``, and ``base_digest`` is what the name means for this
    build; ``base_size`` is how many bytes it may have.  ``python`` is ``auto``, ``base``,
    ``debian`` or ``host``.  ``inherited`` are the
    options that the base decides, as nobody has given them.  ``command`` and ``healthcheck``
    may name paths of this machine; they are relocated like everything else.  ``builder`` is
    ``embedded``, ``docker`` or ``files``, and ``build_network`` is for the second.
    ``platforms`` are those of an image for several, and ``index`` and ``find_links`` are where
    wheels for another than this machine's come from.  ``part`` is the part's name, where
    ``location`` is not called so.
    """

    references: tuple[Reference, ...]
    platform: Platform
    site: Site
    parts: tuple[Part, ...]
    directory: str
    location: pathlib.Path
    suite: str | None = None
    base: str = ""
    base_digest: str = ""
    base_size: int = BASE_SIZE
    inherited: tuple[str, ...] = ()
    os_packages: tuple[str, ...] = ()
    auto_packages: bool = False
    python: str = "auto"
    include: tuple[Include, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_build_paths: tuple[str, ...] = ()
    allow_secrets: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] | None = None
    uid: int = 10001
    gid: int = 10001
    expose: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    working_directory: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    healthcheck: tuple[str, ...] = ()
    stop_signal: str = "SIGTERM"
    layers: int = 12
    together: tuple[tuple[str, ...], ...] = ()
    compression: str = "gzip"
    epoch: int = 0
    push: tuple[Reference, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    token_hosts: tuple[str, ...] = ()
    builder: str = "embedded"
    build_network: str = ""
    part: str = ""
    platforms: tuple[Platform, ...] = ()
    index: str = ""
    find_links: tuple[str, ...] = ()
    refresh: bool = True
    offline: bool = False

    @property
    def name(self) -> str:
        """The name of the part."""
        return self.part or self.location.name

    def each(self) -> tuple[ImageSettings, ...]:
        """The settings of the image for each platform: these, where there is but one."""
        if not self.platforms:
            return (self,)
        return tuple(
            dataclasses.replace(
                self,
                platform=platform,
                platforms=(),
                part=self.name,
                location=self.location / str(platform).replace("/", "-"),
            )
            for platform in self.platforms
        )


def document(settings: ImageSettings) -> bytes:
    """The settings as JSON, for ``bin/image`` to build from when buildout does not run."""
    text = json.dumps({"format": FORMAT, **_as_json(settings)}, indent=1, sort_keys=True)
    return text.encode() + b"\n"


def read(path: pathlib.Path) -> ImageSettings:
    """The settings that :func:`document` made a file of."""
    try:
        value = json.loads(path.read_bytes())
        if value.pop("format") != FORMAT:
            raise ValueError
        settings = _from_json(ImageSettings, value)
    except OSError as error:
        raise SettingsError(
            f"{path} can't be read: {error.strerror}", "run bin/buildout, which writes it"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"{path} is not of this release, or not whole", "run bin/buildout, which writes it"
        ) from error
    assert isinstance(settings, ImageSettings)
    return settings


def _as_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return {
            field.name: _as_json(getattr(value, field.name))
            for field in dataclasses.fields(value)
        }
    if isinstance(value, tuple):
        return [_as_json(item) for item in value]
    return str(value) if isinstance(value, pathlib.Path) else value


def _from_json(type_: Any, value: Any) -> Any:
    """The value of a field, as its annotation has it; ValueError for one of another type."""
    if isinstance(type_, type) and dataclasses.is_dataclass(type_):
        hints = typing.get_type_hints(type_)
        return type_(**{name: _from_json(hints[name], item) for name, item in value.items()})
    origin, arguments = typing.get_origin(type_), typing.get_args(type_)
    if origin is tuple:
        if arguments[1:] == (...,):
            arguments = arguments[:1] * len(value)
        if type(value) is not list or len(value) != len(arguments):
            raise ValueError
        return tuple(map(_from_json, arguments, value))
    if origin is types.UnionType:
        inner = next(item for item in arguments if item is not types.NoneType)
        return None if value is None else _from_json(inner, value)
    if type_ is pathlib.Path:
        return pathlib.Path(value)
    if type(value) is not type_:
        raise ValueError
    return value
