"""Runtime settings in an image: what PID 1 has to know, and links to what it will write."""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping

from eggcrate.errors import PlanError, SettingsError, raise_all
from eggcrate.image.plan import FileEntry, bytes_file, symlink
from eggcrate.payload.relocation import Relocation
from eggcrate.payload.site import Part, Site
from eggcrate.runtime import variables
from eggcrate.runtime.variables import Document, Piece, Settings

#: the image's label that says what can be set, as JSON
LABEL = "eggcrate.settings"
#: where an image has what eggcrate adds
RUNTIME = "usr/lib/eggcrate"
#: where the address that is asked for health would be; the image's own settings have it
HEALTHCHECK = f"/{RUNTIME}/healthcheck"
_REASON = "what an environment variable may change"


def places(site: Site, parts: Iterable[Part], image: str) -> list[pathlib.Path]:
    """Where the parts of an image, and the part that makes it, leave what PID 1 has to know."""
    names = (*(part.name for part in parts), image)
    return [site.parts / variables.DIRECTORY / f"{name}.json" for name in names]


def read(paths: Iterable[pathlib.Path]) -> Settings | None:
    """What the parts have left in these files; None where none of them is there."""
    found = [path for path in paths if path.exists()]
    if not found:
        return None
    return _read(lambda: variables.load_files([os.fspath(path) for path in found]))


def _read(load: Callable[[], Settings]) -> Settings:
    try:
        return load()
    except variables.SettingsProblem as error:
        raise PlanError(
            "; ".join(error.problems), "run bin/buildout, which writes these files"
        ) from error


def loaded(data: bytes) -> Settings:
    """The settings that an image has, from the bytes of its file."""
    return _read(lambda: variables.loaded([(f"/{RUNTIME}/settings/{variables.FILE}", data)]))


def relocated(
    settings: Settings, relocation: Relocation, known: Mapping[str, FileEntry]
) -> Settings:
    """The settings as they are in the image, with the documents that have a place there.

    A document without a place for a setting is the file that the image has anyway.
    """

    def text(value: str) -> str:
        data = relocation.text(os.fsencode(value))
        if residue := relocation.residue(data):
            raise PlanError(
                f"the path {residue} of this machine is left in a file with settings",
                "let the file name a path of the buildout, or leave the setting out",
            )
        return os.fsdecode(data)

    def piece(one: str | Piece) -> str | Piece:
        if isinstance(one, str):
            return text(one)
        default = None if one.default is None else text(one.default)
        return Piece(one.setting, one.form, default, one.first)

    documents = []
    for document in settings.documents:
        if all(isinstance(one, str) for one in document.pieces):
            continue
        path = relocation.path(document.path)
        if path is None:
            path = document.path  # it is a path of the image already
        elif path.strip("/") not in known:
            continue
        pieces = [piece(one) for one in document.pieces]
        documents.append(Document(path, document.mode, document.format, pieces))
    return Settings(settings.settings, settings.secrets, documents)


def entries(
    settings: Settings, known: Mapping[str, FileEntry], *, place: str, run_directory: str
) -> Iterator[FileEntry]:
    """The file for PID 1 below ``place``, and links where the documents would be."""
    data = variables.dumped(settings).encode("utf-8", "surrogateescape")
    yield bytes_file(f"{place}/{variables.FILE}", data, group="configuration", reason=_REASON)
    for document in settings.documents:
        if document.path.strip("/") in known:
            yield symlink(
                document.path.strip("/"),
                f"{run_directory}/settings{document.path}",
                group="configuration",
                reason=_REASON,
            )


def label(settings: Settings) -> str:
    """What can be set, for who reads the image's labels: nothing secret has a value."""
    found: dict[str, dict[str, object]] = {}
    for setting in settings.settings:
        found[setting.env] = {"type": setting.type}
        if setting.cpus:  # they take the default's place
            found[setting.env]["cpus"] = True
        elif not (setting.default and setting.looks_secret):
            found[setting.env]["default"] = setting.default
        for name, value in (("min", setting.minimum), ("max", setting.maximum)):
            if value:
                found[setting.env][name] = value
        if setting.choices:
            found[setting.env]["choices"] = list(setting.choices)
    for secret in settings.secrets:
        found[secret] = {"type": "secret"}
    return json.dumps(found, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def listed(settings: Settings | None) -> str:
    """The same for ``plan.txt``, each line a comment."""
    if settings is None:
        return ""
    table = variables.table(settings)
    return "# set by environment variables:\n" + "".join(
        f"#   {line}\n" for line in table.splitlines()
    )


def given(
    path: pathlib.Path, settings: Settings | None, customer: str | None = None
) -> dict[str, str]:
    """The environment that a file gives a container: NAME=value lines, or TOML.

    In TOML (``.toml``) a key is a setting's or a variable's name, and a table holds what one
    customer has beside, or instead of, what all have.
    """
    try:
        text = path.read_bytes().decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(
            f"{path} can't be read: {reason}", "name a file with --settings"
        ) from error
    if path.suffix == ".toml":
        return _toml(path, text, settings, customer)
    if customer is not None:
        raise SettingsError(
            f"{path} has no tables, and --customer {customer} names one",
            "use TOML, in a file whose name ends in .toml",
        )
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        name, equals, value = line.strip().partition("=")
        if not name or name.startswith("#"):
            continue
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            raise SettingsError(
                f"{path}, line {number}: {name!r} is no name of a variable",
                "write NAME=value, or NAME alone for what this environment has",
            )
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def _toml(
    path: pathlib.Path, text: str, settings: Settings | None, customer: str | None
) -> dict[str, str]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{path} is no TOML: {error}", "mend it") from error
    own = table.get(customer) if customer is not None else {}
    if not isinstance(own, dict):
        names = ", ".join(key for key, value in table.items() if isinstance(value, dict))
        raise SettingsError(
            f"{path} has no table [{customer}]", f"name one of {names or 'its tables'}"
        )
    common = {key: value for key, value in table.items() if not isinstance(value, dict)}
    if table and not common and customer is None:
        raise SettingsError(
            f"{path} has nothing but tables, and none is named",
            f"add --customer, one of {', '.join(table)}",
        )
    variable = {setting.name: setting.env for setting in settings.settings} if settings else {}
    found: dict[str, str] = {}
    for key, value in {**common, **own}.items():
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, list):
            value = " ".join(map(str, value))
        elif isinstance(value, dict):
            raise SettingsError(
                f"{path}: {key} is a table in a table", "write values, one a line"
            )
        found[variable.get(key, key)] = str(value)
    return found


def check(
    settings: Settings | None, environment: Mapping[str, str], source: str = ""
) -> variables.Values | None:
    """What the first process will make of these variables; what it won't take is an error.

    ``source`` is the file that says most of them.

    A file that ``NAME_FILE`` names is one of the container's, and not looked at.
    """
    where = source or "the container"
    raise_all(
        SettingsError(
            f"{name} is longer than the {variables.STRING_LONGEST:,} bytes that a variable can "
            "have",
            "let the application read it from a file that is mounted",
        )
        for name, value in environment.items()
        if len(os.fsencode(f"{name}={value}")) > variables.STRING_LONGEST
    )
    if settings is None:
        return None
    elsewhere = {
        name.removesuffix("_FILE")
        for name in environment
        if name.endswith("_FILE") and environment[name]
    }
    here = Settings(
        [setting for setting in settings.settings if setting.env not in elsewhere],
        [secret for secret in settings.secrets if secret not in elsewhere],
        [] if elsewhere else settings.documents,
    )
    own = {
        name: value
        for name, value in environment.items()
        if not (name.endswith("_FILE") and name.removesuffix("_FILE") in elsewhere)
    }
    try:
        return variables.read(here, own)
    except variables.SettingsProblem as error:
        raise_all(
            SettingsError(problem, f"mend the settings of {where}")
            for problem in error.problems
        )
        raise
