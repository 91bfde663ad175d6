"""The options in which nginx-config declares a configuration: what each admits and defaults to.

An option that is called like one of nginx's directives, with dashes, is that directive.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping

from eggcrate.runtime import values

#: options of the part of which there may be several, each with options of its own, one a line
NAMED = ("location", "site", "upstream")

_REGULAR = re.compile(r"""[^\s"'$;\x00-\x1f\x7f]+""")
_HEADER = re.compile(r"[A-Za-z0-9!#&*+.^_|~-]+")
# headers that nginx itself makes
_NOT_OURS = re.compile(
    r"content-(?:length|type|encoding|range)|transfer-encoding|connection|date|server|keep-alive",
    re.IGNORECASE,
)
_RATE = re.compile(
    r"[1-9][0-9]{0,5}r/[sm](?: burst=[0-9]{1,6})?(?: (?:nodelay|delay=[0-9]{1,6}))?"
)
_BUFFERS = re.compile(r"[1-9][0-9]{0,3} [0-9]{1,7}[kKmM]?")
_VERSION = re.compile(r"[0-9]{1,2}(?:\.[0-9]{1,3}){1,2}")
_HSTS = re.compile(r"[0-9]{1,10}(?: (?:includeSubDomains|preload)){0,2}")
_CACHE = re.compile(r"[1-9][0-9]{0,7}")


@dataclasses.dataclass(frozen=True, slots=True)
class Option:
    """One option: its check, its default, and whether each of its lines is a value.

    The check gives the value as it is written into the configuration, or raises a
    ``ValueError`` that goes on after the option's name.
    """

    check: Callable[[str], str]
    default: str = ""
    lines: bool = False


def count(text: str) -> str:
    """A number above zero."""
    if re.fullmatch(r"[1-9][0-9]{0,8}", text):
        return text
    raise ValueError("must be a number above zero")


def _or(word: str, check: Callable[[str], str]) -> Callable[[str], str]:
    def either(text: str) -> str:
        if text == word:
            return text
        try:
            return check(text)
        except ValueError as error:
            raise ValueError(f"{error}, or {word}") from None

    return either


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        text = " ".join(text.split())
        if pattern.fullmatch(text):
            return text
        raise ValueError(f"must be {what}")

    return check


def raw(text: str) -> str:
    """Text of nginx's own language, which nginx judges."""
    return text


def header_value(text: str) -> str:
    """The value of a header."""
    text = values.text(text)
    if not text.isascii():
        raise ValueError("must be ASCII, as all of a header")
    return text


def header(text: str) -> str:
    """The name of a header and its value, with a colon between them."""
    name, sign, value = text.partition(":")
    if not _HEADER.fullmatch(name) or not sign:
        raise ValueError("must be a header, as X-Robots-Tag: noindex")
    return f"{name}: {header_value(value.strip())}"


def own_header(text: str) -> str:
    """A header that a site may add to its answers."""
    text = header(text)
    if _NOT_OURS.fullmatch(text.partition(":")[0]):
        raise ValueError("must be a header that nginx does not make itself")
    return text


def regular(text: str) -> str:
    """A regular expression that needs no quotes within quotes."""
    if not _REGULAR.fullmatch(text):
        raise ValueError("must be a regular expression without blanks, quotes, $ and ;")
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"must be a regular expression: {error}") from None
    return text


def pair(text: str) -> str:
    """The path of a URL, and behind it the directory or file that has what is there."""
    first, *rest = text.split(None, 1)
    values.url_path(first)
    if "%" in first:
        raise ValueError("must be the path of a URL without %, as nginx has decoded it")
    if not rest:
        raise ValueError("must be two words: the path of a URL, and a path of this buildout")
    return f"{first} {rest[0].strip()}"


def server_names(text: str) -> str:
    """The names of a site; ``*.`` and ``.`` may be in front, ``_`` is any name."""
    return _names(text.replace(",", " "))


def server_name(text: str) -> str:
    """One of them; a dot at the end, which no Host header has, is left out."""
    if text == "_":
        return text
    name = values.hostname(text.removeprefix("."))
    return "." * text.startswith(".") + name.removesuffix(".")


def _each(check: Callable[[str], str]) -> Callable[[str], str]:
    """Words with blanks between them; a complaint names the one that is wrong."""

    def every(text: str) -> str:
        found = []
        for word in text.split():
            try:
                found.append(check(word))
            except ValueError as error:
                hint = "" if word.isascii() else "; write it in ASCII (punycode), as xn--..."
                raise ValueError(f"{error}, which {word} is not{hint}") from None
        return " ".join(found)

    return every


_names = _each(server_name)


def _network_or(word: str) -> Callable[[str], str]:
    return lambda text: text if text == word else values.network(text)


def _log(text: str) -> str:
    if text == "off":
        raise ValueError("must be stderr or a file: off would be one of that name")
    return text


_flag = values.boolean
_off_or_hsts = _or(
    "off", _matching(_HSTS, "a number of seconds, perhaps with includeSubDomains and preload")
)
_rate = _or("off", _matching(_RATE, "a rate, as 20r/s burst=40 nodelay"))

#: options that a whole configuration has once
MAIN: Mapping[str, Option] = {
    "worker-processes": Option(_or("auto", count), "2"),
    "worker-connections": Option(count, "1024"),
    "worker-rlimit-nofile": Option(count, "4096"),
    "worker-shutdown-timeout": Option(values.duration, "7s"),
    "error-log": Option(_log, "stderr"),
    "error-log-level": Option(
        values.choice(
            ("debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"),
        ),
        "warn",
    ),
    "user": Option(values.word),
    "load-modules": Option(raw, lines=True),
    "mime-types": Option(raw, "/etc/nginx/mime.types"),
    "nginx-version": Option(_matching(_VERSION, "a version, as 1.22.1")),
    "openssl-version": Option(_matching(_VERSION, "a version, as 3.0.17")),
    "keepalive-timeout": Option(values.duration, "65s"),
    "client-header-timeout": Option(values.duration, "15s"),
    "client-body-timeout": Option(values.duration, "30s"),
    "send-timeout": Option(values.duration, "30s"),
    "large-client-header-buffers": Option(
        _matching(_BUFFERS, "a number and a size, as 4 16k"), "4 16k"
    ),
    "open-file-cache": Option(_or("off", _matching(_CACHE, "a number of files")), "off"),
    "trusted-proxies": Option(_each(_network_or("unix:"))),
    "real-ip-header": Option(_or("proxy_protocol", _matching(_HEADER, "the name of a header"))),
    "gzip": Option(_flag, "true"),
    "gzip-comp-level": Option(values.choice(tuple("123456789")), "5"),
    "gzip-min-length": Option(values.integer, "1024"),
    "gzip-types": Option(
        _each(values.word),
        "application/atom+xml application/javascript application/json application/ld+json "
        "application/manifest+json application/rss+xml application/wasm application/xml "
        "font/otf font/ttf image/svg+xml text/css text/javascript text/plain text/xml",
    ),
    "access-log": Option(values.choice(("json", "combined", "off")), "json"),
    "access-log-path": Option(raw, "/dev/stdout"),
    "access-log-exclude": Option(_each(values.url_path)),
    "health": Option(_or("off", values.url_path), "/nginx-health"),
    "stub-status": Option(raw),
    "default-server": Option(values.choice(("421", "444", "404", "site")), "421"),
    "main-extra": Option(raw),
    "events-extra": Option(raw),
    "http-extra": Option(raw),
}

#: options of a site; where the part has them, they are the sites' defaults
SITE: Mapping[str, Option] = {
    "listen": Option(raw, "8080"),
    "listen-tls": Option(raw, "8443"),
    "ipv6": Option(_flag, "false"),
    "proxy-protocol": Option(_flag, "false"),
    "reuseport": Option(_flag, "false"),
    "backlog": Option(count),
    "server-names": Option(server_names),
    "redirect-names": Option(server_names),
    "force-https": Option(_flag),
    "https-port": Option(values.port, "443"),
    "tls": Option(values.choice(("off", "edge", "on")), "off"),
    "tls-certificate": Option(raw),
    "tls-key": Option(raw),
    "tls-profile": Option(values.choice(("intermediate", "modern")), "intermediate"),
    "tls-client-ca": Option(raw),
    "tls-verify-client": Option(values.choice(("on", "optional")), "on"),
    "http2": Option(_flag, "true"),
    "http3": Option(_flag, "false"),
    "hsts": Option(_off_or_hsts),
    "upstream": Option(raw),
    "websockets": Option(_flag, "true"),
    "forwarded-for": Option(values.choice(("replace", "append")), "replace"),
    "proxy-headers": Option(header, lines=True),
    "proxy-connect-timeout": Option(values.duration, "5s"),
    "proxy-send-timeout": Option(values.duration, "60s"),
    "proxy-read-timeout": Option(values.duration, "60s"),
    "proxy-buffering": Option(_flag, "true"),
    "proxy-request-buffering": Option(_flag, "true"),
    "client-max-body-size": Option(values.size, "10m"),
    "client-body-buffer-size": Option(values.size),
    "static": Option(pair, lines=True),
    "media": Option(pair, lines=True),
    "protected": Option(pair, lines=True),
    "files": Option(pair, lines=True),
    "hashed-names": Option(_or("off", regular), r"\.[0-9a-f]{12}\."),
    "static-max-age": Option(values.duration, "1h"),
    "media-max-age": Option(values.duration, "5m"),
    "gzip-static": Option(_flag, "true"),
    "brotli-static": Option(_flag, "false"),
    "security-headers": Option(_flag, "true"),
    "frame-options": Option(values.choice(("DENY", "SAMEORIGIN", "off")), "DENY"),
    "referrer-policy": Option(_or("off", values.word), "strict-origin-when-cross-origin"),
    "content-security-policy": Option(header_value),
    "permissions-policy": Option(header_value),
    "cross-origin-opener-policy": Option(values.word),
    "headers": Option(own_header, lines=True),
    "rate-limit": Option(_rate, "off"),
    "connection-limit": Option(_or("off", count), "off"),
    "allow": Option(_each(_network_or("unix:"))),
    "deny": Option(_each(_network_or("all"))),
    "auth-basic-user-file": Option(raw),
    "auth-basic": Option(header_value, "restricted"),
    "acme-challenge": Option(raw),
    "maintenance": Option(raw),
    "maintenance-page": Option(raw),
    "error-page": Option(raw),
    "server-extra": Option(raw),
    "location-extra": Option(raw),
}

#: options of a location; those of the site hold where it has none
LOCATION: Mapping[str, Option] = {
    "path": Option(raw),
    "sites": Option(_each(values.word)),
    "upstream": SITE["upstream"],
    "alias": Option(raw),
    "return": Option(raw),
    "internal": Option(_flag, "false"),
    "rate-limit": Option(_rate),
    "connection-limit": SITE["connection-limit"],
    "allow": SITE["allow"],
    "deny": SITE["deny"],
    "auth-basic-user-file": SITE["auth-basic-user-file"],
    "auth-basic": SITE["auth-basic"],
    "client-max-body-size": Option(values.size),
    "client-body-buffer-size": Option(values.size),
    "proxy-connect-timeout": Option(values.duration),
    "proxy-send-timeout": Option(values.duration),
    "proxy-read-timeout": Option(values.duration),
    "proxy-buffering": Option(_flag),
    "proxy-request-buffering": Option(_flag),
    "extra": Option(raw),
}

#: options of an upstream
UPSTREAM: Mapping[str, Option] = {
    "servers": Option(raw, lines=True),
    "balance": Option(
        values.choice(("round-robin", "least_conn", "ip_hash", "random")), "round-robin"
    ),
    "keepalive": Option(_or("off", count), "off"),
    "max-fails": Option(values.integer),
    "fail-timeout": Option(values.duration),
    "extra": Option(raw),
}
