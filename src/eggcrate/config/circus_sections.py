"""Declared sections of a Circus configuration: options in, a text for people out.

``watcher.web`` is an option whose lines are Circus's own options.  What containers need and
nobody has said is added; a ``preset`` says the rest of what a kind of program needs.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from eggcrate.config.circus_options import OURS_WATCHER, WATCHER
from eggcrate.config.references import Rendered
from eggcrate.errors import EggcrateError, SettingsError, raise_all

#: options of the part that are a section each, and those of which there may be several
SINGLE = ("circus", "env")
NAMED = ("env", "plugin", "socket", "watcher")

_WATCHER_OPTIONS = frozenset((*WATCHER, *OURS_WATCHER))

# seconds: Circus's limit is below the ten of `docker stop`, a server's own below Circus's
_GRACEFUL = "8"
_APPLICATION, _BACKGROUND, _NGINX = "10", "5", "1"

_SOCKET_VARIABLE = re.compile(
    r"\$\(circus\.sockets\.([\w.-]+)\)|\(\(circus\.sockets\.([\w.-]+)\)\)", re.I
)
_SOCKET_NAME = re.compile(r"[\w.-]+")
_PLAIN = re.compile(r"[\w@%+:,./=-]+")
_DAEMON = re.compile(r"^\s*daemon\s", re.MULTILINE)

# A comment comes with the first option of its kind, where a reader would ask why.
_COMMENTS = {
    "check_delay": "a process that has died is started again within so many seconds",
    "endpoint": "whoever reaches an endpoint can run any command: sockets in a private "
    "directory, no ports",
    "replace": "the file of a killed predecessor is no obstacle",
    "graceful_timeout": "docker stop kills after ten seconds; this comes before",
    "essential": "what the site can't do without: the container ends if it can't be kept up",
    "priority": "the highest is started first and stopped last",
    "stop_signal": "QUIT lets requests end, TERM does not",
    "send_hup": "nginx reads its configuration again by itself; a second one could not have "
    "the port",
    "copy_env": "nginx needs nothing of the environment, which may have secrets",
    "umask 0": "open: the directory around it is private.  nginx's workers are nobody when "
    "root starts it",
    "umask 63": "decimal; 077 in octal: for this user alone",
}


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """What the sections may refer to: absolute paths, and what lies behind some of them.

    ``scripts`` are the programs that the part itself puts into ``bin``, by the names that
    their distributions give them, with their paths; None when it makes none.  ``read`` gives
    the text of a configuration file, as far as it is known.
    """

    part: str
    directory: str
    bin: str
    run_directory: str
    runtime: str
    python: str
    scripts: Callable[[str], str | None] | None
    read: Callable[[str], str | None]


def is_declared(option: str) -> bool:
    """Whether an option of the part is a section of the configuration."""
    kind, dot, _ = option.partition(".")
    return option in SINGLE or (bool(dot) and kind in NAMED)


def nearest(option: str) -> str | None:
    """The right name for an option that was probably meant as a section, as watchers.web."""
    kind, dot, name = option.partition(".")
    if not dot or is_declared(option):
        return None
    near = difflib.get_close_matches(kind, NAMED, 1, 0.75)
    return f"{near[0]}.{name}" if near else None


def declared(
    options: Mapping[str, str], around: Surroundings, before: Rendered | None = None
) -> Rendered:
    """The text of the declared sections; ``before`` is a template's text that they follow.

    All that is wrong is raised together.
    """
    return _Text(options, around, before).rendered()


@dataclasses.dataclass
class _Option:
    """One option of a section, and where it was written."""

    name: str
    values: list[str]
    place: str
    notes: list[tuple[str, str]]
    comment: str = ""


@dataclasses.dataclass
class _Section:
    """One section: its header's text, and its options by name."""

    title: str
    source: str
    options: dict[str, _Option]
    notes: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def value(self, name: str) -> str:
        """An option's value in one line; empty when it is not given."""
        found = self.options.get(name)
        return " ".join(filter(None, found.values)) if found else ""

    def place(self, name: str) -> str:
        """Where an option was written, or the section."""
        found = self.options.get(name)
        return found.place if found else self.source


class _Text:
    """The sections on their way to a text."""

    def __init__(
        self, options: Mapping[str, str], around: Surroundings, before: Rendered | None
    ) -> None:
        self._around = around
        self._before = before
        self._errors: list[EggcrateError] = []
        self._commented: set[str] = set()
        text = before.text if before else ""
        self._known = set(re.findall(r"^\[([^\]\n]+)\]", text, re.MULTILINE))
        self._sections: dict[str, _Section] = {}
        for option in sorted(options):
            self._add(option, options[option])

    def rendered(self) -> Rendered:
        watchers = [
            section
            for title, section in sorted(self._sections.items())
            if title.startswith("watcher:")
        ]
        has_nginx = bool(self._before and "nginx" in self._before.text) or any(
            section.value("preset") == "nginx" or "nginx" in section.value("cmd")
            for section in watchers
        )
        for section in watchers:
            self._complete_watcher(section)
        watchers.sort(key=lambda section: (-_number(section.value("priority")), section.title))
        sockets = [
            section
            for title, section in sorted(self._sections.items())
            if title.startswith("socket:")
        ]
        for section in sockets:
            self._complete_socket(section, has_nginx)
        ordered = [*self._circus(), *self._take("env")]
        exact = {f"env:{section.title.partition(':')[2]}" for section in watchers}
        ordered += [
            section
            for title, section in sorted(self._sections.items())
            if title.startswith("env:") and title not in exact
        ]
        ordered += sockets
        for section in watchers:
            ordered.append(section)
            ordered += self._take(f"env:{section.title.partition(':')[2]}")
        ordered += [
            section
            for title, section in sorted(self._sections.items())
            if title.startswith("plugin:")
        ]
        for section in ordered:
            for option in section.options.values():
                self._check_cut(option)
        raise_all(self._errors)
        return self._joined([*self._lines(ordered)])

    def _take(self, title: str) -> list[_Section]:
        return [self._sections[title]] if title in self._sections else []

    # From an option of the part to a section

    def _add(self, option: str, text: str) -> None:
        kind, dot, name = option.partition(".")
        if dot and (not name.strip() or name != name.strip() or re.search(r"[\]\n\r]", name)):
            self.error(
                SettingsError(
                    f"{option!r} names no section that Circus could read",
                    f"write {kind}.NAME, with a NAME that has no ] and no line break",
                )
            )
            return
        if kind == "socket" and not _SOCKET_NAME.fullmatch(name):
            self.error(
                SettingsError(
                    f"no $(circus.sockets...) can name {option}",
                    "use letters, digits and any of _ . - in a socket's name",
                )
            )
            return
        title = f"{kind}:{name}" if dot else kind
        if title in self._known:
            self.error(
                SettingsError(
                    f"{option}: the template has [{title}] already",
                    "put the options of a section in one place",
                )
            )
            return
        # in an option "$${" is the only way to say "${", and buildout leaves it as it is
        section = _Section(title, option, {})
        self._sections[title] = section
        self._parse(section, text.replace("$${", "${"))

    def _parse(self, section: _Section, text: str) -> None:
        notes: list[tuple[str, str]] = []
        last: _Option | None = None
        for number, line in enumerate(text.split("\n"), 1):
            stripped = line.strip()
            place = f"{section.source}, line {number}"
            if not stripped:
                continue
            if stripped[0] in "#;":
                notes.append((stripped, place))
            elif line[0].isspace() and last is not None:
                last.values.append(stripped)
                last.notes += notes
                notes = []
            else:
                last = self._option(section, stripped, place, notes)
                notes = []
        section.notes += notes

    def _option(
        self, section: _Section, line: str, place: str, notes: list[tuple[str, str]]
    ) -> _Option | None:
        name, equals, value = (word.strip() for word in line.partition("="))
        if not equals or not name:
            self.error(
                SettingsError(
                    f"{place}: {_short(line)} is no option",
                    "write name = value, one a line; begin a line with a blank to go on with "
                    "the value before it",
                )
            )
            return None
        if re.search(r"[:\s\[\]]", name):
            self.error(
                SettingsError(
                    f"{place}: Circus can't read {_short(name)} as the name of an option",
                    "write a name without blanks, colons and brackets",
                )
            )
            return None
        if name in section.options:
            self.error(
                SettingsError(
                    f"{place}: {name} is there twice, and Circus takes the first one",
                    "leave one of the two out",
                )
            )
            return None
        option = _Option(name, [value], place, notes)
        section.options[name] = option
        return option

    def _check_cut(self, option: _Option) -> None:
        """Circus takes the rest of a line for a comment after a blank and a semicolon."""
        if not _is_cut(option.values[0]):
            return
        self.error(
            SettingsError(
                f"{option.place}: Circus would cut {option.name} at the semicolon after a "
                "blank",
                "take the blank out, or write the value on an indented line of its own below "
                f"{option.name} ="
                if option.name in ("cmd", "args")
                else "take the blank before it out",
            )
        )

    # What is not said

    def _circus(self) -> list[_Section]:
        if "circus" not in self._sections and "circus" in self._known:
            return []  # the template has it
        section = self._sections.setdefault("circus", _Section("circus", "circus", {}))
        run = self._around.run_directory
        self._default(section, "check_delay", "1")
        self._default(section, "endpoint", f"ipc://{run}/circus.ctl")
        self._default(section, "pubsub_endpoint", f"ipc://{run}/circus.pub")
        # Circus's own default is a UDP port on all interfaces, and only "" switches it off
        self._default(section, "multicast_endpoint", "")
        self._default(section, "umask", "077")
        order = ("check_delay", "endpoint", "pubsub_endpoint", "multicast_endpoint", "umask")
        _order(section, order)
        return [section]

    def _complete_socket(self, section: _Section, has_nginx: bool) -> None:
        options = section.options
        name = section.title.partition(":")[2].lower()
        private = self._around.run_directory
        if not {"host", "port", "path"} & set(options) and section.value("family") in (
            "",
            "AF_UNIX",
        ):
            self._default(section, "path", f"{private}/{name}.sock")
        path = section.value("path")
        if path:
            mask = "0" if has_nginx and os.path.dirname(path) == private else "63"
            self._default(section, "umask", mask, f"umask {mask}")
            self._default(section, "replace", "True")
        elif "path" in options:
            del options["path"]
        _order(section, ("path", "umask", "replace"))

    def _complete_watcher(self, section: _Section) -> None:
        if "preset" in section.options:
            self._expand(section)
        uses = any(_SOCKET_VARIABLE.search(section.value(name)) for name in ("cmd", "args"))
        if uses:
            self._default(section, "use_sockets", "True")
        if section.value("preset") != "nginx":
            # whatever directory circusd is started in
            self._default(section, "working_dir", self._around.directory)
            self._default(section, "copy_env", "True", "")
        self._default(section, "graceful_timeout", _GRACEFUL)
        section.options.pop("preset", None)
        _order(
            section,
            (
                *("cmd", "args", "working_dir", "use_sockets", "singleton", "numprocesses"),
                *("copy_env", "stop_signal", "send_hup", "graceful_timeout", "priority"),
                "essential",
            ),
        )

    def _default(
        self, section: _Section, name: str, value: str, comment: str | None = None
    ) -> None:
        """Give an option this value, unless it has one; an empty one takes it out."""
        given = section.options.get(name)
        if given is None:
            comment = name if comment is None else comment
            section.options[name] = _Option(
                name, [value], section.source, [], _COMMENTS.get(comment, "")
            )
        elif value and not any(given.values):
            del section.options[name]

    # Presets

    def _expand(self, section: _Section) -> None:
        preset = section.value("preset")
        place = section.place("preset")
        if preset not in _PRESETS:
            shown = _short(preset) if preset else "without a name"
            self.error(
                SettingsError(
                    f"{place}: there is no preset {shown}",
                    _near(preset, _PRESETS) or f"use one of {', '.join(sorted(_PRESETS))}",
                )
            )
            section.options["preset"].values = ["?"]
            return
        wanted = _PRESETS[preset]
        for name in list(section.options):
            if name in (*wanted.keys, "preset") or _is_watcher_option(name):
                continue
            known = {*wanted.keys, *_WATCHER_OPTIONS}
            self.error(
                SettingsError(
                    f"{section.place(name)}: {name} is no key of preset {preset} and no option "
                    "of a watcher",
                    _near(name, known)
                    or f"use {', '.join(wanted.keys)}, or Circus's own options",
                )
            )
        if "cmd" in section.options:
            self.error(
                SettingsError(
                    f"{section.place('cmd')}: the preset {preset} makes cmd itself",
                    "take preset or cmd out",
                )
            )
            return
        missing = [key for key in wanted.needed if not section.value(key)]
        for key in missing:
            self.error(
                SettingsError(
                    f"{place}: the preset {preset} needs {key}",
                    f"add {key} = {wanted.keys[key]}",
                )
            )
        for key in ("workers", "threads", "concurrency"):
            value = section.value(key) if key in wanted.keys else ""
            if value and not value.isdecimal() and not value.startswith(("$(", "((")):
                self.error(
                    SettingsError(
                        f"{section.place(key)}: {key} is {_short(value)}, which is no number",
                        f"write {key} = 2, for example",
                    )
                )
        if missing:
            return
        own = _Preset(self, section)
        getattr(own, preset.replace("-", "_"))()
        for key in wanted.keys:
            section.options.pop(key, None)

    def socket(self, section: _Section, name: str) -> str:
        """Have a socket for a preset, its own if nobody has declared it; its variable."""
        title = f"socket:{name}"
        if not _SOCKET_NAME.fullmatch(name):
            self.error(
                SettingsError(
                    f"{section.place('socket')}: {_short(name)} can't be the name of a socket",
                    "set socket to a name of letters, digits and any of _ . -",
                )
            )
        elif title.lower() not in {known.lower() for known in (*self._known, *self._sections)}:
            place = section.place("preset")
            self._sections[title] = _Section(title, place, {})
        return f"$(circus.sockets.{name})"

    def is_unix(self, name: str) -> bool:
        """Whether a socket is one of the file system."""
        section = self._sections.get(f"socket:{name}")
        return section is not None and (
            bool(section.value("path")) or not {"host", "port"} & set(section.options)
        )

    def error(self, error: SettingsError) -> None:
        """Note what is wrong."""
        self._errors.append(error)

    @property
    def around(self) -> Surroundings:
        """What the sections may refer to."""
        return self._around

    def default(self, section: _Section, name: str, value: str) -> None:
        """Give an option a preset's value, unless it has one."""
        comment = None if name != "copy_env" or section.value("preset") == "nginx" else ""
        self._default(section, name, value, comment)

    # From sections to a text

    def _lines(self, sections: Iterable[_Section]) -> Iterator[tuple[str, str]]:
        if self._before is None:
            yield (
                f"# Made by bin/buildout of [{self._around.part}] in its configuration: "
                "change it there.",
                self._around.part,
            )
        for section in sections:
            yield "", section.source
            yield f"[{section.title}]", section.source
            for option in section.options.values():
                for note, place in option.notes:
                    yield note, place
                if option.comment and option.comment not in self._commented:
                    self._commented.add(option.comment)
                    yield f"# {option.comment}", option.place
                first, *more = option.values
                yield f"{option.name} = {first}".rstrip(), option.place
                for value in more:
                    yield f"    {value}", option.place
            for note, place in section.notes:
                yield note, place

    def _joined(self, lines: Sequence[tuple[str, str]]) -> Rendered:
        before: list[tuple[str, str]] = []
        if self._before is not None:
            texts = self._before.text.removesuffix("\n").split("\n")
            before = [
                (text, self._before.where(number)) for number, text in enumerate(texts, 1)
            ]
        every = [*before, *lines]
        name = self._before.name if self._before else "the declared sections"
        text = "".join(f"{text}\n" for text, _ in every)
        places = [place for _, place in every]
        return Rendered(name, text, tuple(range(1, len(every) + 1)), (*places, places[-1]))


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A preset: its keys with an example of each, and those that it can't do without."""

    keys: Mapping[str, str]
    needed: tuple[str, ...]


_APP = {"app": "shop.wsgi", "socket": "web"}
_PRESETS: Mapping[str, _Kind] = {
    "gunicorn": _Kind(
        {
            **_APP,
            "workers": "2",
            "config": "gunicorn.conf.py",
            "options": "--timeout 60",
            "program": "${buildout:bin-directory}/gunicorn",
        },
        ("app",),
    ),
    "uvicorn": _Kind(
        {
            **_APP,
            "workers": "2",
            "options": "--no-access-log",
            "program": "${buildout:bin-directory}/uvicorn",
        },
        ("app",),
    ),
    "waitress": _Kind({**_APP, "threads": "4", "python": "${tool:python}"}, ("app",)),
    "command": _Kind({"command": "bin/serve", "socket": "web"}, ("command",)),
    "nginx": _Kind(
        {
            "config": "${nginx:output}",
            "options": "-p /srv",
            "program": "/usr/sbin/nginx",
        },
        ("config",),
    ),
    "celery": _Kind(
        {
            "app": "shop",
            "queues": "mail,orders",
            "concurrency": "2",
            "options": "--loglevel INFO",
            "program": "${buildout:bin-directory}/celery",
        },
        ("app",),
    ),
    "celery-beat": _Kind(
        {
            "app": "shop",
            "options": "--loglevel INFO",
            "program": "${buildout:bin-directory}/celery",
        },
        ("app",),
    ),
    "worker": _Kind({"command": "bin/import"}, ("command",)),
    "cron": _Kind(
        {"schedule": "30 3 * * *", "command": "bin/django clearsessions"},
        ("schedule", "command"),
    ),
}


class _Preset:
    """What each preset writes into its watcher; a method each."""

    def __init__(self, text: _Text, section: _Section) -> None:
        self._text = text
        self._section = section
        self._name = section.title.partition(":")[2]

    def gunicorn(self) -> None:
        """Gunicorn, whose workers take connections from the socket."""
        socket, words = self._server("gunicorn")
        if self._key("workers"):
            words += ["--workers", self._key("workers")]
        if self._key("config"):
            words += ["--config", self._file("config")]
        else:
            words += ["--graceful-timeout", self._patience()]
        words += ["--bind", f"fd://{socket}", self._key("options"), self._key("app")]
        self._cmd(words)

    def uvicorn(self) -> None:
        """Uvicorn; behind a private socket it believes what nginx says of the client."""
        socket, words = self._server("uvicorn")
        if self._key("workers"):
            words += ["--workers", self._key("workers")]
        words += ["--timeout-graceful-shutdown", self._patience(), "--fd", socket]
        if self._text.is_unix(self._socket_name()):
            words += ["--forwarded-allow-ips", '"*"']
        self._cmd([*words, self._key("options"), self._key("app")])

    def waitress(self) -> None:
        """Waitress, by a small program of ours: its own can't take a socket."""
        around = self._text.around
        python = self._key("python")
        script = around.scripts("serve-waitress") if around.scripts and not python else None
        if python:
            words = [_word(python), "-I", _word(f"{around.runtime}/serve_waitress.py")]
        elif script:
            words = [_word(script)]
        else:
            self._text.error(
                SettingsError(
                    f"{self._section.place('preset')}: nothing says which Python has waitress",
                    "set eggs of this part to waitress and your application, or python in the "
                    "watcher to ${tool:python}, of the part [tool] that has both",
                )
            )
            return
        socket = self._serve()
        if self._key("threads"):
            words += ["--threads", self._key("threads")]
        self._cmd([*words, "--fd", socket, self._key("app")])

    def command(self) -> None:
        """Any server."""
        named = dict.fromkeys(
            match[1] or match[2] for match in _SOCKET_VARIABLE.finditer(self._key("command"))
        )
        if self._key("socket"):
            named[self._key("socket")] = None
        for name in named:
            self._text.socket(self._section, name)
        if named:
            self._default("use_sockets", "True")
        self._cmd([self._key("command")])
        self._default("priority", _APPLICATION)
        self._default("essential", "True")

    def nginx(self) -> None:
        """nginx in the foreground, below everything that it passes requests to."""
        config = self._path(self._key("config"))
        words = [_word(self._key("program") or "/usr/sbin/nginx")]
        words += ["-e", "stderr", "-c", _word(config)]
        text = self._text.around.read(config)
        if text is None or not _DAEMON.search(text):
            # without it Circus starts another one for ever
            words += ["-g", '"daemon off;"']
        self._cmd([*words, self._key("options")])
        self._single()
        self._default("copy_env", "False")
        self._default("stop_signal", "QUIT")
        self._default("send_hup", "True")
        self._default("priority", _NGINX)
        self._default("essential", "True")

    def celery(self) -> None:
        """A Celery worker, by the name of its watcher."""
        words = [self._program("celery"), "--app", self._key("app"), "worker"]
        words += ["--hostname", f"{self._name}@%h"]
        if self._key("concurrency"):
            words += ["--concurrency", self._key("concurrency")]
        if self._key("queues"):
            words += ["--queues", ",".join(self._key("queues").replace(",", " ").split())]
        self._cmd([*words, self._key("options")])
        self._single()
        self._default("priority", _BACKGROUND)

    def celery_beat(self) -> None:
        """Celery's scheduler, of which there must be one; it keeps what was run at runtime."""
        around = self._text.around
        words = [self._program("celery"), "--app", self._key("app"), "beat", "--pidfile="]
        words += ["--schedule", _word(f"{around.run_directory}/{self._name}.schedule")]
        self._cmd([*words, self._key("options")])
        self._single()
        self._default("priority", _BACKGROUND)

    def worker(self) -> None:
        """Any program that serves nobody."""
        self._cmd([self._key("command")])
        self._default("priority", _BACKGROUND)

    def cron(self) -> None:
        """A command by the clock, run by our own small scheduler."""
        from eggcrate.runtime import cron  # few need it, and it takes its time

        around = self._text.around
        schedule = self._key("schedule")
        if not schedule.startswith(("$(", "((")):
            try:
                cron.parse(schedule)
            except ValueError as error:
                self._text.error(
                    SettingsError(
                        f"{self._section.place('schedule')}: schedule {error}",
                        "write five fields as in a crontab, 30 3 * * *, or @daily",
                    )
                )
        words = [_word(around.python), "-I", _word(f"{around.runtime}/cron.py")]
        words += ["--name", _word(self._name), f'"{schedule}"', self._key("command")]
        self._cmd(words)
        self._single()
        self._default("priority", _BACKGROUND)

    def _server(self, program: str) -> tuple[str, list[str]]:
        return self._serve(), [self._program(program)]

    def _serve(self) -> str:
        """The variable of the socket, for a server of one process that has it."""
        socket = self._text.socket(self._section, self._socket_name())
        self._default("use_sockets", "True")
        self._single()
        self._default("priority", _APPLICATION)
        self._default("essential", "True")
        return socket

    def _socket_name(self) -> str:
        return self._key("socket") or self._name

    def _single(self) -> None:
        if "numprocesses" not in self._section.options:
            self._default("singleton", "True")

    def _program(self, name: str) -> str:
        given = self._key("program")
        if given:
            return _word(self._path(given) if "/" in given else given)
        around = self._text.around
        own = around.scripts(name) if around.scripts else None
        return _word(own or f"{around.bin}/{name}")

    def _patience(self) -> str:
        """How long a server waits for its requests: less than Circus waits for it."""
        try:
            seconds = float(self._section.value("graceful_timeout") or _GRACEFUL)
        except ValueError:
            seconds = float(_GRACEFUL)
        return str(max(1, int(seconds) - 1))

    def _key(self, name: str) -> str:
        return self._section.value(name)

    def _file(self, key: str) -> str:
        text = self._key(key)
        return text if ":" in text else _word(self._path(text))

    def _path(self, text: str) -> str:
        return os.path.normpath(os.path.join(self._text.around.directory, text))

    def _default(self, name: str, value: str) -> None:
        self._text.default(self._section, name, value)

    def _cmd(self, words: Sequence[str]) -> None:
        text = " ".join(filter(None, words))
        # on a line of its own nothing cuts it
        values = ["", text] if _is_cut(text) else [text]
        place = self._section.place("preset")
        self._section.options["cmd"] = _Option("cmd", values, place, [])


def _is_watcher_option(name: str) -> bool:
    return name in _WATCHER_OPTIONS or "." in name or name.startswith("rlimit_")


def _is_cut(value: str) -> bool:
    """Whether Circus ends a value before its end (StrictConfigParser._read of 0.19)."""
    place = f" {value}".find(";")
    return place > 0 and f" {value}"[place - 1].isspace()


def _word(text: str) -> str:
    """A word that Circus's shlex gives back as it is."""
    return text if _PLAIN.fullmatch(text) else shlex.quote(text)


def _number(text: str) -> int:
    try:
        return int(text or 0)
    except ValueError:
        return 0


def _order(section: _Section, first: Sequence[str]) -> None:
    """Put these options first, and leave the others in the order in which they were written."""
    options = section.options
    known = [name for name in first if name in options]
    section.options = {name: options[name] for name in (*known, *options)}


def _near(name: str, names: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, sorted(names), 1)
    return f"write {near[0]}, the nearest name there is" if near else ""


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}...")
