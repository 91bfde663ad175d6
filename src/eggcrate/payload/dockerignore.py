"""What a ``.dockerignore`` leaves out of a tree, exactly as Docker reads it.

Docker documents Go's ``filepath.Match`` and ``**``.  What counts is what BuildKit does with
a build context (moby/patternmatcher 0.6, tonistiigi/fsutil 2026): a pattern becomes a plain
comparison or one of Go's regular expressions, oddities included; a file that breaks in
Docker is refused here too.  In short:

- the last line that matches decides, and a match of a directory is one of all below it;
- ``*`` and ``?`` don't match a slash, but a class such as ``[^a]`` does, for it is handed
  to the regular expression as it stands (and so are ``{2}``, ``|`` and ``^`` in a pattern
  that has a wildcard);
- ``**.log`` matches any path that ends so, ``logs**`` any that begins so;
- a line with ``!`` is looked at only for what is left out so far.  So ``a/b`` and then
  ``!a`` leaves ``a/b`` out, for ``a`` was never left out itself;
- where the lines with ``!`` have no wildcard, or only a final ``/*`` or ``/**``, BuildKit
  does not look into a directory that is left out and that none of them begins with.
"""

from __future__ import annotations

import dataclasses
import posixpath
import re
from collections.abc import Iterator

from eggcrate.errors import PlanError, raise_all

# Go's unicode.IsSpace; str.strip() without an argument takes \x1c to \x1f as well
_SPACE = "\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000" + "".join(
    map(chr, range(0x2000, 0x200B))
)
_WILDCARDS = frozenset("*[]?^\\")
# What comes before the second "*" or the end, if filepath.Match accepts it: it looks no
# further where that does not match.  A class has an end and proper ranges.
_CLASS_CHARACTER = r"(?:[^\]\\-]|\\.)"
_CHUNK = re.compile(
    r"\**(?!\*)((?:[^*\[\\]|\\.|"
    rf"\[(?:\^|(?!\^))(?:{_CLASS_CHARACTER}(?:-{_CLASS_CHARACTER})?)+\]"
    r")*)(?=\*|\Z)",
    re.DOTALL,
)
_REPETITION = re.compile(r"\{\d+(?:,\d*)?\}", re.ASCII)
# Go's, which are ASCII's: Python's \s has \v too
_PERL_CLASSES = {"d": "0-9", "s": r"\t\n\f\r ", "w": "0-9A-Za-z_"}
_NAMED_CLASSES = {
    "alnum": "0-9A-Za-z",
    "alpha": "A-Za-z",
    "ascii": r"\x00-\x7f",
    "blank": r"\t ",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\t\n\v\f\r ",
    "upper": "A-Z",
    "word": "0-9A-Za-z_",
    "xdigit": "0-9A-Fa-f",
}
_IN_PYTHON = {"^": "(?:^)", "$": r"\Z", "{": r"\{", "}": r"\}", "]": r"\]"}
_CONTROLS = {"a": "\a", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
# all below a directory is left out, and BuildKit does not look there
_PRUNED = -1


@dataclasses.dataclass(frozen=True, slots=True)
class _Run:
    """Lines that follow one another, all of them with ``!``, or all without."""

    again: bool
    exact: frozenset[str]
    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]
    expression: re.Pattern[str] | None

    def matches(self, path: str) -> bool:
        return (
            path in self.exact
            or path.endswith(self.suffixes)
            or path.startswith(self.prefixes)
            or (self.expression is not None and self.expression.match(path) is not None)
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Ignore:
    """The lines of a ``.dockerignore``; paths are relative to its directory, with slashes."""

    _runs: tuple[_Run, ...]
    # what the lines with "!" begin with; None if a wildcard may stand anywhere
    _exceptions: tuple[str, ...] | None
    # the runs that match a directory or one above it, as the bits of a number
    _known: dict[str, int] = dataclasses.field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def parse(cls, text: str) -> Ignore:
        """The lines of a file; ``PlanError`` for those over which Docker would stumble."""
        errors = []
        lines: list[tuple[bool, str, str, str]] = []
        for number, again, pattern in _lines(text):
            try:
                lines.append((again, pattern, *_meaning(pattern)))
            except ValueError as error:
                shown = f"{'!' if again else ''}{pattern}"
                errors.append(
                    PlanError(
                        f".dockerignore, line {number}: {shown!r} {error}",
                        "mend the pattern, or take the line out",
                    )
                )
        raise_all(errors)
        exceptions = [_without_final_wildcard(line[1]) for line in lines if line[0]]
        return cls(
            tuple(_runs(lines)),
            None if any(map(_WILDCARDS.intersection, exceptions)) else tuple(exceptions),
        )

    def matches(self, path: str, *, directory: bool = False) -> bool:
        """Whether Docker leaves the path out.

        The answer for a directory is remembered, since what is below it follows from it.
        """
        above = self._hits(path if directory else path.rpartition("/")[0])
        if above == _PRUNED:
            return True
        return self._look(path, above)[0]

    def may_hold(self, path: str) -> bool:
        """Whether Docker looks below a directory that is left out, for what ``!`` may name."""
        return self._exceptions is None or any(
            f"{name}/".startswith(f"{path}/") for name in self._exceptions
        )

    def _look(self, path: str, above: int) -> tuple[bool, int]:
        ignored, hits, bit = False, 0, 1
        for run in self._runs:
            if above & bit or (run.again == ignored and run.matches(path)):
                hits |= bit
                ignored = not run.again
            bit <<= 1
        return ignored, hits

    def _hits(self, directory: str) -> int:
        hits = self._known.get(directory)
        if hits is not None:
            return hits
        hits, end = 0, 0
        while end < len(directory) and hits != _PRUNED:
            end = directory.find("/", end + 1)
            end = len(directory) if end < 0 else end
            part = directory[:end]
            if part in self._known:
                hits = self._known[part]
                continue
            ignored, hits = self._look(part, hits)
            if ignored and not self.may_hold(part):
                hits = _PRUNED
            self._known[part] = hits
        self._known[directory] = hits
        return hits


def _lines(text: str) -> Iterator[tuple[int, bool, str]]:
    """Each pattern with its line's number, and whether the line has a ``!``."""
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        pattern = "" if line.startswith("#") else line.strip(_SPACE)
        if not pattern:
            continue
        again = pattern.startswith("!")
        pattern = pattern[again:].strip(_SPACE)
        if pattern:
            pattern = _clean(pattern)
            pattern = pattern[1:] if pattern.startswith("/") and pattern != "/" else pattern
        # Docker cleans each line twice, the second time with its "!": so "!/" is a lone "!",
        # and "!../../a" is "a"
        pattern = _clean(f"{'!' if again else ''}{pattern}".strip(_SPACE))
        again = pattern.startswith("!")
        yield number, again, pattern[again:]


def _clean(path: str) -> str:
    """Go's ``filepath.Clean``: POSIX gives two slashes in front a meaning, Go does not."""
    path = posixpath.normpath(path)
    return path[1:] if path.startswith("//") else path


def _without_final_wildcard(pattern: str) -> str:
    return pattern.removesuffix("/**").removesuffix("/*")


def _runs(lines: list[tuple[bool, str, str, str]]) -> Iterator[_Run]:
    start = 0
    for end in range(1, len(lines) + 1):
        if end < len(lines) and lines[end][0] == lines[start][0]:
            continue
        meant: dict[str, list[str]] = {
            "exact": [],
            "prefix": [],
            "suffix": [],
            "expression": [],
        }
        for _, _, kind, what in lines[start:end]:
            meant[kind].append(what)
        # "**/a" is "a" too
        below = [suffix[1:] for suffix in meant["suffix"] if suffix.startswith("/")]
        yield _Run(
            lines[start][0],
            frozenset([*meant["exact"], *below]),
            tuple(meant["prefix"]),
            tuple(meant["suffix"]),
            re.compile("|".join(meant["expression"])) if meant["expression"] else None,
        )
        start = end


def _meaning(pattern: str) -> tuple[str, str]:
    """How Docker compares a pattern, and with what; ``ValueError`` if it can't."""
    if not pattern:
        raise ValueError("names nothing")
    # Docker has Go match the pattern with ".", to see whether Go complains
    chunk = _CHUNK.match(pattern)
    if chunk and chunk[1] in (".", "?", "\\."):
        chunk = _CHUNK.match(pattern, chunk.end())
    if chunk is None:
        raise ValueError("has a [ without its end, a bad range, or a \\ at its end")
    kind, expression, at = "exact", "", 0
    while at < len(pattern):
        start, character = at, pattern[at]
        at += 1
        if pattern.startswith("**", start):
            at += 1 + pattern.startswith("/", at + 1)
            if at < len(pattern):
                # once more is the same, and slow
                expression += "" if expression.endswith("(.*/)?") else "(.*/)?"
                kind = "expression"
            elif kind == "exact":
                kind = "prefix"
            else:
                expression += ".*"
                kind = "expression"
            if not start:
                kind = "suffix"
            continue
        if character == "*":
            expression += "[^/]*"
        elif character == "?":
            expression += "[^/]"
        elif character == "\\":
            expression += pattern[start : at + 1]
            at += 1
        elif character in ".+()$":
            expression += f"\\{character}"
        else:
            expression += character
        if character in "*?\\[]":
            kind = "expression"
    if kind == "exact":
        return kind, pattern
    if kind == "prefix":
        return kind, pattern.removesuffix("**")
    if kind == "suffix":
        return kind, pattern.removeprefix("**")
    try:
        return kind, _in_python(f"^{expression}$")
    except (IndexError, OverflowError, re.error) as error:
        raise ValueError("is no regular expression, as which Docker takes it") from error


def _in_python(expression: str) -> str:
    """One of Go's regular expressions for ``re.match``."""
    found, at, free = [], 0, False
    while at < len(expression):
        character = expression[at]
        if character == "\\":
            escaped, at = _escaped(expression, at)
            found.append(escaped)
        elif character == "[":
            characters, at = _class(expression, at + 1)
            found.append(characters)
        elif character == "{" and (repetition := _REPETITION.match(expression, at)):
            found.append(repetition[0])
            at = repetition.end()
        else:
            # Docker's own, or what it forgets to escape
            found.append(_IN_PYTHON.get(character, character))
            free = free or character == "|"
            at += 1
    # of what has a "|", only the first is bound to the start, and only the last to the end
    python = f"(?:{''.join(found)})"
    python = f"(?s:.*?){python}" if free else python
    re.compile(python)
    return python


def _escaped(expression: str, at: int) -> tuple[str, int]:
    """What a backslash means outside of a class, and where the expression goes on."""
    following = expression[at + 1]
    if following.lower() in _PERL_CLASSES:
        return _perl_class(following), at + 2
    if following in "bB":
        # a word has ASCII letters only
        return f"(?a:\\{following})", at + 2
    if following in "Az":
        return f"\\{following.upper()}", at + 2
    character, at = _character(expression, at)
    return re.escape(character), at


def _perl_class(name: str) -> str:
    return f"[{'^' if name.isupper() else ''}{_PERL_CLASSES[name.lower()]}]"


def _class(expression: str, at: int) -> tuple[str, int]:
    """A class in Python's words, from after its ``[``, and where the expression goes on."""
    found = ""
    others: list[str] = []
    negated = expression.startswith("^", at)
    at += negated
    first = True
    while first or expression[at] != "]":
        first = False
        end = expression.find(":]", at + 2) if expression.startswith("[:", at) else -1
        if end >= 0:
            name = expression[at + 2 : end]
            if name not in _NAMED_CLASSES:
                raise ValueError(f"has the class [:{name}:], which Docker does not know")
            found += _NAMED_CLASSES[name]
            at = end + 2
        elif expression[at] == "\\" and expression[at + 1] in _PERL_CLASSES:
            found += _PERL_CLASSES[expression[at + 1]]
            at += 2
        elif expression[at] == "\\" and expression[at + 1].lower() in _PERL_CLASSES:
            others.append(_perl_class(expression[at + 1]))
            at += 2
        else:
            low, at = _character(expression, at)
            high = low
            if expression[at] == "-" and expression[at + 1] != "]":
                high, at = _character(expression, at + 1)
            if high < low:
                raise ValueError("has a range whose end is before its start")
            found += re.escape(low) if low == high else f"{re.escape(low)}-{re.escape(high)}"
    if not others:
        return f"[{'^' if negated else ''}{found}]", at + 1
    any_of = "|".join([*([f"[{found}]"] if found else []), *others])
    return (f"(?:(?!{any_of})(?s:.))" if negated else f"(?:{any_of})"), at + 1


def _character(expression: str, at: int) -> tuple[str, int]:
    """One character, which may be escaped, and where the expression goes on."""
    if expression[at] != "\\":
        return expression[at], at + 1
    character = expression[at + 1]
    if character in _CONTROLS:
        return _CONTROLS[character], at + 2
    if character.isalnum() or not character.isascii():
        raise ValueError(f"escapes {character}, which Docker does not take for itself")
    return character, at + 2
