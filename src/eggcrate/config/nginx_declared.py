"""Declared options of nginx-config: options in, a configuration for people out.

The text is that of an expert for an application server behind nginx in a container: it runs as
any user on a read-only root, sends every header once, believes only the proxies that are named,
and answers unknown hosts in one place.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import re
from collections.abc import Iterator, Mapping, Sequence

from eggcrate.config import nginx_writing
from eggcrate.config.nginx_model import (
    ACME,
    HEALTH,
    OPENSSL,
    OWN,
    Certificate,
    Level,
    Location,
    Site,
    Surroundings,
    Value,
    as_directive,
    as_quoted,
    as_version,
    as_word,
    at,
    dedented,
    lines_of,
    shortened,
)
from eggcrate.config.nginx_options import LOCATION, MAIN, NAMED, SITE, UPSTREAM, raw
from eggcrate.config.references import Rendered
from eggcrate.errors import EggcrateError, SettingsError
from eggcrate.runtime import values

_YEARS = "63072000"  # two of them, in seconds

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_ADDRESS = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s\[\]:]+):)?(?P<port>[0-9]+)")
_UPSTREAM_HOST = re.compile(r"\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_LONGEST_SOCKET = 107  # bytes of a path (unix(7))
_MODIFIED = re.compile(r"(?:(=|\^~|~\*|~)\s*)?(.+)", re.DOTALL)


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
    return nginx_writing.written(Configuration(options, around))


def certificates(options: Mapping[str, str], around: Surroundings) -> list[Certificate]:
    """The pairs of certificate and key that the sites name, with their server names."""
    return Configuration(options, around).certificates


class Configuration:
    """The options on their way to a text."""

    def __init__(self, options: Mapping[str, str], around: Surroundings) -> None:
        self.around = around
        self.errors: list[EggcrateError] = []
        self.upstreams: dict[str, Level] = {}
        self.plain_upstreams: dict[str, list[tuple[str, str]]] = {}
        self.maps: dict[tuple[str, tuple[str, ...]], tuple[str, str, str]] = {}
        self.zones: list[tuple[str, str]] = []
        self.certificates: list[Certificate] = []
        self.main = Level(around.part, {**MAIN, **SITE})
        locations: dict[str, Level] = {}
        sites: dict[str, Level] = {}
        for option in sorted(options):
            kind, dot, name = option.partition(".")
            if not dot:
                self._take(self.main, option, lines_of(options[option], option))
            elif not _NAME.fullmatch(name):
                self.error(
                    f"{option}: {name!r} is no name",
                    f"write {kind}.NAME, with a NAME of small letters, digits, _ and -",
                )
            else:
                table = {"site": SITE, "location": LOCATION, "upstream": UPSTREAM}[kind]
                parent = self.main if kind == "site" else None
                into = {"site": sites, "location": locations, "upstream": self.upstreams}[kind]
                into[name] = Level(name, table, parent)
                self._section(into[name], option, options[option])
        by_suffix: dict[str, str] = {}
        for name in sorted(sites):
            other = by_suffix.setdefault(name.replace("-", "_"), name)
            if other != name:
                self.error(
                    f"site.{name}: nginx's names have _ for -, and there is site.{other}",
                    "give one of the two another name",
                )
        self._version()
        self._levels = [self.main, *sites.values()]
        self.sites = [self._site(name, level, sites) for name, level in sorted(sites.items())]
        if not self.sites:
            self.sites = [self._site("", self.main, sites)]
        self._place_locations(locations)
        for site in self.sites:
            self._headers(site)
        self._check_upstreams()
        self._check_names()

    # From options to values

    def error(self, what: str, hint: str) -> None:
        """Note what is wrong; it is raised with all else."""
        self.errors.append(SettingsError(what, hint))

    def _section(self, level: Level, option: str, text: str) -> None:
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
                self.error(
                    f"{place}: {shortened(line.strip())} is no option",
                    "write name = value, one a line; begin a line with a blank to go on with "
                    "the value before it",
                )
                name, lines = "", []
                continue
            name, lines, start = key, [(value, place)] if value else [], place
        self._named(level, name, lines, start)

    def _named(
        self, level: Level, name: str, lines: Sequence[tuple[str, str]], place: str
    ) -> None:
        if not name:
            return
        if name in level.given:
            self.error(f"{place}: {name} is there twice", "leave one of the two out")
        elif name not in level._table:
            near = difflib.get_close_matches(name, sorted(level._table), 1)
            self.error(
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
            self._take(level, name, dedented(lines), place)

    def _take(
        self, level: Level, name: str, lines: Sequence[tuple[str, str]], place: str = ""
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
            level.given[name] = Value(text, place, tuple(lines))

    @contextlib.contextmanager
    def _noting(self, place: str, name: str) -> Iterator[None]:
        try:
            yield
        except ValueError as error:
            where = place if place.split(",")[0] == name else f"{place}: {name}"
            self.error(f"{where} {error}", "correct the value")

    def _version(self) -> None:
        def numbers(option: str, otherwise: tuple[int, ...]) -> tuple[int, ...]:
            text = self.main.text(option)
            return tuple(map(int, text.split("."))) if text else otherwise

        self.nginx = numbers("nginx-version", self.around.nginx)
        self.openssl = numbers("openssl-version", self.around.openssl)
        if self.main.has("nginx-version") and not self.main.has("openssl-version"):
            self.openssl = OPENSSL  # what is known of this machine's is no news of that one

    def path(self, text: str, place: str, *, captures: bool = False) -> str:
        """A path in the configuration, absolute, with quotes where it needs some."""
        path = os.path.normpath(os.path.join(self.around.directory, text))
        if text.endswith("/") and path != "/":
            path += "/"
        plain = re.sub(r"\$(?:[1-9]|[a-z]\w*)", "", path) if captures else path
        if re.search(r"[$\x00-\x1f\x7f]", plain):
            self.error(
                f"{place}: nginx can't be given the path {shortened(path)}",
                "choose one without $ and control characters",
            )
        return path

    # Sites

    def _site(self, name: str, level: Level, sites: Mapping[str, Level]) -> Site:
        suffix = f"_{name.replace('-', '_')}" if len(sites) > 1 else ""
        names = level.text("server-names").split()
        place = level.place("server-names")
        for twice in sorted({one for one in names if names.count(one) > 1}):
            self.error(f"{place}: {twice} is there twice", "take one of the two out")
        tls = level.text("tls")
        secure = self._addresses(level, "listen-tls") if tls == "on" else []
        site = Site(name, level, suffix, names, self._addresses(level, "listen"), secure)
        if not site.plain and not secure and not level.text("listen").strip():
            self.error(
                f"{level.place('listen')}: there is no address to listen on",
                "set listen to a port, as listen = 8080",
            )
        self._tls(site)
        if level.has("upstream"):
            site.upstream = self._pass(level, site, level.lines("upstream"))
        self._directories(site)
        if level.has("redirect-names") and (not names or names[0][0] in "*._"):
            self.error(
                f"{level.place('redirect-names')}: redirect-names has no name to redirect to",
                "set server-names, with the right name first",
            )
        return site

    def _addresses(self, level: Level, option: str) -> list[str]:
        """Where a site listens, as nginx writes it, each once."""
        found = self.listened(level, option)
        for twice in sorted({one for one in found if found.count(one) > 1}):
            self.error(
                f"{at(level.place(option), option)} {twice} is there twice", "take one out"
            )
        return list(dict.fromkeys(found))

    def listened(self, level: Level, option: str) -> list[str]:
        """The addresses of an option, as nginx writes them."""
        found: list[str] = []
        for word in level.text(option).split():
            place = level.place(option)
            if word.startswith("unix:"):
                found.append(self._unix(word, at(place, option)))
                continue
            address = _ADDRESS.fullmatch(word)
            try:
                if address is None:
                    raise ValueError("must be a port or an address and a port, as 8080")
                values.port(address["port"])
                if address["host"] not in (None, "*"):
                    values.hostname(address["host"])
            except ValueError as error:
                self.error(
                    f"{at(place, option)} {shortened(word)} {error}",
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
            self.error(
                f"{place}: {word} names no socket", "write unix:var/run/web.sock, for example"
            )
            return word
        path = self.path(path, place)
        if len(os.fsencode(path)) > _LONGEST_SOCKET:
            self.error(
                f"{place}: the path {shortened(path)} is longer than {_LONGEST_SOCKET} bytes, "
                "which is all that a Unix socket may have",
                "choose a shorter one, below /run for instance",
            )
        return f"unix:{path}"

    def _tls(self, site: Site) -> None:
        level = site.options
        tls = level.text("tls")
        files = [("tls-certificate", True), ("tls-key", True), ("tls-client-ca", False)]
        files += [("tls-verify-client", False)]
        for option, needed in files:
            if tls == "on" and needed and not level.has(option):
                self.error(
                    f"{at(level.place('tls'), 'tls')} is on, and there is no {option}",
                    f"set {option} to a PEM file, or tls to edge if something else has it",
                )
            if tls != "on" and option in level.given:
                self.error(
                    f"{level.place(option)}: {option} means nothing unless tls is on",
                    f"set tls = on, or take {option} out",
                )
        if tls != "on" and level.on("http3"):
            self.error(
                f"{at(level.place('http3'), 'http3')} means nothing unless tls is on",
                "set tls = on, or take http3 out",
            )
        if (
            tls == "on"
            and "tls-verify-client" in level.given
            and not level.has("tls-client-ca")
        ):
            self.error(
                f"{level.place('tls-verify-client')}: there is no tls-client-ca to verify with",
                "set tls-client-ca to the certificate of the authority",
            )
        addresses = [name for name in site.names if re.fullmatch(r"[0-9.]+|\[.*\]", name)]
        if tls == "on" and addresses and self.main.text("default-server") != "site":
            self.error(
                f"{at(level.place('server-names'), 'server-names')}: no client says "
                f"{addresses[0]} in its TLS handshake, so none would get through",
                f"take {addresses[0]} out, or set default-server = site",
            )
        if tls == "off" and level.text("hsts") not in ("", "off"):
            self.error(
                f"{at(level.place('hsts'), 'hsts')} means nothing where tls is off",
                "set tls to on or edge, or take hsts out",
            )
        if tls == "off" and level.on("force-https"):
            self.error(
                f"{at(level.place('force-https'), 'force-https')} needs tls",
                "set tls to on or edge, or take force-https out",
            )
        if tls == "edge" and not self.main.has("trusted-proxies"):
            self.error(
                f"{at(level.place('tls'), 'tls')} is edge, and nobody is trusted to say so",
                "set trusted-proxies to the networks that the proxies before nginx are in",
            )
        if tls == "edge" and not self.believes_headers():
            self.error(
                f"{at(level.place('tls'), 'tls')} is edge, and proxy-protocol says nothing "
                "of it",
                "set real-ip-header = X-Forwarded-For if the proxy sets such headers itself",
            )
        if level.on("proxy-protocol") and not self.main.has("trusted-proxies"):
            self.error(
                f"{at(level.place('proxy-protocol'), 'proxy-protocol')} needs trusted-proxies",
                "set trusted-proxies to the networks that the proxies before nginx are in",
            )
        if tls == "on" and self.nginx < (1, 19, 4):
            self.error(
                f"tls = on needs nginx 1.19.4, and this is for {as_version(self.nginx)}",
                "set nginx-version to the version that will run it",
            )
        if tls == "on" and level.on("http3") and self.nginx < (1, 25):
            self.error(
                f"{at(level.place('http3'), 'http3')} needs nginx 1.25, and this is for "
                f"{as_version(self.nginx)}",
                "set nginx-version to the version that will run it, or http3 = false",
            )
        if tls == "on" and level.has("tls-certificate") and level.has("tls-key"):
            certificate, key = level.place("tls-certificate"), level.place("tls-key")
            self.certificates.append(
                Certificate(
                    self.path(level.text("tls-certificate"), certificate),
                    self.path(level.text("tls-key"), key),
                    (
                        *(name for name in site.names if name != "_"),
                        *level.text("redirect-names").split(),
                    ),
                    certificate,
                    key,
                )
            )

    def _pass(self, level: Level, site: Site, lines: Sequence[tuple[str, str]]) -> str:
        """The name of the upstream that ``upstream`` means, which may be its servers."""
        words = [
            (word, place)
            for line, place in lines
            if not line.lstrip().startswith("#")
            for word in line.split()
        ]
        if len(words) == 1 and words[0][0] in self.upstreams:
            return words[0][0]
        servers = [(self.server(word, place), place) for word, place in words]
        first = words[0][0] if words else ""
        named = first.startswith("socket:")
        name = re.sub(r"[^\w.-]", "_", first.partition(":")[2]) if named else "application"
        if not named:
            name = f"location_{level.name}" if level is not site.options else name + site.suffix
        while self.plain_upstreams.get(name, servers) != servers or name in self.upstreams:
            name += "_"
        self.plain_upstreams[name] = servers
        return name

    def server(self, word: str, place: str) -> str:
        """One server of an upstream, as nginx writes it."""
        if word.startswith("socket:"):
            try:
                return self.around.socket(word.removeprefix("socket:"))
            except SettingsError as error:
                self.error(f"{at(place, 'upstream')}: {error.what}", error.hint)
                return "127.0.0.1:1"
        if word.startswith("unix:"):
            return self._unix(word, at(place, "upstream"))
        address = _ADDRESS.fullmatch(word)
        try:
            if address is None or not _UPSTREAM_HOST.fullmatch(address["host"] or ""):
                raise ValueError("is no address")
            values.port(address["port"])
        except ValueError:
            if word in self.upstreams:
                self.error(
                    f"{at(place, 'upstream')}: {word} is an upstream.{word}, and there are "
                    "others",
                    f"write {word} alone, or the addresses of all servers",
                )
                return word
            near = difflib.get_close_matches(word, sorted(self.upstreams), 1)
            self.error(
                f"{at(place, 'upstream')}: {shortened(word)} is neither an address nor the "
                "name of an upstream",
                f"write {near[0]}, the nearest name there is"
                if near
                else "write unix:PATH, HOST:PORT, socket:NAME for a socket of a circus-config "
                "part, or the NAME of an upstream.NAME",
            )
        return word

    def _check_upstreams(self) -> None:
        for name, level in sorted(self.upstreams.items()):
            if not level.lines("servers"):
                self.error(
                    f"upstream.{name} has no servers",
                    "add servers = 127.0.0.1:8000, for example",
                )

    def _check_names(self) -> None:
        taken: dict[tuple[str, str], Site] = {}
        for site in self.sites:
            extra = site.options.text("redirect-names").split()
            for name in site.names:
                if name in extra:
                    self.error(
                        f"{at(site.options.place('redirect-names'), 'redirect-names')} "
                        f"{name} is one of server-names, too",
                        "take it out of one of the two",
                    )
            for address in (*site.plain, *site.secure):
                for name in (*(site.names or ["_"]), *extra):
                    other = taken.setdefault((address, name), site)
                    if other is not site:
                        shown = "any name" if name == "_" else name
                        self.error(
                            f"site.{site.name} and site.{other.name} are both {shown} on "
                            f"{address}",
                            "give one of the two other server-names, or another listen",
                        )
            for address in (*site.plain, *site.secure):
                first = next(one for one in self.sites if address in (*one.plain, *one.secure))
                if first.options.on("proxy-protocol") != site.options.on("proxy-protocol"):
                    self.error(
                        f"site.{site.name} and site.{first.name} have {address} with and "
                        "without proxy-protocol",
                        "give one of the two another listen",
                    )
            both = set(site.plain) & {
                address for other in self.sites for address in other.secure
            }
            for address in sorted(both):
                self.error(
                    f"listen: {address} would be both with and without TLS",
                    "choose another port for listen or for listen-tls",
                )

    # Locations

    def _location(self, site: Site, title: str, place: str) -> Location:
        location = Location(title, place)
        if title in site.locations:
            self.error(
                f"{place}: there are two for {title}, the other one at "
                f"{site.locations[title].place}",
                "take one of the two out",
            )
        else:
            site.locations[title] = location
        return location

    def _directories(self, site: Site) -> None:
        """The locations of files: static, media, protected and files."""
        level = site.options
        if self.main.text("health") != "off":
            health = self._location(site, f"= {self.main.text('health')}", "health")
            health.body += ((line, health.place) for line in HEALTH)
        for option in ("static", "media", "protected"):
            for text, place in level.lines(option):
                url, path = text.split(None, 1)
                url = url.rstrip("/") + "/"  # else /staticx would lead out of the directory
                location = self._location(site, url, place)
                alias = self.path(path, place).rstrip("/") + "/"
                pattern = rf"^{re.escape(url)}(?!\.well-known/)(?:.*/)?\."
                hidden = self._location(site, f"~ {as_quoted(pattern)}", place)
                hidden.add("# .git and the like are nobody's business")
                hidden.add("return 404;")
                if option == "protected":
                    location.add("# only for answers with X-Accel-Redirect")
                    location.add("internal;")
                location.add(f"alias {as_word(alias)};")
                if option == "static":
                    if level.on("gzip-static"):
                        location.add("gzip_static on;")
                    if level.on("brotli-static"):
                        location.add("brotli_static on;")
                location.add("log_not_found off;")
        if level.has("acme-challenge"):
            place = level.place("acme-challenge")
            self.acme(site, self._location(site, f"^~ {ACME}", place))
        for text, place in level.lines("files"):
            url, path = text.split(None, 1)
            location = self._location(site, f"= {url}", place)
            location.add(f"alias {as_word(self.path(path, place))};")
            location.add("log_not_found off;")

    def acme(self, site: Site, location: Location) -> None:
        """Where an authority looks for what it has asked for."""
        place = site.options.place("acme-challenge")
        path = self.path(site.options.text("acme-challenge"), place).rstrip("/")
        location.add(f"alias {as_word(path + '/')};", place)
        location.add("default_type text/plain;", place)

    def _place_locations(self, locations: Mapping[str, Level]) -> None:
        """The locations of the sites that are passed on, and those of location.NAME."""
        known = [site.name for site in self.sites if site.name]
        for name, level in sorted(locations.items()):
            wanted = level.text("sites").split()
            for missing in [one for one in wanted if one not in known]:
                near = difflib.get_close_matches(missing, known, 1)
                self.error(
                    f"{level.place('sites')}: there is no site.{missing}",
                    f"write {near[0]}" if near else "take sites out, or add the site",
                )
            for site in self.sites:
                if not wanted or site.name in wanted:
                    self._declared_location(site, name, level)
        health = int(self.main.text("health") != "off")
        for site in self.sites:
            level = site.options
            extra = level.has("location-extra") or level.has("server-extra")
            if not site.upstream and not extra and len(site.locations) == health:
                self.error(
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
                    location.body += dedented(level.lines("location-extra"))
                elif level.has("location-extra"):
                    location.body += dedented(level.lines("location-extra"))
                else:
                    location.add("return 404;")
            elif level.has("location-extra"):
                self.error(
                    f"{level.place('location-extra')}: location-extra is for the location / "
                    "that upstream makes",
                    "write extra in the location that you declared",
                )

    def _declared_location(self, site: Site, name: str, level: Level) -> None:
        source = f"location.{name}"
        text = level.text("path").strip() or f"/{name}/"
        match = _MODIFIED.fullmatch(text)
        assert match  # it fits every text
        modifier, path = match.groups()
        if (modifier in (None, "=", "^~") and not path.startswith("/")) or "\n" in path:
            self.error(
                f"{at(level.place('path'), 'path')}: {shortened(text)} is no path of a URL",
                "write /path/ for all below it, = /path for itself, or ~ and a regular "
                "expression",
            )
            return
        quoted = as_word(path) if modifier in (None, "=", "^~") else as_quoted(path)
        title = f"{modifier} {quoted}" if modifier else quoted
        location = self._location(
            site, title, level.place("path") if level.has("path") else source
        )
        ways = [way for way in ("upstream", "alias", "return") if level.has(way)]
        if len(ways) > 1:
            self.error(f"{source} has both {ways[0]} and {ways[1]}", "leave one of the two out")
            return
        if level.on("internal"):
            location.add("internal;", level.place("internal"))
        if level.has("alias"):
            place = level.place("alias")
            captures = modifier in ("~", "~*")
            alias = self.path(level.text("alias"), place, captures=captures)
            if path.endswith("/") and modifier != "=":
                alias = alias.rstrip("/") + "/"
            self._limits(site, location, level, f"location_{name}")
            location.add(f"alias {as_word(alias)};", place)
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
            self.error(
                f"{source} has neither upstream, alias nor return",
                "say in it, or with upstream of the site, what is to be there",
            )
        location.body += dedented(level.lines("extra"))

    def _returned(self, site: Site, location: Location, level: Level, source: str) -> None:
        """An answer of the configuration itself, which nginx gives before it looks further."""
        text = level.text("return").strip().removesuffix(";")
        restricting = ("allow", "deny", "auth-basic-user-file")
        limits = ("rate-limit", "connection-limit")
        own = [option for option in (*restricting, *limits) if level.has(option)]
        above = [option for option in restricting if site.options.has(option)]
        if own or (above and not re.match(r"(?:204|[345]\d\d)\b|https?://", text)):
            option = (own or above)[0]
            self.error(
                f"{source}: nginx gives what return says before it looks at {option}",
                f"take {option} out, or let alias or upstream give the answer",
            )
        location.add(f"return {text};", level.place("return"))

    def _limits(self, site: Site, location: Location, level: Level, zone: str) -> None:
        if level is not site.options:
            location.body += self.access(level, site.options)
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
            if line not in [known for known, _ in self.zones]:
                self.zones.append((line, place))
            location.add(f"limit_req zone={zone} {' '.join(words)};", place)
        connections = level.text("connection-limit")
        if connections == "off" and "connection-limit" not in level.given:
            connections = site.options.text("connection-limit")
        if connections != "off":
            line = "limit_conn_zone $binary_remote_addr zone=connections:10m;"
            place = level.place("connection-limit")
            if line not in [known for known, _ in self.zones]:
                self.zones.append((line, place))
            location.add(f"limit_conn connections {connections};", place)

    def access(self, level: Level, above: Level | None = None) -> Iterator[tuple[str, str]]:
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
            self.error(
                f"{place}: auth-basic has no file of passwords, so nobody would be asked",
                "set auth-basic-user-file, too",
            )
        if realm == "off" and "auth-basic" in level.given:
            yield "auth_basic off;", place
        elif users:
            place = level.place("auth-basic-user-file")
            yield f"auth_basic {as_quoted(realm)};", place
            yield f"auth_basic_user_file {as_word(self.path(users, place))};", place

    def _proxied(
        self, site: Site, location: Location, level: Level, upstream: str, zone: str
    ) -> None:
        """What is in a location that passes its requests on."""
        options = site.options
        if options.has("maintenance"):
            place = options.place("maintenance")
            flag = self.path(options.text("maintenance"), place)
            location.add(f"if (-f {as_word(flag)}) {{", place)
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
                    location.add(as_directive(option, level), level.place(option))
        location.add(f"proxy_pass http://{upstream};", level.place("upstream"))

    @staticmethod
    def https(site: Site) -> str:
        """The port of an address by HTTPS, if it has to be said."""
        port = site.options.text("https-port")
        return "" if port == "443" else f":{port}"

    # Headers and maps

    def _map(
        self, site: Site, source: str, name: str, entries: Sequence[str], why: str, place: str
    ) -> str:
        """Have a map; its variable.  Sites with the same one share it."""
        key = (source, tuple(entries))
        if key not in self.maps:
            names = {known for known, _, _ in self.maps.values()}
            self.maps[key] = (name + site.suffix if name in names else name, why, place)
        return f"${self.maps[key][0]}"

    def _headers(self, site: Site) -> None:
        """Each header that the site sends, with its value and whether errors have it, too."""
        level = site.options
        add = site.headers.append
        cached = [
            (url, f"{as_quoted(f'~^:{url}')} {value};") for url, value in self._ages(site)
        ]
        for_ever = as_quoted("public, max-age=31536000, immutable")
        hashed = [
            (url, f"{as_quoted(f'~^:{url}{name}')} {for_ever};")
            for url, name in self._hashed(site)
        ]
        policies = [
            f"{as_quoted(f'~^{url}')} \"default-src 'none'; sandbox\";"
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
            value = as_quoted(own) if own else '""'
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
                value = as_quoted(level.text(option))
                add(self._unless_sent(site, header, value, level.place(option)))
        hsts = level.text("hsts") or (_YEARS if level.text("tls") == "on" else "off")
        if hsts != "off" and level.text("tls") != "off":
            promise = "; ".join([f"max-age={hsts.split()[0]}", *hsts.split()[1:]])
            variable = self._map(
                site,
                f'"{self.scheme()}:$upstream_http_strict_transport_security"',
                "transport_security",
                ['default "";', f'"https:" {as_quoted(promise)};'],
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
                OWN,
            )
            add(("Retry-After", f"{variable} always", OWN))
        add(self._unless_sent(site, "X-Request-ID", "$request_id", OWN))
        for text, place in level.lines("headers"):
            name, _, value = text.partition(": ")
            if name.lower() in {known.lower() for known, _, _ in site.headers}:
                self.error(
                    f"{place}: {name} is sent already",
                    "set the option that sends it, or take the header out",
                )
            self.no_dollar(place, value)
            add(self._unless_sent(site, name, as_quoted(value), place))

    def _urls(self, site: Site, option: str) -> list[str]:
        """The URLs below which static or media files are, as regular expressions."""
        return [
            re.escape(text.split()[0].rstrip("/") + "/")
            for text, _ in site.options.lines(option)
        ]

    def _ages(self, site: Site) -> Iterator[tuple[str, str]]:
        """URLs, as regular expressions, and what browsers are told of what is there."""
        level = site.options
        for_people = as_quoted(f"public, max-age={self._seconds(level, 'static-max-age')}")
        for_one = as_quoted(f"private, max-age={self._seconds(level, 'media-max-age')}")
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

    def _hashed(self, site: Site) -> Iterator[tuple[str, str]]:
        """The URLs of files whose names have a hash, and how such a name goes on."""
        pattern = site.options.text("hashed-names")
        if pattern != "off":
            for url in self._urls(site, "static"):
                yield url, f".*(?:{pattern})[^/]*$"

    def no_dollar(self, place: str, value: str) -> None:
        """nginx knows no way to write a dollar before a letter that is no variable."""
        for name in re.findall(r"\$(\w+|\{\w*\}?)?", value):
            if not re.fullmatch(r"[a-z]\w*|\{[a-z]\w*\}", name or ""):
                self.error(
                    f"{place}: nginx can't be given ${name}, which is none of its variables",
                    "write it without the dollar",
                )

    def _seconds(self, level: Level, option: str) -> int:
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
        self, site: Site, header: str, value: str, place: str
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

    def real_ip_header(self) -> str:
        """What says where a request came from; a proxy that speaks TCP has its own protocol."""
        spoken = any(level.on("proxy-protocol") for level in self._levels)
        return self.main.text("real-ip-header") or (
            "proxy_protocol" if spoken else "X-Forwarded-For"
        )

    def believes_headers(self) -> bool:
        """Whether trusted proxies speak HTTP, and so set headers of their own."""
        return self.real_ip_header() != "proxy_protocol"

    def scheme(self) -> str:
        """The variable that has the protocol that the client has used."""
        trusted = self.main.has("trusted-proxies") and self.believes_headers()
        return "$forwarded_proto" if trusted else "$scheme"
