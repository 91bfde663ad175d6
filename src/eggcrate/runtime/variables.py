"""Runtime settings: what an environment variable may change when a container starts.

The build declares settings (:func:`declaration`) and writes down which places of which files
hold them (:func:`dumped`).  PID 1 loads that (:func:`load`), reads the environment
(:func:`read`) and writes the files (:func:`write`): every value is checked before anything is
rendered, and everything is rendered before anything is written.  No sentence repeats a value.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from eggcrate.runtime import values as types
from eggcrate.runtime.start import APPLIED, find_nginx

VERSION = 1
# where the parts of a buildout leave these files, below the directory of all parts
DIRECTORY = ".settings"
#: the file of an image that has all of it
FILE = "settings.json"
LONGEST = 4096  # bytes of a value: nginx's buffer for one word of its configuration
_FILE_LONGEST = 1 << 20  # bytes of a file that NAME_FILE names: what a Docker secret may have
STRING_LONGEST = 131071  # bytes of NAME=value that Linux passes to a program

_ENV = r"[A-Z_][A-Z0-9_]*"
# What the process itself, its loader, its interpreter and nginx take from the environment.
_RESERVED = (
    *(
        "PATH",
        "HOME",
        "SHELL",
        "USER",
        "LOGNAME",
        "PWD",
        "OLDPWD",
        "HOSTNAME",
        "TERM",
        "TMPDIR",
    ),
    *("TZ", "LANG", "LANGUAGE", "IFS", "ENV", "BASH_ENV", "NGINX", "NOTIFY_SOCKET"),
    *("GCONV_PATH", "SOURCE_DATE_EPOCH"),
)
_RESERVED_BEGIN = (
    *("LC_", "LD_", "CIRCUS_", "LISTEN_FD", "LISTEN_PID", "MALLOC_", "GLIBC_"),
    *("PYTHON", "EGGCRATE_"),
)
# Usual names that are no slips of other ones.
_USUAL = (
    *("HOST", "HOSTS", "PORT", "PORTS", "USERS", "DEBUG", "DISPLAY", "EDITOR", "GPG_KEY"),
    *("MAIL", "NAME", "PAGER", "PS1", "SHLVL", "VISUAL", "VIRTUAL_ENV", "_"),
)

# Names of what should have been declared as a secret.
_TELLING = r"(?:^|_)(?:PASS(?:WORD|WD|PHRASE)?|SECRET|TOKEN|CREDENTIAL|(?:API)?KEY)S?(?:_\d+)?$"

_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_MILLISECONDS = {
    "ms": 1,
    "s": 1000,
    "m": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
    "w": 604_800_000,
    "M": 2_592_000_000,
    "y": 31_536_000_000,
}

# The types, and what checks a value of each.
TYPES: dict[str, Callable[[str], str]] = {
    "port": types.port,
    "int": types.integer,
    "bool": types.boolean,
    "size": types.size,
    "duration": types.duration,
    "hostname": types.hostname,
    "hostnames": types.hostnames,
    "cidrs": types.networks,
    "path": types.path,
    "urlpath": types.url_path,
    "url": types.url,
    "word": types.word,
    "choices": types.word,
    "text": types.text,
}
# The types with limits, and what a complaint about a value outside of them calls it.
_LIMITED = {
    "port": "a port number",
    "int": "a whole number",
    "size": "a size",
    "duration": "a time",
}
LISTS = ("hostnames", "cidrs")
FORMATS = ("nginx", "circus", "plain")

# Words with a meaning of their own where a map or a geo block of nginx has its keys.
_NGINX_KEYS = (
    "default",
    "include",
    "hostnames",
    "volatile",
    "ranges",
    "delete",
    "proxy",
    "proxy_recursive",
)

# A word of an nginx configuration, as it counts for nginx's buffer.
_NGINX_WORD = r""""(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|#[^\n]*|(?:\$\{|\\.|[^\s;{}\\])+|."""
_MARK = "\0"  # stands for a list whose line is repeated; no configuration can have it


class SettingsProblem(Exception):
    """The container can't start with these settings; ``problems`` has all reasons."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class Setting:
    """A variable that the environment may change.

    ``default`` is the canonical value, or None where there is none.  ``minimum`` and
    ``maximum`` are values of the type, or empty.  With ``cpus``, the number of CPUs that the
    container may use takes the default's place.
    """

    __slots__ = ("choices", "cpus", "default", "env", "maximum", "minimum", "name", "type")

    def __init__(
        self,
        name: str,
        type: str,  # noqa: A002 - it is what authors call it
        env: str,
        default: str | None,
        minimum: str = "",
        maximum: str = "",
        choices: Sequence[str] = (),
        cpus: bool = False,
    ) -> None:
        self.name = name
        self.type = type
        self.env = env
        self.default = default
        self.minimum = minimum
        self.maximum = maximum
        self.choices = tuple(choices)
        self.cpus = cpus

    @property
    def required(self) -> bool:
        """Whether the container can't start when the environment doesn't set it."""
        return self.default is None and not self.cpus

    @property
    def looks_secret(self) -> bool:
        """Whether the default should not be shown, by the variable's name."""
        return self.type in ("text", "word", "url") and bool(re.search(_TELLING, self.env))

    def check(self, text: str) -> str:
        """The canonical value; a ValueError says what the text "must be"."""
        if self.type == "choices":
            return types.choice(self.choices)(text)
        try:
            value = TYPES[self.type](text)
        except ValueError:
            if (self.minimum or self.maximum) and self.type in ("int", "port"):
                raise ValueError(f"must be {self._limits()}") from None
            raise
        if self.minimum or self.maximum:
            found = amount(self.type, value)
            if (self.minimum and found < amount(self.type, self.minimum)) or (
                self.maximum and found > amount(self.type, self.maximum)
            ):
                raise ValueError(f"must be {self._limits()}")
        return value

    def _limits(self) -> str:
        what = _LIMITED[self.type]
        maximum = self.maximum or ("65535" if self.type == "port" else "")
        if self.minimum and maximum:
            return f"{what}, {self.minimum} to {maximum}"
        if self.minimum:
            return f"{what}, {self.minimum} or more"
        return f"{what}, {maximum} or less"

    def value(self) -> str:
        """The value when the environment sets none; empty for one that is required."""
        if self.cpus:
            low = int(self.minimum) if self.minimum else 1
            high = int(self.maximum) if self.maximum else None
            found = max(low, cpus())
            return str(found if high is None else min(found, high))
        return self.default or ""

    def data(self) -> dict[str, object]:
        """The setting as JSON has it."""
        return {
            "name": self.name,
            "type": self.type,
            "env": self.env,
            "default": self.default,
            "min": self.minimum,
            "max": self.maximum,
            "choices": list(self.choices),
            "cpus": self.cpus,
        }


class Piece:
    """A place in a document: the setting that stands there, and how it is written there.

    ``default`` is the text that the build has put there.  With ``first``, the place begins a
    word of a command line, where a value that begins with - would be taken for an option.
    """

    __slots__ = ("default", "first", "form", "setting")

    def __init__(
        self, setting: Setting, form: str, default: str | None = None, first: bool = False
    ) -> None:
        if form not in FORMS:
            raise ValueError(f"there is no form {form}")
        self.setting = setting
        self.form = form
        self.default = default
        self.first = first


class Document:
    """A file that is rendered at start: its normal place, and what it is made of."""

    __slots__ = ("format", "mode", "path", "pieces")

    def __init__(
        self,
        path: str,
        mode: int,
        format: str,  # noqa: A002 - it is what the JSON calls it
        pieces: Sequence[str | Piece],
    ) -> None:
        if not path.startswith("/") or ".." in path.split("/") or "\0" in path:
            raise ValueError(f"{path!r} is no absolute path")
        if format not in FORMATS:
            raise ValueError(f"there is no format {format}")
        self.path = path
        self.mode = mode
        self.format = format
        self.pieces = tuple(pieces)


class Settings:
    """All that the build knows: the settings, names of secrets, and the documents."""

    __slots__ = ("documents", "secrets", "settings")

    def __init__(
        self,
        settings: Sequence[Setting],
        secrets: Sequence[str] = (),
        documents: Sequence[Document] = (),
    ) -> None:
        self.settings = tuple(settings)
        self.secrets = tuple(secrets)
        self.documents = tuple(documents)
        for what, names in (
            ("variable", [*(setting.env for setting in settings), *secrets]),
            ("setting", [setting.name for setting in settings]),
            ("document", [document.path for document in documents]),
        ):
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise ValueError(f"the {what} {twice[0]} is declared twice")


class Values:
    """What the environment says.

    ``values`` has each setting's canonical value by the setting's name, ``changed`` the names
    of settings that the environment has set, ``environment`` what the application gets, and
    ``warnings`` sentences about variables that were perhaps meant to be others.
    """

    __slots__ = ("changed", "environment", "values", "warnings")

    def __init__(
        self,
        values: dict[str, str],
        changed: Sequence[str],
        environment: dict[str, str],
        warnings: Sequence[str],
    ) -> None:
        self.values = values
        self.changed = tuple(changed)
        self.environment = environment
        self.warnings = tuple(warnings)


# -- the build: declarations


def declaration(name: str, text: str, default: str | None) -> Setting:
    """The setting that an author's line such as ``int min=1 max=64`` declares.

    ``default`` is what the build has for it, if anything.  A ValueError is a sentence about
    the setting, without its name.
    """
    kind, *words = text.split() or [""]
    if kind not in TYPES:
        if not kind:
            raise ValueError(f"names no type; write one of {', '.join(TYPES)}")
        raise ValueError(f"has the type {kind}, which there is not; {_nearest(kind)}")
    env = re.sub("[-.]", "_", name).upper()
    limits = {"min": "", "max": ""}
    choices: list[str] = []
    required = False
    on_cpus = False
    for word in words:
        key, equals, value = word.partition("=")
        if key == "env" and equals:
            env = value
        elif key in limits and equals:
            if kind not in _LIMITED:
                raise ValueError(f"has {word}, but a {kind} has no limits")
            try:
                limits[key] = TYPES[kind](value)
            except ValueError as error:
                raise ValueError(f"has {word}, but {key} {error}") from None
        elif word == "required":
            required = True
        elif word == "cpus" and kind == "int":
            on_cpus = True
        elif kind == "choices":
            try:
                choices.append(types.word(word))
            except ValueError as error:
                raise ValueError(f"has the choice {word}, which {error}") from None
        else:
            more = "min=, max=, " * (kind in _LIMITED) + "cpus, " * (kind == "int")
            raise ValueError(
                f"has {word}, which means nothing here; after {kind} there may be {more}env=, "
                "from= and required"
            )
    if kind == "choices" and not choices:
        raise ValueError("has no choices; write them after the word choices")
    if required and on_cpus:
        raise ValueError("is required, and has a default by cpus; leave one of them out")
    env = variable(env)
    low, high = limits["min"], limits["max"]
    if low and high and amount(kind, low) > amount(kind, high):
        raise ValueError(f"has min={low}, which is more than max={high}")
    setting = Setting(name, kind, env, None, low, high, choices, on_cpus)
    if required:
        return setting
    if default is None:
        if on_cpus:
            return setting
        raise ValueError("has no default; give it a value, or say that it is required")
    try:
        setting.default = setting.check(default)
    except ValueError as error:
        raise ValueError(
            f"has a default that does not fit: it {error}; correct it, or say required"
        ) from None
    if len(setting.default.encode()) > LONGEST:
        raise ValueError(f"has a default that is longer than {LONGEST:,} bytes")
    return setting


def variable(name: str, instead: str = "write env= with another name") -> str:
    """The name of an environment variable for a setting or a secret, if it may be one."""
    if not re.fullmatch(_ENV, name):
        raise ValueError(
            f"has the variable {name}, which is no name; write capitals, digits and _"
        )
    if _is_reserved(name):
        raise ValueError(f"has the variable {name}, which is the process's own; {instead}")
    if name.endswith("_FILE"):
        raise ValueError(
            f"has the variable {name}, but a name with _FILE names the file of the one without"
        )
    return name


def _is_reserved(name: str) -> bool:
    return name in _RESERVED or name.startswith(_RESERVED_BEGIN)


def dumped(settings: Settings) -> str:
    """The JSON that :func:`load` reads; the same settings give the same text."""

    def piece(part: str | Piece) -> object:
        if isinstance(part, str):
            return part
        found: dict[str, object] = {"setting": part.setting.name, "as": part.form}
        if part.default is not None:
            found["default"] = part.default
        if part.first:
            found["first"] = True
        return found

    data = {
        "version": VERSION,
        "settings": [setting.data() for setting in settings.settings],
        "secrets": list(settings.secrets),
        "documents": [
            {
                "path": document.path,
                "mode": document.mode,
                "format": document.format,
                "pieces": [piece(part) for part in document.pieces],
            }
            for document in settings.documents
        ],
    }
    return json.dumps(data, ensure_ascii=False, indent=1) + "\n"


def _nearest(kind: str) -> str:
    import difflib  # slow to import, and only an author's mistake needs it

    near = difflib.get_close_matches(kind.lower(), TYPES, 1, 0.5)
    return f"write {near[0]}" if near else f"write one of {', '.join(TYPES)}"


# -- PID 1: from the files of the image to values


def load(directory: str) -> Settings:
    """The settings of all JSON files in a directory; none if there is no such directory."""
    try:
        names = sorted(name for name in os.listdir(directory) if name.endswith(".json"))
    except FileNotFoundError:
        return Settings(())
    except OSError as error:
        raise SettingsProblem((f"{directory} can't be read: {error.strerror}",)) from error
    return load_files([os.path.join(directory, name) for name in names])


def load_files(paths: Sequence[str]) -> Settings:
    """The settings of JSON files, which all declare the same ones."""
    found: list[tuple[str, bytes]] = []
    problems = []
    for path in paths:
        try:
            with open(path, "rb") as file:
                found.append((path, file.read()))
        except OSError as error:
            problems.append(f"{path} can't be read: {error.strerror}")
    try:
        settings = loaded(found)
    except SettingsProblem as error:
        problems += error.problems
    if problems:
        raise SettingsProblem(problems)
    return settings


def loaded(files: Iterable[tuple[str, bytes]]) -> Settings:
    """The settings of such files, each with its name, which complaints have."""
    schema: object = None
    first = ""
    settings: dict[str, Setting] = {}
    secrets: tuple[str, ...] = ()
    documents: list[Document] = []
    problems = []
    for path, content in files:
        try:
            data = json.loads(content)
            if data["version"] != VERSION:
                problems.append(f"{path} has version {data['version']}, not {VERSION}")
                continue
            own = (data["settings"], data["secrets"])
            if not first:
                schema, first = own, path
                settings = {one["name"]: _setting(one) for one in data["settings"]}
                secrets = tuple(str(secret) for secret in data["secrets"])
            elif own != schema:
                problems.append(f"{path} declares other settings than {first}")
                continue
            documents.extend(_document(one, settings) for one in data["documents"])
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            problems.append(f"{path} is not what eggcrate writes: {error}")
    if not problems:
        try:
            return Settings(tuple(settings.values()), secrets, documents)
        except ValueError as error:
            problems.append(f"{first}: {error}")
    raise SettingsProblem(problems)


def _setting(data: Mapping[str, object]) -> Setting:
    kind, default = str(data["type"]), data["default"]
    if kind not in TYPES:
        raise ValueError(f"there is no type {kind}")
    choices = data.get("choices") or ()
    assert isinstance(choices, Sequence)
    low, high = data.get("min"), data.get("max")
    return Setting(
        str(data["name"]),
        kind,
        str(data["env"]),
        None if default is None else str(default),
        "" if low is None else str(low),
        "" if high is None else str(high),
        [str(choice) for choice in choices],
        bool(data.get("cpus")),
    )


def _document(data: Mapping[str, object], settings: Mapping[str, Setting]) -> Document:
    pieces: list[str | Piece] = []
    parts, mode = data["pieces"], data["mode"]
    if not isinstance(parts, list) or not isinstance(mode, int):
        raise ValueError("a document has no pieces, or no mode")
    for part in parts:
        if isinstance(part, str):
            pieces.append(part)
        else:
            setting = settings[part["setting"]]
            pieces.append(
                Piece(setting, part["as"], part.get("default"), bool(part.get("first")))
            )
    return Document(str(data["path"]), mode, str(data["format"]), pieces)


def read(settings: Settings, environ: Mapping[str, str]) -> Values:
    """The value of each setting; a :class:`SettingsProblem` has all that is wrong.

    A variable that is not set or empty has its default.  ``NAME_FILE`` names a file that holds
    the value of ``NAME``, for settings and for secrets.
    """
    problems: list[str] = []
    values: dict[str, str] = {}
    changed: list[str] = []
    environment = dict(environ)
    for setting in settings.settings:
        try:
            text, variable = _given(setting.env, environ, environment, secret=False)
        except ValueError as error:
            problems.append(str(error))
            continue
        if not text:
            if setting.required:
                problems.append(f"{setting.env} must be set: it has no default")
            else:
                values[setting.name] = setting.value()
            continue
        if len(os.fsencode(text) if _encodable(text) else text) > LONGEST:
            problems.append(f"{variable} is longer than {LONGEST:,} bytes")
            continue
        try:
            values[setting.name] = setting.check(text)
        except ValueError as error:
            links = ""
            if setting.type == "port" and text.startswith("tcp://"):
                links = (
                    "; Kubernetes sets it for a service of that name, unless the pod has "
                    "enableServiceLinks: false"
                )
            problems.append(f"{variable} {error}{links}")
        else:
            changed.append(setting.name)
    for secret in settings.secrets:
        try:
            _given(secret, environ, environment, secret=True)
        except ValueError as error:
            problems.append(str(error))
    for document in settings.documents:
        problems += _rendered(document, values)[1]
    slips = list(_slips(settings, environ))
    if problems:
        # one that must be set may be there under a wrong name
        raise SettingsProblem(dict.fromkeys([*problems, *slips]))
    return Values(values, changed, environment, slips)


def _encodable(text: str) -> bool:
    try:
        os.fsencode(text)
    except UnicodeEncodeError:  # no environment has it, but a caller's mapping may
        return False
    return True


def _given(
    name: str, environ: Mapping[str, str], environment: dict[str, str], *, secret: bool
) -> tuple[str, str]:
    """What the environment gives a variable, and the name that a complaint has for it.

    ``environment`` gets the value in the place of the file's name.  A ValueError is a problem.
    """
    text = environ.get(name, "")
    path = environ.get(f"{name}_FILE", "")
    environment.pop(f"{name}_FILE", None)
    if not path:
        return text, name
    if text:
        raise ValueError(f"{name} and {name}_FILE are both set; set one of them")
    content = _content(f"{name}_FILE", path)
    if secret:
        if b"\0" in content:
            raise ValueError(f"{name}_FILE: {_shown(path)} has a NUL in it")
        text = os.fsdecode(content)
    else:
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError(f"{name}_FILE: {_shown(path)} is not UTF-8") from None
        if "\0" in text:
            raise ValueError(f"{name}_FILE: {_shown(path)} has a NUL in it")
    if len(name) + 1 + len(content) > STRING_LONGEST:
        raise ValueError(
            f"{name}_FILE: {_shown(path)} is longer than the {STRING_LONGEST:,} bytes that a "
            f"variable of the environment can have"
        )
    environment[name] = text
    return text, f"{name}_FILE: the content of {_shown(path)}"


def _content(name: str, path: str) -> bytes:
    """The bytes of the file that a variable names, without a newline at its end."""
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{name} must be the absolute path of a file")
    shown = _shown(path)
    try:
        # a pipe without a writer must not hold the container up
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise ValueError(f"{name}: {shown} is no regular file")
            content = b""
            while len(content) <= _FILE_LONGEST and (
                part := os.read(file, _FILE_LONGEST + 1 - len(content))
            ):
                content += part
        finally:
            os.close(file)
    except OSError as error:
        raise ValueError(f"{name}: {shown} can't be read: {error.strerror}") from None
    if len(content) > _FILE_LONGEST:
        raise ValueError(f"{name}: {shown} is longer than {_FILE_LONGEST:,} bytes")
    if content.endswith(b"\n"):
        content = content[:-2] if content.endswith(b"\r\n") else content[:-1]
    if not content:
        raise ValueError(f"{name}: {shown} is empty")
    return content


def _shown(path: str) -> str:
    """A path for a complaint, unless it is perhaps the secret itself in the wrong variable."""
    top = "/".join(path.split("/", 2)[:2])
    if path.isprintable() and len(path) <= 200 and top != "/" and os.path.lexists(top):
        return path
    return "the file"


def cpus(root: str = "/") -> int:
    """How many CPUs this process may use: by its affinity, and by the quota of its cgroups."""
    found = [len(os.sched_getaffinity(0))]
    top = os.path.join(root, "sys/fs/cgroup")
    groups = {"": "/", "cpu": "/"}  # a container sees its own group at the top
    for line in _lines(os.path.join(root, "proc/self/cgroup")):
        _, controllers, group = line.split(":", 2) if line.count(":") > 1 else ("", "?", "")
        for controller in controllers.split(","):
            if controller in groups:
                groups[controller] = group
    for controller, group in groups.items():
        while True:
            place = os.path.join(top, controller, group.strip("/"))
            if controller:
                limit = [
                    *_lines(os.path.join(place, "cpu.cfs_quota_us")),
                    *_lines(os.path.join(place, "cpu.cfs_period_us")),
                ]
            else:
                limit = " ".join(_lines(os.path.join(place, "cpu.max"))).split()
            if len(limit) == 2 and all(number.isdecimal() for number in limit):
                quota, period = map(int, limit)
                if quota and period:
                    found.append(-(-quota // period))
            if group.strip("/") == "":
                break
            group = os.path.dirname(group.rstrip("/"))
    return max(1, min(found))


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().split("\n")[:-1]
    except OSError:
        return []


def unknown(settings: Settings, environ: Mapping[str, str]) -> list[str]:
    """The variables that are no settings, no secrets, and nothing that every process has."""
    names = [*(setting.env for setting in settings.settings), *settings.secrets]
    known = {*names, *(f"{name}_FILE" for name in names), *_USUAL}
    return sorted(name for name in environ if not (name in known or _is_reserved(name)))


def _slips(settings: Settings, environ: Mapping[str, str]) -> Iterator[str]:
    """A warning for each variable that was perhaps meant to be a setting or a secret."""
    names = [*(setting.env for setting in settings.settings), *settings.secrets]
    # one that is set was not forgotten
    absent = [n for n in names if not environ.get(n) and not environ.get(f"{n}_FILE")]
    for name in unknown(settings, environ):
        given = name.upper().replace("_", "").replace("-", "").replace(".", "")
        for meant in absent:
            for right in (meant, f"{meant}_FILE"):
                if _slip(given, right.replace("_", "")):
                    yield f"{name} is set, which means nothing here; was it to be {right}?"


def _slip(given: str, meant: str) -> bool:
    """Whether one is the other with a letter more, less or changed, or with two swapped.

    ``DB1`` and ``DB2`` are names of their own, and so are short ones.
    """
    if given == meant:
        return True
    short, long = sorted((given, meant), key=len)
    if len(short) < 4 or len(long) - len(short) > 1:
        return False
    at = 0
    while at < len(short) and short[at] == long[at]:
        at += 1
    if len(short) < len(long):
        return short[at:] == long[at + 1 :] and not long[at].isdigit()
    if short[at + 1 :] == long[at + 1 :]:
        return not short[at].isdigit() and not long[at].isdigit()
    return short[at : at + 2] == long[at : at + 2][::-1] and short[at + 2 :] == long[at + 2 :]


# -- documents


def render(document: Document, values: Mapping[str, str]) -> str:
    """A document's text with these canonical values.

    A setting without a value, or with the default's, stands there as the build wrote it.
    """
    text, problems = _rendered(document, values)
    if problems:
        raise SettingsProblem(dict.fromkeys(problems))
    return text


def _rendered(document: Document, values: Mapping[str, str]) -> tuple[str, list[str]]:
    texts: list[str] = []
    problems: list[str] = []
    long: list[tuple[Piece, str]] = []
    lists: list[list[str]] = []
    for piece in document.pieces:
        if isinstance(piece, str):
            texts.append(piece)
            continue
        value = values.get(piece.setting.name)
        if value is None or (value == piece.setting.default):
            if piece.default is not None:
                texts.append(piece.default)
                continue
            value = piece.setting.default or ""
        try:
            text = _written(piece, value, document.format)
        except ValueError as error:
            problems.append(f"{piece.setting.env} {error}, where {document.path} has it")
            continue
        if piece.form == "nginx-line":
            lists.append(text.split(" "))
            text = _MARK
        elif len(text) > 200:
            long.append((piece, text))
        texts.append(text)
    whole = "".join(texts)
    if lists:
        each = iter(lists)
        whole = "\n".join(
            line
            if _MARK not in line
            else "\n".join(line.replace(_MARK, one) for one in next(each))
            for line in whole.split("\n")
        )
    if document.format == "nginx" and long:
        for found in re.finditer(_NGINX_WORD, whole, re.DOTALL):
            word = found[0]
            if len(word) > 1000 and len(word.encode()) >= LONGEST + (word[0] in "\"'"):
                problems += [
                    f"{piece.setting.env} is too long: it stands in a word that nginx reads "
                    f"up to {LONGEST - 1:,} bytes of, in {document.path}"
                    for piece, text in long
                    if text in word
                ]
    return whole, problems


def _written(piece: Piece, value: str, kind: str) -> str:
    """A value as it is written at its place; a ValueError says what it can't have there."""
    if piece.first and value.startswith("-"):
        raise ValueError("can't begin with -, as it would be taken for an option")
    if piece.setting.type == "bool":
        value = _spelled(value, piece.default, kind)
    return FORMS[piece.form](value)


def _spelled(value: str, default: str | None, kind: str) -> str:
    """A true or false in the words of the default, or in those of the format."""
    model = default or ("on" if kind == "nginx" else "true")
    if model.lower() in types.TRUE:
        at = types.TRUE.index(model.lower())
    else:
        at = types.FALSE.index(model.lower())
    word = (types.TRUE if value == "true" else types.FALSE)[at]
    if model[:1].isupper():
        return word.upper() if model[1:].isupper() else word.capitalize()
    return word


def _refuse(value: str, *signs: str) -> None:
    for sign in signs:
        if sign in value:
            raise ValueError(f"can't have {sign}")


def _as_it_is(value: str) -> str:
    return value


def _nginx_key(value: str) -> str:
    for word in value.split(" "):
        if word in _NGINX_KEYS:
            raise ValueError(f"can't be {word}")
    return value


def _nginx_double(value: str) -> str:
    _refuse(value, "$")  # nginx can't escape it
    return value.replace("\\", "\\\\").replace('"', '\\"')


def _nginx_single(value: str) -> str:
    _refuse(value, "$")
    return value.replace("\\", "\\\\").replace("'", "\\'")


def _nginx_quoted(value: str) -> str:
    return f'"{_nginx_double(value)}"'


def _shell(value: str) -> str:
    _refuse(value, "&")  # it would end one command of a shell and begin another
    return value


def _circus_value(value: str) -> str:
    """A value that Circus' parser and its references leave alone."""
    if value != value.strip():
        raise ValueError("can't begin or end with a blank")
    if re.search(r"(?:^|\s);", value):
        raise ValueError("can't have ; at its beginning or after a blank")
    if re.search(r"\(circus|\(\(", value, re.IGNORECASE):
        raise ValueError("can't have (circus or ((")
    if not value.strip('"'):
        raise ValueError('can\'t be "" alone')
    return value


def _circus_env(value: str) -> str:
    """One of an ``[env]`` section, where Circus puts variables in."""
    if re.search(r"\$(?:[A-Z]|$)", value):
        raise ValueError("can't have $ before a capital or at its end")
    return _circus_value(value)


def _circus_command(value: str) -> str:
    _refuse(value, "$WID")
    if not value.strip('"'):
        return value  # quotes are escaped, so that none of them stands alone
    return _circus_value(value)


def _circus_word(value: str) -> str:
    if re.fullmatch(r"[\w@%+=:,./-]+", value, re.ASCII):
        return value
    return "'" + _circus_single(value) + "'"


def _circus_single(value: str) -> str:
    return _circus_command(value).replace("'", "'\"'\"'")


def _circus_double(value: str) -> str:
    return _circus_command(value).replace("\\", "\\\\").replace('"', '\\"')


# How a value is written, by what stands around it.
FORMS: dict[str, Callable[[str], str]] = {
    "word": _as_it_is,
    "comment": _as_it_is,
    "nginx-line": _nginx_key,
    "nginx-key": _nginx_key,
    "nginx-quoted": _nginx_quoted,
    "nginx-double": _nginx_double,
    "nginx-single": _nginx_single,
    "shell": _shell,
    "circus-value": _circus_value,
    "circus-env": _circus_env,
    "circus-word": _circus_word,
    "circus-double": _circus_double,
    "circus-single": _circus_single,
}

_OURS = ".settings-"


def write(
    settings: Settings, values: Mapping[str, str], run_directory: str, *, moved: bool = False
) -> dict[str, str]:
    """Render all documents into the run directory; where each one is, by its normal path.

    The whole set changes at once: ``settings`` in the run directory is a symbolic link to a
    directory of one rendering.  When a :class:`SettingsProblem` is raised, nothing has changed.
    In an image the normal paths lead there; where they don't, documents that are ``moved``
    name each other where they are now.
    """
    if not settings.documents:
        return {}
    link = os.path.join(run_directory, "settings")
    new = _written_aside(settings, values, run_directory, link=link if moved else "")
    try:
        os.symlink(os.path.basename(new), f"{new}.link")
        os.rename(f"{new}.link", link)
    except OSError as error:
        _remove(f"{new}.link")
        _remove(new)
        raise _unwritable(run_directory, error) from error
    try:
        names = os.listdir(run_directory)
    except OSError:  # it can be written and not be read: what is old stays
        names = []
    for old in names:
        if old.startswith(_OURS) and old != os.path.basename(new):
            _remove(os.path.join(run_directory, old))
    return {document.path: link + document.path for document in settings.documents}


class Trial:
    """All documents beside those in use, for as long as a ``with`` lasts.

    It gives the place of each by its normal path, which is behind ``directory``; they name each
    other there.  A :class:`SettingsProblem` is raised as by :func:`write`.
    """

    def __init__(
        self, settings: Settings, values: Mapping[str, str], run_directory: str
    ) -> None:
        self.directory = ""
        self._given = settings, values, run_directory

    def __enter__(self) -> dict[str, str]:
        settings = self._given[0]
        self.directory = _written_aside(*self._given)
        return {
            document.path: self.directory + document.path for document in settings.documents
        }

    def __exit__(self, *_: object) -> None:
        _remove(self.directory)


def _written_aside(
    settings: Settings, values: Mapping[str, str], run_directory: str, link: str | None = None
) -> str:
    """A new directory in the run directory with all documents, or a :class:`SettingsProblem`.

    They name each other below ``link``, or where they are now; with an empty one by their
    normal paths.
    """
    new = os.path.join(run_directory, f"{_OURS}{os.urandom(6).hex()}")
    problems: list[str] = []
    texts: list[tuple[Document, bytes]] = []
    for document in settings.documents:
        text, found = _rendered(document, values)
        if link != "":
            text = _moved(text, link or new, settings.documents)
        texts.append((document, text.encode("utf-8")))
        problems += found
    if not problems:
        problems += _foreign(run_directory)
    if problems:
        raise SettingsProblem(dict.fromkeys(problems))
    try:
        os.mkdir(new, 0o700)
        for document, content in texts:
            _create(new, document, content)
        if link != "":
            _link_neighbours(new, settings.documents)
    except OSError as error:
        _remove(new)
        raise _unwritable(run_directory, error) from error
    return new


def _unwritable(run_directory: str, error: OSError) -> SettingsProblem:
    return SettingsProblem(
        (f"the settings can't be written to {run_directory}: {error.strerror}",)
    )


def _link_neighbours(new: str, documents: Iterable[Document]) -> None:
    """Links to what lies beside documents: a relative include starts at its file."""
    for directory in {os.path.dirname(document.path) for document in documents}:
        for name in os.listdir(directory) if os.path.isdir(directory) else ():
            link = new + os.path.join(directory, name)
            if not os.path.lexists(link):
                os.symlink(os.path.join(directory, name), link)


def _moved(text: str, link: str, documents: Iterable[Document]) -> str:
    """A text that names other documents, with the paths that they have below ``link``."""
    longest_first = sorted((document.path for document in documents), key=len, reverse=True)
    paths = "|".join(map(re.escape, longest_first))
    return re.sub(
        rf"(?<![\w./-])(?:{paths})(?![\w/-]|\.\w)", lambda found: link + found[0], text
    )


class Applied:
    """What has been done with the settings.

    ``environment`` is what the application gets, ``changed`` the names of the variables that
    have set something, ``documents`` where each document is now.
    """

    __slots__ = ("changed", "documents", "environment", "warnings")

    def __init__(
        self,
        environment: dict[str, str],
        changed: Sequence[str],
        documents: dict[str, str],
        warnings: Sequence[str],
    ) -> None:
        self.environment = environment
        self.changed = tuple(changed)
        self.documents = documents
        self.warnings = tuple(warnings)


def apply(
    directory: str, run_directory: str, environ: Mapping[str, str], *, moved: bool = False
) -> Applied:
    """Read the environment, check it and render the documents of ``directory``.

    When a variable has changed something, nginx tests what it is to run before it is in its
    place.  A :class:`SettingsProblem` has all that is wrong; then nothing has changed.
    """
    settings = load(directory)
    found = read(settings, environ)
    changed = [one.env for one in settings.settings if one.name in found.changed]
    if changed and (program := find_nginx()):
        tested = [document.path for document in settings.documents if _is_whole(document)]
        if tested:
            trial = Trial(settings, found.values, run_directory)
            with trial as places:
                names = {
                    word.lower(): one.env
                    for one in settings.settings
                    if one.name in found.changed
                    for word in found.values[one.name].split()
                }
                said = [
                    line for path in tested for line in _tested(program, places[path], names)
                ]
            if said:
                raise SettingsProblem(line.replace(trial.directory, "") for line in said)
    documents = write(settings, found.values, run_directory, moved=moved)
    environment = {**found.environment, APPLIED: directory}
    return Applied(environment, changed, documents, found.warnings)


def _is_whole(document: Document) -> bool:
    """Whether a document is nginx's, can stand alone, and has a place for a setting."""
    if document.format != "nginx":
        return False
    literals = [piece for piece in document.pieces if isinstance(piece, str)]
    return len(literals) < len(document.pieces) and any(
        re.search(r"^\s*events\b", literal, re.MULTILINE) for literal in literals
    )


def _tested(program: str, path: str, names: Mapping[str, str]) -> Iterator[str]:
    """What nginx says of a configuration.

    That two servers have one of the ``names``, each with its variable, is a warning of nginx,
    which takes the first then: what the other one protects would be open.
    """
    # subprocess takes as long to import as nginx to run
    reading, writing = os.pipe()
    try:
        process = os.posix_spawn(
            program,
            [program, "-t", "-q", "-e", "stderr", "-c", path],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, writing, 1),
                (os.POSIX_SPAWN_DUP2, writing, 2),
            ],
        )
    except OSError as error:
        os.close(reading)
        yield f"{program} can't be run: {error.strerror}"
        return
    finally:
        os.close(writing)
    with open(reading, encoding="utf-8", errors="replace") as stream:
        lines = stream.read().splitlines()
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    if code:
        said = [
            re.sub(r"^.*?\[emerg\] (?:\d+#\d+: )?", "nginx: ", line)
            for line in lines
            if "[emerg]" in line
        ]
        yield from said or lines or [f"nginx -t ended with {code}"]
        return
    for line in lines:
        conflict = re.search(r'conflicting server name "([^"]*)" on ([^ ,]+)', line)
        if conflict and conflict[1] in names:
            yield f"{names[conflict[1]]} has a name of another site on {conflict[2]}"


def _foreign(run_directory: str) -> Iterator[str]:
    """What is wrong with a run directory: it must be private, or what the engine has made."""
    try:
        found = os.lstat(run_directory)
        link = os.path.join(run_directory, "settings")
        # of a directory that root has made, this user may be in the group
        writable = 0o022 if found.st_uid == os.geteuid() else 0o002
        if not stat.S_ISDIR(found.st_mode):
            yield f"the run directory {run_directory} is no directory"
        elif found.st_uid not in (os.geteuid(), 0):
            yield (
                f"the run directory {run_directory} belongs to user {found.st_uid}, not to "
                f"user {os.geteuid()}"
            )
        elif found.st_mode & writable and not found.st_mode & stat.S_ISVTX:
            yield f"the run directory {run_directory} can be written by other users"
        elif os.path.lexists(link) and stat.S_ISDIR(os.lstat(link).st_mode):
            yield f"{link} is a directory, where a symbolic link is to be; remove it"
    except OSError as error:
        yield f"the run directory {run_directory} can't be used: {error.strerror}"


def _create(directory: str, document: Document, content: bytes) -> None:
    path = directory + document.path
    os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
    # a script stays one
    mode = 0o600 | document.mode & 0o100
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(file, "wb") as stream:
        stream.write(content)


def _remove(path: str) -> None:
    """Remove an old rendering or its link, if it is ours; what resists stays."""
    try:
        found = os.lstat(path)
        if found.st_uid != os.geteuid():
            return
        if not stat.S_ISDIR(found.st_mode):
            if stat.S_ISLNK(found.st_mode):
                os.unlink(path)
            return
        for place, directories, files in os.walk(path, topdown=False):
            for name in files:
                os.unlink(os.path.join(place, name))
            for name in directories:
                inner = os.path.join(place, name)
                if os.path.islink(inner):
                    os.unlink(inner)
                else:
                    os.rmdir(inner)
        os.rmdir(path)
    except OSError:
        pass


# -- for people and for applications


def table(settings: Settings) -> str:
    """All settings and secrets, one a line: the variable, what it may be, its default."""
    rows = [("VARIABLE", "TYPE", "DEFAULT")]
    for setting in settings.settings:
        words = [setting.type, *setting.choices]
        words += [f"min={setting.minimum}"] * bool(setting.minimum)
        words += [f"max={setting.maximum}"] * bool(setting.maximum)
        default = "(required)" if setting.required else setting.default or '""'
        if setting.default and setting.looks_secret:
            default = "(not shown)"
        rows.append((setting.env, " ".join(words), "(CPUs)" if setting.cpus else default))
    rows += [(secret, "secret", "") for secret in settings.secrets]
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    return "".join(
        f"{name:{first}}  {kind:{second}}  {default}".rstrip() + "\n"
        for name, kind, default in rows
    )


def typed(
    settings: Settings, values: Mapping[str, str]
) -> dict[str, int | bool | float | str | list[str]]:
    """The values as an application wants them: sizes in bytes, times in seconds."""
    found: dict[str, int | bool | float | str | list[str]] = {}
    for setting in settings.settings:
        value = values[setting.name]
        if setting.type == "bool":
            found[setting.name] = value == "true"
        elif setting.type == "duration":
            milliseconds = amount("duration", value)
            whole = milliseconds % 1000 == 0
            found[setting.name] = milliseconds // 1000 if whole else milliseconds / 1000
        elif setting.type in _LIMITED:
            found[setting.name] = amount(setting.type, value)
        elif setting.type in LISTS:
            found[setting.name] = value.split()
        else:
            found[setting.name] = value
    return found


def amount(kind: str, value: str) -> int:
    """A value as a number: of bytes for a size, of milliseconds for a duration."""
    if kind == "size":
        unit = value[-1].lower() if value[-1].isalpha() else ""
        return int(value[: len(value) - len(unit)]) * _UNITS[unit]
    if kind == "duration":
        parts = re.findall(r"([0-9]+)(ms|[a-zA-Z]?)", value)
        return sum(int(number) * _MILLISECONDS[unit or "s"] for number, unit in parts)
    return int(value)
