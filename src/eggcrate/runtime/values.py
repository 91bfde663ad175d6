"""Values of options and settings: what each type admits, and how it is written then.

Every type but ``text`` admits a set of ASCII characters in which there is no blank, quote,
backslash, dollar, semicolon, brace or control character: what is accepted can't end a word of
a configuration or begin another one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

# They are compiled when they are first used: PID 1 needs few of them, and soon.
_INTEGER = r"-?[0-9]{1,18}"
_SIZE = r"[0-9]{1,15}[kKmMgG]?"
# nginx takes each unit once, the longest first
_UNITS = ("y", "M", "w", "d", "h", "m", "s", "ms")
_DURATION = "".join(rf"(?:[0-9]{{1,9}}{unit})?" for unit in _UNITS) + "|[0-9]{1,9}"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*\.?"
_PATH = r"/[A-Za-z0-9._@+,=:~/-]*"
_URL_PATH = r"/[A-Za-z0-9._~+,=:@%/-]*"
_URL = (
    rf"https?://(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9A-Fa-f:.]+\])(?::[0-9]{{1,5}})?"
    r"(?:/[A-Za-z0-9._~+,=:@%/?&-]*)?"
)
# one that begins with ~ would be a pattern where a map has its keys, and a home for a shell
_WORD = r"[A-Za-z0-9._@+,=:/%-][A-Za-z0-9._@+,=:~/%-]*"
_CONTROL = r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]"

TRUE = ("true", "yes", "on", "1")
FALSE = ("false", "no", "off", "0")


def port(text: str) -> str:
    """A TCP port, in decimal."""
    if re.fullmatch(_INTEGER, text) and 1 <= int(text) <= 65535:
        return str(int(text))
    raise ValueError("must be a port number, 1 to 65535")


def integer(text: str) -> str:
    """A whole number."""
    if re.fullmatch(_INTEGER, text):
        return str(int(text))
    raise ValueError("must be a whole number")


def boolean(text: str) -> str:
    """``true`` or ``false``, of any of the usual words."""
    if text.lower() in (*TRUE, *FALSE):
        return "true" if text.lower() in TRUE else "false"
    raise ValueError("must be true or false")


def size(text: str) -> str:
    """A number of bytes, or of kilobytes, megabytes or gigabytes with k, m or g."""
    if re.fullmatch(_SIZE, text):
        return text
    raise ValueError("must be a size: a number with k, m or g behind it, as 10m")


def duration(text: str) -> str:
    """A time as nginx writes it: ``500ms``, ``30s``, ``1h30m``; a bare number is seconds."""
    if text and re.fullmatch(_DURATION, text):
        return text
    raise ValueError(
        "must be a time: a number with ms, s, m, h or d behind it, as 30s, or several with the "
        "longest unit first, as 1h30m"
    )


def hostname(text: str) -> str:
    """A host name (RFC 1123), perhaps with ``*.`` in front, or an address."""
    if re.fullmatch(r"[0-9.]+", text) or text.startswith("["):
        import ipaddress  # slow to import, and PID 1 rarely needs it

        try:
            ipaddress.ip_address(text.removeprefix("[").removesuffix("]"))
        except ValueError:
            pass
        else:
            if (":" in text) == (text.startswith("[") and text.endswith("]")):
                return text
    elif re.fullmatch(_HOSTNAME, text) and len(text) <= 253:
        return text.lower()
    raise ValueError("must be a host name, as shop.example")


def network(text: str) -> str:
    """An address, or a network in CIDR notation."""
    import ipaddress

    try:
        if "%" not in text:  # no network has a zone
            return (
                str(ipaddress.ip_network(text))
                if "/" in text
                else str(ipaddress.ip_address(text))
            )
    except ValueError as error:
        if "has host bits set" in str(error):
            right = ipaddress.ip_network(text, strict=False)
            raise ValueError(f"must be a network, as {right}: it has host bits set") from None
    raise ValueError("must be an address or a network, as 10.0.0.0/8")


def path(text: str) -> str:
    """An absolute path, without dots that lead up."""
    if re.fullmatch(_PATH, text) and ".." not in text.split("/"):
        return text
    raise ValueError("must be an absolute path of letters, digits and any of . _ - @ + , = : ~")


def url_path(text: str) -> str:
    """The path of a URL."""
    if re.fullmatch(_URL_PATH, text) and ".." not in text.split("/"):
        return text
    raise ValueError("must be the path of a URL, as /shop/")


def url(text: str) -> str:
    """An address on the web."""
    if re.fullmatch(_URL, text):
        return text
    raise ValueError("must be a URL that begins with http:// or https://")


def word(text: str) -> str:
    """One word of letters, digits and a few signs."""
    if re.fullmatch(_WORD, text):
        return text
    if text.startswith("~"):
        raise ValueError("must be one word that does not begin with ~")
    raise ValueError("must be one word of letters, digits and any of . _ - @ + , = : ~ / %")


def text(text: str) -> str:
    """Anything on one line that can be shown."""
    if re.search(_CONTROL, text):
        raise ValueError("must be one line of text, without control characters")
    return text


def several(one: Callable[[str], str]) -> Callable[[str], str]:
    """A type of values with blanks or commas between them; they come back with one blank."""

    def check(text: str) -> str:
        words = text.replace(",", " ").split()
        if not words:
            raise ValueError("must name at least one")
        return " ".join(map(one, words))

    return check


hostnames = several(hostname)
networks = several(network)


def choice(choices: Sequence[str]) -> Callable[[str], str]:
    """A type of a few words."""

    def check(text: str) -> str:
        if text in choices:
            return text
        raise ValueError(f"must be one of {', '.join(choices)}")

    return check
