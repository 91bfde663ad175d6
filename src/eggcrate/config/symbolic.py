"""Places in a configuration that the container fills in: how a value is written at each.

The text around a place decides: in a comment anything may stand, within quotes a quote is
escaped, and where a directive's name stands there can be no setting at all.  The text is read
here as nginx and Circus read it, with a NUL in each place.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence

from eggcrate.errors import EggcrateError, TemplateError, raise_all
from eggcrate.runtime import variables as runtime
from eggcrate.runtime.variables import LISTS, Piece, Setting

_PLACE = "\0"  # no configuration has one


@dataclasses.dataclass(frozen=True, slots=True)
class Symbol:
    """A place for a setting; ``line`` is the template's, ``text`` what the build puts there.

    Without a text it is the setting's default.
    """

    name: str
    line: int
    text: str | None = None


@dataclasses.dataclass(slots=True)
class _Form:
    """How a place is written."""

    form: str = "word"
    first: bool = False  # it begins a word of a command line


def format_of(text: str) -> str:
    """What a text is by its content: ``nginx``, ``circus`` or ``plain``."""
    if re.search(r"^\[(?:circus|watcher:[^\]\n]+)\]", text, re.MULTILINE):
        return "circus"
    bare = re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)
    if re.search(r"(?:^|[;{}])\s*(?:events|http|server|upstream\s+\S+)\s*\{", bare, re.M):
        return "nginx"
    return "plain"


def placed(
    pieces: Sequence[str | Symbol],
    format: str,  # noqa: A002 - it is what the runtime's documents call it
    types: Mapping[str, Setting],
    name_of_place: Callable[[int], str],
) -> tuple[str | Piece, ...]:
    """The pieces of a runtime document, with the way in which each setting is written.

    ``types`` has the settings by their names; ``name_of_place`` says what complaints call a
    line.  What can't be is raised, all of it together.
    """
    symbols = [piece for piece in pieces if isinstance(piece, Symbol)]
    literals = [piece for piece in pieces if isinstance(piece, str)]
    if any(_PLACE in literal for literal in literals):
        raise TemplateError(
            f"{name_of_place(1)}: the file has a NUL character",
            "remove it, as no configuration can have one",
        )
    text = "".join(piece if isinstance(piece, str) else _PLACE for piece in pieces)
    settings = []
    errors: list[EggcrateError] = []
    for symbol in symbols:
        if symbol.name in types:
            settings.append(types[symbol.name])
        else:
            errors.append(
                TemplateError(
                    f"{name_of_place(symbol.line)}: {symbol.name} is no runtime setting",
                    "declare it in the section of the runtime settings",
                )
            )
    raise_all(errors)
    read = {"nginx": _nginx, "circus": _circus, "plain": _plain}[format]
    forms = read(text, settings)
    found: list[str | Piece] = []
    count = 0
    for piece in pieces:
        if isinstance(piece, str):
            found.append(piece)
            continue
        setting, form = settings[count], forms[count]
        count += 1
        default = piece.text
        if default is None and setting.type != "bool":  # which nginx spells otherwise
            default = setting.default
        wrong = _misread(form, setting, default) if isinstance(form, _Form) else form
        if wrong is not None:
            errors.append(
                TemplateError(
                    f"{name_of_place(piece.line)}: {piece.name} {wrong.what}", wrong.hint
                )
            )
            continue
        assert isinstance(form, _Form)
        if setting.type in LISTS and default is not None:
            # it may have several lines in the buildout, and needs its line again for each
            several = form.form == "nginx-line" and len(default.replace(",", " ").split()) > 1
            default = None if several or "\n" in default or "," in default else default
        found.append(Piece(setting, form.form, default, form.first))
    raise_all(errors)
    return tuple(found)


def _misread(form: _Form, setting: Setting, default: str | None) -> TemplateError | None:
    """What is wrong with a default that would be read otherwise than other values."""
    if setting.type != "text" or default is None:
        return None
    # an author's variables may well be in it
    escaped = default.replace("$", "") if form.form.startswith("nginx") else default
    try:
        written = runtime.FORMS[form.form](escaped)
    except ValueError as error:
        return TemplateError(
            f"has a default that {error} where it stands",
            "give it another default, or let the value stand elsewhere",
        )
    if form.form in ("nginx-quoted", "circus-word"):
        nginx = re.fullmatch(r"[^\s;{}\"'\\#][^\s;{}\\]*", default)
        if (nginx is None) if form.form == "nginx-quoted" else (_split(default) != [default]):
            return TemplateError(
                "has a default that is no single word", "put quotes around the place"
            )
    elif written != escaped:
        return TemplateError(
            "has a default with a quote or a backslash that would be read as one",
            "give it another default, or put other quotes around the place",
        )
    return None


def _split(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:
        return []


# A script that a shell runs, or reads.
_SHELL = re.compile(r"\A#!.*\b(?:ba|da|a|k|z)?sh\b|^\s*export\s+\w+=", re.MULTILINE)


def _plain(text: str, settings: Sequence[Setting]) -> list[_Form | TemplateError]:
    url = "shell" if _SHELL.search(text) else "word"
    wrong = TemplateError(
        "is text, in a file whose format is not known",
        "declare it as word, or as another type that needs no quotes",
    )
    return [
        wrong if setting.type == "text" else _Form(url if setting.type == "url" else "word")
        for setting in settings
    ]


# -- nginx

# Where text would choose a file, a program, a place in the tree or a pattern.
_NGINX_NO_TEXT = re.compile(
    r"include|load_module|root|alias|pid|error_log|access_log|user|env|lock_file|"
    r"working_directory|location|if|rewrite|server_name|server|listen|try_files|error_page|"
    r"index|auth_basic|set_real_ip_from|allow|deny|resolver|internal|map|geo|split_clients|"
    r"(?:proxy|fastcgi|uwsgi|scgi|grpc|memcached)_(?:pass|bind|store|cache|redirect)|"
    r"(?:js|perl|lua|njs)_\w+|\w+_by_lua\w*|mirror|post_action|auth_request|ssl_\w+|"
    r"\w+_(?:path|file|dict|pass|include|require|set)"
)
# Where a word's first character has a meaning, and what can stand there.
_NGINX_FIRST = {
    "location": "urlpath or choices",
    "if": "urlpath, hostname or choices",
    "server_name": "hostname, hostnames or choices",
}
# What can stand there in the place of text, unless it is what can elsewhere.
_NGINX_INSTEAD = {
    **_NGINX_FIRST,
    **dict.fromkeys(("include", "load_module", "auth_basic"), "choices"),
}
# Where a list of hosts may be several words.
_NGINX_WORDS = ("server_name", "valid_referers", "resolver")
_NGINX_REPEATED = ("set_real_ip_from", "allow", "deny")
# Blocks of keys and values, in which no directive stands.
_NGINX_TABLES = ("map", "geo", "split_clients", "types", "charset_map")
# Types whose values never begin with a character that goes on with a variable's name.
_SLASHED = ("path", "urlpath")


@dataclasses.dataclass(slots=True)
class _Word:
    start: int
    end: int
    quote: str
    text: str


@dataclasses.dataclass(slots=True)
class _Statement:
    """A directive: its words, the block around it, and its end (with its ; or {)."""

    words: list[_Word]
    blocks: tuple[str, ...]
    end: int
    sign: str


def _nginx(text: str, settings: Sequence[Setting]) -> list[_Form | TemplateError]:
    places = [found.start() for found in re.finditer(_PLACE, text)]
    forms: dict[int, _Form | TemplateError] = {place: _Form("comment") for place in places}
    of = dict(zip(places, settings, strict=True))
    for statement in _nginx_statements(text):
        for number, word in enumerate(statement.words):
            for place in range(word.start, word.end):
                if place in forms:
                    forms[place] = _nginx_form(text, statement, number, place, of[place])
    return [forms[place] for place in places]


def _nginx_statements(text: str) -> Iterator[_Statement]:
    """The directives of a configuration, as nginx's own reader finds them."""
    words: list[_Word] = []
    blocks: list[str] = []
    at = 0
    while at < len(text):
        sign = text[at]
        if sign in " \t\r\n":
            at += 1
        elif sign == "#":
            end = text.find("\n", at)
            at = len(text) if end < 0 else end
        elif sign in ";{}":
            at += 1
            if words or sign == "{":
                yield _Statement(words, tuple(blocks), at, sign)
            if sign == "{":
                blocks.append(words[0].text if words else "")
            elif sign == "}" and blocks:
                blocks.pop()
            words = []
        else:
            word = _nginx_word(text, at)
            words.append(word)
            at = word.end
    if words:
        yield _Statement(words, tuple(blocks), at, "")


def _nginx_word(text: str, start: int) -> _Word:
    at = start
    quote = text[start] if text[start] in "\"'" else ""
    at += bool(quote)
    while at < len(text):
        sign = text[at]
        if sign == "\\":
            at += 2
        elif quote:
            at += 1
            if sign == quote:
                break
        elif text.startswith("${", at):
            at += 2
        elif sign in " \t\r\n;{":
            break
        else:
            at += 1
    at = min(at, len(text))
    inner = text[start + 1 : at - 1] if quote else text[start:at]
    return _Word(start, at, quote, inner)


def _nginx_form(
    text: str, statement: _Statement, number: int, place: int, setting: Setting
) -> _Form | TemplateError:
    word = statement.words[number]
    directive = statement.words[0].text
    table = bool(statement.blocks) and statement.blocks[-1] in _NGINX_TABLES
    kind = setting.type
    before = text[word.start : place]
    whole = word.end - word.start == 1
    if any("_by_lua" in block for block in statement.blocks):
        return TemplateError(
            "stands in a block of Lua",
            "hand it over in a variable that set makes outside of the block",
        )
    if len(before) - len(before.rstrip("\\")) & 1:
        return TemplateError("stands after a backslash", "remove the backslash")
    if re.search(r"\$\{\w*\Z", before) or (
        re.search(r"\$\w*\Z", before) and (kind not in _SLASHED or before.endswith("$"))
    ):
        return TemplateError(
            "would become part of a variable's name",
            "put braces around the name of the variable before it",
        )
    if number == 0 and not table:
        if statement.sign == "{":
            return TemplateError("stands where a block's name is", "write the name itself")
        return TemplateError("stands where a directive's name is", "write the name itself")
    if kind in LISTS:
        return _nginx_list(text, statement, number, kind, table=table, whole=whole)
    if kind != "text":
        if kind in ("word", "path") and directive in ("include", "load_module"):
            return TemplateError(
                f"is a {kind}, and {directive} would read any file that it names",
                "declare it as choices",
            )
        if kind in ("word", "hostname") and directive == "auth_basic" and word.text == _PLACE:
            return TemplateError(
                f"is a {kind}, and auth_basic off would let everybody in",
                "declare it as choices",
            )
        begins = place == word.start + len(word.quote)
        if kind == "word" and directive in _NGINX_FIRST and begins:
            return TemplateError(
                f"is a word, and {directive} gives a meaning to its first character",
                f"declare it as {_NGINX_FIRST[directive]}",
            )
        if table and number == 0 and kind in ("word", "hostname", "choices"):
            if place != word.start + len(word.quote) or len(word.text) > 1:
                return _Form()
            return _Form("nginx-key")
        return _Form()
    if table and number == 0:
        return TemplateError(
            "is text, where a block has its keys", "declare it as word or hostname"
        )
    if not table and _NGINX_NO_TEXT.fullmatch(directive):
        return TemplateError(
            f"is text, which is too free for {directive}",
            f"declare it as {_NGINX_INSTEAD.get(directive, 'path, url, hostname or word')}",
        )
    if word.quote:
        return _Form("nginx-double" if word.quote == '"' else "nginx-single")
    if whole:
        return _Form("nginx-quoted")
    return TemplateError(
        "is text, in a part of a word without quotes",
        "put quotes around the whole word",
    )


def _nginx_list(
    text: str, statement: _Statement, number: int, kind: str, *, table: bool, whole: bool
) -> _Form | TemplateError:
    directive = statement.words[0].text
    repeats = number == 1 and directive in _NGINX_REPEATED
    if table:
        repeats = number == 0 or (number == 1 and directive in ("proxy", "delete"))
    if whole and statement.sign == ";" and repeats and (table or kind == "cidrs"):
        return _repeated(text, statement)
    if whole and kind == "hostnames" and directive in _NGINX_WORDS and not table:
        return _Form()
    if (
        statement.words[number].quote
        and not table
        and directive not in (*_NGINX_WORDS, *_NGINX_REPEATED)
        and not _NGINX_NO_TEXT.fullmatch(directive)
    ):
        return _Form()
    if kind == "cidrs":
        return TemplateError(
            "is a list of networks, where there can be one at most",
            "let it be a word of its own, of set_real_ip_from, allow, deny or in geo",
        )
    return TemplateError(
        "is a list of hosts, where there can be one at most",
        "declare it as hostname, or let it be a word of its own of server_name",
    )


def _repeated(text: str, statement: _Statement) -> _Form | TemplateError:
    """A place whose line stands there once for each word of a list."""
    start = statement.words[0].start
    first = text.rfind("\n", 0, start) + 1
    last = text.find("\n", statement.end)
    rest = text[statement.end :] if last < 0 else text[statement.end : last]
    line = text[first : statement.end]
    alone = not text[first:start].strip() and re.fullmatch(r"\s*(?:#.*)?", rest)
    if not alone or "\n" in line:
        return TemplateError(
            "is a list whose line is repeated, and there is more on the line",
            "let the directive stand alone on one line",
        )
    return _Form("nginx-line")


# -- Circus

_OPTION = re.compile(r"(?P<option>.*?)\s*(?:=|:)\s*(?P<value>.*)$", re.DOTALL)
_COMMANDS = ("cmd", "args", "shell_args")
# Options in which text would choose a program, code or a file of configuration.
_CIRCUS_NO_TEXT = re.compile(
    r"executable|include|include_dir|use|loggerconfig|virtualenv|uid|gid|hooks\..*|.*\.class|"
    r"working_dir|.*endpoint.*|prereload_fn"
)
# Programs that run code of an argument, and the option that says so.
_CODE = (
    (r"(?:ba|da|a|k|z)?sh|busybox|su|runuser|python[\d.]*|pypy[\d.]*", r"-\w*c"),
    (r"perl|ruby|node|php", r"-\w*[eErRp]|--eval|--print"),
    (r"nginx", r"-g"),
    (r"env", r"-\w*S.*|--split-string.*"),
    (r"ssh|xargs|awk|gawk|mawk|sed|eval", r".*"),
)


@dataclasses.dataclass(slots=True)
class _Option:
    """An option of a Circus file: its value's characters, as positions in the text."""

    section: str
    name: str
    at: list[int]
    comment: bool  # behind its first line


def _circus(text: str, settings: Sequence[Setting]) -> list[_Form | TemplateError]:
    places = [found.start() for found in re.finditer(_PLACE, text)]
    of = dict(zip(places, settings, strict=True))
    forms: dict[int, _Form | TemplateError] = {place: _Form("comment") for place in places}
    options, wrong = _circus_options(text)
    forms.update(wrong)
    exported = _expanded(text)
    programs = _programs(text, options)
    for option in options:
        value = "".join(text[place] if place >= 0 else "\n" for place in option.at)
        command = option.name in _COMMANDS and option.section.startswith("watcher:")
        states = _shell_states(value) if command else {}
        for offset, place in enumerate(option.at):
            if place not in of:
                continue
            setting = of[place]
            forms[place] = _circus_form(
                option, value, offset, setting, states.get(offset), exported, programs
            )
    return [forms[place] for place in places]


def _circus_options(text: str) -> tuple[list[_Option], dict[int, TemplateError]]:
    """All options, and the places that stand where none may."""
    options: list[_Option] = []
    wrong: dict[int, TemplateError] = {}
    section: str | None = None
    current: _Option | None = None
    start = 0
    for line in re.split(r"(?<=\n)", text):
        where, start = start, start + len(line)
        places = [where + found.start() for found in re.finditer(_PLACE, line)]
        bare = line.rstrip("\r\n")
        if not bare.strip() or bare[0] in "#;":
            continue
        if bare[0] in "rR" and bare.split(None, 1)[0].lower() == "rem":
            continue
        if bare[0].isspace() and section is not None and current is not None:
            body = bare.strip()
            begin = where + bare.index(body)
            current.at += [-1, *range(begin, begin + len(body))]
            continue
        if header := re.match(r"\[(.+)\]", bare):
            section, current = header[1], None
            for place in places:
                wrong[place] = TemplateError(
                    "stands in a section's name", "write the name itself"
                )
            continue
        found = _OPTION.match(bare)
        if section is None or found is None:
            for place in places:
                wrong[place] = TemplateError(
                    "stands where no option is", "write NAME = value in a section"
                )
            current = None if section is None else current
            continue
        for place in places:
            if place < where + found.end("option"):
                wrong[place] = TemplateError(
                    "stands in an option's name", "write the name itself"
                )
        value = found["value"]
        cut = value.find(";")
        comment = cut >= 0 and value[cut - 1].isspace()
        if comment:
            value = value[:cut]
        value = value.rstrip()
        begin = where + found.start("value")
        name, positions = found["option"].rstrip(), [*range(begin, begin + len(value))]
        current = _Option(section, name, positions, comment)
        options.append(current)
    return options, wrong


def _expanded(text: str) -> set[str]:
    """The variables that commands and options take from the environment, in lower case."""
    return {
        name.lower() for name in re.findall(r"\(circus\.env\.([\w.-]+)\)", text, re.IGNORECASE)
    }


def _programs(text: str, options: Sequence[_Option]) -> dict[str, list[str]]:
    """The words of each watcher's cmd and args, in this order."""
    found: dict[str, list[str]] = {}
    for name in _COMMANDS:
        for option in options:
            if option.name == name and option.section.startswith("watcher:"):
                value = "".join(text[place] if place >= 0 else "\n" for place in option.at)
                found.setdefault(option.section, []).extend(_split(value))
    return found


def _circus_form(
    option: _Option,
    value: str,
    offset: int,
    setting: Setting,
    state: tuple[str, bool] | None,
    exported: set[str],
    programs: Mapping[str, Sequence[str]],
) -> _Form | TemplateError:
    before, after = value[:offset], value[offset + 1 :]
    kind = setting.type
    env = option.section == "env" or option.section.startswith("env:")
    if re.search(r"\(circus[\w.-]*\Z", before, re.IGNORECASE) or (
        kind in ("text", "word") and re.search(r"\([\w.-]*\Z", before)
    ):
        return TemplateError(
            "stands in what Circus would take for a reference",
            "write the name of the variable itself",
        )
    if before.endswith("$") and env:
        return TemplateError("would become a variable's name after its $", "remove the dollar")
    if kind == "text" and re.match(r"\(|circus", after, re.IGNORECASE):
        return TemplateError(
            "is text before a bracket, which Circus could take for a reference",
            "put another sign between them",
        )
    if kind == "text" and option.comment and "\n" not in before:
        # only the first semicolon of a line can begin a comment, and text may have one
        return TemplateError(
            "is text before a comment on the same line",
            "give the comment a line of its own",
        )
    if state is None:
        if kind != "text":
            code = kind == "url" and env and option.name.lower() in exported
            return _Form(
                "shell" if code and any(map(_running_code, programs.values())) else "word"
            )
        if _CIRCUS_NO_TEXT.fullmatch(option.name) and not env:
            return TemplateError(
                f"is text, which is too free for {option.name}",
                "declare it as path, word or choices",
            )
        if option.section.startswith("plugin:"):
            return TemplateError(
                "is text, which would tear a plugin's command line apart",
                "declare it as word",
            )
        if env and option.name.lower() in exported:
            return TemplateError(
                f"is text, and $(circus.env.{option.name}) puts it into a command line",
                "write the setting itself there, within quotes",
            )
        return _Form("circus-env" if env else "circus-value")
    quote, begins = state
    if quote == "\\":
        return TemplateError("stands after a backslash", "remove the backslash")
    if kind in LISTS and not quote:
        return TemplateError(
            "is a list, which would be several words of the command line",
            "put quotes around it, or let the program have it from [env]",
        )
    if kind == "url" and _running_code(programs.get(option.section, ())):
        return _Form("shell")
    if kind != "text":
        return _Form(first=begins and kind == "word")
    if option.name == "cmd" and len(_words(before + _PLACE)) < 2:
        return TemplateError(
            "is text, where the program's name is", "declare it as path or choices"
        )
    if program := _running_code(programs.get(option.section, ())):
        return TemplateError(
            f"is text in the arguments of {program}, which could run it",
            "let the program have it from [env], or declare it as word",
        )
    if quote == "'":
        return _Form("circus-single", begins)
    return _Form("circus-double" if quote else "circus-word", begins)


def _running_code(words: Sequence[str]) -> str:
    """The program among the words of a command that runs code of its arguments, or nothing."""
    for number, word in enumerate(words):
        program = os.path.basename(word)
        for programs, options in _CODE:
            if re.fullmatch(programs, program) and any(
                re.fullmatch(options, other, re.DOTALL) for other in words[number + 1 :]
            ):
                return program
    return ""


def _words(before: str) -> list[str]:
    for closing in ("", "'", '"'):
        if words := _split(before + closing):
            return words
    return []


def _shell_states(value: str) -> dict[int, tuple[str, bool]]:
    """For each place: the quote around it (a backslash: before it), and if a word begins."""
    found: dict[int, tuple[str, bool]] = {}
    quote = ""
    empty = True  # the word has no character yet
    at = 0
    while at < len(value):
        sign = value[at]
        if sign == _PLACE:
            found[at] = (quote, empty)
            empty = False
        elif quote == "'":
            if sign == "'":
                quote = ""
            else:
                empty = False
        elif sign == "\\":
            if value[at + 1 : at + 2] == _PLACE:
                found[at + 1] = ("\\", False)
            at += 1
            empty = False
        elif quote:
            if sign == quote:
                quote = ""
            else:
                empty = False
        elif sign in "\"'":
            quote = sign
        elif sign in " \t\r\n":
            empty = True
        else:
            empty = False
        at += 1
    return found
