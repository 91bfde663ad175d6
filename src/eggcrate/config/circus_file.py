"""A configuration of Circus as Circus itself reads it, with the place of every line."""

from __future__ import annotations

import dataclasses
import fnmatch
import glob
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator

from eggcrate.config.references import Rendered

DEFAULT = "DEFAULT"  # its options are options of all sections
TRUE = ("yes", "true", "on", "1")
REFERENCE = re.compile(r"\$\(circus\.([\w.-]+)\)|\(\(circus\.([\w.-]+)\)\)", re.IGNORECASE)


def is_symbolic(value: str) -> bool:
    """Whether only the container knows the value."""
    return bool(REFERENCE.search(value)) or "@{" in value


@dataclasses.dataclass
class Place:
    """A line of a file, in a section; as text it is what a message about it begins with."""

    source: Rendered
    section: str
    line: int

    @property
    def where(self) -> str:
        """The place in the file, or in the template that the file was made of."""
        return self.source.where(self.line)

    def __str__(self) -> str:
        return f"{self.where}: [{self.section}]"


def where_of(complaint: str) -> str:
    """The place with which a complaint begins, as :attr:`Place.where` has it, or nothing."""
    found = re.match(r".*?, line \d+(?=: )", complaint)
    return found[0] if found else ""


@dataclasses.dataclass
class Entry(Place):
    """An option as it stands in a file: its value, and the line of each part of the value.

    ``cut`` is what Circus has left out, from a semicolon after white space on.  An entry that
    is not ``first`` is one that Circus ignores, as its section has the option already.
    """

    name: str
    parts: list[tuple[int, str]]
    cut: str = ""
    first: bool = True

    @property
    def value(self) -> str:
        """The value as Circus has it, before anything is replaced in it."""
        return "\n".join(text for _, text in self.parts)


@dataclasses.dataclass
class Header(Place):
    """A line that begins a section."""


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """A file as Circus reads it.

    ``broken`` has the lines for which Circus refuses the whole file.
    """

    source: Rendered
    headers: tuple[Header, ...]
    entries: tuple[Entry, ...]
    broken: tuple[tuple[Place, str], ...]

    def values(self) -> dict[str, dict[str, str]]:
        """Each section's options and values, as ``RawConfigParser.items`` would give them."""
        found: dict[str, dict[str, str]] = {header.section: {} for header in self.headers}
        for entry in self.entries:
            if entry.first:
                found[entry.section][entry.name] = entry.value
        return found


_HEADER = re.compile(r"\[(?P<header>.+)\]")
_OPTION = re.compile(r"(?P<option>.*?)\s*(?P<vi>=|:)\s*(?P<value>.*)$")


def read(rendered: Rendered) -> Document:
    """The file as ``circus.util.StrictConfigParser`` reads it, with the places of its lines."""
    headers: list[Header] = []
    entries: list[Entry] = []
    broken: list[tuple[Place, str]] = []
    known: dict[str, dict[str, Entry | None]] = {}
    section = ""
    current: dict[str, Entry | None] | None = None
    name = ""
    for number, text in enumerate(rendered.text.split("\n"), 1):
        # Python ends a line at a lone carriage return too.
        for line in text.split("\r"):
            if not line.strip() or line[0] in "#;":
                continue
            if line[0] in "rR" and line.split(None, 1)[0].lower() == "rem":
                continue
            if line[0].isspace() and current is not None and name:
                if (continued := current[name]) is not None:
                    continued.parts.append((number, line.strip()))
                continue
            if header := _HEADER.match(line):
                section = header["header"]
                # Circus keeps the section's name among its options.
                empty: dict[str, Entry | None] = {}
                if section != DEFAULT:
                    empty["__name__"] = None
                headers.append(Header(rendered, section, number))
                current = known.setdefault(section, empty)
                name = ""
                continue
            if current is None:
                broken.append((Place(rendered, section, number), line.strip()))
                break
            option = _OPTION.match(line)
            if option is None:
                broken.append((Place(rendered, section, number), line.strip()))
                continue
            name = option["option"].rstrip()
            value, cut = _cut(option["value"])
            entry = Entry(rendered, section, number, name, [(number, value)], cut)
            entry.first = name not in current
            if entry.first:
                current[name] = entry
            entries.append(entry)
        if broken and current is None:
            break  # Circus reads no further
    return Document(rendered, tuple(headers), tuple(entries), tuple(broken))


def _cut(value: str) -> tuple[str, str]:
    """A value's first line as Circus keeps it, and what it takes for a comment.

    Only the first semicolon counts.  Where the value begins with one, the character "before"
    it is the last of the line.
    """
    position = value.find(";")
    cut = ""
    if position != -1 and value[position - 1].isspace():
        value, cut = value[:position], value[position:]
    value = value.strip()
    return ("" if value == '""' else value), cut


class Configuration:
    """A configuration with all that it includes, as Circus puts it together.

    ``sections`` has for each section its options; the first file that has one wins.
    """

    def __init__(self, documents: Iterable[Document]) -> None:
        self.documents = tuple(documents)
        self.headers: dict[str, Header] = {}
        self.sections: dict[str, dict[str, Entry]] = {}
        for document in self.documents:
            for header in document.headers:
                self.headers.setdefault(header.section, header)
                self.sections.setdefault(header.section, {})
            for entry in document.entries:
                if entry.first:
                    self.sections[entry.section].setdefault(entry.name, entry)
        self.defaults = self.sections.pop(DEFAULT, {})
        for options in self.sections.values():
            for name, entry in self.defaults.items():
                options.setdefault(name, entry)

    @property
    def main(self) -> Document:
        """The file that includes the others."""
        return self.documents[0]

    def named(self, kind: str) -> dict[str, str]:
        """The sections of a kind, such as ``watcher``: their names and their headers."""
        return {
            section.split(f"{kind}:", 1)[1]: section
            for section in self.sections
            if section.startswith(f"{kind}:")
        }

    def entry(self, section: str, name: str) -> Entry | None:
        """An option of a section, if it has it."""
        return self.sections.get(section, {}).get(name)

    def value(self, section: str, name: str) -> str:
        """An option's value, or nothing."""
        entry = self.entry(section, name)
        return entry.value if entry else ""

    def is_true(self, section: str, name: str) -> bool:
        """Whether an option is surely true."""
        return self.value(section, name).strip().lower() in TRUE

    def may_be_true(self, section: str, name: str) -> bool:
        """Whether an option is true, or has a value that only the container knows."""
        return self.is_true(section, name) or is_symbolic(self.value(section, name))

    def environments(self, watcher: str) -> Iterator[dict[str, Entry]]:
        """The options of each ``[env:...]`` that is for a watcher."""
        for names, section in self.named("env").items():
            if any(fnmatch.fnmatchcase(watcher, name.strip()) for name in names.split(",")):
                yield self.sections[section]


def load(
    rendered: Rendered,
    *,
    output: pathlib.Path,
    shown: Callable[[pathlib.Path], str] = str,
) -> Configuration:
    """The configuration that would stand in ``output``, with the files that it includes.

    Included files that can't be read are left out, as Circus leaves them out.
    """
    main = read(rendered)
    documents = [main]
    for _, _, _, paths in includes(main, output.parent):
        for path in paths:
            try:
                text = path.read_bytes().decode("utf-8")
            except (OSError, UnicodeDecodeError):
                continue
            lines = tuple(range(1, text.count("\n") + 2))
            documents.append(read(Rendered(shown(path), text, lines)))
    return Configuration(documents)


def includes(
    main: Document, directory: pathlib.Path
) -> Iterator[tuple[Place, str, str, list[pathlib.Path]]]:
    """What the file includes: the place, the option, a pattern, and the files that match it."""
    for option, pattern in (("include", "{}"), ("include_dir", "{}/*.ini")):
        for entry in main.entries:
            if (entry.section, entry.name, entry.first) != ("circus", option, True):
                continue
            for line, text in entry.parts:
                for word in text.split():
                    found = glob.glob(str(directory / pattern.format(word)))
                    place = Place(entry.source, entry.section, line)
                    yield place, option, word, [pathlib.Path(name) for name in sorted(found)]
