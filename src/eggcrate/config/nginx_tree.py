"""A configuration of nginx as a tree of directives, with the place of every argument.

crossplane reads the words and knows where a directive may stand; what is built of that here
keeps the parents, the lines of the arguments and the files that are included, and knows how
nginx inherits.
"""

from __future__ import annotations

import contextlib
import dataclasses
import glob
import os
import pathlib
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator

from eggcrate.config.references import Rendered
from eggcrate.errors import TemplateError

# Blocks whose lines are entries, not directives: anything may stand there.
DATA = frozenset(("map", "geo", "types", "charset_map", "split_clients", "match"))
MAIN = frozenset(("events", "http", "stream", "mail"))

PASSES = ("proxy_pass", "fastcgi_pass", "uwsgi_pass", "scgi_pass", "grpc_pass")
VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")

# What a text may stand in that is a part of another configuration, the likeliest first.
_CONTEXTS: tuple[tuple[str, ...], ...] = (
    ("http",),
    ("http", "server"),
    ("http", "location"),
    ("http", "upstream"),
    ("stream",),
    ("stream", "server"),
    ("mail",),
    ("mail", "server"),
    (),
)
# crossplane has older rules for these, and its own tables of arguments for modules
_ELSEWHERE = re.compile(
    r"include|resolver(?:_timeout)?|sticky|js_\w+|perl\w*|\w*_by_lua\w*|otel_\w+"
)
# Directives that crossplane doesn't know, and that are almost others
_ALMOST = re.compile(r"keepalive_time|subs_filter\w*|lua_\w+")
# What everybody has, and nothing in it counts here
_KNOWN = re.compile(
    r"(?:^|/)(?:mime\.types|(?:fastcgi|scgi|uwsgi)_params|fastcgi\.conf|modules\S*/[^/]+)$"
)
_DEEPEST = 8  # files that include files
_LINE = 200  # characters of a word that a message shows

# Other languages' placeholders have spaces and braces, which would be nginx's own.
_FOREIGN = re.compile(r"\{\{-?\s*[\w.][^{}\n]*\}\}|\{%[^{}\n]*%\}|<%[^\n]*?%>|@\{[\w.-]+\}")
# crossplane 0.5.8 goes on with a word over the space after ${name}
_BRACED = re.compile(r"(\$\{[^\s{}]*\})(?=\s)")
_MARK = "\ue000"
_MARKED = re.compile("\ue000(?:(\\d+)\ue000)?")


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Directive:
    """A directive, or an entry of a map; as text it is the place of its name.

    ``lines`` has the line of each argument.  ``block`` is None where no braces are.
    ``unread`` has the includes of the block that lead to files that nobody can look into here.
    """

    name: str
    args: tuple[str, ...]
    source: Rendered
    line: int
    lines: tuple[int, ...]
    quoted: tuple[bool, ...]
    parent: Directive | None
    block: list[Directive] | None
    unread: list[Directive] = dataclasses.field(default_factory=list)

    def __str__(self) -> str:
        return self.source.where(self.line)

    def at(self, index: int) -> str:
        """The place of an argument."""
        return self.source.where(self.lines[index])

    @property
    def first(self) -> str:
        """The first argument, or nothing."""
        return self.args[0] if self.args else ""

    @property
    def last(self) -> str:
        """The last argument, or nothing."""
        return self.args[-1] if self.args else ""

    def all(self, *names: str) -> list[Directive]:
        """The directives of these names directly in the block."""
        return [child for child in self.block or () if child.name in names]

    def up(self) -> Iterator[Directive]:
        """The blocks around it, from the nearest one on."""
        block = self.parent
        while block is not None:
            yield block
            block = block.parent

    def within(self, *names: str) -> Directive | None:
        """The nearest block of these names around it, itself among them."""
        if self.name in names and self.block is not None:
            return self
        return next((block for block in self.up() if block.name in names), None)

    def below(self) -> Iterator[Directive]:
        """All in its block, in the order of the text."""
        for child in self.block or ():
            yield child
            yield from child.below()


@dataclasses.dataclass(frozen=True, slots=True)
class Tree:
    """What a text holds: ``root`` has no name, and what it would stand in is ``context``.

    ``context`` is empty for a whole configuration, and None for a text that fits nowhere.
    ``sound`` is False where the braces or the quotes are wrong, and the tree with them.
    """

    root: Directive
    context: tuple[str, ...] | None
    errors: tuple[TemplateError, ...]
    sound: bool

    @property
    def whole(self) -> bool:
        """Whether it is a configuration of its own, and no part of another."""
        return any(child.name in MAIN for child in self.root.block or ())


def read(
    rendered: Rendered,
    *,
    output: pathlib.Path,
    directory: pathlib.Path,
    shown: Callable[[pathlib.Path], str],
    nginx_missing: bool = False,
) -> Tree:
    """The tree of a text that would stand in ``output``, with its files below ``directory``.

    Among the errors are those of which only crossplane knows.
    """
    reader = _Reader(output, directory, shown)
    root = Directive("", (), rendered, 1, (), (), None, [])
    reader.read(rendered, root)
    if reader.errors:
        # what comes after the first one is often its consequence
        return Tree(root, None, tuple(reader.errors[:1]), sound=False)
    context: tuple[str, ...] | None = ()
    if not any(child.name in MAIN for child in root.block or ()):
        fits = (
            one
            for arguments in (True, False)
            for one in _CONTEXTS
            if not any(_misplaced(root, one, arguments=arguments))
        )
        context = next(fits, None)
    errors = [*reader.circles, *_run_together(root)]
    if context is not None:
        places = {error.what.partition(": ")[0] for error in errors}
        for error in _misplaced(root, context, arguments=True):
            if error.what.partition(": ")[0] not in places:
                errors.append(error)
    if nginx_missing:
        errors += _unknown(root)
    return Tree(root, context, tuple(errors), sound=True)


class _Reader:
    def __init__(
        self,
        output: pathlib.Path,
        directory: pathlib.Path,
        shown: Callable[[pathlib.Path], str],
    ) -> None:
        self._output = output
        self._directory = directory
        self._shown = shown
        self.errors: list[TemplateError] = []
        self.circles: list[TemplateError] = []
        # the files that are being read, and what has included each
        self._open: list[tuple[str, Directive | None]] = [(os.path.realpath(output), None)]

    def read(self, source: Rendered, into: Directive) -> None:
        """Put a file's directives into a block."""
        from crossplane.errors import NgxParserSyntaxError

        tokens = _tokens(source.text)
        try:
            self._fill(tokens, source, into)
            if next(tokens, None) is not None:
                raise NgxParserSyntaxError('unexpected "}"', None, source.text.count("\n") + 1)
        except NgxParserSyntaxError as error:
            # what it can't read may be another language, and right
            if not re.search(r"_by_lua_block|\bperl(?:_set)?\b.*\bsub\b", source.text):
                line = error.lineno or source.text.count("\n") + 1
                what = error.strerror
                if what.startswith("unexpected end of file") and (opened := _unclosed(source)):
                    line, what = opened[1], f'the "{{" of {_short(opened[0])} has no "}}"'
                self.errors.append(
                    TemplateError(
                        f"{source.where(line)}: {what} (structure)",
                        "look for a brace, a quote or a semicolon that is missing or too much "
                        "above it, or add structure to ignore",
                    )
                )

    def _fill(
        self,
        tokens: Iterator[tuple[str, int, bool]],
        source: Rendered,
        into: Directive,
    ) -> None:
        assert into.block is not None
        for name, line, quoted in tokens:
            if not quoted and name == "}":
                return
            if not quoted and name in "{;":
                self._wrong(source, line, f'unexpected "{name}"')
                if name == "{":
                    self._fill(tokens, source, dataclasses.replace(into, block=[]))
                continue
            words: list[tuple[str, int, bool]] = []
            end = ""
            for token in tokens:
                if not token[2] and token[0] in "{;}":
                    end = token[0]
                    break
                words.append(token)
            directive = Directive(
                name,
                tuple(word for word, _, _ in words),
                source,
                line,
                tuple(number for _, number, _ in words),
                tuple(in_quotes for _, _, in_quotes in words),
                into,
                [] if end == "{" else None,
            )
            into.block.append(directive)
            if end == "{":
                self._fill(tokens, source, directive)
            elif end != ";":
                self._wrong(source, line, f'{_short(name)} is not terminated by ";"')
                return
            elif name == "include" and len(words) == 1 and into.name not in DATA - {"types"}:
                self._include(directive, into)

    def _wrong(self, source: Rendered, line: int, what: str) -> None:
        self.errors.append(
            TemplateError(
                f"{source.where(line)}: {what} (structure)",
                "look for a brace, a quote or a semicolon that is missing or too much, or add "
                "structure to ignore",
            )
        )

    def _include(self, directive: Directive, into: Directive) -> None:
        start = self._output.parent
        paths = [
            path
            for path in matches(directive.first, start)
            if path.is_relative_to(self._directory)
        ]
        pattern = os.path.normpath(start / directive.first)
        if self._output not in paths and self._output.match(pattern):
            paths.append(self._output)  # it is about to be written
        deep = len(self._open) > _DEEPEST
        if (not paths or deep) and not _KNOWN.search(directive.first):
            into.unread.append(directive)
        for path in paths if not deep else ():
            real = os.path.realpath(path)
            around = dict(self._open)
            if real in around:
                self._circle(directive, path, around[real])
                continue
            try:
                text = path.read_bytes().decode("utf-8")
            except (OSError, UnicodeDecodeError):
                into.unread.append(directive)
                continue
            lines = tuple(range(1, text.count("\n") + 2))
            self._open.append((real, directive))
            self.read(Rendered(self._shown(path), text, lines), into)
            self._open.pop()

    def _circle(self, last: Directive, path: pathlib.Path, first: Directive | None) -> None:
        included = f"which {first} has included" if first else "the file of this very text"
        self.circles.append(
            TemplateError(
                f"{last}: include {last.first} leads back to {self._shown(path)}, {included}, "
                f"and nginx would read on until it crashes (structure)",
                "take the include out, or name the files without this one, or add structure "
                "to ignore",
            )
        )


def matches(pattern: str, start: pathlib.Path) -> list[pathlib.Path]:
    """The files that an include means, in nginx's order."""
    found = glob.glob(os.path.normpath(start / pattern))
    return [pathlib.Path(name) for name in sorted(found)]


def _tokens(text: str) -> Iterator[tuple[str, int, bool]]:
    """The words of a text, with their lines, and whether they stand in quotes.

    Comments are left out.  Raises crossplane's ``NgxParserSyntaxError``.
    """
    from crossplane.lexer import lex

    kept: list[str] = []

    def keep(match: re.Match[str]) -> str:
        kept.append(match[0])
        return f"{_MARK}{len(kept) - 1}{_MARK}"

    def given_back(match: re.Match[str]) -> str:
        return kept[int(match[1])] if match[1] else ""

    # nginx takes a lone carriage return for a space, and Python for the end of a line
    text = text.replace("\r\n", "\n").replace("\r", " ")
    text = _BRACED.sub(rf"\1{_MARK}", _FOREIGN.sub(keep, text))
    descriptor, name = tempfile.mkstemp(prefix="eggcrate-", suffix=".conf")  # lex opens files
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as file:
            # crossplane forgets a word at the end, and a comment without its end of line
            file.write(f"{text}\n")
        for token, line, quoted in lex(name):
            if _MARK in token:
                token = _MARKED.sub(given_back, token)
            if quoted or not token.startswith("#"):
                yield token, line, quoted
    finally:
        with contextlib.suppress(OSError):
            os.unlink(name)


def _unclosed(source: Rendered) -> tuple[str, int] | None:
    """The words and the line of the block that is likely the one without its end.

    That is one whose end would stand further left than itself, or else the innermost one.
    """
    from crossplane.errors import NgxParserSyntaxError

    lines = source.text.split("\n")

    def indent(line: int) -> int:
        return len(lines[line - 1]) - len(lines[line - 1].lstrip())

    blocks: list[tuple[str, int]] = []
    words: list[tuple[str, int]] = []
    with contextlib.suppress(NgxParserSyntaxError):
        for word, line, quoted in _tokens(source.text):
            if quoted or word not in ("{", "}", ";"):
                words.append((word, line))
                continue
            if word == "{":
                opened = " ".join(text for text, _ in words)
                blocks.append((opened or word, words[0][1] if words else line))
            elif word == "}" and blocks:
                alone = lines[line - 1].lstrip().startswith("}")
                if alone and indent(line) < indent(blocks[-1][1]):
                    return blocks[-1]
                blocks.pop()
            words = []
    return blocks[-1] if blocks else None


def _contexts(
    block: Directive, context: tuple[str, ...]
) -> Iterator[tuple[Directive, tuple[str, ...]]]:
    """Every directive below a block, with what crossplane calls its context."""
    from crossplane.analyzer import enter_block_ctx

    for child in block.block or ():
        yield child, context
        if child.block is not None and child.name not in DATA:
            inner = enter_block_ctx({"directive": child.name}, context)
            yield from _contexts(child, inner)


def _misplaced(
    root: Directive, context: tuple[str, ...], *, arguments: bool
) -> Iterator[TemplateError]:
    """What stands where it may not, or has too many arguments or too few."""
    from crossplane.analyzer import analyze
    from crossplane.errors import NgxParserDirectiveError

    for directive, where in _contexts(root, context):
        if _ELSEWHERE.fullmatch(directive.name) or any("@{" in one for one in directive.args):
            continue
        statement = {
            "directive": directive.name,
            "line": directive.line,
            "args": list(directive.args),
        }
        end = ";" if directive.block is None else "{"
        try:
            analyze("", statement, end, where, check_args=arguments)
        except NgxParserDirectiveError as error:
            yield TemplateError(
                f"{directive}: {error.strerror} (structure)",
                "correct it, look for a brace or a semicolon that is missing above it, or add "
                "structure to ignore",
            )


def _run_together(root: Directive) -> Iterator[TemplateError]:
    """Directives that have swallowed the next line, as their semicolon is missing."""
    from crossplane.analyzer import DIRECTIVES

    for directive, _ in _contexts(root, ()):
        previous = directive.line
        for word, line, quoted in zip(
            directive.args, directive.lines, directive.quoted, strict=True
        ):
            if (directive.name, word) == ("rewrite", "break"):
                continue  # a flag of its own
            if line > previous and not quoted and word in DIRECTIVES and "_by_" not in word:
                yield TemplateError(
                    f"{directive}: {directive.name} has no semicolon, so the line with {word} "
                    f"would be part of it (structure)",
                    f"end {directive.name} with a semicolon, or add structure to ignore",
                )
                break
            previous = line


def _unknown(root: Directive) -> Iterator[TemplateError]:
    """Names that are almost those of directives, for where no nginx can be asked."""
    import difflib

    from crossplane.analyzer import DIRECTIVES

    names: Iterable[str] = sorted(DIRECTIVES)
    for directive, _ in _contexts(root, ()):
        if directive.name in DIRECTIVES or _ALMOST.fullmatch(directive.name):
            continue
        if _FOREIGN.search(directive.name):
            continue
        near = difflib.get_close_matches(directive.name, names, 1, 0.9)
        if near and not _same_but_digits(directive.name, near[0]):
            yield TemplateError(
                f"{directive}: {_short(directive.name)} is no directive that is known here "
                f"(structure)",
                f"write {near[0]}, or add structure to ignore",
            )


def _same_but_digits(one: str, other: str) -> bool:
    return re.sub(r"\d", "", one) == re.sub(r"\d", "", other)


def _short(text: str) -> str:
    return text if len(text) <= _LINE else text[:_LINE] + "..."


class Site:
    """What a tree holds, and what can be known of it.

    ``upstreams`` and ``maps`` have the blocks by their names, ``everything`` has all
    directives and entries.  ``order`` gives for each place the file and the line.
    """

    def __init__(
        self,
        tree: Tree,
        *,
        output: pathlib.Path,
        directory: pathlib.Path,
        run_directory: pathlib.Path,
    ) -> None:
        self.tree = tree
        self.output = output
        self.directory = directory
        self.run_directory = run_directory
        self.everything = list(tree.root.below())
        self.order: dict[str, tuple[int, int]] = {}
        self._by_name: dict[str, list[Directive]] = {}
        sources: dict[int, int] = {}
        outside = tree.context is not None and tree.context[:1] not in ((), ("http",))
        for one in self.everything:
            number = sources.setdefault(id(one.source), len(sources))
            for line in (one.line, *one.lines):
                self.order.setdefault(one.source.where(line), (number, line))
            if one.parent and one.parent.name in DATA:
                continue
            top = next((up.name for up in one.up() if up.name in MAIN), "")
            if top in ("", "http") and not outside:
                self._by_name.setdefault(one.name, []).append(one)
        self.upstreams = {one.first: one for one in self.of("upstream")}
        self.maps = {one.args[1]: one for one in self.of("map") if len(one.args) == 2}

    def of(self, *names: str) -> list[Directive]:
        """The directives of these names for HTTP."""
        return [one for name in names for one in self._by_name.get(name, ())]

    def effective(self, block: Directive | None, name: str) -> tuple[list[Directive], bool]:
        """The directives of a name that count in a block, and whether these are surely all.

        The directives of the nearest block that has any count, and no others.
        """
        while block is not None:
            if found := block.all(name):
                return found, not block.unread
            if block.unread:
                break
            if block.name == "http":
                return [], True
            block = block.parent
        return [], False

    def is_local(self, path: str) -> bool:
        """Whether a path is the buildout's, and not made when the site starts."""
        normal = pathlib.Path(os.path.normpath(self.output.parent / path))
        return normal.is_relative_to(self.directory) and not normal.is_relative_to(
            self.run_directory
        )

    def is_missing(self, path: str) -> bool:
        """Whether a path should be the buildout's, and there is nothing."""
        return self.is_local(path) and not os.path.exists(self.output.parent / path)


def path_of(block: Directive) -> tuple[str, str]:
    """A location's modifier and its path, regular expression or name."""
    if len(block.args) > 1:
        return block.args[0], block.args[1]
    match = re.match(r"(=|\^~|~\*|~|)(.*)", block.first, re.DOTALL)
    assert match
    return match[1], match[2]


def is_prefix(block: Directive | None) -> bool:
    """Whether it is a location for all that begins with its path."""
    return block is not None and block.name == "location" and path_of(block)[0] in ("", "^~")


def count_groups(expression: str) -> int:
    """How many groups of a regular expression capture."""
    plain = re.sub(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]", "", expression, flags=re.DOTALL)
    return len(re.findall(r"\((?!\?)|\(\?P?<(?![=!])|\(\?'", plain))


def variables(text: str) -> set[str]:
    """The names of the variables in a text, in lower case."""
    return {(one or other).lower() for one, other in VARIABLE.findall(text)}


def listen(directive: Directive) -> tuple[str, str]:
    """The address and the port that a server listens at."""
    word = directive.first
    if word.startswith("unix:"):
        return word, ""
    if word.isdigit():
        return "*", word
    match = re.fullmatch(r"(\[[^\]]*\]|[^:]*)(?::(.+))?", word)
    address, port = (match[1], match[2] or "80") if match else (word, "")
    return {"0.0.0.0": "*", "localhost": "127.0.0.1"}.get(address, address), port  # noqa: S104 (read, not bound)


def listens(server: Directive) -> list[tuple[str, str]]:
    """The addresses and ports of a server."""
    return [listen(one) for one in server.all("listen")] or [("*", "80")]
