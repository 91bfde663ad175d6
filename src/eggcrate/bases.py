"""An image that somebody else has made as the base, and what its digest is locked to."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import logging
import pathlib
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from eggcrate.errors import PlanError
from eggcrate.image.layers import Layer
from eggcrate.image.layout import NOTHING, Below
from eggcrate.image.plan import (
    BASE_LAYER,
    MOST_LAYERS,
    FileEntry,
    FileType,
    LayerPlan,
    as_row,
    directory,
    from_row,
    printable,
    resolve,
)
from eggcrate.image.store import Store, write_if_changed
from eggcrate.payload import interpreter as interpreters
from eggcrate.payload import libraries
from eggcrate.payload.files import Files
from eggcrate.payload.interpreter import Interpreter
from eggcrate.payload.libraries import Binary
from eggcrate.payload.relocation import Relocation
from eggcrate.settings import ImageSettings
from eggcrate.transports import base_image, deb

if TYPE_CHECKING:
    from eggcrate.transports.connection import Access

logger = logging.getLogger(__name__)

# Raise it whenever other entries come of the same layers.
FORMAT = 1

LOCK = "base.lock"
_PLACES = ("/usr/local/bin", "/usr/bin")
_NOBODY = ("", "0", "0:0", "root", "root:root")


# The lock -----------------------------------------------------------------------------


def pinned(settings: ImageSettings, store: Store) -> ImageSettings:
    """The settings with the digest that the base's name means for this build.

    That of a name which may move is kept where the lock has it, unless the newest is wanted.
    """
    name = settings.base
    if not name or name == base_image.SCRATCH or settings.base_digest:
        return settings
    digest = None
    if base_image.moves(name):
        locked = _lock(settings).get(name, {}).get(str(settings.platform))
        digest = None if settings.refresh and not settings.offline else locked
        if digest is None and settings.offline:
            raise PlanError(
                f"the base {name} is not in {LOCK}, and offline is set",
                "run once with offline = false",
            )
        if digest is None:
            digest = _resolved(settings, store)
            if locked and locked != digest:
                logger.info("base: %s was %s, and is now %s", name, locked, digest)
    elif "@" in name or name.startswith(base_image.DAEMON):
        digest = f"sha256:{name.rpartition('sha256:')[2]}"
    else:
        digest = _resolved(settings, store)
    return dataclasses.replace(settings, base_digest=digest)


def _resolved(settings: ImageSettings, store: Store) -> str:
    return base_image.resolve(settings.base, settings.platform, store, access=_access(settings))


def _access(settings: ImageSettings) -> Access | None:
    """What is allowed with a registry, for a base that is in one."""
    if not settings.base.startswith(base_image.REGISTRY):
        return None
    from eggcrate.transports.connection import Access

    return Access(
        insecure=frozenset(settings.insecure_registries),
        token_hosts=frozenset(settings.token_hosts),
    )


def keep_lock(settings: ImageSettings) -> None:
    """Write down the digest that an image was built on: each platform has its own."""
    if base_image.moves(settings.base):
        locked = _lock(settings)
        locked.setdefault(settings.base, {})[str(settings.platform)] = settings.base_digest
        text = json.dumps(locked, indent=1, sort_keys=True) + "\n"
        write_if_changed(settings.site.directory / LOCK, text.encode())


def _lock(settings: ImageSettings) -> dict[str, dict[str, str]]:
    path = settings.site.directory / LOCK
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise PlanError(
            f"{path} can't be read: {error}", "mend it, or remove it to have it made anew"
        ) from error
    if not isinstance(found, dict) or not all(
        isinstance(platforms, dict)
        and all(
            isinstance(value, str) and re.fullmatch("sha256:[0-9a-f]{64}", value)
            for value in platforms.values()
        )
        for platforms in found.values()
    ):
        raise PlanError(
            f"{path} has something else than digests",
            "mend it, or remove it to have it made anew",
        )
    return found


# The base -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Said:
    """What a base says of how it is run: nothing, if it is none.

    There is no ``user`` where that is root, and no ``working_directory`` where that is /.
    """

    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    labels: Mapping[str, str] = dataclasses.field(default_factory=dict)
    user: str = ""
    working_directory: str = ""
    stop_signal: str = ""
    healthcheck: Mapping[str, Any] | None = None


class ImageBase:
    """An image as the base of another, or nothing at all (``scratch``)."""

    def __init__(self, settings: ImageSettings, store: Store) -> None:
        self._settings = pinned(settings, store)
        self._store = store
        # what a base of packages has: here nothing is added or looked at but the image
        self.added: list[str] = []
        self.files = Files(Relocation(()))
        self.binaries: dict[str, Binary | None] = {}
        # no package goes into the image
        self.package_for = None

    @functools.cached_property
    def image(self) -> base_image.BaseImage:
        """The base, whose blobs are in the store."""
        settings = self._settings
        if settings.base == base_image.SCRATCH:
            return base_image.BaseImage("", "", {}, ())
        return base_image.read(
            settings.base,
            settings.base_digest,
            settings.platform,
            self._store,
            most=settings.base_size,
            offline=settings.offline,
            access=_access(settings),
        )

    @functools.cached_property
    def below(self) -> Below:
        """The base's layers, as those of the image that is made on them."""
        image = self.image
        if not image.digest:
            return NOTHING
        if len(image.layers) + self._settings.layers > MOST_LAYERS:
            raise PlanError(
                f"the base {self._settings.base} has {len(image.layers)} layers, and an image "
                f"at most {MOST_LAYERS}",
                "set layers to a lower number, or take a base that has fewer",
            )
        layers = tuple(
            Layer(
                LayerPlan(f"{BASE_LAYER}{number}", (), layer.size),
                layer.descriptor,
                layer.diff_id,
                layer.size,
                hashlib.sha256(f"{BASE_LAYER}{number} {layer.diff_id}".encode()).hexdigest(),
                made=False,
            )
            for number, layer in enumerate(image.layers, 1)
        )
        return Below(image.name, image.digest, layers, image.history)

    @functools.cached_property
    def _tree(self) -> dict[str, FileEntry]:
        """What the base's layers have, by path; its binaries are known then."""
        image = self.image
        # the rows say where files lie, and a cache may have been moved
        text = f"{FORMAT} {self._store.root} {[layer.diff_id for layer in image.layers]}"
        key = hashlib.sha256(text.encode()).hexdigest()
        table = self._store.table("base-trees", key)
        if table is not None:
            rows, binaries = table
            self.binaries = {
                digest: libraries.from_record(binary) for digest, binary in binaries
            }
            return {row[0]: from_row(row) for row in rows}
        tree = base_image.tree(image, self._settings.base, self._store)
        tree = {path: tree[path] for path in sorted(tree)}
        self.binaries = libraries.read_all(tree.values())
        binaries = [
            (digest, libraries.as_record(binary)) for digest, binary in self.binaries.items()
        ]
        self._store.keep_table("base-trees", key, (list(map(as_row, tree.values())), binaries))
        return tree

    def entries(self, python: Interpreter) -> tuple[FileEntry, ...]:
        """The files of the base, and what an image needs beside them."""
        settings = self._settings
        if settings.base == base_image.SCRATCH:
            user = "app" if settings.uid else None
            return deb.root_entries((), user=user, uid=settings.uid)
        tree = dict(self._tree)
        # as on Debian: whoever runs the image makes its run directory there
        place = resolve("run", tree, last=True)
        there = tree.get(place)
        if there is None or (there.type is FileType.DIRECTORY and there.mode & 0o7 != 0o7):
            reason = "any user makes the run directory in it"
            tree[place] = directory(place, group="configuration", reason=reason, mode=0o1777)
        return tuple(tree.values())

    @functools.cached_property
    def said(self) -> Said:
        """What its config says of how it is run."""
        said = self.image.setting
        health = said("Healthcheck")
        pairs = [text.partition("=") for text in said("Env") or ()]
        user, place = said("User") or "", said("WorkingDir") or ""
        return Said(
            {name: value for name, equals, value in pairs if name and equals},
            dict(said("Labels") or {}),
            "" if user in _NOBODY else user,
            place if place.startswith("/") and place.strip("/") else "",
            said("StopSignal") or "",
            health if health and health.get("Test") else None,
        )

    # Its Python

    def python(self) -> Interpreter:
        """The Python of the image, by the option ``python`` and what the base has."""
        wanted, version = self._settings.python, interpreters.this_version()
        nothing = self._settings.base == base_image.SCRATCH
        if wanted == "host" or (nothing and wanted == "auto"):
            return interpreters.host_interpreter()
        name = self._settings.base
        found = dict(self._pythons())
        this = f"{version[0]}.{version[1]}"
        if version in found:
            return Interpreter(version, found[version], "base")
        offered = ", ".join(f"{major}.{minor}" for major, minor in sorted(found))
        has = f"Python {offered}" if offered else "no Python"
        if wanted == "base":
            raise PlanError(
                f"the base {name} has {has}, and buildout runs on {this}",
                "run buildout with the base's Python, take another base, or set python = host",
            )
        logger.info(
            "%s has %s, buildout runs on %s: this Python goes into the image.",
            name,
            has,
            this,
        )
        return interpreters.host_interpreter()

    def _pythons(self) -> Iterator[tuple[tuple[int, int], str]]:
        """Versions of Python that the base has, with their programs; of one version, the one
        that its PATH finds first comes last."""
        tree, architecture = self._tree, self._settings.platform.architecture
        places = [*self.said.environment.get("PATH", "").split(":"), *_PLACES]
        for place in reversed(list(dict.fromkeys(filter(None, places)))):
            for path, version in _programs(tree, place):
                real = resolve(path, tree, last=True)
                entry = tree.get(real)
                prefix = posixpath.dirname(posixpath.dirname(real))
                library = f"{prefix}/lib/python{version[0]}.{version[1]}/os.py"
                if entry is None or resolve(library, tree, last=True) not in tree:
                    continue
                binary = self.binaries.get(entry.digest)
                if binary is not None and binary.machine != architecture:
                    raise PlanError(
                        f"the base {self._settings.base} says that it is for {architecture}, "
                        f"and /{printable(real)} is built for {binary.machine}",
                        "take a base that is what it says",
                    )
                if binary is not None:
                    yield version, f"/{path}"

    def refresh(self) -> None:
        """Nothing: what the base's name means was found out when the build began."""

    def add(self, packages: Iterable[str]) -> list[str]:
        """Nothing can be added to an image of somebody else."""
        return []

    def extract(self, path: str, directory: pathlib.Path) -> tuple[str, ...]:
        """Nothing: what somebody else has built is not run on this machine."""
        return ()


def _programs(
    tree: Mapping[str, FileEntry], place: str
) -> Iterator[tuple[str, tuple[int, int]]]:
    """The programs of a directory that are called like a Python, with its version."""
    top = resolve(place, tree, last=True)
    for minor in range(100):
        path = f"{top}/python3.{minor}"
        if path in tree:
            yield path, (3, minor)
