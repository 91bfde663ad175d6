"""Paths of the build in files, and what they become in the image."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

# Bytes with which a letter outside ASCII begins; C2 and E2 begin quotation marks and dashes.
_LETTER = rb"\x80-\xc1\xc3-\xe1\xe3-\xff"
# A path goes on in any of these; a dot only when more of a name follows.
_GOES_ON = rb"(?![\w+~@%" + _LETTER + rb"-]|\.[\w" + _LETTER + rb"])"
# Something before a path that makes it a part of another one: "other/srv/app"; but not a
# quotation mark, and not a compiler's -I, -L or -R.
_CONTINUES = (
    rb"(?:(?<![\w.\x80-\xff-])|(?<=\xc2[\x80-\xbf])|(?<=\xe2[\x80-\xbf]{2})|(?<=-[ILR]))"
)
# Where a path in a text ends that is not in quotes.
_END = re.compile(rb"[\s'\"`,;:()\[\]{}<>|&$*?#=\\\x00]")
_LONGEST = 4096


@dataclasses.dataclass(frozen=True, slots=True)
class Rule:
    """A path of this machine, and what it is in the image; both absolute."""

    source: str
    target: str


class Mention(NamedTuple):
    """A path of the build that a text has.

    ``quoted`` says that it stands alone between quotes, as on a ``sys.path`` list, ``there``
    that it exists.
    """

    path: str
    quoted: bool
    there: bool


@dataclasses.dataclass(frozen=True)
class Relocation:
    """The rules by which paths of the build become paths of the image.

    A rule holds for whole path components: one for ``/srv/app`` leaves ``/srv/app2``
    alone.  Of two rules the longer source wins.
    """

    rules: tuple[Rule, ...]

    @functools.cached_property
    def _targets(self) -> dict[bytes, bytes]:
        targets: dict[bytes, bytes] = {}
        for rule in self.rules:
            for spelling in _spellings(rule.source):
                targets.setdefault(os.fsencode(spelling), os.fsencode(rule.target))
        return targets

    @functools.cached_property
    def _alternatives(self) -> bytes:
        longest_first = sorted(self._targets, key=lambda source: (-len(source), source))
        return b"|".join(map(re.escape, longest_first))

    @functools.cached_property
    def _pattern(self) -> re.Pattern[bytes]:
        return re.compile(
            _CONTINUES + rb"(?P<source>" + self._alternatives + rb")" + _GOES_ON, re.ASCII
        )

    @functools.cached_property
    def _any_path(self) -> re.Pattern[bytes]:
        """A source or a target; the longer where both begin at one place."""
        paths = sorted(
            {*self._targets, *self._targets.values()}, key=lambda path: (-len(path), path)
        )
        return re.compile(
            rb"(?:" + b"|".join(map(re.escape, paths)) + rb")" + _GOES_ON, re.ASCII
        )

    @functools.cached_property
    def _anywhere(self) -> tuple[bytes, ...]:
        """The shortest sources: a file that holds none of them holds no path of ours."""
        return tuple(
            source
            for source in self._targets
            if not any(source != other and source.startswith(other) for other in self._targets)
        )

    @functools.cached_property
    def longest(self) -> int:
        """The most bytes that a path of the build takes."""
        return max(map(len, self._targets), default=1)

    def touches(self, data: bytes) -> bool:
        """Whether ``data`` may hold a path of the build; quick, and never wrongly False."""
        return any(source in data for source in self._anywhere)

    def path(self, path: str) -> str | None:
        """Where a path of this machine lies in the image; None when no rule knows it."""
        data = os.fsencode(path)
        match = self._pattern.match(data)
        if match is None:
            return None
        return os.fsdecode(self._targets[match["source"]] + data[match.end() :])

    def _replacement(self, match: re.Match[bytes]) -> bytes:
        return self._targets[match["source"]]

    def text(self, data: bytes) -> bytes:
        """``data`` with every path of the build replaced."""
        return self._pattern.sub(self._replacement, data)

    def residue(self, data: bytes) -> str | None:
        """A path of the build that stands in ``data``, or None.

        Stricter than :meth:`text`: a path counts even where it may be a part of another.
        But a path of the image is none, even if this machine has the same, or a part of it.
        """
        targets = set(self._targets.values())
        for match in self._any_path.finditer(data):
            if match[0] not in targets:
                return os.fsdecode(match[0])
        return None

    def mentions(
        self, data: bytes, exists: Callable[[str], bool] = os.path.lexists
    ) -> Iterator[Mention]:
        """The paths of the build that ``data`` refers to.

        What may go on in several ways is what exists; if nothing does, a word, or what is in
        quotes and has no blanks.
        """
        for match in self._pattern.finditer(data):
            likely: tuple[bytes, bool] | None = None
            for candidate, quoted in _candidates(data, match.start()):
                path = os.fsdecode(candidate)
                if exists(path):
                    yield Mention(path, quoted, True)
                    break
                if b" " not in candidate and (likely is None or not likely[1]):
                    likely = candidate, quoted
            else:
                if likely is not None:
                    yield Mention(os.fsdecode(likely[0]), likely[1], False)


def _candidates(data: bytes, start: int) -> Iterator[tuple[bytes, bool]]:
    """What the path that begins at ``start`` may be, the most likely first."""
    limit = data[start : start + _LONGEST]
    before = data[start - 1 : start]
    if before in (b"'", b'"'):
        inside, quote, _ = limit.partition(before)
        if quote and b"\n" not in inside:
            yield inside, True
            # setuptools names an editable module without its suffix
            yield inside + b".py", True
    line = limit.partition(b"\n")[0].rstrip()
    yield line, False
    end = _END.search(limit)
    word = limit[: end.start()] if end else limit
    yield word, False
    yield word.rstrip(b"./"), False


def _spellings(path: str) -> Sequence[str]:
    """A path as it is, with its links resolved, and as part of a URL."""
    plain = [path, os.path.realpath(path)]
    return list(dict.fromkeys([*plain, *(urllib.parse.quote(text) for text in plain)]))


def is_text(data: bytes) -> bool:
    """Whether ``data`` is a text in which a path may be replaced by one of another length."""
    return b"\x00" not in data
