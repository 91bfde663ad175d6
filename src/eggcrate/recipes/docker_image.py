"""``eggcrate:docker-image``: a container image of parts, without an engine or root."""

from __future__ import annotations

import difflib
import glob
import hashlib
import importlib.util
import logging
import os
import pathlib
import posixpath
import re
import shlex
import sys
import sysconfig
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from eggcrate.errors import EggcrateError, SettingsError, raise_all
from eggcrate.recipes import ownership, symbols
from eggcrate.recipes.boundary import user_errors

if TYPE_CHECKING:
    from eggcrate.dockerfile import Buildout
    from eggcrate.image.oci import Platform
    from eggcrate.image.store import Store
    from eggcrate.payload.site import Include, Part, Site
    from eggcrate.runtime.variables import Document
    from eggcrate.settings import ImageSettings

OPTIONS = (
    "allow-build-paths",
    "allow-secrets",
    "base",
    "base-size",
    "build-network",
    "builder",
    "command",
    "compression",
    "directory",
    "entrypoint",
    "environment",
    "exclude",
    "expose",
    "healthcheck",
    "include",
    "insecure-registries",
    "labels",
    "layers",
    "name",
    "os-packages",
    "parts",
    "platform",
    "push",
    "python",
    "run-directory",
    "runtime",
    "stop-signal",
    "supervisor",
    "tags",
    "templates",
    "token-hosts",
    "user",
    "volumes",
    "workdir",
)
# files is what docker's Dockerfile runs: the files of the image in a directory
_BUILDERS = ("embedded", "docker", "files")
_TEMPLATES = r"collective\.recipe\.template(?:\s*:\s*default)?"
# what buildout, and this recipe, put beside them
_OURS = ("recipe", "location", "image", ownership.OPTION)
_USER = re.compile(r"(?P<uid>[0-9]{1,10})(?::(?P<gid>[0-9]{1,10}))?")
_PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+(?:=\S+)?")
_PORT = re.compile(r"(?P<port>[0-9]{1,5})(?:/(?:tcp|udp|sctp))?")
_NUMBER = re.compile(r"[0-9]{1,12}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
# the user and group that an image runs as, and the highest that engines take
_UID = 10001
_HIGHEST_UID = 2**31 - 1
# directories of the base: nothing of a buildout's can be there, nor its own directory
_TAKEN = re.compile(
    "/(bin|boot|dev|etc|home|lib|lib32|lib64|media|mnt|opt|proc|root|run|sbin|srv|sys|tmp|usr"
    "|var)?|/(dev|proc|run|sys|tmp)/.*"
)


class Recipe:
    """The part that leaves an image at ``location``.

    It publishes ``location`` and ``image`` (the archive), and owns the directory.
    """

    def __init__(self, buildout: Any, name: str, options: MutableMapping[str, str]) -> None:
        self.buildout = buildout
        self.name = name
        self.options = options
        self._logger = logging.getLogger(name)
        with user_errors(name):
            location = pathlib.Path(buildout["buildout"]["parts-directory"], name)
            options["location"] = os.fspath(location)
            options["image"] = os.fspath(location / "image.tar")
            self._script = pathlib.Path(buildout["buildout"]["bin-directory"], name)
            self._symbols = pathlib.Path(symbols.place(buildout, name))
            ownership.declare(options, [location, self._script, self._symbols])
            self._parts = self._wanted_parts()
            self._runtime = symbols.Runtime.of(buildout, options.get("runtime"))
            self._templates = self._wanted_templates()
            # a mistake in an option is said before anything is built
            self._settings(parts=())

    def install(self) -> Sequence[str]:
        """Build the image; nothing that buildout should remove by itself comes back."""
        with user_errors(self.name):
            self._build()
        return ()

    update = install

    def _build(self) -> None:
        from eggcrate.build import build, summary
        from eggcrate.image.store import Store, default_root, write_if_changed
        from eggcrate.settings import document

        settings = self._settings(parts=self._made_parts())
        store = Store(default_root())
        if settings.builder == "embedded":
            self._test_nginx(settings, store)
        self._keep_symbols()
        if settings.builder == "files":
            from eggcrate import dockerfile

            dockerfile.write_files(settings, store)
            return
        if settings.builder == "docker":
            from eggcrate import dockerfile

            dockerfile.write_context(settings, self._for_docker(settings))
            self._logger.info("%s", dockerfile.build(settings))
            write_if_changed(settings.location / "settings.json", document(settings))
            write_if_changed(self._script, self._console(settings.location), 0o755)
            if self._pushes(settings):
                for line in dockerfile.push(settings, settings.push):
                    self._logger.info("%s", line)
            return
        outcomes = build(settings, store)
        for line in summary(settings, outcomes):
            self._logger.info("%s", line)
        # what fails leaves the script and its settings as they are for the image that is there
        changed = write_if_changed(settings.location / "settings.json", document(settings))
        write_if_changed(self._script, self._console(settings.location), 0o755)
        self._keep_dockerfile(settings, changed)
        archive = settings.location / "image.tar"
        here = pathlib.Path(self.buildout["buildout"]["directory"])
        if archive.is_relative_to(here):
            archive = archive.relative_to(here)
        self._logger.info("docker load -i %s", archive)
        self._push(settings)

    def _push(self, settings: ImageSettings) -> None:
        """Send the image where ``push`` says; what can't be sent is there all the same."""
        if not self._pushes(settings):
            return
        from eggcrate.image.stored import stored
        from eggcrate.transports import registry

        access = registry.Access(
            insecure=frozenset(settings.insecure_registries),
            token_hosts=frozenset(settings.token_hosts),
        )
        image = stored(settings.location / "oci")
        for sent in registry.push(image, settings.push, access=access):
            self._logger.info("%s", registry.summary(sent))

    def _pushes(self, settings: ImageSettings) -> bool:
        if settings.push and settings.offline:
            self._logger.warning("not pushed: buildout is offline")
        return bool(settings.push) and not settings.offline

    def _keep_dockerfile(self, settings: ImageSettings, changed: bool) -> None:
        """Write what ``builder = docker`` would build, when something has changed in it."""
        from eggcrate.image.store import write_if_changed

        path = settings.location / "Dockerfile"
        if not changed and path.exists():
            written = path.stat().st_mtime_ns
            places = self._symbols.parent.glob("*.json")
            if all(place.stat().st_mtime_ns < written for place in places):
                return
        from eggcrate import dockerfile

        text = dockerfile.dockerfile(settings).encode()
        if not write_if_changed(path, text, sync=False):
            path.touch()

    def _for_docker(self, settings: ImageSettings) -> Buildout:
        """What a Dockerfile has to know of this buildout."""
        from eggcrate.dockerfile import Buildout, distributions

        site = settings.site
        outputs = [path for part in settings.parts for path in part.outputs]
        # sections as they were written, with what was given on the command line
        raw: Mapping[str, Mapping[str, str]] = self.buildout._raw
        develop = []
        for pattern in self.buildout["buildout"].get("develop", "").split():
            found = sorted(glob.glob(os.path.join(site.directory, pattern)))
            develop += [pathlib.Path(os.path.normpath(path)) for path in found]
        return Buildout(raw, distributions(site.eggs, outputs), develop)

    def _test_nginx(self, settings: ImageSettings, store: Store) -> None:
        """Have the image's nginx test what nginx-config parts have written.

        Where this machine has one, they have done so.  The same text is tested once.
        """
        from eggcrate.build import packed_program, surroundings
        from eggcrate.config import nginx
        from eggcrate.recipes.nginx_config import Recipe as NginxConfig
        from eggcrate.settings import this_platform

        found = [getattr(self.buildout[part], "recipe", None) for part in self._parts]
        untested = [part for part in found if isinstance(part, NginxConfig) and part.checks]
        if not untested or nginx.find():
            return
        mine = [one for one in settings.each() if one.platform == this_platform()]
        if not mine:
            return  # this machine can't run it
        settings = mine[0]
        words = [surroundings(settings), *(part.text for part in untested)]
        key = hashlib.sha256("\0".join(words).encode()).hexdigest()
        if store.recall("nginx", key) is not None:
            return
        with packed_program(settings, store, "usr/sbin/nginx") as program:
            if program:
                for part in untested:
                    part.test(program)
        store.remember("nginx", key, {})

    def _console(self, location: pathlib.Path) -> bytes:
        """The script with which people work on the image between two buildouts.

        It has the paths of what this process has loaded, and starts without the rest.
        """
        name = os.path.relpath(self._script, self.buildout["buildout"]["directory"])
        develop_eggs = pathlib.Path(self.buildout["buildout"]["develop-eggs-directory"])
        lines = [
            *_interpreter_lines(sys.executable),
            "",
            "import sys",
            "",
            f"sys.path[0:0] = {_module_places(develop_eggs)!r}",
            "",
            "from eggcrate.console import main",
            "",
            f"sys.exit(main({name!r}, {os.fspath(location)!r}))",
            "",
        ]
        return os.fsencode("\n".join(lines))

    # The parts

    def _wanted_parts(self) -> list[str]:
        """The names in ``parts``; by default every part before this one.

        Each is touched: buildout installs what another part has touched before that part.
        """
        configured = self.buildout["buildout"]["parts"].split()
        if "parts" in self.options:
            wanted = self.options["parts"].split()
        elif self.name in configured:
            wanted = configured[: configured.index(self.name)]
        else:
            wanted = []
        sections = sorted(set(self.buildout) - {"buildout", "versions", self.name})
        raise_all(
            SettingsError(
                f"parts: there is no part {part!r}",
                _nearest(part, sections, "take it out, or add a section of that name"),
            )
            for part in wanted
            if part not in sections
        )
        raise_all(
            SettingsError(f"parts: the section {part} has no recipe", "take it out of parts")
            for part in wanted
            if "recipe" not in self.buildout[part]
        )
        return wanted

    def _made_parts(self) -> tuple[Part, ...]:
        """The parts with what they have made, as buildout has recorded it."""
        from zc.buildout import configparser

        from eggcrate.payload.site import installed_parts

        settings = self.buildout["buildout"]
        installed = pathlib.Path(settings["installed"])
        try:
            with installed.open(encoding="utf-8") as stream:
                sections: Mapping[str, Mapping[str, str]] = configparser.parse(
                    stream, os.fspath(installed)
                )
        except OSError:
            sections = {}
        known = installed_parts(
            sections,
            pathlib.Path(settings["directory"]),
            pathlib.Path(settings["bin-directory"]),
        )
        raise_all(
            SettingsError(
                f"parts: {part} is not installed",
                f"run bin/buildout install {part}, or list it in parts of [buildout]",
            )
            for part in self._parts
            if part not in known
        )
        return tuple(known[part] for part in self._parts)

    # Runtime settings

    def _wanted_templates(self) -> list[str]:
        """The parts of collective.recipe.template whose output is rendered again at start."""
        given = self.options.get("templates", "").split()
        raise_all(
            SettingsError(
                f"templates: {part!r} is not one of parts",
                _nearest(part, self._parts, "add it to parts"),
            )
            for part in given
            if part not in self._parts
        )
        if "templates" in self.options:
            return given
        return [
            part
            for part in self._parts
            if re.fullmatch(_TEMPLATES, self.buildout[part].get("recipe", ""))
        ]

    def _keep_symbols(self) -> None:
        """Write down what PID 1 has to know beside what the configurations' parts have left."""
        from eggcrate.image.store import write_if_changed

        if self._runtime is None:
            self._symbols.unlink(missing_ok=True)
            return
        documents = [*self._healthcheck_document()]
        errors: list[EggcrateError] = []
        for part in self._templates:
            try:
                documents += self._template_document(part, self._runtime)
            except EggcrateError as error:
                errors.append(error)
        raise_all(errors)
        for warning in self._runtime.warnings():
            self._logger.warning("%s", warning)
        self._symbols.parent.mkdir(parents=True, exist_ok=True)
        write_if_changed(self._symbols, self._runtime.dumped(*documents))

    def _healthcheck_document(self) -> Iterator[Document]:
        """The address that is asked for health, if it has a setting in it."""
        from eggcrate.config.references import Rendered
        from eggcrate.payload.settings import HEALTHCHECK

        assert self._runtime is not None
        runtime = self._runtime

        def text(instead: symbols.Instead) -> Rendered:
            value = runtime.value(self.name, "healthcheck", instead) or ""
            return Rendered("healthcheck", value, (1,))

        if self.options.get("healthcheck", "").startswith("http://"):
            yield runtime.document(text({}), text, path=HEALTHCHECK, mode=0o644, kind="plain")

    def _template_document(self, part: str, runtime: symbols.Runtime) -> Iterator[Document]:
        """The output of a template of another recipe, with its settings in their places."""
        from eggcrate.config.references import Rendered

        options = self.buildout[part]
        directory = pathlib.Path(self.buildout["buildout"]["directory"])
        path = directory / options["output"]
        source = options.get("input", "")
        try:
            made = path.read_text(encoding="utf-8")
            template = None
            if source and not source.startswith("inline:"):
                template = (directory / source).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"templates: the text of [{part}] can't be read: {error}",
                f"take {part} out of templates, where nothing is rendered again",
            ) from error

        def text(instead: symbols.Instead) -> Rendered:
            whole = template
            if whole is None:
                option = "input" if source else "inline"
                whole = runtime.value(part, option, instead) or ""
                whole = whole.removeprefix("inline:").lstrip()
            # an option of its own has no section's name before it
            whole = re.sub(r"\$\{([^:}]+?)\}", rf"${{{part}:\1}}", whole)
            result = runtime.substituted(part, whole, instead) or ""
            return Rendered(options["output"], result, tuple(range(1, result.count("\n") + 2)))

        rendered = text({})
        if rendered.text != made:
            self._logger.warning(
                "templates: %s is not what the template of [%s] says, so nothing in it can be "
                "set when the container starts",
                options["output"],
                part,
            )
            return
        mode = path.stat().st_mode & 0o777
        yield runtime.document(rendered, text, path=os.fspath(path), mode=mode)

    # The options

    def _settings(self, parts: tuple[Part, ...]) -> ImageSettings:
        """The options, typed and checked; every complaint at once."""
        from eggcrate.image.oci import parse, reference
        from eggcrate.settings import BASE_SIZE, ImageSettings, this_platform

        options = self.options
        errors: list[EggcrateError] = []

        def checked(read: Any, *arguments: Any, default: Any) -> Any:
            try:
                return read(*arguments)
            except EggcrateError as error:
                errors.append(error)
                return default

        for option in sorted(set(options) - set(OPTIONS) - set(_OURS)):
            if not option.startswith(("_", "__")):
                errors.append(
                    SettingsError(
                        f"there is no option {option!r}",
                        _nearest(option, OPTIONS, "take it out"),
                    )
                )
        name = options.get("name", self.name)
        tags = options.get("tags", "latest").split() or ["latest"]
        references = tuple(
            filter(None, (checked(reference, name, tag, default=None) for tag in tags))
        )
        uid, gid = checked(_user, options.get("user", str(_UID)), default=(_UID, _UID))
        platforms = checked(_platforms, options.get("platform", ""), default=(this_platform(),))
        layers, together = checked(_layers, options.get("layers", "12"), default=(12, ()))
        site = self._site()
        builder = checked(
            _choice, options, "builder", _BUILDERS, "embedded", default="embedded"
        )
        is_debian, base = checked(
            _base, options.get("base", "debian"), site.directory, default=(True, "")
        )
        inherited = {"healthcheck", "stop-signal", "user", "workdir"}
        if options.get("supervisor"):
            inherited.discard("stop-signal")  # Circus wants its own
        settings = ImageSettings(
            references=references,
            platform=platforms[0] if len(platforms) == 1 else this_platform(),
            platforms=platforms if len(platforms) > 1 else (),
            site=site,
            parts=parts,
            directory=checked(
                _directory,
                options.get("directory", "/var/application"),
                default="/",
            ),
            location=pathlib.Path(options["location"]),
            suite=base or None if is_debian else None,
            base="" if is_debian else base,
            base_size=(
                checked(_base_size, options["base-size"], default=0)
                if options.get("base-size")
                else BASE_SIZE
            ),
            inherited=tuple(sorted(inherited - set(options))),
            builder=builder,
            build_network=options.get("build-network", ""),
            os_packages=checked(_packages, options.get("os-packages", ""), default=()),
            auto_packages="auto" in options.get("os-packages", "").split(),
            python=checked(
                _choice,
                options,
                "python",
                ("auto", "base", "debian", "host"),
                "auto",
                default="auto",
            ),
            include=tuple(
                checked(self._include, line, default=None)
                for line in _lines(options.get("include", ""))
            ),
            exclude=tuple(options.get("exclude", "").split()),
            allow_build_paths=tuple(options.get("allow-build-paths", "").split()),
            allow_secrets=tuple(options.get("allow-secrets", "").split()),
            command=checked(self._command, default=()),
            entrypoint=(
                checked(_words, "entrypoint", options["entrypoint"], default=())
                if "entrypoint" in options
                else None
            ),
            uid=uid,
            gid=gid,
            expose=checked(_ports, options.get("expose", ""), default=()),
            volumes=checked(_paths, "volumes", options.get("volumes", ""), default=()),
            working_directory=(
                checked(_absolute, "workdir", options["workdir"], default="")
                if options.get("workdir")
                else ""
            ),
            labels=checked(_pairs, "labels", options.get("labels", ""), default=()),
            environment=checked(_environment, options.get("environment", ""), default=()),
            healthcheck=checked(_healthcheck, options.get("healthcheck", ""), default=()),
            stop_signal=checked(_signal, options.get("stop-signal", "SIGTERM"), default=""),
            layers=layers,
            together=together,
            compression=checked(
                _choice,
                options,
                "compression",
                ("gzip", "zstd", "none"),
                "gzip",
                default="gzip",
            ),
            push=tuple(
                filter(
                    None,
                    (
                        checked(parse, line, default=None)
                        for line in _lines(options.get("push", ""))
                    ),
                )
            ),
            insecure_registries=checked(_hosts, options, "insecure-registries", default=()),
            token_hosts=checked(_hosts, options, "token-hosts", default=()),
            epoch=checked(_epoch, os.environ.get("SOURCE_DATE_EPOCH"), default=0),
            index=_without_password(self.buildout["buildout"].get("index", "")),
            find_links=tuple(
                map(_without_password, self.buildout["buildout"].get("find-links", "").split())
            ),
            refresh=self.buildout["buildout"].get("newest", "true") == "true",
            offline=self.buildout["buildout"].get("offline", "false") == "true",
        )
        if builder == "docker":
            errors += _not_for_docker(settings)
        elif not is_debian and options.get("os-packages", "").split():
            errors.append(
                SettingsError(
                    f"os-packages: nothing is installed into the base {options['base']}",
                    "take a base that has the packages, or base = debian",
                )
            )
        if builder == "embedded" and not is_debian and settings.python == "debian":
            errors.append(
                SettingsError(
                    f"python = debian: the base is {options['base']}",
                    "use base for the Python that it has, or host to pack this one",
                )
            )
        raise_all(errors)
        return settings

    def _site(self) -> Site:
        from eggcrate.payload.site import Site, develop_locations

        settings = self.buildout["buildout"]
        directory = pathlib.Path(settings["directory"])
        develop_eggs = pathlib.Path(settings["develop-eggs-directory"])
        # a circus-config part publishes the one that its configuration uses
        run_directory = self.options.get("run-directory") or "var/run"
        supervisor = self.options.get("supervisor")
        if supervisor in self._parts and "run-directory" not in self.options:
            run_directory = self.buildout[supervisor].get("run-directory", run_directory)
        return Site(
            directory=directory,
            # scripts name what links lead to
            eggs=pathlib.Path(os.path.realpath(settings["eggs-directory"])),
            develop_eggs=develop_eggs,
            bin=pathlib.Path(settings["bin-directory"]),
            parts=pathlib.Path(settings["parts-directory"]),
            environment=pathlib.Path(sysconfig.get_path("purelib")),
            run_directory=directory / run_directory,
            prefixes=(pathlib.Path(sys.prefix), pathlib.Path(sys.base_prefix)),
            develop=develop_locations(develop_eggs),
        )

    def _include(self, line: str) -> Include:
        from eggcrate.payload.site import Include

        source, arrow, target = (word.strip() for word in line.partition(" = "))
        if arrow:
            target = _absolute("include", target)
        return Include(pathlib.Path(self.buildout["buildout"]["directory"], source), target)

    def _command(self) -> tuple[str, ...]:
        supervisor = self.options.get("supervisor", "")
        if not supervisor:
            return _words("command", self.options.get("command", ""))
        if "command" in self.options:
            raise SettingsError("supervisor and command are both set", "take one of them out")
        if supervisor not in self._parts:
            raise SettingsError(
                f"supervisor: {supervisor!r} is not one of parts",
                _nearest(supervisor, self._parts, "add it to parts"),
            )
        output = self.buildout[supervisor].get("output")
        if not output:
            raise SettingsError(
                f"supervisor: the part {supervisor} has no output",
                "name a circus-config part, or one of collective.recipe.template",
            )
        # a circus-config part with eggs has made its own
        circusd = self.buildout[supervisor].get("circusd") or pathlib.Path(
            self.buildout["buildout"]["bin-directory"], "circusd"
        )
        return (
            os.fspath(circusd),
            os.fspath(pathlib.Path(self.buildout["buildout"]["directory"], output)),
        )


# what bin/image may import that is not in the standard library
_MODULES = (
    *("eggcrate", "deflate", "packaging", "tqdm", "backports.zstd"),
    # the docker SDK, and what it needs
    *("docker", "requests", "urllib3", "certifi", "idna", "charset_normalizer"),
)
# longer #! lines are cut off (execve(2), before Linux 5.1)
_LONGEST_SHEBANG = 127


def _module_places(develop_eggs: pathlib.Path) -> list[str]:
    """The directories from which this process imports eggcrate and what it needs.

    Of a develop egg the metadata may lie among ``develop_eggs`` alone.
    """
    places: dict[str, None] = {}
    for module in _MODULES:
        try:
            spec = importlib.util.find_spec(module)
        except ImportError:
            continue  # an extra that is not there
        if spec is not None and spec.origin is not None:
            above = module.count(".") + (1 if spec.submodule_search_locations else 0)
            places[os.fspath(pathlib.Path(spec.origin).parents[above])] = None
    if any(develop_eggs.glob("eggcrate-*.dist-info")):
        places[os.fspath(develop_eggs)] = None
    return list(places)


def _interpreter_lines(program: str) -> list[str]:
    """The first lines of a script that ``program`` runs without PYTHON* variables."""
    line = f"#!{program} -I"
    if len(line) <= _LONGEST_SHEBANG and not re.search(r"\s", program):
        return [line]
    # a shell runs the lines between the quotation marks, and Python takes them for a string
    run = f'exec {shlex.quote(program)} -I "$0" "$@"'
    return ["#!/bin/sh", "''':'", run, "'''"]


def _nearest(word: str, known: Sequence[str], otherwise: str) -> str:
    found = difflib.get_close_matches(word, known, 1)
    return f"did you mean {found[0]}?" if found else otherwise


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _words(option: str, text: str) -> tuple[str, ...]:
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        raise SettingsError(
            f"{option}: {str(error).lower()}", "close the quotes, as in a shell"
        ) from error


def _healthcheck(text: str) -> tuple[str, ...]:
    """The words of a command, or one URL."""
    words = _words("healthcheck", text)
    if words and "://" in words[0] and not words[0].startswith("http://"):
        raise SettingsError(
            f"healthcheck = {text}: only http:// is asked from within the container",
            "use http://127.0.0.1:PORT/PATH, or a command",
        )
    return words


def _user(text: str) -> tuple[int, int]:
    match = _USER.fullmatch(text)
    if match is None:
        raise SettingsError(
            f"user = {text}: not a number",
            "give a user ID, or USER:GROUP, as in 10001:10001: engines can tell from a number "
            "that it is not root",
        )
    uid, gid = int(match["uid"]), int(match["gid"] or match["uid"])
    if max(uid, gid) > _HIGHEST_UID:
        raise SettingsError(
            f"user = {text}: no engine knows such a user",
            f"use a number up to {_HIGHEST_UID}",
        )
    return uid, gid


def _absolute(option: str, text: str) -> str:
    """An absolute path of the image, without ``..``."""
    if not text.startswith("/") or ".." in text.split("/") or text != text.strip():
        raise SettingsError(
            f"{option}: {text!r} is not an absolute path", "begin it with /, without .."
        )
    return posixpath.normpath(text.replace("//", "/"))


def _directory(text: str) -> str:
    """Where the buildout lies in the image."""
    path = _absolute("directory", text)
    if _TAKEN.fullmatch(path) or re.search(r"\s", path):
        raise SettingsError(
            f"directory = {text}: not a place for a buildout",
            "use a directory of its own without blanks in its name, /var/application say",
        )
    return path


def _paths(option: str, text: str) -> tuple[str, ...]:
    return tuple(sorted({_absolute(option, word) for word in text.split()}))


def _hosts(options: Mapping[str, str], option: str) -> tuple[str, ...]:
    from eggcrate.image.oci import HOST

    hosts = options.get(option, "").split()
    raise_all(
        SettingsError(
            f"{option}: {host!r} is not a host",
            "use names as they stand in a reference, one a word: registry.example:5000",
        )
        for host in hosts
        if re.fullmatch(HOST, host) is None
    )
    return tuple(dict.fromkeys(hosts))


def _signal(text: str) -> str:
    import signal

    name = text if text.startswith("SIG") else f"SIG{text}"
    numbers = {str(number.value) for number in signal.Signals}
    if text not in numbers and name not in signal.Signals.__members__:
        raise SettingsError(
            f"stop-signal = {text}: there is no such signal",
            _nearest(name, list(signal.Signals.__members__), "use SIGTERM"),
        )
    return text


def _base(text: str, top: pathlib.Path) -> tuple[bool, str]:
    """Whether it is Debian, with the suite; or else the whole name of an image."""
    from eggcrate.transports.base_image import canonical

    kind, _, suite = text.partition(":")
    if kind == "debian" and re.fullmatch(r"[a-z][a-z0-9-]*|", suite):
        return True, suite
    return False, canonical(text, top)


def _not_for_docker(settings: ImageSettings) -> Iterator[EggcrateError]:
    """What is asked for that a Dockerfile can't do."""
    from eggcrate.dockerfile import first_image

    if not first_image(settings):
        yield SettingsError(
            f"base = {settings.base}: a Dockerfile can't begin with it",
            "name an image for builder = docker, python:3.13-slim-bookworm say",
        )
    if settings.auto_packages:
        yield SettingsError(
            "os-packages: builder = docker can't find out what auto is",
            "name the packages, or use builder = embedded",
        )


def _platforms(text: str) -> tuple[Platform, ...]:
    """The platforms, each once; this machine's where none is named."""
    from eggcrate.image.oci import Platform
    from eggcrate.payload.libraries import MULTIARCH
    from eggcrate.settings import this_platform

    known = [f"linux/{architecture}" for architecture in MULTIARCH]
    found = []
    errors = []
    for word in text.split():
        match = re.fullmatch(r"linux/([a-z0-9]+)(?:/(v[0-9]))?", word)
        if match is None or f"linux/{match[1]}" not in known:
            errors.append(
                SettingsError(
                    f"platform: there are no images for {word!r}",
                    _nearest(word, known, f"use some of {', '.join(known)}")
                    if "," not in word
                    else "write blanks between platforms",
                )
            )
        else:
            found.append(Platform("linux", match[1], match[2] or ""))
    raise_all(errors)
    return tuple(dict.fromkeys(found)) or (this_platform(),)


def _base_size(text: str) -> int:
    from eggcrate.image.cache import size_of

    size = size_of(text)
    if not size:
        raise SettingsError(
            f"base-size = {text}: not a size",
            "give a number with M or G, as in 500M or 40G",
        )
    return size


def _packages(text: str) -> tuple[str, ...]:
    names = [name for name in text.split() if name != "auto"]
    raise_all(
        SettingsError(
            f"os-packages: {name!r} is not a name of a Debian package",
            "use names as apt-get install takes them, one a word",
        )
        for name in names
        if _PACKAGE.fullmatch(name) is None
    )
    return tuple(dict.fromkeys(names))


def _choice(
    options: Mapping[str, str], option: str, choices: Sequence[str], default: str
) -> str:
    value = options.get(option, default)
    if value not in choices:
        raise SettingsError(
            f"{option} = {value}: not one of {', '.join(choices)}",
            _nearest(value, choices, f"use {default}"),
        )
    return value


def _ports(text: str) -> tuple[str, ...]:
    ports = []
    for word in text.split():
        match = _PORT.fullmatch(word)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise SettingsError(
                f"expose: {word!r} is not a port", "use a number from 1 to 65535, or 53/udp"
            )
        ports.append(word if "/" in word else f"{word}/tcp")
    return tuple(sorted(set(ports)))


def _pairs(option: str, text: str) -> tuple[tuple[str, str], ...]:
    pairs = {}
    for line in _lines(text):
        name, found, value = line.partition("=")
        if not found or not name.strip():
            raise SettingsError(
                f"{option}: {line!r} has no name", "write NAME = value, one a line"
            )
        pairs[name.strip()] = value.strip()
    return tuple(sorted(pairs.items()))


def _environment(text: str) -> tuple[tuple[str, str], ...]:
    pairs = _pairs("environment", text)
    raise_all(
        SettingsError(
            f"environment: {name!r} is not a name of a variable",
            "use letters, digits and underscores",
        )
        for name, _ in pairs
        if _VARIABLE.fullmatch(name) is None
    )
    return pairs


def _layers(text: str) -> tuple[int, tuple[tuple[str, ...], ...]]:
    """How many layers there may be, and which distributions share one: a line of each."""
    from eggcrate.image.plan import MOST_LAYERS

    number, *together = _lines(text) or ["12"]
    if _NUMBER.fullmatch(number) is None or not 1 <= int(number) <= MOST_LAYERS:
        raise SettingsError(
            f"layers = {number}: not a number from 1 to {MOST_LAYERS}",
            "begin with 12, the default; names of distributions that share a layer come on "
            "the lines after it",
        )
    return int(number), tuple(tuple(line.split()) for line in together)


def _without_password(url: str) -> str:
    """A URL that may be written down; pip finds the password in ~/.netrc."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)


def _epoch(text: str | None) -> int:
    """The time of all that is in the image; seconds since 1970."""
    from eggcrate.image.layers import DEFAULT_EPOCH

    if text is None:
        return DEFAULT_EPOCH
    # what a tar header can hold
    if _NUMBER.fullmatch(text) is None or int(text) >= 1 << 33:
        raise SettingsError(
            f"SOURCE_DATE_EPOCH is {text!r}, not a number of seconds since 1970",
            "unset it, or use the output of: git log -1 --format=%ct",
        )
    return int(text)
