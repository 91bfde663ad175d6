"""``bin/image``: what the part ``docker-image`` leaves, for the time between two buildouts.

Each command imports what it needs: that is most of what ``load`` would take.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from eggcrate.errors import EggcrateError, PlanError, SeveralErrors

if TYPE_CHECKING:
    from eggcrate.image.store import Store
    from eggcrate.runtime.variables import Settings
    from eggcrate.settings import ImageSettings

_DECLARE = "declare some in the section runtime of buildout.cfg, and run bin/buildout"
_OTHERS = "use the engine's own commands, or builder = embedded, which knows what it has built"

_Command = Callable[[argparse.Namespace, "ImageSettings", "Store"], int]


def main(name: str, location: str, arguments: Sequence[str] | None = None) -> int:
    """Run a command on the image of a part; the exit code comes back.

    ``location`` is the part's directory, in which buildout has left ``settings.json``.
    0 is done, 1 an error that has been said, 2 wrong arguments; ``verify`` and ``why`` use 1
    for no, ``settings`` 78 for customers whose containers would not start.
    """
    options = _parser(name).parse_args(arguments)
    place = pathlib.Path(location)
    try:
        # what is loaded is in the layout, and to read settings takes longer
        known = options.run is _load and not options.platform and _has_one_image(place)
        code = _load_layout(options, place) if known else _called(options, place)
        print(end="", flush=True)  # whoever reads may be gone by now
        return code
    except EggcrateError as error:
        errors = error.errors if isinstance(error, SeveralErrors) else (error,)
        for one in errors:
            print(f"{name}: {one}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def _has_one_image(location: pathlib.Path) -> bool:
    """Whether a part has left the image of one platform."""
    try:
        return "image.index" not in (location / "oci/index.json").read_text().partition("]")[0]
    except OSError:
        return False


def _called(options: argparse.Namespace, location: pathlib.Path) -> int:
    """The exit code of a command."""
    import logging

    from eggcrate.image.store import Store, default_root
    from eggcrate.settings import read

    logging.basicConfig(
        level=logging.WARNING if options.quiet else logging.INFO,
        format="%(message)s",
        stream=sys.stderr,
    )
    command: _Command = options.run
    settings = read(location / "settings.json")
    there = (_build, _push, _run, _settings, _cache)
    if settings.builder == "docker" and command not in there:
        raise PlanError("the image is in the engine that has built it, not here", _OTHERS)
    if command not in _OF_ALL:
        settings = _chosen(settings, options.platform)
    return command(options, settings, Store(default_root()))


def _parser(name: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=name,
        description="Work on the image of this buildout without running buildout: what its "
        "parts have made is taken as it lies.",
        epilog=f"Each command has its own help: {name} COMMAND --help",
    )
    parser.set_defaults(prog=name)
    parser.add_argument("-q", "--quiet", action="store_true", help="say only what is wrong")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(word: str, run: _Command, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(word, help=text, description=f"{text}.")
        command.set_defaults(run=run)
        if run not in _OF_ALL:
            command.add_argument(
                "--platform",
                metavar="PLATFORM",
                help="which of several platforms' images; default: this machine's",
            )
        return command

    build = add("build", _build, "build the image anew, as far as something has changed")
    build.add_argument(
        "--newest",
        action="store_true",
        help="ask apt for fresh package lists first, or what the base's name means now",
    )
    add("plan", _plan, "print what the image would hold, and write nothing")
    why = add("why", _why, "say why a file is in the image")
    why.add_argument("path", nargs="+", help="a path of the image, or of this machine")
    diff = add("diff", _diff, "print what the last build has changed")
    diff.add_argument("--all", action="store_true", help="every path, however many")
    report = add("report", _report, "write a page about the image")
    report.add_argument("file", nargs="?", help="where to; default: report.html of the part")
    add("verify", _verify, "build the image from scratch elsewhere, and compare")
    save = add("save", _save, "write the archive for docker load, podman load and skopeo")
    save.add_argument("file", help="where to, or - for standard output")
    push = add("push", _push, "send the image to registries")
    push.add_argument(
        "reference",
        nargs="*",
        help="where to, HOST/PATH:TAG; default: the option push, else name and tags",
    )
    push.add_argument(
        "--attach",
        action="append",
        metavar="WHAT",
        default=[],
        help="what is to be found with the image, of sbom (CycloneDX), spdx and provenance: "
        "words with commas between",
    )
    push.add_argument(
        "--insecure",
        action="append",
        metavar="HOST",
        default=[],
        help="a registry that is spoken to in plain HTTP",
    )
    push.add_argument(
        "--token-host",
        action="append",
        metavar="HOST",
        default=[],
        help="a host that belongs to the registry, and gets its password for a token",
    )
    push.add_argument(
        "--ca", metavar="FILE", help="certificates to trust beside the machine's (PEM)"
    )

    load = add("load", _load, "put the image into a container engine, as far as it lacks it")
    run = add("run", _run, "run the image: read-only, without privileges, until it ends")
    for command in (load, run):
        command.add_argument(
            "--host",
            metavar="ADDRESS",
            help="unix:///run/docker.sock, tcp://HOST:2375 or ssh://USER@HOST; default: the "
            "engine of the docker command, or podman's socket when only that is there",
        )
    run.add_argument(
        "--settings", metavar="FILE", help="variables: NAME=value lines, or TOML (.toml)"
    )
    run.add_argument("--customer", metavar="NAME", help="the table of a TOML file to add")
    run.add_argument(
        *("-e", "--env"),
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="one more variable; repeat it for more",
    )
    run.add_argument(
        *("-p", "--publish"),
        metavar="[ADDRESS:][HOST:]PORT",
        action="append",
        default=[],
        help="where a port is on this machine; default: each of expose, on loopback",
    )
    run.add_argument("--network", default="", help="the engine's network, or host")
    run.add_argument("words", nargs="*", metavar="COMMAND", help="another command, after --")
    sbom = add("sbom", _sbom, "print what software is in the image")
    sbom.add_argument(
        "--format",
        choices=("cyclonedx", "spdx", "provenance"),
        default="cyclonedx",
        help="CycloneDX 1.6 (the default), SPDX 2.3, or an in-toto statement (SLSA "
        "provenance 1) of what the image was made from",
    )
    sbom.add_argument("--layer", type=int, metavar="N", help="only the N-th layer")
    rebase = add("rebase", _rebase, "put the layers on Debian's packages as they are today")
    rebase.add_argument("--base", metavar="SUITE", help="another release of Debian")
    fleet = add("settings", _settings, "check many customers' runtime settings at once")
    fleet.add_argument(
        "file",
        nargs="?",
        help="a TOML file that has a table of variables for each customer; without it the "
        "command prints what can be set",
    )
    fleet.add_argument(
        "--output",
        metavar="DIR",
        help="write each customer's files to DIR/CUSTOMER, by their paths in the image",
    )
    cache = add("cache", _cache, "show what the cache of all buildouts holds")
    cache.add_argument("action", nargs="?", choices=("show", "prune"), default="show")
    cache.add_argument(
        "--all", action="store_true", help="prune everything, not only what is over the limit"
    )
    return parser


def _chosen(settings: ImageSettings, platform: str | None) -> ImageSettings:
    """The settings of one platform's image: the named one's, this machine's, or the first's."""
    from eggcrate.settings import this_platform

    each = settings.each()
    wanted = platform or str(this_platform())
    found = [one for one in each if str(one.platform) == wanted]
    if platform and not found:
        names = ", ".join(str(one.platform) for one in each)
        raise PlanError(f"there is no image for {platform}", f"name one of {names}")
    return (*found, *each)[0]


def _build(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    from eggcrate.build import build, summary

    if settings.builder == "docker":
        from eggcrate import dockerfile

        line = dockerfile.build(settings)
        if not options.quiet:
            print(line)
        return 0
    outcomes = build(_with(settings, refresh=options.newest), store)
    if not options.quiet:
        print(*summary(settings, outcomes), sep="\n")
    return 0


def _with(settings: ImageSettings, *, refresh: bool, suite: str | None = None) -> ImageSettings:
    import dataclasses

    return dataclasses.replace(
        settings, refresh=refresh, offline=False, suite=suite or settings.suite
    )


def _plan(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    from eggcrate.planning import plan_image

    with store.in_use():
        planned = plan_image(_with(settings, refresh=False), store)
    for warning in planned.warnings:
        print(warning, file=sys.stderr)
    _print(planned.text())
    return 0


def _target(name: str | os.PathLike[str]) -> pathlib.Path:
    """Where a file is to be written, in a directory that is there."""
    path = pathlib.Path(name)
    if not path.parent.is_dir():
        raise PlanError(f"there is no directory {path.parent}", "make it, or name another file")
    if path.is_dir():
        raise PlanError(f"{path} is a directory", "name a file in it")
    return path


def _print(text: str) -> None:
    """Print a text that may have any letters, whatever the terminal's encoding."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
    sys.stdout.buffer.flush()


def _why(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    from eggcrate.build import last, relocation_of
    from eggcrate.image.plan import FileType, printable, resolve

    image = last(settings, store)
    tree = {entry.path: entry for layer in image.layers for entry in layer.plan.entries}
    relocation = relocation_of(settings, store)
    status = 0
    for word in options.path:
        path = os.path.normpath(word).strip("/")
        if path not in tree:
            # a path of this machine, from the working directory
            path = (relocation.path(os.path.abspath(word)) or path).strip("/")
        real = resolve(path, tree, last=False)
        found = [
            (number, layer.plan.name, entry)
            for number, layer in enumerate(image.layers, 1)
            for entry in layer.plan.entries
            if entry.path == real
        ]
        if not found:
            otherwise = ", unless the base has it" if image.base_digest else ""
            print(f"/{printable(path)} is not in the image{otherwise}", file=sys.stderr)
            status = 1
            continue
        # a directory comes with each layer that has something in it: the first one counts
        number, layer_name, entry = found[0]
        print(f"/{printable(real)}")
        print(f"  why      {printable(entry.reason)}")
        print(f"  layer    {number}, {printable(layer_name)}")
        print(f"  group    {printable(entry.group)}")
        print(f"  mode     {entry.mode:04o}, {entry.uid}:{entry.gid}")
        if entry.type is FileType.REGULAR:
            print(f"  bytes    {entry.size}")
            print(f"  sha256   {entry.digest}")
        elif entry.linkname:
            print(f"  {entry.type.value:<8} {printable(entry.linkname)}")
        if entry.source:
            print(f"  from     {printable(entry.source)}")
    return status


def _diff(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    from eggcrate.build import before_last, last
    from eggcrate.image.difference import difference, text

    image = last(settings, store)
    before = before_last(settings, store)
    _print(text(difference(before, image), **({"most": None} if options.all else {})))
    return 0


def _report(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    from eggcrate.build import before_last, last
    from eggcrate.image.report import report
    from eggcrate.image.store import replacing

    path = _target(options.file or settings.location / "report.html")
    page = report(last(settings, store), before_last(settings, store))
    with replacing(path) as stream:
        stream.write(page.encode("utf-8", "backslashreplace"))
    if not options.quiet:
        print(path)
    return 0


def _verify(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    results = [_verified(one, store) for one in settings.each()]
    return max(results)


def _verified(settings: ImageSettings, store: Store) -> int:
    from eggcrate.build import verify
    from eggcrate.image.difference import difference, text

    image, again = verify(_with(settings, refresh=False), store)
    if again is None:
        print(f"{image.manifest.digest} was built again, and is the same")
        return 0
    same = [layer.diff_id for layer in image.layers] == [
        layer.diff_id for layer in again.layers
    ]
    what = "; the layers hold the same, compressed otherwise" if same else ""
    print(
        f"{image.manifest.digest} is not what is built now, {again.manifest.digest}{what}",
        file=sys.stderr,
    )
    _print(text(difference(image, again)))
    return 1


def _save(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    import shutil

    from eggcrate.image.store import replacing

    archive = settings.location / "image.tar"
    if options.file == "-" and sys.stdout.isatty():
        raise PlanError("an archive is nothing for a terminal", "name a file, or pipe it")
    try:
        with archive.open("rb") as source:
            if options.file == "-":
                shutil.copyfileobj(source, sys.stdout.buffer, 1 << 20)
                return 0
            with replacing(_target(options.file)) as stream:
                shutil.copyfileobj(source, stream, 1 << 20)
    except FileNotFoundError as error:
        raise PlanError(f"there is no {archive}", "build it first") from error
    return 0


# What can be attached to an image: the format of ``sbom``, and the media type
_ATTACHED = {
    "sbom": ("cyclonedx", "application/vnd.cyclonedx+json"),
    "spdx": ("spdx", "application/spdx+json"),
    "provenance": ("provenance", "application/vnd.in-toto+json"),
}


def _push(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    from eggcrate.image.oci import HOST, parse
    from eggcrate.image.stored import stored
    from eggcrate.transports import registry

    wanted = [word for text in options.attach for word in text.split(",") if word]
    for word in wanted:
        if word not in _ATTACHED:
            raise PlanError(
                f"{word!r} can't be attached", f"use some of {', '.join(_ATTACHED)}"
            )
    references = [parse(text) for text in options.reference]
    references = references or list(settings.push or settings.references)
    if settings.builder == "docker":
        from eggcrate import dockerfile

        if wanted:
            raise PlanError("only what the embedded builder has built is attached to", _OTHERS)
        for line in dockerfile.push(settings, references):
            if not options.quiet:
                print(line, flush=True)
        return 0
    for host in (*options.insecure, *options.token_host):
        if re.fullmatch(HOST, host) is None:
            raise PlanError(
                f"{host!r} is not a host",
                "name it as it stands in a reference: registry.example:5000",
            )
    image = stored(settings.location / "oci")
    access = registry.Access(
        insecure=frozenset((*settings.insecure_registries, *options.insecure)),
        token_hosts=frozenset((*settings.token_hosts, *options.token_host)),
        ca=pathlib.Path(options.ca) if options.ca else None,
    )
    for sent in registry.push(image, references, access=access):
        if not options.quiet:
            print(registry.summary(sent), flush=True)
    with store.in_use():
        for host, path in dict.fromkeys((item.host, item.path) for item in references):
            place = registry.Repository(host, path, access=access, writing=True)
            for one, its in zip(settings.each(), image.images or (image,), strict=True):
                for word in wanted:
                    format_, media_type = _ATTACHED[word]
                    document = _document(one, store, format_)
                    made = place.attach(its.manifest, media_type, media_type, document)
                    if not options.quiet:
                        print(f"attached {word} {place.name}@{made.digest}", flush=True)
    return 0


def _load(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    return _load_layout(options, settings.location, settings.name)


def _load_layout(options: argparse.Namespace, location: pathlib.Path, name: str = "") -> int:
    from eggcrate.image.stored import stored
    from eggcrate.image.words import amount, familiar
    from eggcrate.transports.engine import Engine, default_host

    image = stored(location / "oci")
    with Engine(options.host or default_host()) as engine:
        loaded = engine.load(image)
    names = ", ".join(map(familiar, image.references))
    if loaded.unchanged:
        what = f"{names} is in {loaded.engine} already"
    else:
        what = f"loaded {names} into {loaded.engine} ({loaded.sent} of {len(image.layers)} "
        what += f"layers, {amount(loaded.size)} sent)"
    if not options.quiet:
        print(f"{name or location.name}: {what}")
    return 0


def _run(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    from eggcrate.image.stored import stored
    from eggcrate.payload import settings as runtime
    from eggcrate.transports import container
    from eggcrate.transports.engine import Engine, default_host

    declared = _declared(settings)
    if options.customer is not None and options.settings is None:
        raise PlanError("--customer names a table of a file", "name the file with --settings")
    environment = {}
    source = ""
    if options.settings is not None:
        source = options.settings
        path = pathlib.Path(options.settings)
        environment = runtime.given(path, declared, options.customer)
    for word in options.env:
        name, equals, value = word.partition("=")
        if re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) is None:
            raise PlanError(f"--env {word} has no name of a variable", "write NAME=VALUE")
        if not equals and name not in os.environ:
            raise PlanError(
                f"--env {name}: there is no such variable here", f"write --env {name}=VALUE"
            )
        environment[name] = value if equals else os.environ[name]
    values = runtime.check(declared, environment, source)
    for warning in values.warnings if values else ():
        print(warning, file=sys.stderr)
    # a setting that says where the container listens says what is to be published
    ports = {}
    if declared is not None and values is not None:
        for setting in declared.settings:
            if setting.type == "port" and setting.name in values.changed:
                ports[setting.default] = values.values[setting.name]
    exposed = []
    for port in settings.expose:
        number, _, protocol = port.partition("/")
        exposed.append(f"{ports.get(number, number)}/{protocol}")
    publish = [] if options.network == "host" else options.publish or exposed
    with Engine(options.host or default_host(), whole_api=True) as engine:
        if settings.builder == "embedded":
            loaded = engine.load(stored(settings.location / "oci"))
            if not (options.quiet or loaded.unchanged):
                print(f"{settings.name}: {loaded.sent} layers sent", file=sys.stderr)
        return container.run(
            engine,
            str(settings.references[0]),
            command=options.words,
            environment=environment,
            ports=[container.published(text) for text in publish],
            network=options.network,
            keep_capabilities=settings.uid == 0,
        )


def _sbom(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    with store.in_use():
        document = _document(settings, store, options.format, options.layer)
    _print(document.decode())
    return 0


def _document(
    settings: ImageSettings, store: Store, format_: str, number: int | None = None
) -> bytes:
    """What the last image, or its ``number``-th layer, is made of."""
    from importlib.metadata import version

    from eggcrate.build import last
    from eggcrate.image import provenance, sbom
    from eggcrate.image.compression import compressor
    from eggcrate.image.layers import content
    from eggcrate.image.plan import FileEntry

    image = last(settings, store)
    count = len(image.layers)
    if number is not None and not 1 <= number <= count:
        raise PlanError(
            f"there is no layer {number}", f"name one of the {count}, from 1 to {count}"
        )
    layers = {id(entry): layer for layer in image.layers for entry in layer.plan.entries}

    def read_entry(entry: FileEntry) -> bytes:
        return content(entry, layers[id(entry)], store)

    components = sbom.inventory(image, read_entry)
    python = ".".join(map(str, sys.version_info[:3]))
    common: dict[str, Any] = {"epoch": settings.epoch, "builder_version": version("eggcrate")}
    if format_ == "provenance":
        return provenance.statement(
            image,
            inputs=components,
            settings=_parameters(settings),
            tools={"compressor": compressor(settings.compression), "python": python},
            **common,
        )
    layer = None if number is None else number - 1
    document = sbom.spdx if format_ == "spdx" else sbom.cyclonedx
    return document(image, components, layer=layer, **common)


def _parameters(settings: ImageSettings) -> dict[str, Any]:
    """The options of the image that say nothing of this machine."""
    return {
        "name": [str(reference) for reference in settings.references],
        "platform": str(settings.platform),
        "parts": [part.name for part in settings.parts],
        "directory": settings.directory,
        "base": settings.base or ":".join(filter(None, ("debian", settings.suite))),
        "os-packages": [*settings.os_packages, *(["auto"] if settings.auto_packages else [])],
        "python": settings.python,
        "user": f"{settings.uid}:{settings.gid}",
        "expose": list(settings.expose),
        "layers": [str(settings.layers), *map(" ".join, settings.together)],
        "compression": settings.compression,
    }


def _rebase(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    from eggcrate.build import rebase, summary

    outcomes = rebase(_with(settings, refresh=True, suite=options.base), store)
    if not options.quiet:
        print(*summary(settings, outcomes), sep="\n")
    return 0


def _settings(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    from eggcrate import fleet
    from eggcrate.runtime import variables
    from eggcrate.runtime.start import EX_CONFIG

    known = _known_settings(settings, store)
    if options.file is None:
        if options.output:
            raise PlanError("there are no customers to write files for", "name a file")
        _print(variables.table(known))
        return 0
    customers = fleet.read(pathlib.Path(options.file))
    checked = fleet.check(known, customers)
    for warning in checked.warnings:
        print(f"{options.prog}: {options.file}: warning: {warning}", file=sys.stderr)
    for problem in checked.problems:
        print(f"{options.prog}: {options.file}: {problem}", file=sys.stderr)
    if checked.problems:
        return EX_CONFIG
    if options.output:
        fleet.write(known, checked.values, pathlib.Path(options.output))
    if not options.quiet:
        many = len(checked.values)
        print(f"{many} customer{'s' * (many != 1)}: nothing is wrong")
    return 0


def _known_settings(settings: ImageSettings, store: Store) -> Settings:
    """The runtime settings that are in the last image."""
    if settings.builder == "docker":
        declared = _declared(settings)
        if declared is not None:
            return declared
        raise PlanError("the image has no runtime settings", _DECLARE)
    from eggcrate.build import last
    from eggcrate.image.layers import content
    from eggcrate.payload.settings import loaded
    from eggcrate.planning import SETTINGS_FILE

    for layer in last(settings, store).layers:
        for entry in layer.plan.entries:
            if entry.path == SETTINGS_FILE:
                return loaded(content(entry, layer, store))
    raise PlanError("the image has no runtime settings", _DECLARE)


def _declared(settings: ImageSettings) -> Settings | None:
    """What the parts have left on what a container can be given."""
    from eggcrate.payload import settings as runtime

    return runtime.read(runtime.places(settings.site, settings.parts, settings.name))


def _cache(options: argparse.Namespace, settings: ImageSettings, store: Store) -> int:
    from eggcrate.image import cache

    limit = cache.size_limit()
    if options.action == "prune":
        pruned = cache.prune(store.root, limit=limit, everything=options.all)
        print(cache.pruned_text(pruned))
        return int(pruned.busy)
    print(cache.usage_text(store.root, cache.usage(store.root), limit))
    return 0


# what is done with the images of all platforms
_OF_ALL: tuple[_Command, ...] = (_build, _cache, _push, _rebase, _save, _verify)
