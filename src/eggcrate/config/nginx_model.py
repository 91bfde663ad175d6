"""What declared options of nginx-config become: levels of options, sites, locations, lines."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from eggcrate.config.nginx_options import Option

#: what a configuration is made for when nobody says it: Debian 12's
NGINX = (1, 22, 1)
OPENSSL = (3, 0)

# the place of a line that no option alone has made
OWN = "the text that the options make"

#: what is in the location that says whether nginx runs
HEALTH = ("access_log off;", "default_type text/plain;", 'return 200 "ok\\n";')
ACME = "/.well-known/acme-challenge/"
_PLAIN = re.compile(r"[\w./:@%+,=~*-]+", re.ASCII)


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What the options may refer to.

    ``socket`` gives the address of a socket of a circus-config part, as nginx writes it; it
    raises a :class:`SettingsError` that goes on after the option's place.  ``nginx`` and
    ``openssl`` are the versions that will run it, as far as they are known.
    """

    part: str
    directory: str
    run_directory: str
    socket: Callable[[str], str]
    nginx: tuple[int, ...] = NGINX
    openssl: tuple[int, ...] = OPENSSL


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A certificate and its key, the names that it is for, and the options that name them."""

    certificate: str
    key: str
    names: tuple[str, ...]
    certificate_place: str
    key_place: str


@dataclasses.dataclass(frozen=True)
class Value:
    """What an option says: checked and in one line, and line by line with their places."""

    text: str
    place: str
    lines: tuple[tuple[str, str], ...]


class Level:
    """The options of one level, with those of the level above as their defaults."""

    def __init__(
        self, name: str, table: Mapping[str, Option], parent: Level | None = None
    ) -> None:
        self.name = name
        self._table = table
        self._parent = parent
        self.given: dict[str, Value] = {}

    def _find(self, option: str) -> Value | None:
        found = self.given.get(option)
        if found is None and self._parent is not None:
            return self._parent._find(option)
        return found

    def has(self, option: str) -> bool:
        """Whether somebody has given the option a value that is not empty."""
        found = self._find(option)
        return bool(found and found.text)

    def text(self, option: str) -> str:
        """The option's value, or its default."""
        found = self._find(option)
        return self._table[option].default if found is None else found.text

    def lines(self, option: str) -> tuple[tuple[str, str], ...]:
        """The lines of the option, each with its place."""
        found = self._find(option)
        return found.lines if found else ()

    def on(self, option: str) -> bool:
        """Whether a flag is set."""
        return self.text(option) == "true"

    def place(self, option: str) -> str:
        """Where the option was written; its name if it wasn't."""
        found = self._find(option)
        return found.place if found else option


@dataclasses.dataclass
class Location:
    """A location of a site, on its way to a text."""

    title: str
    place: str
    body: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def add(self, text: str, place: str = "") -> None:
        """One more line of its body."""
        self.body.append((text, place or self.place))


@dataclasses.dataclass
class Site:
    """One site, and what is worked out of its options."""

    name: str
    options: Level
    suffix: str
    names: list[str]
    plain: list[str]
    secure: list[str]
    upstream: str = ""
    locations: dict[str, Location] = dataclasses.field(default_factory=dict)
    headers: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)

    @property
    def passes(self) -> bool:
        """Whether requests are passed on."""
        return any(
            "proxy_pass" in line for one in self.locations.values() for line, _ in one.body
        )

    @property
    def any_host(self) -> bool:
        """Whether the site answers for every name."""
        return not self.names or "_" in self.names


class Text:
    """Lines, each with the place that it comes from, and the depth of the next one."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self._depth = 0

    def add(self, text: str, place: str) -> None:
        """One line, at the present depth; an empty one never follows another."""
        if text or (self.lines and self.lines[-1][0] and self.lines[-1][0][-1] != "{"):
            self.lines.append(("    " * self._depth + text if text else "", place))

    @contextlib.contextmanager
    def block(self, title: str, place: str) -> Iterator[None]:
        """A block; what is added meanwhile is in it."""
        self.add(f"{title} {{", place)
        self._depth += 1
        yield
        self._depth -= 1
        while self.lines and not self.lines[-1][0]:
            self.lines.pop()
        self.add("}", place)

    def comment(self, text: str, place: str) -> None:
        """A comment, on as many lines as it needs."""
        line = "#"
        for word in text.split():
            if len(line) + len(word) > 76:
                self.add(line, place)
                line = "#"
            line += f" {word}"
        self.add(line, place)

    def raw(self, lines: Iterable[tuple[str, str]]) -> None:
        """Lines of the user's, with their own indentation below ours."""
        for text, place in lines:
            self.add(text.rstrip(), place)


def as_directive(option: str, level: Level) -> str:
    """An option that is a directive of nginx."""
    value = level.text(option)
    value = {"true": "on", "false": "off"}.get(value, value)
    return f"{option.replace('-', '_')} {value};"


def at(place: str, option: str) -> str:
    """A place and an option, without saying the option twice."""
    return place if place.split(",")[0] == option else f"{place}: {option}"


def lines_of(text: str, option: str) -> list[tuple[str, str]]:
    """The lines of an option, each with its place."""
    lines = text.split("\n")
    if len(lines) == 1:
        return [(text, option)]
    return [(line, f"{option}, line {number}") for number, line in enumerate(lines, 1)]


def dedented(lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Lines without what they are all indented by."""
    depth = min(
        (len(line) - len(line.lstrip()) for line, _ in lines if line.strip()), default=0
    )
    return [(line[depth:] if line.strip() else "", place) for line, place in lines]


def location_order(title: str) -> tuple[int, str]:
    """Exact ones first, then prefixes by their paths; regular expressions as they are tried."""
    if title.startswith("="):
        return 0, title
    return (2, "") if title.startswith("~") else (1, title.removeprefix("^~").strip())


def as_word(text: str) -> str:
    """A word that nginx reads as it is."""
    return text if text and _PLAIN.fullmatch(text) else as_quoted(text)


def as_quoted(text: str) -> str:
    """A word in quotes, of which nginx reads nothing but what is meant."""
    escaped = re.sub(r"""\\(?=[\\"'trn]|$)""", r"\\\\", text)
    return '"' + escaped.replace('"', '\\"') + '"'


def as_version(version: tuple[int, ...]) -> str:
    """A version as people write it."""
    return ".".join(map(str, version))


def shortened(text: str) -> str:
    """A value in a message, in quotes."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
