"""What Circus takes silently and then fails over, found in the text of a configuration.

Circus 0.19 ignores what it doesn't know, and starts without what it can't make.  Here each of
these mistakes is an error with its place in the template.  What may be intended is none:

- ``[circus]`` and ``[socket:...]`` have the options of :mod:`eggcrate.config.circus_options`
  and no others.
- A watcher may have any option, as plugins, hooks and clients can read it.  One that is almost
  an option of Circus, or that has the name which supervisor gives to such an option, is a
  mistake.  So is one in ``[plugin:...]`` that is almost an option of a plugin of Circus' own.
- ``$(circus.env.X)`` may come from the container's environment.  Where the names that will be
  there are known, it has to be one of them; where they aren't, it must not be a slip of the pen
  for a name in ``[env]``.

A value with ``$(circus.env.X)`` or ``@{name}`` in it is judged as text only.  Nothing here
imports Circus: see :mod:`eggcrate.config.circus_load` for what it says itself.
"""

from __future__ import annotations

import difflib
import fnmatch
import os
import pathlib
import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

from eggcrate.config.circus_file import (
    DEFAULT,
    REFERENCE,
    TRUE,
    Configuration,
    Document,
    Entry,
    Header,
    Place,
    includes,
    is_symbolic,
    load,
    where_of,
)
from eggcrate.config.circus_options import (
    ALWAYS,
    CIRCUS,
    COLORS,
    DOCUMENTED,
    ELSEWHERE,
    FAMILIES,
    FLAPPING,
    HOOKS,
    LOG_LEVELS,
    OLD,
    OLD_STREAM,
    OURS_CIRCUS,
    OURS_WATCHER,
    PLUGINS,
    RLIMITS,
    SIGNALS,
    SOCKET,
    STREAMS,
    TYPES,
    VARIABLES,
    WATCHER,
    Option,
)
from eggcrate.config.references import Rendered
from eggcrate.errors import TemplateError

_FALSE = ("no", "false", "off", "0")
_BROKEN_REFERENCE = re.compile(
    r"\$\(circus\.[^)\s]*|\$\{(?:circus\.)[^}\s]*\}?|\$\((?:env|sockets?)\.[\w.-]+\)|\$\(wid\)",
    re.IGNORECASE,
)
_BRACES = re.compile(r"\$\{([A-Za-z_]\w*)([^}]*)\}")
_PERCENT = re.compile(r"%\((\w+)\)[sdifr]")
# Programs that may read ${X} themselves.
_SHELLS = re.compile(
    r"(?:^|[\s'\"/])(?:(?:ba|da|a|z|k|mk|fi)?sh|busybox|su|runuser|envsubst|[gmn]?awk|perl|ssh)"
    r"(?=[\s'\"]|$)"
)
# Programs have formats of their own: Python's logging, gunicorn's access log, celery's tasks.
_FORMATS = re.compile(
    r"name|level(?:no|name)|pathname|filename|module|lineno|funcname|created|asctime|msecs|"
    r"relativecreated|thread(?:name)?|process(?:name)?|message|(?:end_)?color|task_(?:id|name)|"
    r"[hlutrmqsbfadp]",
    re.IGNORECASE,
)
# What supervisor replaces in its own files.
_SUPERVISOR = re.compile(
    r"here|program_name|process_num|group_name|numprocs|host_node_name|ENV_\w+"
)
_KINDS = {
    "int": "whole number",
    "float": "number",
    "bool": "boolean",
    "octal": "octal number",
    "umask": "whole number",
    "limit": "whole number",
    "signal": "signal",
}
_WRITE = {
    "int": "write a whole number, such as 1",
    "float": "write a number, such as 1 or 0.5",
    "bool": "write True or False",
    "octal": "write an octal number, such as 022",
    "umask": "write a decimal number, such as 18 for 022",
    "limit": "write a whole number, or nothing for no limit",
}
_SHOWN = 60


def _short(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "...")


def _is(kind: str, value: str) -> bool:
    """Whether Circus can make of a value what an option's kind asks for."""
    try:
        if kind in ("int", "umask"):
            int(value)
        elif kind == "float":
            float(value)
        elif kind == "octal":
            int(value or "0", 8)
        elif kind == "limit":
            int(value or "0")
        elif kind == "bool":
            return value.strip().lower() in TRUE + _FALSE
        elif kind == "signal":
            return _is_signal(value)
    except ValueError:
        return False
    return True


# Options that have an effect elsewhere, and no plugin's are called so
_MISPLACED = {
    **dict.fromkeys(
        ("umask", "check_delay", "endpoint", "pubsub_endpoint", "include"), "[circus]"
    ),
    **dict.fromkeys(("multicast_endpoint", "loglevel", "logoutput", "pidfile"), "[circus]"),
    **dict.fromkeys(("backlog", "so_reuseport", "replace"), "a [socket:NAME]"),
}


def _is_signal(value: str) -> bool:
    if _is("int", value):
        return 0 < int(value) <= 64
    name = re.match(r"\w+", value)
    return name is not None and name[0].upper().removeprefix("SIG") in SIGNALS


def _plain(name: str) -> str:
    return re.sub(r"[-_. ]", "", name).lower()


def _almost(name: str, names: Iterable[str]) -> str:
    """The name that was surely meant, or nothing."""
    names = sorted(names)
    for near in names:
        if _plain(near) == _plain(name):
            return near
    if len(name) < 4:
        return {"arg": "args", "cmds": "cmd"}.get(name, "") if "cmd" in names else ""
    near_names = difflib.get_close_matches(name.lower(), names, 1, 0.8)
    return near_names[0] if near_names else ""


def _nearest(name: str, names: Iterable[str], form: str = "{}", otherwise: str = "") -> str:
    """A hint with the nearest name, however far it is, or the other hint."""
    names = sorted(names)
    near = _almost(name, names)
    if not near:
        lower = {known.lower(): known for known in reversed(names)}
        close = difflib.get_close_matches(name.lower(), sorted(lower), 1)
        near = lower[close[0]] if close else ""
    return f"write {form.format(near)}, the nearest name there is" if near else otherwise


def _slip(written: str, meant: str) -> bool:
    """Whether one name is the other with a letter more or less, or two letters swapped.

    ``PORT1`` and ``PORT2``, ``uid`` and ``gid``, ``HOST`` and ``HOSTS`` are names of their own.
    """
    short, long = sorted((written.lower(), meant.lower()), key=len)
    if len(short) < 5:
        return False
    if len(short) == len(long):
        different = [index for index in range(len(short)) if short[index] != long[index]]
        if len(different) != 2 or different[1] != different[0] + 1:
            return False
        first, second = different
        return short[first] == long[second] and short[second] == long[first]
    if len(long) != len(short) + 1 or long == short + "s":
        return False
    return any(
        long[:index] + long[index + 1 :] == short and not long[index].isdigit()
        for index in range(len(long))
    )


def complaints(
    rendered: Rendered,
    *,
    output: pathlib.Path,
    directory: pathlib.Path,
    environment: Collection[str] | None = None,
    shown: Callable[[pathlib.Path], str] = str,
) -> Iterator[TemplateError]:
    """All that is wrong with a configuration, in the order of its lines.

    ``output`` is where the text would stand: includes start from its directory.  Absolute
    includes are judged below ``directory``, the buildout's; elsewhere only the image has them.
    ``environment`` has the names of the variables that the container's environment will have,
    besides those that every container has; ``None`` if nobody knows.  ``shown`` gives an
    included file's name for messages.
    """
    configuration = load(rendered, output=output, shown=shown)
    order = {
        place.where: (number, place.line)
        for number, document in enumerate(configuration.documents)
        for place in _places(document)
    }
    found = {
        str(error): error
        for error in (
            *_Lint(configuration, environment).complaints(),
            *_missing_includes(configuration.main, output.parent, directory),
        )
    }
    last = (len(configuration.documents), 0)
    yield from sorted(found.values(), key=lambda error: order.get(where_of(error.what), last))


def _places(document: Document) -> Iterator[Place]:
    """Every line of a file that is more than a comment."""
    yield from (place for place, _ in document.broken)
    yield from document.headers
    for entry in document.entries:
        for line, _ in reversed(entry.parts):
            yield Place(entry.source, entry.section, line)


def _missing_includes(
    main: Document, start: pathlib.Path, directory: pathlib.Path
) -> Iterator[TemplateError]:
    for place, option, word, paths in includes(main, start):
        target = pathlib.Path(os.path.normpath(start / word))
        foreign = pathlib.Path(word).is_absolute() and not target.is_relative_to(directory)
        if paths or foreign or is_symbolic(word):
            continue
        form = str(pathlib.PurePath(word).parent / "{}")
        yield TemplateError(
            f"{place} {option} {word} leads to no file, and circusd would start without it",
            _nearest(target.name, _beside(target), form)
            or "write the file, or correct the path, which starts from the output's directory",
        )


def _beside(path: pathlib.Path) -> list[str]:
    """The names in a path's directory."""
    try:
        return [other.name for other in path.parent.iterdir() if other.name != path.name]
    except OSError:
        return []


def _unclosed(place: Place, text: str) -> TemplateError:
    header = text.lstrip("[")
    return TemplateError(
        f"{place.where}: [{header} has no closing bracket, and Circus would take it for no "
        f"section",
        f"write [{header}]",
    )


class _Lint:
    """The rules; each yields a file, a line of it, and what is wrong there."""

    def __init__(
        self, configuration: Configuration, environment: Collection[str] | None
    ) -> None:
        self._all = configuration
        self._environment = (
            None if environment is None else {name.lower(): name for name in environment}
        )
        self._watchers = configuration.named("watcher")
        self._sockets = {
            section.split("socket:")[-1].lower(): section
            for section in configuration.named("socket").values()
        }
        if configuration.may_be_true("circus", "httpd"):
            self._sockets["circushttpd"] = ""
        self._text = "\n".join(document.source.text for document in configuration.documents)
        self._third_party = any(
            configuration.value(section, "use") not in PLUGINS
            for section in configuration.named("plugin").values()
        )

    def complaints(self) -> Iterator[TemplateError]:
        for document in self._all.documents:
            yield from self._lines(document)
            yield from self._headers(document)
            yield from self._parts(document)
        for section, options in self._all.sections.items():
            kind, colon, name = section.partition(":")
            if section == "circus":
                yield from self._circus(options)
            elif colon and kind == "socket":
                yield from self._socket(section, options)
            elif colon and kind == "watcher":
                yield from self._watcher(name, section, options)
            elif colon and kind == "plugin":
                yield from self._plugin(section, options)
            elif section == "env" or (colon and kind == "env"):
                yield from self._env(section, options)
        yield from self._names()

    # -- lines ------------------------------------------------------------------------------

    def _lines(self, document: Document) -> Iterator[TemplateError]:
        """What Circus can't read, and what it reads twice."""
        for place, text in document.broken:
            if text.startswith("[") and "]" not in text:
                yield _unclosed(place, text)
            elif not place.section:
                yield TemplateError(
                    f"{place.where}: {_short(text)} stands before any section, and circusd "
                    f"would end at once",
                    "begin it in the first column"
                    if text.startswith("[")
                    else "begin a section such as [circus] above it",
                )
            else:
                yield TemplateError(
                    f"{place} {_short(text)} has neither = nor :, and circusd would end at "
                    f"once",
                    "write name = value, and begin a comment in the first column",
                )
        firsts: dict[tuple[str, str], Entry] = {}
        for entry in document.entries:
            first = firsts.setdefault((entry.section, entry.name), entry)
            if entry.name.startswith("["):
                yield _unclosed(entry, f"{entry.name}:{entry.value}".rstrip(":"))
            elif not entry.name:
                yield TemplateError(f"{entry} has a value without a name", "write name = value")
            elif first is not entry:
                yield TemplateError(
                    f"{entry} has {entry.name} a second time, and Circus keeps the first "
                    f"value, that of {first.where}",
                    "remove one of the two",
                )

    def _headers(self, document: Document) -> Iterator[TemplateError]:
        firsts: dict[str, Header] = {}
        for header in document.headers:
            first = firsts.setdefault(header.section, header)
            if first is not header:
                yield TemplateError(
                    f"{header} begins a second time, and Circus keeps the first value of each "
                    f"option",
                    f"join it with the section of {first.where}",
                )
            elif meant := _section_meant(header.section):
                yield TemplateError(
                    f"{header} is no section of Circus, which would ignore all of it",
                    f"write [{meant}]",
                )

    def _parts(self, document: Document) -> Iterator[TemplateError]:
        """What a value has lost, and what was added to it."""
        for entry in document.entries:
            options = _options_of(entry.section)
            env = entry.section == "env" or entry.section.startswith("env:")
            if entry.cut and self._is_torn(entry, options, env):
                yield TemplateError(
                    f"{entry} {entry.name} is cut before the semicolon, as one after a space "
                    f"begins a comment, and Circus would read {_short(entry.parts[0][1])}",
                    "leave out the space before it, or write a script",
                )
            if entry.parts[0][1].startswith(";") and entry.name in options:
                yield TemplateError(
                    f"{entry} {entry.name} has no value before its comment, and Circus would "
                    f"take {_short(entry.parts[0][1])} for it",
                    "put the comment on a line of its own",
                )
            for line, text in entry.parts[1:]:
                place = Place(entry.source, entry.section, line)
                if re.match(r"[#;] " if env else r"[#;]", text):
                    yield TemplateError(
                        f"{place} {_short(text)} is indented and so no comment, and Circus "
                        f"would add it to {entry.name}",
                        "begin the comment in the first column",
                    )
                elif _looks_like_option(text, options, env and bool(entry.parts[0][1])):
                    yield TemplateError(
                        f"{place} {_short(text)} is indented, and Circus would add it to "
                        f"{entry.name}",
                        "begin the line in the first column",
                    )

    @staticmethod
    def _is_torn(entry: Entry, options: Mapping[str, Option], env: bool) -> bool:
        """Whether what Circus takes for a comment belongs to the value."""
        value = entry.parts[0][1]
        option = options.get(entry.name)
        if option is not None and option.kind == "command":
            # "find ... -exec rm {} ;" has no comment either
            return not entry.cut.strip("; ") or (
                not _balanced(value) and _balanced(f"{value} {entry.cut}")
            )
        return value[:1] in ("'", '"') and not _balanced(value)

    # -- sections ---------------------------------------------------------------------------

    def _circus(self, options: Mapping[str, Entry]) -> Iterator[TemplateError]:
        known = {**CIRCUS, **OURS_CIRCUS}
        for name, entry in self._own("circus", options):
            if name in known:
                yield from self._typed(
                    entry,
                    known[name],
                    "the container would not start"
                    if name in OURS_CIRCUS
                    else "circusd would end at once",
                )
                yield from self._literal(entry)
            elif name not in DOCUMENTED:
                yield self._unknown(entry, known)
        level = options.get("loglevel")
        if level and not is_symbolic(level.value) and level.value.lower() not in LOG_LEVELS:
            yield TemplateError(
                f"{level} loglevel is {level.value!r}, which is no level, and Circus would "
                f"take info",
                _nearest(level.value, LOG_LEVELS)
                or "write debug, info, warning, error or critical",
            )
        config = options.get("loggerconfig")
        if (
            config
            and not is_symbolic(config.value)
            and config.value.lower().strip() not in ("", "default")
            and not config.value.lower().endswith((".ini", ".json", ".yaml"))
        ):
            yield TemplateError(
                f"{config} loggerconfig is {config.value!r}, and circusd would end at once",
                "name a file that ends in .ini, .json or .yaml",
            )

    def _socket(self, section: str, options: Mapping[str, Entry]) -> Iterator[TemplateError]:
        early = ("so_reuseport", "replace")
        for name, entry in self._own(section, options):
            if name not in SOCKET:
                yield self._unknown(entry, SOCKET)
                continue
            yield from self._typed(
                entry,
                SOCKET[name],
                "circusd would end at once"
                if name in early
                else "circusd would start without this socket",
            )
            yield from self._literal(entry)
        for name, names in (("family", FAMILIES), ("type", TYPES)):
            entry_ = options.get(name)
            if entry_ and not is_symbolic(entry_.value) and entry_.value.upper() not in names:
                yield TemplateError(
                    f"{entry_} {name} is {entry_.value!r}, and circusd would start without "
                    f"this socket",
                    _nearest(entry_.value, names) or f"write {', '.join(names)}",
                )
        port = options.get("port")
        if port and _is("int", port.value) and not 0 <= int(port.value) <= 65535:
            yield TemplateError(
                f"{port} port is {port.value}, which is no port",
                "write a number from 1 to 65535, or 0 for any free port",
            )
        umask = options.get("umask")
        if umask and _is("int", umask.value):
            yield from self._umask(section, umask)
        interface = options.get("interface")
        if interface and "path" not in options:
            yield TemplateError(
                f"{interface} interface needs a module that Python 3 does not have, and "
                f"circusd would end at once",
                "remove it, and give host the address of that interface",
            )
        family = options.get("family")
        if family and family.value.upper() == "AF_UNIX" and "path" not in options:
            yield TemplateError(
                f"{family} family is AF_UNIX and there is no path, and circusd would end at "
                f"once",
                "set path to the socket's file",
            )

    @staticmethod
    def _umask(section: str, umask: Entry) -> Iterator[TemplateError]:
        text = umask.value.strip()
        decimal = int(text)
        octal = int(text, 8) if re.fullmatch(r"0*[0-7]{1,3}", text) else 0o022
        if 0 <= decimal <= 0o777 and (octal == decimal or not text.startswith("0")):
            return
        yield TemplateError(
            f"{umask} umask is {text}, which Circus reads as a decimal number, "
            f"{decimal & 0o777:03o} in octal",
            f"write {octal}, which is {octal:03o} in octal",
        )

    def _watcher(
        self, name: str, section: str, options: Mapping[str, Entry]
    ) -> Iterator[TemplateError]:
        header = self._all.headers[section]
        # what stands in args is run, if there is nothing else
        instead = self._all.value(section, "args").strip().startswith("-")
        names = ("cmd", "executable") if instead else ("cmd", "executable", "args")
        if not any(self._all.value(section, name).strip() for name in names):
            at: Entry | Header = options.get("cmd", header)
            if not any(
                option not in WATCHER and self._meant(option, options) == "cmd"
                for option in options
            ):
                yield TemplateError(
                    f"{at} has no cmd, and circusd would stay up without it and without the "
                    f"watchers that come after it",
                    "set cmd to the program to run",
                )
        known = {**WATCHER, **OURS_WATCHER}
        late = ("max_age", "max_age_variance")
        for option, entry in self._own(section, options):
            if option in known:
                yield from self._typed(
                    entry,
                    known[option],
                    f"circusd would start without [{section}]"
                    if option in late
                    else "the container would not start"
                    if option in OURS_WATCHER
                    else "circusd would end at once",
                )
                if known[option].kind == "command":
                    yield from self._command(section, entry)
                else:
                    yield from self._literal(entry)
            elif option.startswith(("stdout_stream", "stderr_stream")):
                yield from self._stream(entry)
            elif option.startswith("rlimit_"):
                yield from self._rlimit(entry)
            elif option.startswith("hooks."):
                yield from self._hook(entry)
            elif option.startswith("flapping."):
                yield from self._flapping(entry)
            else:
                yield from self._free(entry, options)
            yield from self._variables(entry)
        yield from self._streams(section, options)
        yield from self._numbers(section, options)
        yield from self._together(section, options)
        yield from self._use_of_sockets(section, options)

    def _numbers(self, section: str, options: Mapping[str, Entry]) -> Iterator[TemplateError]:
        for name, what in (
            ("numprocesses", "no process would ever start"),
            ("graceful_timeout", "every process would be killed at once"),
        ):
            entry = options.get(name)
            if entry and _is("float", entry.value) and float(entry.value) < 0:
                yield TemplateError(
                    f"{entry} {name} is {entry.value}, and {what}",
                    "write a number that is not negative",
                )
        retry = options.get("max_retry")
        if (
            retry
            and _is("int", retry.value)
            and int(retry.value) != -1
            and int(retry.value) < 1
        ):
            yield TemplateError(
                f"{retry} max_retry is {retry.value}, and no process would ever start",
                "write how often to try, or -1 for ever",
            )

    def _together(self, section: str, options: Mapping[str, Entry]) -> Iterator[TemplateError]:
        """Options that need each other, or can't stand each other."""
        number = options.get("numprocesses")
        if (
            self._all.is_true(section, "singleton")
            and number
            and _is("int", number.value)
            and int(number.value) > 1
        ):
            yield TemplateError(
                f"{number} has numprocesses = {number.value} and is a singleton, and circusd "
                f"would start without it",
                "remove one of the two",
            )
        if not self._all.may_be_true(section, "copy_env"):
            for name in ("copy_path", "virtualenv"):
                entry = options.get(name)
                if entry and (name == "virtualenv" or self._all.is_true(section, name)):
                    yield TemplateError(
                        f"{entry} has {name} without copy_env, and circusd would start without "
                        f"it",
                        "set copy_env to True",
                    )
        stdin = options.get("stdin_socket")
        if stdin and not is_symbolic(stdin.value) and stdin.value not in self._sockets:
            yield TemplateError(
                f"{stdin} stdin_socket is {stdin.value!r}, which is no socket, and its "
                f"processes would not start",
                _nearest(stdin.value, self._sockets) or f"add [socket:{stdin.value}]",
            )

    def _stream(self, entry: Entry) -> Iterator[TemplateError]:
        name, dot, option = entry.name.partition(".")
        if dot and name in ("stdout_stream", "stderr_stream"):
            return
        stream = "stderr_stream" if entry.name.startswith("stderr") else "stdout_stream"
        wanted = (dot and option) or _almost(entry.name[len(stream) + 1 :], _stream_options(""))
        yield TemplateError(
            f"{entry} {entry.name} is no option of Circus, and circusd would end at once",
            f"write {stream}.{wanted or 'class'} = {entry.value}",
        )

    def _streams(self, section: str, options: Mapping[str, Entry]) -> Iterator[TemplateError]:
        for stream in ("stdout_stream", "stderr_stream"):
            own = {
                name.partition(".")[2]: entry
                for name, entry in options.items()
                if name.startswith(f"{stream}.")
            }
            if not own:
                continue
            first = min(own.values(), key=lambda entry: entry.line)
            class_ = own.get("class")
            given = class_.value if class_ else "FileStream"
            if class_ is None and "filename" not in own:
                wrong = [name for name in own if _almost(name, ("class", "filename"))]
                at = own[wrong[0]] if wrong else first
                yield TemplateError(
                    f"{at} {stream} has neither class nor filename, and circusd would start "
                    f"without [{section}]",
                    f"write {stream}.{_almost(wrong[0], ('class', 'filename'))}"
                    if wrong
                    else f"set {stream}.class",
                )
                continue
            if class_ and "." not in given and not is_symbolic(given) and given not in STREAMS:
                yield TemplateError(
                    f"{class_} {stream}.class is {given!r}, which is no stream of Circus, and "
                    f"circusd would start without [{section}]",
                    _nearest(given, STREAMS)
                    or f"write {', '.join(STREAMS)}, or a class's name with its module's",
                )
                continue
            given = given.removeprefix("circus.stream.")
            if given not in STREAMS:
                continue
            for name, entry in own.items():
                if name == "class":
                    continue
                option = STREAMS[given].get(name)
                if option is not None:
                    yield from self._typed(
                        entry, option, f"circusd would start without [{section}]"
                    )
                    if option.kind == "path":
                        yield from self._literal(entry)
                    continue
                near = _almost(name, _stream_options(given))
                if near and name not in OLD_STREAM:
                    yield TemplateError(
                        f"{entry} has an unknown option {entry.name}, which {given} ignores",
                        "remove it, or take a stream that has it"
                        if near == name
                        else f"write {stream}.{near}, the nearest name there is",
                    )
            color = own.get("color")
            if (
                given == "FancyStdoutStream"
                and color
                and not is_symbolic(color.value)
                and color.value not in COLORS
            ):
                yield TemplateError(
                    f"{color} {stream}.color is {color.value!r}, and Circus would take any",
                    _nearest(color.value, COLORS, otherwise=f"write {', '.join(COLORS)}"),
                )
            when = own.get("rotate_when")
            if given == "TimedRotatingFileStream" and not (
                when
                and (
                    is_symbolic(when.value)
                    or re.fullmatch(r"[SMHD]|MIDNIGHT|W[0-6]", when.value)
                )
            ):
                at = when or first
                value = when.value if when else "not set"
                yield TemplateError(
                    f"{at} {stream}.rotate_when is {value}, and circusd would start without "
                    f"[{section}]",
                    "write S, M, H, D, MIDNIGHT, or W0 to W6, in capitals",
                )

    def _rlimit(self, entry: Entry) -> Iterator[TemplateError]:
        limit = entry.name.removeprefix("rlimit_")
        if limit.lower() not in RLIMITS:
            yield TemplateError(
                f"{entry} {entry.name} is no limit, and neither this watcher nor those that "
                f"come after it would start",
                _nearest(limit, RLIMITS, "rlimit_{}")
                or "write rlimit_nofile, rlimit_core or another that Linux has",
            )
            return
        yield from self._typed(entry, Option("limit", ""), "circusd would end at once")

    def _hook(self, entry: Entry) -> Iterator[TemplateError]:
        hook = entry.name.removeprefix("hooks.")
        if hook not in HOOKS:
            yield TemplateError(
                f"{entry} {entry.name} is no hook, and Circus would never call it",
                _nearest(hook, HOOKS, "hooks.{}") or "write hooks.before_start, for example",
            )
        _, comma, ignore = entry.value.partition(",")
        if comma and not is_symbolic(ignore) and not _is("bool", ignore):
            yield TemplateError(
                f"{entry} {entry.name} has {ignore.strip()!r} after its comma, which is no "
                f"boolean, and circusd would end at once",
                "write True to ignore its failures, or False",
            )

    def _flapping(self, entry: Entry) -> Iterator[TemplateError]:
        option = entry.name.removeprefix("flapping.")
        if option in FLAPPING:
            yield from self._typed(
                entry, FLAPPING[option], "the flapping plugin would fail over it"
            )
        elif near := _almost(option, FLAPPING):
            yield TemplateError(
                f"{entry} has an unknown option {entry.name}, which the plugin ignores",
                f"write flapping.{near}, the nearest name there is",
            )

    def _free(self, entry: Entry, options: Mapping[str, Entry]) -> Iterator[TemplateError]:
        """An option that Circus doesn't know; a plugin, a hook or a client may."""
        section, name = entry.section, entry.name
        watcher = section.partition(":")[2]
        if name == "env" or name.startswith("env."):
            yield TemplateError(
                f"{entry} {name} is ignored, as a watcher's variables have a section of their "
                f"own",
                f"write them into [env:{watcher}], one a line",
            )
        elif name in ("loop", "prereload_fn"):
            yield TemplateError(
                f"{entry} {name} can't come from a file, and neither this watcher nor those "
                f"that come after it would start",
                "remove it",
            )
        elif name in OLD:
            yield TemplateError(
                f"{entry} {name} is an old option, which Circus ignores",
                f"write {OLD[name]}, for the flapping plugin",
            )
        elif name in _MISPLACED:
            yield TemplateError(
                f"{entry} {name} is no option of a watcher, which Circus would never use",
                f"write it into {_MISPLACED[name]}, or remove it",
            )
        elif near := self._meant(name, options):
            if near.startswith("["):
                hint = f"write the variables into [env:{watcher}], one a line"
            elif near == ELSEWHERE.get(name.lower()):
                hint = f"write {near}, as Circus calls it"
            else:
                hint = f"write {near}, the nearest name there is"
            yield TemplateError(
                f"{entry} has an unknown option {name}, which Circus keeps and never uses", hint
            )

    def _meant(self, name: str, options: Mapping[str, Entry]) -> str:
        """The option of a watcher that a name was surely meant to be, or nothing."""
        prefix, dot, rest = name.partition(".")
        if dot:
            near = _almost(prefix, ("hooks", "stdout_stream", "stderr_stream", "flapping"))
            if near and near != prefix:
                return f"{near}.{rest}"
        if re.match(r"rlimits?[._-]", name):
            near = _almost(re.sub(r"rlimits?[._-]", "", name), RLIMITS)
            return f"rlimit_{near or 'nofile'}"
        if _plain(name) in {_plain(f"hooks.{hook}") for hook in HOOKS}:
            return f"hooks.{name.partition('_')[2]}"
        # somebody else may read a name that other tools have too
        hooks = any(option.startswith("hooks.") for option in options)
        if not hooks and not self._third_party and name.lower() in ELSEWHERE:
            return ELSEWHERE[name.lower()]
        return _almost(name, {**WATCHER, **OURS_WATCHER})

    def _plugin(self, section: str, options: Mapping[str, Entry]) -> Iterator[TemplateError]:
        if not options:
            return  # Circus skips what is empty
        use = options.get("use")
        if use is None:
            header = self._all.headers[section]
            near = [name for name in options if _almost(name, ("use",))] or [
                name for name in options if name in ("class", "uses", "plugin")
            ]
            at: Entry | Header = options[near[0]] if near else header
            yield TemplateError(
                f"{at} has no option use, and circusd would end at once",
                "set use to the plugin's class, such as circus.plugins.flapping.Flapping",
            )
            return
        if (
            re.fullmatch(r"circus\.plugins\.(?!_)[\w.]+", use.value)
            and use.value not in PLUGINS
        ):
            yield TemplateError(
                f"{use} use is {use.value!r}, which Circus does not have",
                _nearest(use.value, PLUGINS) or "name a plugin that exists",
            )
        yield from self._literal(use)
        own = PLUGINS.get(use.value)
        for name, entry in self._own(section, options):
            if name == "priority":
                yield from self._typed(entry, WATCHER[name], "circusd would end at once")
            elif own is not None and name in own:
                yield from self._typed(entry, own[name], "the plugin would fail over it")
            elif own is not None and name != "use" and name not in WATCHER:
                near_option = _almost(name, {**own, "use": "", "priority": ""})
                if near_option:
                    yield TemplateError(
                        f"{entry} has an unknown option {name}, which the plugin ignores",
                        f"write {near_option}, the nearest name there is",
                    )

    def _env(self, section: str, options: Mapping[str, Entry]) -> Iterator[TemplateError]:
        header = self._all.headers[section]
        patterns = section.split(":", 1)[1].split(",") if section != "env" else []
        for name in (pattern.strip() for pattern in patterns):
            if not name.strip("*") or any(
                fnmatch.fnmatchcase(watcher, name) for watcher in self._watchers
            ):
                continue
            # an included file may have variables for the watchers of several configurations
            if header.source is self._all.main.source or any(
                _slip(name, watcher) or name.lower() == watcher.lower()
                for watcher in self._watchers
            ):
                yield TemplateError(
                    f"{header} is for {name!r}, which is no watcher, and would be ignored",
                    _nearest(name, self._watchers, "[env:{}]")
                    or f"add [watcher:{name}], or remove it",
                )
        names = {name.lower() for name in options} | ALWAYS
        for name, entry in self._own(section, options):
            used = re.search(rf"circus\.env\.{re.escape(name)}\)", self._text, re.IGNORECASE)
            if section != "env" and not used and (found := REFERENCE.search(entry.value)):
                variable = found[1] or found[2]
                hint = (
                    f"write ${variable[4:].upper()}" if variable[:4].lower() == "env." else ""
                )
                yield TemplateError(
                    f"{entry} {name} has {found[0]}, where Circus replaces only $NAME",
                    hint or "write it into cmd or args",
                )
            for braces in _BRACES.finditer(entry.value):
                if braces[1].lower() in names and not braces[2] and braces[1].isupper():
                    yield TemplateError(
                        f"{entry} {name} has {braces[0]}, which would reach the program as it "
                        f"stands",
                        f"write ${braces[1]}",
                    )
            for percent in _PERCENT.finditer(entry.value):
                if percent[1] in options or percent[1] in self._all.defaults:
                    yield TemplateError(
                        f"{entry} {name} has {percent[0]}, which would reach the program as it "
                        f"stands",
                        "write the value itself, as Circus has no such references",
                    )

    def _names(self) -> Iterator[TemplateError]:
        for kind, what in (
            ("watcher", "circusctl could reach only one of the two"),
            ("socket", "circusd would have only one of the two"),
        ):
            seen: dict[str, str] = {}
            for section in self._all.named(kind).values():
                first = seen.setdefault(section.lower(), section)
                if first != section:
                    header = self._all.headers[section]
                    yield TemplateError(
                        f"{header} and [{first}] differ by case only, and {what}",
                        "give one of the two another name",
                    )

    # -- values -----------------------------------------------------------------------------

    def _own(self, section: str, options: Mapping[str, Entry]) -> Iterator[tuple[str, Entry]]:
        """The options of a section, without those that all sections have."""
        for name, entry in options.items():
            if entry.section == section and name and not name.startswith("["):
                yield name, entry

    def _unknown(self, entry: Entry, known: Mapping[str, Option]) -> TemplateError:
        kind = entry.section.partition(":")[0]
        return TemplateError(
            f"{entry} has an unknown option {entry.name}, which Circus ignores",
            _nearest(entry.name, known) or f"remove it, as [{kind}] has no such option",
        )

    def _typed(self, entry: Entry, option: Option, otherwise: str) -> Iterator[TemplateError]:
        # Circus takes these two as they stand, and replaces nothing in them
        verbatim = option.kind in ("signal", "limit") and REFERENCE.search(entry.value)
        if (is_symbolic(entry.value) and not verbatim) or _is(option.kind, entry.value):
            return
        hint = _WRITE.get(option.kind, "")
        if option.kind == "signal":
            hint = (
                _nearest(entry.value.upper().removeprefix("SIG"), SIGNALS)
                or "write a signal, such as TERM or QUIT"
            )
        yield TemplateError(
            f"{entry} {entry.name} is {_short(entry.value)}, which is no "
            f"{_KINDS[option.kind]}, and {otherwise}",
            hint,
        )

    def _literal(self, entry: Entry) -> Iterator[TemplateError]:
        """References that Circus doesn't know, where only Circus could know them."""
        if not entry.section.startswith("watcher:"):
            for variable in REFERENCE.finditer(entry.value):
                kind, _, name = (variable[1] or variable[2]).lower().partition(".")
                if kind == "env" and name:
                    yield from self._variable(entry, variable[0], name)
        for found in (*_BRACES.finditer(entry.value), *_PERCENT.finditer(entry.value)):
            if found[0].lower().startswith("${circus"):
                continue
            yield TemplateError(
                f"{entry} {entry.name} has {found[0]}, which Circus takes as it stands",
                f"write $(circus.env.{found[1]}) for a variable of the environment",
            )

    def _command(self, section: str, entry: Entry) -> Iterator[TemplateError]:
        value = entry.value
        if not _balanced(value):
            torn = bool(entry.cut) and _balanced(f"{value} {entry.cut}")
            if not torn:  # which is another complaint
                yield TemplateError(
                    f"{entry} {entry.name} has an unbalanced quote, and circusd would stay up "
                    f"without this watcher",
                    "close the quote, or write a backslash before it",
                )
            return
        words = shlex.split(value)
        line = f"{self._all.value(section, 'cmd')} {self._all.value(section, 'args')}"
        shell = bool(_SHELLS.search(line))
        quoted = _single_quoted(value)
        for braces in _BRACES.finditer(value):
            if shell or braces.start() in quoted or braces[0].lower().startswith("${circus"):
                continue
            yield TemplateError(
                f"{entry} {entry.name} has {braces[0]}, which would reach the program as it "
                f"stands",
                f"write $(circus.env.{braces[1]}) for a variable of the environment",
            )
        options = {**self._all.sections[section], **self._all.sections.get("env", {})}
        for percent in _PERCENT.finditer(value):
            name = percent[1]
            word = next((word for word in words if percent[0] in word), "")
            ours = name in options or _SUPERVISOR.fullmatch(name)
            alone = len(re.findall(r"%[({\w]", word)) == 1
            if ours or (alone and not _FORMATS.fullmatch(name) and not _formatted(words, word)):
                yield TemplateError(
                    f"{entry} {entry.name} has {percent[0]}, which would reach the program as "
                    f"it stands",
                    "write the value itself, as Circus has no such references",
                )

    def _variables(self, entry: Entry) -> Iterator[TemplateError]:
        """``$(circus.NAME)`` in an option of a watcher."""
        commands = ("cmd", "args", "shell_args")
        for found in REFERENCE.finditer(entry.value):
            variable = (found[1] or found[2]).lower()
            kind, _, name = variable.partition(".")
            if kind == "env" and name:
                yield from self._variable(entry, found[0], name)
            elif entry.name not in commands:
                if entry.name in WATCHER:
                    yield TemplateError(
                        f"{entry} {entry.name} has {found[0]}, which Circus replaces only in "
                        f"cmd and args",
                        "write it there",
                    )
            elif kind == "sockets" and name:
                if name not in self._sockets:
                    yield TemplateError(
                        f"{entry} {entry.name} has {found[0]}, which names no socket and would "
                        f"reach the program as it stands",
                        _nearest(name, self._sockets, "$(circus.sockets.{})")
                        or f"add [socket:{name}]",
                    )
            elif kind not in VARIABLES or (kind in ("env", "sockets") and not name):
                names = [
                    *VARIABLES,
                    *(f"sockets.{socket}" for socket in self._sockets),
                ]
                yield TemplateError(
                    f"{entry} {entry.name} has {found[0]}, which Circus does not know and "
                    f"would leave as it stands",
                    _nearest(variable, names, "$(circus.{})")
                    or "write $(circus.env.NAME), $(circus.sockets.NAME) or $(circus.wid)",
                )
        whole = [(found.start(), found.end()) for found in REFERENCE.finditer(entry.value)]
        for found in _BROKEN_REFERENCE.finditer(entry.value):
            if any(start <= found.start() < end for start, end in whole):
                continue
            name = re.sub(r"[^\w.-].*", "", found[0][2:])
            if not name.lower().startswith("circus."):
                name = f"circus.{name}"
            yield TemplateError(
                f"{entry} {entry.name} has {found[0]}, which Circus would leave as it stands",
                f"write $({name})",
            )

    def _variable(self, entry: Entry, text: str, name: str) -> Iterator[TemplateError]:
        """``$(circus.env.NAME)``."""
        kind, _, watcher = entry.section.partition(":")
        options = {option.lower(): option for option in self._all.sections.get("env", {})}
        hooks = False
        if kind == "watcher":
            for own in self._all.environments(watcher):
                options.update({option.lower(): option for option in own})
            # a hook may set it
            hooks = any(
                option.startswith("hooks.before_")
                for option in self._all.sections[entry.section]
            )
        if name in options or name in ALWAYS:
            return
        if self._environment is None or hooks:
            near = [option for low, option in options.items() if _slip(name, low)]
            if near:
                yield TemplateError(
                    f"{entry} {entry.name} has {text}, and no [env] section sets it",
                    f"write $(circus.env.{near[0]}), the nearest name there is",
                )
        elif name not in self._environment:
            yield TemplateError(
                f"{entry} {entry.name} has {text}, which nothing sets, and Circus would leave "
                f"it as it stands",
                _nearest(
                    name, [*options.values(), *self._environment.values()], "$(circus.env.{})"
                )
                or "set it in [env], or say that the environment will have it",
            )

    def _use_of_sockets(
        self, section: str, options: Mapping[str, Entry]
    ) -> Iterator[TemplateError]:
        commands = [options[name] for name in ("cmd", "args", "shell_args") if name in options]
        for entry in commands:
            for found in REFERENCE.finditer(entry.value):
                kind, _, name = (found[1] or found[2]).lower().partition(".")
                if kind != "sockets" or name not in self._sockets:
                    continue
                if not self._all.may_be_true(section, "use_sockets"):
                    yield TemplateError(
                        f"{entry} {entry.name} has {found[0]} without use_sockets, and the "
                        f"program would get a bad file descriptor",
                        f"set use_sockets to True in [{section}]",
                    )
                # Circus looks for the name in cmd, in lower case
                elif self._all.is_true(
                    self._sockets[name], "so_reuseport"
                ) and f"circus.sockets.{name}" not in self._all.value(section, "cmd"):
                    yield TemplateError(
                        f"{entry} {entry.name} has {found[0]}, and as that socket has "
                        f"so_reuseport it would not listen, unless cmd itself has "
                        f"$(circus.sockets.{name})",
                        f"write $(circus.sockets.{name}) into cmd",
                    )


def _options_of(section: str) -> Mapping[str, Option]:
    kind = section.partition(":")[0]
    if section == "circus":
        return {**CIRCUS, **OURS_CIRCUS}
    if kind == "watcher":
        return {**WATCHER, **OURS_WATCHER}
    if kind == "socket":
        return SOCKET
    if kind == "plugin":
        return {**WATCHER, "use": Option("text", "the plugin's class")}
    return {}


def _stream_options(given: str) -> list[str]:
    options = {"class", "filename"}
    for name, own in STREAMS.items():
        if given in ("", name):
            options.update(own)
    return sorted(options)


def _section_meant(section: str) -> str:
    """The section that a header was surely meant to be, or nothing if it may be as it is."""
    kinds = ("circus", "env", "watcher", "socket", "plugin")
    kind, colon, name = section.partition(":")
    if section in ("circus", "env", DEFAULT) or (colon and kind in kinds[1:]):
        return ""
    elsewhere = {"program": "watcher", "process": "watcher", "environment": "env"}
    if not colon and (split := re.fullmatch(r"(\w+?)[ ._/-]+(.+)", section)):
        kind, name = split[1], split[2]
        if kind.lower() not in (*kinds[1:], "watchers", "sockets", "plugins"):
            return ""
    near = kind.strip().lower() if kind.strip().lower() in kinds else ""
    near = near or _almost(kind.strip(), kinds)
    if colon and not near:
        near = elsewhere.get(kind.lower(), "")
    if not near or (near == "circus" and name):
        return ""
    if name or colon:
        return f"{near}:{name.strip()}"
    return near if near in ("circus", "env") else f"{near}:NAME"


def _balanced(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return False
    return True


def _single_quoted(command: str) -> set[int]:
    """The positions that stand between single quotes."""
    found: set[int] = set()
    quote = ""
    skip = False
    for position, character in enumerate(command):
        if skip:
            skip = False
        elif quote == "'":
            if character == "'":
                quote = ""
            else:
                found.add(position)
        elif character == "\\":
            skip = True
        elif character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
    return found


def _formatted(words: list[str], word: str) -> bool:
    """Whether a word stands where a program's own format would."""
    at = words.index(word) if word in words else 0
    near = " ".join(words[max(0, at - 1) : at + 1]).lower()
    return bool(re.search(r"format|fmt|log|template|output|pattern|(?:^|\s)-o\b", near))


def _looks_like_option(text: str, options: Mapping[str, Option], env: bool) -> bool:
    """Whether a line that is part of a value was surely meant to be an option or a section."""
    if re.fullmatch(r"\[(?:circus|env|(?:watcher|socket|plugin|env):[^\]]+)\]", text):
        return True
    found = re.match(r"([A-Za-z_][\w.]*)(\s*)[=:]\s", text + " ")
    if not found:
        return bool(
            (glued := re.match(r"([a-z]+_[a-z_]+|numprocesses|singleton|respawn)=", text))
            and glued[1] in options
        )
    name, space = found[1], found[2]
    if env:
        return bool(space) and bool(re.fullmatch(r"[A-Z_][A-Z0-9_]*", name)) and "=" in text
    if name in options:
        return bool(space) or "_" in name
    return bool(space) and bool(
        options
        and "numprocesses" in options
        and re.match(r"hooks\.|stdout_stream\.|stderr_stream\.|rlimit_", name)
    )


def missing_programs(
    rendered: Rendered,
    *,
    output: pathlib.Path,
    directory: pathlib.Path,
    shown: Callable[[pathlib.Path], str] = str,
) -> Iterator[TemplateError]:
    """Programs below ``directory`` that are nearly there, or can't be executed.

    For the time when the parts are installed.  A program elsewhere may exist in the image only,
    one without a directory is found on the ``PATH`` there, and one that is like no other may be
    made by a later part: they are not judged.
    """
    configuration = load(rendered, output=output, shown=shown)
    for section in configuration.named("watcher").values():
        entry = configuration.entry(section, "executable") or configuration.entry(
            section, "cmd"
        )
        if entry is None or is_symbolic(entry.value) or not _balanced(entry.value):
            continue
        words = [entry.value] if entry.name == "executable" else shlex.split(entry.value)
        if not words:
            continue
        start = configuration.value(section, "working_dir") or os.fspath(directory)
        if not os.path.isabs(words[0]) and ("/" not in words[0] or not os.path.isabs(start)):
            continue
        program = pathlib.Path(os.path.normpath(os.path.join(start, words[0])))
        if not program.is_relative_to(directory):
            continue
        if not program.exists():
            near = _nearest(program.name, _beside(program), shown(program.parent / "{}"))
            if near:
                yield TemplateError(
                    f"{entry} {entry.name} runs {shown(program)}, which does not exist, and "
                    f"circusd would stay up without it",
                    near,
                )
        elif program.is_dir() or not os.access(program, os.X_OK):
            yield TemplateError(
                f"{entry} {entry.name} runs {shown(program)}, which is no program, and circusd "
                f"would stay up without it",
                "make it executable, or name the program that runs it",
            )
        elif (
            (interpreter := _interpreter(program))
            and interpreter.is_relative_to(directory)
            and not interpreter.exists()
        ):
            yield TemplateError(
                f"{entry} {entry.name} runs {shown(program)}, whose interpreter "
                f"{shown(interpreter)} does not exist",
                "run the part that makes the interpreter",
            )


def _interpreter(program: pathlib.Path) -> pathlib.Path | None:
    """The interpreter that a script's first line names."""
    try:
        with program.open("rb") as stream:
            first = stream.readline(4096)
    except OSError:
        return None
    words = first[2:].split(None, 1) if first[:2] == b"#!" else []
    return pathlib.Path(os.fsdecode(words[0])) if words else None
