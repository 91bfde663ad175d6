"""The lists with which generated scripts extend ``sys.path``."""

from __future__ import annotations

import heapq
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence

# What zc.buildout writes with relative-paths = true: `base` is so many directories above the
# script's own.
_BASE = re.compile(
    rb"^base = os\.path\.dirname\(os\.path\.abspath\(os\.path\.realpath\(__file__\)\)\)\n"
    rb"(?P<up>(?:base = os\.path\.dirname\(base\)\n)*)",
    re.MULTILINE,
)
_JOIN = re.compile(rb"""\bjoin\(base, (?:'(?P<one>[^'\n]*)'|"(?P<two>[^"\n]*)")\)""")
_ALONE = re.compile(rb"^ +base,?\n", re.MULTILINE)
# Lists of paths: as Python strings or bare, one a line; or as PYTHONPATH has them.
_LISTS = (
    re.compile(
        rb"(?:^ *(?:'[^'\n]*'|\"[^\"\n]*\"|join\(base, '[^'\n]*'\)|base),\n){2,}", re.MULTILINE
    ),
    re.compile(rb"(?:^/[^\s:'\"]+\n){2,}", re.MULTILINE),
    re.compile(rb"(?<![^\s'\":=])/[^\s:'\"]+(?::/[^\s:'\"]+)+"),
)
_ITEM = re.compile(rb"join\(base, '[^'\n]*'\)|'[^'\n]*'|\"[^\"\n]*\"|\bbase\b|/[^\s:'\"]+")


def has_list(data: bytes) -> bool:
    """Whether there is a list of paths."""
    return any(expression.search(data) for expression in _LISTS)


def base(data: bytes, path: str) -> str | None:
    """The directory that ``base`` is in a script with relative paths; None in any other."""
    match = _BASE.search(data)
    if match is None:
        return None
    directory = os.path.dirname(path)
    for _ in range(match["up"].count(b"\n")):
        directory = os.path.dirname(directory)
    return directory


def joined(data: bytes, directory: str) -> Iterator[str]:
    """The paths that a script joins to ``base``, which is ``directory``."""
    for match in _JOIN.finditer(data):
        yield os.path.normpath(
            f"{directory}/{os.fsdecode(match['one'] or match['two'] or b'')}"
        )
    if _ALONE.search(data):
        yield directory


def relocated(
    data: bytes, directory: str, target: str, place: Callable[[str], str | None]
) -> bytes:
    """The script with what it joins to ``base``, which is ``target`` in the image.

    ``place`` says where a path of this machine lies there: the eggs may be elsewhere.
    """

    def replacement(match: re.Match[bytes]) -> bytes:
        name = os.fsdecode(match["one"] or match["two"] or b"")
        path = place(os.path.normpath(f"{directory}/{name}"))
        if path is None:
            return match[0]
        if path.startswith(f"{target}/"):
            return f"join(base, {path[len(target) + 1 :]!r})".encode("utf-8", "surrogateescape")
        return repr(path).encode("utf-8", "surrogateescape")

    return _JOIN.sub(replacement, data)


def listed(data: bytes, target: str) -> set[str]:
    """The paths on a script's lists; ``target`` is what ``base`` is in the image."""
    return {
        path
        for expression in _LISTS
        for match in expression.finditer(data)
        for path, _ in _items(match[0], target)
    }


def settled(data: bytes, eggs: str, target: str, clashes: Collection[frozenset[str]]) -> bytes:
    """The script with the eggs on its lists in an order that does not change from run to run.

    zc.buildout's order does, between a first run and the next, and some recipes have the
    order of a set.  ``eggs`` is where the eggs lie in the image, ``target`` what ``base`` is
    there.  What is no egg and stands among them comes first, in its order.  But two of
    ``clashes`` stay as they are: they have a module in common, and the first one's counts.
    """

    def replacement(match: re.Match[bytes]) -> bytes:
        text = match[0]
        items = list(_items(text, target))
        found = [
            number for number, (path, _) in enumerate(items) if path.startswith(f"{eggs}/")
        ]
        if len(found) < 2:
            return text
        # Python's lists begin with develop eggs and end with extra-paths; others are sets
        start, end = (found[0], found[-1] + 1) if match.re is _LISTS[0] else (0, len(items))
        new = [word for _, word in items]
        new[start:end] = _ordered(items[start:end], eggs, clashes)
        between = _ITEM.split(text)
        return b"".join(
            part for pair in zip(between, (*new, b""), strict=True) for part in pair
        )

    for expression in _LISTS:
        data = expression.sub(replacement, data)
    return data


def _items(text: bytes, target: str) -> Iterator[tuple[str, bytes]]:
    """The paths of a list, and how each is written there."""
    for word in _ITEM.findall(text):
        match = _JOIN.fullmatch(word)
        if match is not None:
            yield f"{target}/{os.fsdecode(match['one'] or match['two'] or b'')}", word
        elif word == b"base":
            yield target, word
        else:
            yield os.fsdecode(word.strip(b"'\"")), word


def _ordered(
    items: Sequence[tuple[str, bytes]], eggs: str, clashes: Collection[frozenset[str]]
) -> list[bytes]:
    """The items by their paths, but each after those before it with which it clashes."""

    def key(number: int) -> tuple[bool, str, int]:
        path = items[number][0]
        return (True, path, number) if path.startswith(f"{eggs}/") else (False, "", number)

    names = {path for pair in clashes for path in pair}
    clashing = [number for number, (path, _) in enumerate(items) if path in names]
    after: list[list[int]] = [[] for _ in items]
    before = [0] * len(items)
    for place, number in enumerate(clashing):
        for earlier in clashing[:place]:
            if frozenset((items[earlier][0], items[number][0])) in clashes:
                after[earlier].append(number)
                before[number] += 1
    ready = [key(number) for number in range(len(items)) if not before[number]]
    heapq.heapify(ready)
    ordered: list[bytes] = []
    while ready:
        _, _, number = heapq.heappop(ready)
        ordered.append(items[number][1])
        for later in after[number]:
            before[later] -= 1
            if not before[later]:
                heapq.heappush(ready, key(later))
    return ordered
