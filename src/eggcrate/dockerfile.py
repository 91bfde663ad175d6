"""The same image the other way: a Dockerfile in which buildout runs, and its context.

Its last stage has the files that the embedded builder would take, with the same paths, and
runs them in the same way.  They are chosen in the stage before, by the recipe itself: there
``builder = files`` leaves them in a directory.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import os
import pathlib
import platform
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence

from eggcrate.bases import Said
from eggcrate.errors import PlanError, TransportError
from eggcrate.image.oci import Healthcheck, Reference, RuntimeConfig
from eggcrate.image.plan import (
    FileEntry,
    FileType,
    bytes_file,
    merge,
    symlink,
)
from eggcrate.image.store import Store, remove, write_if_changed
from eggcrate.payload import settings as payload_settings
from eggcrate.payload import virtualenv
from eggcrate.payload.bytecode import bytecode_entries
from eggcrate.payload.closure import LEFT_OUT
from eggcrate.payload.dockerignore import Ignore
from eggcrate.payload.files import Files
from eggcrate.payload.interpreter import Interpreter, this_version
from eggcrate.payload.relocation import Relocation
from eggcrate.payload.site import develop_places
from eggcrate.planning import (
    collected,
    is_compiled,
    relocation_rules,
    run_link,
    runtime_config,
    runtime_entries,
    start_program,
)
from eggcrate.settings import ImageSettings
from eggcrate.transports import base_image
from eggcrate.transports.engine import Engine, default_host

logger = logging.getLogger(__name__)

# the base's Python, wherever it is
_PYTHON = "/usr/lib/eggcrate/python"
_CACHE = "/var/cache/build"
# what buildout makes, and what a checkout has beside it
_MADE = (".installed.cfg", "develop-eggs", "eggs")
# a name in a script that is a path of an egg: the longest that count is a module's
_LONGEST = 1 << 20
# taken from the environment of who builds, where it is set: Docker knows the rest by itself
ARGUMENTS = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST", "UV_INSECURE_HOST")
_EXTRA = re.compile(r"^eggcrate\s*\[\s*docker\s*\]\s*:")
# what only this process needs
_SDK = re.compile(r"(?:docker|requests|urllib3|certifi|idna|charset_normalizer)-\d")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclasses.dataclass(frozen=True, slots=True)
class Buildout:
    """What of a buildout goes into its containers.

    ``sections`` are as they were written, before substitution; ``distributions`` are the
    versions of the eggs that it uses, by name; ``develop`` the directories of develop eggs.
    """

    sections: Mapping[str, Mapping[str, str]]
    distributions: Mapping[str, str]
    develop: Sequence[pathlib.Path]


def first_image(settings: ImageSettings) -> str:
    """What FROM names: an image of an engine or a registry; empty where ``base`` is none.

    By default it is the official image of this Python.
    """
    if not settings.base:
        suite = settings.suite or _debian()
        return "python:{}.{}-slim{}".format(*this_version(), suite and f"-{suite}")
    for kind in (base_image.REGISTRY, base_image.DAEMON):
        if settings.base.startswith(kind):
            return settings.base.removeprefix(kind)
    return ""


def _debian() -> str:
    """The name of this machine's release of Debian, if it has one."""
    try:
        release = platform.freedesktop_os_release()
    except OSError:
        return ""
    return release.get("VERSION_CODENAME", "") if release["ID"] == "debian" else ""


# The files -----------------------------------------------------------------------------


def write_files(settings: ImageSettings, store: Store) -> pathlib.Path:
    """The directory with the files of an image but those of its base, as they are there."""
    program = os.path.realpath(sys.executable)
    python = Interpreter(this_version(), program, "host")
    relocation = Relocation(relocation_rules(settings.site, settings.directory, python))
    files = Files(relocation, store)
    closure, payload, declared = collected(settings, relocation, files)
    for warning in closure.warnings:
        logger.warning("%s", warning)
    runtime = runtime_config(settings, python, relocation, declared, Said())
    own = [*payload, *run_link(settings), start_program(runtime, payload), *runtime_entries()]
    modules = [entry for entry in own if is_compiled(entry, settings, python)]
    own += bytecode_entries(modules, store, cache_tag=python.cache_tag)
    reason = "the base's Python"
    tree = merge(
        [
            *own,
            symlink(_PYTHON.strip("/"), program, group="configuration", reason=reason),
            # environments lead to it
            bytes_file(program.strip("/"), b"", group="python", reason=reason),
        ]
    )
    virtualenv.adopt(tree, python)
    del tree[program.strip("/")]
    root = settings.location / "root"
    remove(root)
    for path in sorted(tree):
        _write(tree[path], root, store)
    return root


def _write(entry: FileEntry, root: pathlib.Path, store: Store) -> None:
    target = root / entry.path
    if entry.type is FileType.DIRECTORY:
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(entry.mode)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if entry.type is FileType.SYMLINK:
        target.symlink_to(entry.linkname)
    elif entry.type is FileType.HARDLINK:
        target.hardlink_to(root / entry.linkname)
    else:
        with entry.open() as source, target.open("xb") as stream:
            shutil.copyfileobj(source, stream, 1 << 20)
        target.chmod(entry.mode)


# The Dockerfile ------------------------------------------------------------------------


def dockerfile(settings: ImageSettings, *, buildkit: bool = False) -> str:
    """The text of the Dockerfile; with ``buildkit`` downloads are kept between builds."""
    python = Interpreter(this_version(), _PYTHON, "host")
    relocation = Relocation(relocation_rules(settings.site, settings.directory, python))
    places = payload_settings.places(settings.site, settings.parts, settings.name)
    declared = payload_settings.read(places)
    if declared is not None:
        declared = payload_settings.relocated(declared, relocation, {})
    runtime = runtime_config(settings, python, relocation, declared, Said())
    name = settings.name
    cache = ""
    if buildkit:
        cache = f"--mount=type=cache,target={_CACHE} "
    index = '${PIP_INDEX_URL:+"buildout:index=${PIP_INDEX_URL}"}'
    lines = [
        f"# Made by eggcrate:docker-image for the part {name}, and made anew by each buildout.",
        f"# Its context is parts/{name}/context, which builder = docker makes.",
        f"ARG BASE={first_image(settings)}",
        # its tag is in the line above
        "# hadolint ignore=DL3006",
        "FROM ${BASE} AS base",
    ]
    if settings.os_packages:
        lines += [
            # their versions are the base's release
            "# hadolint ignore=DL3008",
            "RUN apt-get update \\",
            f" && DEBIAN_FRONTEND=noninteractive apt-get install --no-install-recommends --yes "
            f"{' '.join(settings.os_packages)} \\",
            " && rm -rf /var/lib/apt/lists/*",
        ]
    lines += [
        "",
        "FROM base AS build",
        f"WORKDIR {_quoted(settings.directory)}",
        *(f"ARG {argument}" for argument in ARGUMENTS),
        # that of pip, uv and eggcrate
        f"ARG XDG_CACHE_HOME={_CACHE}",
        "# The eggs: nothing here changes with the project's own source.",
        "COPY dependencies/ ./",
        f"RUN {cache}python3 bootstrap.py --config dependencies.cfg \\",
        f" && bin/buildout -c dependencies.cfg {index}",
        "COPY project/ ./",
        f"RUN {cache}python3 bootstrap.py --config docker.cfg \\",
        f" && bin/buildout -c docker.cfg {index}",
        "",
        "FROM base",
        "# Any user may make the run directory.",
        *_accounts(settings),
        f"COPY --from=build {settings.directory}/parts/{name}/root/ /",
        *_config(runtime),
        "",
    ]
    return "\n".join(lines)


def _accounts(settings: ImageSettings) -> Iterator[str]:
    """What the embedded builder's base has, too: an open /run, and a user with a name."""
    if not settings.uid:
        yield "RUN chmod 1777 /run"
        return
    user = f"app:*:{settings.uid}:{settings.uid}::/:/usr/sbin/nologin"
    yield "RUN chmod 1777 /run \\"
    yield f" && echo '{user}' >> /etc/passwd \\"
    yield f" && echo 'app:*:{settings.uid}:' >> /etc/group"


def _config(runtime: RuntimeConfig) -> Iterator[str]:
    """The instructions that say how a container is run."""
    yield from (f"ENV {name}={_quoted(value)}" for name, value in runtime.environment)
    yield from (f"LABEL {_quoted(name)}={_quoted(value)}" for name, value in runtime.labels)
    if runtime.exposed_ports:
        yield f"EXPOSE {' '.join(runtime.exposed_ports)}"
    if runtime.volumes:
        yield f"VOLUME {json.dumps(runtime.volumes)}"
    yield f"WORKDIR {_quoted(runtime.working_directory)}"
    if runtime.user.startswith("0:"):
        yield "# hadolint ignore=DL3002"  # user = 0 wants it
    yield f"USER {runtime.user}"
    yield f"STOPSIGNAL {runtime.stop_signal}"
    check = runtime.healthcheck
    if isinstance(check, Healthcheck):
        times = f"--interval={check.interval}s --timeout={check.timeout}s "
        times += f"--start-period={check.start_period}s --retries={check.retries}"
        yield f"HEALTHCHECK {times} CMD {json.dumps(check.command)}"
    yield f"ENTRYPOINT {json.dumps(runtime.entrypoint)}"
    # that of the base is for another application
    yield f"CMD {json.dumps(runtime.command)}"


def _quoted(text: str) -> str:
    if re.fullmatch(r"[\w./:@%+,=-]+", text, re.ASCII):
        return text
    return '"' + re.sub(r'([\\"$])', r"\\\1", text) + '"'


# The context ---------------------------------------------------------------------------


def write_context(settings: ImageSettings, buildout: Buildout) -> None:
    """Leave the Dockerfile's context at the settings' location, but for the project's files."""
    context = settings.location / "context"
    bootstrap = settings.site.directory / "bootstrap.py"
    for place, text in (
        ("dependencies/dependencies.cfg", _dependencies(buildout)),
        ("docker.cfg", _configuration(settings, buildout)),
        (
            "develop.json",
            json.dumps([os.fspath(path) for path in buildout.develop], sort_keys=True),
        ),
    ):
        write_if_changed(context / place, text.encode())
    try:
        data = bootstrap.read_bytes()
    except OSError as error:
        raise PlanError(
            f"builder = docker: there is no {bootstrap}",
            "copy eggcrate's bootstrap.py beside buildout.cfg: it makes bin/buildout",
        ) from error
    write_if_changed(context / "dependencies/bootstrap.py", data)


def _sections(sections: Mapping[str, Mapping[str, str]]) -> str:
    """Sections as zc.buildout reads them."""
    lines = []
    for name, options in sections.items():
        lines.append(f"[{name}]")
        for option, value in options.items():
            first, *rest = value.strip().split("\n")
            if rest:
                lines += [f"{option} =", *(f"    {line}".rstrip() for line in (first, *rest))]
            else:
                lines.append(f"{option} = {first}".rstrip())
        lines.append("")
    return "\n".join(lines)


# options of [buildout] that say where on this machine something is, or how to talk of it
_OF_THIS_MACHINE = re.compile(
    r"directory|.*-directory|installed|executable|python|log-.*|verbosity|download-cache"
    r"|extends-cache|install-from-cache|offline|newest|extends|develop|parts|versions"
    r"|update-versions-file|find-links"
)


def _common(buildout: Buildout) -> dict[str, str]:
    own = dict(buildout.sections["buildout"])
    found = {name: value for name, value in own.items() if not _OF_THIS_MACHINE.fullmatch(name)}
    links = [link for link in own.get("find-links", "").split() if "://" in link]
    if links:
        found["find-links"] = "\n".join(links)
    return {**found, "versions": "versions", "newest": "false"}


def _versions(buildout: Buildout) -> dict[str, str]:
    section = buildout.sections["buildout"].get("versions", "versions")
    return {**buildout.sections.get(section, {}), **buildout.distributions}


def _dependencies(buildout: Buildout) -> str:
    return _sections(
        {
            "buildout": {
                **{
                    name: value
                    for name, value in _common(buildout).items()
                    if name
                    in (
                        *("index", "find-links", "allow-hosts", "versions", "newest"),
                        *("prefer-final", "use-dependency-links"),
                    )
                },
                "parts": "eggs",
                "installed": ".dependencies.cfg",
            },
            "eggs": {
                "recipe": "zc.recipe.egg:eggs",
                "eggs": "\n".join(["", *buildout.distributions]),
            },
            "versions": _versions(buildout),
        }
    )


def _configuration(settings: ImageSettings, buildout: Buildout) -> str:
    name = settings.name
    used = buildout.sections["buildout"].get("versions", "versions")
    develop = _places(buildout.develop, settings).values()
    sections: dict[str, Mapping[str, str]] = {
        "buildout": {
            **_common(buildout),
            "develop": "\n".join(["", *develop]) if develop else "",
            "parts": " ".join([*(part.name for part in settings.parts), name]),
        }
    }
    for section, options in buildout.sections.items():
        if section not in ("buildout", used):
            # the extra is for who talks to the engine
            sections[section] = {
                option: _EXTRA.sub("eggcrate:", value) if option == "recipe" else value
                for option, value in options.items()
            }
    image = {
        option: value
        for option, value in sections[name].items()
        if option not in ("base", "push", "builder", "build-network", "platform", "os-packages")
    }
    image.update(builder="files", parts=" ".join(part.name for part in settings.parts))
    sections[name] = image
    sections["versions"] = _versions(buildout)
    return _sections(sections)


def _places(
    develop: Sequence[pathlib.Path], settings: ImageSettings
) -> dict[pathlib.Path, str]:
    """Where the directories of develop eggs are in the container, from the buildout's."""
    own = settings.site.directory
    outside = develop_places(develop, own)
    return {path: outside.get(path) or os.fspath(path.relative_to(own)) for path in develop}


def _copy_project(settings: ImageSettings) -> None:
    """The project's files into the context, and of what was there before nothing else."""
    context = settings.location / "context"
    target = context / "project"
    own = settings.site.directory
    develop = [
        pathlib.Path(path) for path in json.loads((context / "develop.json").read_text())
    ]
    sources = {"docker.cfg": context / "docker.cfg"}
    for top, below in ((own, ""), *develop_places(develop, own).items()):
        for path in _files(top, settings):
            sources.setdefault(os.path.join(below, path), top / path)
    # first, as a link where there is a directory now would lead what is copied elsewhere
    for directory, directories, names in os.walk(target, topdown=False):
        for name in (*directories, *names):
            path = os.path.join(directory, name)
            if os.path.isdir(path) and not os.path.islink(path):
                if not os.listdir(path):
                    os.rmdir(path)
            elif os.path.relpath(path, target) not in sources:
                os.unlink(path)
    for name, source in sources.items():
        _copy(source, target / name)


def _copy(source: pathlib.Path, target: pathlib.Path) -> None:
    if source.is_symlink():
        link = os.readlink(source)
        if not target.is_symlink() or os.readlink(target) != link:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.unlink(missing_ok=True)
            target.symlink_to(link)
        return
    mode = 0o755 if source.stat().st_mode & 0o100 else 0o644
    if target.is_symlink():
        target.unlink()
    write_if_changed(target, source.read_bytes(), mode, sync=False)
    if target.stat().st_mode & 0o777 != mode:
        target.chmod(mode)


def _files(top: pathlib.Path, settings: ImageSettings) -> Iterator[str]:
    """The files of a source tree, without what is made and what never goes in."""
    import fnmatch

    site = settings.site
    made = {os.fspath(path) for path in (site.bin, site.parts, site.develop_eggs, site.eggs)}
    made |= {
        os.fspath(site.run_directory),
        os.path.join(top, ".venv"),
        os.path.join(top, "var"),
    }
    made |= set(map(os.fspath, site.eggs.parents)) - set(map(os.fspath, site.directory.parents))
    made -= {os.fspath(site.directory)}
    never = re.compile("|".join(map(fnmatch.translate, (*LEFT_OUT, *_MADE, "*.egg-info"))))
    try:
        text = (top / ".dockerignore").read_bytes().decode("utf-8", "surrogateescape")
        ignore = Ignore.parse(text)
    except OSError:
        ignore = Ignore.parse("")
    for directory, directories, names in os.walk(top):
        place = os.path.relpath(directory, top)
        below = "" if place == "." else f"{place}/"
        directories[:] = sorted(
            name
            for name in directories
            if not never.match(name)
            and os.path.join(directory, name) not in made
            and (
                not ignore.matches(below + name, directory=True)
                or ignore.may_hold(below + name)
            )
        )
        links = [name for name in directories if os.path.islink(os.path.join(directory, name))]
        directories[:] = [name for name in directories if name not in links]
        for name in sorted((*names, *links)):
            path = os.path.join(directory, name)
            if never.match(name) or ignore.matches(below + name):
                continue
            if os.path.islink(path) or os.path.isfile(path):
                yield below + name


def distributions(eggs: pathlib.Path, paths: Iterable[pathlib.Path]) -> dict[str, str]:
    """The versions of the eggs that these files name, and this process has, by their names."""
    # zc.buildout keeps them in a directory for their format, v5 say
    name = rb"(?:v\d+/)?[^/'\"\s:]+\.egg"
    pattern = re.compile(re.escape(os.fsencode(eggs)) + rb"/(" + name + rb")(?![^/'\"\s:])")
    found = {
        os.path.relpath(place, eggs)
        for place in sys.path
        if place.endswith(".egg")
        and pathlib.Path(place).is_relative_to(eggs)
        and not _SDK.match(os.path.basename(place))
    }
    for path in paths:
        try:
            if path.is_file() and path.stat().st_size < _LONGEST:
                found.update(map(os.fsdecode, pattern.findall(path.read_bytes())))
        except OSError:
            continue
    versions: dict[str, str] = {}
    for egg in sorted(found):
        for distribution in importlib.metadata.distributions(path=[os.fspath(eggs / egg)]):
            versions[distribution.metadata["Name"]] = distribution.version
    return versions


# Building ------------------------------------------------------------------------------


def build(settings: ImageSettings, host: str | None = None) -> str:
    """One line on the image that an engine has built, from the context as it is now."""
    context = settings.location / "context"
    with Engine(host or default_host(), whole_api=True) as engine:
        buildkit = engine.has_buildkit()
        text = dockerfile(settings, buildkit=buildkit).encode()
        write_if_changed(context / "Dockerfile", text)
        write_if_changed(settings.location / "Dockerfile", text)
        _copy_project(settings)
        arguments = {
            name: os.environ[name]
            for name in (*ARGUMENTS, *_PROXIES, *(name.lower() for name in _PROXIES))
            if os.environ.get(name)
        }
        identifier, size = engine.build(
            context,
            [str(reference) for reference in settings.references],
            names=("Dockerfile", "dependencies", "project"),
            arguments=arguments,
            network=settings.build_network,
            buildkit=buildkit,
        )
    if not identifier:
        raise TransportError(
            f"{engine.name} has built no image", "see what its log says, and run again"
        )
    write_if_changed(settings.location / "digest", f"{identifier}\n".encode())
    for name in ("image.tar", "oci", "plan.txt"):
        remove(settings.location / name)  # another builder's
    names = ", ".join(reference.familiar for reference in settings.references)
    return f"{names}  {identifier}  {size / 1e6:.0f} MB, by {engine.name}"


def push(
    settings: ImageSettings, references: Iterable[Reference], host: str | None = None
) -> Iterator[str]:
    """Have the engine that has built the image push it; a line for each reference."""
    with Engine(host or default_host(), whole_api=True) as engine:
        for reference in references:
            digest = engine.push(str(settings.references[0]), str(reference))
            yield f"pushed {reference} {digest} by {engine.name}"
