"""The runtime settings of a buildout, and where they stand in what its parts write.

``[runtime]`` says which options an environment variable may change when a container starts.
Where such an option stands in a finished text is found by trying: the text is made again with
two other values, and what differs is the place.  So a setting may come through other sections,
through a template, through an option that makes half a page, and nobody has to know of it; a
setting that changes more than its own place is found out, too.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from eggcrate.config.references import Rendered
from eggcrate.errors import EggcrateError, SettingsError, raise_all
from eggcrate.runtime import variables
from eggcrate.runtime.variables import Document, Setting, Settings

SECTION = "runtime"

_FROM = re.compile(r"\bfrom=(?P<section>[^\s:]*):(?P<option>\S+)")
_WORDS = (("true", "false"), ("on", "off"), ("yes", "no"), ("1", "0"))
_SPELLINGS = (
    *_WORDS,
    *((yes.capitalize(), no.capitalize()) for yes, no in _WORDS[:3]),
    *((yes.upper(), no.upper()) for yes, no in _WORDS[:3]),
)

# values that the checks of a type take, and that no configuration has by itself
_EXAMPLES: Mapping[str, tuple[str, str]] = {
    "port": ("1", "65535"),
    "int": ("-7919", "999983"),
    "size": ("1", "7919g"),
    "duration": ("7919ms", "7919s"),
    "hostname": ("a-probe.invalid", "b-probe.invalid"),
    "hostnames": ("a-probe.invalid", "b-probe.invalid"),
    "cidrs": ("192.0.2.0/25", "198.51.100.0/26"),
    "path": ("/a/probe", "/b/probe/"),
    "urlpath": ("/a-probe", "/b-probe/"),
    "url": ("http://a-probe.invalid", "https://b-probe.invalid:1/x"),
    "word": ("a-probe", "b-probe"),
    "text": ("a probe", "b probe"),
}

# (section, option): what is there instead of its value
Instead = Mapping[tuple[str, str], str]


class Runtime:
    """The settings that a section of a buildout declares; all that is wrong is raised."""

    def __init__(self, buildout: Any, section: str = SECTION) -> None:
        self._buildout = buildout
        self._section = section
        self._sources: dict[str, tuple[str, str]] = {}
        settings: list[Setting] = []
        secrets: list[str] = []
        errors: list[EggcrateError] = []
        options = buildout[section]
        for name in sorted(options):
            try:
                if name == "secrets":
                    words = options[name].split()
                    secrets = [variables.variable(word, "name another one") for word in words]
                elif not name.startswith("_"):
                    settings.append(self._declared(name, options[name]))
            except ValueError as error:
                what, _, hint = str(error).partition("; ")
                errors.append(
                    SettingsError(f"[{section}] {name} {what}", hint or "correct it there")
                )
            except EggcrateError as error:
                errors.append(error)
        try:
            self.settings = Settings(settings, secrets)
        except ValueError as error:
            errors.append(
                SettingsError(f"[{section}] is wrong: {error}", "rename one of the two")
            )
        raise_all(errors)

    @classmethod
    def of(cls, buildout: Any, section: str | None = None) -> Runtime | None:
        """The settings of a buildout; None where there is no such section."""
        if section is None and SECTION not in list(buildout.keys()):
            return None
        if section is not None and section not in list(buildout.keys()):
            near = difflib.get_close_matches(section, sorted(buildout.keys()), 1)
            raise SettingsError(
                f"runtime: there is no section [{section}]",
                f"write {near[0]}, the nearest name there is" if near else "add it",
            )
        return cls(buildout, section or SECTION)

    def _declared(self, name: str, text: str) -> Setting:
        found = _FROM.search(text)
        section, option = (found["section"], found["option"]) if found else ("custom", name)
        text = _FROM.sub("", text)
        sections = list(self._buildout.keys())
        if section not in sections:
            near = difflib.get_close_matches(section, sorted(sections), 1)
            raise SettingsError(
                f"[{self._section}] {name} is an option of [{section}], which there is not",
                f"write from={near[0]}:{option}, the nearest name there is"
                if near
                else f"add [{section}], or write from=SECTION:OPTION behind the type",
            )
        default = self._buildout[section].get(option)
        if default is None and "required" not in text.split():
            near = difflib.get_close_matches(option, sorted(self._buildout[section]), 1)
            raise SettingsError(
                f"[{self._section}] {name} is no option of [{section}]",
                f"write {near[0]}, the nearest name there is"
                if near
                else f"add {option} to [{section}], with the value for those who set nothing",
            )
        self._sources[name] = section, option
        return variables.declaration(name, " ".join(text.split()), default)

    # Values ------------------------------------------------------------------------------

    def value(self, section: str, option: str, instead: Instead) -> str | None:
        """An option's value as it would be if those of others were ``instead``."""
        if (section, option) in instead:
            return instead[section, option]
        options = self._buildout[section]
        value: str | None = options.get(option)
        raw = options._raw.get(option)
        if value is None or not instead or raw is None or "${" not in raw:
            return value
        if self._substituted(section, raw, {}) != value:
            return value  # its recipe has set it to something else
        return self._substituted(section, raw, instead)

    def _substituted(self, section: str, raw: str, instead: Instead) -> str | None:
        """An option's text with the values of its references, as buildout has it."""
        texts = [self.substituted(section, part, instead) for part in raw.split("$$")]
        known = [text for text in texts if text is not None]
        return "$$".join(known) if len(known) == len(texts) else None

    def substituted(self, section: str, text: str, instead: Instead) -> str | None:
        """A text of a section with the values of its references; None if one has none."""
        pieces = re.split(r"\$\{([^}]*)\}", text)
        for number, reference in enumerate(pieces[1::2]):
            named, _, option = reference.partition(":")
            found = self.value(named or section, option, instead)
            if found is None and option == "_buildout_section_name_":
                found = section
            if found is None:
                return None
            pieces[2 * number + 1] = found
        return "".join(pieces)

    # Places ------------------------------------------------------------------------------

    def document(
        self,
        rendered: Rendered,
        text: Callable[[Instead], Rendered],
        *,
        path: str,
        mode: int,
        kind: str = "",
    ) -> Document:
        """A finished text with its settings in their places.

        ``text`` makes it again with other values.  What can't be is raised: a setting that
        decides more than a value, or that stands where none can.
        """
        from eggcrate.config import symbolic

        spans: list[tuple[int, int, Setting]] = []
        errors: list[EggcrateError] = []
        for setting in self.settings.settings:
            try:
                spans += [
                    (start, end, setting) for start, end in self._spans(rendered, text, setting)
                ]
            except EggcrateError as error:
                errors.append(error)
        raise_all(errors)
        spans.sort(key=lambda span: span[:2])
        pieces: list[str | symbolic.Symbol] = []
        at = 0
        for start, end, setting in spans:
            if start < at:
                raise SettingsError(
                    f"{setting.name} of [{self._section}] and another setting share a place in "
                    f"{rendered.name}",
                    "let each of them stand for itself",
                )
            if start > at:
                pieces.append(rendered.text[at:start])
            line = rendered.text.count("\n", 0, start) + 1
            pieces.append(symbolic.Symbol(setting.name, line, rendered.text[start:end]))
            at = end
        pieces.append(rendered.text[at:])
        known = {setting.name: setting for setting in self.settings.settings}
        form = kind or symbolic.format_of(rendered.text)
        placed = symbolic.placed(pieces, form, known, rendered.where)
        return Document(path, mode, form, placed)

    def _spans(
        self, rendered: Rendered, text: Callable[[Instead], Rendered], setting: Setting
    ) -> Iterator[tuple[int, int]]:
        """Where a setting stands in the text."""
        source = self._sources[setting.name]
        examples = _examples(setting, self._buildout[source[0]].get(source[1]) or "")
        texts = [self._tried(text, setting, source, example) for example in examples]
        if len(texts) < 2 or (texts[0] == texts[1] == rendered.text):
            return
        literals = _literals(texts[0], texts[1], _pairs(setting, examples))
        several = setting.type in variables.LISTS or setting.type == "text"
        hole = "(.*?)" if several else r"([^\n]*?)"
        found = literals and re.fullmatch(
            hole.join(map(re.escape, literals)), rendered.text, re.DOTALL
        )
        if not found:
            raise SettingsError(
                f"{setting.name} of [{self._section}] decides more in {rendered.name} than "
                "what stands in one place",
                f"take it out of [{self._section}], or use another option there",
            )
        for number in range(1, found.re.groups + 1):
            yield found.span(number)

    def _tried(
        self,
        text: Callable[[Instead], Rendered],
        setting: Setting,
        source: tuple[str, str],
        example: str,
    ) -> str:
        try:
            return text({source: example}).text
        except EggcrateError as error:
            raise SettingsError(
                f"{setting.name} of [{self._section}] may be {example}, and then "
                f"{getattr(error, 'what', error)}",
                "declare it so that it can't be, with min= and max= or as another type",
            ) from error

    def warnings(self) -> Iterator[str]:
        """What is declared as a setting, and should perhaps be a secret."""
        for setting in self.settings.settings:
            section, option = self._sources[setting.name]
            if setting.looks_secret and self._buildout[section].get(option):
                yield (
                    f"[{self._section}] {setting.name} looks like a secret, and its value in "
                    f"[{section}] is in the image; name {setting.env} in secrets, or write "
                    f"required and take {option} out of [{section}]"
                )

    def dumped(self, *documents: Document) -> bytes:
        """What PID 1 has to know of a part, as JSON."""
        settings = self.settings
        whole = Settings(settings.settings, settings.secrets, documents)
        return variables.dumped(whole).encode()


def default_text(document: Document, rendered: Rendered) -> Rendered:
    """The document's text with the defaults, which is the rendered one but for lists.

    A list whose line is repeated for each of its words stands in one line in a template.
    """
    text = variables.render(document, {})
    if text == rendered.text:
        return rendered
    places: list[str] = []
    known = rendered.text.split("\n")
    at = 0
    for line in text.split("\n"):
        found = known.index(line, at) if line in known[at:] else at
        at = min(found + (line in known[at:]), len(known) - 1)
        places.append(rendered.where(found + 1))
    return Rendered(rendered.name, text, tuple(range(1, len(places) + 1)), tuple(places))


def place(buildout: Mapping[str, Mapping[str, str]], part: str) -> str:
    """Where a part keeps what PID 1 has to know of it."""
    return os.path.join(
        buildout["buildout"]["parts-directory"], variables.DIRECTORY, f"{part}.json"
    )


def _examples(setting: Setting, written: str) -> tuple[str, ...]:
    """Two values that the setting may have; one, if there are no two."""
    if setting.type == "choices":
        return setting.choices[:2]
    if setting.type == "bool":
        for pair in _SPELLINGS:
            if written in pair:
                return pair
        return _WORDS[0]
    low, high = _EXAMPLES[setting.type]
    low, high = setting.minimum or low, setting.maximum or high
    if setting.minimum and not setting.maximum and setting.type == "int":
        high = str(max(int(high), int(low) + 1))
    return (low,) if low == high else (low, high)


def _pairs(setting: Setting, examples: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """How the two examples may be spelled in a text."""
    if setting.type == "bool":
        return _SPELLINGS
    return ((examples[0], examples[1]),)


def _literals(one: str, other: str, pairs: Sequence[tuple[str, str]]) -> list[str] | None:
    """What two texts share around the places where they differ by a pair of values."""
    if len(pairs) == 1 and (parts := one.split(pairs[0][0])) == other.split(pairs[0][1]):
        return parts  # neither value stands anywhere else, as it is nearly always
    literals: list[str] = []
    start = at = there = 0
    # where a value that begins like the other one (1 and 12) might have been a place as well
    others: list[tuple[int, int, int, int]] = []
    while at < len(one) or there < len(other):
        same = one[at : at + 1] == other[there : there + 1]
        for first, second in pairs:
            if one.startswith(first, at) and other.startswith(second, there):
                if same:
                    others.append((len(literals), start, at, there))
                literals.append(one[start:at])
                at, there = at + len(first), there + len(second)
                start = at
                break
        else:
            if not same:
                if not others:
                    return None
                number, start, at, there = others.pop()
                del literals[number:]
            at, there = at + 1, there + 1
    return [*literals, one[start:]]
