"""A copy of a configuration in which nothing of this machine is left, for ``nginx -t``."""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import grp
import ipaddress
import itertools
import os
import pathlib
import pwd
import re
import socket
from collections.abc import Callable, Iterator

# What stands in for each certificate, key and parameters that only the image has: a pair
# made once by `openssl req -x509 -newkey ec -subj /CN=dummy`, and the group ffdhe2048 of
# RFC 7919.  The key is in everybody's copy of this file, so it is public and worthless.
# The armour is put on later, so that no scanner takes this file for a find.
_DUMMIES = (
    (
        "CERTIFICATE",
        """\
MIIBZDCCAQqgAwIBAgIBATAKBggqhkjOPQQDAjAQMQ4wDAYDVQQDDAVkdW1teTAg
Fw0yNjExMjgwMjMyNDdaGA8yMTI2MTEwNDAyMzI0N1owEDEOMAwGA1UEAwwFZHVt
bXkwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARVSPVT3K2OGSdlyA8qpqiWVmu2
v2HTMZyBx/0f6hnj+eiXbAt2UFnXygEBWKWdSv+fkH1Cuv5DrgRzZaa1Djaxo1Mw
UTAdBgNVHQ4EFgQUSyoLlqPALYDxrZlZweknE8l1Y/swHwYDVR0jBBgwFoAUSyoL
lqPALYDxrZlZweknE8l1Y/swDwYDVR0TAQH/BAUwAwEB/zAKBggqhkjOPQQDAgNI
ADBFAiAs3VGvXdv/I7lnutF9Bdgk1/WTlG2/VHj2BBV2h3/ylwIhANKZw5kG8Uql
FKxhvgLJ4Cmnge9UVMlGLIXFVzFMObMV
""",
    ),
    (
        "PRIVATE KEY",
        """\
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgFXRtv5QpEHQ2Bm04
SxojtnWpjAd1E5Q1ScLLzSiriHqhRANCAARVSPVT3K2OGSdlyA8qpqiWVmu2v2HT
MZyBx/0f6hnj+eiXbAt2UFnXygEBWKWdSv+fkH1Cuv5DrgRzZaa1Djax
""",
    ),
    (
        "DH PARAMETERS",
        """\
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
""",
    ),
)
_TICKET_KEY = bytes(80)  # as long as nginx wants it

# The blocks whose statements are directives: in others, such as map, they are values.
_PLAIN = re.compile(r"|events|http|stream|mail|server|upstream|location|if|limit_except")
# Directives that name what a machine has, or has not.
_PAIR = re.compile(r"(?P<prefix>(?:\w+_)?)ssl_certificate(?:_key)?")
_SECRET = re.compile(
    rf"{_PAIR.pattern}|"
    r"(?:\w+_)?ssl_(?:trusted_certificate|client_certificate|crl|password_file)|"
    r"ssl_dhparam|ssl_session_ticket_key"
)
_WRITTEN = re.compile(r"access_log|error_log|pid|lock_file|\w+_(?:temp|cache)_path")
_ASKED = re.compile(r"(?:proxy|fastcgi|uwsgi|scgi|grpc|memcached)_pass|auth_http")
# A file without any of these needs no copy.
_INTERESTING = re.compile(
    r"\b(?:listen|include|server|resolver|user|load_module|set_real_ip_from|upstream)\b|"
    rf"(?:{_SECRET.pattern.replace('P<prefix>', ':')})\b|\b(?:{_WRITTEN.pattern}|"
    rf"{_ASKED.pattern})\b"
)

_LISTEN = re.compile(
    r"(?:(?P<address>\*|\[[0-9a-fA-F:.]+\]|[\w-][\w.-]*)(?::(?P<port>\d+(?:-\d+)?))?)"
    r"|(?P<alone>\d+(?:-\d+)?)"
)
_HOST = re.compile(
    r"(?P<before>(?:[a-z]+://)?)(?P<host>[A-Za-z0-9_][\w.-]*)(?P<after>(?::\d+)?(?:[/?].*)?)",
    re.DOTALL,
)
_SYSLOG = re.compile(
    r"(?P<before>syslog:(?:.*,)?server=)(?P<host>[A-Za-z0-9_][\w.-]*)(?P<after>(?::\d+)?(?:,.*)?)",
    re.DOTALL,
)
_QUOTED = re.compile(r"(['\"])(?P<text>(?:(?!\1)[^\\]|\\.)*)\1", re.DOTALL)
_EVERYWHERE = "0.0.0.0"  # noqa: S104 - what nginx calls it; nothing is bound to it here
_LONGEST_SOCKET = 107  # sockaddr_un has room for no more


@dataclasses.dataclass(frozen=True, slots=True)
class _Word:
    """A word of a text: what it says, and where it stands, with its quotes."""

    says: str
    start: int
    end: int


@dataclasses.dataclass(frozen=True, slots=True)
class _Statement:
    """A directive with its arguments, the block that it is in, and that block's number."""

    name: str
    words: tuple[_Word, ...]
    within: str
    block: int
    start: int
    end: int


@dataclasses.dataclass(slots=True)
class _File:
    """A file that nginx reads: its text and statements, and the file with its copy."""

    text: str
    statements: list[_Statement]
    copy: pathlib.Path
    includes: dict[int, str] = dataclasses.field(default_factory=dict)


class _UnclearError(Exception):
    """A text that crossplane and we read differently, or that can't be read."""


class Scratch:
    """A place in which nginx finds a copy of a configuration and can't touch the site.

    Its run directory is empty, because a test makes the directories and sockets that are
    configured there.  The files beside the output are there too, as links: an include
    with a relative path starts from the configuration's directory.

    What only one machine has is replaced, in the copy and in copies of what it includes, on
    the line on which it stands: addresses to listen on, by free ports; host names, by
    addresses that nobody asks; certificates, users, modules and included files that are not
    here, and log files and directories outside the buildout.  :meth:`real` knows them all.
    """

    #: a file is missing that is not the buildout's: the text may need what it defines
    incomplete = False

    def __init__(
        self,
        root: pathlib.Path,
        output: pathlib.Path,
        run_directory: pathlib.Path,
        directory: pathlib.Path,
        prefix: Callable[[], str],
    ) -> None:
        """``directory`` is the buildout's, ``prefix()`` the one nginx was built with."""
        self._root = root
        self._output = output
        self._run_directory = run_directory
        self._directory = directory
        self._prefix = prefix
        self._files: list[_File] = []
        self._reading: set[str] = set()
        self._upstreams: set[str] = set()
        self._dummies: set[tuple[int, str]] = set()
        self._numbers = itertools.count(1)
        self._blocks = itertools.count(1)
        # an original of some kind, and what is there instead of it
        self._instead: dict[tuple[str, str], str] = {}
        self._originals: dict[str, str] = {}
        self._probes = contextlib.ExitStack()
        self.copy = str(root / "conf" / output.name)

    def foreign(self, path: str) -> bool:
        """Whether a file is none of the buildout's, or made when the site runs."""
        normal = pathlib.Path(os.path.normpath(path))
        return not normal.is_relative_to(self._directory) or normal.is_relative_to(
            self._run_directory
        )

    def write(self, text: str) -> None:
        """Lay the place out, with ``text`` as the configuration.

        A text that can't be read differs from what nginx gets by its run directory only.
        """
        for name in ("conf", "run", "file", "include"):
            (self._root / name).mkdir()
        with contextlib.suppress(OSError):  # no such directory yet, or none that we may read
            for beside in self._output.parent.iterdir():
                if beside.name != self._output.name:
                    (self._root / "conf" / beside.name).symlink_to(beside)
        text = self._in_scratch(text)
        try:
            self._read(text, pathlib.Path(self.copy), "")
        except _UnclearError:
            return
        for file in self._files:
            self._note(file)
        with self._probes:
            for file in self._files:
                _put(file.copy, self._edited(file))

    def real(self, text: str) -> str:
        """``text`` with the names of the real places."""
        if self._originals:
            names = map(re.escape, sorted(self._originals, key=len, reverse=True))
            pattern = rf"(?<![\w.])(?:{'|'.join(names)})(?![\d])"
            text = re.sub(pattern, lambda match: self._originals[match[0]], text)
        return self._in_place(text)

    # Reading ------------------------------------------------------------------------------

    def _in_place(self, text: str) -> str:
        text = text.replace(str(self._root / "conf"), str(self._output.parent))
        return text.replace(str(self._root / "run"), str(self._run_directory))

    def _in_scratch(self, text: str) -> str:
        # whole path components only: /srv/run is no part of /srv/run2 or of /old/srv/run
        path = rf"(?<![\w./-]){re.escape(str(self._run_directory))}(?![\w.-])"
        return re.sub(path, str(self._root / "run"), text)

    def _read(self, text: str, copy: pathlib.Path, within: str, block: int = 0) -> None:
        """Take the statements of a text, and of all that it includes."""
        _put(copy, text)
        file = _File(text, [*_statements(text, copy, within, block, self._blocks)], copy)
        self._files.append(file)
        for statement in file.statements:
            if statement.name == "include" and len(statement.words) == 1:
                (word,) = statement.words
                if instead := self._include(word.says, statement):
                    file.includes[word.start] = instead

    def _include(self, pattern: str, statement: _Statement) -> str:
        """What to include instead, or nothing where it can be included as it is."""
        path = os.path.join(self._root / "conf", pattern)
        if re.search(r"[*?[]", pattern):
            found = sorted(glob.glob(path))
        elif os.access(path, os.R_OK):
            found = [path]
        elif self.foreign(self._in_place(path)):
            # the types of files, and parameters, are needed by nothing else
            if not re.search(r"mime\.types$|_params$|fastcgi\.conf$", path):
                self.incomplete = True
            return self._file("include", path, b"")
        else:
            return ""
        if not self._reading.isdisjoint(found):  # it includes itself
            return ""
        texts: list[tuple[str, str]] = []
        for name in found:
            try:
                text = pathlib.Path(name).read_bytes().decode("utf-8")
            except (OSError, UnicodeDecodeError):
                return ""
            texts.append((name, self._in_scratch(text)))
        if not any(_INTERESTING.search(text) for _, text in texts):
            return ""
        place = self._root / "include" / f"{next(self._numbers)}"
        place.mkdir()
        for number, (name, text) in enumerate(texts):
            copy = place / f"{number:04}"
            self._originals[str(copy)] = self._in_place(name)
            # a copy that we can't read is one all the same
            self._reading.add(name)
            with contextlib.suppress(_UnclearError):
                self._read(text, copy, statement.within, statement.block)
            self._reading.remove(name)
        return str(place / "*")

    def _note(self, file: _File) -> None:
        """See what the statements of one file mean for those of another."""
        for statement in file.statements:
            for word in statement.words[:1]:
                if statement.name == "upstream":
                    self._upstreams.add(word.says.lower())
                elif (pair := _PAIR.fullmatch(statement.name)) and self._lacks(word.says):
                    self._dummies.add((statement.block, pair["prefix"]))

    # Replacing ----------------------------------------------------------------------------

    def _edited(self, file: _File) -> str:
        """The text of a file with everything replaced that is to be."""
        pieces: list[str] = []
        done = 0
        for statement in file.statements:
            if statement.name == "load_module":
                edits = self._without_module(file.text, statement)
            elif statement.words and statement.words[0].start in file.includes:
                word = statement.words[0]
                edits = [(word.start, word.end, file.includes[word.start])]
            elif _PLAIN.fullmatch(statement.within):
                edits = []
                for word, new in self._edits(statement):
                    if new != word.says:
                        quote = file.text[word.start]
                        if quote not in "'\"" or statement.name == "user":
                            quote = ""
                        edits.append((word.start, word.end, f"{quote}{new}{quote}"))
            else:
                continue
            for start, end, new in sorted(edits):
                pieces += [file.text[done:start], new]
                # the number of lines stays what it is
                pieces.append("\n" * (file.text.count("\n", start, end) - new.count("\n")))
                done = end
        return "".join([*pieces, file.text[done:]])

    def _edits(self, statement: _Statement) -> Iterator[tuple[_Word, str]]:
        """The arguments to replace, and by what."""
        name, words = statement.name, statement.words
        if not words or (name == "user" and statement.within):
            return
        first = words[0]
        if name == "listen":
            yield from self._listen(statement)
        elif name == "user":
            yield from self._user(words)
        elif name == "resolver":
            for word in words:
                if "=" not in word.says:
                    yield word, self._host(_HOST, word.says, set())
        elif name == "server" and statement.within == "upstream":
            if all(word.says != "resolve" for word in words):  # that is done later
                yield first, self._host(_HOST, first.says, set())
        elif name == "set_real_ip_from":
            yield first, self._host(_HOST, first.says, set())
        elif _ASKED.fullmatch(name):
            yield first, self._host(_HOST, first.says, self._upstreams)
        elif _WRITTEN.fullmatch(name):
            if first.says.startswith("syslog:"):
                yield first, self._host(_SYSLOG, first.says, set())
            elif self._is_written_elsewhere(first.says):
                yield first, self._file("written", first.says, None)
        elif _SECRET.fullmatch(name):
            pair = _PAIR.fullmatch(name)
            both = pair is not None and (statement.block, pair["prefix"]) in self._dummies
            there = os.path.exists(os.path.join(self._root / "conf", first.says))
            if self._lacks(first.says) or (both and there):
                ticket = name == "ssl_session_ticket_key"
                yield (
                    first,
                    self._file(
                        "ticket key" if ticket else "pair",
                        first.says,
                        _TICKET_KEY if ticket else _dummy(),
                    ),
                )

    def _listen(self, statement: _Statement) -> Iterator[tuple[_Word, str]]:
        word = statement.words[0]
        if word.says.startswith("unix:"):
            path = word.says.removeprefix("unix:")
            if path.startswith(f"{self._root}/") or len(os.fsencode(path)) > _LONGEST_SOCKET:
                return
            yield word, f"unix:{self._file('socket', path, None)}"
            return
        found = _LISTEN.fullmatch(word.says)
        if found is None or statement.within != "server":
            return
        host, port = found["address"] or "*", found["alone"] or found["port"] or "80"
        if host.isdecimal():  # "80" is a port, and no host
            host, port = "*", host
        numbers = [int(number) for number in port.split("-")]
        if not all(0 < number < 65536 for number in numbers):
            return  # nginx says it better
        shown = {"*": _EVERYWHERE, "localhost": "127.0.0.1"}.get(host, host).lower()
        six = shown.startswith("[")
        if six or re.fullmatch(r"[\d.]+", shown):
            try:
                address = ipaddress.ip_address(shown.strip("[]"))
            except ValueError:
                return
            shown = f"[{address}]" if six else str(address)
        original = f"{shown}:{port}"
        instead = self._instead.get(("address", original))
        if instead is None:
            loopback = "::1" if six and _has_ipv6() else "127.0.0.1"
            instead = self._note_instead("address", original, self._free(loopback))
        yield word, instead
        if six and not instead.startswith("["):
            for parameter in statement.words[1:]:
                if parameter.says.startswith("ipv6only="):
                    yield parameter, "bind"  # which it includes

    def _free(self, host: str) -> str:
        """An address with a port that nobody has, neither of TCP nor of UDP.

        The port stays ours until all have been found, so no two are the same.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        for attempt in itertools.count():
            stream = self._probes.enter_context(socket.socket(family))
            stream.bind((host, 0))
            port = stream.getsockname()[1]
            with socket.socket(family, socket.SOCK_DGRAM) as datagram:
                try:
                    datagram.bind((host, port))
                except OSError:
                    if attempt < 100:
                        continue
            break
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def _host(self, pattern: re.Pattern[str], text: str, upstreams: set[str]) -> str:
        """``text`` with an address of loopback for a host name, so that nothing is looked up.

        Every name has its own, and nobody listens there or asks: nginx only tests.
        """
        found = pattern.fullmatch(text)
        if found is None or "$" in text:
            return text
        host = found["host"]
        if re.fullmatch(r"[\d.]+", host) or host.lower() in upstreams:
            return text
        instead = self._instead.get(("host", host))
        if instead is None:
            number = next(self._numbers)
            address = f"127.{64 + number // 65536}.{number // 256 % 256}.{number % 256}"
            instead = self._note_instead("host", host, address)
        return f"{found['before']}{instead}{found['after']}"

    def _user(self, words: tuple[_Word, ...]) -> Iterator[tuple[_Word, str]]:
        """A user and a group that are here, for those that are not: this process's."""
        try:
            names = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
        except KeyError:  # not root, then, and nginx doesn't ask
            return
        missing = [not _knows(pwd.getpwnam, words[0].says)]
        if len(words) == 2:
            missing.append(not _knows(grp.getgrnam, words[1].says))
        for word, absent, name in zip(words, missing, names, strict=False):
            if absent:
                group = f" {names[1]}" if len(words) == 1 else ""
                yield word, f"{name}{group}"

    def _without_module(self, text: str, statement: _Statement) -> list[tuple[int, int, str]]:
        """Blank out a module that is not here."""
        path = os.path.join(self._prefix(), *(word.says for word in statement.words[:1]))
        if os.path.exists(path) or not self.foreign(self._in_place(path)):
            return []
        blank = re.sub(r"[^\n]", " ", text[statement.start : statement.end])
        return [(statement.start, statement.end, blank)]

    def _lacks(self, path: str) -> bool:
        """Whether a file is not the buildout's, and can't be read here."""
        return (
            path.startswith("/")
            and "$" not in path
            and not os.access(path, os.R_OK)
            and self.foreign(self._in_place(path))
        )

    def _is_written_elsewhere(self, path: str) -> bool:
        """Whether a test would write outside the buildout: that is the site's own business."""
        return (
            path.startswith("/")
            and "$" not in path
            and not path.startswith(("/dev/", f"{self._root}/"))
            and self.foreign(path)
        )

    def _file(self, kind: str, original: str, data: bytes | None) -> str:
        """The file that stands in for another, with this content unless nginx makes it."""
        instead = self._instead.get((kind, original))
        if instead is None:
            place = self._root / "file" / f"{next(self._numbers)}"
            if data is not None:
                place.write_bytes(data)
            instead = self._note_instead(kind, self._in_place(original), str(place))
            self._instead[kind, original] = instead
        return instead

    def _note_instead(self, kind: str, original: str, instead: str) -> str:
        self._instead[kind, original] = instead
        self._originals[instead] = original
        return instead


def _statements(
    text: str, path: pathlib.Path, within: str, block: int, blocks: Iterator[int]
) -> Iterator[_Statement]:
    """The directives of a text, which is also in ``path``; raises :class:`_UnclearError`.

    crossplane knows the words, and we where they stand.
    """
    from crossplane.errors import NgxParserBaseException
    from crossplane.lexer import lex

    around: list[tuple[str, int]] = []
    words: list[_Word] = []
    at = 0
    try:
        for says, _, quoted in lex(os.fspath(path)):
            while text[at : at + 1].isspace():
                at += 1
            start = at
            if quoted:
                found = _QUOTED.match(text, at)
                if found is None:  # a block of Lua, for one
                    raise _UnclearError
                says, at = found["text"], found.end()
            elif text.startswith(says, at):
                at += len(says)
            else:
                raise _UnclearError
            if quoted or (says not in ("{", "}", ";") and not says.startswith("#")):
                words.append(_Word(says, start, at))
                continue
            if says.startswith("#"):
                continue
            if words and says != "}":
                name, *arguments = words
                yield _Statement(name.says, tuple(arguments), within, block, name.start, at)
            if says == "{":
                around.append((within, block))
                within, block = words[0].says if words else "", next(blocks)
            elif says == "}":
                within, block = around.pop()
            words = []
    except (NgxParserBaseException, OSError, IndexError) as error:
        raise _UnclearError from error


def _dummy() -> bytes:
    """A certificate, its key, and parameters of Diffie and Hellman, in one file."""
    return "".join(
        f"-----BEGIN {label}-----\n{body}-----END {label}-----\n" for label, body in _DUMMIES
    ).encode()


def _knows(look_up: object, name: str) -> bool:
    assert callable(look_up)
    try:
        look_up(name)
    except KeyError:
        return False
    return True


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _put(path: pathlib.Path, text: str) -> None:
    path.write_bytes(text.encode("utf-8"))
