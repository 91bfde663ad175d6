"""From settings to an image: the plan, its checks, its bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import pathlib
import platform as machine_platform
import posixpath
from collections.abc import Iterator, Mapping, Sequence

from eggcrate.errors import EggcrateError, PlanError, raise_all
from eggcrate.image import layout
from eggcrate.image.layout import Image
from eggcrate.image.oci import Healthcheck, Platform, Reference, RuntimeConfig
from eggcrate.image.plan import (
    BuildPlan,
    FileEntry,
    FileType,
    bytes_file,
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
from eggcrate.payload.interpreter import Interpreter
from eggcrate.payload.relocation import Relocation, Rule
from eggcrate.payload.site import Include, Part, Site
from eggcrate.transports import deb, debian

logger = logging.getLogger(__name__)

RUN_DIRECTORY = "/run/eggcrate"
_RUNTIME = "usr/lib/eggcrate"
# the modules of the runtime package that an image gets
_RUNTIME_MODULES = ("__init__", "start", "health")
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "386", "ppc64le": "ppc64le"}


def this_platform() -> Platform:
    """The platform of this machine."""
    machine = machine_platform.machine()
    return Platform("linux", _MACHINES.get(machine, machine))


@dataclasses.dataclass(frozen=True, slots=True)
class ImageSettings:
    """What an image is to be: the options of ``docker-image``, typed and checked.

    ``suite`` is Debian's, or None for the machine's own; ``python`` is ``auto``,
    ``debian`` or ``host``.  ``command`` and ``healthcheck`` may name paths of this
    machine; they are relocated like everything else.
    """

    references: tuple[Reference, ...]
    platform: Platform
    site: Site
    parts: tuple[Part, ...]
    directory: str
    location: pathlib.Path
    suite: str | None = None
    os_packages: tuple[str, ...] = ()
    python: str = "auto"
    include: tuple[Include, ...] = ()
    exclude: tuple[str, ...] = ()
    allow_build_paths: tuple[str, ...] = ()
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
    compression: str = "gzip"
    epoch: int = 0
    refresh: bool = True
    offline: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """An image that was made, and what it took: layers and bytes that were not there before."""

    image: Image
    changed_layers: int
    changed_bytes: int


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

    Nothing is written there before the plan is complete and has passed every check.
    """
    plan, runtime = plan_image(settings, store)
    before = _known_layers(settings.location)
    image = layout.make_image(
        plan,
        platform=settings.platform,
        runtime=runtime,
        references=settings.references,
        store=store,
        compression=settings.compression,
        epoch=settings.epoch,
    )
    new = [layer for layer in image.layers if layer.descriptor.digest not in before]
    _write(settings, image, plan, store)
    return Outcome(image, len(new), sum(layer.descriptor.size for layer in new))


def _write(settings: ImageSettings, image: Image, plan: BuildPlan, store: Store) -> None:
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
        for blob in image.blobs:
            store.verify(blob.digest)
        # whatever fails, the archive and the layout are of one image, the old or the new
        with replacing(root / "image.tar") as archive:
            layout.write_archive(image, store, archive, settings.epoch)
            layout.write_layout(image, store, root / "oci")
        store.remember("archives", key, {"size": _size(root / "image.tar")})
    write_if_changed(root / "plan.txt", plan.text().encode("utf-8", "backslashreplace"))
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


def _known_layers(location: pathlib.Path) -> set[str]:
    """The digests of the layers of the image that lies at ``location``."""
    try:
        index = json.loads((location / "oci" / "index.json").read_bytes())
        digest = index["manifests"][0]["digest"].replace(":", "/", 1)
        manifest = json.loads((location / "oci" / "blobs" / digest).read_bytes())
        return {layer["digest"] for layer in manifest["layers"]}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return set()


def plan_image(settings: ImageSettings, store: Store) -> tuple[BuildPlan, RuntimeConfig]:
    """The plan of the image, which has passed every check, and how a container is run."""
    base = _Base(settings, store)
    python = base.python()
    packages = base.entries(python)
    relocation = Relocation(relocation_rules(settings.site, settings.directory, python))
    closure = Closure(
        settings.site,
        relocation,
        exclude=settings.exclude,
        allow_build_paths=settings.allow_build_paths,
    )
    for part in settings.parts:
        closure.add_part(part)
    for include in settings.include:
        closure.add_include(include)
    payload = closure.finish()
    for warning in closure.warnings:
        logger.warning("%s", warning)

    lowest = {entry.path: entry for entry in packages}
    interpreter_entries = (
        interpreters.host_entries(lowest, settings.platform.architecture)
        if python.origin == "host"
        else []
    )
    own = [*interpreter_entries, *payload, *_runtime_entries(), *_run_link(settings)]
    scripts = f"{settings.directory.strip('/')}/bin/"
    modules = [
        entry
        for entry in (*packages, *own)
        if entry.path.endswith(".py")
        and entry.type is FileType.REGULAR
        and not entry.path.startswith(scripts)
        and (entry.group != "packages" or _is_standard_library(entry.path, python))
    ]
    own.extend(bytecode_entries(modules, store, cache_tag=python.cache_tag))
    tree = merge([*packages, *own])

    runtime = _runtime_config(settings, python, relocation)
    errors: list[EggcrateError] = [
        *libraries.check_libraries(
            tree,
            architecture=settings.platform.architecture,
            package_for=base.package_for,
            store=store,
        ),
        *libraries.check_extension_modules(payload, version=python.version),
        *libraries.check_interpreters(closure.scripts, tree),
        *_check_environments(tree, python),
        *_check_command(runtime, tree),
    ]
    raise_all(errors)
    return plan_layers(tree, settings.layers), runtime


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
        architecture = debian.debian_architecture(str(settings.platform))
        self._state = store.root / "apt"
        self._debs = store.root / "debs"
        self._suite = debian.suite(settings.suite, architecture=architecture)

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

    def entries(self, python: Interpreter) -> tuple[FileEntry, ...]:
        """The file system that Debian's packages make."""
        settings = self._settings
        names = [*debian.BASE_PACKAGES, *settings.os_packages]
        if python.origin == "debian":
            names.append("python3")
        packages = debian.resolve(
            tuple(sorted(set(names))),
            suite=self._suite,
            state=self._state,
            refresh=settings.refresh,
            offline=settings.offline,
        )
        debian.download(packages, store=self._debs, offline=settings.offline)
        return deb.root_entries(
            [deb.unpack(package, self._debs) for package in packages],
            user="app" if settings.uid else None,
            uid=settings.uid,
        )

    def package_for(self, library: str) -> str | None:
        """The package that most likely provides a shared library."""
        return debian.package_for_library(
            library, suite=self._suite, state=self._state, offline=self._settings.offline
        )


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
        "PATH": f"{settings.directory}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
        ":/sbin:/bin",
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
