"""From settings to a plan: what is in the image, where, and whether it will run."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
import os
import pathlib
import posixpath
import re
import shutil
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from eggcrate import record
from eggcrate.bases import ImageBase, Said
from eggcrate.errors import EggcrateError, PlanError, raise_all
from eggcrate.image.layout import NOTHING, Below, Image, layer_names
from eggcrate.image.oci import Healthcheck, RuntimeConfig
from eggcrate.image.plan import (
    BASE,
    PLAN_HEADER,
    BuildPlan,
    FileEntry,
    FileType,
    as_row,
    bytes_file,
    from_row,
    merge,
    plan_layers,
    resolve,
    symlink,
)
from eggcrate.image.store import Store
from eggcrate.payload import interpreter as interpreters
from eggcrate.payload import libraries, virtualenv
from eggcrate.payload import settings as payload_settings
from eggcrate.payload.bytecode import bytecode_entries
from eggcrate.payload.closure import Closure
from eggcrate.payload.files import Files
from eggcrate.payload.interpreter import Interpreter
from eggcrate.payload.libraries import Binary
from eggcrate.payload.relocation import Relocation, Rule
from eggcrate.payload.site import Site, develop_places
from eggcrate.runtime.variables import DIRECTORY, FILE, Settings
from eggcrate.settings import ImageSettings, this_platform
from eggcrate.transports import deb, debian

logger = logging.getLogger(__name__)

RUN_DIRECTORY = "/run/eggcrate"
_RUNTIME = payload_settings.RUNTIME
# the runtime package of this machine, which a configuration or script may name
_RUNTIME_HERE = pathlib.Path(__file__).parent / "runtime"
# zc.buildout writes real paths into scripts
_RUNTIME_PLACES = sorted({os.fspath(_RUNTIME_HERE), os.path.realpath(_RUNTIME_HERE)})
#: what PID 1 has to know of runtime settings, in the image
SETTINGS_FILE = f"{_RUNTIME}/settings/{FILE}"
_STARTS = "starts the container"
# what engines take (moby, signal.ParseSignal), by name or number
_SIGNAL = re.compile(
    rf"(?:SIG)?(?:{'|'.join(name[3:] for name in signal.Signals.__members__)}"
    r"|RTM(?:IN|AX)(?:[+-]\d{1,2})?)|\d{1,2}"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Planned:
    """A plan that has passed every check, how a container is run, and what was looked at."""

    plan: BuildPlan
    runtime: RuntimeConfig
    details: record.Details
    files: tuple[Files, ...]
    telling: frozenset[str]
    warnings: tuple[str, ...]
    settings_text: str = ""

    def text(self) -> str:
        """What ``plan.txt`` says: what can be set, and every path of every layer."""
        return PLAN_HEADER + self.settings_text + self.plan.text().removeprefix(PLAN_HEADER)

    below: Below = NOTHING


def base_of(settings: ImageSettings, store: Store) -> Base | ImageBase:
    """What the image is built on."""
    return ImageBase(settings, store) if settings.base else Base(settings, store)


def relocation_rules(site: Site, directory: str, python: Interpreter) -> tuple[Rule, ...]:
    """What the paths of a buildout become in its image."""
    rules = [
        Rule(os.fspath(site.directory), directory),
        # what PID 1 has to know of runtime settings; scripts of the parts name it
        Rule(os.fspath(site.parts / DIRECTORY), f"/{_RUNTIME}/settings"),
        Rule(os.fspath(site.run_directory), RUN_DIRECTORY),
        # wherever eggcrate is installed, every image has what runs in a container
        *(Rule(place, f"/{_RUNTIME}/eggcrate/runtime") for place in _RUNTIME_PLACES),
        # shared by many buildouts or its own, the eggs lie in one place
        Rule(os.fspath(site.eggs), f"{directory}/eggs"),
        # so do the distributions beside zc.buildout, wherever its environment is
        Rule(os.fspath(site.environment), f"{directory}/.venv/site-packages"),
        *interpreters.host_rules(python),
    ]
    for outside, name in ((site.parts, "parts"), (site.bin, "bin")):
        if not outside.is_relative_to(site.directory):
            rules.append(Rule(os.fspath(outside), f"{directory}/{name}"))
    for location, place in develop_places(site.develop, site.directory).items():
        rules.append(Rule(os.fspath(location), f"{directory}/{place}"))
    image_prefix = posixpath.dirname(posixpath.dirname(python.program))
    for prefix in map(os.fspath, site.prefixes):
        if prefix not in ("/usr", "/usr/local") and not pathlib.Path(prefix).is_relative_to(
            site.directory
        ):
            rules.append(Rule(prefix, image_prefix))
    return tuple(rules)


def plan_image(
    settings: ImageSettings, store: Store, *, downloads: Store | None = None
) -> Planned:
    """The plan of the image, which has passed every check.

    ``downloads`` is a store that has a base image, if that is another one.
    """
    base = base_of(settings, downloads or store if settings.base else store)
    architecture = settings.platform.architecture
    python = base.python()
    here = settings.platform == this_platform()
    if python.origin == "host" and not here:
        raise PlanError(
            f"the Python of this machine would go into the image, and it doesn't run on "
            f"{settings.platform}",
            "run buildout with the Python that the base has, or leave the platform out",
        )
    relocation = Relocation(relocation_rules(settings.site, settings.directory, python))
    files = Files(relocation, store)
    closure, payload, declared = collected(settings, relocation, files)
    files.keep()
    looked_at = [files, base.files]
    if not here:
        from eggcrate.foreign import adapted

        packages = base.entries(python)
        payload = adapted(
            payload,
            files.binaries,
            settings,
            downloads or store,
            python=python.version,
            c_library=libraries.c_library(
                {entry.path: entry for entry in packages},
                architecture=architecture,
                known=base.binaries,
            ),
            locked=_locked(settings, relocation),
        )

    def compiled(entries: Iterable[FileEntry]) -> list[FileEntry]:
        modules = [entry for entry in entries if is_compiled(entry, settings, python)]
        return bytecode_entries(modules, store, cache_tag=python.cache_tag)

    search = search_path(settings, base.said.environment)
    runtime = runtime_config(settings, python, relocation, declared, base.said)
    own = [*payload, *run_link(settings), start_program(runtime, payload)]
    with ThreadPoolExecutor(1) as beside:
        # other processes compile what is known already, while packages are unpacked here
        compiling = beside.submit(compiled, own)
        packages = base.entries(python)
        below = list(runtime_entries())
        if python.origin == "host":
            host_files = Files(interpreters.host_relocation(), store)
            below += interpreters.host_entries(
                {entry.path: entry for entry in packages}, architecture, host_files
            )
            host_files.keep()
            looked_at.append(host_files)
        own += compiling.result()
    own += [*below, *compiled((*packages, *below))]
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
    virtualenv.adopt(tree, python)

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
        *libraries.check_interpreters(closure.scripts, tree, search=search.split(":")),
        *virtualenv.check(tree, python),
        *_check_command(runtime, tree),
        *_check_base(settings, runtime, tree),
        *_check_environment(settings, declared),
    ]
    raise_all(errors)
    plan = plan_layers(
        tree,
        settings.layers,
        together=settings.together,
        before=layer_names(settings.location / "oci"),
    )
    plan = BuildPlan((*(layer.plan for layer in base.below.layers), *plan.layers))
    names = {layer.name for layer in plan.layers}
    for patterns in settings.together:
        if f"eggs {' '.join(patterns)}" not in names:
            closure.warnings.append(f"layers: no other distribution is {' or '.join(patterns)}")
    return Planned(
        plan,
        runtime,
        record.Details(relocation, python, tuple(base.added), known, tuple(closure.scripts)),
        tuple(looked_at),
        frozenset((*closure.telling, *map(os.fspath, _settings_places(settings)))),
        tuple(closure.warnings),
        payload_settings.listed(declared),
        base.below,
    )


def _locked(
    settings: ImageSettings, relocation: Relocation
) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """The hashes that each environment's locks allow, by distribution; by its place in the
    image."""
    from eggcrate.environments.environment import recorded

    outputs = (path for part in settings.parts for path in part.outputs)
    found = {}
    for location in {*outputs, *settings.site.parts.glob("*")}:
        record, place = recorded(location), relocation.path(os.fspath(location))
        if record is not None and place is not None:
            found[place.lstrip("/")] = record.archives()
    return found


def collected(
    settings: ImageSettings, relocation: Relocation, files: Files
) -> tuple[Closure, list[FileEntry], Settings | None]:
    """What the parts and ``include`` bring, with what a container can be given."""
    closure = Closure(
        settings.site,
        relocation,
        files=files,
        exclude=settings.exclude,
        allow_build_paths=settings.allow_build_paths,
        allow_secrets=settings.allow_secrets,
        present=[*_RUNTIME_PLACES, os.fspath(settings.site.parts / DIRECTORY)],
    )
    for part in settings.parts:
        closure.add_part(part)
    for include in settings.include:
        closure.add_include(include)
    payload = {entry.path: entry for entry in closure.finish()}
    places = _settings_places(settings)
    for place in places:
        files.look(os.fspath(place))
    declared = payload_settings.read(places)
    if declared is not None:
        declared = payload_settings.relocated(declared, relocation, payload)
        links = payload_settings.entries(
            declared,
            payload,
            place=f"{_RUNTIME}/settings",
            run_directory=RUN_DIRECTORY,
        )
        payload = {**payload, **{entry.path: entry for entry in links}}
    return closure, list(payload.values()), declared


def _settings_places(settings: ImageSettings) -> list[pathlib.Path]:
    """The files in which the parts, and this one, have left what a container can be given."""
    return payload_settings.places(settings.site, settings.parts, settings.name)


def plan_rebased(
    settings: ImageSettings, store: Store, image: Image, details: record.Details
) -> BuildPlan:
    """The plan of an image on the base's packages as they are now, which has passed the checks.

    All layers but that of the packages are as they were.
    """
    base = Base(settings, store)
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
    modules = [entry for entry in packages if is_compiled(entry, settings, python)]
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
                details.scripts, tree, search=search_path(settings).split(":")
            ),
        )
    )
    below = plan_layers(
        {path: entry for path, entry in tree.items() if entry.group == "packages"}, 1
    ).layers[0]
    return BuildPlan(
        tuple(below if layer.plan.name == below.name else layer.plan for layer in image.layers)
    )


def is_compiled(entry: FileEntry, settings: ImageSettings, python: Interpreter) -> bool:
    """Whether the image has the byte-code of a file."""
    return (
        entry.path.endswith(".py")
        and entry.type is FileType.REGULAR
        and not entry.path.startswith(f"{_bin(settings).strip('/')}/")
        and entry.group != BASE
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


class Base:
    """Debian as the base of an image: nothing is below its packages."""

    below = NOTHING
    said = Said()

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
        # the rows say where files lie, and a cache may have been moved
        text = f"{deb.FORMAT} {self._store.root} {user} {settings.uid} {packages}"
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
        self.binaries = libraries.read_all(entries)
        binaries = [
            (digest, libraries.as_record(binary)) for digest, binary in self.binaries.items()
        ]
        self._store.keep_table("bases", key, (list(map(as_row, entries)), binaries))
        return entries

    def extract(self, path: str, directory: pathlib.Path) -> tuple[str, ...]:
        """Write a program of the packages, its loader and its libraries into a directory.

        The words that come back start it on a machine that has none of them.  There are none
        where the packages have no such program.
        """
        tree = {entry.path: entry for entry in self.entries(self.python())}
        linker = libraries.Linker(tree, self._settings.platform.architecture)
        program = linker.file(path)
        binary = self.binaries.get(tree[program].digest) if program else None
        if program is None or binary is None or not linker.exists(binary.interpreter):
            return ()
        wanted = {posixpath.basename(path): program}
        pending = [(program, binary)]
        while pending:
            user, its = pending.pop()
            for library in its.needed:
                found = linker.find(library, its, user)
                if found is None or library in wanted:
                    continue
                wanted[library] = found
                if its_own := self.binaries.get(tree[found].digest):
                    pending.append((found, its_own))
        loader = posixpath.basename(binary.interpreter)
        wanted[loader] = linker.file(binary.interpreter) or ""
        for name, place in wanted.items():
            with tree[place].open() as source, (directory / name).open("xb") as target:
                shutil.copyfileobj(source, target)
        (directory / loader).chmod(0o755)
        first = (os.fspath(directory / loader), "--library-path", os.fspath(directory))
        return (*first, os.fspath(directory / posixpath.basename(path)))

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


def start_program(runtime: RuntimeConfig, payload: Iterable[FileEntry]) -> FileEntry:
    """The program that is PID 1 until it has become the command.

    It insists on a run directory where something names it: a file, the command, a variable.
    """
    check = runtime.healthcheck
    asks = check.command if isinstance(check, Healthcheck) else ()
    words = [*runtime.command, *asks, *(value for _, value in runtime.environment)]
    named = RUN_DIRECTORY.encode()
    needed = any(RUN_DIRECTORY in word for word in words) or any(
        named in (entry.data or b"") or RUN_DIRECTORY in entry.linkname for entry in payload
    )
    text = (
        "import sys\n\n"
        "from eggcrate.runtime.start import start\n\n"
        f"sys.exit(start({RUN_DIRECTORY!r}, sys.argv[1:], needed={needed}))\n"
    )
    # unlike the rest of the runtime it is not the same in every image
    return bytes_file(
        f"{_RUNTIME}/__main__.py", text.encode(), group="configuration", reason=_STARTS
    )


def runtime_entries() -> Iterator[FileEntry]:
    """The runtime package, which the program of PID 1 imports, and others run."""
    yield bytes_file(
        f"{_RUNTIME}/eggcrate/__init__.py",
        (_RUNTIME_HERE.parent / "__init__.py").read_bytes(),
        group="python",
        reason=_STARTS,
    )
    for module in sorted(_RUNTIME_HERE.glob("*.py")):
        path = f"{_RUNTIME}/eggcrate/runtime/{module.name}"
        yield bytes_file(path, module.read_bytes(), group="python", reason=_STARTS)


def run_link(settings: ImageSettings) -> Iterator[FileEntry]:
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


def _bin(settings: ImageSettings) -> str:
    """Where the buildout's ``bin`` is in the image."""
    own, top = os.fspath(settings.site.bin), f"{settings.site.directory}/"
    return f"{settings.directory}/{own.removeprefix(top) if own.startswith(top) else 'bin'}"


def search_path(settings: ImageSettings, below: Mapping[str, str] | None = None) -> str:
    """The image's PATH, on a base that has the variables ``below``."""
    places = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    own = _bin(settings)
    others = [place for place in (below or {}).get("PATH", "").split(":") if place != own]
    places = ":".join(filter(None, others)) or places
    return dict(settings.environment).get("PATH", f"{own}:{places}")


def runtime_config(
    settings: ImageSettings,
    python: Interpreter,
    relocation: Relocation,
    declared: Settings | None,
    said: Said,
) -> RuntimeConfig:
    """How a container is run, on a base that says something of it."""

    def text(value: str) -> str:
        return os.fsdecode(relocation.text(os.fsencode(value)))

    def relocated(words: Sequence[str]) -> tuple[str, ...]:
        return tuple(map(text, words))

    def relocated_values(pairs: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
        return tuple((name, text(value)) for name, value in pairs)

    environment = {
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        **said.environment,
        "PATH": search_path(settings, said.environment),
        **dict(settings.environment),
    }
    if declared:
        # what docker exec starts has eggcrate.runtime as well, and not from PID 1
        paths = environment.get("PYTHONPATH", "").split(":")
        own = f"/{_RUNTIME}"
        environment["PYTHONPATH"] = ":".join(
            [*(path for path in paths if path != own), own]
        ).strip(":")
    inherited = settings.inherited
    entrypoint = settings.entrypoint
    if entrypoint is None:
        # -I: neither the user's site-packages nor PYTHON* variables reach PID 1
        entrypoint = (python.program, "-I", f"/{_RUNTIME}")
    check = settings.healthcheck
    if len(check) == 1 and check[0].startswith("http://"):
        url = check[0]
        place = payload_settings.HEALTHCHECK
        if declared and place in (document.path for document in declared.documents):
            url = f"{RUN_DIRECTORY}/settings{place}"
        check = (python.program, "-I", f"/{_RUNTIME}/eggcrate/runtime/health.py", url)
    labels = {**said.labels, **dict(settings.labels)}
    if payload_settings.LABEL not in dict(settings.labels):
        labels.pop(payload_settings.LABEL, None)  # another image's settings
    if declared:
        labels.setdefault(payload_settings.LABEL, payload_settings.label(declared))
    return RuntimeConfig(
        entrypoint=relocated(entrypoint),
        command=relocated(settings.command),
        user=("user" in inherited and said.user) or f"{settings.uid}:{settings.gid}",
        working_directory=(
            settings.working_directory or said.working_directory or settings.directory
        ),
        environment=relocated_values(sorted(environment.items())),
        exposed_ports=settings.expose,
        volumes=settings.volumes,
        labels=relocated_values(sorted(labels.items())),
        stop_signal=("stop-signal" in inherited and said.stop_signal) or settings.stop_signal,
        healthcheck=Healthcheck(relocated(check)) if check else said.healthcheck,
    )


def _check_base(
    settings: ImageSettings, runtime: RuntimeConfig, tree: Mapping[str, FileEntry]
) -> Iterator[EggcrateError]:
    """What a base says of how it is run, and no engine would do."""
    user = runtime.user.partition(":")[0]
    if not user.isdigit():
        passwd = tree.get(resolve("etc/passwd", tree, last=True))
        names = set()
        if passwd is not None and passwd.type is FileType.REGULAR:
            with passwd.open() as stream:
                names = {line.partition(b":")[0] for line in stream.read().splitlines()}
        if os.fsencode(user) not in names:
            yield PlanError(
                f"the base {settings.base} runs as {user!r}, whom its /etc/passwd has not",
                "set user to a number, 10001 say, or take another base",
            )
    if not _SIGNAL.fullmatch(runtime.stop_signal):
        yield PlanError(
            f"the base {settings.base} has {runtime.stop_signal!r} for its stop signal",
            "set stop-signal, SIGTERM say, or take another base",
        )


def _check_environment(
    settings: ImageSettings, declared: Settings | None
) -> Iterator[EggcrateError]:
    """Variables of the image that are runtime settings: the image would be its own customer."""
    known = {one.env for one in declared.settings} if declared else set()
    for name, _ in settings.environment:
        if name in known:
            yield PlanError(
                f"environment: {name} is a runtime setting",
                "set the option that it stands for, which is its default, and take it out here",
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
