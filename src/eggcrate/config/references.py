"""A template's text, its ``${section:option}`` references, and what comes of them.

The language is collective.recipe.template's.  ``${section:option}`` stands for an option's
value, ``${option}`` and ``${:option}`` for one of the part's own.  There is one addition:
``$${`` stands for ``${``.  Everything else is literal: ``$host``, ``$(circus.sockets.web)``
and ``%(x)s`` mean nothing here.

A template is parsed first and rendered second, because a reference can outlive the build:
the same pieces may be rendered again, with other values.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable

from eggcrate.errors import EggcrateError, TemplateError, raise_all

# As in buildout's own options, "$$" is taken first, from the left: "$$${a:b}" is two dollars
# and a reference.  A body ends where the next "${" begins, so that a brace that was
# forgotten doesn't hide the references behind it.
_TOKEN = re.compile(r"\$\$(?P<escape>\{?)|\$\{(?P<body>(?:(?!\$\{)[^}\n])*)(?P<end>\}?)")

_NAME = re.compile(r"[-a-zA-Z0-9 ._]+")  # buildout can refer to no other names

_SHOWN = 40  # characters of a malformed reference, which may go on to the end of its line


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """A place in a template that holds an option's value.

    ``section`` is empty for an option of the part itself; ``line`` counts from 1.
    """

    section: str
    option: str
    line: int

    def __str__(self) -> str:
        return written(self.section, self.option)


@dataclasses.dataclass(frozen=True, slots=True)
class Malformed:
    """A place in a template that begins like a reference and is none, and why."""

    text: str
    reason: str
    line: int


@dataclasses.dataclass(frozen=True, slots=True)
class Rendered:
    """A template's text with every value in its place; it knows where its lines come from.

    ``lines`` holds, for every line of the text, the number of the template's line that it
    was made of.  A value of several lines makes several lines of one.  ``places`` is for a
    text that no template alone was made into: for every line, where it comes from.
    """

    name: str
    text: str
    lines: tuple[int, ...]
    places: tuple[str, ...] = ()

    def where(self, line: int) -> str:
        """The place that a line of the text (counted from 1) comes from."""
        if self.places:
            return self.places[min(max(line, 1), len(self.places)) - 1]
        index = min(max(line, 1), len(self.lines)) - 1
        return _place(self.name, self.lines[index])


@dataclasses.dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: literal text, references and perhaps mistakes, in their order.

    ``name`` is what complaints call it.
    """

    name: str
    pieces: tuple[str | Reference | Malformed, ...]

    @property
    def references(self) -> tuple[Reference, ...]:
        """Every reference, in the order of the text."""
        return tuple(piece for piece in self.pieces if isinstance(piece, Reference))

    def render(self, resolve: Callable[[str, str], str]) -> Rendered:
        """The text with the values that ``resolve(section, option)`` gives.

        For a reference that names nothing, ``resolve`` raises a :class:`TemplateError`
        whose sentence goes on after the reference ("names no section").  All complaints
        come together, those about malformed references among them.
        """
        errors: list[EggcrateError] = []
        texts: list[str] = []
        lines = [1]
        for piece in self.pieces:
            if isinstance(piece, str):
                texts.append(piece)
                here = lines[-1]
                lines += range(here + 1, here + 1 + piece.count("\n"))
                continue
            place = _place(self.name, piece.line)
            if isinstance(piece, Malformed):
                errors.append(
                    TemplateError(
                        f"{place}: {piece.text} {piece.reason}",
                        "write ${section:option}, or $${ where the text itself should have ${",
                    )
                )
                continue
            try:
                value = resolve(piece.section, piece.option)
            except TemplateError as error:
                errors.append(TemplateError(f"{place}: {piece} {error.what}", error.hint))
                continue
            texts.append(value)
            lines += [piece.line] * value.count("\n")
        raise_all(errors)
        return Rendered(self.name, "".join(texts), tuple(lines))


def written(section: str, option: str) -> str:
    """A reference as it stands in a template."""
    return f"${{{section}:{option}}}" if section else f"${{{option}}}"


def parse(text: str, name: str) -> Template:
    """The template in ``text``; what is malformed in it becomes a piece, not yet an error."""
    pieces: list[str | Reference | Malformed] = []
    literal: list[str] = []
    line = 1
    end = 0
    for token in _TOKEN.finditer(text):
        before = text[end : token.start()]
        end = token.end()
        line += before.count("\n")
        literal.append(before)
        body: str | None = token["body"]
        if body is None:
            literal.append("${" if token["escape"] else "$$")
            continue
        if any(literal):
            pieces.append("".join(literal))
        literal.clear()
        pieces.append(_reference(body, bool(token["end"]), line))
    literal.append(text[end:])
    if any(literal):
        pieces.append("".join(literal))
    return Template(name, tuple(pieces))


def _reference(body: str, closed: bool, line: int) -> Reference | Malformed:
    if not closed:
        text = "${" + body.rstrip()
        shown = text if len(text) <= _SHOWN else text[:_SHOWN] + "..."
        return Malformed(shown, "has no closing brace on its line", line)
    section, _, option = body.rpartition(":")
    if not body:
        reason = "is empty"
    elif ":" in section:
        reason = "has more than one colon"
    elif not option:
        reason = "names no option"
    elif not _NAME.fullmatch(option) or not _NAME.fullmatch(section or option):
        reason = "has a character that no reference can have"
    else:
        return Reference(section, option, line)
    return Malformed("${" + body + "}", reason, line)


def _place(name: str, line: int) -> str:
    return f"{name}, line {line}"
