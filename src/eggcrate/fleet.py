"""The runtime settings of many customers of one image, checked before anything is started."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from eggcrate.errors import SettingsError
from eggcrate.runtime import variables
from eggcrate.runtime.variables import Document, Settings, SettingsProblem

# what a customer may be called, as a directory is
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}"


@dataclasses.dataclass(frozen=True, slots=True)
class Checked:
    """What the customers' variables say.

    ``values`` has each customer's settings; a sentence begins with the customer's name.
    """

    values: Mapping[str, Mapping[str, str]]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


def read(path: pathlib.Path) -> dict[str, Any]:
    """The tables of a file in TOML, by the names of the customers, as they are."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        found: dict[str, Any] = tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise SettingsError(
            f"{path} can't be read: {error.strerror}", "name a file with a table a customer"
        ) from error
    except ValueError as error:
        raise SettingsError(f"{path} is no TOML: {error}", "mend that line") from error
    return found


def check(settings: Settings, customers: Mapping[str, Any]) -> Checked:
    """What is wrong with the variables of any customer: all of it, and no value is repeated."""
    values: dict[str, Mapping[str, str]] = {}
    problems: list[str] = []
    warnings: list[str] = []
    unknown: dict[str, list[str]] = {}
    for name, table in customers.items():
        if not re.fullmatch(_NAME, name):
            problems.append(
                f"[{_shown(name)}] is no name for a customer's directory; write letters, "
                "digits, _ - and ."
            )
        elif not isinstance(table, dict):
            problems.append(f"{name} stands outside of the customers' tables; move it into one")
        else:
            environ, found = _environment(table)
            try:
                known = variables.read(settings, _checkable(settings, environ))
            except SettingsProblem as error:
                found += error.problems
            else:
                values[name] = known.values
                warnings += (f"[{name}] {sentence}" for sentence in known.warnings)
                slips = {sentence.split(" ", 1)[0] for sentence in known.warnings}
                for variable in variables.unknown(settings, environ):
                    if variable not in slips and environ[variable]:
                        unknown.setdefault(variable, []).append(name)
            problems += (f"[{name}] {sentence}" for sentence in found)
    # the application may have variables of its own, and many customers the same
    for variable, names in unknown.items():
        others = f" and {len(names) - 1} more" if len(names) > 1 else ""
        warnings.append(
            f"[{names[0]}]{others}: {variable} is no setting; the application alone gets it"
        )
    return Checked(values, tuple(problems), tuple(warnings))


def _environment(table: Mapping[str, object]) -> tuple[dict[str, str], list[str]]:
    """The variables as a process has them, and what no process can have."""
    environ: dict[str, str] = {}
    problems: list[str] = []
    for name, value in table.items():
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            problems.append(f"{_shown(name)} is no name of a variable")
        elif isinstance(value, bool):
            environ[name] = "true" if value else "false"
        elif not isinstance(value, (str, int)):
            problems.append(f"{name} must be a string, a whole number, true or false")
        elif "\0" in (text := str(value)):
            problems.append(f"{name} has a NUL in it")
        elif len(name) + 1 + len(text.encode()) > variables.STRING_LONGEST:
            problems.append(
                f"{name} is longer than the {variables.STRING_LONGEST:,} bytes that a variable "
                "of the environment can have"
            )
        else:
            environ[name] = text
    return environ, problems


def _checkable(settings: Settings, environ: Mapping[str, str]) -> Mapping[str, str]:
    """The variables without files of secrets that only the containers have."""
    elsewhere = {
        f"{secret}_FILE"
        for secret in settings.secrets
        if environ.get(f"{secret}_FILE", "").startswith("/")
        and not environ.get(secret)
        and not os.path.lexists(environ[f"{secret}_FILE"])
    }
    return {name: value for name, value in environ.items() if name not in elsewhere}


def _shown(name: str) -> str:
    return name if name.isprintable() else ascii(name)[1:-1]


def write(
    settings: Settings, customers: Mapping[str, Mapping[str, str]], directory: pathlib.Path
) -> None:
    """Write each customer's files below ``directory``, by their paths in the image.

    Each is private and is in its place at once; one that is right already is not touched.  What
    else is there stays.
    """
    made: set[str] = set()
    for name, values in customers.items():
        for path, mode, data in _rendered(settings.documents, values):
            target = os.path.join(directory, name) + path
            try:
                if (parent := os.path.dirname(target)) not in made:
                    os.makedirs(parent, 0o700, exist_ok=True)
                    made.add(parent)
                _put(target, mode, data)
            except OSError as error:
                raise SettingsError(
                    f"{target} can't be written: {error.strerror}",
                    "make room for it, or name another directory",
                ) from error


def _rendered(
    documents: Iterable[Document], values: Mapping[str, str]
) -> Iterator[tuple[str, int, bytes]]:
    for document in documents:
        text = variables.render(document, values)
        # a script stays one
        yield document.path, 0o600 | document.mode & 0o100, text.encode()


def _put(path: str, mode: int, data: bytes) -> None:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_mode & 0o777 == mode and file.read() == data:
                return
    except FileNotFoundError:
        pass
    temporary = f"{path}.eggcrate-{secrets.token_hex(6)}"
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
        os.rename(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            os.unlink(temporary)
        raise
