"""What Circus itself says about a configuration, with the places of its template."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

from eggcrate.config import circus_process
from eggcrate.config.circus_file import (
    REFERENCE,
    Configuration,
    Entry,
    Place,
    is_symbolic,
    load,
    where_of,
)
from eggcrate.config.circus_options import CIRCUS, SOCKET, WATCHER
from eggcrate.config.references import Rendered
from eggcrate.errors import TemplateError

_SECONDS = 60  # it takes a third of one, but hooks may import much

_IMPORTING = (
    "AttributeError",
    "ImportError",
    "ImportStringError",
    "ModuleNotFoundError",
    "SyntaxError",
    "TypeError",
)
_SYMBOL = re.compile(r"@\{[^}\n]*\}")


def load_complaints(
    rendered: Rendered,
    python: str,
    path: Sequence[str],
    *,
    output: pathlib.Path,
    directory: pathlib.Path,
    environment: Mapping[str, str] | None = None,
    told: Iterable[TemplateError] = (),
    shown: Callable[[pathlib.Path], str] = str,
) -> Iterator[TemplateError]:
    """All that the Circus which ``python`` finds on ``path`` can't load.

    It runs in a process of its own, in a temporary directory: it binds nothing, looks no name
    up, opens no file of the configuration and writes none, not even byte-code.  It imports
    hooks, plugins and the classes of streams.

    ``output``, ``directory`` and ``shown`` are as for ``circus.complaints``.
    ``environment`` has variables that the container's environment will have; any other that
    the configuration refers to gets a value that fits, and what it stands in is not judged.
    ``told`` are complaints already made: what Circus says of the same lines is left out.
    """
    configuration = load(rendered, output=output, shown=shown)
    places = {where_of(error.what) for error in told}
    known = {name.lower() for name in environment or ()}
    variables = {
        name: "1"
        for document in configuration.documents
        for match in REFERENCE.finditer(document.source.text)
        for kind, _, name in [(match[1] or match[2]).partition(".")]
        if kind.lower() == "env" and name.lower() not in known and name.isidentifier()
    }
    with tempfile.TemporaryDirectory(prefix="eggcrate-") as scratch:
        texts = [_SYMBOL.sub("1", document.source.text) for document in configuration.documents]
        question = {"path": list(path), "texts": texts}
        pathlib.Path(scratch, "question.json").write_text(json.dumps(question), "utf-8")
        try:
            result = subprocess.run(
                [python, "-I", "-B", circus_process.__file__, scratch],
                cwd=scratch,
                env={
                    "PATH": "/usr/bin:/bin",
                    "LANG": "C.UTF-8",
                    "HOME": scratch,
                    "TMPDIR": scratch,
                    "PWD": str(directory),
                    **variables,
                    **(environment or {}),
                },
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            yield TemplateError(
                f"{rendered.name}: Circus has not read it within {_SECONDS} seconds",
                "look at what its hooks and plugins import, or set check to false",
            )
            return
        except OSError as error:
            yield TemplateError(
                f"{rendered.name}: {python} can't be started: {error.strerror}",
                "correct the Python of this part",
            )
            return
        answer = pathlib.Path(scratch, "answer.json")
        if not answer.exists():
            said = result.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
            yield TemplateError(
                f"{rendered.name}: reading it ended Circus' process with status "
                f"{result.returncode}: {said}",
                "look at what its hooks and plugins import, or set check to false",
            )
            return
        found = json.loads(answer.read_bytes())
    for section, option, kind, message in found:
        complaint = _translated(
            configuration, rendered, known, section, option, kind, " ".join(message.split())
        )
        if complaint and where_of(complaint.what) not in places:
            yield complaint


def _translated(
    configuration: Configuration,
    rendered: Rendered,
    known: Collection[str],
    section: str,
    option: str,
    kind: str,
    message: str,
) -> TemplateError | None:
    """A sentence for an exception of Circus, or nothing if only the container can tell."""
    if option == "import" and not section:
        return TemplateError(
            f"{rendered.name}: Circus can't be imported with the eggs of this part: {message}",
            "add circus to eggs",
        )
    if not section:
        broken = [place for document in configuration.documents for place, _ in document.broken]
        return TemplateError(
            f"{broken[0].where if broken else rendered.name}: Circus can't read it and says "
            f"{kind}: {message}",
            "correct it, or set check to false if the Circus that will read it knows better",
        )
    names = {name.lower(): name for name in configuration.sections}
    section = (
        section if section in configuration.sections else names.get(section.lower(), section)
    )
    entry = configuration.entry(section, option)
    place: Place | None = entry or configuration.headers.get(section)
    value = entry.value if entry else ""
    if place is None:
        place = Place(rendered, section, 1)
    combined = not option.startswith("hooks.") and option != "use" and "." not in option
    judged = configuration.sections.get(section, {}).values() if combined else [entry]
    if any(_unknown(configuration, known, other) for other in judged if other):
        return None
    name = option if entry else "it"
    without = f"circusd would start without [{section}]"
    if section.startswith("plugin:"):
        without = "circusd would end at once"
    if option == "httpd":
        return TemplateError(
            f"{place} httpd needs circus-web, which the eggs don't have, and circusd would end "
            f"at once",
            "remove it, or add circus-web to eggs",
        )
    if kind == "Torn":
        return TemplateError(
            f"{place} {option or 'the name'} has a space or a quote, which tears the plugin's "
            f"command line apart, and the plugin would never start",
            f'write "{value}" in quotes, or without the space'
            if " " in value and '"' not in value
            else "leave it out",
        )
    if option == "use" and entry is None:
        return TemplateError(
            f"{place} has no option use, and {without}",
            "set use to the plugin's class, such as circus.plugins.flapping.Flapping",
        )
    if option.endswith("_stream.class") and kind == "KeyError":
        return TemplateError(
            f"{place} {name} is {value!r}, which is no stream of Circus, and {without}",
            "write FileStream or StdoutStream, or a class's name with its module's",
        )
    if kind in _IMPORTING and (
        option.startswith("hooks.")
        or option == "use"
        or (option.endswith("_stream.class") and "." in value)
    ):
        imported = value.partition(",")[0].strip()
        return TemplateError(
            f"{place} {name} is {imported!r}, which can't be imported, and {without}: "
            f"{message}",
            "correct the name, or add the egg that has it to eggs",
        )
    if kind == "AttributeError" and option == "stop_signal":
        return TemplateError(
            f"{place} stop_signal is {value!r}, which is no signal, and circusd would end at "
            f"once",
            "write a signal, such as TERM or QUIT",
        )
    if re.match(r"std(?:out|err)_stream", option) and "unpack" in message:
        return TemplateError(
            f"{place} {option} is no option of Circus, and circusd would end at once",
            f"write {option}.class = {value}",
        )
    return TemplateError(
        f"{place} {name} is nothing that Circus can load: {kind}: {message}"
        if not value
        else f"{place} {name} is {value!r}, and Circus says {kind}: {message}",
        "correct it, or set check to false if the Circus that will read it knows better",
    )


def _unknown(configuration: Configuration, known: Collection[str], entry: Entry) -> bool:
    """Whether only the container knows the value of an option that Circus looks into."""
    options = {**CIRCUS, **SOCKET, **WATCHER}
    kind = options[entry.name].kind if entry.name in options else ""
    if not is_symbolic(entry.value) or kind in ("command", "path"):
        return False
    names = {name.lower() for name in configuration.sections.get("env", {})} | set(known)
    for own in configuration.environments(entry.section.partition(":")[2]):
        names.update(name.lower() for name in own)
    found = [(match[1] or match[2]).lower() for match in REFERENCE.finditer(entry.value)]
    return "@{" in entry.value or any(
        name.startswith("env.") and name[4:] not in names for name in found
    )
