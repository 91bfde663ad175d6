"""Where installers are told to look: indexes, links, caches, and passwords on their way.

zc.buildout installs eggs with pip, so what its user has told pip holds for uv as well.
"""

from __future__ import annotations

import configparser
import contextlib
import netrc
import os
import pathlib
import re
import sys
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence

from eggcrate.environments.environment import Wanted
from eggcrate.environments.interpreters import environ as plain_environ


def uv_settings(wanted: Wanted) -> tuple[dict[str, str], list[str]]:
    """Environment variables, and switches that have no variable."""
    environ = plain_environ(dict(wanted.environment))
    means = wanted.means
    if means.socket_timeout is not None:
        environ.setdefault("UV_HTTP_TIMEOUT", str(means.socket_timeout))
    if means.cache is not None:
        environ["UV_CACHE_DIR"] = str(means.cache / "uv")
    switches = []
    if not _uv_is_configured(environ, wanted.directory):
        # zc.buildout installs eggs with pip: who told pip where packages are expects that
        # it holds here too.
        pip = pip_configuration(environ)
        if "index-url" in pip:
            environ["UV_DEFAULT_INDEX"] = pip["index-url"]
        if "extra-index-url" in pip:
            environ["UV_INDEX"] = " ".join(pip["extra-index-url"].split())
            # pip's meaning of it; uv's own would hide releases behind a partial mirror
            environ.setdefault("UV_INDEX_STRATEGY", "unsafe-best-match")
        if "find-links" in pip:
            own = [_as_url(link, wanted.directory) for link in pip["find-links"].split()]
            environ["UV_FIND_LINKS"] = _for_uv(filter(None, own))
        # among hashes, uv has no room for what is not exact
        if "constraint" in pip and not wanted.require_hashes:
            environ.setdefault("UV_CONSTRAINT", " ".join(pip["constraint"].split()))
        if "trusted-host" in pip:
            environ.setdefault("UV_INSECURE_HOST", " ".join(pip["trusted-host"].split()))
        if "cert" in pip:
            environ.setdefault("SSL_CERT_FILE", pip["cert"])
        if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
            switches.append("--no-index")
    if wanted.index:
        environ.pop("UV_INDEX_URL", None)  # the old name
        environ["UV_DEFAULT_INDEX"] = wanted.index
    links = _links(wanted)
    if links:
        more = environ.get("UV_FIND_LINKS")
        environ["UV_FIND_LINKS"] = _for_uv(links) + (f",{more}" if more else "")
    if means.offline:
        switches.append("--offline")
    if wanted.lock is not None:
        # it is the whole list, and uv takes no other beside it
        environ.pop("UV_CONSTRAINT", None)
        environ.pop("UV_OVERRIDE", None)
    return environ, switches


def sources(wanted: Wanted) -> list[tuple[str, str]]:
    """Where the installer would look for packages: what tells one place from another."""
    environ = plain_environ(dict(wanted.environment))
    pip = {f"PIP_{name}": text for name, text in pip_configuration(environ).items()}
    if wanted.installer == "uv":
        environ, _ = uv_settings(wanted)
    found = {**pip, **environ}
    names = re.compile(r"(?i)(?:uv|pip)_.*(?:index|find.links)")
    own = [("index", wanted.index or ""), *(("link", link) for link in wanted.find_links)]
    return [*own, *sorted((name, text) for name, text in found.items() if names.match(name))]


def _links(wanted: Wanted) -> tuple[str, ...]:
    """URLs of what is looked through beside the index."""
    cache = wanted.means.cache
    archives = cache / "dist" if cache is not None else None
    if archives is None or not archives.is_dir():
        return wanted.find_links
    return (*wanted.find_links, archives.as_uri())


def _for_uv(links: Iterator[str] | Sequence[str]) -> str:
    return ",".join(link.replace(",", "%2C") for link in links)


def _uv_is_configured(environ: Mapping[str, str], directory: pathlib.Path) -> bool:
    """Whether uv has been told by its own means where packages are."""
    names = ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL")
    if any(environ.get(name) for name in (*names, "UV_FIND_LINKS", "UV_CONFIG_FILE")):
        return True
    system, user = _config_bases(environ)
    bases = [directory, *(base / "uv" for base in (*system, pathlib.Path("/etc"), user))]
    return any((base / "uv.toml").is_file() for base in bases)


def _config_bases(environ: Mapping[str, str]) -> tuple[list[pathlib.Path], pathlib.Path]:
    """Where configuration is: the system's places, the least important first; the user's."""
    system = (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)
    user = environ.get("XDG_CONFIG_HOME") or pathlib.Path.home() / ".config"
    return [pathlib.Path(path) for path in reversed(system)], pathlib.Path(user)


def pip_configuration(environ: Mapping[str, str]) -> dict[str, str]:
    """What pip would find in its files and variables (pip's "Configuration" page)."""
    system, user = _config_bases(environ)
    files = [base / "pip" / "pip.conf" for base in system]
    files += [pathlib.Path("/etc/pip.conf"), pathlib.Path.home() / ".pip" / "pip.conf"]
    files += [pathlib.Path.home() / "Library/Application Support/pip/pip.conf"]  # macOS
    files += [user / "pip" / "pip.conf", pathlib.Path(sys.prefix, "pip.conf")]
    named = environ.get("PIP_CONFIG_FILE")
    if named:
        files = [] if named == os.devnull else [*files, pathlib.Path(named)]
    parsers = []
    for file in files:
        parser = configparser.RawConfigParser()
        with contextlib.suppress(OSError, ValueError, configparser.Error):
            parser.read_string(file.read_text("utf-8"))
            parsers.append(parser)
    pairs = [
        pair
        for section in ("global", "install")
        for parser in parsers
        if parser.has_section(section)
        for pair in parser.items(section)
    ]
    pairs += [(name[4:], text) for name, text in environ.items() if name.startswith("PIP_")]
    # an empty value says nothing to pip
    return {name.lower().replace("_", "-"): text for name, text in pairs if text.strip()}


def _as_url(link: str, directory: pathlib.Path) -> str | None:
    """A URL without commas or blanks, for a path or a URL; None for a missing directory."""
    if "://" in link or link.startswith("file:"):
        return link
    path = directory / pathlib.Path(link).expanduser()
    return path.as_uri() if path.exists() else None


def pip_settings(wanted: Wanted, scratch: pathlib.Path) -> dict[str, str]:
    """Environment variables for pip; passwords are in a file in ``scratch``."""
    environ = plain_environ(dict(wanted.environment))
    means = wanted.means
    if means.socket_timeout is not None:
        environ.setdefault("PIP_DEFAULT_TIMEOUT", str(means.socket_timeout))
    if means.cache is not None:
        environ["PIP_CACHE_DIR"] = str(means.cache / "pip")
    configured = pip_configuration(environ).get("find-links", "").split()
    links = [*_links(wanted), *configured]
    # pip gives its index on to pips of its own as an argument, which everybody can see; so
    # passwords travel in a file.
    secret = _Netrc(quotes=wanted.interpreter.minor >= 11)
    if means.offline:
        environ["PIP_NO_INDEX"] = "1"
        links = [link for link in links if not link.startswith(("http:", "https:"))]
    elif wanted.index:
        environ["PIP_INDEX_URL"] = secret.without_password(wanted.index)
    if links:
        environ["PIP_FIND_LINKS"] = " ".join(map(secret.without_password, links))
    if secret.entries:
        own = pathlib.Path(environ.get("NETRC") or pathlib.Path.home() / ".netrc")
        environ["NETRC"] = str(secret.write(scratch / "netrc", own))
    return environ


class _Netrc:
    """Passwords on their way to pip."""

    def __init__(self, quotes: bool) -> None:
        #: Python's reader of such files knows quotes since 3.11
        self.quotes = quotes
        self.entries: list[str] = []

    def without_password(self, url: str) -> str:
        """The URL without user and password, which are kept here."""
        parts = urllib.parse.urlsplit(url)
        if not parts.username:
            return url
        words = [
            urllib.parse.unquote(parts.username),
            urllib.parse.unquote(parts.password or ""),
        ]
        if self.quotes:
            words = ['"' + re.sub(r'(["\\])', r"\\\1", word) + '"' for word in words]
        elif not all(re.fullmatch(r'[^\s"\\]+', word) for word in words):
            return url  # this Python's netrc can't say it
        self.entries.append(f"machine {parts.hostname} login {words[0]} password {words[1]}\n")
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    def write(self, path: pathlib.Path, own: pathlib.Path) -> pathlib.Path:
        """Write ``path``, for this user's eyes only: the entries of ``own``, and ours."""
        text = ""
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            netrc.netrc(own)  # one that can't be read would take ours with it
            text = own.read_text("utf-8") + "\n"
        path.touch(mode=0o600)
        path.write_text(text + "".join(self.entries), "utf-8")  # the last entry counts
        return path
