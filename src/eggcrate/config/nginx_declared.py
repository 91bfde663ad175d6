"""Declared options of nginx-config: options in, a configuration for people out.

The text is that of an expert for an application server behind nginx in a container: it runs as
any user on a read-only root, sends every header once, believes only the proxies that are named,
and answers unknown hosts in one place.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from eggcrate.config.nginx_options import (
    LOCATION,
    MAIN,
    NAMED,
    SITE,
    UPSTREAM,
    Option,
    raw,
)
from eggcrate.config.references import Rendered
from eggcrate.errors import EggcrateError, SettingsError, raise_all
from eggcrate.runtime import values

#: what a configuration is made for when nobody says it: Debian 12's
NGINX = (1, 22, 1)
OPENSSL = (3, 0)

# Mozilla's guidelines, version 6: what nearly every client since 2014 can do
_CIPHERS = ":".join(
    (
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-RSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-RSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "ECDHE-RSA-CHACHA20-POLY1305",
    )
)
_CURVES = "X25519:prime256v1:secp384r1"
_POST_QUANTUM = "X25519MLKEM768"  # of OpenSSL 3.5
_YEARS = "63072000"  # two of them, in seconds

_PLAIN = re.compile(r"[\w./:@%+,=~*-]+", re.ASCII)
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s\[\]:]+):)?(?P<port>[0-9]+)")
_UPSTREAM_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_LONGEST_SOCKET = 107  # bytes of a path (unix(7))
_MODIFIED = re.compile(r"(?:(=|\^~|~\*|~)\s*)?(.+)", re.DOTALL)

_UNAVAILABLE = "/.eggcrate/unavailable.html"
_MAINTENANCE = "/.eggcrate/maintenance.html"
_SORRY = "<!doctype html><title>Unavailable</title><h1>Back in a moment</h1>"
_CLOSED = "<!doctype html><title>Maintenance</title><h1>Down for maintenance</h1>"
# the place of a line that no option alone has made
_OWN = "the text that the options make"

_ACME = "/.well-known/acme-challenge/"
_NO_SITE = "There is no site of this name here."


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


def is_declared(option: str) -> bool:
    """Whether an option of the part says what is in the configuration."""
    kind, dot, _ = option.partition(".")
    return option in MAIN or option in SITE or (bool(dot) and kind in NAMED)


def nearest(option: str) -> str | None:
    """The right name of an option that was probably meant as a section, as sites.shop."""
    kind, dot, name = option.partition(".")
    if not dot or is_declared(option):
        return None
    near = difflib.get_close_matches(kind, NAMED, 1, 0.75)
    return f"{near[0]}.{name}" if near else None


def declared(options: Mapping[str, str], around: Surroundings) -> Rendered:
    """The configuration that ``options`` declare; all that is wrong is raised together."""
    return _Configuration(options, around).rendered()


def certificates(options: Mapping[str, str], around: Surroundings) -> list[Certificate]:
    """The pairs of certificate and key that the sites name, with their server names."""
    return _Configuration(options, around).certificates


@dataclasses.dataclass(frozen=True)
class Certificate:
    """A certificate and its key, the names that it is for, and the options that name them."""

    certificate: str
    key: str
    names: tuple[str, ...]
    certificate_place: str
    key_place: str


@dataclasses.dataclass(frozen=True)
class _Value:
    """What an option says: checked and in one line, and line by line with their places."""

    text: str
    place: str
    lines: tuple[tuple[str, str], ...]


class _Level:
    """The options of one level, with those of the level above as their defaults."""

    def __init__(
        self, name: str, table: Mapping[str, Option], parent: _Level | None = None
    ) -> None:
        self.name = name
        self._table = table
        self._parent = parent
        self.given: dict[str, _Value] = {}

    def _find(self, option: str) -> _Value | None:
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
class _Location:
    """A location of a site, on its way to a text."""

    title: str
    place: str
    body: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def add(self, text: str, place: str = "") -> None:
        self.body.append((text, place or self.place))


@dataclasses.dataclass
class _Site:
    """One site, and what is worked out of its options."""

    name: str
    options: _Level
    suffix: str
    names: list[str]
    plain: list[str]
    secure: list[str]
    upstream: str = ""
    locations: dict[str, _Location] = dataclasses.field(default_factory=dict)
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


class _Text:
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


class _Configuration:
    """The options on their way to a text."""

    def __init__(self, options: Mapping[str, str], around: Surroundings) -> None:
        self._around = around
        self._errors: list[EggcrateError] = []
        self._upstreams: dict[str, _Level] = {}
        self._plain_upstreams: dict[str, list[tuple[str, str]]] = {}
        self._maps: dict[tuple[str, tuple[str, ...]], tuple[str, str, str]] = {}
        self._zones: list[tuple[str, str]] = []
        self.certificates: list[Certificate] = []
        self._main = _Level(around.part, {**MAIN, **SITE})
        locations: dict[str, _Level] = {}
        sites: dict[str, _Level] = {}
        for option in sorted(options):
            kind, dot, name = option.partition(".")
            if not dot:
                self._take(self._main, option, _lines_of(options[option], option))
            elif not _NAME.fullmatch(name):
                self._error(
                    f"{option}: {name!r} is no name",
                    f"write {kind}.NAME, with a NAME of small letters, digits, _ and -",
                )
            else:
                table = {"site": SITE, "location": LOCATION, "upstream": UPSTREAM}[kind]
                parent = self._main if kind == "site" else None
                into = {"site": sites, "location": locations, "upstream": self._upstreams}[kind]
                into[name] = _Level(name, table, parent)
                self._section(into[name], option, options[option])
        self._version()
        self._levels = [self._main, *sites.values()]
        self._sites = [self._site(name, level, sites) for name, level in sorted(sites.items())]
        if not self._sites:
            self._sites = [self._site("", self._main, sites)]
        self._place_locations(locations)
        for site in self._sites:
            self._headers(site)
        self._check_upstreams()
        self._check_names()

    # From options to values

    def _error(self, what: str, hint: str) -> None:
        self._errors.append(SettingsError(what, hint))

    def _section(self, level: _Level, option: str, text: str) -> None:
        """The options of site.NAME and the like, one a line; deeper lines go on with one."""
        name, lines, start = "", [], option
        for number, line in enumerate(text.split("\n"), 1):
            place = f"{option}, line {number}"
            if not line.strip() or line.strip().startswith("#"):
                if name:
                    lines.append((line, place))
                continue
            if line[0].isspace() and name:
                lines.append((line, place))
                continue
            self._named(level, name, lines, start)
            key, equals, value = (word.strip() for word in line.partition("="))
            if not equals or not key:
                self._error(
                    f"{place}: {_short(line.strip())} is no option",
                    "write name = value, one a line; begin a line with a blank to go on with "
                    "the value before it",
                )
                name, lines = "", []
                continue
            name, lines, start = key, [(value, place)] if value else [], place
        self._named(level, name, lines, start)

    def _named(
        self, level: _Level, name: str, lines: Sequence[tuple[str, str]], place: str
    ) -> None:
        if not name:
            return
        if name in level.given:
            self._error(f"{place}: {name} is there twice", "leave one of the two out")
        elif name not in level._table:
            near = difflib.get_close_matches(name, sorted(level._table), 1)
            self._error(
                f"{place}: {name} is no option here",
                f"write {name} in the part itself, as it holds for all"
                if name in MAIN
                else f"write {name} in the site, or in the part for all sites"
                if name in SITE
                else f"write {near[0]}, the nearest name there is"
                if near
                else "look at the page of nginx-config for those that may stand here",
            )
        else:
            self._take(level, name, _dedented(lines), place)

    def _take(
        self, level: _Level, name: str, lines: Sequence[tuple[str, str]], place: str = ""
    ) -> None:
        """Check an option's value and keep it."""
        option = level._table[name]
        if option.check is not raw:
            lines = [one for one in lines if not one[0].lstrip().startswith("#")]
        text = "\n".join(line for line, _ in lines).strip()
        if name == "hashed-names" or option.check is raw:
            text = text.replace("$${", "${")
        place = place or name
        if not text and option.default and not option.lines and option.check is not raw:
            text = option.default  # as if nobody had said anything
        good = not text
        if option.lines:
            kept = []
            for line, where in lines:
                if not line.strip() or line.lstrip().startswith("#"):
                    continue
                good = True
                with self._noting(where, name):
                    kept.append((option.check(line.strip()), where))
            lines = kept
        elif text and option.check is not raw:
            with self._noting(place, name):
                text = option.check(" ".join(text.split()) if "\n" in text else text)
                good = True
        else:
            lines = [(line.replace("$${", "${"), where) for line, where in lines]
            good = True
        if good:
            level.given[name] = _Value(text, place, tuple(lines))

    @contextlib.contextmanager
    def _noting(self, place: str, name: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            where = place if place.split(",")[0] == name else f"{place}: {name}"
            self._error(f"{where} {error}", "correct the value")

    def _version(self) -> None:
        def numbers(option: str, otherwise: tuple[int, ...]) -> tuple[int, ...]:
            text = self._main.text(option)
            return tuple(map(int, text.split("."))) if text else otherwise

        self._nginx = numbers("nginx-version", self._around.nginx)
        self._openssl = numbers("openssl-version", self._around.openssl)
        if self._main.has("nginx-version") and not self._main.has("openssl-version"):
            self._openssl = OPENSSL  # what is known of this machine's is no news of that one

    def _path(self, text: str, place: str, *, captures: bool = False) -> str:
        """A path in the configuration, absolute, with quotes where it needs some."""
        path = os.path.normpath(os.path.join(self._around.directory, text))
        if text.endswith("/") and path != "/":
            path += "/"
        plain = re.sub(r"\$(?:[1-9]|[a-z]\w*)", "", path) if captures else path
        if re.search(r"[$\x00-\x1f\x7f]", plain):
            self._error(
                f"{place}: nginx can't be given the path {_short(path)}",
                "choose one without $ and control characters",
            )
        return path

    # Sites

    def _site(self, name: str, level: _Level, sites: Mapping[str, _Level]) -> _Site:
        suffix = f"_{name.replace('-', '_')}" if len(sites) > 1 else ""
        names = level.text("server-names").split()
        place = level.place("server-names")
        for twice in sorted({one for one in names if names.count(one) > 1}):
            self._error(f"{place}: {twice} is there twice", "take one of the two out")
        tls = level.text("tls")
        secure = self._addresses(level, "listen-tls") if tls == "on" else []
        site = _Site(name, level, suffix, names, self._addresses(level, "listen"), secure)
        if not site.plain and not secure and not level.text("listen").strip():
            self._error(
                f"{level.place('listen')}: there is no address to listen on",
                "set listen to a port, as listen = 8080",
            )
        self._tls(site)
        if level.has("upstream"):
            site.upstream = self._pass(level, site, level.lines("upstream"))
        self._directories(site)
        if level.has("redirect-names") and (not names or names[0][0] in "*._"):
            self._error(
                f"{level.place('redirect-names')}: redirect-names has no name to redirect to",
                "set server-names, with the right name first",
            )
        return site

    def _addresses(self, level: _Level, option: str) -> list[str]:
        """Where a site listens, as nginx writes it, each once."""
        found = self._listened(level, option)
        for twice in sorted({one for one in found if found.count(one) > 1}):
            self._error(
                f"{_at(level.place(option), option)} {twice} is there twice", "take one out"
            )
        return list(dict.fromkeys(found))

    def _listened(self, level: _Level, option: str) -> list[str]:
        found: list[str] = []
        for word in level.text(option).split():
            place = level.place(option)
            if word.startswith("unix:"):
                found.append(self._unix(word, _at(place, option)))
                continue
            address = _ADDRESS.fullmatch(word)
            try:
                if address is None:
                    raise ValueError("must be a port or an address and a port, as 8080")
                values.port(address["port"])
                if address["host"] not in (None, "*"):
                    values.hostname(address["host"])
            except ValueError as error:
                self._error(
                    f"{_at(place, option)} {_short(word)} {error}",
                    "write 8080, 127.0.0.1:8080, [::1]:8080 or unix:var/run/nginx.sock",
                )
                continue
            word = word.removeprefix("*:").removeprefix("0.0.0.0:")
            found.append(word)
            if option != "stub-status" and level.on("ipv6") and word.isdecimal():
                found.append(f"[::]:{word}")
        return found

    def _unix(self, word: str, place: str) -> str:
        """The address of a Unix socket, its path absolute."""
        path = word.removeprefix("unix:")
        if not path or path.endswith("/"):
            self._error(
                f"{place}: {word} names no socket", "write unix:var/run/web.sock, for example"
            )
            return word
        path = self._path(path, place)
        if len(os.fsencode(path)) > _LONGEST_SOCKET:
            self._error(
                f"{place}: the path {_short(path)} is longer than {_LONGEST_SOCKET} bytes, "
                "which is all that a Unix socket may have",
                "choose a shorter one, below /run for instance",
            )
        return f"unix:{path}"

    def _tls(self, site: _Site) -> None:
        level = site.options
        tls = level.text("tls")
        files = [("tls-certificate", True), ("tls-key", True), ("tls-client-ca", False)]
        files += [("tls-verify-client", False)]
        for option, needed in files:
            if tls == "on" and needed and not level.has(option):
                self._error(
                    f"{_at(level.place('tls'), 'tls')} is on, and there is no {option}",
                    f"set {option} to a PEM file, or tls to edge if something else has it",
                )
            if tls != "on" and option in level.given:
                self._error(
                    f"{level.place(option)}: {option} means nothing unless tls is on",
                    f"set tls = on, or take {option} out",
                )
        if tls != "on" and level.on("http3"):
            self._error(
                f"{_at(level.place('http3'), 'http3')} means nothing unless tls is on",
                "set tls = on, or take http3 out",
            )
        if (
            tls == "on"
            and "tls-verify-client" in level.given
            and not level.has("tls-client-ca")
        ):
            self._error(
                f"{level.place('tls-verify-client')}: there is no tls-client-ca to verify with",
                "set tls-client-ca to the certificate of the authority",
            )
        addresses = [name for name in site.names if re.fullmatch(r"[0-9.]+|\[.*\]", name)]
        if tls == "on" and addresses and self._main.text("default-server") != "site":
            self._error(
                f"{_at(level.place('server-names'), 'server-names')}: no client says "
                f"{addresses[0]} in its TLS handshake, so none would get through",
                f"take {addresses[0]} out, or set default-server = site",
            )
        if tls == "off" and level.text("hsts") not in ("", "off"):
            self._error(
                f"{_at(level.place('hsts'), 'hsts')} means nothing where tls is off",
                "set tls to on or edge, or take hsts out",
            )
        if tls == "off" and level.on("force-https"):
            self._error(
                f"{_at(level.place('force-https'), 'force-https')} needs tls",
                "set tls to on or edge, or take force-https out",
            )
        if tls == "edge" and not self._main.has("trusted-proxies"):
            self._error(
                f"{_at(level.place('tls'), 'tls')} is edge, and nobody is trusted to say so",
                "set trusted-proxies to the networks that the proxies before nginx are in",
            )
        if tls == "edge" and not self._believes_headers():
            self._error(
                f"{_at(level.place('tls'), 'tls')} is edge, and proxy-protocol says nothing of "
                "it",
                "set real-ip-header = X-Forwarded-For if the proxy sets such headers itself",
            )
        if level.on("proxy-protocol") and not self._main.has("trusted-proxies"):
            self._error(
                f"{_at(level.place('proxy-protocol'), 'proxy-protocol')} needs trusted-proxies",
                "set trusted-proxies to the networks that the proxies before nginx are in",
            )
        if tls == "on" and self._nginx < (1, 19, 4):
            self._error(
                f"tls = on needs nginx 1.19.4, and this is for {_dotted(self._nginx)}",
                "set nginx-version to the version that will run it",
            )
        if tls == "on" and level.on("http3") and self._nginx < (1, 25):
            self._error(
                f"{_at(level.place('http3'), 'http3')} needs nginx 1.25, and this is for "
                f"{_dotted(self._nginx)}",
                "set nginx-version to the version that will run it, or http3 = false",
            )
        if tls == "on" and level.has("tls-certificate") and level.has("tls-key"):
            certificate, key = level.place("tls-certificate"), level.place("tls-key")
            self.certificates.append(
                Certificate(
                    self._path(level.text("tls-certificate"), certificate),
                    self._path(level.text("tls-key"), key),
                    (
                        *(name for name in site.names if name != "_"),
                        *level.text("redirect-names").split(),
                    ),
                    certificate,
                    key,
                )
            )

    def _pass(self, level: _Level, site: _Site, lines: Sequence[tuple[str, str]]) -> str:
        """The name of the upstream that ``upstream`` means, which may be its servers."""
        words = [
            (word, place)
            for line, place in lines
            if not line.lstrip().startswith("#")
            for word in line.split()
        ]
        if len(words) == 1 and words[0][0] in self._upstreams:
            return words[0][0]
        servers = [(self._server(word, place), place) for word, place in words]
        first = words[0][0] if words else ""
        named = first.startswith("socket:")
        name = re.sub(r"[^\w.-]", "_", first.partition(":")[2]) if named else "application"
        if not named:
            name = f"location_{level.name}" if level is not site.options else name + site.suffix
        while self._plain_upstreams.get(name, servers) != servers or name in self._upstreams:
            name += "_"
        self._plain_upstreams[name] = servers
        return name

    def _server(self, word: str, place: str) -> str:
        """One server of an upstream, as nginx writes it."""
        if word.startswith("socket:"):
            try:
                return self._around.socket(word.removeprefix("socket:"))
            except SettingsError as error:
                self._error(f"{_at(place, 'upstream')}: {error.what}", error.hint)
                return "127.0.0.1:1"
        if word.startswith("unix:"):
            return self._unix(word, _at(place, "upstream"))
        address = _ADDRESS.fullmatch(word)
        try:
            if address is None or not _UPSTREAM_HOST.fullmatch(address["host"] or ""):
                raise ValueError("is no address")
            values.port(address["port"])
        except ValueError:
            if word in self._upstreams:
                self._error(
                    f"{_at(place, 'upstream')}: {word} is an upstream.{word}, and there are "
                    "others",
                    f"write {word} alone, or the addresses of all servers",
                )
                return word
            near = difflib.get_close_matches(word, sorted(self._upstreams), 1)
            self._error(
                f"{_at(place, 'upstream')}: {_short(word)} is neither an address nor the name "
                "of an upstream",
                f"write {near[0]}, the nearest name there is"
                if near
                else "write unix:PATH, HOST:PORT, socket:NAME for a socket of a circus-config "
                "part, or the NAME of an upstream.NAME",
            )
        return word

    def _check_upstreams(self) -> None:
        for name, level in sorted(self._upstreams.items()):
            if not level.lines("servers"):
                self._error(
                    f"upstream.{name} has no servers",
                    "add servers = 127.0.0.1:8000, for example",
                )

    def _check_names(self) -> None:
        taken: dict[tuple[str, str], _Site] = {}
        for site in self._sites:
            extra = site.options.text("redirect-names").split()
            for name in site.names:
                if name in extra:
                    self._error(
                        f"{_at(site.options.place('redirect-names'), 'redirect-names')} "
                        f"{name} is one of server-names, too",
                        "take it out of one of the two",
                    )
            for address in (*site.plain, *site.secure):
                for name in (*(site.names or ["_"]), *extra):
                    other = taken.setdefault((address, name), site)
                    if other is not site:
                        shown = "any name" if name == "_" else name
                        self._error(
                            f"site.{site.name} and site.{other.name} are both {shown} on "
                            f"{address}",
                            "give one of the two other server-names, or another listen",
                        )
            for address in (*site.plain, *site.secure):
                first = next(one for one in self._sites if address in (*one.plain, *one.secure))
                if first.options.on("proxy-protocol") != site.options.on("proxy-protocol"):
                    self._error(
                        f"site.{site.name} and site.{first.name} have {address} with and "
                        "without proxy-protocol",
                        "give one of the two another listen",
                    )
            both = set(site.plain) & {
                address for other in self._sites for address in other.secure
            }
            for address in sorted(both):
                self._error(
                    f"listen: {address} would be both with and without TLS",
                    "choose another port for listen or for listen-tls",
                )

    # Locations

    def _location(self, site: _Site, title: str, place: str) -> _Location:
        location = _Location(title, place)
        if title in site.locations:
            self._error(
                f"{place}: there are two for {title}, the other one at "
                f"{site.locations[title].place}",
                "take one of the two out",
            )
        else:
            site.locations[title] = location
        return location

    def _directories(self, site: _Site) -> None:
        """The locations of files: static, media, protected and files."""
        level = site.options
        if self._main.text("health") != "off":
            health = self._location(site, f"= {self._main.text('health')}", "health")
            health.add("access_log off;")
            health.add("default_type text/plain;")
            health.add('return 200 "ok\\n";')
        for option in ("static", "media", "protected"):
            for text, place in level.lines(option):
                url, path = text.split(None, 1)
                url = url.rstrip("/") + "/"  # else /staticx would lead out of the directory
                location = self._location(site, url, place)
                alias = self._path(path, place).rstrip("/") + "/"
                pattern = rf"^{re.escape(url)}(?!\.well-known/)(?:.*/)?\."
                hidden = self._location(site, f"~ {_quoted(pattern)}", place)
                hidden.add("# .git and the like are nobody's business")
                hidden.add("return 404;")
                if option == "protected":
                    location.add("# only for answers with X-Accel-Redirect")
                    location.add("internal;")
                location.add(f"alias {_word(alias)};")
                if option == "static":
                    if level.on("gzip-static"):
                        location.add("gzip_static on;")
                    if level.on("brotli-static"):
                        location.add("brotli_static on;")
                location.add("log_not_found off;")
        if level.has("acme-challenge"):
            place = level.place("acme-challenge")
            self._acme(site, self._location(site, f"^~ {_ACME}", place))
        for text, place in level.lines("files"):
            url, path = text.split(None, 1)
            location = self._location(site, f"= {url}", place)
            location.add(f"alias {_word(self._path(path, place))};")
            location.add("log_not_found off;")

    def _acme(self, site: _Site, location: _Location) -> None:
        """Where an authority looks for what it has asked for."""
        place = site.options.place("acme-challenge")
        path = self._path(site.options.text("acme-challenge"), place).rstrip("/")
        location.add(f"alias {_word(path + '/')};", place)
        location.add("default_type text/plain;", place)

    def _place_locations(self, locations: Mapping[str, _Level]) -> None:
        """The locations of the sites that are passed on, and those of location.NAME."""
        known = [site.name for site in self._sites if site.name]
        for name, level in sorted(locations.items()):
            wanted = level.text("sites").split()
            for missing in [one for one in wanted if one not in known]:
                near = difflib.get_close_matches(missing, known, 1)
                self._error(
                    f"{level.place('sites')}: there is no site.{missing}",
                    f"write {near[0]}" if near else "take sites out, or add the site",
                )
            for site in self._sites:
                if not wanted or site.name in wanted:
                    self._declared_location(site, name, level)
        health = int(self._main.text("health") != "off")
        for site in self._sites:
            level = site.options
            extra = level.has("location-extra") or level.has("server-extra")
            if not site.upstream and not extra and len(site.locations) == health:
                self._error(
                    f"site.{site.name} has nothing to serve"
                    if site.name
                    else "there is nothing to serve",
                    "set upstream = socket:NAME for a socket of a circus-config part, or "
                    "static, or add location.NAME",
                )
            if "/" not in site.locations:
                location = self._location(site, "/", level.place("upstream"))
                if site.upstream:
                    self._proxied(site, location, level, site.upstream, "requests")
                    location.body += _dedented(level.lines("location-extra"))
                elif level.has("location-extra"):
                    location.body += _dedented(level.lines("location-extra"))
                else:
                    location.add("return 404;")
            elif level.has("location-extra"):
                self._error(
                    f"{level.place('location-extra')}: location-extra is for the location / "
                    "that upstream makes",
                    "write extra in the location that you declared",
                )

    def _declared_location(self, site: _Site, name: str, level: _Level) -> None:
        source = f"location.{name}"
        text = level.text("path").strip() or f"/{name}/"
        modifier, path = _MODIFIED.fullmatch(text).groups()  # type: ignore[union-attr]
        if (modifier in (None, "=", "^~") and not path.startswith("/")) or "\n" in path:
            self._error(
                f"{_at(level.place('path'), 'path')}: {_short(text)} is no path of a URL",
                "write /path/ for all below it, = /path for itself, or ~ and a regular "
                "expression",
            )
            return
        quoted = _word(path) if modifier in (None, "=", "^~") else _quoted(path)
        title = f"{modifier} {quoted}" if modifier else quoted
        location = self._location(
            site, title, level.place("path") if level.has("path") else source
        )
        ways = [way for way in ("upstream", "alias", "return") if level.has(way)]
        if len(ways) > 1:
            self._error(
                f"{source} has both {ways[0]} and {ways[1]}", "leave one of the two out"
            )
            return
        if level.on("internal"):
            location.add("internal;", level.place("internal"))
        if level.has("alias"):
            place = level.place("alias")
            captures = modifier in ("~", "~*")
            alias = self._path(level.text("alias"), place, captures=captures)
            if path.endswith("/") and modifier != "=":
                alias = alias.rstrip("/") + "/"
            self._limits(site, location, level, f"location_{name}")
            location.add(f"alias {_word(alias)};", place)
        elif level.has("return"):
            self._returned(site, location, level, source)
        elif level.has("upstream") or site.upstream:
            upstream = (
                self._pass(level, site, level.lines("upstream"))
                if level.has("upstream")
                else site.upstream
            )
            self._proxied(site, location, level, upstream, f"location_{name}")
        elif level.has("extra"):
            self._limits(site, location, level, f"location_{name}")
        else:
            self._error(
                f"{source} has neither upstream, alias nor return",
                "say in it, or with upstream of the site, what is to be there",
            )
        location.body += _dedented(level.lines("extra"))

    def _returned(self, site: _Site, location: _Location, level: _Level, source: str) -> None:
        """An answer of the configuration itself, which nginx gives before it looks further."""
        text = level.text("return").strip().removesuffix(";")
        restricting = ("allow", "deny", "auth-basic-user-file")
        limits = ("rate-limit", "connection-limit")
        own = [option for option in (*restricting, *limits) if level.has(option)]
        above = [option for option in restricting if site.options.has(option)]
        if own or (above and not re.match(r"(?:204|[345]\d\d)\b|https?://", text)):
            option = (own or above)[0]
            self._error(
                f"{source}: nginx gives what return says before it looks at {option}",
                f"take {option} out, or let alias or upstream give the answer",
            )
        location.add(f"return {text};", level.place("return"))

    def _limits(self, site: _Site, location: _Location, level: _Level, zone: str) -> None:
        if level is not site.options:
            location.body += self._access(level, site.options)
        rate = level.text("rate-limit") or site.options.text("rate-limit")
        if rate not in ("", "off"):
            own = bool(level.text("rate-limit"))
            zone = zone if own else "requests"
            zone = f"{zone}{site.suffix}"
            given, *words = rate.split()
            if not words:
                words = [f"burst={2 * int(given.partition('r')[0])}", "nodelay"]
            line = f"limit_req_zone $binary_remote_addr zone={zone}:10m rate={given};"
            place = (level if own else site.options).place("rate-limit")
            if line not in [known for known, _ in self._zones]:
                self._zones.append((line, place))
            location.add(f"limit_req zone={zone} {' '.join(words)};", place)
        connections = level.text("connection-limit")
        if connections == "off" and "connection-limit" not in level.given:
            connections = site.options.text("connection-limit")
        if connections != "off":
            line = "limit_conn_zone $binary_remote_addr zone=connections:10m;"
            place = level.place("connection-limit")
            if line not in [known for known, _ in self._zones]:
                self._zones.append((line, place))
            location.add(f"limit_conn connections {connections};", place)

    def _access(self, level: _Level, above: _Level | None = None) -> Iterator[tuple[str, str]]:
        """Who may come in, of a site or of a location, which has all or nothing of its site's.

        nginx takes the first that fits, so what is refused stands first.
        """
        if above is None or level.has("allow") or level.has("deny"):

            def said(option: str) -> tuple[str, str]:
                has = level if above is None or option in level.given else above
                return has.text(option), has.place(option)

            (denied, denying), (allowed, allowing) = said("deny"), said("allow")
            for network in denied.split():
                if network != "all":
                    yield f"deny {network};", denying
            for network in allowed.split():
                yield f"allow {network};", allowing
            if allowed or "all" in denied.split():
                yield "deny all;", allowing if allowed else denying
        realm = level.text("auth-basic") or "restricted"
        place = level.place("auth-basic")
        users = level.text("auth-basic-user-file")
        if above is not None and "auth-basic" in level.given and not users:
            users = above.text("auth-basic-user-file")
        if "auth-basic" in level.given and realm != "off" and not users:
            self._error(
                f"{place}: auth-basic has no file of passwords, so nobody would be asked",
                "set auth-basic-user-file, too",
            )
        if realm == "off" and "auth-basic" in level.given:
            yield "auth_basic off;", place
        elif users:
            place = level.place("auth-basic-user-file")
            yield f"auth_basic {_quoted(realm)};", place
            yield f"auth_basic_user_file {_word(self._path(users, place))};", place

    def _proxied(
        self, site: _Site, location: _Location, level: _Level, upstream: str, zone: str
    ) -> None:
        """What is in a location that passes its requests on."""
        options = site.options
        if options.has("maintenance"):
            place = options.place("maintenance")
            flag = self._path(options.text("maintenance"), place)
            location.add(f"if (-f {_word(flag)}) {{", place)
            location.add("    return 503;", place)
            location.add("}", place)
        self._limits(site, location, level, zone)
        if level is not options:
            for option in (
                *("client-max-body-size", "client-body-buffer-size", "proxy-connect-timeout"),
                *("proxy-send-timeout", "proxy-read-timeout", "proxy-buffering"),
                "proxy-request-buffering",
            ):
                if level.has(option):
                    location.add(_directive(option, level), level.place(option))
        location.add(f"proxy_pass http://{upstream};", level.place("upstream"))

    @staticmethod
    def _https(site: _Site) -> str:
        port = site.options.text("https-port")
        return "" if port == "443" else f":{port}"

    # Headers and maps

    def _map(
        self, site: _Site, source: str, name: str, entries: Sequence[str], why: str, place: str
    ) -> str:
        """Have a map; its variable.  Sites with the same one share it."""
        key = (source, tuple(entries))
        if key not in self._maps:
            names = {known for known, _, _ in self._maps.values()}
            self._maps[key] = (name + site.suffix if name in names else name, why, place)
        return f"${self._maps[key][0]}"

    def _headers(self, site: _Site) -> None:
        """Each header that the site sends, with its value and whether errors have it, too."""
        level = site.options
        add = site.headers.append
        cached = [(url, f"{_quoted(f'~^:{url}')} {value};") for url, value in self._ages(site)]
        for_ever = _quoted("public, max-age=31536000, immutable")
        hashed = [
            (url, f"{_quoted(f'~^:{url}{name}')} {for_ever};")
            for url, name in self._hashed(site)
        ]
        policies = [
            f"{_quoted(f'~^{url}')} \"default-src 'none'; sandbox\";"
            for url in self._urls(site, "media")
        ]
        if level.lines("static") or level.lines("media") or level.lines("files"):
            # what is deeper comes first, and of one directory the names with a hash
            order = sorted([*hashed, *cached], key=lambda entry: -len(entry[0]))
            why = (
                "how long a browser may keep a file without asking; it is the application's "
                "matter for what it has answered, and that has a status here"
            )
            entries = ['default "";', *(entry for _, entry in order)]
            source = '"$upstream_status:$uri"'
            variable = self._map(site, source, "cache_control", entries, why, "static")
            add(("Cache-Control", variable, "static"))
        own = level.text("content-security-policy")
        if policies or own:
            place = level.place("content-security-policy") if own else "media"
            value = _quoted(own) if own else '""'
            if policies:
                why = "what visitors have uploaded can run no scripts"
                entries = [f"default {value};", *policies]
                value = self._map(site, "$uri", "content_policy", entries, why, place)
            add(self._unless_sent(site, "Content-Security-Policy", value, place))
        if level.on("security-headers"):
            place = level.place("security-headers")
            add(self._unless_sent(site, "X-Content-Type-Options", "nosniff", place))
            if level.text("referrer-policy") != "off":
                value = level.text("referrer-policy")
                add(self._unless_sent(site, "Referrer-Policy", value, place))
            if level.text("frame-options") != "off":
                value = level.text("frame-options")
                add(self._unless_sent(site, "X-Frame-Options", value, place))
        for option in ("permissions-policy", "cross-origin-opener-policy"):
            if level.has(option):
                header = "-".join(word.capitalize() for word in option.split("-"))
                value = _quoted(level.text(option))
                add(self._unless_sent(site, header, value, level.place(option)))
        hsts = level.text("hsts") or (_YEARS if level.text("tls") == "on" else "off")
        if hsts != "off" and level.text("tls") != "off":
            promise = "; ".join([f"max-age={hsts.split()[0]}", *hsts.split()[1:]])
            variable = self._map(
                site,
                f'"{self._scheme()}:$upstream_http_strict_transport_security"',
                "transport_security",
                ['default "";', f'"https:" {_quoted(promise)};'],
                "browsers that have come by HTTPS come by nothing else for so long",
                level.place("hsts"),
            )
            add(("Strict-Transport-Security", f"{variable} always", level.place("hsts")))
        if level.text("tls") == "on" and level.on("http3"):
            port = level.text("https-port")
            add(("Alt-Svc", f"'h3=\":{port}\"; ma=86400' always", level.place("http3")))
        if site.passes:
            variable = self._map(
                site,
                '"$status:$upstream_http_retry_after"',
                "retry_after",
                ['default "";', '"503:" 60;'],
                "seconds after which a client may try again",
                _OWN,
            )
            add(("Retry-After", f"{variable} always", _OWN))
        add(self._unless_sent(site, "X-Request-ID", "$request_id", _OWN))
        for text, place in level.lines("headers"):
            name, _, value = text.partition(": ")
            if name.lower() in {known.lower() for known, _, _ in site.headers}:
                self._error(
                    f"{place}: {name} is sent already",
                    "set the option that sends it, or take the header out",
                )
            self._no_dollar(place, value)
            add(self._unless_sent(site, name, _quoted(value), place))

    def _urls(self, site: _Site, option: str) -> list[str]:
        """The URLs below which static or media files are, as regular expressions."""
        return [
            re.escape(text.split()[0].rstrip("/") + "/")
            for text, _ in site.options.lines(option)
        ]

    def _ages(self, site: _Site) -> Iterator[tuple[str, str]]:
        """URLs, as regular expressions, and what browsers are told of what is there."""
        level = site.options
        for_people = _quoted(f"public, max-age={self._seconds(level, 'static-max-age')}")
        for_one = _quoted(f"private, max-age={self._seconds(level, 'media-max-age')}")
        files = {f"= {text.split()[0]}" for text, _ in level.lines("files")}
        yield from ((url, for_people) for url in self._urls(site, "static"))
        yield from ((url, for_one) for url in self._urls(site, "media"))
        directories = {*self._urls(site, "static"), *self._urls(site, "media")}
        for title in site.locations:
            # what nginx answers in other places is no file of these directories
            url = re.escape(title.removeprefix("=").removeprefix("^~").strip())
            if title.startswith("="):
                yield f"{url}$", for_people if title in files else '""'
            elif title.startswith(("/", "^~")) and url not in (*directories, "/"):
                yield url, '""'

    def _hashed(self, site: _Site) -> Iterator[tuple[str, str]]:
        """The URLs of files whose names have a hash, and how such a name goes on."""
        pattern = site.options.text("hashed-names")
        if pattern != "off":
            for url in self._urls(site, "static"):
                yield url, f".*(?:{pattern})[^/]*$"

    def _no_dollar(self, place: str, value: str) -> None:
        """nginx knows no way to write a dollar before a letter that is no variable."""
        for name in re.findall(r"\$(\w+|\{\w*\}?)?", value):
            if not re.fullmatch(r"[a-z]\w*|\{[a-z]\w*\}", name or ""):
                self._error(
                    f"{place}: nginx can't be given ${name}, which is none of its variables",
                    "write it without the dollar",
                )

    def _seconds(self, level: _Level, option: str) -> int:
        units = {
            "s": 1,
            "m": 60,
            "h": 3600,
            "d": 86400,
            "w": 604800,
            "M": 2592000,
            "y": 31536000,
        }
        text = level.text(option)
        if text.isdecimal():
            return int(text)
        found = re.findall(r"(\d+)(ms|[smhdwMy])", text)
        return sum(int(number) * units.get(unit, 0) for number, unit in found)

    def _unless_sent(
        self, site: _Site, header: str, value: str, place: str
    ) -> tuple[str, str, str]:
        """A header that the application may have sent itself, and that is not sent twice."""
        name = header.lower().replace("-", "_")
        # after X-Accel-Redirect nginx sends the file, and nothing of what came with that
        source = f'"$upstream_http_x_accel_redirect|$upstream_http_{name}"'
        why = "what the application has set itself is not sent twice"
        entries = [
            'default "";',
            f'"~[|]$" {value};',
            f'"~^[/@]" $upstream_http_{name};',
        ]
        short = "own_" + re.sub(r"\W", "_", name.removeprefix("x_"))
        return header, f"{self._map(site, source, short, entries, why, place)} always", place

    def _real_ip_header(self) -> str:
        """What says where a request came from; a proxy that speaks TCP has its own protocol."""
        spoken = any(level.on("proxy-protocol") for level in self._levels)
        return self._main.text("real-ip-header") or (
            "proxy_protocol" if spoken else "X-Forwarded-For"
        )

    def _believes_headers(self) -> bool:
        """Whether trusted proxies speak HTTP, and so set headers of their own."""
        return self._real_ip_header() != "proxy_protocol"

    def _scheme(self) -> str:
        trusted = self._main.has("trusted-proxies") and self._believes_headers()
        return "$forwarded_proto" if trusted else "$scheme"

    # From all that to a text

    def rendered(self) -> Rendered:
        """The text, with the place of every line; raises what is wrong with the options."""
        raise_all(self._errors)
        text = _Text()
        main = self._main
        run = self._around.run_directory
        text.add(
            f"# Made by bin/buildout of [{self._around.part}] in its configuration: "
            "change it there.",
            _OWN,
        )
        text.add("", _OWN)
        text.comment(
            "Circus, Docker or a terminal is above it, and wants it in the foreground.", _OWN
        )
        text.add("daemon off;", _OWN)
        if main.has("user"):
            text.add(f"user {main.text('user')};", main.place("user"))
        for option in ("worker-processes", "worker-rlimit-nofile", "worker-shutdown-timeout"):
            text.add(_directive(option, main), main.place(option))
        text.add(f"pid {_word(run + '/nginx.pid')};", _OWN)
        place = main.place("error-log")
        log = main.text("error-log")
        log = (
            log
            if log == "stderr" or log.startswith("syslog:")
            else _word(self._path(log, place))
        )
        text.add(f"error_log {log} {main.text('error-log-level')};", place)
        for module, place in main.lines("load-modules"):
            text.add(f"load_module {_word(module)};", place)
        text.raw(_dedented(main.lines("main-extra")))
        text.add("", _OWN)
        with text.block("events", _OWN):
            text.add(_directive("worker-connections", main), main.place("worker-connections"))
            text.raw(_dedented(main.lines("events-extra")))
        text.add("", _OWN)
        with text.block("http", _OWN):
            self._http(text)
        raise_all(self._errors)
        places = [place for _, place in text.lines]
        return Rendered(
            f"the options of [{self._around.part}]",
            "".join(f"{line}\n" for line, _ in text.lines),
            tuple(range(1, len(places) + 1)),
            (*places, places[-1]),
        )

    def _http(self, text: _Text) -> None:
        main = self._main
        place = main.place("mime-types")
        text.add(f"include {_word(self._path(main.text('mime-types'), place))};", place)
        text.add("default_type application/octet-stream;", _OWN)
        text.add("charset utf-8;", _OWN)
        # text/html always has it
        types = "text/css text/javascript text/plain text/xml application/javascript"
        text.add(f"charset_types {types};", _OWN)
        text.add("", _OWN)
        text.comment(
            "What nginx writes goes here, as the rest of the file system may be read-only.",
            _OWN,
        )
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            text.add(f"{name}_temp_path {_word(f'{self._around.run_directory}/{name}')};", _OWN)
        text.add("", _OWN)
        for line in ("server_tokens off;", "sendfile on;", "tcp_nopush on;"):
            text.add(line, _OWN)
        text.comment("the port here is not the one that browsers see", _OWN)
        text.add("absolute_redirect off;", _OWN)
        for option in ("keepalive-timeout", "client-header-timeout", "client-body-timeout"):
            text.add(_directive(option, main), main.place(option))
        text.add(_directive("send-timeout", main), main.place("send-timeout"))
        text.add("reset_timedout_connection on;", _OWN)
        option = "large-client-header-buffers"
        text.add(_directive(option, main), main.place(option))
        if main.text("open-file-cache") != "off":
            place = main.place("open-file-cache")
            text.add(f"open_file_cache max={main.text('open-file-cache')} inactive=60s;", place)
        self._logs(text)
        self._compression(text)
        self._client(text)
        before = ""
        for (source, entries), (name, why, place) in self._maps.items():
            if why != before:
                text.add("", place)
                text.comment(why[0].upper() + why[1:] + ".", place)
            before = why
            with text.block(f"map {source} ${name}", place):
                for entry in entries:
                    text.add(entry, place)
        if self._zones:
            text.add("", _OWN)
            for line, place in self._zones:
                text.add(line, place)
            text.add("limit_req_status 429;", _OWN)
            text.add("limit_conn_status 429;", _OWN)
        self._all_upstreams(text)
        if any(site.secure for site in self._sites):
            self._profile(text)
        if main.has("http-extra"):
            text.add("", _OWN)
            text.raw(_dedented(main.lines("http-extra")))
        self._unknown(text)
        if main.has("stub-status"):
            self._stub_status(text)
        for site in self._sites:
            self._servers(text, site)

    def _logs(self, text: _Text) -> None:
        main = self._main
        place, kind = main.place("access-log"), main.text("access-log")
        text.add("", place)
        if kind == "off":
            text.add("access_log off;", place)
            return
        if kind == "json":
            text.add("log_format json escape=json", place)
            fields = (
                '"time":"$time_iso8601","remote_addr":"$remote_addr","request_id":"$request_id",',
                '"method":"$request_method","uri":"$request_uri","status":$status,',
                '"bytes":$body_bytes_sent,"request_time":$request_time,',
                '"upstream_time":"$upstream_response_time","host":"$host",',
                '"referer":"$http_referer","user_agent":"$http_user_agent",',
                '"xff":"$http_x_forwarded_for"',
            )
            for number, line in enumerate(fields):
                first, last = number == 0, number == len(fields) - 1
                text.add(f"    '{'{' * first}{line}{'}' * last}'{';' * last}", place)
        condition = ""
        if main.has("access-log-exclude"):
            where = main.place("access-log-exclude")
            with text.block("map $uri $logged", where):
                text.add("default 1;", where)
                for url in main.text("access-log-exclude").split():
                    text.add(f"{_word(url)} 0;", where)
            condition = " if=$logged"
        path = main.text("access-log-path")
        path = (
            path if path.startswith("syslog:") else _word(self._path(path, "access-log-path"))
        )
        text.add(f"access_log {path} {kind}{condition};", place)

    def _compression(self, text: _Text) -> None:
        main = self._main
        place = main.place("gzip")
        text.add("", place)
        if not main.on("gzip"):
            text.add("gzip off;", place)
            return
        text.add("gzip on;", place)
        text.add(_directive("gzip-comp-level", main), main.place("gzip-comp-level"))
        text.add(_directive("gzip-min-length", main), main.place("gzip-min-length"))
        text.add("gzip_proxied any;", place)
        text.add("gzip_vary on;", place)
        words, line = main.text("gzip-types").split(), "gzip_types"
        for word in words:
            if len(line) + len(word) > 76:
                text.add(line, main.place("gzip-types"))
                line = "   "
            line += f" {word}"
        text.add(f"{line};", main.place("gzip-types"))

    def _client(self, text: _Text) -> None:
        """Who the client is, and what it has asked for."""
        main = self._main
        if main.has("trusted-proxies"):
            place = main.place("trusted-proxies")
            networks = main.text("trusted-proxies").split()
            text.add("", place)
            text.comment("Who may say where a request came from, and by which protocol.", place)
            for network in networks:
                text.add(f"set_real_ip_from {network};", place)
            where = main.place("real-ip-header") if main.has("real-ip-header") else place
            text.add(f"real_ip_header {self._real_ip_header()};", where)
            text.add("real_ip_recursive on;", place)
            if self._believes_headers():
                self._forwarded(text, networks, place)
        self._forced(text)
        if not any(site.passes or site.options.has("redirect-names") for site in self._sites):
            return
        text.add("", _OWN)
        text.comment(
            "The port as the browser sees it, docker run -p 9000:8080 for instance: Django "
            "compares the Host header with the origin of a form.",
            _OWN,
        )
        with text.block("map $http_host $host_port", _OWN):
            text.add('default "";', _OWN)
            text.add(
                '"~^(?:[^:]+|\\[[0-9a-fA-F:.]+\\])(?<client_port>:[0-9]{1,5})$" $client_port;',
                _OWN,
            )
        if any(site.options.on("websockets") for site in self._sites):
            kept = any(level.text("keepalive") != "off" for level in self._upstreams.values())
            text.add("", _OWN)
            text.comment("WebSockets, and no other protocol, may take a connection over.", _OWN)
            with text.block("map $http_upgrade $upgrade", _OWN):
                text.add('default "";', _OWN)
                text.add('"~*^websocket$" websocket;', _OWN)
            with text.block("map $upgrade $connection_header", _OWN):
                text.add("default upgrade;", _OWN)
                text.add(f'"" {_word("") if kept else "close"};', _OWN)

    @staticmethod
    def _forwarded(text: _Text, networks: Sequence[str], place: str) -> None:
        """The protocol that a client has used, as a trusted proxy says."""
        with text.block("geo $realip_remote_addr $from_trusted_proxy", place):
            text.add("default 0;", place)
            for network in networks:
                if network != "unix:":
                    text.add(f"{network} 1;", place)
        trusted = "$from_trusted_proxy"
        if "unix:" in networks:
            trusted = "$trusted"
            with text.block("map $realip_remote_addr $trusted", place):
                text.add("default $from_trusted_proxy;", place)
                text.add("unix: 1;", place)
        with text.block(f'map "{trusted}:$http_x_forwarded_proto" $forwarded_proto', place):
            text.add("default $scheme;", place)
            text.add('"~^1:https(,|$)" https;', place)
            text.add('"~^1:http(,|$)" http;', place)

    def _forced(self, text: _Text) -> None:
        """What comes by HTTP to a site that wants HTTPS, but for its health."""
        forced = [
            site
            for site in self._sites
            if site.options.text("tls") == "edge" and site.options.on("force-https")
        ]
        if not forced:
            return
        place = forced[0].options.place("force-https")
        with text.block('map "$forwarded_proto:$uri" $insecure', place):
            text.add("default 0;", place)
            if self._main.text("health") != "off":
                text.add(f"{_quoted('http:' + self._main.text('health'))} 0;", place)
            text.add('"~^http:" 1;', place)

    def _all_upstreams(self, text: _Text) -> None:
        for name, servers in sorted(self._plain_upstreams.items()):
            place = servers[0][1] if servers else name
            text.add("", place)
            with text.block(f"upstream {name}", place):
                # where there is no other, it is asked again at once
                again = " fail_timeout=0" * (len(servers) == 1)
                for server, where in servers:
                    text.add(f"server {_word(server)}{again};", where)
        for name, level in sorted(self._upstreams.items()):
            place = f"upstream.{name}"
            text.add("", place)
            with text.block(f"upstream {name}", place):
                if level.text("balance") != "round-robin":
                    text.add(f"{level.text('balance')};", level.place("balance"))
                for line, where in level.lines("servers"):
                    first, *more = line.split()
                    words = [_word(self._server(first, where)), *more]
                    for option in ("max-fails", "fail-timeout"):
                        key = option.replace("-", "_") + "="
                        alone = option == "fail-timeout" and len(level.lines("servers")) == 1
                        value = level.text(option) or "0" * alone
                        if value and key not in line:
                            words.append(f"{key}{value}")
                    text.add(f"server {' '.join(words)};", where)
                if level.text("keepalive") != "off":
                    text.add(_directive("keepalive", level), level.place("keepalive"))
                text.raw(_dedented(level.lines("extra")))

    def _profile(self, text: _Text) -> None:
        main = self._main
        place = main.place("tls-profile")
        profile = main.text("tls-profile")
        text.add("", place)
        text.comment(f"Mozilla's guidelines, version 6, {profile}.", place)
        modern = profile == "modern"
        text.add(f"ssl_protocols {'' if modern else 'TLSv1.2 '}TLSv1.3;", place)
        if not modern:
            text.add(f"ssl_ciphers {_CIPHERS};", place)
        curves = f"{_POST_QUANTUM}:{_CURVES}" if self._openssl >= (3, 5) else _CURVES
        text.add(f"ssl_ecdh_curve {curves};", place)
        text.add("ssl_prefer_server_ciphers off;", place)
        text.add("ssl_session_timeout 1d;", place)
        text.add("ssl_session_cache shared:tls:10m;", place)
        text.add("ssl_session_tickets off;", place)

    def _listen(self, site: _Site, address: str, words: str = "") -> str:
        level = site.options
        if level.on("proxy-protocol"):
            words += " proxy_protocol"
        if not address.startswith("unix:") and self._sites[0] is site:
            if level.on("reuseport"):
                words += " reuseport"
            if level.has("backlog"):
                words += f" backlog={level.text('backlog')}"
        return f"listen {_word(address)}{words};"

    def _unknown(self, text: _Text) -> None:
        """The servers for hosts that are no site's."""
        answer = self._main.text("default-server")
        place = self._main.place("default-server")
        for secure in (False, True):
            addresses: dict[str, _Site] = {}
            for site in self._sites:
                for address in site.secure if secure else site.plain:
                    addresses.setdefault(address, site)
            open_ = {
                address
                for site in self._sites
                if site.any_host or answer == "site"
                for address in (site.secure if secure else site.plain)
            }
            closed = {key: site for key, site in addresses.items() if key not in open_}
            if not closed:
                continue
            text.add("", place)
            text.comment(
                "Requests for another host are refused"
                + (
                    ", but whoever asks for nginx's health may not know the host's name."
                    if self._main.text("health") != "off" and not secure
                    else "."
                ),
                place,
            )
            with text.block("server", place):
                for address, site in closed.items():
                    words = " default_server"
                    if secure:
                        words = " ssl" + self._http2(site) + words
                    text.add(self._first(site, address, words), place)
                    if secure and site.options.on("http3") and not address.startswith("unix:"):
                        # reuseport: a client's packets come to the worker that has it
                        text.add(
                            f"listen {_word(address)} quic reuseport default_server;", place
                        )
                if secure:
                    text.add("ssl_reject_handshake on;", place)
                text.add("server_name _;", place)
                if secure:
                    with text.block("location /", place):
                        text.add("return 421;", place)
                    continue
                self._health(text)
                with text.block("location /", place):
                    if answer == "444":
                        text.comment("no answer, the connection is closed", place)
                        text.add("return 444;", place)
                    else:
                        text.add("default_type text/plain;", place)
                        text.add(f'return {answer} "{_NO_SITE}\\n";', place)

    def _first(self, site: _Site, address: str, words: str) -> str:
        """A listen directive with all that only one for each address may have."""
        level = site.options
        if level.on("proxy-protocol"):
            words += " proxy_protocol"
        if not address.startswith("unix:"):
            if level.on("reuseport"):
                words += " reuseport"
            if level.has("backlog"):
                words += f" backlog={level.text('backlog')}"
        return f"listen {_word(address)}{words};"

    def _http2(self, site: _Site) -> str:
        """HTTP/2 as a word of listen, as it was before nginx 1.25.1."""
        return " http2" if site.options.on("http2") and self._nginx < (1, 25, 1) else ""

    def _health(self, text: _Text) -> None:
        url = self._main.text("health")
        if url != "off":
            place = self._main.place("health")
            with text.block(f"location = {_word(url)}", place):
                text.add("access_log off;", place)
                text.add("default_type text/plain;", place)
                text.add('return 200 "ok\\n";', place)

    def _stub_status(self, text: _Text) -> None:
        place = self._main.place("stub-status")
        addresses = self._listened(self._main, "stub-status")
        if len(addresses) != 1:
            self._error(f"{place} has {len(addresses)} addresses", "write one: 127.0.0.1:8081")
            return
        text.add("", place)
        with text.block("server", place):
            text.add(f"listen {_word(addresses[0])};", place)
            text.add("access_log off;", place)
            with text.block("location = /stub_status", place):
                text.add("stub_status;", place)
                for line in ("allow 127.0.0.1;", "allow ::1;", "deny all;"):
                    text.add(line, place)

    def _servers(self, text: _Text, site: _Site) -> None:
        level = site.options
        tls = level.text("tls") == "on"
        redirects = tls and (level.text("force-https") != "false")
        names = " ".join(site.names) or "_"
        place = level.place("server-names")
        if level.has("redirect-names"):
            self._redirect_names(text, site, secure=False)
            if site.secure:
                self._redirect_names(text, site, secure=True)
        if redirects and site.plain:
            text.add("", _OWN)
            text.comment("Everything by HTTPS.", level.place("force-https"))
            with text.block("server", place):
                self._listens(text, site, site.plain, secure=False)
                text.add(f"server_name {names};", place)
                self._health(text)
                if level.has("acme-challenge"):
                    challenge = _Location(f"^~ {_ACME}", level.place("acme-challenge"))
                    self._acme(site, challenge)
                    with text.block(f"location {challenge.title}", challenge.place):
                        text.raw(challenge.body)
                with text.block("location /", place):
                    text.add(f"return 301 https://$host{self._https(site)}$request_uri;", place)
        text.add("", _OWN)
        with text.block("server", place):
            if not redirects:
                self._listens(text, site, site.plain, secure=False)
            self._listens(text, site, site.secure, secure=True)
            text.add(f"server_name {names};", place)
            if tls:
                self._tls_files(text, site)
            self._site_body(text, site)

    def _redirect_names(self, text: _Text, site: _Site, *, secure: bool) -> None:
        level = site.options
        place = level.place("redirect-names")
        text.add("", place)
        with text.block("server", place):
            self._listens(
                text, site, site.secure if secure else site.plain, secure=secure, extra=True
            )
            text.add(f"server_name {level.text('redirect-names')};", place)
            if secure:
                self._tls_files(text, site)
                for header, value, where in site.headers:
                    if header == "Strict-Transport-Security":
                        text.add(f"add_header {header} {value};", where)
            self._health(text)
            with text.block("location /", place):
                to_https = level.text("tls") == "on" and level.text("force-https") != "false"
                if to_https or secure:
                    target = f"https://{site.names[0]}{self._https(site)}"
                else:
                    target = f"{self._scheme()}://{site.names[0]}$host_port"
                text.add(f"return 301 {target}$request_uri;", place)

    def _listens(
        self,
        text: _Text,
        site: _Site,
        addresses: Sequence[str],
        *,
        secure: bool,
        extra: bool = False,
    ) -> None:
        level = site.options
        place = level.place("listen-tls" if secure else "listen")
        opens = (site.any_host or self._main.text("default-server") == "site") and not extra
        for address in addresses:
            words = " ssl" + self._http2(site) if secure else ""
            first = opens and self._opener(address, secure) is site
            if first:
                text.add(self._first(site, address, f"{words} default_server"), place)
            else:
                words += " proxy_protocol" if level.on("proxy-protocol") else ""
                text.add(f"listen {_word(address)}{words};", place)
            if secure and level.on("http3") and not address.startswith("unix:"):
                quic = " quic reuseport default_server" if first else " quic"
                text.add(f"listen {_word(address)}{quic};", level.place("http3"))
        if secure and addresses and level.on("http2") and self._nginx >= (1, 25, 1):
            text.add("http2 on;", level.place("http2"))

    def _opener(self, address: str, secure: bool) -> _Site | None:
        """The site that answers for every host at an address."""
        answer = self._main.text("default-server") == "site"
        here = [
            site for site in self._sites if address in (site.secure if secure else site.plain)
        ]
        openers = [site for site in here if site.any_host] or (here if answer else [])
        return openers[0] if openers else None

    def _tls_files(self, text: _Text, site: _Site) -> None:
        level = site.options
        for option, directive in (
            ("tls-certificate", "ssl_certificate"),
            ("tls-key", "ssl_certificate_key"),
            ("tls-client-ca", "ssl_client_certificate"),
        ):
            if level.has(option):
                place = level.place(option)
                text.add(f"{directive} {_word(self._path(level.text(option), place))};", place)
        if level.has("tls-client-ca"):
            verify = level.text("tls-verify-client")
            text.add(f"ssl_verify_client {verify};", level.place("tls-verify-client"))

    def _site_body(self, text: _Text, site: _Site) -> None:
        level = site.options
        text.add("", _OWN)
        for option in ("client-max-body-size", "client-body-buffer-size"):
            if level.text(option):
                text.add(_directive(option, level), level.place(option))
        for line, place in self._access(level):
            text.add(line, place)
        if level.text("tls") == "edge" and level.on("force-https"):
            place = level.place("force-https")
            with text.block("if ($insecure)", place):
                text.add(f"return 301 https://$host{self._https(site)}$request_uri;", place)
        text.add("", _OWN)
        text.comment(
            "Headers are set once, here: an add_header in a location would drop all these.  An "
            "empty value sends no header.",
            _OWN,
        )
        for header, value, place in site.headers:
            text.add(f"add_header {header} {value};", place)
        if site.passes:
            self._proxy(text, site)
        text.raw([("", _OWN), *_dedented(level.lines("server-extra"))])
        for title in sorted(site.locations, key=_location_order):
            location = site.locations[title]
            text.add("", location.place)
            with text.block(f"location {title}", location.place):
                text.raw(location.body)
        if site.passes:
            self._error_pages(text, site)

    def _proxy(self, text: _Text, site: _Site) -> None:
        level = site.options
        text.add("", _OWN)
        text.add("proxy_http_version 1.1;", _OWN)
        headers = [
            ("Host", "$host$host_port", _OWN),
            ("X-Real-IP", "$remote_addr", _OWN),
            (
                "X-Forwarded-For",
                "$remote_addr"
                if level.text("forwarded-for") == "replace"
                else "$proxy_add_x_forwarded_for",
                level.place("forwarded-for"),
            ),
            ("X-Forwarded-Proto", self._scheme(), _OWN),
            ("X-Forwarded-Host", "$host$host_port", _OWN),
            ("X-Request-ID", "$request_id", _OWN),
        ]
        if level.on("websockets"):
            headers += [
                ("Upgrade", "$upgrade", level.place("websockets")),
                ("Connection", "$connection_header", level.place("websockets")),
            ]
        else:
            kept = any(one.text("keepalive") != "off" for one in self._upstreams.values())
            headers.append(("Connection", '""' if kept else "close", _OWN))
        # CGI programs would take Proxy for the variable HTTP_PROXY; of the others some
        # frameworks make addresses, and clients could say what they want in them
        for name in ("Proxy", "Forwarded", "X-Forwarded-Port", "X-Forwarded-Prefix"):
            headers.append((name, '""', _OWN))
        headers += [(name, '""', _OWN) for name in ("X-Forwarded-Ssl", "X-Script-Name")]
        for line, place in level.lines("proxy-headers"):
            name, _, value = line.partition(": ")
            self._no_dollar(place, value)
            headers = [one for one in headers if one[0].lower() != name.lower()]
            headers.append((name, _quoted(value), place))
        for name, value, place in headers:
            text.add(f"proxy_set_header {name} {value};", place)
        for option in ("proxy-connect-timeout", "proxy-send-timeout", "proxy-read-timeout"):
            text.add(_directive(option, level), level.place(option))
        for option in ("proxy-buffering", "proxy-request-buffering"):
            if not level.on(option):
                text.add(_directive(option, level), level.place(option))
        text.add("proxy_redirect off;", _OWN)
        text.comment("where a server can't be reached another is asked, if that is safe", _OWN)
        text.add("proxy_next_upstream error;", _OWN)

    def _error_pages(self, text: _Text, site: _Site) -> None:
        level = site.options
        pages = [("error-page", "502 504 =503", _UNAVAILABLE, _SORRY)]
        if level.has("maintenance"):
            pages.append(("maintenance-page", "503", _MAINTENANCE, _CLOSED))
        text.add("", _OWN)
        for option, codes, url, _ in pages:
            text.add(f"error_page {codes} {url};", level.place(option))
        for option, _, url, page in pages:
            place = level.place(option)
            with text.block(f"location = {url}", place):
                text.add("internal;", place)
                if level.has("auth-basic-user-file"):
                    text.add("auth_basic off;", place)
                text.add("default_type text/html;", place)
                if level.has(option):
                    text.add(f"alias {_word(self._path(level.text(option), place))};", place)
                else:
                    text.add(f'return 503 "{page}\\n";', place)


def _directive(option: str, level: _Level) -> str:
    """An option that is a directive of nginx."""
    value = level.text(option)
    value = {"true": "on", "false": "off"}.get(value, value)
    return f"{option.replace('-', '_')} {value};"


def _at(place: str, option: str) -> str:
    """A place and an option, without saying the option twice."""
    return place if place.split(",")[0] == option else f"{place}: {option}"


def _lines_of(text: str, option: str) -> list[tuple[str, str]]:
    lines = text.split("\n")
    if len(lines) == 1:
        return [(text, option)]
    return [(line, f"{option}, line {number}") for number, line in enumerate(lines, 1)]


def _dedented(lines: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Lines without what they are all indented by."""
    depth = min(
        (len(line) - len(line.lstrip()) for line, _ in lines if line.strip()), default=0
    )
    return [(line[depth:] if line.strip() else "", place) for line, place in lines]


def _location_order(title: str) -> tuple[int, str]:
    """Exact ones first, then prefixes by their paths; regular expressions as they are tried."""
    if title.startswith("="):
        return 0, title
    return (2, "") if title.startswith("~") else (1, title.removeprefix("^~").strip())


def _word(text: str) -> str:
    """A word that nginx reads as it is."""
    return text if text and _PLAIN.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    escaped = re.sub(r"""\\(?=[\\"'trn]|$)""", r"\\\\", text)
    return '"' + escaped.replace('"', '\\"') + '"'


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
