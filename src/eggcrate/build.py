"""From settings to an image: the plan, its checks, its bytes."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import logging
import os
import pathlib
import posixpath
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from eggcrate import record
from eggcrate.errors import EggcrateError, PlanError, raise_all
from eggcrate.image import cache, layout
from eggcrate.image.layout import Image
from eggcrate.image.oci import Healthcheck, RuntimeConfig
from eggcrate.image.plan import (
    PLAN_HEADER,
    PLAN_LAYER,
    BuildPlan,
    FileEntry,
    FileType,
    amount,
    as_row,
    bytes_file,
    from_row,
    merge,
    plan_layers,
    printable,
    resolve,
    symlink,
)
from eggcrate.image.store import Store, replacing, write_if_changed
from eggcrate.payload import interpreter as interpreters
from eggcrate.payload import libraries
from eggcrate.payload.bytecode import bytecode_entries
from eggcrate.payload.closure import Closure
from eggcrate.payload.files import Files
from eggcrate.payload.interpreter import Interpreter
from eggcrate.payload.libraries import Binary
from eggcrate.payload.relocation import Relocation, Rule
from eggcrate.payload.site import Site
from eggcrate.settings import ImageSettings
from eggcrate.transports import deb, debian

logger = logging.getLogger(__name__)

RUN_DIRECTORY = "/run/eggcrate"
_RUNTIME = "usr/lib/eggcrate"
# the modules of the runtime package that an image gets
_RUNTIME_MODULES = ("__init__", "start", "health")


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """An image that was made, and what it took: layers and bytes that were not there before.

    The plans of its layers may have no entries, see :class:`eggcrate.record.Again`.
    """

    image: Image
    changed_layers: int
    changed_bytes: int


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """A plan that has passed every check, how a container is run, and what was looked at."""

    plan: BuildPlan
    runtime: RuntimeConfig
    details: record.Details
    files: tuple[Files, ...]
    telling: frozenset[str]
    warnings: tuple[str, ...]


def relocation_rules(site: Site, directory: str, python: Interpreter) -> tuple[Rule, ...]:
    """What the paths of a buildout become in its image."""
    rules = [
        Rule(os.fspath(site.directory), directory),
        Rule(os.fspath(site.run_directory), RUN_DIRECTORY),
        # shared by many buildouts or its own, the eggs lie in one place
        Rule(os.fspath(site.eggs), f"{directory}/eggs"),
        # so do the distributions beside zc.buildout, wherever its environment is
        Rule(os.fspath(site.environment), f"{directory}/.venv/site-packages"),
        *interpreters.host_rules(python),
    ]
    for outside, name in ((site.parts, "parts"), (site.bin, "bin")):
        if not outside.is_relative_to(site.directory):
            rules.append(Rule(os.fspath(outside), f"{directory}/{name}"))
    for location in site.develop:
        if not location.is_relative_to(site.directory):
            rules.append(Rule(os.fspath(location), f"{directory}/develop/{location.name}"))
    image_prefix = posixpath.dirname(posixpath.dirname(python.program))
    for prefix in map(os.fspath, site.prefixes):
        if prefix not in ("/usr", "/usr/local") and not pathlib.Path(prefix).is_relative_to(
            site.directory
        ):
            rules.append(Rule(prefix, image_prefix))
    return tuple(rules)


def build(settings: ImageSettings, store: Store) -> Outcome:
    """Build the image and leave it at the settings' location.

    Nothing is written there before the plan is complete and has passed every check.  Where
    only ordinary files have other bytes than at the last build, its plan is used again.
    """
    limit = cache.size_limit()
    with store.in_use():
        outcome = _build(settings, store)
    cache.bound(store, limit)
    return outcome


def _build(settings: ImageSettings, store: Store) -> Outcome:
    location = settings.location
    before = _known_layers(location)
    base = _Base(settings, store)
    if settings.refresh:
        base.refresh()
    key = _surroundings(settings)
    again = record.again(
        store, location, key, compression=settings.compression, epoch=settings.epoch
    )
    if again is not None and (text := _patched_text(location, again)) is not None:
        image = again.image
    else:
        started = time.time_ns()
        planned = plan_image(settings, store, base)
        for warning in planned.warnings:
            logger.warning("%s", warning)
        image = _make(settings, planned, store)
        text = planned.plan.text()
        record.remember(
            store,
            location,
            key,
            image,
            planned.files,
            relocation=planned.details.relocation,
            cache_tag=planned.details.python.cache_tag,
            started=started,
            telling=planned.telling,
        )
        record.remember_details(store, location, planned.details)
    new = [layer for layer in image.layers if layer.descriptor.digest not in before]
    _write(settings, image, text, store)
    return Outcome(image, len(new), sum(layer.descriptor.size for layer in new))


def summary(outcome: Outcome) -> str:
    """One line on what was made: names, digest, layers, bytes, and what of it is new."""
    image = outcome.image
    names = ", ".join(reference.familiar for reference in image.references)
    change = (
        f"{outcome.changed_layers} changed, {amount(outcome.changed_bytes)}"
        if outcome.changed_layers
        else "unchanged"
    )
    return (
        f"{names}  {image.manifest.digest}  {len(image.layers)} layers, {amount(image.size)}"
        f"  ({change})"
    )


def before_last(settings: ImageSettings, store: Store) -> Image | None:
    """The image that was built before the last one; None when there was none."""
    return record.recall(store, settings.location, previous=True)


def last(settings: ImageSettings, store: Store) -> Image:
    """The image at the settings' location, with its whole plan."""
    image = record.recall(store, settings.location)
    digest = _read(settings.location / "digest")
    if image is None or digest != f"{image.manifest.digest}\n".encode():
        raise PlanError(
            f"the cache does not know the image at {settings.location}",
            "build it, with bin/buildout or with the command build",
        )
    return image


def relocation_of(settings: ImageSettings, store: Store) -> Relocation:
    """By which rules the paths of this machine became those of the last image."""
    return record.recall_details(store, settings.location).relocation


def verify(settings: ImageSettings, store: Store) -> tuple[Image, Image | None]:
    """The last image, and the one that is built now from nothing but downloads.

    None in its place when it has the same digest.
    """
    image = last(settings, store)
    layout.check_layout(image, settings.location / "oci")
    prefix = f".eggcrate-tmp-{os.getpid()}-"
    with tempfile.TemporaryDirectory(prefix=prefix, dir=store.root) as scratch:
        fresh = Store(pathlib.Path(scratch))
        (fresh.root / "debs").mkdir()
        (fresh.root / "apt").symlink_to(store.root / "apt")
        for deb_file in sorted((store.root / "debs").glob("*.deb")):
            (fresh.root / "debs" / deb_file.name).symlink_to(deb_file)
        again = _make(settings, plan_image(settings, fresh), fresh)
    return image, None if again.manifest == image.manifest else again


def rebase(settings: ImageSettings, store: Store) -> Outcome:
    """The last image's layers on the base's packages as they are now, at its location.

    Nothing else is read or made again: the layers of the application do not depend on
    what is below them.
    """
    image = last(settings, store)
    details = record.recall_details(store, settings.location)
    before = _known_layers(settings.location)
    base = _Base(settings, store)
    base.add(details.added)
    python = base.python()
    if python != details.python:
        raise PlanError(
            f"the image runs on {details.python.program}, and the new base on {python.program}",
            "run bin/buildout, which builds all of it for another Python",
        )
    if settings.refresh:
        base.refresh()
    packages = list(base.entries(python))
    modules = [entry for entry in packages if _is_compiled(entry, settings, python)]
    packages += bytecode_entries(modules, store, cache_tag=python.cache_tag)
    rest = {
        entry.path: entry
        for layer in image.layers
        for entry in layer.plan.entries
        if entry.group != "packages"
    }
    tree = merge([*packages, *rest.values()])
    architecture = settings.platform.architecture
    raise_all(
        (
            *libraries.check_libraries(
                tree,
                architecture=architecture,
                package_for=base.package_for,
                known={**details.binaries, **base.binaries},
            ),
            *libraries.check_interpreters(
                details.scripts, tree, search=_search_path(settings).split(":")
            ),
        )
    )
    below = plan_layers(
        {path: entry for path, entry in tree.items() if entry.group == "packages"}, 1
    ).layers[0]
    plan = BuildPlan(
        tuple(below if layer.plan.name == below.name else layer.plan for layer in image.layers)
    )
    made = layout.make_layers(
        plan, store=store, compression=settings.compression, epoch=settings.epoch
    )
    image = layout.with_layers(image, made, store)
    record.replace(store, settings.location, image)
    new = [layer for layer in image.layers if layer.descriptor.digest not in before]
    _write(settings, image, plan.text(), store)
    return Outcome(image, len(new), sum(layer.descriptor.size for layer in new))


def _make(settings: ImageSettings, planned: Planned, store: Store) -> Image:
    return layout.make_image(
        planned.plan,
        platform=settings.platform,
        runtime=planned.runtime,
        references=settings.references,
        store=store,
        compression=settings.compression,
        epoch=settings.epoch,
    )


def _surroundings(settings: ImageSettings) -> str:
    """What an image depends on beside the files that are read for it, as one digest."""
    own = []
    for directory, _, names in sorted(os.walk(pathlib.Path(__file__).parent)):
        if not directory.endswith(("tests", "__pycache__")):
            for name in sorted(names):
                status = os.stat(f"{directory}/{name}")
                own.append((name, status.st_size, status.st_mtime_ns))
    # whether package lists are to be fetched anew says nothing about what is built
    same = dataclasses.replace(settings, refresh=False, offline=False)
    text = f"{record.FORMAT} {sys.version} {sys.executable} {sys.prefix} {own} {same}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _patched_text(location: pathlib.Path, again: record.Again) -> str | None:
    """What ``plan.txt`` is to say, when some layers have changed; None when it is not whole."""
    try:
        text = (location / "plan.txt").read_bytes().decode("utf-8")
    except (OSError, ValueError):
        return None
    header, *layers = text.split(PLAN_LAYER)
    if header != PLAN_HEADER or len(layers) != len(again.image.layers):
        return None
    for number, plan in again.changed.items():
        layers[number] = plan.text(number + 1).removeprefix(PLAN_LAYER)
    return PLAN_LAYER.join((header, *layers))


def _write(settings: ImageSettings, image: Image, plan_text: str, store: Store) -> None:
    root = settings.location
    digest = f"{image.manifest.digest}\n".encode()
    archives = f"{image.manifest.digest} {' '.join(map(str, image.references))}"
    key = hashlib.sha256(archives.encode()).hexdigest()
    unchanged = (
        _read(root / "digest") == digest
        and {"size": _size(root / "image.tar")} == store.recall("archives", key)
        and layout.is_layout_of(image, root / "oci")
    )
    if not unchanged:
        # whatever fails, the archive and the layout are of one image, the old or the new
        with replacing(root / "image.tar") as archive:
            layout.write_archive(image, store, archive, settings.epoch)
            layout.write_layout(image, store, root / "oci")
        store.remember("archives", key, {"size": _size(root / "image.tar")})
    write_if_changed(root / "plan.txt", plan_text.encode("utf-8", "backslashreplace"))
    write_if_changed(root / "digest", digest)


def _size(path: pathlib.Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _read(path: pathlib.Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _last_layer_names(location: pathlib.Path) -> list[str]:
    """What the layers of the image at ``location`` are called, as its config's history says."""
    try:
        blobs = location / "oci" / "blobs"
        index = json.loads((location / "oci" / "index.json").read_bytes())
        manifest = _document(blobs, index["manifests"][0]["digest"])
        history = _document(blobs, manifest["config"]["digest"])["history"]
        return [item["created_by"].removeprefix("eggcrate: ") for item in history]
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []


def _document(blobs: pathlib.Path, digest: str) -> Any:
    return json.loads((blobs / digest.replace(":", "/", 1)).read_bytes())


def _known_layers(location: pathlib.Path) -> set[str]:
    """The digests of the layers of the image that lies at ``location``."""
    try:
        index = json.loads((location / "oci" / "index.json").read_bytes())
        manifest = _document(location / "oci" / "blobs", index["manifests"][0]["digest"])
        return {layer["digest"] for layer in manifest["layers"]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()


def plan_image(settings: ImageSettings, store: Store, base: _Base | None = None) -> Planned:
    """The plan of the image, which has passed every check."""
    base = base or _Base(settings, store)
    architecture = settings.platform.architecture
    python = base.python()
    packages = base.entries(python)
    relocation = Relocation(relocation_rules(settings.site, settings.directory, python))
    files = Files(relocation, store)
    closure = Closure(
        settings.site,
        relocation,
        files=files,
        exclude=settings.exclude,
        allow_build_paths=settings.allow_build_paths,
        allow_secrets=settings.allow_secrets,
    )
    for part in settings.parts:
        closure.add_part(part)
    for include in settings.include:
        closure.add_include(include)
    payload = closure.finish()
    files.keep()
    looked_at = [files, base.files]

    interpreter_entries: list[FileEntry] = []
    if python.origin == "host":
        host_files = Files(interpreters.host_relocation(), store)
        interpreter_entries = interpreters.host_entries(
            {entry.path: entry for entry in packages},
            architecture,
            host_files,
        )
        host_files.keep()
        looked_at.append(host_files)
    own = [*interpreter_entries, *payload, *_runtime_entries(), *_run_link(settings)]
    modules = [entry for entry in (*packages, *own) if _is_compiled(entry, settings, python)]
    own.extend(bytecode_entries(modules, store, cache_tag=python.cache_tag))
    known: dict[str, Binary | None] = dict(base.binaries)
    for seen in looked_at:
        known.update(seen.binaries)
    tree = merge([*packages, *own])
    while settings.auto_packages and (
        more := base.add(
            libraries.missing_packages(
                tree, architecture=architecture, package_for=base.package_for, known=known
            )
        )
    ):
        logger.info("os-packages = auto adds %s", " ".join(more))
        tree = merge([*base.entries(python), *own])
        known.update(base.binaries)

    runtime = _runtime_config(settings, python, relocation)
    c_library = libraries.c_library(tree, architecture=architecture, known=known)
    errors: list[EggcrateError] = [
        *libraries.check_libraries(
            tree, architecture=architecture, package_for=base.package_for, known=known
        ),
        *libraries.check_extension_modules(
            payload, version=python.version, abiflags=python.abiflags
        ),
        *libraries.check_wheel_tags(
            payload,
            version=python.version,
            abiflags=python.abiflags,
            architecture=architecture,
            libc=c_library,
        ),
        *libraries.check_interpreters(
            closure.scripts, tree, search=_search_path(settings).split(":")
        ),
        *_check_environments(tree, python),
        *_check_command(runtime, tree),
    ]
    raise_all(errors)
    plan = plan_layers(
        tree,
        settings.layers,
        together=settings.together,
        before=_last_layer_names(settings.location),
    )
    names = {layer.name for layer in plan.layers}
    for patterns in settings.together:
        if f"eggs {' '.join(patterns)}" not in names:
            closure.warnings.append(f"layers: no other distribution is {' or '.join(patterns)}")
    return Planned(
        plan,
        runtime,
        record.Details(relocation, python, tuple(base.added), known, tuple(closure.scripts)),
        tuple(looked_at),
        frozenset(closure.telling),
        tuple(closure.warnings),
    )


def _is_compiled(entry: FileEntry, settings: ImageSettings, python: Interpreter) -> bool:
    """Whether the image has the byte-code of a file."""
    return (
        entry.path.endswith(".py")
        and entry.type is FileType.REGULAR
        and not entry.path.startswith(f"{settings.directory.strip('/')}/bin/")
        # nobody imports them where the image runs
        and "/tests/" not in entry.path
        and (entry.group != "packages" or _is_standard_library(entry.path, python))
    )


def _is_standard_library(path: str, python: Interpreter) -> bool:
    """Whether the file of a package is a module of the image's own Python.

    Debian compiles them in a maintainer script, which has not run.
    """
    major, minor = python.version
    return python.origin == "debian" and path.startswith(
        (f"usr/lib/python{major}/", f"usr/lib/python{major}.{minor}/")
    )


class _Base:
    """Debian as the base of an image."""

    def __init__(self, settings: ImageSettings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._state = store.root / "apt"
        self._debs = store.root / "debs"
        # what os-packages = auto has found to be needed
        self.added: list[str] = []
        # what the base depends on: apt's sources, and what they were found to offer
        self.files = Files(Relocation(()))
        # what the programs and libraries of its packages say of themselves, by digest
        self.binaries: dict[str, Binary | None] = {}

    @functools.cached_property
    def _suite(self) -> debian.Suite:
        architecture = debian.debian_architecture(str(self._settings.platform))
        return debian.suite(self._settings.suite, architecture=architecture)

    def python(self) -> Interpreter:
        """The Python of the image, by the option ``python`` and what Debian has."""
        wanted, version = self._settings.python, interpreters.this_version()
        if wanted == "host":
            return interpreters.host_interpreter()
        offered = debian.python_version(
            self._suite, state=self._state, offline=self._settings.offline
        )
        this = f"{version[0]}.{version[1]}"
        if offered == this:
            return interpreters.debian_interpreter(version)
        if wanted == "debian":
            raise PlanError(
                f"Debian {self._suite.name} has Python {offered}, and buildout runs on {this}",
                f"run buildout with Python {offered}, or set python = host",
            )
        logger.info(
            "Debian %s has Python %s, buildout runs on %s: this Python goes into the image.",
            self._suite.name,
            offered,
            this,
        )
        return interpreters.host_interpreter()

    def refresh(self) -> None:
        """Fetch package lists, and resolve what is wanted with them."""
        self._packages(self.python(), refresh=True)

    def _packages(
        self, python: Interpreter, *, refresh: bool = False
    ) -> tuple[deb.Package, ...]:
        names = [*debian.BASE_PACKAGES, *self._settings.os_packages, *self.added]
        if python.origin == "debian":
            names.append("python3")
        return debian.resolve(
            tuple(sorted(set(names))),
            suite=self._suite,
            state=self._state,
            refresh=refresh,
            offline=self._settings.offline,
        )

    def entries(self, python: Interpreter) -> tuple[FileEntry, ...]:
        """The file system that Debian's packages make."""
        settings = self._settings
        packages = self._packages(python)
        for path in debian.inputs(self._suite, state=self._state):
            self.files.look(path)
        user = "app" if settings.uid else None
        text = f"{deb.FORMAT} {user} {settings.uid} {packages}"
        key = hashlib.sha256(text.encode()).hexdigest()
        if deb.are_unpacked(packages, self._debs):
            table = self._store.table("bases", key)
            if table is not None:
                rows, binaries = table
                self.binaries = {
                    digest: libraries.from_record(binary) for digest, binary in binaries
                }
                return tuple(map(from_row, rows))
        debian.download(packages, store=self._debs, offline=settings.offline)
        entries = deb.root_entries(
            deb.unpack_all(packages, self._debs), user=user, uid=settings.uid
        )
        self.binaries = _binaries(entries)
        binaries = [
            (digest, libraries.as_record(binary)) for digest, binary in self.binaries.items()
        ]
        self._store.keep_table("bases", key, (list(map(as_row, entries)), binaries))
        return entries

    def add(self, packages: Sequence[str]) -> list[str]:
        """Take more packages; those come back that were not asked for before."""
        named = {name.partition("=")[0] for name in self._settings.os_packages}
        new = [name for name in packages if name not in {*named, *self.added}]
        self.added += new
        return new

    def package_for(self, library: str) -> str | None:
        """The package that most likely provides a shared library."""
        return debian.package_for_library(
            library, suite=self._suite, state=self._state, offline=self._settings.offline
        )


def _binaries(entries: Sequence[FileEntry]) -> dict[str, Binary | None]:
    """What files that may be programs or libraries say of themselves, by digest."""
    found: dict[str, Binary | None] = {}
    for entry in entries:
        if libraries.may_be_binary(entry) and entry.digest not in found:
            # a package's odd file, a test's for instance, is nobody's mistake
            with contextlib.suppress(PlanError), entry.open() as stream:
                found[entry.digest] = libraries.read_binary(stream)
    return found


def _runtime_entries() -> Iterator[FileEntry]:
    """The runtime package, which is PID 1 until it has become the command."""
    reason = "starts the container"
    here = pathlib.Path(__file__).parent
    main = (
        "import sys\n\n"
        "from eggcrate.runtime.start import start\n\n"
        f"sys.exit(start({RUN_DIRECTORY!r}, sys.argv[1:]))\n"
    )
    yield bytes_file(f"{_RUNTIME}/__main__.py", main.encode(), group="python", reason=reason)
    yield bytes_file(
        f"{_RUNTIME}/eggcrate/__init__.py",
        (here / "__init__.py").read_bytes(),
        group="python",
        reason=reason,
    )
    for name in _RUNTIME_MODULES:
        data = (here / "runtime" / f"{name}.py").read_bytes()
        path = f"{_RUNTIME}/eggcrate/runtime/{name}.py"
        yield bytes_file(path, data, group="python", reason=reason)


def _run_link(settings: ImageSettings) -> Iterator[FileEntry]:
    """Where the run directory of the buildout would lie, a link to the image's.

    Programs that compute its path from where they lie find it so.
    """
    if settings.site.run_directory.is_relative_to(settings.site.directory):
        inside = settings.site.run_directory.relative_to(settings.site.directory)
        yield symlink(
            f"{settings.directory.strip('/')}/{inside}",
            RUN_DIRECTORY,
            group="configuration",
            reason="the run directory",
        )


def _search_path(settings: ImageSettings) -> str:
    """The image's PATH."""
    places = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return dict(settings.environment).get("PATH", f"{settings.directory}/bin:{places}")


def _runtime_config(
    settings: ImageSettings, python: Interpreter, relocation: Relocation
) -> RuntimeConfig:
    def text(value: str) -> str:
        return os.fsdecode(relocation.text(os.fsencode(value)))

    def relocated(words: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(text, words))

    def relocated_values(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        return tuple((name, text(value)) for name, value in pairs)

    environment = {
        "PATH": _search_path(settings),
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **dict(settings.environment),
    }
    entrypoint = settings.entrypoint
    if entrypoint is None:
        # -I: neither the user's site-packages nor PYTHON* variables reach PID 1
        entrypoint = (python.program, "-I", f"/{_RUNTIME}")
    check = settings.healthcheck
    if len(check) == 1 and check[0].startswith("http://"):
        check = (python.program, "-I", f"/{_RUNTIME}/eggcrate/runtime/health.py", check[0])
    return RuntimeConfig(
        entrypoint=relocated(entrypoint),
        command=relocated(settings.command),
        user=f"{settings.uid}:{settings.gid}",
        working_directory=settings.working_directory or settings.directory,
        environment=relocated_values(sorted(environment.items())),
        exposed_ports=settings.expose,
        volumes=settings.volumes,
        labels=relocated_values(settings.labels),
        stop_signal=settings.stop_signal,
        healthcheck=Healthcheck(relocated(check)) if check else None,
    )


def _check_environments(
    tree: Mapping[str, FileEntry], python: Interpreter
) -> Iterator[EggcrateError]:
    """Virtual environments that were made for another Python than the image's."""
    for path, entry in tree.items():
        if posixpath.basename(path) != "pyvenv.cfg" or entry.type is not FileType.REGULAR:
            continue
        with entry.open() as stream:
            text = stream.read().decode("utf-8", "replace")
        values = {
            name.strip(): value.strip()
            for name, found, value in (line.partition("=") for line in text.splitlines())
            if found
        }
        version = values.get("version_info") or values.get("version") or ""
        if version and tuple(version.split(".")[:2]) != tuple(map(str, python.version)):
            yield PlanError(
                f"/{printable(posixpath.dirname(path))} is an environment for Python "
                f"{'.'.join(version.split('.')[:2])}, and the image's Python is "
                f"{python.version[0]}.{python.version[1]}",
                "give that part the same python, or leave it out of parts",
            )


def _check_command(
    runtime: RuntimeConfig, tree: Mapping[str, FileEntry]
) -> Iterator[EggcrateError]:
    """The programs of the image config that are not in the image."""
    for words in (runtime.entrypoint, runtime.command):
        if not words:
            continue
        program = words[0]
        places = (
            [posixpath.join(runtime.working_directory, program)]
            if "/" in program
            else [
                f"{place}/{program}" for place in dict(runtime.environment)["PATH"].split(":")
            ]
        )
        if not any(resolve(place, tree, last=True) in tree for place in places):
            yield PlanError(
                f"the program {program} of the image's command is not in the image",
                "add the part that makes it to parts, or its package to os-packages",
            )
