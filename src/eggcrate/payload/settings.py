"""Runtime settings in an image: what PID 1 has to know, and links to what it will write."""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from collections.abc import Iterable, Iterator, Mapping

from eggcrate.errors import PlanError
from eggcrate.image.plan import FileEntry, bytes_file, symlink
from eggcrate.payload.relocation import Relocation
from eggcrate.runtime import variables
from eggcrate.runtime.variables import Document, Piece, Settings

#: the image's label that says what can be set, as JSON
LABEL = "eggcrate.settings"
#: where an image has what eggcrate adds
RUNTIME = "usr/lib/eggcrate"
#: where the address that is asked for health would be; the image's own settings have it
HEALTHCHECK = f"/{RUNTIME}/healthcheck"
#: the file for PID 1, in its directory
FILE = "settings.json"
_REASON = "what an environment variable may change"


def read(paths: Iterable[pathlib.Path]) -> Settings | None:
    """What the parts have left in these files; None where none of them is there."""
    found = [path for path in paths if path.exists()]
    if not found:
        return None
    try:
        return variables.load_files([os.fspath(path) for path in found])
    except variables.SettingsProblem as error:
        raise PlanError(
            "; ".join(error.problems), "run bin/buildout, which writes these files"
        ) from error


def loaded(data: bytes) -> Settings:
    """The settings that an image has, from the bytes of its file."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        file.write(data)
        file.flush()
        found = read([pathlib.Path(file.name)])
    assert found is not None
    return found


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
    yield bytes_file(f"{place}/{FILE}", data, group="configuration", reason=_REASON)
    for document in settings.documents:
        if document.path.strip("/") in known:
            yield symlink(
                document.path.strip("/"),
                f"{run_directory}/settings{document.path}",
                group="configuration",
                reason=_REASON,
            )


def label(settings: Settings) -> str:
    """What can be set, for who reads the image's labels: no secret has a value."""
    found: dict[str, dict[str, object]] = {}
    for setting in settings.settings:
        found[setting.env] = {"type": setting.type, "default": setting.default}
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
