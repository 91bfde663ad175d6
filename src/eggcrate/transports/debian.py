"""Debian as a base image: packages from apt's own sources, as any user, without an engine.

apt-get resolves and fetches in a directory of eggcrate's own, with the machine's sources,
keys and proxies, and nothing of its packages or hooks.  apt checks the signatures of the
package index; a package file is known by the SHA-256 that the index has for it.
``eggcrate.transports.deb`` makes files of the packages.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fcntl
import hashlib
import json
import logging
import os
import pathlib
import platform
import re
import shlex
import shutil
import subprocess
import tempfile
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from eggcrate.errors import TransportError
from eggcrate.image.store import replacing, write_if_changed
from eggcrate.transports.deb import Package, deb_path, is_unpacked, paragraphs

logger = logging.getLogger(__name__)

# What an image of os-packages alone starts from: the accounts, /etc, a shell, the C library
# with its C.UTF-8 locale, time zones, the names of ports, certificates.
BASE_PACKAGES = (
    "base-files",
    "base-passwd",
    "ca-certificates",
    "coreutils",
    "dash",
    "libc-bin",
    "netbase",
    "tzdata",
)

# Packages whose programs only install others, and which most dependencies on them mean
# for maintainer scripts.  apt is told that they are there, unless the user names them.
_INSTALLERS = ("debconf", "dpkg")

# OCI's names for processors, and Debian's (image-spec config.md; dpkg-architecture(1))
_ARCHITECTURES = {
    "386": "i386",
    "amd64": "amd64",
    "arm": "armhf",
    "arm/v5": "armel",
    "arm/v7": "armhf",
    "arm64": "arm64",
    "arm64/v8": "arm64",
    "loong64": "loong64",
    "mips64le": "mips64el",
    "ppc64le": "ppc64el",
    "riscv64": "riscv64",
    "s390x": "s390x",
}

_OTHER_BASE = "set base to an image, docker://python:3.12-slim for instance"
_SAFE = "A-Za-z0-9.+~"


def debian_architecture(platform_name: str) -> str:
    """Debian's name for a platform of OCI's: ``amd64`` for ``linux/amd64``."""
    system, _, processor = platform_name.partition("/")
    if system != "linux" or processor not in _ARCHITECTURES:
        raise TransportError(
            f"Debian has no packages for the platform {platform_name}",
            "set platform to linux/amd64, linux/arm64 or another that Debian supports, "
            "or set base to an image",
        )
    return _ARCHITECTURES[processor]


# Sources ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Source:
    """One repository: ``options`` are fields of sources.list(5), in lower case."""

    uri: str
    suite: str
    components: tuple[str, ...]
    options: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Suite:
    """A release of Debian for one architecture, and where its packages come from."""

    name: str
    architecture: str
    sources: tuple[Source, ...]

    def text(self) -> str:
        """The sources in apt's deb822 format."""
        stanzas = []
        for source in self.sources:
            fields = {
                "types": "deb",
                "uris": source.uri,
                "suites": source.suite,
                "components": " ".join(source.components),
                "architectures": self.architecture,
                **dict(source.options),
            }
            stanzas.append("".join(f"{name}: {fields[name]}\n" for name in fields))
        return "\n".join(stanzas)


# Options that say whom to trust and what is too old; not those that allow to trust nobody.
_KEPT_OPTIONS = frozenset(
    (
        "by-hash",
        "check-date",
        "check-valid-until",
        "date-max-future",
        "inrelease-path",
        "signed-by",
        "snapshot",
        "trusted",
        "valid-until-max",
        "valid-until-min",
    )
)
_OFFICIAL_COMPONENTS = frozenset(
    ("main", "contrib", "non-free", "non-free-firmware")  # Debian's
    + ("restricted", "universe", "multiverse")  # Ubuntu's
)


def _source(fields: Mapping[str, str], architecture: str) -> Iterator[Source]:
    """The repositories of one stanza, as far as they serve the architecture."""
    only = re.split(r"[\s,]+", fields.get("architectures", "").strip())
    if only != [""] and architecture not in only:
        return
    options = tuple(sorted((k, v) for k, v in fields.items() if k in _KEPT_OPTIONS))
    components = tuple(fields.get("components", "").split())
    for uri in fields.get("uris", "").split():
        for suite_name in fields.get("suites", "").split():
            yield Source(uri, suite_name, components, options)


def parse_sources(text: str, *, deb822: bool, architecture: str) -> list[Source]:
    """The binary repositories that a file of apt's sources has (sources.list(5))."""
    found: list[Source] = []
    if deb822:
        for fields in paragraphs(text):
            enabled = fields.get("enabled", "yes").lower() not in ("no", "false", "0", "off")
            if enabled and "deb" in fields.get("types", "").split():
                found += _source(fields, architecture)
        return found
    for line in text.splitlines():
        match = re.fullmatch(
            r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<rest>.*)",
            line.partition("#")[0].strip(),
        )
        if match is None:
            continue
        options = dict(
            option.lower().partition("=")[::2] if "=" not in option else option.split("=", 1)
            for option in (match["options"] or "").split()
        )
        found += _source(
            {
                **options,
                "architectures": options.get("arch", ""),
                "uris": match["uri"],
                "suites": match["suite"],
                "components": match["rest"],
            },
            architecture,
        )
    return found
